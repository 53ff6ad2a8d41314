"""
The scores that suffice for an objective: thresholds fitted on documents that the scores were not fitted on.

1. `fit_thresholds`: for micro-F1, macro-F1 and Hamming loss.
2. `shifted_thresholds`: from one threshold for a few documents, and how labels differ on many others.

The probability of the whole set and the F1 of each document need none (`modeling/label_sets_sgm.py`).
Shapes: N documents, L labels, C cuts of all labels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sgm_hf.metrics import fit_threshold
from sgm_hf.training.calibration import log_odds, probabilities

# What sets are to be best at, and how far the threshold of a label is then drawn to the global one: what did best on
# other documents of three corpora, with 1,000 documents to fit on and with 4,000 (docs/thresholds.md).
SHRINKAGES = {"micro_f1": 0.5, "macro_f1": 0.25, "hamming": 1.0}
OBJECTIVES = (*SHRINKAGES, "exact_match", "expected_f1")
# An interval between scores that reaches to 0 or 1 is cut here, or its middle would be there too.
_MAX_LOG_ODDS = 12.0


class Cuts(NamedTuple):
    """Each choice of documents that a threshold of one label can make with profit: down to a true one, or by 1.

    Attributes:
        label: Whose threshold it is, ascending, (C).
        hits: Chosen documents that have the label, (C).
        chosen: Chosen documents, (C).
        lower: The greatest score that is not chosen, (C); all thresholds in (lower, upper] choose the same.
        upper: The least score of a chosen true document, or 1, (C).
    """

    label: np.ndarray
    hits: np.ndarray
    chosen: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def fit_thresholds(
    references: np.ndarray, scores: np.ndarray, objective: str = "micro_f1", shrinkage: float | None = None
) -> float | list[float]:
    """The thresholds that the scores of labels have to reach for an objective.

    The global threshold is the best one for micro-F1 (`fit_threshold`). A label's own threshold is the best for the
    objective, and then drawn to the global one in log-odds, because few documents say little of one label. A label
    that no document has keeps the global one.

    Args:
        references: True labels of held-out documents, bool, (N, L).
        scores: Of these labels, floating point, in [0, 1], (N, L).
        objective: `"micro_f1"`: own thresholds are those of the greatest micro-F1 together. `"macro_f1"`: own
            thresholds are those of each label's greatest F1. `"hamming"`: 0.5, the best for calibrated scores.
        shrinkage: From 0, each label's own threshold, to 1, the global one for all; that of `SHRINKAGES` by default.

    Returns:
        One for each label, or one for all; in (0, 1].

    Raises:
        TypeError: If `references` is not boolean or `scores` is not floating point.
        ValueError: If the shapes differ, a score or the shrinkage is outside [0, 1], or the objective has no
            threshold.
    """
    if objective not in SHRINKAGES:
        raise ValueError(
            f"objective is {objective!r}; thresholds serve {', '.join(SHRINKAGES)}. For 'exact_match' take "
            "set_decoding='best_sequence', for 'expected_f1' that of the same name."
        )
    shrinkage = SHRINKAGES[objective] if shrinkage is None else shrinkage
    if not 0 <= shrinkage <= 1:
        raise ValueError(
            f"shrinkage is {shrinkage}; give a number from 0 (each label's own threshold) to 1 (the global)."
        )
    common = fit_threshold(references, scores)  # checks the matrices
    if objective == "hamming":
        return 0.5
    if shrinkage == 1:
        return common
    scores = scores.clip(0, 1)
    cuts, support = label_cuts(references, scores, common), references.sum(axis=0)
    if objective == "macro_f1":
        values = 2 * cuts.hits / np.maximum(1, cuts.chosen + support[cuts.label])
    else:
        values = _values_for_micro_f1(cuts, int(support.sum()))
    own = _best_thresholds(cuts, values, common)
    if shrinkage == 0:
        return own.tolist()
    return shifted_thresholds(common, own, common, shrinkage)


def shifted_thresholds(
    threshold: float, own_thresholds: Sequence[float] | np.ndarray, own_threshold: float, shrinkage: float = 0.5
) -> list[float]:
    """A threshold for each label, from one for all and from how labels differ under other scores.

    Where held-out documents are few, one threshold of the final scores is all they tell. Out-of-fold scores of the
    words, which all training documents have, tell which labels need more and which less.

    Args:
        threshold: Of the final scores, for all labels.
        own_thresholds: Of the other scores, one for each label, (L).
        own_threshold: Of the other scores, for all labels.
        shrinkage: From 0, the difference between the two in log-odds added in full, to 1, not at all.

    Returns:
        (L), in (0, 1].
    """
    difference = _bounded_log_odds(own_thresholds) - _bounded_log_odds(own_threshold)
    shifted = probabilities(log_odds(np.array(threshold)) + (1 - shrinkage) * difference)
    return np.where(difference == 0, threshold, shifted).tolist()


def label_cuts(references: np.ndarray, scores: np.ndarray, common: float) -> Cuts:
    """The cuts of each label: a threshold just above a score that is not true loses nothing over the next one.

    Args:
        references: True labels, bool, (N, L).
        scores: In [0, 1], (N, L).
        common: The global threshold.

    Returns:
        For each label one cut for each score of a true document, ascending, and that of a threshold of 1; for a label
        that no document has, that of the common threshold alone.
    """
    parts = []
    for label in range(scores.shape[1]):
        every, true = np.sort(scores[:, label]), np.sort(scores[references[:, label], label])
        last = np.array([1 if len(true) else common], dtype=true.dtype)
        upper = np.unique(np.append(true[true > 0], last))  # thresholds are above 0
        below = np.searchsorted(every, upper)
        lower = np.where(below > 0, every[below - 1], 0)
        hits, chosen = len(true) - np.searchsorted(true, upper), len(every) - below
        parts.append((np.full(len(upper), label), hits, chosen, lower, upper))
    return Cuts(*map(np.concatenate, zip(*parts, strict=True)))


def _values_for_micro_f1(cuts: Cuts, num_true: int) -> np.ndarray:
    """What each cut contributes, so that the best of each label give the greatest micro-F1 together.

    A ratio of sums has its greatest value F where the greatest sum of hits - F / 2 * (chosen + true) is 0, and that
    is a sum over labels (Dinkelbach 1967, "On nonlinear fractional programming").
    """
    micro_f1 = 0.0
    starts = np.flatnonzero(np.r_[True, np.diff(cuts.label) > 0])
    while True:  # each round takes another choice of cuts, of greater micro-F1
        values = cuts.hits - micro_f1 / 2 * cuts.chosen
        best = np.maximum.reduceat(values, starts)
        is_best = values == np.repeat(best, np.diff(np.r_[starts, len(values)]))
        chosen_cuts = np.flatnonzero(is_best)[np.unique(cuts.label[is_best], return_index=True)[1]]
        reached = 2 * cuts.hits[chosen_cuts].sum() / max(1, cuts.chosen[chosen_cuts].sum() + num_true)
        if reached <= micro_f1 * (1 + 1e-12):
            return values
        micro_f1 = float(reached)


def _best_thresholds(cuts: Cuts, values: np.ndarray, common: float) -> np.ndarray:
    """The threshold of each label's cut of greatest value; of cuts alike the one nearest to the common one."""
    middle = probabilities((_bounded_log_odds(cuts.lower) + _bounded_log_odds(cuts.upper)) / 2)
    # In the type of the scores, where the middle of two neighbours may round to the lower.
    middle = middle.astype(cuts.upper.dtype)
    middle = np.where((cuts.lower < middle) & (middle <= cuts.upper), middle, cuts.upper).astype(np.float64)
    thresholds = np.where((cuts.lower < common) & (common <= cuts.upper), common, middle)
    distances = np.abs(log_odds(thresholds) - log_odds(np.array(common)))
    order = np.lexsort((distances, -values, cuts.label))
    return thresholds[order[np.unique(cuts.label[order], return_index=True)[1]]]


def _bounded_log_odds(scores: Sequence[float] | np.ndarray | float) -> np.ndarray:
    """The log-odds of scores, within bounds that 0 and 1 have too."""
    return log_odds(np.asarray(scores)).clip(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)
