"""
Decoding for the SGM family: what `generate()` adds to Transformers' `GenerationMixin`.

1. `LabelConstraints` says which label may come next; it is a `LogitsProcessor`, so every decoding mode obeys it.
2. `hypothesis_log_probs`, `label_scores_from_hypotheses`: from the label sequences found to a probability per label.
3. `select_labels`: from label scores to the set with the best expected F1.
4. `SGMGenerationMixin.generate()` puts them around `GenerationMixin.generate()`.

Shapes: B documents, K hypotheses a document (beams or samples), R = B * K rows, L labels, n generated steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.generation import (
    EosTokenCriteria,
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
    MaxLengthCriteria,
    StoppingCriteriaList,
)

from .beam_search_sgm import beam_search
from .configuration_sgm import SGMConfig

if TYPE_CHECKING:
    from .modeling_sgm import SGMDecoderState

Label = int | str
Output = TypeVar("Output", bound=GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput)

# Transformers starts beam search with all beams but one at a score of -1e9. Where fewer sequences exist than beams,
# such fillers are all that is left for the last places.
FILLER_SCORE = -5e8

SET_DECODINGS = ("best_sequence", "max_f1")


@dataclass
class SGMGenerateOutput(GenerateEncoderDecoderOutput):
    """
    Output of greedy search and sampling: Transformers' fields and `label_scores`.

    Args:
        label_scores (`torch.FloatTensor` of shape `(B, L)`, *optional*): Probability that each label is in the set.
    """

    label_scores: torch.Tensor | None = None


@dataclass
class SGMGenerateBeamOutput(GenerateBeamEncoderDecoderOutput):
    """
    Output of beam search: Transformers' fields and `label_scores`.

    Args:
        label_scores (`torch.FloatTensor` of shape `(B, L)`, *optional*): Probability that each label is in the set.
    """

    label_scores: torch.Tensor | None = None


def default_generation_config(config: SGMConfig) -> GenerationConfig:
    """
    The generation defaults of a new model: beam search of width 5 (§3.3), scored by log p(y|x) without length penalty.

    Args:
        config ([`SGMConfig`]): Gives the decoder ids.

    Returns:
        [`~transformers.GenerationConfig`]: With the ids, and the custom entries `set_decoding="best_sequence"` and
        `label_threshold=0.5`.
    """
    return GenerationConfig(
        decoder_start_token_id=config.bos_label_id,
        bos_token_id=config.bos_label_id,
        eos_token_id=config.eos_label_id,
        pad_token_id=config.pad_label_id,
        num_beams=5,
        length_penalty=0.0,
        set_decoding="best_sequence",
        label_threshold=0.5,
    )


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


def label_sets_from_sequences(sequences: torch.Tensor, num_labels: int) -> list[list[int]]:
    """
    The labels of generated sequences, without bos, eos and padding.

    Args:
        sequences (`torch.LongTensor` of shape `(R, n)`): What `generate()` returned.
        num_labels (`int`): L.

    Returns:
        `list[list[int]]`: Label ids in generated order, each once.
    """
    return [list(dict.fromkeys(i for i in row if i < num_labels)) for row in sequences.tolist()]


def sequences_from_label_sets(label_sets: list[list[int]], config: SGMConfig, device: torch.device) -> torch.Tensor:
    """
    The inverse of [`label_sets_from_sequences`].

    Args:
        label_sets (`list[list[int]]`): Label ids in order.
        config ([`SGMConfig`]): Gives the decoder ids.
        device (`torch.device`): Where the result goes.

    Returns:
        `torch.LongTensor` of shape `(B, n)`: bos, labels, eos, padding.
    """
    width = max(len(labels) for labels in label_sets)
    rows = [
        [config.bos_label_id, *labels, config.eos_label_id] + [config.pad_label_id] * (width - len(labels))
        for labels in label_sets
    ]
    return torch.tensor(rows, dtype=torch.long, device=device)


def select_labels(
    label_scores: torch.Tensor, threshold: float, min_labels: int = 0, max_labels: int | None = None
) -> list[list[int]]:
    """
    The set that maximises expected micro-F1 under the label scores: all labels that reach a threshold.

    Args:
        label_scores (`torch.FloatTensor` of shape `(B, L)`): Probability of each label.
        threshold (`float`): In (0, 1]; half of the best reachable F1 in theory, fitted on held-out data in practice.
        min_labels (`int`, *optional*, defaults to 0): Take at least this many, the best ones.
        max_labels (`int`, *optional*): Take at most this many.

    Returns:
        `list[list[int]]`: Label ids by descending score, ties by id.

    Raises:
        ValueError: When the threshold is outside (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"label_threshold must lie in (0, 1], got {threshold}.")
    ranked, order = label_scores.sort(dim=1, descending=True, stable=True)  # (B, L), (B, L)
    counts = (ranked >= threshold).sum(dim=1).clamp(min=min_labels, max=max_labels)  # (B)
    return [row[:count] for row, count in zip(order.tolist(), counts.tolist(), strict=True)]


def hypothesis_log_probs(
    sequences: torch.Tensor, scores: torch.Tensor, length_penalty: float, pad_label_id: int
) -> torch.Tensor:
    """
    The log-probability of each beam hypothesis, from its score under a length penalty.

    Args:
        sequences (`torch.LongTensor` of shape `(R, n + 1)`): bos, labels, eos, padding.
        scores (`torch.FloatTensor` of shape `(R,)`): Sum of log-probabilities over length to the power of the penalty.
        length_penalty (`float`): That power.
        pad_label_id (`int`): Decoder padding.

    Returns:
        `torch.FloatTensor` of shape `(R,)`: In nats.
    """
    num_generated = (sequences[:, 1:] != pad_label_id).sum(dim=1)  # (R)
    return scores * num_generated.clamp(min=1).to(scores.dtype) ** length_penalty


def label_scores_from_hypotheses(sequences: torch.Tensor, log_probs: torch.Tensor, num_labels: int) -> torch.Tensor:
    """
    The probability that each label is in the set: that of the hypotheses with the label over that of all.

    Args:
        sequences (`torch.LongTensor` of shape `(B, K, n)`): Hypotheses.
        log_probs (`torch.FloatTensor` of shape `(B, K)`): Their log-probabilities; -inf for those not to count.
            Samples count alike: give zeros, and the score is the share of samples with the label.
        num_labels (`int`): L.

    Returns:
        `torch.FloatTensor` of shape `(B, L)`: In [0, 1]; exactly 1 for a label that every hypothesis has.
    """
    weights = (log_probs - log_probs.max(dim=1, keepdim=True).values).exp()  # (B, K)
    contains = torch.zeros(*sequences.shape[:2], num_labels + 3, device=sequences.device)  # (B, K, L + 3)
    contains = contains.scatter_(2, sequences, 1.0)[..., :num_labels]  # (B, K, L)
    # The total is summed as one more column, in the same order, so that a label in all hypotheses scores exactly 1.
    contains = F.pad(contains, (0, 1), value=1.0)  # (B, K, L + 1)
    summed = (weights[..., None] * contains).sum(dim=1)  # (B, L + 1)
    return summed[:, :-1] / summed[:, -1:]  # (B, L)


class SGMGenerationMixin(GenerationMixin):
    """`GenerationMixin` with label constraints, label scores and set decoding."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        # The decoder makes its own state at the first step.
        return False

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        past_key_values: "SGMDecoderState | None" = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What `forward` gets at the next step: of the labels so far, those that the decoder has not yet seen."""
        if past_key_values is not None:
            next_sequence_length = input_ids.shape[1] - past_key_values.num_steps
        return super().prepare_inputs_for_generation(
            input_ids, next_sequence_length=next_sequence_length, past_key_values=past_key_values, **kwargs
        )

    def compute_transition_scores(
        self,
        sequences: torch.Tensor,
        scores: tuple[torch.Tensor, ...],
        beam_indices: torch.Tensor | None = None,
        normalize_logits: bool = False,
    ) -> torch.Tensor:
        """
        The score of each generated label, as Transformers' method of this name gives it for words.

        Args:
            sequences (`torch.LongTensor` of shape `(R, p + n)`): What `generate()` returned; the first p ids (bos) are
                not generated.
            scores (`tuple[torch.Tensor]`, one `(rows, L + 1)` a step): `scores` of `generate(output_scores=True)`.
            beam_indices (`torch.LongTensor` of shape `(R, n)`, *optional*): `beam_indices` of beam search.
            normalize_logits (`bool`, *optional*, defaults to `False`): Whether to make log-probabilities of them.

        Returns:
            `torch.FloatTensor` of shape `(R, n)`: 0 on padding.
        """
        steps = torch.stack(scores)  # (n, rows, L + 1)
        if normalize_logits:
            steps = steps.log_softmax(dim=-1)  # (n, rows, L + 1)
        if beam_indices is None:
            rows = torch.arange(sequences.shape[0], device=sequences.device)[:, None]  # (R, 1)
            rows = rows.expand(-1, len(scores))  # (R, n)
        else:
            rows = beam_indices[:, : int((beam_indices >= 0).sum(dim=1).max())]  # (R, n), -1 behind the end
        num_steps = rows.shape[1]
        labels = sequences[:, sequences.shape[1] - num_steps :]  # (R, n)
        exists = (rows >= 0) & (labels <= self.config.eos_label_id)  # (R, n)
        step = torch.arange(num_steps, device=sequences.device)  # (n)
        return steps[step, rows.clamp(min=0), labels.where(exists, 0)].masked_fill(~exists, 0.0)  # (R, n)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        # Only decoder rows are repeated: encoder states are kept once per document, not once per beam.
        assert input_ids is not None  # bos, made by generate()
        return input_ids.repeat_interleave(expand_size, dim=0), model_kwargs

    def _beam_search(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        **model_kwargs: Any,
    ) -> GenerateBeamEncoderDecoderOutput:
        """Our own search where it can do what is asked for, else Transformers'. Arguments as `GenerationMixin` has."""
        prompt = model_kwargs.get("past_key_values") is not None or input_ids.shape[1] > 1
        if prompt or synced_gpus or not can_beam_search(logits_processor, stopping_criteria, generation_config):
            generation_config.output_scores = True  # gives sequences_scores
            return super()._beam_search(
                input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, **model_kwargs
            )
        encoder_states = model_kwargs["encoder_outputs"][0]  # (B, T, H_e)
        mask = model_kwargs.get("attention_mask")
        mask = encoder_states.new_ones(encoder_states.shape[:2]) if mask is None else mask  # (B, T)
        untrained = self.config.num_untrained_labels
        state = self.decoder.start(encoder_states, mask, encoder_states.shape[0], untrained)
        finished = beam_search(self.decoder, state, logits_processor, generation_config, self.config.eos_label_id)
        num_kept = generation_config.num_return_sequences
        sequences = finished.sequences[:, :num_kept].flatten(0, 1)  # (R, max_length)
        scores = finished.scores[:, :num_kept].flatten()  # (R)
        is_padding = (sequences == self.config.pad_label_id) | scores.isneginf()[:, None]  # (R, max_length)
        length = max(2, int((~is_padding).sum(dim=1).max()))
        return GenerateBeamEncoderDecoderOutput(sequences=sequences[:, :length], sequences_scores=scores)

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        *,
        allowed_labels: Sequence[Label] | None = None,
        forbidden_labels: Sequence[Label] | None = None,
        required_labels: Sequence[Label] | None = None,
        min_labels: int | None = None,
        max_labels: int | None = None,
        label_hierarchy: Mapping[Label, Label] | None = None,
        set_decoding: str | None = None,
        label_threshold: float | None = None,
        output_label_scores: bool | None = None,
        **kwargs: Any,
    ) -> SGMGenerateOutput | SGMGenerateBeamOutput | torch.Tensor:
        """
        Generates the label set of each text. All arguments of `GenerationMixin.generate()` work; the ones below are
        ours. An argument that is not given is taken from the generation config, where all of ours may stand too.

        No label is produced twice (unless `config.label_mask` is off), whatever the decoding mode. Rows asked for by
        `num_return_sequences` beyond the number of label sequences that exist hold padding and score -inf.

        Args:
            inputs (`torch.LongTensor` of shape `(B, T)`): Word ids, padded on the right (also as `input_ids=`).
            generation_config ([`~transformers.GenerationConfig`], *optional*): Replaces the model's own.
            logits_processor ([`~transformers.LogitsProcessorList`], *optional*): Run before the label constraints.
            allowed_labels, forbidden_labels, required_labels (`Sequence[int | str]`, *optional*), min_labels,
                max_labels (`int`, *optional*), label_hierarchy (`Mapping[int | str, int | str]`, *optional*): What
                every set obeys, labels by name or id; see [`LabelConstraints`].
            set_decoding (`"best_sequence"` or `"max_f1"`, *optional*): Return the best sequence found, or the set that
                maximises expected F1 under the label scores: labels of at least `label_threshold`, best first.
            label_threshold (`float`, *optional*): For `"max_f1"`; in (0, 1].
            output_label_scores (`bool`, *optional*): Whether to return `label_scores` (needs
                `return_dict_in_generate=True`). In beam search a label's score is the summed probability of the
                kept hypotheses with the label over that of all kept; in sampling, the share of the
                `num_return_sequences` samples with it; in greedy search, 0 or 1.

        Returns:
            [`SGMGenerateBeamOutput`] or [`SGMGenerateOutput`] with `return_dict_in_generate=True`, else
            `torch.LongTensor` of shape `(B * num_return_sequences, n)`: bos, labels in generated order, eos, padding.

        Raises:
            ValueError: When constraints exclude each other, a label is unknown, or an option has no such value.
        """
        config, model_kwargs = self._resolve_generation_config(inputs, generation_config, kwargs)
        options: dict[str, Any] = {
            "allowed_labels": allowed_labels,
            "forbidden_labels": forbidden_labels,
            "required_labels": required_labels,
            "min_labels": min_labels,
            "max_labels": max_labels,
            "label_hierarchy": label_hierarchy,
            "set_decoding": set_decoding,
            "label_threshold": label_threshold,
            "output_label_scores": output_label_scores,
        }
        options = {name: getattr(config, name, None) if value is None else value for name, value in options.items()}
        set_decoding = _checked_set_decoding(options.pop("set_decoding"), config.num_return_sequences or 1)
        threshold = options.pop("label_threshold")
        wants_scores = bool(options.pop("output_label_scores")) or set_decoding == "max_f1"
        constraints = LabelConstraints(self.config, **options)

        logits_processor = LogitsProcessorList(logits_processor or [])
        if not constraints.is_trivial:
            logits_processor.append(constraints)
        wants_dict, num_returned = config.return_dict_in_generate, config.num_return_sequences or 1
        config.return_dict_in_generate = True
        if wants_scores and config.num_beams > 1:
            config.num_return_sequences = config.num_beams
        output = super().generate(inputs, generation_config=config, logits_processor=logits_processor, **model_kwargs)

        output = self._finish_output(output, config, wants_scores)
        output = _first_rows(output, config.num_return_sequences or 1, num_returned)
        if set_decoding == "max_f1":
            assert output.label_scores is not None  # wants_scores is set
            label_sets = constraints.select(output.label_scores, threshold)
            output.sequences = sequences_from_label_sets(label_sets, self.config, output.sequences.device)
            output["sequences_scores"] = None  # the set was not scored as a sequence
        return output if wants_dict else output.sequences

    def _resolve_generation_config(
        self, inputs: torch.Tensor | None, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """Merges arguments, the given config and the model's defaults; completes lengths and the attention mask."""
        configs = [c for c in (generation_config, self.generation_config) if c is not None]
        sources = [kwargs, *map(vars, configs)]
        given = {
            name
            for name in ("max_length", "max_new_tokens", "min_length")
            if any(source.get(name) is not None for source in sources)
        }
        config, model_kwargs = self._prepare_generation_config(generation_config, **kwargs)
        for name in ("output_attentions", "output_hidden_states"):
            model_kwargs.pop(name, None)  # GenerationMixin takes them from the config
        # What is None counts as not given, so that max_new_tokens and min_new_tokens do not clash with a default.
        if "max_length" not in given:
            longest = self.config.num_labels + 2  # bos, every label once, eos
            config.max_length = None if "max_new_tokens" in given else longest
        if "min_length" not in given:
            config.min_length = None
        if config.num_beams == 1:
            config.length_penalty = 1.0  # the neutral value where there are no beams
        input_ids = model_kwargs.get("input_ids") if inputs is None else inputs
        if input_ids is not None and model_kwargs.get("attention_mask") is None:
            model_kwargs["attention_mask"] = input_ids.ne(self.config.pad_token_id)
        return config, model_kwargs

    def _finish_output(
        self,
        output: GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput,
        config: GenerationConfig,
        wants_scores: bool,
    ) -> SGMGenerateOutput | SGMGenerateBeamOutput:
        """Blanks rows without a hypothesis, and adds the label scores from all rows."""
        sequences, num_rows = output.sequences, config.num_return_sequences or 1
        if isinstance(output, GenerateBeamEncoderDecoderOutput):
            is_filler = output.sequences_scores < FILLER_SCORE  # (R)
            sequences[:, 1:] = sequences[:, 1:].masked_fill(is_filler[:, None], self.config.pad_label_id)
            output.sequences_scores = output.sequences_scores.masked_fill(is_filler, float("-inf"))
            log_probs = hypothesis_log_probs(
                sequences, output.sequences_scores, config.length_penalty, self.config.pad_label_id
            )
            output = SGMGenerateBeamOutput(**output)
        else:
            log_probs = torch.zeros(sequences.shape[0], device=sequences.device)  # samples count alike
            output = SGMGenerateOutput(**output)
        if wants_scores:
            output.label_scores = label_scores_from_hypotheses(
                sequences.unflatten(0, (-1, num_rows)), log_probs.view(-1, num_rows), self.config.num_labels
            )
        return output


def can_beam_search(
    logits_processor: LogitsProcessorList, stopping_criteria: StoppingCriteriaList, config: GenerationConfig
) -> bool:
    """
    Whether [`beam_search`] does all that is asked for. It returns sequences and their scores, and knows no processor
    or criterion but ours: any other may count on every document staying in the batch.

    Args:
        logits_processor (`LogitsProcessorList`): To run at each step.
        stopping_criteria (`StoppingCriteriaList`): To stop by.
        config (`GenerationConfig`): The other settings.
    """
    extras = ("do_sample", "output_scores", "output_logits", "output_attentions", "output_hidden_states")
    return (
        not any(getattr(config, name) for name in extras)
        and all(isinstance(processor, LabelConstraints) for processor in logits_processor)
        and all(isinstance(criterion, MaxLengthCriteria | EosTokenCriteria) for criterion in stopping_criteria)
    )


def _checked_set_decoding(set_decoding: str | None, num_return_sequences: int) -> str:
    """The option, after checks; `"best_sequence"` where none is set."""
    if set_decoding not in (None, *SET_DECODINGS):
        raise ValueError(f"set_decoding must be 'best_sequence' or 'max_f1', got {set_decoding!r}.")
    if set_decoding == "max_f1" and num_return_sequences > 1:
        raise ValueError(
            f"set_decoding='max_f1' finds one set a text, but num_return_sequences is {num_return_sequences}. "
            "Use set_decoding='best_sequence' to see several sequences."
        )
    return set_decoding or "best_sequence"


def _first_rows(output: Output, num_rows: int, num_kept: int) -> Output:
    """Keeps the first `num_kept` of each document's `num_rows` sequences."""
    if num_kept < num_rows:
        for name in ("sequences", "sequences_scores", "beam_indices"):
            value = output.get(name)
            if value is not None:
                output[name] = value.unflatten(0, (-1, num_rows))[:, :num_kept].flatten(0, 1)
    return output


__all__ = ["LabelConstraints", "SGMGenerationMixin", "label_sets_from_sequences", "select_labels"]
