"""What the model family takes from Transformers that Transformers does not document, and nothing else.

A method with an underscore is extended here by one that has a public name, under which the other files know it. A
release that renames one of them is mended in this file; `tests/test_private_names.py` names all of them.
"""

from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, PreTrainedConfig, PreTrainedModel
from transformers.generation import GenerateBeamEncoderDecoderOutput, StoppingCriteriaList

# Transformers starts beam search with all beams but one at a sum of log-probabilities of -1e9. Where fewer sequences
# exist than beams, such fillers are all that is left for the last places. No sum of a real sequence is as low as this.
FILLER_SCORE = -5e8


class LoadingHooks(PreTrainedModel):
    """A `PreTrainedModel` that may look at weights before they are loaded."""

    _is_stateful = True  # the decoder's state cannot be cut back

    def usable_state_dict(
        self, files: list[str], checkpoint: Any, ignore_faults: bool
    ) -> dict[str, torch.Tensor] | None:
        """The weights to load in place of those of `files`; None for these.

        Args:
            files: The files of the weights.
            checkpoint: Its name, for errors.
            ignore_faults: Whether weights that cannot be used are left out, and so initialised, and not refused.
        """
        return None

    @staticmethod
    def _load_pretrained_model(
        model: "LoadingHooks",
        state_dict: dict[str, torch.Tensor] | None,
        checkpoint_files: list[str] | None,
        load_config: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if state_dict is None and checkpoint_files is not None:
            state_dict = model.usable_state_dict(
                checkpoint_files,
                load_config.pretrained_model_name_or_path,
                load_config.ignore_mismatched_sizes,
            )
        return PreTrainedModel._load_pretrained_model(
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )


class SearchHooks(GenerationMixin):
    """A `GenerationMixin` with a beam search of its own, whose rows share the encoder's states."""

    def search_beams(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        **model_kwargs: Any,
    ) -> GenerateBeamEncoderDecoderOutput:
        """Transformers' beam search, with all that `generate()` has prepared for it."""
        generation_config.output_scores = True  # gives sequences_scores
        return super()._beam_search(
            input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, **model_kwargs
        )

    def merge_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """The config that arguments, a given config and the model's own make, and the arguments for the model."""
        return self._prepare_generation_config(generation_config, **kwargs)

    def _beam_search(self, *args: Any, **kwargs: Any) -> GenerateBeamEncoderDecoderOutput:
        return self.search_beams(*args, **kwargs)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        # The decoder makes its own state at the first step.
        return False

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

    # The next three keep the fillers of Transformers' beam search apart from its hypotheses, at their sum of
    # log-probabilities, which no length penalty has changed yet: the score -1e9 / length ** penalty may be any number.

    def _get_top_k_continuations(
        self, accumulated_log_probs: torch.Tensor, **search: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # Sampling needs something to draw where a document has fillers only, hence no -inf before.
        log_probs, *continuations = super()._get_top_k_continuations(
            accumulated_log_probs=accumulated_log_probs.clamp(min=2 * FILLER_SCORE), **search
        )
        return log_probs.masked_fill(log_probs < FILLER_SCORE, float("-inf")), *continuations

    def _update_finished_beams(self, **search: Any) -> tuple[torch.Tensor, ...]:
        is_finished = search["is_sent_finished"]  # (B, K)
        is_full = is_finished.all(dim=1, keepdim=True) & (search["early_stopping"] is True)  # (B, 1)
        ends = (
            search["next_token_hits_stopping_criteria"]
            & search["top_num_beam_mask"]
            & search["topk_log_probs"].isfinite()
            & search["is_early_stop_heuristic_unsatisfied"]
            & ~is_full
        )  # (B, C)
        search["next_token_hits_stopping_criteria"] = ends
        search["topk_log_probs"] = search["topk_log_probs"].masked_fill(~ends, float("-inf"))
        search["beam_scores"] = search["beam_scores"].masked_fill(~is_finished, float("-inf"))
        return super()._update_finished_beams(**search)

    def _check_early_stop_heuristic(self, *, is_sent_finished: torch.Tensor, **search: Any) -> torch.Tensor:
        # Unfinished places count as -1e9 in it; -inf, their score, is lower than any hypothesis.
        return super()._check_early_stop_heuristic(is_sent_finished=torch.ones_like(is_sent_finished), **search)


def is_loaded(parameter: torch.Tensor) -> bool:
    """Whether a parameter has the value of a checkpoint, so that it must not be initialised."""
    return getattr(parameter, "_is_hf_initialized", False)


def commit_hash(config: PreTrainedConfig) -> str | None:
    """The revision that a configuration from the Hub has."""
    return getattr(config, "_commit_hash", None)


__all__ = ["LoadingHooks", "SearchHooks", "commit_hash", "is_loaded"]
