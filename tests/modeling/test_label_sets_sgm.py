import itertools
import math

import numpy as np
import pytest
import torch

from sgm_hf.modeling import LabelConstraints, SGMConfig, select_labels
from sgm_hf.modeling.label_sets_sgm import (
    SET_DECODINGS,
    checked_set_decoding,
    expected_f1_label_sets,
    label_scores_from_hypotheses,
)


def all_sets(num_labels):
    """Every set of the labels 0 to L - 1, sorted."""
    return [list(s) for size in range(num_labels + 1) for s in itertools.combinations(range(num_labels), size)]


def as_sequences(label_sets, num_labels):
    """Hypotheses of one document: bos, labels, eos, padding; (1, K, n)."""
    width = max(map(len, label_sets)) + 2
    rows = [[num_labels + 1, *labels, num_labels] for labels in label_sets]
    return torch.tensor([[row + [num_labels + 2] * (width - len(row)) for row in rows]])


def f1(predicted, gold):
    """F1 of two sets; 1 where both are empty."""
    total = len(predicted) + len(gold)
    return 2 * len(set(predicted) & set(gold)) / total if total else 1.0


def expected_f1(predicted, label_sets, log_probs):
    """The F1 of a set under a distribution over sets that need not be normalised."""
    weights = np.exp(np.asarray(log_probs, dtype=np.float64) - max(log_probs))
    return float(weights @ [f1(predicted, labels) for labels in label_sets] / weights.sum())


def random_hypotheses(generator, possible, count):
    """Some of the possible sets, permuted, a set perhaps twice, with log-probabilities."""
    chosen = [generator.permutation(possible[i]).tolist() for i in generator.integers(len(possible), size=count)]
    return chosen, (3 * generator.standard_normal(count)).tolist()


def test_expected_f1_equals_brute_force_over_all_sets_and_a_threshold_of_one_half_does_not():
    reached, possible, thresholded = 0.0, 0.0, 0.0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        num_labels = 1 + seed % 5
        label_sets, log_probs = random_hypotheses(generator, all_sets(num_labels), int(generator.integers(1, 40)))
        sequences, scores = as_sequences(label_sets, num_labels), torch.tensor([log_probs])
        (chosen,) = expected_f1_label_sets(sequences, scores, num_labels)
        assert len(chosen) == len(set(chosen))
        best = max(expected_f1(s, label_sets, log_probs) for s in all_sets(num_labels))
        assert expected_f1(chosen, label_sets, log_probs) == pytest.approx(best, abs=1e-5)
        (above_half,) = select_labels(label_scores_from_hypotheses(sequences, scores, num_labels), 0.5)
        reached += expected_f1(chosen, label_sets, log_probs)
        thresholded += expected_f1(above_half, label_sets, log_probs)
        possible += best
    assert reached == pytest.approx(possible, rel=1e-5)
    assert thresholded < possible - 3


def test_a_set_larger_than_every_hypothesis_may_have_the_greatest_expected_f1():
    # {0} and {1} alike: one of them reaches 1/2, both together 2/3; a threshold above one half takes neither.
    sequences, log_probs = as_sequences([[0], [1]], 2), torch.zeros(1, 2)
    assert sorted(expected_f1_label_sets(sequences, log_probs, 2)[0]) == [0, 1]
    assert select_labels(label_scores_from_hypotheses(sequences, log_probs, 2), 0.6) == [[]]


def test_permutations_of_one_set_add_up():
    # Each order of {0, 1} is less probable than the empty set, which is less probable than both together.
    log_probs = torch.tensor([[0.3, 0.3, 0.4]]).log()
    assert sorted(expected_f1_label_sets(as_sequences([[0, 1], [1, 0], []], 2), log_probs, 2)[0]) == [0, 1]


CONSTRAINTS = [
    {"min_labels": 2},
    {"max_labels": 1},
    {"max_labels": 0},
    {"min_labels": 1, "max_labels": 3},
    {"required_labels": [3]},
    {"required_labels": [3], "max_labels": 2},
    {"required_labels": [3, 1], "max_labels": 3},
    {"label_hierarchy": {0: 4, 1: 4, 2: 1}},
    {"label_hierarchy": {0: 4, 1: 4, 2: 1}, "required_labels": [2], "max_labels": 4},
    {"label_hierarchy": {0: 1, 1: 2, 2: 3}, "min_labels": 2, "max_labels": 2},
    {"forbidden_labels": [0, 1], "min_labels": 1},
]


def obeys(labels, constraints):
    """The constraints, read literally on a set of five labels."""
    hierarchy = constraints.get("label_hierarchy", {})
    return (
        constraints.get("min_labels", 0) <= len(labels) <= constraints.get("max_labels", 5)
        and set(constraints.get("required_labels", ())) <= set(labels)
        and not set(constraints.get("forbidden_labels", ())) & set(labels)
        and all(hierarchy[label] in labels for label in labels if label in hierarchy)
    )


@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=str)
def test_within_constraints_expected_f1_equals_brute_force_over_the_sets_that_obey(constraints):
    possible = [labels for labels in all_sets(5) if obeys(labels, constraints)]
    keeper = LabelConstraints(SGMConfig(num_labels=5), **constraints)
    hierarchy = constraints.get("label_hierarchy", {})
    for seed in range(60):
        generator = np.random.default_rng(seed)
        label_sets, log_probs = random_hypotheses(generator, possible, int(generator.integers(1, 9)))
        if seed % 3 == 0:  # many ties, and hypotheses whose probability vanishes beside the best
            log_probs = generator.choice([0.0, -300.0], len(log_probs)).tolist()
        (chosen,) = keeper.select_expected_f1(as_sequences(label_sets, 5), torch.tensor([log_probs]))
        assert obeys(chosen, constraints), (label_sets, log_probs, chosen)
        assert all(hierarchy[label] in chosen[:i] for i, label in enumerate(chosen) if label in hierarchy)
        best = max(expected_f1(s, label_sets, log_probs) for s in possible)
        assert expected_f1(chosen, label_sets, log_probs) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=str)
def test_within_constraints_thresholds_of_each_label_give_sets_that_obey(constraints):
    possible = [labels for labels in all_sets(5) if obeys(labels, constraints)]
    keeper = LabelConstraints(SGMConfig(num_labels=5), **constraints)
    for seed in range(60):
        generator = np.random.default_rng(seed)
        label_sets, log_probs = random_hypotheses(generator, possible, int(generator.integers(1, 9)))
        scores = label_scores_from_hypotheses(as_sequences(label_sets, 5), torch.tensor([log_probs]), 5)
        for threshold in (float(generator.uniform(0.01, 1)), generator.uniform(0.01, 1, 5).tolist(), 1.0):
            (chosen,) = keeper.select(scores, threshold)
            assert obeys(chosen, constraints), (label_sets, log_probs, threshold, chosen)
            assert chosen == sorted(chosen, key=lambda label: -scores[0, label].item())


def test_a_minimum_holds_where_a_smaller_set_has_the_greater_expected_f1():
    sequences, log_probs = as_sequences([[0, 1], [0, 2], [0, 3], [0, 4]], 5), torch.tensor([[0.1, 0.0, 0.0, 0.0]])
    assert expected_f1_label_sets(sequences, log_probs, 5) == [[0]]
    assert expected_f1_label_sets(sequences, log_probs, 5, min_labels=2) == [[0, 1]]


def test_no_label_comes_twice_where_fewer_labels_were_found_than_are_asked_for():
    sequences = as_sequences([[0, 1], [1, 0], [1, 1]], 5)  # without the label mask a label may be repeated
    assert sorted(expected_f1_label_sets(sequences, torch.zeros(1, 3), 5, min_labels=4)[0]) == [0, 1]


def test_a_certain_label_is_kept_and_an_impossible_one_never_taken_whatever_their_thresholds():
    keeper = LabelConstraints(SGMConfig(num_labels=4), required_labels=[3], max_labels=2)
    scores = torch.tensor([[0.5, 0.5, 0.0, 1.0]])
    assert keeper.select(scores, [0.1, 0.2, 0.1, 0.9]) == [[3, 0]]
    keeper = LabelConstraints(SGMConfig(num_labels=4), forbidden_labels=[2], min_labels=1)
    assert keeper.select(torch.tensor([[0.3, 0.2, 0.0, 0.2]]), [0.9, 0.9, 0.01, 0.9]) == [[0]]


@pytest.mark.parametrize("hierarchy", [None, {1: 0}], ids=["no hierarchy", "hierarchy"])
def test_only_labels_that_were_found_are_taken_where_another_document_has_more(hierarchy):
    keeper = LabelConstraints(SGMConfig(num_labels=5), min_labels=2, label_hierarchy=hierarchy)
    # The second hypothesis of the second document has a probability that vanishes, so that its label gains nothing.
    sequences = torch.cat([as_sequences([[0, 1], [2, 3]], 5), as_sequences([[0, 0], [0, 1]], 5)])
    log_probs = torch.tensor([[0.0, -1.0], [0.0, -300.0]])
    assert keeper.select_expected_f1(sequences, log_probs) == [[0, 1], [0, 1]]


def test_one_hypothesis_is_the_set_of_greatest_expected_f1():
    for labels in all_sets(4):
        assert sorted(expected_f1_label_sets(as_sequences([labels], 4), torch.tensor([[-3.0]]), 4)[0]) == labels


def test_labels_of_hypotheses_that_do_not_count_do_not_count():
    sequences = as_sequences([[0, 1], [2, 3], [3]], 4)
    log_probs = torch.tensor([[-1.0, -math.inf, -math.inf]])
    assert sorted(expected_f1_label_sets(sequences, log_probs, 4, min_labels=2)[0]) == [0, 1]
    assert label_scores_from_hypotheses(sequences, log_probs, 4).tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_where_no_hypothesis_counts_there_is_no_label_and_no_score():
    sequences, log_probs = as_sequences([[0, 1], [2]], 4), torch.full((1, 2), -math.inf)
    assert expected_f1_label_sets(sequences, log_probs, 4, min_labels=1) == [[]]
    assert label_scores_from_hypotheses(sequences, log_probs, 4).tolist() == [[0.0] * 4]


def test_no_documents_give_no_sets():
    sequences, log_probs = torch.zeros(0, 3, 4, dtype=torch.long), torch.zeros(0, 3)
    assert expected_f1_label_sets(sequences, log_probs, 5) == []
    assert select_labels(label_scores_from_hypotheses(sequences, log_probs, 5), 0.5) == []


def test_a_document_has_the_same_set_alone_and_among_others():
    generator = torch.Generator().manual_seed(0)
    sequences = torch.randint(0, 12, (40, 6, 7), generator=generator)
    sequences[20:, :, 3:] = 14
    log_probs = torch.randn(40, 6, generator=generator)
    together = expected_f1_label_sets(sequences, log_probs, 12)
    alone = [expected_f1_label_sets(sequences[i : i + 1], log_probs[i : i + 1], 12)[0] for i in range(40)]
    assert together == alone


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_label_of_all_hypotheses_scores_exactly_one_and_none_scores_more(dtype):
    generator = torch.Generator().manual_seed(0)
    for num_hypotheses in (*range(1, 20), 33, 64, 100):
        for num_labels in (1, 2, 5, 8, 17, 64):
            is_in = torch.rand(20, num_hypotheses, num_labels, generator=generator) < 0.7
            is_in[:, :, num_labels // 2] = True
            labels = torch.arange(num_labels).where(is_in, num_labels + 2)
            log_probs = (4 * torch.randn(20, num_hypotheses, generator=generator)).to(dtype)
            scores = label_scores_from_hypotheses(labels, log_probs, num_labels)
            assert scores.dtype in (torch.float32, torch.float64)
            assert (scores[is_in.all(dim=1)] == 1.0).all()
            assert (scores >= 0).all() and (scores <= 1).all()
            for chosen in select_labels(scores, 1.0):
                assert num_labels // 2 in chosen


@pytest.mark.parametrize("shift", [-200.0, -2000.0, -1e30])
def test_scores_and_sets_do_not_depend_on_how_improbable_all_hypotheses_are(shift):
    sequences = as_sequences([[0, 1], [1, 2], [3]], 4)
    log_probs = torch.tensor([[-1.0, -2.0, -0.5]]) if shift > -1e29 else torch.zeros(1, 3)
    scores = label_scores_from_hypotheses(sequences, log_probs + shift, 4)
    torch.testing.assert_close(scores, label_scores_from_hypotheses(sequences, log_probs, 4), rtol=1e-3, atol=0)
    same = expected_f1_label_sets(sequences, log_probs + shift, 4), expected_f1_label_sets(sequences, log_probs, 4)
    assert same[0] == same[1]


def test_one_hypothesis_far_below_the_others_keeps_scores_finite():
    scores = label_scores_from_hypotheses(as_sequences([[0], [1]], 2), torch.tensor([[0.0, -200.0]]), 2)
    assert scores.tolist() == [[1.0, 0.0]]


def test_a_threshold_for_each_label_is_applied_to_that_label():
    scores = torch.tensor([[0.9, 0.2, 0.6], [0.1, 0.25, 0.3]])
    assert select_labels(scores, [0.95, 0.2, 0.5]) == [[2, 1], [1]]
    # The nearest to its threshold is added first, the one farthest above it kept.
    assert select_labels(scores, [0.95, 0.2, 0.5], min_labels=3) == [[0, 2, 1], [2, 1, 0]]
    assert select_labels(scores, [0.95, 0.2, 0.5], min_labels=2) == [[2, 1], [2, 1]]
    assert select_labels(scores, [0.85, 0.2, 0.5], max_labels=1) == [[2], [1]]
    assert select_labels(scores, [0.5, 0.5, 0.5]) == select_labels(scores, 0.5)


@pytest.mark.parametrize(
    ("threshold", "error", "message"),
    [
        (0.0, ValueError, r"must lie in \(0, 1\], got 0.0"),
        (1.5, ValueError, "got 1.5"),
        (math.nan, ValueError, "got nan"),
        ([0.5, 0.5, 2.0], ValueError, "got 2.0"),
        ([0.5, 0.5], ValueError, "one for each of the 3 labels"),
        (None, TypeError, "label_threshold is None"),
        ("half", TypeError, "label_threshold is 'half'"),
    ],
)
def test_a_threshold_that_is_none_is_refused(threshold, error, message):
    with pytest.raises(error, match=message):
        select_labels(torch.rand(2, 3), threshold)


def test_many_labels_cost_no_more_than_those_that_occur():
    generator = torch.Generator().manual_seed(0)
    sequences = torch.randint(0, 10**9, (64, 5, 8), generator=generator)  # a matrix over all labels would not fit
    (first, *_) = expected_f1_label_sets(sequences, torch.zeros(64, 5), 10**9)
    assert set(first) <= set(sequences[0].flatten().tolist())


def test_set_decodings_are_known_by_name():
    assert checked_set_decoding(None) == "best_sequence"
    assert [checked_set_decoding(name) for name in SET_DECODINGS] == list(SET_DECODINGS)
    with pytest.raises(ValueError, match="set_decoding is 'f1'; choose one of best_sequence, threshold, expected_f1"):
        checked_set_decoding("f1")
