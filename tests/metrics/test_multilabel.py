"""Properties of the metrics, with scikit-learn as the oracle."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, hamming_loss, precision_recall_fscore_support, zero_one_loss

from sgm_hf.metrics import (
    compute_metrics,
    f1_by_frequency,
    fit_threshold,
    frequency_bands,
    label_report,
    mean_position_deviation,
    metrics_by_set_size,
)

NAMES = ("precision", "recall", "f1")


def random_sets(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """References and predictions of a random size and density, some rows and columns emptied."""
    generator = np.random.default_rng(seed)
    shape = generator.integers(1, 40), generator.integers(2, 12)
    matrices = [generator.random(shape) < generator.random() for _ in range(2)]
    for matrix in matrices:
        matrix[generator.random(shape[0]) < 0.2] = False
        matrix[:, generator.random(shape[1]) < 0.2] = False
    return matrices[0], matrices[1]


def micro_f1(references: np.ndarray, predictions: np.ndarray) -> float:
    return compute_metrics(references, predictions)["micro_f1"]


@pytest.mark.parametrize("seed", range(60))
def test_metrics_equal_those_of_scikit_learn(seed):
    references, predictions = random_sets(seed)
    expected = {
        "hamming_loss": hamming_loss(references, predictions),
        "zero_one_loss": zero_one_loss(references, predictions),
        # zero_division is for documents without true and predicted labels, which count as 1.
        "samples_f1": f1_score(references, predictions, average="samples", zero_division=1.0),
    }
    for average in ("micro", "macro"):
        values = precision_recall_fscore_support(references, predictions, average=average, zero_division=0)
        expected |= {f"{average}_{name}": value for name, value in zip(NAMES, values[:3], strict=True)}
    metrics = compute_metrics(references, predictions)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_metrics_of_a_single_label_equal_the_binary_ones_of_scikit_learn(seed):
    references, predictions = (matrix[:, :1] for matrix in random_sets(seed))
    values = precision_recall_fscore_support(references, predictions, average="binary", zero_division=0)
    expected = dict(zip(NAMES, values[:3], strict=True))
    metrics = compute_metrics(references, predictions)
    for average in ("micro", "macro"):
        assert {name: metrics[f"{average}_{name}"] for name in NAMES} == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_label_report_equals_that_of_scikit_learn(seed):
    references, predictions = random_sets(seed)
    names = [f"label {i}" for i in range(references.shape[1])]
    expected = precision_recall_fscore_support(references, predictions, zero_division=0)
    rows = label_report(references, predictions, names)
    assert [row["label"] for row in rows] == names
    for name, values in zip((*NAMES, "support"), expected, strict=True):
        assert [row[name] for row in rows] == pytest.approx(list(values))


def test_the_two_macro_f1_definitions_differ_as_worked_out_by_hand():
    # Label 0: precision 1, recall 1/4, F1 0.4. Label 1: precision 1/4, recall 1, F1 0.4.
    references = np.array([[1, 1], [1, 0], [1, 0], [1, 0]], dtype=bool)
    predictions = np.array([[1, 1], [0, 1], [0, 1], [0, 1]], dtype=bool)
    metrics = compute_metrics(references, predictions)
    assert metrics["macro_precision"] == metrics["macro_recall"] == 0.625
    assert metrics["macro_f1"] == pytest.approx(0.4)
    assert metrics["macro_f1_of_means"] == pytest.approx(0.625)


def test_macro_f1_of_means_is_the_harmonic_mean_where_precision_and_recall_differ():
    # Label 0: precision 1, recall 1/2. Label 1: precision 1, recall 1/4. Means 1 and 3/8: harmonic 6/11, plain 11/16.
    references = np.array([[1, 1], [1, 1], [0, 1], [0, 1]], dtype=bool)
    predictions = np.array([[1, 1], [0, 0], [0, 0], [0, 0]], dtype=bool)
    metrics = compute_metrics(references, predictions)
    assert (metrics["macro_precision"], metrics["macro_recall"]) == (1.0, 0.375)
    assert metrics["macro_f1_of_means"] == pytest.approx(6 / 11)


@pytest.mark.parametrize("seed", range(20))
def test_macro_f1_of_means_is_never_the_smaller_one(seed):
    metrics = compute_metrics(*random_sets(seed))
    assert metrics["macro_f1_of_means"] >= metrics["macro_f1"] - 1e-12


def test_no_true_and_no_predicted_label_is_right_per_document_and_zero_per_label():
    empty = np.zeros((3, 2), dtype=bool)
    metrics = compute_metrics(empty, empty)
    assert metrics["samples_f1"] == 1.0
    assert metrics["hamming_loss"] == metrics["zero_one_loss"] == 0.0
    assert metrics["micro_f1"] == metrics["macro_f1"] == metrics["macro_f1_of_means"] == 0.0


@pytest.mark.parametrize("seed", range(10))
def test_a_perfect_prediction_of_every_label_scores_one(seed):
    references = np.concatenate([random_sets(seed)[0], np.ones((1, random_sets(seed)[0].shape[1]), dtype=bool)])
    metrics = compute_metrics(references, references.copy())
    losses = {"hamming_loss", "zero_one_loss"}
    assert all(value == (0.0 if name in losses else 1.0) for name, value in metrics.items())


def test_metrics_are_plain_floats_and_leave_their_inputs_alone():
    references, predictions = random_sets(3)
    copies = references.copy(), predictions.copy()
    assert all(type(value) is float for value in compute_metrics(references, predictions).values())
    assert np.array_equal(references, copies[0]) and np.array_equal(predictions, copies[1])


def test_an_unknown_label_in_an_additional_column_lowers_recall_and_not_precision():
    references = np.array([[1, 0], [0, 1]], dtype=bool)
    before = compute_metrics(references, references)
    unknown = np.array([[True], [False]])
    after = compute_metrics(np.hstack([references, unknown]), np.hstack([references, np.zeros((2, 1), dtype=bool)]))
    assert after["micro_precision"] == before["micro_precision"] == 1.0
    assert after["micro_recall"] == pytest.approx(2 / 3)
    assert after["zero_one_loss"] == 0.5


@pytest.mark.parametrize(
    ("references", "predictions", "error", "message"),
    [
        ([[True]], np.ones((1, 1), bool), TypeError, "references must be a numpy array.*got list"),
        (np.ones((1, 1), int), np.ones((1, 1), bool), TypeError, "references must be bool, got int64.*astype"),
        (np.ones((1, 1), bool), np.full((1, 1), 0.5), TypeError, "predictions must be bool, got float64.*threshold"),
        (np.ones(3, bool), np.ones(3, bool), ValueError, r"references must have the shape .*got \(3,\)"),
        (np.ones((2, 3), bool), np.ones((2, 4), bool), ValueError, r"\(2, 3\), predictions \(2, 4\)"),
        (np.ones((0, 3), bool), np.ones((0, 3), bool), ValueError, r"\(0, 3\): there is no document"),
    ],
)
def test_wrong_matrices_are_refused_by_name(references, predictions, error, message):
    with pytest.raises(error, match=message):
        compute_metrics(references, predictions)


def test_a_report_needs_a_name_for_each_column():
    with pytest.raises(ValueError, match="1 names, but the matrices have 2 columns"):
        label_report(np.ones((1, 2), bool), np.ones((1, 2), bool), ["a"])


@pytest.mark.parametrize("seed", range(20))
def test_f1_by_frequency_is_that_of_scikit_learn_on_the_columns_of_a_band(seed):
    references, predictions = random_sets(seed)
    generator = np.random.default_rng(seed)
    counts = (10 ** generator.uniform(0, 4, references.shape[1])).astype(int) * (generator.random() < 0.9)
    metrics = f1_by_frequency(references, predictions, counts)
    limits = {"1_to_9": (1, 9), "10_to_99": (10, 99), "100_to_999": (100, 999), "from_1000": (1000, 10**9)}
    expected = {}
    for band, (low, high) in limits.items():
        columns = [label for label, count in enumerate(counts) if low <= count <= high]
        if columns:
            part = references[:, columns].astype(int), predictions[:, columns].astype(int)
            if len(columns) == 1:  # scikit-learn would take the column for classes
                part = tuple(np.hstack([matrix, np.zeros_like(matrix)]) for matrix in part)
            for average in ("micro", "macro"):
                value = f1_score(*part, average=average, zero_division=0, labels=range(len(columns)))
                expected[f"{average}_f1_{band}"] = value
    assert metrics == pytest.approx(expected)


def test_each_label_seen_in_training_is_in_one_band():
    counts = np.array([0, 1, 9, 10, 99, 100, 999, 1000, 50_000])
    bands = frequency_bands(counts)
    assert {name: counts[members].tolist() for name, members in bands.items()} == {
        "1_to_9": [1, 9],
        "10_to_99": [10, 99],
        "100_to_999": [100, 999],
        "from_1000": [1000, 50_000],
    }
    assert list(frequency_bands(np.array([5, 7]), bounds=(6,))) == ["from_6"]


def test_bands_need_a_count_for_each_column():
    with pytest.raises(ValueError, match=r"shape \(3,\), but the matrices have 2 columns"):
        f1_by_frequency(np.ones((1, 2), bool), np.ones((1, 2), bool), np.ones(3, int))


@pytest.mark.parametrize("seed", range(10))
def test_metrics_by_set_size_are_those_of_the_documents_of_a_size(seed):
    references, predictions = random_sets(seed)
    sizes = references.sum(axis=1)
    rows = metrics_by_set_size(references, predictions)
    assert [row["size"] for row in rows] == sorted(set(sizes.tolist()))
    assert sum(row["documents"] for row in rows) == len(references)
    for row in rows:
        members = sizes == row["size"]
        expected = compute_metrics(references[members], predictions[members])
        found = {name: value for name, value in row.items() if name not in ("size", "documents")}
        assert found == pytest.approx({name: expected[name] for name in found})
    assert {"micro_f1", "hamming_loss"} < set(rows[0])


def test_the_largest_sets_can_be_one_group():
    references = np.tril(np.ones((5, 5), dtype=bool))  # 1 to 5 labels
    rows = metrics_by_set_size(references, references, largest=3)
    assert [(row["size"], row["documents"]) for row in rows] == [(1, 1), (2, 1), (3, 3)]
    with pytest.raises(ValueError, match="largest is -1"):
        metrics_by_set_size(references, references, largest=-1)


def random_scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores that agree with them to some degree, with many equal scores, zeros and ones."""
    generator = np.random.default_rng(seed)
    shape = generator.integers(1, 12), generator.integers(1, 6)
    references = generator.random(shape) < 0.4
    scores = (generator.random(shape) + 0.4 * references).clip(0, 1)
    if seed % 2:
        scores = scores.round(1)
    return references, scores.astype(np.float32 if seed % 3 else np.float64)


@pytest.mark.parametrize("seed", range(60))
def test_no_threshold_beats_the_fitted_one(seed):
    references, scores = random_scores(seed)
    threshold = fit_threshold(references, scores)
    assert 0 < threshold <= 1
    every = np.unique(np.concatenate([scores.ravel(), np.linspace(0.01, 1, 50, dtype=scores.dtype)]))
    best = max(micro_f1(references, scores >= t) for t in every[every > 0])
    assert micro_f1(references, scores >= threshold) == best


@pytest.mark.parametrize("seed", range(20))
def test_of_equally_good_intervals_the_one_nearest_to_the_middle_is_chosen(seed):
    references, scores = random_scores(seed)
    edges = np.unique(np.concatenate([[0, 1], scores.ravel()]))
    middles = (edges[:-1] + edges[1:]) / 2
    values = np.array([micro_f1(references, scores >= t) for t in middles])
    distance = np.abs(middles[values == values.max()] - 0.5).min()
    assert abs(fit_threshold(references, scores) - 0.5) == pytest.approx(distance, abs=1e-6)


def test_the_threshold_is_in_the_middle_between_selected_and_rejected_scores():
    references = np.array([[1, 1, 0, 0]], dtype=bool)
    assert fit_threshold(references, np.array([[0.9, 0.5, 0.25, 0.0]])) == 0.375


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_threshold_separates_even_two_adjacent_numbers(dtype):
    low = dtype(0.7)
    high = np.nextafter(low, dtype(1))
    scores = np.array([[high, low]], dtype=dtype)
    threshold = fit_threshold(np.array([[True, False]]), scores)
    assert (scores >= threshold).tolist() == [[True, False]]
    assert dtype(threshold) == threshold


@pytest.mark.parametrize("scores", [[0.0, 0.0], [1.0, 1.0], [1e-45, 0.0]])
def test_a_threshold_exists_for_extreme_scores(scores):
    threshold = fit_threshold(np.array([[True, False]]), np.array([scores], dtype=np.float32))
    assert 0 < threshold <= 1


def test_a_score_that_rounding_moved_above_one_counts_as_one():
    assert fit_threshold(np.array([[True, False]]), np.array([[1.0000001, 0.5]], dtype=np.float32)) == 0.75
    assert fit_threshold(np.array([[True, False]]), np.array([[1.0000001, 1.0]], dtype=np.float32)) == 0.5


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (np.array([[2.0, -1.0]]), ValueError, "span -1.0 to 2.0: give probabilities"),
        (np.array([[np.nan, 0.0]]), ValueError, "span nan to nan"),
        (np.array([[1, 0]]), TypeError, "label_scores must be floating point, got int64"),
        (np.array([[0.5]]), ValueError, r"\(1, 2\), label_scores \(1, 1\)"),
    ],
)
def test_wrong_scores_are_refused(scores, error, message):
    with pytest.raises(error, match=message):
        fit_threshold(np.array([[True, False]]), scores)


def test_the_deviation_of_positions_is_the_mean_over_labels_that_both_have():
    # a, b swapped: 1 + 1; c in its place; d missing; e wrong, and moves f by one.
    assert mean_position_deviation([[0, 1, 2], [3], [5]], [[1, 0, 2], [], [4, 5]]) == (1 + 1 + 0 + 1) / 4
    sequences = [[2, 0, 1], [], [4]]
    assert mean_position_deviation(sequences, sequences) == 0.0
    assert mean_position_deviation([[0, 1, 2, 3]], [[3, 2, 1, 0]]) == (3 + 1 + 1 + 3) / 4
    assert math.isnan(mean_position_deviation([[1], []], [[2], [3]]))


def test_the_deviation_of_positions_refuses_what_has_no_single_place():
    with pytest.raises(ValueError, match=r"document 1 has a label twice: reference \[2\], prediction \[2, 2\]"):
        mean_position_deviation([[0], [2]], [[0], [2, 2]])
    with pytest.raises(ValueError, match="2 references and 1 predictions"):
        mean_position_deviation([[0], [1]], [[0]])
