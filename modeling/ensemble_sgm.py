"""Several models as one: an encoder and a decoder that run those of all members and average what they say of a label.

At each step, the probability of a label is the mean of the members' (Sutskever et al. 2014, "Sequence to Sequence
Learning with Neural Networks", §3.6). Everything else of the model sees one decoder, whose state holds those of the
members, and one distribution.

Shapes: B documents, T words, T' encoder states, L labels, R decoder rows, M members.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from .configuration_sgm import MEMBER_SETTINGS, SGMConfig
from .decoder_sgm import SGMDecoder, SGMDecoderState, SGMLabelDecoder
from .encoders_sgm import ENCODERS, SGMEncoder, SGMEncoderOutput, first_words

# Settings that say nothing of a trained model, or that follow from the branch; those of the first member are kept.
OF_FIRST_MEMBER = {"initializer_range", "use_cache", "lexical_bigrams", "lexical_neighbors", "lexical_datastore"}


@dataclass
class SGMEnsembleEncoderOutput(SGMEncoderOutput):
    """What the encoders of all members return; the fields of [`SGMEncoderOutput`] are those of the first member.

    Args:
        members: What each of them returned.
    """

    members: list[SGMEncoderOutput] | None = None


class SeveralEmbeddingsError(ValueError, NotImplementedError):
    """A model was asked for its word embeddings and has several; Transformers goes on without, where it can."""


class SGMEnsembleEncoder(SGMEncoder):
    """The encoders of all members, each with its own word embeddings.

    Args:
        configs: The members' configurations.
    """

    def __init__(self, configs: Sequence[SGMConfig]):
        super().__init__()
        # For type checkers: the elements of a ModuleList are any modules.
        encoders = nn.ModuleList(ENCODERS[config.encoder](config) for config in configs)
        self.members = cast(Sequence[SGMEncoder], encoders)
        self.max_lengths = [config.encoder_max_length for config in configs]
        first = self.members[0]
        self.main_input_name = first.main_input_name
        self.output_size, self.summary_size = first.output_size, first.summary_size
        self.states_are_words = all(member.states_are_words for member in self.members)

    @property
    def input_names(self) -> set[str]:
        """What any member takes."""
        return {name for member in self.members for name in member.input_names}

    def forward(
        self,
        inputs_embeds: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **inputs: Any,
    ) -> SGMEnsembleEncoderOutput:
        """Encodes documents with each member, texts up to its own `encoder_max_length`.

        Args:
            inputs_embeds: Refused.
            token_type_ids: Of pre-trained encoders of texts, (B, T); named, since `generate` asks what there is.
            pixel_values: Of encoders of images, (B, channels, height, width).
            **inputs: Of a member.

        Raises:
            ValueError: If embeddings are given in place of words: each member has its own.
        """
        if inputs_embeds is not None:
            raise ValueError(
                "inputs_embeds is given, but each member of an ensemble has its own word embeddings; give input_ids."
            )
        further = {"token_type_ids": token_type_ids, "pixel_values": pixel_values}
        inputs |= {name: value for name, value in further.items() if value is not None}
        outputs = [
            member(**first_words(inputs, longest))
            for member, longest in zip(self.members, self.max_lengths, strict=True)
        ]
        # The first one may be of a subclass, whose further fields only its own decoder knows.
        shared = {field.name: getattr(outputs[0], field.name) for field in fields(SGMEncoderOutput)}
        combined = SGMEnsembleEncoderOutput(**shared, members=outputs)
        if combined.hidden_states is not None:
            combined.hidden_states = tuple(states for output in outputs for states in output.hidden_states)
        return combined

    def get_input_embeddings(self) -> nn.Module:
        """There is not one."""
        raise SeveralEmbeddingsError(
            f"The model is an ensemble of {len(self.members)} members with word embeddings each. Change those of the "
            "single models, then average them again: SGMForMultiLabelGeneration.from_members(models)."
        )

    @property
    def word_vectors(self) -> torch.Tensor:
        """Those of the first member, (V, E): all members know the same words."""
        return self.members[0].word_vectors  # (V, E)

    def set_input_embeddings(self, value: nn.Module) -> None:
        """There is not one to replace."""
        self.get_input_embeddings()


class SGMEnsembleDecoder(SGMLabelDecoder):
    """The decoders of all members; the probability of a label is the mean of theirs.

    Its state has the tensors of member m under their names behind `m.`. Each member is told of its own distribution
    (eq. 11-14), as it was in training.

    Args:
        configs: The members' configurations.
        encoder: Their encoders.
    """

    def __init__(self, configs: Sequence[SGMConfig], encoder: SGMEnsembleEncoder):
        super().__init__()
        decoders = nn.ModuleList(map(SGMDecoder, configs, encoder.members))
        self.members = cast(Sequence[SGMDecoder], decoders)
        states_are_alike = encoder.states_are_words  # others may be of different things
        self.attends_to_states = states_are_alike and all(member.attends_to_states for member in self.members)

    def add_labels(self, count: int, shares: torch.Tensor | None = None) -> None:
        """Gives every member `count` more labels; as [`~SGMDecoder.add_labels`]."""
        for member in self.members:
            member.add_labels(count, shares)

    def set_label_vectors(self, vectors: torch.Tensor) -> None:
        """Gives every member's rows of the labels the direction of vectors (L, ...)."""
        for member in self.members:
            member.set_label_vectors(vectors)

    def start(self, encoded: SGMEncoderOutput, num_rows: int, num_left_out: int = 0) -> SGMDecoderState:
        """The state before the first step, of all members; as [`~SGMDecoder.start`]."""
        assert isinstance(encoded, SGMEnsembleEncoderOutput) and encoded.members  # of its encoder
        state = SGMDecoderState({}, {})
        for place, (member, output) in enumerate(zip(self.members, encoded.members, strict=True)):
            output = type(output)(**{**output, "lexical_logits": encoded.lexical_logits})
            own = member.start(output, num_rows, num_left_out)
            state.documents |= {f"{place}.{name}": tensor for name, tensor in own.documents.items()}
            state.rows |= {f"{place}.{name}": tensor for name, tensor in own.rows.items()}
        return state

    def step(
        self, label_ids: torch.Tensor, state: SGMDecoderState
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
        """One step of all members. Updates `state`.

        Args:
            label_ids: Labels of the step before, bos at the first, (R) int64.
            state: What the steps before left.

        Returns:
            Log of the mean of the members' probabilities (R, L + 1); mean of their attention weights (R, T'), or
            `None` if one has none over words; their hidden states, one member's after the other's.
        """
        all_logits, all_weights, hidden_states = [], [], []
        for place, member in enumerate(self.members):
            own = member_state(state, place)
            logits, weights, hidden = member.step(label_ids, own)  # (R, L + 1), (R, T'), ...
            state.rows |= {f"{place}.{name}": tensor for name, tensor in own.rows.items()}
            all_logits.append(logits)
            all_weights.append(weights)
            hidden_states += hidden
        state.num_steps += 1
        weights = None
        if self.attends_to_states:  # then none of the weights is None
            weights = mean_weights(cast(list[torch.Tensor], all_weights))  # (R, T')
        return mean_logits(all_logits), weights, hidden_states


def member_state(state: SGMDecoderState, place: int) -> SGMDecoderState:
    """What one member remembers: `state` of the ensemble has it under prefixed names."""
    prefix = f"{place}."
    documents, rows = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for tensors in (state.documents, state.rows)
    )
    own = SGMDecoderState(documents, rows)
    own.num_steps = state.num_steps
    return own


def mean_logits(all_logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """The log of the mean of distributions.

    Args:
        all_logits: Logits of each, (R, L + 1); -inf for what is impossible.

    Returns:
        (R, L + 1): -inf for what is impossible by all.
    """
    log_probs = torch.stack([logits.log_softmax(dim=-1) for logits in all_logits])  # (M, R, L + 1)
    # By logarithms, since no small probability may become 0; without those of -inf, whose gradient would be NaN.
    is_impossible = log_probs.isneginf().all(dim=0)  # (R, L + 1)
    sums = log_probs.masked_fill(is_impossible, 0.0).logsumexp(dim=0)  # (R, L + 1)
    return (sums - math.log(len(all_logits))).masked_fill(is_impossible, float("-inf"))  # (R, L + 1)


def mean_weights(all_weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of attention weights (R, T') over the words of one text, of which some members may read less."""
    longest = max(weights.shape[1] for weights in all_weights)
    padded = [F.pad(weights, (0, longest - weights.shape[1])) for weights in all_weights]  # (R, T') each
    return torch.stack(padded).mean(dim=0)  # (R, T')


def ensemble_config(configs: Sequence[SGMConfig]) -> SGMConfig:
    """The configuration of several models as one: the first one's, and in what each member differs.

    Args:
        configs: Of the models.

    Raises:
        ValueError: If there is none, one is of an ensemble, or they differ in more than members may.
    """
    if not configs:
        raise ValueError("An ensemble has at least one member; give a list of models.")
    for place, config in enumerate(configs):
        if config.members is not None:
            raise ValueError(f"Model {place} is an ensemble itself; give the models that it was made of in its place.")
    ensemble = copy.deepcopy(configs[0])
    names = {field.name for field in fields(ensemble)} - {field.name for field in fields(PreTrainedConfig)}
    for name in sorted((names | {"id2label", "pad_token_id"}) - {*MEMBER_SETTINGS, *OF_FIRST_MEMBER}):
        for place, config in enumerate(configs):
            if getattr(config, name) != getattr(ensemble, name):
                raise ValueError(
                    f"{name} of model {place} is {getattr(config, name)!r:.200}, of model 0 "
                    f"{getattr(ensemble, name)!r:.200}, but the members of an ensemble have it in common; train them "
                    "with the same tokenizer, labels and documents."
                )
    lengths = [config.encoder_max_length for config in configs if config.encoder_max_length is not None]
    ensemble.encoder_max_length = max(lengths) if len(lengths) == len(configs) else None
    ensemble.lexical_in_decoder = any(config.lexical_in_decoder for config in configs)
    ensemble.members = [_differences(config, ensemble) for config in configs]
    ensemble.validate()
    return ensemble


def _differences(config: SGMConfig, ensemble: SGMConfig) -> dict[str, Any]:
    """In what the configuration of a member differs from that of the ensemble, as `config.json` can say it."""
    own = {name: getattr(config, name) for name in MEMBER_SETTINGS if getattr(config, name) != getattr(ensemble, name)}
    return {name: value.to_dict() if isinstance(value, PreTrainedConfig) else value for name, value in own.items()}


__all__ = ["SGMEnsembleDecoder", "SGMEnsembleEncoder", "SGMEnsembleEncoderOutput", "ensemble_config"]
