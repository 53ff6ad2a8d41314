"""How well label scores rank the labels: P@k, nDCG@k, R-precision, LRAP, coverage, average precision, in numpy.

`references` are the true labels of N documents, bool, shape (N, L); `label_scores` their scores, floating point, shape
(N, L), higher for what is more likely. Everything follows from the ranks of the true labels, which are few: a block of
rows is sorted, the true labels look up their places in it, and nothing else of size (N, L) is made.

Labels with equal scores have no order. nDCG@k, P@k and R-precision are means over all orders of equal labels, as in
scikit-learn's `ndcg_score` (McSherry and Najork 2008, "Computing information retrieval performance measures
efficiently in the presence of tied scores"). LRAP, coverage, ranking loss and average precision give each label of a
group of equals the last place of the group, also as in scikit-learn.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sgm_hf.metrics.multilabel import check_matrices

CUTOFFS = (1, 3, 5)
# Of the default cutoffs, in the order of `compute_ranking_metrics`.
RANKING_METRICS = (
    *(f"{name}_at_{k}" for name in ("precision", "ndcg") for k in CUTOFFS),
    *("r_precision", "lrap", "coverage_error", "ranking_loss"),
    *("micro_ap", "macro_ap"),
)
# Of these a lower value is better.
RANKING_LOSSES = ("coverage_error", "ranking_loss")
# Pairs of document and label that are sorted at once.
_PAIRS_PER_BLOCK = 2**21


class TrueRanks(NamedTuple):
    """The places of the true labels of some rows, one entry for each of the P pairs of row and true label.

    Args:
        rows: Row of the pair, rising.
        above: Labels of the row with a higher score.
        reached: Labels of the row with a score at least as high, the label itself among them.
        true_reached: True labels among these.
    """

    rows: np.ndarray
    above: np.ndarray
    reached: np.ndarray
    true_reached: np.ndarray


def compute_ranking_metrics(
    references: np.ndarray, label_scores: np.ndarray, k: Sequence[int] = CUTOFFS
) -> dict[str, float]:
    """Compare the ranking of the labels by their scores with the true labels.

    Args:
        references: True labels.
        label_scores: Score of each label, any finite number.
        k: The cutoffs of `precision_at_k` and `ndcg_at_k`.

    Returns:
        In this order; the higher the better, but for `coverage_error` and `ranking_loss`:

        - `precision_at_k` for each k: true labels among the k first, over k, also where there are fewer than k labels.
        - `ndcg_at_k` for each k: discounted cumulative gain of the k first over the highest possible (Järvelin and
          Kekäläinen 2002), as scikit-learn's `ndcg_score`.
        - `r_precision`: the share of true labels among the R first, R being their number in the document.
        - `lrap`: scikit-learn's `label_ranking_average_precision_score` (Schapire and Singer 2000).
        - `coverage_error`: how many labels to take from the top to have all true ones, as in scikit-learn.
        - `ranking_loss`: the share of wrongly ordered pairs of a true and another label of a document, scikit-learn's
          `label_ranking_loss`.
        - `micro_ap`: average precision over all pairs of document and label in one ranking.
        - `macro_ap`: the mean of the labels' average precisions, also called mAP.

        All but the last two are means over the documents. A document without true labels counts as scikit-learn has
        it: 0 in P@k, nDCG@k, coverage and ranking loss, 1 in LRAP. R-precision leaves it out, and is NaN where no
        document has labels. A label without documents counts as 0 in mAP.

    Raises:
        TypeError: If `references` is not boolean or `label_scores` is not floating point.
        ValueError: If the shapes differ, a score is not finite, or a k is below 1.
    """
    check_matrices(references, "label_scores", label_scores, "f", "floating point")
    if not (np.isfinite(label_scores.min()) and np.isfinite(label_scores.max())):  # NaN passes into both
        raise ValueError("label_scores has NaN or infinite scores, which have no rank: give a finite number for each.")
    if not all(isinstance(cutoff, int | np.integer) and cutoff >= 1 for cutoff in k):
        raise ValueError(f"k is {tuple(k)}; give numbers of labels from 1 on.")
    metrics = _of_documents(references, label_scores, [int(cutoff) for cutoff in k])
    metrics["micro_ap"] = _pooled_average_precision(references, label_scores)
    metrics["macro_ap"] = _mean_average_precision(references, label_scores)
    return metrics


def true_ranks(references: np.ndarray, label_scores: np.ndarray) -> TrueRanks:
    """Find the places of the true labels in the rankings of their rows.

    Args:
        references: True labels, bool, shape (n, L).
        label_scores: Score of each label, shape (n, L).
    """
    rows, columns = references.nonzero()  # (P)
    scores = label_scores[rows, columns]
    rising = np.sort(label_scores, axis=1)
    num_labels = label_scores.shape[1]
    reached = num_labels - _count_lower(rising, rows, scores)
    above = num_labels - _count_lower(rising, rows, scores, or_equal=True)

    # The same among the true labels alone: sorted by row and score, from the first of a group to the end of its row.
    order = np.lexsort((scores, rows))
    sorted_scores = scores[order]  # `rows` is sorted already
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = (rows[1:] != rows[:-1]) | (sorted_scores[1:] != sorted_scores[:-1])
    firsts = np.flatnonzero(is_first)[is_first.cumsum() - 1]  # (P)
    ends = np.bincount(rows, minlength=len(references)).cumsum()  # (n)
    true_reached = np.empty_like(reached)
    true_reached[order] = ends[rows] - firsts
    return TrueRanks(rows, above, reached, true_reached)


def _count_lower(rising: np.ndarray, rows: np.ndarray, values: np.ndarray, or_equal: bool = False) -> np.ndarray:
    """How many entries of a sorted row are below a value, by binary search of all values at once.

    Args:
        rising: Sorted rows (n, L).
        rows: Row to search for each value (P).
        values: The values (P).
        or_equal: Whether entries equal to the value count too.
    """
    length = rising.shape[1]
    count = np.zeros(len(rows), dtype=np.int64)
    for step in (2**power for power in reversed(range(length.bit_length()))):
        last = np.minimum(count + step, length) - 1
        entries = rising[rows, last]
        is_lower = entries <= values if or_equal else entries < values
        count = np.where(is_lower, last + 1, count)
    return count


def _of_documents(references: np.ndarray, label_scores: np.ndarray, cutoffs: Sequence[int]) -> dict[str, float]:
    """The metrics that are means over the documents."""
    num_documents, num_labels = references.shape
    # Discounts of the first places, summed: gains[p] is what p true labels in the first p places gain.
    gains = np.concatenate([[0.0], (1 / np.log2(np.arange(2, max(cutoffs, default=0) + 2))).cumsum()])
    names = [f"{name}_at_{k}" for name in ("precision", "ndcg") for k in cutoffs]
    sums = dict.fromkeys((*names, "r_precision", "lrap", "coverage_error", "ranking_loss"), 0.0)
    num_labelled = 0
    for truth, scores in _blocks(references, label_scores):
        ranks = true_ranks(truth, scores)
        tied = ranks.reached - ranks.above  # (P), places that the label may take
        true_counts = truth.sum(axis=1)  # (n)
        of_row = true_counts[ranks.rows]  # (P)
        for k in cutoffs:
            sums[f"precision_at_{k}"] += ((k - ranks.above) / tied).clip(0, 1).sum() / k
            gain = (gains[np.minimum(ranks.reached, k)] - gains[np.minimum(ranks.above, k)]) / tied
            sums[f"ndcg_at_{k}"] += (gain / gains[np.minimum(of_row, k)]).sum()
        sums["r_precision"] += (((of_row - ranks.above) / tied).clip(0, 1) / of_row).sum()
        sums["lrap"] += (ranks.true_reached / ranks.reached / of_row).sum() + (true_counts == 0).sum()
        wrong_pairs = of_row * (num_labels - of_row)  # (P), 0 where all labels are true
        sums["ranking_loss"] += ((ranks.reached - ranks.true_reached) / np.maximum(wrong_pairs, 1)).sum()
        starts = np.flatnonzero(np.diff(ranks.rows, prepend=-1))
        if len(starts):
            sums["coverage_error"] += np.maximum.reduceat(ranks.reached, starts).sum()
        num_labelled += len(starts)
    metrics = {name: float(value / num_documents) for name, value in sums.items()}
    metrics["r_precision"] = float(sums["r_precision"] / num_labelled) if num_labelled else float("nan")
    return metrics


def _pooled_average_precision(references: np.ndarray, label_scores: np.ndarray) -> float:
    """Average precision over all pairs of document and label, scikit-learn's with `average="micro"`."""
    true_scores = label_scores[references]
    thresholds, counts = np.unique(true_scores, return_counts=True)  # (T), rising
    true_reached = counts[::-1].cumsum()[::-1]
    reached = np.zeros(len(thresholds), dtype=np.int64)
    for _, scores in _blocks(references, label_scores):
        rising = np.sort(scores, axis=None)
        reached += rising.size - np.searchsorted(rising, thresholds)
    return float((counts * true_reached / reached).sum() / len(true_scores)) if len(true_scores) else 0.0


def _mean_average_precision(references: np.ndarray, label_scores: np.ndarray) -> float:
    """The mean of the labels' average precisions, scikit-learn's with `average="macro"`."""
    total = 0.0
    for truth, scores in _blocks(references.T, label_scores.T):  # a row per label
        ranks = true_ranks(truth, scores)
        total += (ranks.true_reached / ranks.reached / truth.sum(axis=1)[ranks.rows]).sum()
    return float(total / references.shape[1])


def _blocks(references: np.ndarray, label_scores: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of both in blocks of bounded size, at least one row each."""
    rows = max(1, _PAIRS_PER_BLOCK // references.shape[1])
    for start in range(0, len(references), rows):
        yield references[start : start + rows], label_scores[start : start + rows]
