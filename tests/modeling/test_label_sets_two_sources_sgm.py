"""Hypotheses and the words together: `label_sets_sgm.py`, from `reweighted_log_probs` on."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sgm_hf.modeling import LabelConstraints, SGMConfig
from sgm_hf.modeling.label_sets_sgm import (
    best_hypotheses,
    combined_scores,
    constrained_scores,
    expected_f1_sets_from_scores,
    interpolated_scores,
    label_scores_from_hypotheses,
    reweighted_log_probs,
)

CALIBRATIONS = [(), (1.3, -0.4), (0.6, 0.9, -0.5)]


def hypotheses_of(label_sets, num_labels):
    """One document: bos, labels, eos, padding; (1, K, n)."""
    width = max(map(len, label_sets)) + 2
    rows = [[num_labels + 1, *labels, num_labels] for labels in label_sets]
    return torch.tensor([[row + [num_labels + 2] * (width - len(row)) for row in rows]])


def random_hypotheses(generator, documents, count, num_labels):
    """(B, K, n), of random sets in random orders, some of which appear twice."""
    rows = []
    for _ in range(documents * count):
        size = int(generator.integers(0, 4))
        labels = generator.permutation(num_labels)[:size].tolist()
        rows.append([num_labels + 1, *labels, num_labels] + [num_labels + 2] * (3 - size))
    return torch.tensor(rows).view(documents, count, -1)


def test_without_weight_and_temperature_the_log_probabilities_are_the_same_bit_for_bit():
    log_probs = torch.tensor([[-0.1, -2.3, float("-inf")]], dtype=torch.bfloat16)
    logits = torch.full((1, 4), float("inf"))
    result = reweighted_log_probs(log_probs, hypotheses_of([[0], [1, 2], []], 4), logits, 0.0, 1.0)
    assert result.dtype == torch.bfloat16 and torch.equal(result, log_probs)


def test_reweighting_follows_its_formula_and_a_repeated_label_counts_once():
    generator = np.random.default_rng(0)
    hypotheses = random_hypotheses(generator, 40, 6, 5)
    hypotheses[0, 0] = torch.tensor([6, 3, 3, 5, 7])
    log_probs = torch.tensor(generator.normal(size=(40, 6)))
    log_probs[3], log_probs[4, 2] = float("-inf"), float("-inf")
    logits = torch.tensor(3 * generator.normal(size=(40, 5)))
    result = reweighted_log_probs(log_probs, hypotheses, logits, 1.5, 2.0)
    for b, k in itertools.product(range(40), range(6)):
        labels = {i for i in hypotheses[b, k].tolist() if i < 5}
        expected = (log_probs[b, k] + 1.5 * sum(logits[b, i].item() for i in labels)) / 2.0
        assert result[b, k].item() == pytest.approx(expected.item(), rel=1e-12), (b, k)
    assert result[3].isneginf().all() and not result.isnan().any()


def test_log_odds_without_bound_leave_no_nan():
    logits = torch.tensor([[float("inf"), float("-inf")]])
    log_probs = torch.tensor([[0.0, float("-inf"), -1.0]])
    result = reweighted_log_probs(log_probs, hypotheses_of([[0, 1], [0], [1]], 2), logits, 4.0, 1.0)
    assert result.tolist() == [[0.0, float("-inf"), -321.0]]


@pytest.mark.parametrize(
    ("weight", "temperature"), [(-0.1, 1.0), (float("nan"), 1.0), (0.0, 0.0), (1.0, float("inf"))]
)
def test_a_weight_or_temperature_without_sense_is_refused(weight, temperature):
    with pytest.raises(ValueError, match="lexical_weight is"):
        reweighted_log_probs(torch.zeros(1, 1), hypotheses_of([[]], 1), torch.zeros(1, 1), weight, temperature)


def test_the_best_hypothesis_has_the_set_of_greatest_total_weight_and_is_its_most_probable_order():
    generator = np.random.default_rng(1)
    hypotheses = random_hypotheses(generator, 300, 8, 3)
    log_probs = torch.tensor(generator.normal(size=(300, 8)))
    log_probs[torch.tensor(generator.random((300, 8)) < 0.2)] = float("-inf")
    chosen = best_hypotheses(hypotheses, log_probs, 3).tolist()
    differs = 0
    for b, place in enumerate(chosen):
        sets = [frozenset(i for i in row if i < 3) for row in hypotheses[b].tolist()]
        weights = log_probs[b].exp().tolist()
        total = {s: sum(w for other, w in zip(sets, weights, strict=True) if other == s) for s in sets}
        best = max(total, key=lambda s: total[s])
        assert sets[place] == best
        assert weights[place] == max(w for s, w in zip(sets, weights, strict=True) if s == best)
        differs += place != int(np.argmax(weights))
    assert differs > 30


def test_where_no_hypothesis_counts_the_first_is_named_and_of_sets_alike_that_of_the_most_probable_order():
    hypotheses = hypotheses_of([[0, 1], [1, 0], [2]], 3).expand(3, -1, -1)
    log_probs = torch.tensor([[float("-inf")] * 3, [np.log(0.25), np.log(0.25), np.log(0.5)], [0.0, 0.0, 0.0]])
    assert best_hypotheses(hypotheses, log_probs, 3).tolist() == [0, 2, 0]


def test_the_plain_combination_is_the_mean_of_both_probabilities():
    marginals, logits = torch.tensor([[0.0, 0.3, 1.0]]), torch.tensor([[-2.0, 0.5, 3.0]])
    expected = (marginals + logits.sigmoid()) / 2
    assert torch.equal(combined_scores(marginals, logits), expected)
    platt = combined_scores(marginals, logits, (2.0, -1.0))
    assert torch.allclose(platt, (2 * expected.logit() - 1).sigmoid())
    both = combined_scores(marginals, logits, (2.0, 0.5, -1.0))
    assert torch.allclose(both, (2 * marginals.clamp(0.001, 0.999).logit() + 0.5 * logits - 1).sigmoid())


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_no_free_label_is_certain_or_impossible_even_where_denormals_are_flushed(calibration, dtype):
    extremes = torch.tensor([-1e30, -1e3, -104.0, -90.0, 0.0, 17.0, 1e3, 1e30]).repeat(3, 1)
    marginals = torch.tensor([0.0, 0.5, 1.0 + 1e-6])[:, None].expand_as(extremes)
    torch.set_flush_denormal(True)
    scores = combined_scores(marginals.to(dtype), extremes.to(dtype), calibration)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-100, 100)), min_size=2, max_size=2))
@settings(max_examples=60, deadline=None)
def test_a_score_never_falls_when_a_source_rises(calibration, pair):
    (m1, z1), (m2, z2) = pair
    marginals = torch.tensor([[min(m1, m2), max(m1, m2)]], dtype=torch.float64)
    logits = torch.tensor([[min(z1, z2), max(z1, z2)]], dtype=torch.float64)
    low, high = combined_scores(marginals, logits, calibration)[0].tolist()
    assert low <= high * (1 + 1e-12)


@pytest.mark.parametrize(
    "calibration", [(1.0,), (1.0, 2.0, 3.0, 4.0), (-0.1, 0.0), (1.0, -1.0, 0.0), (float("nan"), 0)]
)
def test_a_calibration_without_sense_is_refused(calibration):
    with pytest.raises(ValueError, match="the calibration is"):
        combined_scores(torch.zeros(1, 2), torch.zeros(1, 2), calibration)


def test_a_curve_is_followed_between_its_points_and_ends():
    points = [[0.0, 0.0], [0.25, 0.1], [0.25, 0.2], [1.0, 0.8]]
    scores = torch.tensor([[-1e-6, 0.125, 0.25, 0.625, 1.0, 1.0 + 1e-6]])
    expected = torch.tensor([[0.0, 0.05, 0.1, 0.5, 0.8, 0.8]])
    result = interpolated_scores(scores, points)
    assert torch.allclose(result, expected, atol=1e-7) and (result > 0).all()
    with pytest.raises(ValueError, match="two or more rising pairs"):
        interpolated_scores(scores, [[0.0, 0.5], [1.0, 0.4]])
    with pytest.raises(ValueError, match="two or more rising pairs"):
        interpolated_scores(scores, [[0.0, 0.5]])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"required_labels": [2]},
        {"forbidden_labels": [0, 5]},
        {"label_hierarchy": {0: 4, 1: 4, 2: 1, 6: 5}},
        {"label_hierarchy": {0: 4, 1: 4, 2: 1, 6: 5}, "required_labels": [2], "forbidden_labels": [5]},
    ],
    ids=str,
)
def test_scores_within_constraints_say_what_these_decide_and_lead_to_sets_that_obey(options):
    keeper = LabelConstraints(SGMConfig(num_labels=7), **options)
    scores = torch.rand(50, 7, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    before = scores.clone()
    result = constrained_scores(scores, keeper.required, keeper.allowed, keeper.parents, keeper.num_ancestors)
    assert torch.equal(scores, before)
    allowed = torch.ones(7, dtype=torch.bool) if keeper.allowed is None else keeper.allowed
    assert (result[:, keeper.required] == 1).all() and (result[:, ~allowed] == 0).all()
    free = allowed.clone()
    free[keeper.required] = False
    assert ((result[:, free] > 0) & (result[:, free] < 1)).all()
    hierarchy = options.get("label_hierarchy", {})
    for child, parent in hierarchy.items():
        assert (result[:, parent] >= result[:, child]).all()
    roots_only = [i for i in range(7) if free[i] and i not in hierarchy.values()]
    assert torch.equal(result[:, roots_only], scores[:, roots_only])  # no other score moves
    limits = 0, None, keeper.num_ancestors
    for chosen in (
        *keeper.select(result, [0.9, 0.2, 0.5, 0.7, 0.3, 0.6, 0.4]),
        *expected_f1_sets_from_scores(result, *limits),
    ):
        assert set(keeper.required.tolist()) <= set(chosen) <= set(allowed.nonzero().flatten().tolist())
        assert all(hierarchy[label] in chosen[:i] for i, label in enumerate(chosen) if label in hierarchy)


def test_an_ancestor_of_a_long_chain_has_the_greatest_score_below_it():
    num_labels = 3000
    parents, num_ancestors = torch.arange(1, num_labels + 1), torch.arange(num_labels).flip(0)
    scores = torch.rand(2, num_labels, generator=torch.Generator().manual_seed(0))
    result = constrained_scores(scores, parents=parents, num_ancestors=num_ancestors)
    assert torch.equal(result, scores.cummax(dim=1).values)


def expected_f1(chosen, probs):
    """By enumeration of all sets that may be true."""
    total = 0.0
    for truth in itertools.product((0, 1), repeat=len(probs)):
        prob = np.prod([p if t else 1 - p for p, t in zip(probs, truth, strict=True)])
        size = len(chosen) + sum(truth)
        total += prob * (2 * sum(truth[i] for i in chosen) / size if size else 1.0)
    return total


def test_the_set_of_independent_labels_equals_brute_force_over_all_sets():
    below_half = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        num_labels = 1 + seed % 7
        probs = generator.beta(0.5, 1 + seed % 4, num_labels).clip(0.002, 0.999)
        if seed % 5 == 0:
            probs = generator.choice([0.25, 0.5, 1.0], num_labels)  # ties, and certain labels
        least, most = (0, None) if seed % 3 else (min(2, num_labels), min(3, num_labels))
        (chosen,) = expected_f1_sets_from_scores(torch.tensor(probs)[None], least, most)
        possible = [
            s
            for size in range(least, (most or num_labels) + 1)
            for s in itertools.combinations(range(num_labels), size)
        ]
        best = max(expected_f1(s, probs) for s in possible)
        assert expected_f1(chosen, probs) == pytest.approx(best, rel=1e-9), (probs, chosen)
        assert least <= len(chosen) <= (most or num_labels) and {i for i in range(num_labels) if probs[i] == 1} <= {
            *chosen,
            *(range(num_labels) if len(chosen) == most else ()),
        }
        below_half += any(probs[i] < 0.5 for i in chosen)
    assert below_half > 10


def test_a_set_does_not_depend_on_batch_mates_and_larger_sets_than_the_bound_are_no_better():
    generator = np.random.default_rng(3)
    probs = torch.tensor(generator.beta(0.15, 3, (20, 90)))
    probs[0], probs[1] = 0.0, 0.002
    together = expected_f1_sets_from_scores(probs)
    assert together == [expected_f1_sets_from_scores(row[None])[0] for row in probs]
    assert together[0] == []
    from sgm_hf.modeling.label_sets_sgm import _expected_f1_of_sizes

    ranked = probs.where(probs > 0.001, 0.0).sort(dim=1, descending=True).values
    for labels, f1 in zip(together, _expected_f1_of_sizes(ranked, 90), strict=True):
        assert f1[len(labels)].item() == pytest.approx(f1.max().item(), rel=1e-9)


def test_twenty_thousand_labels_and_no_document_are_decided():
    scores = torch.full((2, 20_000), 0.0005)
    scores[:, :3] = torch.tensor([0.9, 0.8, 0.1])
    assert expected_f1_sets_from_scores(scores) == [[0, 1], [0, 1]]
    assert expected_f1_sets_from_scores(scores, 4) == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert expected_f1_sets_from_scores(scores, 0, 0) == [[], []]
    assert expected_f1_sets_from_scores(scores[:0]) == []


def test_marginals_of_reweighted_hypotheses_are_bayes_rule():
    # Weights p(S) * exp(sum of log-odds): of {0} .5 * e, of {1} .5.
    log_probs = torch.tensor([[0.5, 0.5]]).log()
    hypotheses = hypotheses_of([[0], [1]], 2)
    weighted = reweighted_log_probs(log_probs, hypotheses, torch.tensor([[1.0, 0.0]]), 1.0, 1.0)
    scores = label_scores_from_hypotheses(hypotheses, weighted, 2)
    assert scores[0, 0].item() == pytest.approx(np.e / (np.e + 1))
