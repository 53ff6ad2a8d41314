"""
Decoding for the SGM family: what `generate()` adds to Transformers' `GenerationMixin`.

`SGMGenerationMixin.generate()` puts label constraints (`constraints_sgm.py`), label scores and set decoding
(`label_sets_sgm.py`) around `GenerationMixin.generate()`.

Shapes: B documents, K hypotheses per document (beams or samples), R = B * K rows, L labels, n generated steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple, TypeVar

import torch
from torch.nn import functional as F
from transformers import Cache, GenerationConfig, LogitsProcessorList
from transformers.generation import (
    EosTokenCriteria,
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
    MaxLengthCriteria,
    StoppingCriteriaList,
)

from .beam_search_sgm import beam_search
from .configuration_sgm import SGMConfig
from .constraints_sgm import Label, LabelConstraints
from .decoder_sgm import SGMDecoderState
from .label_sets_sgm import (
    best_hypotheses,
    checked_set_decoding,
    combined_scores,
    hypothesis_log_probs,
    label_scores_from_hypotheses,
    reweighted_log_probs,
    sequences_from_label_sets,
)
from .private_sgm import SearchHooks

Output = TypeVar("Output", bound=GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput)

# Arguments of Transformers' generate() that cannot work here, or would be without effect, and why.
_WORDS = "it takes the ids of words for those of labels, which are not the same here"
_ASSISTED = "assisted decoding takes steps back, which a recurrent decoder cannot"
_MOVED = "Transformers has moved it into code on the Hub"
_CACHE = "the decoder's memory is a recurrent state, not a cache of keys and values"
_TEXT = "it looks for text in what is generated, which are labels"
_GUIDANCE = "it needs a decoder that reads the text itself, without an encoder"
UNSUPPORTED_ARGUMENTS = {
    **dict.fromkeys(("encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "watermarking_config"), _WORDS),
    **dict.fromkeys(
        ("assistant_model", "assistant_early_exit", "is_assistant", "prompt_lookup_num_tokens"), _ASSISTED
    ),
    **dict.fromkeys(("use_mtp", "speculation_type"), _ASSISTED),
    **dict.fromkeys(("num_beam_groups", "diversity_penalty", "penalty_alpha", "dola_layers"), _MOVED),
    **dict.fromkeys(("constraints", "force_words_ids"), f"{_MOVED}; required_labels does it"),
    **dict.fromkeys(("cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size"), _CACHE),
    "compile_config": _CACHE,
    "low_memory": "Transformers has removed it",
    **dict.fromkeys(("stop_strings", "token_healing"), _TEXT),
    **dict.fromkeys(("guidance_scale", "negative_prompt_ids", "negative_prompt_attention_mask"), _GUIDANCE),
    "custom_generate": "constraints and label scores are made for the searches of Transformers and our own",
    "labels": "generate() predicts them; forward() takes them for the loss",
    "return_dict": "return_dict_in_generate does it",
}
# And those that beams cannot have.
UNSUPPORTED_WITH_BEAMS = {
    "past_key_values": "each beam needs a state of its own; give the labels so far as decoder_input_ids",
    "streamer": "no label is final before the search has ended",
}
NEUTRAL_VALUES = {"encoder_repetition_penalty": 1.0, "num_beam_groups": 1, "guidance_scale": 1}


@dataclass
class SGMGenerateOutput(GenerateEncoderDecoderOutput):
    """Output of greedy search and sampling: Transformers' fields, `label_scores` and the hypotheses behind them.

    Args:
        label_scores: Probability that each label is in the set, (B, L).
        hypotheses: The K label sequences found for each text, (B, K, n) int64.
        hypothesis_log_probs: Zeros, since samples count alike, (B, K).
        lexical_logits: Log-odds of each label by the lexical branch, (B, L), if there is one.
    """

    label_scores: torch.Tensor | None = None
    hypotheses: torch.Tensor | None = None
    hypothesis_log_probs: torch.Tensor | None = None
    lexical_logits: torch.Tensor | None = None


@dataclass
class SGMGenerateBeamOutput(GenerateBeamEncoderDecoderOutput):
    """Output of beam search: Transformers' fields, `label_scores` and the hypotheses behind them.

    Args:
        label_scores: Probability that each label is in the set, (B, L).
        hypotheses: The K label sequences found for each text, (B, K, n) int64.
        hypothesis_log_probs: log p(y|x) of each, (B, K), re-weighted by `lexical_weight` and
            `hypothesis_temperature`; -inf where there is none.
        lexical_logits: Log-odds of each label by the lexical branch, (B, L), if there is one.
    """

    label_scores: torch.Tensor | None = None
    hypotheses: torch.Tensor | None = None
    hypothesis_log_probs: torch.Tensor | None = None
    lexical_logits: torch.Tensor | None = None


def expected_f1_sets(
    output: SGMGenerateOutput | SGMGenerateBeamOutput, constraints: LabelConstraints
) -> list[list[int]]:
    """The set of greatest expected F1 of each text, whose label scores were asked for.

    In a model with a lexical branch the label scores know of both sources, and labels are taken as independent of each
    other; else the hypotheses are the distribution.

    Returns:
        Label ids, best first.
    """
    assert output.label_scores is not None
    assert output.hypotheses is not None and output.hypothesis_log_probs is not None
    if output.lexical_logits is not None:
        return constraints.select_expected_f1_of_labels(output.label_scores)
    return constraints.select_expected_f1(output.hypotheses, output.hypothesis_log_probs)


class ScoreSettings(NamedTuple):
    """How hypotheses and the lexical branch become scores; the arguments of `generate()` of these names."""

    lexical_weight: float = 0.0
    hypothesis_temperature: float = 1.0
    label_calibration: Sequence[float] | Sequence[Sequence[float]] = ()
    lexical_bias: Sequence[float] = ()
    lexical_share: float = 0.5


def default_generation_config(config: SGMConfig) -> GenerationConfig:
    """The generation defaults of a new model: beam search of width 5, scored by log p(y|x) without length penalty.

    The width is the paper's for RCV1-V2; for AAPD it has 9 (§3.3).

    Args:
        config: Gives the decoder ids.

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


class SGMGenerationMixin(SearchHooks):
    """`GenerationMixin` with label constraints, label scores and set decoding."""

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        past_key_values: SGMDecoderState | None = None,
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
        """The score of each generated label, as Transformers' method of this name gives it for words.

        Args:
            sequences: What `generate()` returned, (R, p + n) int64; the first p ids (bos) are not generated.
            scores: `scores` of `generate(output_scores=True)`, one (rows, L + 1) per step.
            beam_indices: `beam_indices` of beam search, (R, n) int64.
            normalize_logits: Whether to make log-probabilities of them.

        Returns:
            (R, n): 0 on padding.
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

    def search_beams(
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
            return super().search_beams(
                input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, **model_kwargs
            )
        state = self.start_decoding(model_kwargs["encoder_outputs"], model_kwargs.get("attention_mask"))
        required = [processor.required for processor in logits_processor]  # can_beam_search: ours, or none
        finished = beam_search(
            self.decoder,
            state,
            logits_processor,
            generation_config,
            eos_ids=torch.as_tensor(generation_config.eos_token_id, device=input_ids.device).view(-1),  # (E)
            required=torch.cat([*required, torch.empty(0, dtype=torch.long)]).to(input_ids.device),  # (m)
        )
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
        label_threshold: float | Sequence[float] | None = None,
        lexical_weight: float | None = None,
        hypothesis_temperature: float | None = None,
        label_calibration: Sequence[float] | Sequence[Sequence[float]] | None = None,
        lexical_bias: Sequence[float] | None = None,
        lexical_share: float | None = None,
        output_label_scores: bool | None = None,
        **kwargs: Any,
    ) -> SGMGenerateOutput | SGMGenerateBeamOutput | torch.Tensor:
        """Generates the label set of each text.

        The arguments of `GenerationMixin.generate()` work except those of `UNSUPPORTED_ARGUMENTS` (with beams also
        `UNSUPPORTED_WITH_BEAMS`), which are refused; the ones below are ours. An argument that is not given is taken
        from the generation config, which may hold all of ours as well.

        No label is produced twice (unless `config.label_mask` is off), whatever the decoding mode. Rows asked for by
        `num_return_sequences` beyond the number of label sequences that exist hold padding and score -inf. No texts
        (B = 0) give no rows.

        `max_new_tokens` and `max_length` cut sequences: such a one has no eos, its set is the labels it has, and these
        obey the constraints.

        With `required_labels` use beams: our search keeps them in banks by how many of the required labels they have.
        Greedy search and sampling produce other labels as long as these are likelier, and the required ones when
        places run out (set `max_labels`); so does Transformers' beam search, which runs for what ours cannot do (see
        [`can_beam_search`], and a prompt in `decoder_input_ids`).

        Args:
            inputs: Word ids, padded on the right (also as `input_ids=`), (B, T) int64.
            generation_config: Replaces the model's own.
            logits_processor: Run before the label constraints.
            allowed_labels, forbidden_labels, required_labels, min_labels, max_labels, label_hierarchy: What every set
                obeys, labels by name or id; see [`LabelConstraints`].
            set_decoding: What each set maximises. `"best_sequence"`: its own probability, as the best sequence found.
                `"threshold"`: the micro-F1 of a corpus, as the labels whose score is at least `label_threshold` (see
                [`select_labels`]). `"expected_f1"`: the F1 expected of it, where what was found is taken as the
                distribution of the true set (see [`expected_f1_sets`]). The last two come best label first, and
                are one set per text, also of samples.
            label_threshold: For `"threshold"`; one for all labels or one per label, in (0, 1].
            lexical_weight: Weight of the lexical branch's log-odds beside log p(y|x), where beams are compared: for
                the best sequence (orders of one set then count together) and for the scores; see
                [`reweighted_log_probs`]. 0 by default.
            hypothesis_temperature: Divides both; above 1 it makes beams more alike. 1 by default.
            label_calibration: Makes calibrated probabilities of the scores of a model with a lexical branch; see
                [`combined_scores`].
            lexical_bias: Added to the branch's log-odds of each label where these join the beams, (L); for labels that
                are more or less frequent than in training.
            lexical_share: Share of the branch's probability in a label's score, above 0; 0.5 by default.
                `SGMTrainer.calibrate` fits all five.
            output_label_scores: Whether to return `label_scores` and `hypotheses` (needs
                `return_dict_in_generate=True`). In beam search a label's share is the summed probability of the kept
                hypotheses with the label over that of all kept; in sampling, the share of the `num_return_sequences`
                samples with it; in greedy search, 0 or 1. That share is the score, or, in a model with a lexical
                branch, its mean with the branch's probability (`lexical_share`): then 0 and 1 are for labels that the
                constraints exclude or require.

        Returns:
            [`SGMGenerateBeamOutput`] or [`SGMGenerateOutput`] with `return_dict_in_generate=True`, else (B *
            num_return_sequences, n): bos, labels in generated order, eos, padding.

        Raises:
            TypeError: If labels are not a list of names or ids, or a number of labels is not an integer.
            ValueError: If constraints exclude each other or do not fit before the cut, a label is unknown, an option
                has no such value or no effect, or an argument is not supported.
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
        given = (lexical_weight, hypothesis_temperature, label_calibration, lexical_bias, lexical_share)
        scoring = self._score_settings(config, *given)
        set_decoding = checked_set_decoding(options.pop("set_decoding"))
        num_returned = _num_returned(config, set_decoding)
        if label_threshold is not None and set_decoding != "threshold":
            raise ValueError(
                f"label_threshold has no effect under set_decoding={set_decoding!r}; leave it out, or choose "
                "set_decoding='threshold'."
            )
        threshold = options.pop("label_threshold")
        wants_scores = bool(options.pop("output_label_scores")) or set_decoding != "best_sequence"
        wants_scores |= scoring.lexical_weight > 0 and config.num_beams > 1  # all beams are compared anew
        constraints = self._resolve_constraints(config, model_kwargs, options)
        encoder_outputs = model_kwargs.get("encoder_outputs") or [None]
        names = ("input_ids", "inputs_embeds", self.encoder.main_input_name)
        sources = (inputs, *map(model_kwargs.get, names), encoder_outputs[0])
        if any(source is not None and len(source) == 0 for source in sources):
            output = self._empty_output(config, wants_scores)
            return output if config.return_dict_in_generate else output.sequences

        self._encode_texts(inputs, config, model_kwargs)
        logits_processor = LogitsProcessorList(logits_processor or [])
        if not constraints.is_trivial:
            logits_processor.append(constraints)
        wants_dict = config.return_dict_in_generate
        config.return_dict_in_generate = True
        if wants_scores and config.num_beams > 1:
            config.num_return_sequences = config.num_beams
        output = super().generate(inputs, generation_config=config, logits_processor=logits_processor, **model_kwargs)

        output = self._finish_output(output, config)
        if wants_scores:
            lexical_logits = model_kwargs["encoder_outputs"].get("lexical_logits")  # (B, L)
            self._add_scores(output, config, constraints, scoring, lexical_logits)
        num_rows, scores = config.num_return_sequences or 1, output.get("sequences_scores")
        constraints.check_sequences(
            output.sequences.unflatten(0, (-1, num_rows)), None if scores is None else scores.view(-1, num_rows)
        )
        output = _first_rows(output, config.num_return_sequences or 1, num_returned)
        if set_decoding != "best_sequence":
            self._choose_sets(output, constraints, set_decoding, threshold)
        return output if wants_dict else output.sequences

    def label_constraints(self, **given: Any) -> LabelConstraints:
        """The constraints that the sets of `generate()` obey.

        Args:
            **given: Arguments of `generate()`; those of the constraints count, and where one is not given, that of the
                generation config.
        """
        config = given.get("generation_config") or self.generation_config
        names = (
            "allowed_labels",
            "forbidden_labels",
            "required_labels",
            "min_labels",
            "max_labels",
            "label_hierarchy",
        )
        options = {name: getattr(config, name, None) if given.get(name) is None else given[name] for name in names}
        return LabelConstraints(self.config, **options)

    def rename_set_decoding(self) -> None:
        """Gives a set decoding that the generation config has under a former name its present one."""
        self.generation_config.set_decoding = checked_set_decoding(
            getattr(self.generation_config, "set_decoding", None)
        )

    def _resolve_generation_config(
        self, inputs: torch.Tensor | None, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """Merges arguments, the given config and the model's defaults; completes lengths and the attention mask."""
        configs = [c for c in (generation_config, self.generation_config) if c is not None]
        sources = [kwargs, *map(vars, configs)]
        given = {
            name
            for name in ("max_length", "max_new_tokens", "min_length", "length_penalty")
            if any(source.get(name) is not None for source in sources)
        }
        config, model_kwargs = self.merge_generation_config(generation_config, **kwargs)
        _refuse_unsupported(config, model_kwargs)
        self._check_decoder_ids(config)
        for name in ("output_attentions", "output_hidden_states"):
            model_kwargs.pop(name, None)  # GenerationMixin takes them from the config
        # What is None counts as not given, so that max_new_tokens and min_new_tokens do not clash with a default.
        if "max_length" not in given:
            config.max_length = None
        if "min_length" not in given:
            config.min_length = None
        if config.num_beams == 1:
            config.length_penalty = 1.0  # the neutral value where there are no beams
        elif "length_penalty" not in given:
            config.length_penalty = 0.0  # a hypothesis' score is log p(y|x)
        input_ids = model_kwargs.get("input_ids") if inputs is None else inputs
        are_words = self.encoder.main_input_name == "input_ids" and self.config.pad_token_id is not None
        if are_words and input_ids is not None and model_kwargs.get("attention_mask") is None:
            model_kwargs["attention_mask"] = input_ids.ne(self.config.pad_token_id)
        return config, model_kwargs

    def _resolve_constraints(
        self, config: GenerationConfig, model_kwargs: dict[str, Any], options: dict[str, Any]
    ) -> LabelConstraints:
        """Makes the constraints from `options`, checks the prompt against them, and completes `config.max_length`."""
        other_ends = [i for i in _end_ids(config) if i < self.config.num_labels]
        if other_ends and (options["min_labels"] or options["required_labels"]):
            raise ValueError(
                f"eos_token_id={config.eos_token_id} lets the labels {other_ends} end a sequence before min_labels or "
                "required_labels are met. Leave out these ids, or the constraints."
            )
        prompt = model_kwargs.get("decoder_input_ids")  # (R, p)
        if prompt is not None and (prompt[:, 0] != self.config.bos_label_id).all():
            prompt = F.pad(prompt, (1, 0), value=self.config.bos_label_id)  # (R, p + 1), as GenerationMixin does
        num_given = 1 if prompt is None else prompt.shape[1]
        longest = self.config.num_labels + 2  # bos, every label once, eos
        cut = config.max_length if config.max_new_tokens is None else num_given + config.max_new_tokens
        constraints = LabelConstraints(self.config, **options, max_length=longest if cut is None else cut)
        if prompt is not None and not constraints.is_trivial:
            constraints.check_start(prompt)
        if self.config.label_mask:
            longest = min(longest, constraints.most_labels + 2)
            num_asked = max((config.min_new_tokens or 0) + num_given, config.min_length or 0) - 1
            if num_asked > constraints.most_labels:
                raise ValueError(
                    f"min_new_tokens={config.min_new_tokens} or min_length={config.min_length} asks for {num_asked} "
                    f"labels, but a set has {constraints.most_labels} at most. Lower it, or allow more labels."
                )
        if cut is None:
            config.max_length = max(longest, num_given + 1)
        return constraints

    def _encode_texts(
        self, inputs: torch.Tensor | None, config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> None:
        """Adds what [`~SGMForMultiLabelGeneration.encode`] returns to the arguments of the model."""
        # Transformers would run the encoder alone.
        names = {*signature(self.encode).parameters, *self.encoder.input_names}
        texts = {name: model_kwargs[name] for name in names if name in model_kwargs}
        if inputs is not None:
            texts[self.encoder.main_input_name] = inputs
        model_kwargs.pop("lexical_logits", None)
        if model_kwargs.get("encoder_outputs") is None:
            model_kwargs["encoder_outputs"] = self.encode(**texts, output_hidden_states=config.output_hidden_states)

    def _score_settings(self, config: GenerationConfig, *given: Any) -> ScoreSettings:
        """What is given of [`ScoreSettings`], completed from the config, then by the defaults."""
        settings = ScoreSettings()
        for name, value in zip(ScoreSettings._fields, given, strict=True):
            value = getattr(config, name, None) if value is None else value
            if value is not None:
                settings = settings._replace(**{name: value})
        asked = settings.lexical_weight or settings.label_calibration or settings.lexical_bias
        if self.lexical is None and (asked or settings.lexical_share != ScoreSettings().lexical_share):
            raise ValueError(
                f"lexical_weight is {settings.lexical_weight}, label_calibration {settings.label_calibration}, "
                f"lexical_bias {settings.lexical_bias!r:.80} and lexical_share {settings.lexical_share}, but the "
                "model has no lexical branch (config.lexical_branch); leave them out."
            )
        if len(settings.lexical_bias) not in (0, self.config.num_labels):
            raise ValueError(
                f"lexical_bias has {len(settings.lexical_bias)} numbers; give one for each of the "
                f"{self.config.num_labels} labels."
            )
        return settings

    def _check_decoder_ids(self, config: GenerationConfig) -> None:
        """Refuses other ids of bos, eos and padding than the model has; more labels than eos may end a sequence."""
        found = (config.decoder_start_token_id, config.pad_token_id)
        expected = (self.config.bos_label_id, self.config.pad_label_id)
        if found != expected or self.config.eos_label_id not in _end_ids(config):
            raise ValueError(
                f"decoder_start_token_id={config.decoder_start_token_id}, pad_token_id={config.pad_token_id} and "
                f"eos_token_id={config.eos_token_id} are not this model's: {self.config.bos_label_id}, "
                f"{self.config.pad_label_id}, and {self.config.eos_label_id} or a list that has it. Leave them out."
            )

    def _empty_output(self, config: GenerationConfig, wants_scores: bool) -> SGMGenerateOutput | SGMGenerateBeamOutput:
        """The output for no texts: tensors without rows."""
        sequences = torch.empty(0, 1, dtype=torch.long, device=self.device)  # (0, 1)
        label_scores = torch.empty(0, self.config.num_labels, device=self.device) if wants_scores else None  # (0, L)
        if config.num_beams == 1:
            return SGMGenerateOutput(sequences=sequences, label_scores=label_scores)
        sequences_scores = torch.empty(0, device=self.device)  # (0)
        return SGMGenerateBeamOutput(sequences=sequences, sequences_scores=sequences_scores, label_scores=label_scores)

    def _finish_output(
        self,
        output: GenerateEncoderDecoderOutput | GenerateBeamEncoderDecoderOutput,
        config: GenerationConfig,
    ) -> SGMGenerateOutput | SGMGenerateBeamOutput:
        """Blanks rows without a hypothesis, and makes place for label scores."""
        if not isinstance(output, GenerateBeamEncoderDecoderOutput):
            return SGMGenerateOutput(**output)
        is_filler = output.sequences_scores.isneginf()  # (R)
        output.sequences[:, 1:].masked_fill_(is_filler[:, None], self.config.pad_label_id)
        return SGMGenerateBeamOutput(**output)

    def _add_scores(
        self,
        output: SGMGenerateOutput | SGMGenerateBeamOutput,
        config: GenerationConfig,
        constraints: LabelConstraints,
        scoring: ScoreSettings,
        lexical_logits: torch.Tensor | None,
    ) -> None:
        """Adds the hypotheses, and the label scores from all of them; puts re-weighted beams in their new order."""
        num_rows, num_labels = config.num_return_sequences or 1, self.config.num_labels
        log_odds = lexical_logits  # (B, L)
        if log_odds is not None and len(scoring.lexical_bias):
            log_odds = log_odds + log_odds.new_tensor(scoring.lexical_bias)  # (B, L)
        hypotheses = output.sequences.unflatten(0, (-1, num_rows))  # (B, K, n)
        log_probs = output.sequences.new_zeros(hypotheses.shape[:2], dtype=torch.float)  # (B, K), samples count alike
        if isinstance(output, SGMGenerateBeamOutput):
            log_probs = hypothesis_log_probs(
                output.sequences, output.sequences_scores, config.length_penalty, self.config.pad_label_id
            ).view_as(log_probs)  # (B, K)
            words = log_probs.new_zeros(len(log_probs), num_labels) if log_odds is None else log_odds  # (B, L)
            log_probs = reweighted_log_probs(log_probs, hypotheses, words, *scoring[:2])  # (B, K)
            if scoring.lexical_weight > 0:
                best = best_hypotheses(hypotheses, log_probs, num_labels)[:, None]  # (B, 1)
                order = log_probs.scatter(1, best, float("inf")).argsort(dim=1, descending=True, stable=True)  # (B, K)
                _reorder_rows(output, order)
                hypotheses = output.sequences.unflatten(0, (-1, num_rows))  # (B, K, n)
                log_probs = log_probs.gather(1, order)  # (B, K)
        scores = label_scores_from_hypotheses(hypotheses, log_probs, num_labels)  # (B, L)
        if log_odds is not None:
            scores = combined_scores(scores, log_odds, scoring.label_calibration, scoring.lexical_share)  # (B, L)
            scores = constraints.decide(scores)  # (B, L)
        output.hypotheses, output.hypothesis_log_probs = hypotheses, log_probs
        output.label_scores, output.lexical_logits = scores, lexical_logits

    def _choose_sets(
        self,
        output: SGMGenerateOutput | SGMGenerateBeamOutput,
        constraints: LabelConstraints,
        set_decoding: str,
        threshold: float | Sequence[float],
    ) -> None:
        """Replaces the sequences by the sets that a decoding makes of all hypotheses."""
        # All three are there, because generate() has asked for scores.
        assert output.label_scores is not None
        assert output.hypotheses is not None and output.hypothesis_log_probs is not None
        if set_decoding == "threshold":
            label_sets = constraints.select(output.label_scores, threshold)
        else:
            label_sets = expected_f1_sets(output, constraints)
        output.sequences = sequences_from_label_sets(label_sets, self.config, output.sequences.device)
        output["sequences_scores"] = None  # the set was not scored as a sequence


def can_beam_search(
    logits_processor: LogitsProcessorList, stopping_criteria: StoppingCriteriaList, config: GenerationConfig
) -> bool:
    """Whether [`beam_search`] does all that is asked for.

    It returns sequences and their scores, and knows no processor or criterion but ours: any other may count on every
    document staying in the batch.

    Args:
        logits_processor: To run at each step.
        stopping_criteria: To stop by.
        config: The other settings.
    """
    extras = ("do_sample", "output_scores", "output_logits", "output_attentions", "output_hidden_states")
    return (
        not any(getattr(config, name) for name in extras)
        and all(isinstance(processor, LabelConstraints) for processor in logits_processor)
        and all(isinstance(criterion, MaxLengthCriteria | EosTokenCriteria) for criterion in stopping_criteria)
    )


def _refuse_unsupported(config: GenerationConfig, model_kwargs: dict[str, Any]) -> None:
    """Refuses the arguments of Transformers that cannot work here, by the name and with the reason."""
    unsupported = UNSUPPORTED_ARGUMENTS | (UNSUPPORTED_WITH_BEAMS if config.num_beams > 1 else {})
    for name, reason in unsupported.items():
        value = model_kwargs.get(name, getattr(config, name, None))
        is_set = value is not None if isinstance(value, torch.Tensor | Cache) else bool(value)
        if is_set and (name not in NEUTRAL_VALUES or value != NEUTRAL_VALUES[name]):
            beams = f" with num_beams={config.num_beams}" if name in UNSUPPORTED_WITH_BEAMS else ""
            raise ValueError(f"generate() does not support {name}{beams}: {reason}. Leave it out.")


def _end_ids(config: GenerationConfig) -> Sequence[int]:
    """What ends a sequence."""
    return config.eos_token_id if isinstance(config.eos_token_id, Sequence) else [config.eos_token_id]


def _num_returned(config: GenerationConfig, set_decoding: str) -> int:
    """Sets per text: one where it is made of all that is found, be it beams or `num_return_sequences` samples."""
    num_found = config.num_return_sequences or 1
    if set_decoding == "best_sequence":
        return num_found
    if num_found > 1 and config.num_beams > 1:
        raise ValueError(
            f"set_decoding={set_decoding!r} finds one set per text, but num_return_sequences is {num_found}. Use "
            "set_decoding='best_sequence' to see several sequences."
        )
    return 1


def _reorder_rows(output: SGMGenerateBeamOutput, order: torch.Tensor) -> None:
    """Puts the rows of each document into an order `(B, K)` of its K places."""
    first = torch.arange(len(order), device=order.device)[:, None] * order.shape[1]  # (B, 1)
    rows = (first + order).flatten()  # (R)
    for name in ("sequences", "sequences_scores", "beam_indices"):
        value = output.get(name)
        if value is not None:
            output[name] = value.index_select(0, rows)


def _first_rows(output: Output, num_rows: int, num_kept: int) -> Output:
    """Keeps the first `num_kept` of each document's `num_rows` sequences."""
    if num_kept < num_rows:
        for name in ("sequences", "sequences_scores", "beam_indices"):
            value = output.get(name)
            if value is not None:
                output[name] = value.unflatten(0, (-1, num_rows))[:, :num_kept].flatten(0, 1)
    return output


__all__ = ["SGMGenerationMixin"]
