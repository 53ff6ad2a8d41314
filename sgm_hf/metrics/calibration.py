"""Whether label scores are probabilities: calibration error, log-likelihood and Brier score, in numpy.

`references` are the true labels of N documents, bool, shape (N, L); `label_scores` their scores, floating point, in
[0, 1], shape (N, L), 0 for a label unknown to the model. All labels are pooled: a pair of document and label is one
binary event. Rows are taken in blocks, so the memory needed in addition does not grow with N.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sgm_hf.metrics.multilabel import check_matrices, check_scores

# Lowest score that enters the calibration error: below are nearly all pairs, all of them unlikely and of no use.
MINIMUM_SCORE = 0.01
NUM_BINS = 15  # as in Guo et al. 2017
# Lowest probability in the logarithm. What was given less costs -ln(1e-12) = 27.6 nats, and is counted.
LOWEST_PROBABILITY = 1e-12
SCORE_METRICS = ("ece", "nll", "brier", "certain_errors")
# Pairs of document and label that are in float64 at once.
_PAIRS_PER_BLOCK = 2**21


def compute_score_metrics(
    references: np.ndarray,
    label_scores: np.ndarray,
    minimum: float = MINIMUM_SCORE,
    num_bins: int = NUM_BINS,
) -> dict[str, float]:
    """Compare label scores, read as probabilities, with the true labels.

    Args:
        references: True labels.
        label_scores: Score of each label.
        minimum: Lowest score that enters `ece`.
        num_bins: Bins of `ece`.

    Returns:
        In this order, each the lower the better:

        - `ece`: `expected_calibration_error` of `calibration_bins`; NaN where no score reaches `minimum`.
        - `nll`: negative log-likelihood in nats per document: the sum over its labels of -ln p, where p is the
          probability that the score gives to what is true, at least 1e-12.
        - `brier`: the mean over all N x L pairs of (score - truth)². Of scores that are 0 or 1 it is the Hamming loss
          (Brier 1950, "Verification of forecasts expressed in terms of probability", for each label alone).
        - `certain_errors`: labels per document whose p is at most 1e-12, such as a true label with the score 0. Each
          costs 27.6 nats of `nll`.

    Raises:
        TypeError: If `references` is not boolean or `label_scores` is not floating point.
        ValueError: If the shapes differ, a score is not in [0, 1], or `minimum` or `num_bins` is out of range.
    """
    bins = calibration_bins(references, label_scores, minimum, num_bins)
    nats, squares, certain_errors = 0.0, 0.0, 0
    for truth, scores in _blocks(references, label_scores):
        probability = np.where(truth, scores, 1 - scores)  # (n, L), of what is true
        nats -= np.log(np.maximum(probability, LOWEST_PROBABILITY)).sum()
        squares += ((1 - probability) ** 2).sum()
        certain_errors += int((probability <= LOWEST_PROBABILITY).sum())
    num_documents = len(references)
    return {
        "ece": expected_calibration_error(bins),
        "nll": float(nats / num_documents),
        "brier": float(squares / references.size),
        "certain_errors": certain_errors / num_documents,
    }


def calibration_bins(
    references: np.ndarray,
    label_scores: np.ndarray,
    minimum: float = MINIMUM_SCORE,
    num_bins: int = NUM_BINS,
) -> list[dict[str, float | int]]:
    """Sort scores into bins of equal width, and compare each bin's mean score with its share of true labels.

    Args:
        references: True labels.
        label_scores: Score of each label.
        minimum: Scores below are left out.
        num_bins: Number M of bins of [0, 1]; the m-th holds the scores in ((m - 1) / M, m / M], the first 0 too.

    Returns:
        One row per bin: `lower` and `upper` bound, `count` of scores, `mean_score` and `share_true`; the last two are
        NaN in an empty bin.

    Raises:
        TypeError: If `references` is not boolean or `label_scores` is not floating point.
        ValueError: If the shapes differ, a score is not in [0, 1], or `minimum` or `num_bins` is out of range.
    """
    check_matrices(references, "label_scores", label_scores, "f", "floating point")
    check_scores(label_scores)
    if not 0 <= minimum <= 1:
        raise ValueError(f"minimum is {minimum}; give the lowest score that counts, from 0 to 1.")
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; give at least 1.")
    edges = np.linspace(0, 1, num_bins + 1)
    counts, true_counts = np.zeros(num_bins, dtype=np.int64), np.zeros(num_bins, dtype=np.int64)
    sums = np.zeros(num_bins)
    for truth, scores in _blocks(references, label_scores):
        counted = scores >= minimum
        kept = scores[counted]
        place = np.searchsorted(edges[1:-1], kept)  # a score on an edge belongs to the bin below it
        counts += np.bincount(place, minlength=num_bins)
        sums += np.bincount(place, weights=kept, minlength=num_bins)
        true_counts += np.bincount(place[truth[counted]], minlength=num_bins)
    return [
        {
            "lower": float(edges[m]),
            "upper": float(edges[m + 1]),
            "count": int(counts[m]),
            "mean_score": float(sums[m] / counts[m]) if counts[m] else math.nan,
            "share_true": float(true_counts[m] / counts[m]) if counts[m] else math.nan,
        }
        for m in range(num_bins)
    ]


def expected_calibration_error(bins: Sequence[Mapping[str, float | int]]) -> float:
    """The mean distance of `mean_score` and `share_true` over the bins, weighted by `count`; NaN if all are empty.

    Naeini, Cooper and Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", as Guo et al.
    2017, "On Calibration of Modern Neural Networks" (eq. 3), take it; here over the scores of all labels, not those of
    the one class that is predicted.

    Args:
        bins: From `calibration_bins`.
    """
    total = sum(row["count"] for row in bins)
    if total == 0:
        return math.nan
    return sum(row["count"] * abs(row["mean_score"] - row["share_true"]) for row in bins if row["count"]) / total


def _blocks(references: np.ndarray, label_scores: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows in blocks of bounded size: true labels, and scores as float64 in [0, 1], both (n, L)."""
    rows = max(1, _PAIRS_PER_BLOCK // references.shape[1])
    for start in range(0, len(references), rows):
        block = slice(start, start + rows)
        yield references[block], label_scores[block].astype(np.float64).clip(0, 1)
