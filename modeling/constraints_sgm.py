"""
Which label may come next: [`LabelConstraints`] is a `LogitsProcessor`, so every decoding mode obeys it.

Shapes: R decoder rows, L labels, t labels generated so far.
"""

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional as F
from transformers import LogitsProcessor

from .configuration_sgm import SGMConfig
from .label_sets_sgm import select_labels

Label = int | str


class LabelConstraints(LogitsProcessor):
    """
    Masks the scores of labels that the constraints forbid at this step.

    A label is allowed when it is among the allowed ones and was trained (`config.num_untrained_labels`), all its
    ancestors are already produced, and enough places are left for the required labels still missing. End of sequence
    is allowed once the minimum is reached and nothing required is missing.

    Args:
        config ([`SGMConfig`]): Gives the labels and their ids.
        allowed_labels (`Sequence[int | str]`, *optional*): Labels (ids or names) that may be produced; all by default.
        forbidden_labels (`Sequence[int | str]`, *optional*): Labels that may not.
        required_labels (`Sequence[int | str]`, *optional*): Labels that must be; their ancestors then must be too.
        min_labels (`int`, *optional*, defaults to 0): Fewest labels of a set.
        max_labels (`int`, *optional*): Most labels of a set; L by default.
        label_hierarchy (`Mapping[int | str, int | str]`, *optional*): Parent of each label that has one. A label is
            produced only after its ancestors.

    Raises:
        ValueError: When a label is unknown, the hierarchy has a cycle, or the constraints exclude each other.
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
    ):
        self.num_labels = config.num_labels
        self.names = config.id2label
        self.ancestors = _ancestor_matrix(config, label_hierarchy or {})  # (L, L)
        allowed = torch.ones(self.num_labels, dtype=torch.bool)  # (L)
        if allowed_labels is not None:
            allowed = self._label_vector(config, allowed_labels)  # (L)
        allowed = allowed & ~self._label_vector(config, forbidden_labels or ())  # (L)
        allowed[self.num_labels - config.num_untrained_labels :] = False
        self.allowed = allowed & ~(self.ancestors & ~allowed).any(dim=1)  # (L), ancestors must be allowed too
        required = self._label_vector(config, required_labels or ())  # (L)
        self.required = required | self.ancestors[required].any(dim=0)  # (L)
        self.min_labels = 0 if min_labels is None else min_labels
        self.max_labels = self.num_labels if max_labels is None else max_labels
        self._check_feasible()

    @property
    def is_trivial(self) -> bool:
        """Whether every label set obeys."""
        free = bool(self.allowed.all()) and not bool(self.required.any()) and not bool(self.ancestors.any())
        return free and self.min_labels == 0 and self.max_labels >= self.num_labels

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(R, t)`): bos and the labels produced so far.
            scores (`torch.FloatTensor` of shape `(R, L + 1)`): Scores of the next label and of eos.

        Returns:
            `torch.FloatTensor` of shape `(R, L + 1)`: `scores` with -inf where the constraints forbid.
        """
        allowed, required, ancestors = (
            tensor.to(scores.device) for tensor in (self.allowed, self.required, self.ancestors)
        )
        is_label = F.one_hot(input_ids, self.num_labels + 3)[..., : self.num_labels]  # (R, t, L)
        produced = is_label.any(dim=1)  # (R, L)
        num_produced = is_label.sum(dim=(1, 2))  # (R)
        missing = required & ~produced  # (R, L)
        places = self.max_labels - num_produced  # (R)
        lacks_ancestor = (~produced).float() @ ancestors.float().T > 0  # (R, L)
        must_be_required = (missing.sum(dim=1) >= places)[:, None] & ~missing  # (R, L)
        label_ok = allowed & ~lacks_ancestor & ~must_be_required & (places > 0)[:, None]  # (R, L)
        end_ok = (num_produced >= self.min_labels) & ~missing.any(dim=1)  # (R)
        return scores.masked_fill(~torch.cat([label_ok, end_ok[:, None]], dim=1), float("-inf"))

    def select(self, label_scores: torch.Tensor, threshold: float) -> list[list[int]]:
        """
        [`select_labels`] within the constraints, for scores of hypotheses that obey them.

        Args:
            label_scores (`torch.FloatTensor` of shape `(B, L)`): Probability of each label.
            threshold (`float`): In (0, 1].

        Returns:
            `list[list[int]]`: Label ids by descending score, an ancestor before its descendants.
        """
        # An ancestor scores at least as high as its descendants; in a tie the column order puts it first.
        by_depth = self.ancestors.sum(dim=1).argsort(stable=True)  # (L)
        columns = by_depth.tolist()
        chosen = select_labels(
            label_scores[:, by_depth.to(label_scores.device)], threshold, self.min_labels, self.max_labels
        )
        return [[columns[column] for column in row] for row in chosen]

    @staticmethod
    def _label_vector(config: SGMConfig, labels: Sequence[Label]) -> torch.Tensor:
        vector = torch.zeros(config.num_labels, dtype=torch.bool)
        vector[[label_id(config, label) for label in labels]] = True
        return vector

    def _check_feasible(self) -> None:
        excluded = [self.names[i] for i in (self.required & ~self.allowed).nonzero().flatten().tolist()]
        if excluded:
            raise ValueError(
                f"required_labels asks for {excluded} (or a descendant), which allowed_labels or forbidden_labels "
                "excludes, or which the model has not been trained on since add_labels(). Allow these labels with all "
                "their ancestors, or do not require them."
            )
        for name, value in (("min_labels", self.min_labels), ("max_labels", self.max_labels)):
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}.")
        num_allowed, num_required = int(self.allowed.sum()), int(self.required.sum())
        if self.min_labels > min(num_allowed, self.max_labels):
            raise ValueError(
                f"min_labels={self.min_labels} cannot be reached: {num_allowed} labels are allowed and max_labels is "
                f"{self.max_labels}. Lower min_labels, or allow more labels."
            )
        if num_required > self.max_labels:
            raise ValueError(
                f"required_labels and their ancestors are {num_required} labels, more than max_labels="
                f"{self.max_labels}. Raise max_labels, or require fewer."
            )


def label_id(config: SGMConfig, label: Label) -> int:
    """
    The id of a label given by name or id.

    Args:
        config ([`SGMConfig`]): Gives the labels.
        label (`int` or `str`): Name or id.

    Returns:
        `int`: From 0 to L - 1.

    Raises:
        ValueError: When the model has no such label.
    """
    if isinstance(label, str):
        found = config.label2id.get(label)
    else:
        found = label if 0 <= label < config.num_labels else None
    if found is None:
        shown = list(config.id2label.values())
        some = ", ".join(shown[:10]) + (", …" if len(shown) > 10 else "")
        raise ValueError(f"The model has no label {label!r}. Its {len(shown)} labels are: {some}")
    return int(found)


def _ancestor_matrix(config: SGMConfig, hierarchy: Mapping[Label, Label]) -> torch.Tensor:
    """True at [i, j] where label j is an ancestor of label i; shape `(L, L)`."""
    parent = {label_id(config, child): label_id(config, mother) for child, mother in hierarchy.items()}
    ancestors = torch.zeros(config.num_labels, config.num_labels, dtype=torch.bool)
    for label in parent:
        above = parent.get(label)
        while above is not None:
            if above == label or ancestors[label, above]:
                raise ValueError(f"label_hierarchy has a cycle through {config.id2label[label]!r}; it must be a tree.")
            ancestors[label, above] = True
            above = parent.get(above)
    return ancestors


__all__ = ["LabelConstraints", "label_id"]
