"""`SGMTrainer.calibrate`: fits scores and decisions of hypotheses and lexical log-odds on held-out documents."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from transformers import Trainer

from sgm_hf.data.labels import label_matrix
from sgm_hf.metrics import compute_metrics, fit_threshold
from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.modeling.generation_sgm import ScoreSettings
from sgm_hf.modeling.label_sets_sgm import (
    combined_scores,
    expected_f1_sets_from_scores,
    label_scores_from_hypotheses,
    reweighted_log_probs,
)
from sgm_hf.training.arguments import SGMTrainingArguments
from sgm_hf.training.calibration import Rule, choose_rule, fit_curve, fit_hypothesis_weights
from sgm_hf.training.lexical import LexicalFit
from sgm_hf.training.prediction import LabelHypotheses
from sgm_hf.training.priors import PriorShift, fit_prior_shift, read_label_frequencies, resampled_rows
from sgm_hf.training.thresholds import fit_thresholds, shifted_thresholds

logger = logging.getLogger(__name__)

# The set decoding that serves an objective, unless cross-validation finds a better one, and what the weights of
# hypotheses are chosen by.
DECISIONS = {
    "micro_f1": ("threshold", "micro_f1"),
    "macro_f1": ("threshold", "micro_f1"),
    "exact_match": ("best_sequence", "exact_match"),
    "hamming": ("threshold", "nll"),
    "expected_f1": ("expected_f1", "nll"),
}
# Of the branch's probability in a label's score.
SHARES = (0.5, 0.3, 0.7, 0.9)
# Documents whose scores are combined at a time, and out-of-fold scores that are looked at: 200 MB.
BLOCK, MOST_SCORES = 4096, 50_000_000


class CalibratingTrainer(Trainer):
    """A `Trainer` that fits scores and decisions to held-out documents."""

    args: SGMTrainingArguments
    model: SGMForMultiLabelGeneration
    lexical_fit: LexicalFit | None
    threshold_dataset: Dataset | None
    # What was fitted to the training documents, for the next calibration: what it was fitted to, and what came out.
    _kept_prior: tuple[tuple[Any, list[str], dict[str, float]], PriorShift] | None = None
    _kept_shift: tuple[tuple[Any, ...], tuple[list[float], float]] | None = None

    def calibrate(
        self,
        dataset: Dataset | None = None,
        objective: str | None = None,
        label_frequencies: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """Fit what serves an objective, and store it in the model's generation config.

        In a model with a lexical branch these are the weights of its log-odds and the temperature beside the beams
        (`lexical_weight`, `hypothesis_temperature`) and the share of its probabilities in the scores
        (`lexical_share`), by searches over grids, and a rising curve that makes calibrated probabilities of the scores
        (`label_calibration`, Zadrozny and Elkan 2002; of few documents Platt's two numbers). For micro-F1 and macro-F1
        these are also thresholds: one for all labels, one for each drawn to that, or one shifted by what the
        out-of-fold scores of the branch say of the label; or, in a model with a branch, the sets of highest expected
        F1: what is best in cross-validation.

        Args:
            dataset: Encoded documents that are not trained on; default `threshold_dataset`, else those of evaluation,
                whose metrics then are a little too good.
            objective: What sets are to be best at: "micro_f1", "macro_f1", "exact_match" (0/1 loss), "hamming" or
                "expected_f1" (the F1 of each document); default that of the settings, else "micro_f1".
            label_frequencies: The share of documents that has each label where the model is to be used, by name, if
                labels are more or less frequent there than in training; default those of the settings. The branch's
                log-odds change by as much (`lexical_bias`), and all is fitted to documents drawn in such shares.

        Returns:
            The numbers that were fitted, where there is one for all labels.

        Raises:
            ValueError: If there are no labelled documents to fit on, there is no such objective, or the label
                frequencies are not those of labels in the training documents, or the model has no branch for them.
        """
        objective = objective or self.args.objective or "micro_f1"
        if objective not in DECISIONS:
            raise ValueError(f"objective is {objective!r}; choose one of {', '.join(DECISIONS)}.")
        dataset = dataset or self.threshold_dataset or self.labelled_eval_dataset()
        if dataset is None or "labels" not in dataset.column_names or len(dataset) == 0:
            raise ValueError("no labelled documents to calibrate on; pass a data set, or the trainer's eval_dataset.")
        num_labels = self.model.config.num_labels
        references = label_matrix([[i for i in labels if i < num_labels] for labels in dataset["labels"]], num_labels)
        shift = self._prior_shift(label_frequencies)
        found = self.generate_hypotheses(dataset, "Calibrating")
        settings, (decoding, criterion) = self.model.generation_config, DECISIONS[objective]
        settings.set_decoding, settings.objective = decoding, objective
        settings.lexical_bias = None if shift is None else shift.log_odds.tolist()
        rows = np.arange(len(references))
        if shift is not None:
            rows = resampled_rows(shift.weights(references))
            references, found = references[rows], found.select(rows)
            assert found.lexical_logits is not None  # without a branch there is no shift
            found.lexical_logits = (found.lexical_logits + shift.log_odds).astype(np.float32)
        fitted = {} if found.lexical_logits is None else fit_score_settings(found, references, criterion)
        scoring = ScoreSettings(**fitted)
        scores = label_scores(label_marginals(found, scoring), found.lexical_logits, scoring)  # (N, L)
        if objective == "hamming":
            fitted["label_threshold"] = 0.5
        elif decoding == "threshold":
            fitted["label_threshold"] = float(fit_threshold(references, scores))
            fitted |= self._choose_decision(references, scores, objective, rows, shift)
        for name, value in fitted.items():
            setattr(settings, name, value)
        return {name: value for name, value in fitted.items() if isinstance(value, float)}

    def _prior_shift(self, label_frequencies: Mapping[str, float] | None) -> PriorShift | None:
        """What other label frequencies than those of the training documents change; None without any."""
        frequencies = read_label_frequencies(label_frequencies or self.args.label_frequencies)
        if frequencies is None:
            return None
        if self.model.lexical is None or self.train_dataset is None:
            raise ValueError(
                "label_frequencies need a model with a lexical branch (config.lexical_branch), whose log-odds they "
                "change, and a trainer with the training documents; leave them out."
            )
        names = list(self.model.config.id2label.values())
        kept = self._kept_prior
        if kept is None or kept[0][0] is not self.train_dataset or kept[0][1:] != (names, frequencies):
            shift = fit_prior_shift(self.train_dataset, names, frequencies)
            kept = self._kept_prior = (self.train_dataset, names, frequencies), shift
        return kept[1]

    def _choose_decision(
        self,
        references: np.ndarray,
        scores: np.ndarray,
        objective: str,
        documents: np.ndarray,
        prior: PriorShift | None,
    ) -> dict[str, Any]:
        """The set decoding, and its thresholds, that are best for an F1 in cross-validation over documents."""
        num_labels = references.shape[1]
        thresholds: dict[str, Callable[[np.ndarray], float | list[float]]] = {
            "one threshold": lambda rows: fit_thresholds(references[rows], scores[rows], objective, shrinkage=1.0),
            "own thresholds": lambda rows: fit_thresholds(references[rows], scores[rows], objective),
        }
        shift = self._label_shift(prior)
        if shift is not None:
            thresholds["shifted thresholds"] = lambda rows: shifted_thresholds(
                fit_threshold(references[rows], scores[rows]), *shift
            )

        def reached(rule: Callable, fit: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return scores[rows] >= np.array(rule(fit), dtype=scores.dtype)

        rules: dict[str, Rule] = {name: partial(reached, rule) for name, rule in thresholds.items()}
        if self.model.lexical is not None:
            sets = label_matrix(expected_f1_sets_from_scores(torch.from_numpy(scores)), num_labels)
            rules["expected F1"] = lambda fit, rows: sets[rows]
        chosen = next(iter(rules))
        values: dict[str, float] = {}
        if len(np.unique(documents)) > 1:
            chosen, values = choose_rule(
                rules,
                lambda predictions: compute_metrics(references, predictions)[objective],
                len(references),
                copy_of=documents,
            )
        logger.info(
            "%s: %s (%s)", objective, chosen, ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        )
        if chosen == "expected F1":
            return {"set_decoding": "expected_f1"}
        return {"label_threshold": thresholds[chosen](np.arange(len(references)))}

    def _label_shift(self, prior: PriorShift | None) -> tuple[list[float], float] | None:
        """Of the branch's out-of-fold scores the threshold of each label, and that of all; None without them."""
        if self.lexical_fit is None:
            return None
        basis, kept = (self.lexical_fit, self.train_dataset, prior), self._kept_shift
        if kept is None or any(old is not new for old, new in zip(kept[0], basis, strict=True)):
            kept = self._kept_shift = basis, self._fit_label_shift(self.lexical_fit, prior)
        return kept[1]

    def _fit_label_shift(self, lexical_fit: LexicalFit, prior: PriorShift | None) -> tuple[list[float], float]:
        """Fit what `_label_shift` returns to the training documents."""
        num_labels = self.model.config.num_labels
        count = min(len(self.train_dataset), max(1, MOST_SCORES // num_labels))
        documents = self.train_dataset.select(range(count))
        log_odds = torch.cat(list(lexical_fit.iterate_out_of_fold_log_odds(documents)))  # (n, L)
        references = label_matrix(documents["labels"], num_labels)
        if prior is not None:
            rows = torch.from_numpy(resampled_rows(prior.weights(references)))  # (n)
            log_odds, references = log_odds[rows] + torch.from_numpy(prior.log_odds), references[rows.numpy()]
        scores = log_odds.float().sigmoid().numpy()  # (n, L)
        own = fit_thresholds(references, scores, "macro_f1", shrinkage=0.0)
        assert isinstance(own, list)  # of macro-F1 each label has its own
        return own, fit_threshold(references, scores)


def fit_score_settings(found: LabelHypotheses, references: np.ndarray, criterion: str) -> dict[str, Any]:
    """How beams and log-odds go together, and the curve that makes calibrated probabilities of what comes out.

    Args:
        found: Hypotheses and lexical log-odds of the N documents.
        references: Their true labels, bool, (N, L).
        criterion: What the weights are chosen by, see `fit_hypothesis_weights`.

    Returns:
        The fields of `ScoreSettings` by name.
    """
    # Without beams there is nothing to weigh.
    grid = {} if found.hypotheses.shape[1] > 1 else {"lexical_weights": (0.0,), "temperatures": (1.0,)}
    log_odds = cast(np.ndarray, found.lexical_logits)  # (N, L)
    weights = fit_hypothesis_weights(found.hypotheses, found.log_probs, log_odds, references, criterion, **grid)
    fitted: dict[str, Any] = {
        "lexical_weight": weights.lexical_weight,
        "hypothesis_temperature": weights.temperature,
    }
    marginals = label_marginals(found, ScoreSettings(**fitted))  # (N, L)

    def worth(share: float) -> float:
        return worth_of(label_scores(marginals, log_odds, ScoreSettings(lexical_share=share)), references, criterion)

    fitted["lexical_share"] = max(SHARES, key=worth)
    scores = label_scores(marginals, log_odds, ScoreSettings(**fitted))  # (N, L)
    return fitted | {"label_calibration": fit_curve(scores, references).values}


def worth_of(scores: np.ndarray, references: np.ndarray, criterion: str) -> float:
    """Micro-F1 at the best threshold of the scores, (N, L); of another criterion than that, their log-likelihood."""
    if criterion == "micro_f1":
        return compute_metrics(references, scores >= fit_threshold(references, scores))["micro_f1"]
    chances = np.where(references, scores, 1 - scores)  # (N, L)
    return float(np.log(chances.clip(min=1e-6)).mean())


def label_marginals(found: LabelHypotheses, settings: ScoreSettings) -> np.ndarray:
    """The probability of each label by the hypotheses, weighted as `generate()` does, (N, L) float32."""
    marginals = np.empty((len(found.hypotheses), found.num_labels), dtype=np.float32)
    for rows in blocks(len(marginals)):
        hypotheses = torch.from_numpy(found.hypotheses[rows])  # (B, K, n)
        log_probs = torch.from_numpy(found.log_probs[rows]).float()  # (B, K)
        if found.lexical_logits is not None:
            log_odds = torch.from_numpy(found.lexical_logits[rows])  # (B, L)
            log_probs = reweighted_log_probs(log_probs, hypotheses, log_odds, *settings[:2])  # (B, K)
        marginals[rows] = label_scores_from_hypotheses(hypotheses, log_probs, found.num_labels).numpy()
    return marginals


def label_scores(marginals: np.ndarray, lexical_logits: np.ndarray | None, settings: ScoreSettings) -> np.ndarray:
    """The label scores that `generate()` makes of marginals and the branch's log-odds, if any, (N, L) float32."""
    if lexical_logits is None:
        return marginals
    scores = np.empty_like(marginals)
    for rows in blocks(len(scores)):
        sources = torch.from_numpy(marginals[rows]), torch.from_numpy(lexical_logits[rows])  # (B, L) each
        scores[rows] = combined_scores(*sources, settings.label_calibration, settings.lexical_share).numpy()
    return scores


def blocks(num_documents: int) -> Iterator[slice]:
    """Rows of documents whose scores are computed at a time."""
    return (slice(start, start + BLOCK) for start in range(0, num_documents, BLOCK))
