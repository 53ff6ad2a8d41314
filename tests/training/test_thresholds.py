import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from sgm_hf.metrics import compute_metrics, fit_threshold
from sgm_hf.training.calibration import fit_platt, log_odds, probabilities
from sgm_hf.training.thresholds import OBJECTIVES, fit_thresholds, shifted_thresholds


def reached(references, scores, thresholds, name):
    return compute_metrics(references, scores >= np.asarray(thresholds, dtype=scores.dtype))[name]


def generated(num_documents, seed, num_labels=6):
    """Calibrated scores, and labels of different frequency."""
    generator = np.random.default_rng(seed)
    values = generator.normal(np.linspace(-0.5, -3.5, num_labels), 1.5, (num_documents, num_labels))
    return generator.random(values.shape) < probabilities(values), probabilities(values)


def every_threshold(column):
    """One between all neighbouring scores."""
    values = np.unique(np.append(column, [0.0, 1.0]))
    return np.append((values[1:] + values[:-1]) / 2, 1.0)


@given(st.integers(0, 10_000), st.sampled_from([np.float32, np.float64]))
@example(910, np.float32)  # a label that no document has is chosen for some
@settings(max_examples=40, deadline=None)
def test_no_thresholds_have_a_greater_micro_f1_together(seed, dtype):
    generator = np.random.default_rng(seed)
    scores = (generator.integers(0, 6, (8, 3)) / 5).astype(dtype)
    references = generator.random(scores.shape) < 0.2 + 0.6 * scores * (seed % 2)
    thresholds = fit_thresholds(references, scores, "micro_f1", shrinkage=0.0)
    possible = [[t] if references[:, i].any() else [thresholds[i]] for i, t in enumerate(thresholds)]
    for label, found in enumerate(possible):
        if references[:, label].any():
            found.extend(every_threshold(scores[:, label]))
    best = max(reached(references, scores, choice, "micro_f1") for choice in itertools.product(*possible))
    assert reached(references, scores, thresholds, "micro_f1") == pytest.approx(best, abs=1e-12)


def test_the_micro_f1_of_the_documents_of_the_fit_is_no_less_than_that_of_one_threshold():
    for seed in range(5):
        references, scores = generated(300, seed)
        common = fit_threshold(references, scores)
        own = fit_thresholds(references, scores, "micro_f1", shrinkage=0.0)
        assert fit_thresholds(references, scores, "micro_f1", shrinkage=1.0) == common
        assert reached(references, scores, own, "micro_f1") > reached(references, scores, common, "micro_f1")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_for_macro_f1_each_label_has_the_best_f1_that_scikit_learn_finds(dtype):
    references, scores = generated(200, 0)
    scores = scores.astype(dtype)
    thresholds = fit_thresholds(references, scores, "macro_f1", shrinkage=0.0)
    for label, threshold in enumerate(thresholds):
        precision, recall, _ = precision_recall_curve(references[:, label], scores[:, label])
        best = (2 * precision * recall / (precision + recall).clip(1e-12)).max()
        column = references[:, [label]], scores[:, [label]]
        assert reached(*column, [threshold], "micro_f1") == pytest.approx(best, abs=1e-6)


def test_on_other_documents_the_thresholds_come_near_the_known_optimum():
    # Labels whose scores are shifted in log-odds by a known amount need thresholds shifted so.
    generator = np.random.default_rng(1)

    def sample(num_documents):
        values = generator.normal(-1, 2, (num_documents, 5))
        return generator.random(values.shape) < probabilities(values), values

    shift = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    references, values = sample(20_000)
    best = fit_threshold(references, probabilities(values))
    thresholds = fit_thresholds(references, probabilities(values + shift), "micro_f1", shrinkage=0.0)
    assert log_odds(np.array(thresholds)) == pytest.approx(log_odds(np.array(best)) + shift, abs=0.35)
    others, values = sample(20_000)
    scores = probabilities(values + shift)
    optimum = reached(others, probabilities(values), best, "micro_f1")
    assert reached(others, scores, thresholds, "micro_f1") > optimum - 0.002
    assert reached(others, scores, fit_threshold(references, scores), "micro_f1") < optimum - 0.01


def test_labels_that_differ_in_frequency_gain_macro_f1_by_their_own_thresholds_on_other_documents():
    gains = []
    for seed in range(4):
        fitted, others = generated(1500, seed, 12), generated(4000, 100 + seed, 12)
        macro = fit_thresholds(*fitted, "macro_f1")
        gains.append(reached(*others, macro, "macro_f1") - reached(*others, fit_threshold(*fitted), "macro_f1"))
    assert min(gains) > 0.002 and np.mean(gains) > 0.005


def test_one_half_has_the_least_hamming_loss_of_calibrated_scores():
    references, scores = generated(20_000, 3)
    assert fit_thresholds(references, scores, "hamming") == 0.5
    uncalibrated = probabilities(0.5 * log_odds(scores) + 1)
    slope, intercept = fit_platt(uncalibrated, references).values
    calibrated = probabilities(slope * log_odds(uncalibrated) + intercept)
    losses = {t: reached(references, calibrated, t, "hamming_loss") for t in (0.3, 0.4, 0.5, 0.6, 0.7)}
    assert min(losses, key=lambda t: losses[t]) == 0.5
    assert reached(references, uncalibrated, 0.5, "hamming_loss") > losses[0.5] + 0.05


@pytest.mark.parametrize("objective", ["micro_f1", "macro_f1"])
def test_half_of_the_shrinkage_lies_half_way_in_log_odds(objective):
    references, scores = generated(200, 4)
    common = log_odds(np.array(fit_threshold(references, scores)))
    own = log_odds(np.array(fit_thresholds(references, scores, objective, shrinkage=0.0)))
    half = log_odds(np.array(fit_thresholds(references, scores, objective, shrinkage=0.5)))
    assert half == pytest.approx((own + common) / 2, abs=1e-9) and np.ptp(half) > 0.1


@pytest.mark.parametrize("objective", ["micro_f1", "macro_f1"])
def test_a_label_that_no_document_has_keeps_the_global_threshold(objective):
    references, scores = generated(200, 5)
    references[:, [1, 4]] = False
    for shrinkage in (0.0, 0.5):
        thresholds = fit_thresholds(references, scores, objective, shrinkage=shrinkage)
        assert thresholds[1] == thresholds[4] == fit_threshold(references, scores)
        assert len(set(thresholds)) > 1


@pytest.mark.parametrize("objective", ["micro_f1", "macro_f1", "hamming"])
@pytest.mark.parametrize("truth", ["none", "all", "one"])
@pytest.mark.parametrize("scores", ["varied", "constant", "zeros", "ones", "tiny", "one_document"])
def test_degenerate_data_have_thresholds_that_prediction_takes(objective, truth, scores):
    generator = np.random.default_rng(0)
    made = {
        "varied": generator.random((20, 3)),
        "constant": np.full((20, 3), 0.3, dtype=np.float32),
        "zeros": np.zeros((20, 3)),
        "ones": np.ones((20, 3)),
        "tiny": np.full((20, 3), 1e-30, dtype=np.float32),
        "one_document": generator.random((1, 3)),
    }[scores]
    references = np.full(made.shape, truth == "all")
    references[0, 0] |= truth == "one"
    for shrinkage in (0.0, 0.5, 1.0):
        thresholds = np.array(fit_thresholds(references, made, objective, shrinkage))
        assert ((thresholds > 0) & (thresholds <= 1)).all() and thresholds.shape in ((), (3,))


def test_neighbouring_numbers_are_told_apart():
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    scores = np.array([[low], [high], [low], [high]])
    references = scores == high
    for objective in ("micro_f1", "macro_f1"):
        thresholds = fit_thresholds(references, scores, objective, shrinkage=0.0)
        assert reached(references, scores, thresholds, "micro_f1") == 1


def test_a_shift_moves_each_label_by_a_part_of_how_it_differs_elsewhere():
    shifted = shifted_thresholds(0.4, [0.2, 0.3, 0.6], 0.3, 0.5)
    expected = log_odds(np.array(0.4)) + 0.5 * (log_odds(np.array([0.2, 0.3, 0.6])) - log_odds(np.array(0.3)))
    assert log_odds(np.array(shifted)) == pytest.approx(expected) and shifted[1] == 0.4
    assert shifted_thresholds(0.4, [0.2, 0.6], 0.3, 1.0) == [0.4, 0.4]
    assert shifted_thresholds(0.3, [0.2, 0.6], 0.3, 0.0) == pytest.approx([0.2, 0.6])
    for extreme in shifted_thresholds(1.0, [1.0, 1e-30], 1.0, 0.0):
        assert 0 < extreme <= 1


def test_thresholds_of_the_words_on_many_documents_help_where_few_are_held_out():
    generator = np.random.default_rng(2)
    # The scores of both sources are wrong for each label in the same direction.
    offset = generator.normal(0, 1.2, 30)

    def sample(num_documents):
        values = generator.normal(-2, 1.5, (num_documents, 30))
        noise = generator.normal(0, 1, values.shape)
        return (
            generator.random(values.shape) < probabilities(values),
            probabilities(values + noise + offset),
            probabilities(values + offset),
        )

    truth, words, _ = sample(5000)
    own = fit_thresholds(truth, words, "micro_f1", shrinkage=0.0)
    few, _, both = sample(60)
    common = fit_threshold(few, both)
    shifted = shifted_thresholds(common, own, fit_threshold(truth, words))
    others, _, both = sample(4000)
    assert reached(others, both, shifted, "micro_f1") > reached(others, both, common, "micro_f1") + 0.005


def test_what_cannot_be_fitted_is_refused():
    references, scores = generated(10, 6)
    for objective in set(OBJECTIVES) - {"micro_f1", "macro_f1", "hamming"} | {"f1"}:
        with pytest.raises(ValueError, match="thresholds serve micro_f1, macro_f1, hamming"):
            fit_thresholds(references, scores, objective)
    for shrinkage in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="shrinkage is"):
            fit_thresholds(references, scores, shrinkage=shrinkage)
    for objective in ("micro_f1", "hamming"):
        with pytest.raises(ValueError, match="give probabilities"):
            fit_thresholds(references, log_odds(scores), objective)
        with pytest.raises(TypeError, match="references must be"):
            fit_thresholds(references.astype(int), scores, objective)
