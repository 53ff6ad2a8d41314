"""The metrics of multi-label classification, in numpy.

The labels of N documents are a bool matrix of shape (N, L), true where the document has the label: `references` the
true ones, `predictions` the predicted ones. A ratio 0/0 counts as 0, as in scikit-learn with `zero_division=0`, except
in `samples_f1`.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

# Scores are ratios of sums of probabilities, which rounding may move this far outside [0, 1].
_SCORE_TOLERANCE = 1e-5
# Lowest numbers of training documents of the bands by which F1 is reported.
FREQUENCY_BOUNDS = (1, 10, 100, 1000)


def compute_metrics(references: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Compare predicted label sets with the true ones.

    Args:
        references: True labels, bool, shape (N, L).
        predictions: Predicted labels, bool, shape (N, L). True labels that the model does not know need a column in
            both matrices (`sgm_hf.data.labels.reference_matrix` adds them), all false in `predictions`.

    Returns:
        In this order, each in [0, 1]:

        - `micro_precision`, `micro_recall`, `micro_f1`: from the counts summed over all labels.
        - `macro_precision`, `macro_recall`, `macro_f1`: means over the L labels. A label that occurs in neither matrix
          counts as 0.
        - `macro_f1_of_means`: the harmonic mean of macro_precision and macro_recall, also called macro-F1 and never
          smaller (Opitz and Burst 2019, "Macro F1 and Macro F1", arXiv:1911.03347).
        - `samples_f1`: the mean F1 of the documents. A document without true and predicted labels counts as 1.
        - `hamming_loss`: the share of wrong cells among all N x L (Schapire and Singer 1999).
        - `zero_one_loss`: the share of documents whose label set is not exactly right (subset 0/1 loss).

    Raises:
        TypeError: If a matrix is not a boolean numpy array.
        ValueError: If the shapes differ, are not two-dimensional, or have no document or no label.
    """
    check_matrices(references, "predictions", predictions, "b", "bool")
    hits = references & predictions
    wrong = references ^ predictions
    micro = precision_recall_f1(hits.sum(), predictions.sum(), references.sum())
    per_label = precision_recall_f1(hits.sum(axis=0), predictions.sum(axis=0), references.sum(axis=0))
    macro = [values.mean() for values in per_label]
    set_sizes = predictions.sum(axis=1) + references.sum(axis=1)
    metrics = {
        # micro_f1 is the main metric of the SGM paper (Yang et al. 2018, section 3.2).
        "micro_precision": micro[0],
        "micro_recall": micro[1],
        "micro_f1": micro[2],
        "macro_precision": macro[0],
        "macro_recall": macro[1],
        "macro_f1": macro[2],
        "macro_f1_of_means": _ratio(2 * macro[0] * macro[1], macro[0] + macro[1]),
        "samples_f1": _ratio(2 * hits.sum(axis=1), set_sizes, zero_division=1.0).mean(),
        "hamming_loss": wrong.mean(),
        "zero_one_loss": wrong.any(axis=1).mean(),
    }
    return {name: float(value) for name, value in metrics.items()}


def mean_position_deviation(references: Sequence[Sequence[int]], predictions: Sequence[Sequence[int]]) -> float:
    """How far labels stand from their places in the true sequence, on average (Patel, SGM-MLC, "Evaluation Metrics").

    The mean of |place in the prediction - place in the reference| over all pairs of document and label that are in
    both. Labels that are missing or wrong have no place to compare, but move the places of those behind them.

    Args:
        references: Label ids of each document, each id once, in the order of training.
        predictions: The same, in generated order: `LabelPredictions.best_sequences`.

    Returns:
        A number of places, 0 where the order is right; NaN where no document has a label of its reference.

    Raises:
        ValueError: If there are not as many predictions as references, or a sequence has a label twice.
    """
    if len(references) != len(predictions):
        raise ValueError(
            f"there are {len(references)} references and {len(predictions)} predictions; give one of each document."
        )
    total = count = 0
    for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        gold, found = ({label: place for place, label in enumerate(labels)} for labels in (reference, prediction))
        if (len(gold), len(found)) != (len(reference), len(prediction)):
            raise ValueError(
                f"document {row} has a label twice: reference {list(reference)!r:.200}, prediction "
                f"{list(prediction)!r:.200}; give each label once."
            )
        shared = gold.keys() & found.keys()
        total += sum(abs(found[label] - gold[label]) for label in shared)
        count += len(shared)
    return total / count if count else math.nan


def label_report(
    references: np.ndarray, predictions: np.ndarray, label_names: Sequence[str]
) -> list[dict[str, str | float | int]]:
    """Precision, recall and F1 of each label.

    Args:
        references: True labels, bool, shape (N, L).
        predictions: Predicted labels, bool, shape (N, L).
        label_names: Names of the L columns.

    Returns:
        One row per label: `label`, `precision`, `recall`, `f1`, and `support`, the number of documents that have it.

    Raises:
        TypeError: If a matrix is not a boolean numpy array.
        ValueError: If the shapes or the number of names do not match.
    """
    check_matrices(references, "predictions", predictions, "b", "bool")
    if len(label_names) != references.shape[1]:
        raise ValueError(
            f"label_names has {len(label_names)} names, but the matrices have {references.shape[1]} columns: "
            "give one name for each column."
        )
    hits, support = (references & predictions).sum(axis=0), references.sum(axis=0)
    precision, recall, f1 = precision_recall_f1(hits, predictions.sum(axis=0), support)
    return [
        {
            "label": name,
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(label_names)
    ]


def frequency_bands(training_counts: np.ndarray, bounds: Sequence[int] = FREQUENCY_BOUNDS) -> dict[str, np.ndarray]:
    """Group labels by the number of training documents that have them.

    Args:
        training_counts: Training documents of each label, integer, shape (L).
        bounds: Lowest number of each band, rising. A label below the first is in no band.

    Returns:
        Which labels belong to each band, bool, shape (L), by its name: "1_to_9", …, "from_1000". A band without
        labels is left out.
    """
    names = [f"{low}_to_{high - 1}" for low, high in pairwise(bounds)] + [f"from_{bounds[-1]}"]
    places = np.searchsorted(bounds, training_counts, side="right") - 1  # (L), -1 below the first
    bands = {name: places == place for place, name in enumerate(names)}
    return {name: members for name, members in bands.items() if members.any()}


def f1_by_frequency(
    references: np.ndarray,
    predictions: np.ndarray,
    training_counts: np.ndarray,
    bounds: Sequence[int] = FREQUENCY_BOUNDS,
) -> dict[str, float]:
    """Micro-F1 and macro-F1 of the labels of each band of frequency in training.

    Args:
        references: True labels, bool, shape (N, L).
        predictions: Predicted labels, bool, shape (N, L).
        training_counts: Training documents of each label, integer, shape (L); 0 for one that training has not seen,
            which is in no band.
        bounds: Lowest number of training documents of each band, rising.

    Returns:
        `micro_f1_BAND` and `macro_f1_BAND` for the bands of `frequency_bands`, as `compute_metrics` gives them for
        these columns alone.

    Raises:
        TypeError: If a matrix is not a boolean numpy array.
        ValueError: If the shapes differ, or there is not one count for each column.
    """
    check_matrices(references, "predictions", predictions, "b", "bool")
    if np.shape(training_counts) != references.shape[1:]:
        raise ValueError(
            f"training_counts has the shape {np.shape(training_counts)}, but the matrices have "
            f"{references.shape[1]} columns: give one count for each column."
        )
    hits, predicted, relevant = (matrix.sum(axis=0) for matrix in (references & predictions, predictions, references))
    metrics = {}
    for band, members in frequency_bands(training_counts, bounds).items():
        counts = [of_labels[members] for of_labels in (hits, predicted, relevant)]
        metrics[f"micro_f1_{band}"] = float(precision_recall_f1(*(values.sum() for values in counts))[2])
        metrics[f"macro_f1_{band}"] = float(precision_recall_f1(*counts)[2].mean())
    return metrics


def metrics_by_set_size(
    references: np.ndarray, predictions: np.ndarray, largest: int | None = None
) -> list[dict[str, int | float]]:
    """Metrics of the documents with as many true labels each (SGM, Yang et al. 2018, Figure 3).

    Args:
        references: True labels, bool, shape (N, L).
        predictions: Predicted labels, bool, shape (N, L).
        largest: Documents with this many true labels or more are one group; default: a group for each size.

    Returns:
        One row for each size that occurs, rising: `size`, `documents`, and of these documents `micro_precision`,
        `micro_recall`, `micro_f1`, `samples_f1`, `hamming_loss` and `zero_one_loss`, as `compute_metrics` gives them
        for these rows alone.

    Raises:
        TypeError: If a matrix is not a boolean numpy array.
        ValueError: If the shapes differ, or `largest` is negative.
    """
    check_matrices(references, "predictions", predictions, "b", "bool")
    if largest is not None and largest < 0:
        raise ValueError(f"largest is {largest}; give a number of labels from 0 on.")
    hits, predicted, relevant = (matrix.sum(axis=1) for matrix in (references & predictions, predictions, references))
    wrong = predicted + relevant - 2 * hits  # (N), labels that are in one of the two sets only
    samples_f1 = _ratio(2 * hits, predicted + relevant, zero_division=1.0)
    groups = relevant if largest is None else np.minimum(relevant, largest)
    rows: list[dict[str, int | float]] = []
    for size in np.unique(groups):
        members = groups == size
        micro = precision_recall_f1(hits[members].sum(), predicted[members].sum(), relevant[members].sum())
        rows.append(
            {
                "size": int(size),
                "documents": int(members.sum()),
                **{f"micro_{name}": float(x) for name, x in zip(("precision", "recall", "f1"), micro, strict=True)},
                "samples_f1": float(samples_f1[members].mean()),
                "hamming_loss": float(wrong[members].mean() / references.shape[1]),
                "zero_one_loss": float((wrong[members] > 0).mean()),
            }
        )
    return rows


def fit_threshold(references: np.ndarray, label_scores: np.ndarray) -> float:
    """Find the threshold t for which the sets of labels with a score >= t have the highest micro-F1.

    The search is exact. The threshold is the middle of the best interval between two neighbouring scores; of several
    such middles the one nearest to 0.5, then the lower one.

    Args:
        references: True labels, bool, shape (N, L). True labels that the model does not know also need a column.
        label_scores: Score of each label, floating point, in [0, 1], shape (N, L); 0 for a label unknown to the model.

    Returns:
        A threshold in (0, 1], exact in the type of `label_scores`.

    Raises:
        TypeError: If `references` is not boolean or `label_scores` is not floating point.
        ValueError: If the shapes differ or a score is not in [0, 1].
    """
    check_matrices(references, "label_scores", label_scores, "f", "floating point")
    check_scores(label_scores)
    ends = np.array([0, 1], dtype=label_scores.dtype)
    label_scores = label_scores.clip(0, 1)
    scores, true_scores = np.sort(label_scores, axis=None), np.sort(label_scores[references])
    bounds = np.unique(np.concatenate([ends, scores]))
    lower, upper = bounds[:-1], bounds[1:]

    # Every threshold in (lower, upper] selects the same scores, those >= upper.
    selected = scores.size - np.searchsorted(scores, upper)
    hits = true_scores.size - np.searchsorted(true_scores, upper)
    micro_f1 = _ratio(2 * hits, selected + true_scores.size)

    # The middle of an interval tolerates rounding of the scores; that of two adjacent numbers may round to the lower.
    middle = lower + (upper - lower) / 2
    thresholds = np.where(middle > lower, middle, upper)
    best = thresholds[micro_f1 == micro_f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def multi_hot_matrix(name: str, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Multi-hot rows, as the `evaluate` library has them, as a bool matrix (N, L).

    Args:
        name: What to call the rows in an error.
        rows: 0 or 1 per label, for each document.

    Raises:
        ValueError: If a row has another length than the first, or another number.
    """
    length = len(rows[0])
    for i, row in enumerate(rows):
        if len(row) != length or not set(row) <= {0, 1}:
            raise ValueError(
                f"{name} must be multi-hot: a row of {length} zeros and ones for each document, but row {i} is {row}. "
                "Lists of label ids must be turned into such rows first."
            )
    return np.array(rows, dtype=bool)


def score_matrix(name: str, rows: Sequence[Sequence[float]], num_labels: int) -> np.ndarray:
    """Rows of label scores, as the `evaluate` library has them, as a float64 matrix (N, L).

    Args:
        name: What to call the rows in an error.
        rows: A score per label, for each document.
        num_labels: The number L of labels.

    Raises:
        ValueError: If a row has another length than L.
    """
    for i, row in enumerate(rows):
        if len(row) != num_labels:
            raise ValueError(
                f"{name} must have {num_labels} scores for each document, one per label, but row {i} has {len(row)}."
            )
    return np.array(rows, dtype=np.float64)


def precision_recall_f1(
    hits: np.ndarray, predicted: np.ndarray, relevant: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 from the counts of true positives, predicted positives and true labels, any shape."""
    return _ratio(hits, predicted), _ratio(hits, relevant), _ratio(2 * hits, predicted + relevant)


def _ratio(numerator: np.ndarray, denominator: np.ndarray, zero_division: float = 0.0) -> np.ndarray:
    """Divide elementwise, with `zero_division` where the denominator is 0."""
    undefined = np.full(np.shape(denominator), zero_division)
    return np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > 0)


def check_matrices(references: np.ndarray, name: str, other: np.ndarray, kind: str, expected: str) -> None:
    """Raise unless both are non-empty arrays of one shape (N, L), `references` of bool, `other` of a dtype `kind`."""
    for called, matrix, of_kind, wanted in (("references", references, "b", "bool"), (name, other, kind, expected)):
        if not isinstance(matrix, np.ndarray):
            raise TypeError(
                f"{called} must be a numpy array of shape (documents, labels), got {type(matrix).__name__}."
            )
        if matrix.dtype.kind != of_kind:
            raise TypeError(
                f"{called} must be {wanted}, got {matrix.dtype}: turn 0/1 into bool with .astype(bool), "
                "and scores into label sets with `scores >= threshold`."
            )
        if matrix.ndim != 2:
            raise ValueError(f"{called} must have the shape (documents, labels), got {matrix.shape}.")
        if matrix.size == 0:
            raise ValueError(f"{called} has the shape {matrix.shape}: there is no document, or no label, to measure.")
    if other.shape != references.shape:
        raise ValueError(
            f"references have the shape {references.shape}, {name} {other.shape}: "
            "both need a row for each document and a column for each label, in the same order."
        )


def check_scores(label_scores: np.ndarray) -> None:
    """Raise ValueError unless all scores lie in [0, 1], but for rounding."""
    # A comparison of the extremes needs no mask of (N, L); NaN passes into both, and fails it.
    lowest, highest = label_scores.min(), label_scores.max()
    if not (lowest >= -_SCORE_TOLERANCE and highest <= 1 + _SCORE_TOLERANCE):
        raise ValueError(
            f"label_scores must lie in [0, 1], but they span {lowest} to {highest}: give probabilities, not logits."
        )
