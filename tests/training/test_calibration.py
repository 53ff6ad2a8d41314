import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from sgm_hf.metrics import compute_metrics, compute_score_metrics, fit_threshold
from sgm_hf.modeling.label_sets_sgm import (
    MARGINAL_CLIP,
    best_hypotheses,
    combined_scores,
    interpolated_scores,
    label_scores_from_hypotheses,
    reweighted_log_probs,
)
from sgm_hf.training import calibration
from sgm_hf.training.calibration import (
    CRITERIA,
    choose_rule,
    cross_validated,
    fit_curve,
    fit_hypothesis_weights,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    fit_two_sources,
    log_odds,
    pool_adjacent_violators,
    probabilities,
)


def nll(scores, references):
    """Mean negative log-likelihood of a label."""
    return -np.log(np.where(references, scores, 1 - scores)).mean()


def expected_calibration_error(scores, references, bins=15):
    """Over bins of about as many scores each."""
    parts = np.array_split(np.argsort(scores, axis=None), bins)
    errors = [abs(scores.ravel()[part].mean() - references.ravel()[part].mean()) * len(part) for part in parts]
    return sum(errors) / scores.size


def generated(num_documents, num_labels, slope, intercept, seed):
    """Scores, and truth whose log-odds are slope * log-odds of the score + intercept."""
    generator = np.random.default_rng(seed)
    values = generator.normal(-1, 2, (num_documents, num_labels))
    references = generator.random(values.shape) < probabilities(slope * values + intercept)
    return probabilities(values), references


def test_platt_recovers_the_slope_and_intercept_of_generated_data_and_lowers_nll_and_ece_elsewhere():
    fit = fit_platt(*generated(4000, 20, 0.6, -0.7, 0))
    assert fit.values == pytest.approx([0.6, -0.7], abs=0.03)
    assert fit.nll_after < fit.nll_before - 0.05
    scores, references = generated(4000, 20, 0.6, -0.7, 1)
    calibrated = probabilities(fit.values[0] * log_odds(scores) + fit.values[1])
    assert nll(calibrated, references) < nll(scores, references) - 0.05
    assert expected_calibration_error(scores, references) > 0.08
    assert expected_calibration_error(calibrated, references) < 0.01


def test_temperature_recovers_that_of_generated_data_and_fits_worse_than_platt_where_there_is_a_shift():
    fit = fit_temperature(*generated(4000, 20, 0.5, 0.0, 2))
    assert fit.values == pytest.approx([0.5, 0.0], abs=0.02)
    shifted = generated(1000, 20, 0.5, -1.0, 3)
    assert fit_platt(*shifted).nll_after < fit_temperature(*shifted).nll_after < fit_temperature(*shifted).nll_before


def test_platt_equals_scikit_learn_on_the_targets_of_lin_lin_and_weng():
    scores, references = generated(60, 4, 0.8, -0.3, 4)
    positives = references.sum()
    high, low = (positives + 1) / (positives + 2), 1 / (references.size - positives + 2)
    target = np.where(references, high, low).ravel()
    x = log_odds(scores).reshape(-1, 1)
    twice, truth = np.concatenate([x, x]), np.repeat([1, 0], len(x))
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000)
    model.fit(twice, truth, sample_weight=np.concatenate([target, 1 - target]))
    expected = [model.coef_[0, 0], model.intercept_[0]]
    assert fit_platt(scores, references).values == pytest.approx(expected, rel=1e-4)


def two_sources(num_documents, weights, seed):
    """Marginals, many of them 0, lexical log-odds, and truth that follows both."""
    generator = np.random.default_rng(seed)
    marginals = probabilities(generator.normal(-2, 3, (num_documents, 15)))
    marginals[generator.random(marginals.shape) < 0.5] = 0.0
    logits = generator.normal(-1, 2, marginals.shape)
    clipped = log_odds(marginals.clip(MARGINAL_CLIP, 1 - MARGINAL_CLIP))
    truth = weights[0] * clipped + weights[1] * logits + weights[2]
    return marginals, logits, generator.random(marginals.shape) < probabilities(truth)


def test_two_sources_recover_the_weights_of_generated_data_and_equal_scikit_learn():
    marginals, logits, references = two_sources(4000, (0.4, 0.8, 0.5), 0)
    fit = fit_two_sources(marginals, logits, references)
    assert fit.values == pytest.approx([0.4, 0.8, 0.5], abs=0.05)
    clipped = log_odds(marginals.clip(MARGINAL_CLIP, 1 - MARGINAL_CLIP))
    x = np.stack([clipped.ravel(), logits.ravel()], axis=1)
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(x, references.ravel())
    assert fit.values == pytest.approx([*model.coef_[0], model.intercept_[0]], rel=1e-3)
    assert fit.nll_after == pytest.approx(nll(model.predict_proba(x)[:, 1], references.ravel()), rel=1e-6)


def test_two_sources_give_the_numbers_that_prediction_takes():
    marginals, logits, references = two_sources(2000, (0.4, 0.8, 0.5), 1)
    fit = fit_two_sources(marginals, logits, references)
    plain = combined_scores(torch.tensor(marginals), torch.tensor(logits)).numpy()
    after = combined_scores(torch.tensor(marginals), torch.tensor(logits), fit.values).numpy()
    assert nll(plain, references) == pytest.approx(fit.nll_before, rel=1e-9)
    assert nll(after, references) == pytest.approx(fit.nll_after, rel=1e-9)
    fit = fit_platt(plain, references)
    after = combined_scores(torch.tensor(marginals), torch.tensor(logits), fit.values).numpy()
    assert nll(after, references) == pytest.approx(fit.nll_after, rel=1e-9) and fit.nll_after < fit.nll_before


def test_a_source_that_contradicts_the_truth_gets_no_weight():
    marginals, logits, references = two_sources(1000, (0.3, 1.0, 0.0), 2)
    misleading = 1 - references * 0.5 - 0.3
    fit = fit_two_sources(misleading, logits, references)
    assert fit.values[0] == 0 and fit.values[1] > 0.5
    lexical = np.where(references, -1.0, 1.0)
    fit = fit_two_sources(marginals, lexical, references)
    assert fit.values[1] == 0 and fit.values[0] > 0.1
    fit = fit_two_sources(misleading, lexical, references)  # both do: the rank of one is kept
    assert sorted(fit.values[:2]) == [0, 0.001]
    # Nor does Platt turn the ranking round.
    assert fit_platt(misleading, references).values[0] > 0


@pytest.mark.parametrize("l2", [0.0, 100.0])
def test_newton_reaches_the_minimum_that_scipy_finds(l2):
    marginals, logits, references = two_sources(30, (0.4, 0.8, 0.5), 3)
    x = np.stack([log_odds(marginals.clip(MARGINAL_CLIP, 1 - MARGINAL_CLIP)).ravel(), logits.ravel()])
    positives = references.sum()
    target = np.where(references, (positives + 1) / (positives + 2), 1 / (references.size - positives + 2)).ravel()

    def loss(weights):
        values = weights[:2] @ x + weights[2]
        return (np.logaddexp(0, values) - target * values).sum() + l2 / 2 * (weights[:2] ** 2).sum()

    expected = minimize(loss, np.zeros(3), tol=1e-12)
    assert fit_two_sources(marginals, logits, references, l2).values == pytest.approx(expected.x, abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_pooled_steps_equal_scikit_learn(pairs):
    x = np.array(sorted(value for value, _ in pairs)) / 6
    truth = np.array([flag for _, flag in sorted(pairs, key=lambda pair: pair[0])])
    sizes, hits = pool_adjacent_violators(x, x[truth])
    assert (np.diff(hits / sizes) > 0).all() and sizes.sum() == len(x)
    expected = IsotonicRegression().fit_transform(x, truth)
    assert np.repeat(hits / sizes, sizes) == pytest.approx(expected, abs=1e-9)


def test_the_isotonic_curve_calibrates_what_no_line_of_log_odds_can_and_keeps_ranks():
    generator = np.random.default_rng(0)

    def sample():
        scores = generator.random((3000, 10))
        return scores, generator.random(scores.shape) < 0.1 + 0.5 * (scores > 0.4)

    scores, references = sample()
    fit = fit_isotonic(scores, references)
    assert len(fit.values) <= 64 and fit.nll_after < fit_platt(scores, references).nll_after
    scores, references = sample()
    calibrated = interpolated_scores(torch.tensor(scores), fit.values).numpy()
    assert nll(calibrated, references) < nll(scores, references) - 0.1
    assert expected_calibration_error(calibrated, references) < 0.02
    order = np.argsort(scores, axis=None)
    assert (np.diff(calibrated.ravel()[order]) > 0).all()
    assert 0 < calibrated.min() and calibrated.max() < 1


@pytest.mark.parametrize("fit", [fit_platt, fit_temperature, fit_isotonic])
@pytest.mark.parametrize("truth", ["none", "all", "perfect"])
@pytest.mark.parametrize("scores", ["varied", "constant", "zeros", "ones", "one_document"])
def test_degenerate_data_have_a_finite_fit(fit, truth, scores):
    generator = np.random.default_rng(0)
    made = {
        "varied": generator.random((20, 3)),
        "constant": np.full((20, 3), 0.3, dtype=np.float32),
        "zeros": np.zeros((20, 3)),
        "ones": np.ones((20, 3)),
        "one_document": generator.random((1, 3)),
    }[scores]
    references = {"none": made < -1, "all": made > -1, "perfect": made > 0.5}[truth]
    result = fit(made, references)
    assert np.isfinite(np.array(result.values)).all() and np.isfinite(result[1:]).all()
    logits = log_odds(made)
    assert np.isfinite(fit_two_sources(made, logits, references).values).all()
    if fit is fit_isotonic:
        calibrated = interpolated_scores(torch.tensor(made), result.values)
        combined_scores(calibrated, torch.tensor(logits))
    else:
        calibrated = combined_scores(torch.tensor(made), torch.tensor(logits), result.values)
    assert ((calibrated > 0) & (calibrated < 1)).all()


def test_what_cannot_be_fitted_is_refused():
    good, truth = np.full((2, 2), 0.5), np.eye(2, dtype=bool)
    for fit in (fit_platt, fit_temperature, fit_isotonic):
        with pytest.raises(TypeError, match="bool"):
            fit(good, truth.astype(int))
        with pytest.raises(ValueError, match="give the same"):
            fit(good[:1], truth)
        with pytest.raises(ValueError, match="one of each at least"):
            fit(good[:0], truth[:0])
        for wrong in (1.5, -0.5, np.nan):
            with pytest.raises(ValueError, match="give probabilities"):
                fit(np.full((2, 2), wrong), truth)
    with pytest.raises(ValueError, match="NaN for none"):
        fit_two_sources(good, np.full((2, 2), np.nan), truth)
    with pytest.raises(ValueError, match="max_points is 2"):
        fit_isotonic(good, truth, max_points=2)


def test_blocks_change_no_fit(monkeypatch):
    marginals, logits, references = two_sources(200, (0.4, 0.8, 0.5), 4)
    hypotheses, log_probs, z, truth = decoded(150, 5)

    def fits():
        return (
            fit_platt(marginals, references),
            fit_two_sources(marginals, logits, references),
            fit_isotonic(marginals, references),
            *(fit_hypothesis_weights(hypotheses, log_probs, z, truth, name) for name in CRITERIA),
        )

    whole = fits()
    monkeypatch.setattr(calibration, "_MAX_CELLS", 100)
    for one, other in zip(whole, fits(), strict=True):
        assert np.hstack([np.ravel(v) for v in one]) == pytest.approx(
            np.hstack([np.ravel(v) for v in other]), rel=1e-9
        )


def decoded(num_documents, seed, weight=1.5, temperature=2.0, num_labels=6):
    """Hypotheses whose true set is drawn from (log p + weight * sum of log-odds) / temperature."""
    generator = np.random.default_rng(seed)
    count = 5
    hypotheses = np.full((num_documents, count, 6), num_labels + 2)
    hypotheses[..., 0] = num_labels + 1
    contains = np.zeros((num_documents, count, num_labels), dtype=bool)
    for d in range(num_documents):
        for k in range(count):
            labels = generator.permutation(num_labels)[: generator.integers(0, 4)]
            hypotheses[d, k, 1 : 2 + len(labels)] = [*labels, num_labels]
            contains[d, k, labels] = True
    log_probs = generator.normal(-3, 3, (num_documents, count))
    log_probs[generator.random(log_probs.shape) < 0.1] = -np.inf
    log_probs[:, 0] = -3.0
    z = generator.normal(-1, 2, (num_documents, num_labels))
    weighted = (log_probs + weight * (contains * z[:, None]).sum(axis=2)) / temperature
    probs = np.exp(weighted - weighted.max(axis=1, keepdims=True))
    drawn = (generator.random((num_documents, 1)) * probs.sum(axis=1, keepdims=True) > probs.cumsum(axis=1)).sum(
        axis=1
    )
    return hypotheses, log_probs, z, contains[np.arange(num_documents), drawn]


def test_the_likelihood_of_true_sets_recovers_weight_and_temperature():
    for weight, temperature in ((1.5, 2.0), (0.0, 1.0), (3.0, 1.5)):
        fit = fit_hypothesis_weights(*decoded(3000, 6, weight, temperature), "likelihood")
        assert (fit.lexical_weight, fit.temperature) == (weight, temperature)
        assert fit.value >= fit.value_before


def by_prediction(hypotheses, log_probs, z, references, criterion, weight, temperature):
    """The criterion by the functions of prediction."""
    hypotheses, log_probs, z = torch.tensor(hypotheses), torch.tensor(log_probs), torch.tensor(z)
    weighted = reweighted_log_probs(log_probs, hypotheses, z, weight, temperature)
    if criterion == "exact_match":
        best = best_hypotheses(hypotheses, weighted, z.shape[1])
        sets = [{i for i in row if i < z.shape[1]} for row in hypotheses[torch.arange(len(best)), best].tolist()]
        return np.mean([s == set(np.flatnonzero(r)) for s, r in zip(sets, references, strict=True)])
    scores = combined_scores(label_scores_from_hypotheses(hypotheses, weighted, z.shape[1]), z).numpy()
    if criterion == "nll":
        return -nll(scores, references)
    return compute_metrics(references, scores >= fit_threshold(references, scores))["micro_f1"]


@pytest.mark.parametrize("criterion", ["exact_match", "nll", "micro_f1"])
def test_the_criterion_is_what_the_functions_of_prediction_reach(criterion):
    data = decoded(300, 7)
    grid = [(w, t) for w in (0.0, 1.0, 2.0) for t in (1.0, 2.0)]
    values = {pair: by_prediction(*data, criterion, *pair) for pair in grid}
    fit = fit_hypothesis_weights(*data, criterion, (0.0, 1.0, 2.0), (1.0, 2.0))
    # The best threshold is found among 4,096.
    tolerance = 2e-3 if criterion == "micro_f1" else 1e-9
    assert fit.value == pytest.approx(max(values.values()), abs=tolerance)
    assert fit.value_before == pytest.approx(values[0.0, 1.0], abs=tolerance)
    assert values[fit.lexical_weight, fit.temperature] == pytest.approx(max(values.values()), abs=tolerance)
    assert len({round(value, 6) for value in values.values()}) > 2


def test_of_pairs_alike_the_simplest_is_taken():
    hypotheses, log_probs, z, references = decoded(50, 8)
    fit = fit_hypothesis_weights(hypotheses, log_probs, np.zeros_like(z), references[:, :] & False, "exact_match")
    assert (fit.lexical_weight, fit.temperature) in {(0.0, t) for t in calibration.TEMPERATURES}
    one = hypotheses[:, :1], log_probs[:, :1]
    fit = fit_hypothesis_weights(*one, z, references, "exact_match")
    assert (fit.lexical_weight, fit.temperature) == (0.0, 1.0) and fit.value == fit.value_before
    fit = fit_hypothesis_weights(*one, z, references, "exact_match", (2.0, 1.0), (0.75, 3.0))
    assert (fit.lexical_weight, fit.temperature) == (1.0, 0.75)


def test_hypotheses_that_do_not_count_or_never_are_right_give_a_result_or_say_why():
    hypotheses, log_probs, z, references = decoded(20, 9)
    nothing = np.full_like(log_probs, -np.inf)
    assert fit_hypothesis_weights(hypotheses, nothing, z, references, "exact_match").value == 0
    for criterion in ("nll", "micro_f1"):
        fit = fit_hypothesis_weights(hypotheses, nothing, z, references, criterion)
        assert np.isfinite(fit).all() and fit[:2] == (0.0, 1.0)
    with pytest.raises(ValueError, match="no true set is among"):
        fit_hypothesis_weights(hypotheses, nothing, z, references, "likelihood")
    with pytest.raises(ValueError, match="criterion is 'f1'"):
        fit_hypothesis_weights(hypotheses, log_probs, z, references, "f1")
    with pytest.raises(ValueError, match=r"give \(N, K, n\)"):
        fit_hypothesis_weights(hypotheses[:, :, 0], log_probs, z, references)
    with pytest.raises(ValueError, match="the same documents and labels"):
        fit_hypothesis_weights(hypotheses, log_probs, z[:, 1:], references)
    with pytest.raises(ValueError, match="the pairs to try"):
        fit_hypothesis_weights(hypotheses, log_probs, z, references, temperatures=(0.0,))


def test_cross_validation_predicts_each_document_once_from_the_others():
    seen = []

    def rule(fitted, predicted):
        assert not set(fitted) & set(predicted) and len(fitted) + len(predicted) == 23
        seen.append(predicted)
        return predicted * 10

    assert cross_validated(rule, 23, 5).tolist() == [10 * i for i in range(23)]
    assert len(seen) == 5 and {len(part) for part in seen} == {4, 5}
    assert cross_validated(rule, 23, 5, seed=0).tolist() == cross_validated(rule, 23, 100, seed=1).tolist()
    for documents, folds in ((1, 5), (5, 1)):
        with pytest.raises(ValueError, match="two of each"):
            cross_validated(rule, documents, folds)


def test_copies_of_a_document_are_predicted_from_none_of_them():
    copy_of = np.array([0, 0, 1, 2, 2, 2, 3, 5, 5])

    def rule(fitted, predicted):
        assert not set(copy_of[fitted]) & set(copy_of[predicted])
        return predicted

    assert cross_validated(rule, len(copy_of), 3, copy_of=copy_of).tolist() == list(range(len(copy_of)))


def test_the_rule_that_only_learns_its_documents_by_heart_is_not_chosen():
    generator = np.random.default_rng(0)
    scores = generator.random((200, 3))
    references = generator.random(scores.shape) < scores

    def by_heart(fitted, predicted):
        known = {i: references[i] for i in fitted}
        return np.array([known.get(i, np.zeros(3, dtype=bool)) for i in predicted])

    def thresholded(fitted, predicted):
        return scores[predicted] >= fit_threshold(references[fitted], scores[fitted])

    def micro_f1(sets):
        return compute_metrics(references, sets)["micro_f1"]

    name, values = choose_rule({"by heart": by_heart, "threshold": thresholded}, micro_f1, 200)
    assert name == "threshold" and values["by heart"] == 0 and values["threshold"] > 0.5
    assert choose_rule({"first": thresholded, "second": thresholded}, micro_f1, 200)[0] == "first"
    with pytest.raises(ValueError, match="no rule"):
        choose_rule({}, micro_f1, 200)


def test_a_curve_calibrates_scores_that_no_slope_does_and_keeps_their_ranks():
    random = np.random.default_rng(0)
    made = np.exp(random.uniform(-12, 0, (3000, 20)))  # most of them small
    truth = random.random(made.shape) < np.clip(1.6 * made**1.3 + 0.05 * (made > 0.02), 0, 0.97)
    scores, references = made[:1500].astype(np.float32), truth[:1500]
    curve, platt = fit_curve(scores, references), fit_platt(scores, references)
    assert curve.nll_after < platt.nll_after and len(curve.values) <= 32
    others = torch.from_numpy(made[1500:].astype(np.float32))
    after = interpolated_scores(others, curve.values).numpy()
    order = others.numpy().argsort(axis=None)
    assert (np.diff(after.ravel()[order]) >= 0).all() and len(np.unique(after)) > 0.99 * after.size
    metrics = compute_score_metrics(truth[1500:], after)
    slope, intercept = platt.values
    metrics_of_platt = compute_score_metrics(truth[1500:], probabilities(slope * log_odds(others.numpy()) + intercept))
    assert metrics["ece"] < 0.01 < metrics_of_platt["ece"] and metrics["nll"] < metrics_of_platt["nll"]


def test_of_few_true_labels_a_curve_is_two_numbers():
    random = np.random.default_rng(1)
    scores = random.random((20, 3))
    references = random.random((20, 3)) < scores
    assert fit_curve(scores, references) == fit_platt(scores, references)
