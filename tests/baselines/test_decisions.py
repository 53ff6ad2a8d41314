import numpy as np
import pytest
from sklearn.metrics import f1_score

from sgm_hf.baselines.decisions import METRIC_OF, Decision, exact_match_threshold, fit_decision, sets_of_scores
from sgm_hf.data.labels import label_matrix
from sgm_hf.metrics import compute_metrics, fit_threshold
from sgm_hf.training.prediction import LabelPredictions


def make_scores(count=300, num_labels=6, seed=0):
    """True labels, and scores that tell of them but are no probabilities."""
    generator = np.random.default_rng(seed)
    references = generator.random((count, num_labels)) < np.linspace(0.5, 0.05, num_labels)
    scores = 0.3 + 0.2 * references + 0.1 * generator.standard_normal(references.shape)
    return references, scores.clip(0.01, 0.99).astype(np.float32)


def test_sets_have_the_highest_score_first_and_of_equal_ones_the_lower_id():
    scores = np.array([[0.5, 0.9, 0.49, 0.9], [0.1, 0.1, 0.1, 0.1]], dtype=np.float32)
    assert sets_of_scores(scores, 0.5) == [[1, 3, 0], []]
    assert sets_of_scores(scores, [0.6, 0.95, 0.4, 0.9]) == [[3, 2], []]
    # A threshold that was fitted to float32 scores takes these, though it is a float64 above them.
    assert sets_of_scores(np.array([[np.float32(0.1)]]), 0.1) == [[0]]


def test_calibrated_scores_keep_their_order_and_are_nearer_to_the_truth():
    references, scores = make_scores()
    decision, _ = fit_decision(references, scores, sets_of_scores(scores, 0.5))
    probs = decision.calibrated(scores)
    assert probs.dtype == np.float32 and (0 <= probs).all() and (probs <= 1).all()
    flat = np.argsort(scores, axis=None)
    assert (np.diff(probs.ravel()[flat]) >= 0).all()
    assert abs(probs.mean() - references.mean()) < 0.02 < abs(scores.mean() - references.mean())
    np.testing.assert_array_equal(Decision().calibrated(scores), scores)
    # Platt's two numbers, of few documents.
    platt = Decision(calibration=[2.0, -1.0]).calibrated(np.array([[0.5, 0.0, 1.0]], dtype=np.float32))
    np.testing.assert_allclose(platt, [[1 / (1 + np.e), 0, 1]], atol=1e-6)


@pytest.mark.parametrize("objective", METRIC_OF)
def test_the_decision_is_better_for_its_objective_than_the_systems_own(objective):
    references, scores = make_scores()
    own = sets_of_scores(scores, 0.5)
    decision, value = fit_decision(references, scores, own, objective)
    others, other_scores = make_scores(seed=1)
    probs = decision.calibrated(other_scores)
    predictions = LabelPredictions(sets_of_scores(other_scores, 0.5), probs, decision.expected_f1_sets(probs))
    metric = METRIC_OF[objective]
    reached, before = (
        compute_metrics(others, label_matrix(sets, 6))[metric]
        for sets in (decision.label_sets(predictions), predictions.best_sequences)
    )
    assert reached < before if metric.endswith("loss") else reached > before
    assert value == pytest.approx(reached, abs=0.06)


def test_a_systems_own_sets_are_kept_where_they_are_best():
    references, scores = make_scores()
    own = [np.flatnonzero(row).tolist() for row in references]
    for objective, metric in METRIC_OF.items():
        decision, value = fit_decision(references, scores, own, objective)
        assert decision.set_decoding == "best_sequence" and value == (0 if metric.endswith("loss") else 1)
    predictions = LabelPredictions(own, scores, own)
    assert decision.label_sets(predictions) is own


def test_the_threshold_is_fitted_also_where_another_decoding_decides():
    references, scores = make_scores()
    own = [np.flatnonzero(row).tolist() for row in references]
    fitted, _ = fit_decision(references, scores, own, "exact_match")
    probs = fitted.calibrated(scores)
    assert fitted.set_decoding == "best_sequence" and fitted.threshold == exact_match_threshold(references, probs)
    fitted, _ = fit_decision(references, scores, [[]] * 300, "expected_f1")
    assert fitted.set_decoding == "expected_f1" and fitted.threshold == fit_threshold(references, probs)


def test_one_threshold_is_that_of_the_best_micro_f1():
    references, scores = make_scores(num_labels=2)
    decision, _ = fit_decision(references, scores, [[]] * 300, "micro_f1")
    assert decision.set_decoding == "threshold"
    probs = decision.calibrated(scores)
    found = f1_score(references, probs >= np.float32(decision.threshold), average="micro")
    assert found >= max(f1_score(references, probs >= t, average="micro") for t in np.unique(probs)[::7]) - 0.01


def test_one_document_and_no_true_label_are_decided_too():
    scores = np.array([[0.3, 0.4]], dtype=np.float32)
    for truth in ([[False, False]], [[True, False]]):
        for objective in METRIC_OF:
            decision, value = fit_decision(np.array(truth), scores, [[]], objective)
            assert 0 <= value <= 1 and decision.calibrated(scores).shape == (1, 2)


def test_the_threshold_of_exact_sets_is_the_best_of_all():
    generator = np.random.default_rng(0)
    for _ in range(30):
        references = generator.random((12, 3)) < 0.4
        scores = (generator.integers(0, 12, (12, 3)) / 11).astype(np.float32)
        right = [((scores >= t) == references).all(axis=1).sum() for t in np.linspace(1 / 22, 1, 43)]
        found = exact_match_threshold(references, scores)
        assert 0 < found <= 1
        assert ((scores >= np.float32(found)) == references).all(axis=1).sum() == max(right)


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="objective is 'f1'; choose one of micro_f1"):
        fit_decision(*make_scores(), [[]] * 300, "f1")
