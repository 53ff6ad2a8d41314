"""From a baseline's scores to label sets: fitted on held-out documents for an objective, as for our models.

A rising curve makes probabilities of the scores (`fit_curve`), so that baselines whose scores are none can be compared
as if they were. Sets come from thresholds on these, from the system's own decision, or are those of highest expected
F1; what is best in cross-validation is taken.

Shapes: N documents, L labels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from sgm_hf.data.labels import label_matrix
from sgm_hf.metrics import compute_metrics
from sgm_hf.modeling.label_sets_sgm import expected_f1_sets_from_scores, interpolated_scores
from sgm_hf.training.calibration import Rule, choose_rule, fit_curve, log_odds, probabilities
from sgm_hf.training.prediction import LabelPredictions
from sgm_hf.training.thresholds import fit_thresholds

# The metric that each objective is about; of those whose name ends in "loss" less is better.
METRIC_OF = {
    "micro_f1": "micro_f1",
    "macro_f1": "macro_f1",
    "exact_match": "zero_one_loss",
    "hamming": "hamming_loss",
    "expected_f1": "samples_f1",
}
# What may decide, the simplest first: of rules alike the first is taken.
RULES_OF = {
    "micro_f1": ("own sets", "one threshold", "own thresholds", "expected F1"),
    "macro_f1": ("own sets", "one threshold", "own thresholds", "expected F1"),
    "exact_match": ("own sets", "one threshold"),
    "hamming": ("own sets", "one threshold"),
    "expected_f1": ("own sets", "expected F1"),
}
DECODING_OF = {
    "own sets": "best_sequence",
    "one threshold": "threshold",
    "own thresholds": "threshold",
    "expected F1": "expected_f1",
}
# What the threshold, which does not decide, is fitted to.
THRESHOLDS_OF = {"expected_f1": "micro_f1"}
_DOCUMENTS_AT_ONCE = 4096


class Decision(NamedTuple):
    """How scores become label sets.

    Args:
        set_decoding: "best_sequence" for the system's own sets, "threshold" or "expected_f1".
        threshold: Lowest calibrated score of a label of "threshold", one for all labels or one per label.
        calibration: What `fit_curve` has found; empty for scores as they are.
    """

    set_decoding: str = "best_sequence"
    threshold: float | Sequence[float] = 0.5
    calibration: Sequence[Any] = ()

    def calibrated(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of scores, float32 (N, L), in the order of the scores."""
        if not len(self.calibration):
            return scores
        found = np.empty(scores.shape, dtype=np.float32)
        for first in range(0, len(scores), _DOCUMENTS_AT_ONCE):
            rows = slice(first, first + _DOCUMENTS_AT_ONCE)
            if isinstance(self.calibration[0], Sequence):
                found[rows] = interpolated_scores(torch.from_numpy(scores[rows]), self.calibration).numpy()
            else:
                slope, intercept = self.calibration
                found[rows] = probabilities(slope * log_odds(scores[rows]) + intercept)
        return found

    def expected_f1_sets(self, probs: np.ndarray) -> list[list[int]]:
        """Each document's set of highest expected F1, labels taken as independent, from probabilities (N, L)."""
        parts = torch.from_numpy(probs).split(_DOCUMENTS_AT_ONCE)
        return [labels for part in parts for labels in expected_f1_sets_from_scores(part)]

    def label_sets(self, predictions: LabelPredictions, set_decoding: str | None = None) -> list[list[int]]:
        """The label ids of each document.

        Args:
            predictions: From `Baseline.predict`.
            set_decoding: Default that of the decision.
        """
        set_decoding = set_decoding or self.set_decoding
        if set_decoding == "best_sequence":
            return predictions.best_sequences
        if set_decoding == "expected_f1":
            return predictions.expected_f1_sets
        return sets_of_scores(predictions.label_scores, self.threshold)


def sets_of_scores(scores: np.ndarray, threshold: float | Sequence[float]) -> list[list[int]]:
    """The label ids whose score reaches the threshold, highest score first, of equal ones the lower id.

    Args:
        scores: (N, L).
        threshold: One for all labels, or one per label.
    """
    # In the type of the scores, as the matrices of the metrics are made.
    chosen = scores >= np.asarray(threshold, dtype=scores.dtype)
    sets = []
    for row, is_chosen in zip(scores, chosen, strict=True):
        labels = np.flatnonzero(is_chosen)
        sets.append(labels[np.argsort(-row[labels], kind="stable")].tolist())
    return sets


def fit_decision(
    references: np.ndarray, scores: np.ndarray, own_sets: Sequence[Sequence[int]], objective: str = "micro_f1"
) -> tuple[Decision, float]:
    """The decision that is best for an objective in cross-validation over held-out documents, fitted on all of them.

    Args:
        references: True labels, bool, (N, L).
        scores: Of the labels, in [0, 1], float32, (N, L).
        own_sets: The system's own label ids of each document.
        objective: A key of `METRIC_OF`.

    Returns:
        The decision, and its value: the metric of the objective in cross-validation.

    Raises:
        ValueError: If there is no such objective.
    """
    if objective not in METRIC_OF:
        raise ValueError(f"objective is {objective!r}; choose one of {', '.join(METRIC_OF)}.")
    curve, num_labels = Decision(calibration=fit_curve(scores, references).values), references.shape[1]
    probs, metric = curve.calibrated(scores), METRIC_OF[objective]

    def thresholds(name: str, rows: np.ndarray) -> float | list[float]:
        """What a rule with thresholds fits to some documents."""
        if objective == "exact_match":
            return exact_match_threshold(references[rows], probs[rows])
        shrinkage = 1.0 if name == "one threshold" else None
        return fit_thresholds(references[rows], probs[rows], THRESHOLDS_OF.get(objective, objective), shrinkage)

    def sets_of(name: str, fit: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What a rule that was fitted to some documents chooses for others."""
        if name in fixed:
            return fixed[name][rows]
        return probs[rows] >= np.asarray(thresholds(name, fit), dtype=probs.dtype)

    def value(sets: np.ndarray) -> float:
        found = compute_metrics(references, sets)[metric]
        return -found if metric.endswith("loss") else found

    fixed = {"own sets": label_matrix(own_sets, num_labels)}
    if "expected F1" in RULES_OF[objective]:
        fixed["expected F1"] = label_matrix(curve.expected_f1_sets(probs), num_labels)
    every = np.arange(len(references))
    rules: dict[str, Rule] = {name: partial(sets_of, name) for name in RULES_OF[objective]}
    if len(every) > 1:
        chosen, values = choose_rule(rules, value, len(every))
    else:  # nothing to cross-validate
        chosen = next(iter(rules))
        values = {chosen: value(rules[chosen](every, every))}
    # Fitted also where another decoding is better: the metrics of all decodings are reported.
    of_threshold = [name for name in values if DECODING_OF[name] == "threshold"]
    best = max(of_threshold, key=lambda name: values[name], default="one threshold")
    decision = Decision(DECODING_OF[chosen], thresholds(best, every), curve.calibration)
    return decision, abs(values[chosen])


def exact_match_threshold(references: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with which most documents have exactly their true labels, of the middle of the best interval.

    A document is right with the thresholds above its highest wrong score and up to its lowest true one.

    Args:
        references: True labels, bool, (N, L).
        scores: In [0, 1], (N, L).

    Returns:
        A threshold in (0, 1].
    """
    lower = np.where(references, 0.0, scores).max(axis=1)  # (N)
    upper = np.where(references, scores, 1.0).min(axis=1)  # (N)
    is_possible = lower < upper
    bounds = np.unique(np.concatenate([[0.0, 1.0], lower[is_possible], upper[is_possible]]))
    # A threshold in (bounds[i], bounds[i + 1]] is right for those that began by then and have not ended.
    began = np.searchsorted(np.sort(lower[is_possible]), bounds[:-1], side="right")
    ended = np.searchsorted(np.sort(upper[is_possible]), bounds[:-1], side="right")
    best = int((began - ended).argmax())
    middle = scores.dtype.type((bounds[best] + bounds[best + 1]) / 2)
    return float(middle if middle > bounds[best] else bounds[best + 1])
