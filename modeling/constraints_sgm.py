"""
Which label may come next: [`LabelConstraints`] is a `LogitsProcessor`, so every decoding mode obeys it.

Shapes: R decoder rows, L labels, m required labels, t labels generated so far.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from transformers import LogitsProcessor

from .configuration_sgm import SGMConfig
from .label_sets_sgm import (
    checked_thresholds,
    constrained_scores,
    expected_f1_label_sets,
    expected_f1_sets_from_scores,
    select_labels,
)

Label = int | str


class LabelConstraints(LogitsProcessor):
    """Masks the scores of labels that the constraints forbid at this step.

    Time and memory are proportional to L and to the hierarchy's edges.

    A label is allowed when it is among the allowed ones and was trained (`config.num_untrained_labels`), its parent is
    already produced, and enough places are left for the required labels still missing. End of sequence is allowed once
    the minimum is reached and nothing required is missing. Different labels are counted: without `config.label_mask` a
    label may be repeated, and counts once.

    A sequence that reaches `max_length` is cut there, without eos, and its set is what it has then. So what is still
    needed comes before the cut.

    Args:
        config: Gives the labels and their ids.
        allowed_labels: Labels (ids or names) that may be produced; all by default.
        forbidden_labels: Labels that may not.
        required_labels: Labels that must be; their ancestors then must be too.
        min_labels: Fewest labels of a set.
        max_labels: Most labels of a set; L by default.
        label_hierarchy: Parent of each label that has one. A label is produced only after its ancestors.
        max_length: Ids at which a sequence is cut, bos included; by default none is.

    Raises:
        TypeError: If labels are not names or ids in a list, or a number of labels is not an integer.
        ValueError: If a label is unknown, the hierarchy has a cycle, or the constraints exclude each other.
    """

    def __init__(
        self,
        config: SGMConfig,
        allowed_labels: Sequence[Label] | None = None,
        forbidden_labels: Sequence[Label] | None = None,
        required_labels: Sequence[Label] | None = None,
        min_labels: int | None = None,
        max_labels: int | None = None,
        label_hierarchy: Mapping[Label, Label] | None = None,
        max_length: int | None = None,
    ):
        self.num_labels = config.num_labels
        self.names = config.id2label
        self.min_labels = 0 if min_labels is None else _count("min_labels", min_labels)
        self.max_labels = self.num_labels if max_labels is None else _count("max_labels", max_labels)
        self.max_length = max_length
        hierarchy = label_hierarchy or {}
        # A stored generation config is JSON, whose keys are always texts.
        children = [
            int(key) if isinstance(key, str) and key not in config.label2id and key.isdecimal() else key
            for key in hierarchy
        ]
        parents = dict(zip(label_ids(config, children), label_ids(config, hierarchy.values()), strict=True))
        num_ancestors = _count_ancestors(parents, self.names)
        self.parents: torch.Tensor | None = None  # (L), L for none
        self.num_ancestors: torch.Tensor | None = None  # (L)
        if parents:
            self.parents = torch.full((self.num_labels,), self.num_labels)  # (L)
            self.parents[list(parents)] = torch.tensor(list(parents.values()))
            self.num_ancestors = torch.zeros(self.num_labels, dtype=torch.long)  # (L)
            self.num_ancestors[list(num_ancestors)] = torch.tensor(list(num_ancestors.values()))

        forbidden = _listed_ids(config, "forbidden_labels", forbidden_labels)
        forbidden += range(self.num_labels - config.num_untrained_labels, self.num_labels)
        self.allowed: torch.Tensor | None = None  # (L), None for all
        if allowed_labels is not None or forbidden:
            allowed = [allowed_labels is None] * self.num_labels
            for label in _listed_ids(config, "allowed_labels", allowed_labels):
                allowed[label] = True
            for label in forbidden:
                allowed[label] = False
            for label in num_ancestors:  # ancestors come first, and must be allowed too
                allowed[label] = allowed[label] and allowed[parents[label]]
            self.allowed = torch.tensor(allowed)  # (L)
        required: set[int] = set()
        for label in _listed_ids(config, "required_labels", required_labels):
            above: int | None = label
            while above is not None and above not in required:
                required.add(above)
                above = parents.get(above)
        self.required = torch.tensor(sorted(required), dtype=torch.long)  # (m)
        self._check_feasible()

    @property
    def is_trivial(self) -> bool:
        """Whether every label set obeys."""
        free = self.allowed is None and self.parents is None and len(self.required) == 0
        return free and self.min_labels == 0 and self.max_labels >= self.num_labels

    @property
    def most_labels(self) -> int:
        """The most labels a set can have."""
        num_allowed = self.num_labels if self.allowed is None else int(self.allowed.sum())
        return min(num_allowed, self.max_labels)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Masks what may not come next.

        Args:
            input_ids: bos and the labels produced so far, (R, t) int64.
            scores: Of the next label and of eos, (R, L + 1).

        Returns:
            `scores` with -inf where the constraints forbid, (R, L + 1).
        """
        # More than a set can need where sequences are not cut.
        steps_left = self.num_labels + 1 if self.max_length is None else self.max_length - input_ids.shape[1]
        produced = produced_labels(input_ids, self.num_labels)  # (R, L)
        num_produced = produced.sum(dim=1)  # (R)
        required = self.required.to(scores.device)  # (m)
        missing = ~produced[:, required]  # (R, m)
        num_missing = missing.sum(dim=1)  # (R)
        num_needed = num_missing.maximum(self.min_labels - num_produced)  # (R)
        num_places = (self.max_labels - num_produced).clamp(max=steps_left)  # (R)

        may_be_new = (num_missing < num_places)[:, None]  # (R, 1), else the places are for the missing ones
        may_repeat = (num_needed < steps_left)[:, None]  # (R, 1), else every step has to add a label
        label_ok = torch.where(produced, may_repeat, may_be_new)  # (R, L)
        label_ok[:, required] |= missing
        if self.allowed is not None:
            label_ok &= self.allowed.to(scores.device)  # (R, L)
        if self.parents is not None:
            has_come = F.pad(produced, (0, 1), value=True)  # (R, L + 1), the last in place of no parent
            label_ok &= has_come[:, self.parents.to(scores.device)]  # (R, L)
        end_ok = (num_needed <= 0)[:, None]  # (R, 1)
        return scores.masked_fill(~torch.cat([label_ok, end_ok], dim=1), float("-inf"))

    def decide(self, label_scores: torch.Tensor) -> torch.Tensor:
        """[`constrained_scores`] of these constraints, for scores that do not come from hypotheses alone.

        Args:
            label_scores: Probability of each label, (B, L).

        Returns:
            (B, L).
        """
        return constrained_scores(label_scores, self.required, self.allowed, self.parents, self.num_ancestors)

    def select(self, label_scores: torch.Tensor, threshold: float | Sequence[float]) -> list[list[int]]:
        """[`select_labels`] within the constraints, for scores of hypotheses that obey them.

        Args:
            label_scores: Probability of each label, (B, L).
            threshold: One for all labels or one per label, in (0, 1]; a label has to reach those of its ancestors as
                well.

        Returns:
            Label ids by descending score, an ancestor before its descendants.
        """
        if self.parents is None or self.num_ancestors is None:
            return select_labels(label_scores, threshold, self.min_labels, self.max_labels)
        # An ancestor scores at least as high as its descendants; in a tie the column order puts it first.
        by_depth = self.num_ancestors.argsort(stable=True)  # (L)
        columns, parents = by_depth.tolist(), self.parents.tolist()
        needed = [*checked_thresholds(threshold, self.num_labels).tolist(), 0.0]  # the last in place of no parent
        for label in columns:  # one by one: a loop over depths is quadratic in a chain
            needed[label] = max(needed[label], needed[parents[label]])
        thresholds = [needed[label] for label in columns]
        chosen = select_labels(
            label_scores[:, by_depth.to(label_scores.device)], thresholds, self.min_labels, self.max_labels
        )
        return [[columns[column] for column in row] for row in chosen]

    def select_expected_f1(self, hypotheses: torch.Tensor, log_probs: torch.Tensor) -> list[list[int]]:
        """[`expected_f1_label_sets`] within the constraints, for hypotheses that obey them.

        Args:
            hypotheses: Label sequences, (B, K, n) int64.
            log_probs: Their log-probabilities, (B, K).

        Returns:
            Label ids, the one that gains most first, an ancestor before its descendants.
        """
        limits = self.min_labels, self.max_labels
        return expected_f1_label_sets(hypotheses, log_probs, self.num_labels, *limits, self.num_ancestors)

    def select_expected_f1_of_labels(self, label_scores: torch.Tensor) -> list[list[int]]:
        """[`expected_f1_sets_from_scores`] within the constraints, for scores that say what these decide.

        Args:
            label_scores: Result of [`~LabelConstraints.decide`], (B, L).

        Returns:
            Label ids by descending score, an ancestor before its descendants.
        """
        return expected_f1_sets_from_scores(label_scores, self.min_labels, self.max_labels, self.num_ancestors)

    def check_start(self, input_ids: torch.Tensor) -> None:
        """Refuses known first labels that no sequence within the constraints has.

        Args:
            input_ids: bos and the labels given, (R, t) int64.

        Raises:
            ValueError: If the labels break the constraints, or leave too few places for what is needed.
        """
        for step in range(1, input_ids.shape[1]):
            labels = input_ids[:, step : step + 1]  # (R, 1)
            scores = torch.zeros(labels.shape[0], self.num_labels + 1, device=input_ids.device)  # (R, L + 1)
            kept = self(input_ids[:, :step], scores).gather(1, labels.clamp(max=self.num_labels))  # (R, 1)
            is_refused = kept.isneginf() & (labels < self.num_labels)  # (R, 1)
            if is_refused.any():
                name = self.names[int(labels[is_refused][0])]
                raise ValueError(
                    f"decoder_input_ids has {name!r} at place {step}, where the constraints do not allow it: it is "
                    "forbidden, comes before its parent, or leaves too few places for what is required. Give other "
                    "first labels, or change the constraints."
                )

    def check_sequences(self, sequences: torch.Tensor, scores: torch.Tensor | None = None) -> None:
        """Refuses label sequences that break the constraints, as another argument of `generate()` may have them do.

        Args:
            sequences: What was generated, best first, (B, K, n) int64.
            scores: -inf for rows without a hypothesis, (B, K).

        Raises:
            ValueError: If a set is too small or too large, or lacks or has what it must not; or when there is none.
        """
        if self.is_trivial:
            return
        produced = produced_labels(sequences.flatten(0, 1), self.num_labels)  # (R, L)
        num_produced = produced.sum(dim=1)  # (R)
        is_wrong = (num_produced < self.min_labels) | (num_produced > self.max_labels)  # (R)
        is_wrong |= ~produced[:, self.required.to(produced.device)].all(dim=1)
        if self.allowed is not None:
            is_wrong |= (produced & ~self.allowed.to(produced.device)).any(dim=1)
        if scores is not None:
            is_blank = scores.isneginf()  # (B, K)
            is_blank[:, 0] = False  # the best one has to be a hypothesis
            is_wrong = (is_wrong | scores.isneginf().flatten()) & ~is_blank.flatten()  # (R)
        if is_wrong.any():
            names = [self.names[label] for label in produced[is_wrong][0].nonzero().flatten().tolist()]
            raise ValueError(
                f"No label set within the constraints was found, only {names}: another argument (such as max_time, "
                "forced_eos_token_id or suppress_tokens) excludes what the constraints ask for. Leave one of them out."
            )

    def _check_feasible(self) -> None:
        """Refuses constraints that no label set meets."""
        required = self.required.tolist()
        excluded = [self.names[i] for i in required if self.allowed is not None and not self.allowed[i]]
        if excluded:
            raise ValueError(
                f"required_labels asks for {excluded} (or a descendant), which allowed_labels or forbidden_labels "
                "excludes, or which the model has not been trained on since add_labels(). Allow these labels with all "
                "their ancestors, or do not require them."
            )
        if self.min_labels > self.most_labels:
            num_allowed = self.num_labels if self.allowed is None else int(self.allowed.sum())
            raise ValueError(
                f"min_labels={self.min_labels} cannot be reached: {num_allowed} labels are allowed and max_labels is "
                f"{self.max_labels}. Lower min_labels, or allow more labels."
            )
        if len(required) > self.max_labels:
            raise ValueError(
                f"required_labels and their ancestors are {len(required)} labels, more than max_labels="
                f"{self.max_labels}. Raise max_labels, or require fewer."
            )
        most = self.num_labels if self.max_length is None else self.max_length - 1
        if max(self.min_labels, len(required)) > most:
            raise ValueError(
                f"min_labels={self.min_labels} and required_labels ({len(required)} with their ancestors) do not fit: "
                f"sequences are cut at max_length={self.max_length}, which leaves {most} places after bos. Raise "
                "max_length or max_new_tokens, or ask for fewer labels."
            )


def produced_labels(input_ids: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Which labels each sequence has.

    Args:
        input_ids: bos, labels, eos, padding, (R, t) int64.
        num_labels: L.

    Returns:
        (R, L).
    """
    produced = torch.zeros(input_ids.shape[0], num_labels + 3, dtype=torch.bool, device=input_ids.device)  # (R, L + 3)
    return produced.scatter_(1, input_ids, True)[:, :num_labels]  # (R, L)


def label_ids(config: SGMConfig, labels: Iterable[Label]) -> list[int]:
    """The ids of labels given by name or id.

    Args:
        config: Gives the labels.
        labels: Names or ids; integers of NumPy and PyTorch are ids too.

    Returns:
        From 0 to L - 1, in the order of `labels`.

    Raises:
        TypeError: If one is neither, such as a float or a truth value.
        ValueError: If the model has no such label.
    """
    ids, num_labels = config.label2id, config.num_labels  # attributes of a configuration are slow
    found = []
    for label in labels:
        number = ids.get(label, -1) if isinstance(label, str) else _integer("A label id", label)
        if not 0 <= number < num_labels:
            shown = list(ids)
            some = ", ".join(shown[:10]) + (", …" if len(shown) > 10 else "")
            raise ValueError(f"The model has no label {label!r}. Its {len(shown)} labels are: {some}")
        found.append(number)
    return found


def _listed_ids(config: SGMConfig, name: str, labels: Sequence[Label] | None) -> list[int]:
    """The ids of the labels that the argument `name` lists; none for `None`."""
    if isinstance(labels, str | bytes | Mapping) or not isinstance(labels, Iterable | None):
        raise TypeError(f"{name} must be a list of label names or ids, got {labels!r}; write [{labels!r}] for one.")
    return label_ids(config, () if labels is None else labels)


def _integer(what: str, value: Any) -> int:
    """The value as an `int`: of Python, NumPy or PyTorch, but no float and no truth value."""
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool"):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an integer, got {value!r} of type {type(value).__name__}.") from None


def _count(name: str, value: int) -> int:
    """The number of labels that the argument `name` gives."""
    number = _integer(name, value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {number}.")
    return number


def _count_ancestors(parents: Mapping[int, int], names: Mapping[int, str]) -> dict[int, int]:
    """How many ancestors each label with a parent has, ancestors before their descendants; in linear time."""
    num_ancestors: dict[int, int] = {}
    for label in parents:
        path: dict[int, None] = {}  # from the label up to one that is known, or to a root
        while label in parents and label not in num_ancestors:
            if label in path:
                raise ValueError(f"label_hierarchy has a cycle through {names[label]!r}; it must be a tree.")
            path[label] = None
            label = parents[label]
        known = num_ancestors.get(label, 0)
        num_ancestors |= {below: known + steps for steps, below in enumerate(reversed(path), 1)}
    return num_ancestors


__all__ = ["LabelConstraints", "label_ids", "produced_labels"]
