"""The metrics of multi-label classification, in numpy.

A set of documents is a boolean matrix of shape (N, L): row = document, column = label, true where the document has the
label. `references` are the true labels, `predictions` the predicted ones. A ratio 0/0 counts as 0, as in scikit-learn
with `zero_division=0`; the one exception is `samples_f1` (see `compute_metrics`).
"""

from collections.abc import Sequence

import numpy as np

# Scores are ratios of sums of probabilities, so that rounding may carry them this far past 0 or 1.
_SCORE_TOLERANCE = 1e-5


def compute_metrics(references: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Compare predicted label sets with the true ones.

    Two different quantities are called macro-F1 in the literature (Opitz and Burst 2019, "Macro F1 and Macro F1",
    arXiv:1911.03347). Both are here: `macro_f1` is their "averaged F1", `macro_f1_of_means` their "F1 of averages",
    which is never the smaller one.

    Args:
        references: True labels, bool, shape (N, L).
        predictions: Predicted labels, bool, shape (N, L). Where true labels exist that the model does not know, give
            both matrices a column for each (`sgm_hf.data.labels.reference_matrix` does), all false in `predictions`.

    Returns:
        In this order, each in [0, 1]:

        - `micro_precision`, `micro_recall`, `micro_f1`: from the counts summed over all labels. micro_f1 is the main
          metric of the SGM paper (Yang et al. 2018, section 3.2).
        - `macro_precision`, `macro_recall`, `macro_f1`: means over the L labels. A label that occurs in neither matrix
          counts as 0.
        - `macro_f1_of_means`: the harmonic mean of macro_precision and macro_recall.
        - `samples_f1`: the mean over documents of each one's F1. A document with no label for which none is predicted
          counts as 1, since nothing is wrong with it.
        - `hamming_loss`: the share of wrong cells among all N x L (Schapire and Singer 1999).
        - `zero_one_loss`: the share of documents whose label set is not exactly right (subset 0/1 loss).

    Raises:
        TypeError: If one of the two is not a boolean numpy array.
        ValueError: If the shapes differ, are not two-dimensional, or hold no document or no label.
    """
    _check_label_matrices(references, predictions)
    hits = references & predictions
    wrong = references ^ predictions
    micro = _precision_recall_f1(hits.sum(), predictions.sum(), references.sum())
    per_label = _precision_recall_f1(hits.sum(axis=0), predictions.sum(axis=0), references.sum(axis=0))
    macro = [values.mean() for values in per_label]
    set_sizes = predictions.sum(axis=1) + references.sum(axis=1)
    metrics = {
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


def label_report(
    references: np.ndarray, predictions: np.ndarray, label_names: Sequence[str]
) -> list[dict[str, str | float | int]]:
    """Tabulate precision, recall and F1 of each label.

    Args:
        references: True labels, bool, shape (N, L).
        predictions: Predicted labels, bool, shape (N, L).
        label_names: Name of each column, length L.

    Returns:
        One row a label, in the order of the columns: `label`, `precision`, `recall`, `f1`, and `support`, the number
        of documents that truly have it.

    Raises:
        TypeError: If one of the matrices is not a boolean numpy array.
        ValueError: If the shapes and the number of names do not fit together.
    """
    _check_label_matrices(references, predictions)
    if len(label_names) != references.shape[1]:
        raise ValueError(
            f"label_names has {len(label_names)} names, but the matrices have {references.shape[1]} columns: "
            "give one name for each column."
        )
    hits, support = (references & predictions).sum(axis=0), references.sum(axis=0)
    precision, recall, f1 = _precision_recall_f1(hits, predictions.sum(axis=0), support)
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


def fit_threshold(references: np.ndarray, label_scores: np.ndarray) -> float:
    """Find the threshold t for which the sets of labels with a score >= t have the highest micro-F1.

    The search is exact: between two neighbouring distinct scores every threshold selects the same labels, and each of
    these intervals is tried. The answer is the middle of the best interval, which tolerates rounding of the scores.
    Among equally good intervals it is the one whose middle is nearest to 0.5, then the lower one.

    Args:
        references: True labels, bool, shape (N, L). True labels that the model does not know have columns too.
        label_scores: Score of each label, floating point, in [0, 1], shape (N, L); 0 for a label unknown to the model.

    Returns:
        A threshold in (0, 1]. It is exact in the type of `label_scores`, so that comparing in that type is safe.

    Raises:
        TypeError: If `references` is not boolean or `label_scores` not floating point.
        ValueError: If the shapes differ or a score is not in [0, 1].
    """
    _check_matrix("references", references, "b", "bool")
    _check_matrix("label_scores", label_scores, "f", "floating point")
    _check_same_shape("label_scores", references, label_scores)
    # Written so that NaN fails too.
    if not ((label_scores >= -_SCORE_TOLERANCE) & (label_scores <= 1 + _SCORE_TOLERANCE)).all():
        raise ValueError(
            f"label_scores must lie in [0, 1], but they span {label_scores.min()} to {label_scores.max()}: "
            "give probabilities, not logits."
        )
    ends = np.array([0, 1], dtype=label_scores.dtype)
    label_scores = label_scores.clip(0, 1)
    scores, true_scores = np.sort(label_scores, axis=None), np.sort(label_scores[references])
    bounds = np.unique(np.concatenate([ends, scores]))
    lower, upper = bounds[:-1], bounds[1:]

    # A threshold in (lower, upper] selects the scores >= upper.
    selected = scores.size - np.searchsorted(scores, upper)
    hits = true_scores.size - np.searchsorted(true_scores, upper)
    micro_f1 = _ratio(2 * hits, selected + true_scores.size)

    middle = lower + (upper - lower) / 2
    thresholds = np.where(middle > lower, middle, upper)  # the middle of two adjacent numbers may round to the lower
    best = thresholds[micro_f1 == micro_f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def _precision_recall_f1(
    hits: np.ndarray, predicted: np.ndarray, relevant: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 from counts: true positives, predicted positives, true members; any common shape."""
    return _ratio(hits, predicted), _ratio(hits, relevant), _ratio(2 * hits, predicted + relevant)


def _ratio(numerator: np.ndarray, denominator: np.ndarray, zero_division: float = 0.0) -> np.ndarray:
    """Divide elementwise; where the denominator is 0 the result is `zero_division`."""
    undefined = np.full(np.shape(denominator), zero_division)
    return np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > 0)


def _check_label_matrices(references: np.ndarray, predictions: np.ndarray) -> None:
    _check_matrix("references", references, "b", "bool")
    _check_matrix("predictions", predictions, "b", "bool")
    _check_same_shape("predictions", references, predictions)


def _check_matrix(name: str, matrix: np.ndarray, kind: str, expected: str) -> None:
    """Raise unless `matrix` is a filled two-dimensional numpy array whose dtype is of `kind`."""
    if not isinstance(matrix, np.ndarray):
        raise TypeError(f"{name} must be a numpy array of shape (documents, labels), got {type(matrix).__name__}.")
    if matrix.dtype.kind != kind:
        raise TypeError(
            f"{name} must be {expected}, got {matrix.dtype}: turn 0/1 into bool with .astype(bool), "
            "and scores into label sets with `scores >= threshold`."
        )
    if matrix.ndim != 2:
        raise ValueError(f"{name} must have the shape (documents, labels), got {matrix.shape}.")
    if matrix.size == 0:
        raise ValueError(f"{name} has the shape {matrix.shape}: there is no document, or no label, to measure.")


def _check_same_shape(name: str, references: np.ndarray, other: np.ndarray) -> None:
    if other.shape != references.shape:
        raise ValueError(
            f"references have the shape {references.shape}, {name} {other.shape}: "
            "both need a row for each document and a column for each label, in the same order."
        )
