"""Encoders: from the words of a text to states, their mask, and a summary for the decoder's first state.

To add one, subclass `SGMEncoder`, enter it in `ENCODERS`, and name it in `SGMConfig.encoder`.

Shapes: B documents, T words, T' states (T of them in the recurrent encoder), H state size, S summary size.
"""

from dataclasses import dataclass
from inspect import signature
from typing import Any, cast

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput

from .configuration_sgm import SGMConfig
from .cpu_sgm import SGMDropout


@dataclass
class SGMEncoderOutput(BaseModelOutput):
    """What the decoder gets of each document. An encoder with further levels (sentences, semantic units) returns a
    subclass with a field for each.

    Args:
        last_hidden_state: The states h, (B, T', H).
        mask: True for the states that exist, (B, T') bool; T' need not be the number of words.
        summary: What the decoder's first state is made of, (B, S).
        lexical_logits: Log-odds of each label by the words of the whole text, (B, L) float32; see
            `SGMForMultiLabelGeneration.encode`.
    """

    mask: torch.Tensor | None = None
    summary: torch.Tensor | None = None
    lexical_logits: torch.Tensor | None = None


class SGMEncoder(nn.Module):
    """What model and decoder ask of an encoder, however it is made."""

    main_input_name = "input_ids"
    embed_tokens: nn.Module
    output_size: int  # H
    summary_size: int  # S
    states_are_words = False  # whether state t is that of word t, so that attention falls on words

    def forward(self, *inputs: Any, **named_inputs: Any) -> SGMEncoderOutput:
        """Encodes a batch of documents."""
        raise NotImplementedError

    @property
    def input_names(self) -> set[str]:
        """What `forward` takes."""
        return {*signature(self.forward).parameters}

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings by `value`."""
        self.embed_tokens = value

    def output(self, states: torch.Tensor, mask: torch.Tensor) -> SGMEncoderOutput:
        """Completes states (B, T', H) with mask (B, T') that a caller gives without the rest of the output.

        Raises:
            ValueError: If the states alone do not say what else the encoder returns.
        """
        raise ValueError(
            f"encoder_outputs has states only, but {type(self).__name__} returns more; give what the encoder returned."
        )


def first_words(inputs: dict[str, Any], longest: int | None) -> dict[str, Any]:
    """Cuts `input_ids`, `attention_mask` (B, T) and `inputs_embeds` after `longest` words; None leaves them whole."""
    if longest is None:
        return inputs
    names = {"input_ids", "attention_mask", "inputs_embeds"}
    return {
        name: value[:, :longest] if name in names and value is not None else value for name, value in inputs.items()
    }


class SGMBidirectionalLSTM(GradientCheckpointingLayer):
    """One bidirectional LSTM layer over padded texts (Yang et al. 2018, eq. 2-3).

    The backward direction runs forward over each text reversed within its own length, so padding comes last for it as
    well and never changes a result. This equals a packed `nn.LSTM` and runs many times faster on a CPU.
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.forward_lstm = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.backward_lstm = nn.LSTM(input_size, hidden_size, batch_first=True)

    def forward(self, inputs: torch.Tensor, reversal: torch.Tensor) -> torch.Tensor:
        """Runs both directions.

        Args:
            inputs: Padded on the right, (B, T, input_size).
            reversal: Result of [`reversal_index`], (B * T).

        Returns:
            Forward and backward states, (B, T, 2 * hidden_size); those of padding have no meaning.
        """
        if inputs.numel() == 0:  # no text, or texts without a word, which nn.LSTM refuses
            return inputs.new_zeros(*inputs.shape[:2], 2 * self.forward_lstm.hidden_size)  # (B, T, 2 * hidden_size)
        ahead, _ = self.forward_lstm(inputs)  # (B, T, hidden_size)
        behind, _ = self.backward_lstm(reorder_words(inputs, reversal))  # (B, T, hidden_size)
        return torch.cat([ahead, reorder_words(behind, reversal)], dim=-1)  # (B, T, 2 * hidden_size)


def reversal_index(lengths: torch.Tensor, num_words: int) -> torch.Tensor:
    """The permutation of all positions of a batch that reverses each text within its own length; its own inverse.

    Args:
        lengths: Number of words of each text, (B) int64.
        num_words: T, the padded length.

    Returns:
        Indices into the flattened positions, (B * T) int64; padding stays in place.
    """
    position = torch.arange(num_words, device=lengths.device)  # (T)
    mirrored = lengths[:, None] - 1 - position  # (B, T)
    within = torch.where(mirrored >= 0, mirrored, position)  # (B, T)
    first = torch.arange(lengths.shape[0], device=lengths.device)[:, None] * num_words  # (B, 1)
    return (within + first).flatten()  # (B * T)


def reorder_words(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Takes states (B, T, size) in the order of a flat index (B * T); returns (B, T, size)."""
    return states.flatten(0, 1).index_select(0, index).view_as(states)  # (B, T, size)


class SGMRecurrentEncoder(SGMEncoder):
    """Word embeddings and a bidirectional LSTM (Yang et al. 2018, eq. 2-3)."""

    states_are_words = True

    def __init__(self, config: SGMConfig):
        super().__init__()
        self.output_size = self.summary_size = 2 * config.encoder_hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        sizes = [config.embedding_size] + [self.output_size] * (config.encoder_layers - 1)
        self.layers = nn.ModuleList(SGMBidirectionalLSTM(size, config.encoder_hidden_size) for size in sizes)
        self.dropout = SGMDropout(config.dropout)
        self.word_dropout = config.word_dropout

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> SGMEncoderOutput:
        """Encodes texts.

        Args:
            input_ids: Word ids, padded on the right, (B, T) int64.
            attention_mask: 1 for words, 0 for padding, (B, T); by default, what is not the padding word.
            inputs_embeds: In place of `input_ids`, (B, T, embedding_size).
            output_hidden_states: Whether to return the embeddings and the output of each layer.
            **kwargs: Not used: what `generate()` passes to any encoder.

        Returns:
            States (B, T, H) of the T words; the summary is [`final_states`].

        Raises:
            ValueError: If neither or both of `input_ids` and `inputs_embeds` are given, or padding is on the left.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give the encoder either input_ids or inputs_embeds, not both and not neither.")
        states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds  # (B, T, embedding_size)
        if attention_mask is not None:
            mask = attention_mask.bool()  # (B, T)
        elif input_ids is not None:
            mask = input_ids.ne(cast(int, self.embed_tokens.padding_idx))  # (B, T)
        else:
            mask = states.new_ones(states.shape[:2], dtype=torch.bool)  # (B, T)
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            raise ValueError("The attention mask must have its padding on the right: tokenizer.padding_side='right'.")
        reversal = reversal_index(mask.sum(dim=1), mask.shape[1])  # (B * T)

        if self.training and self.word_dropout:
            is_kept = torch.rand(mask.shape, device=mask.device) >= self.word_dropout  # (B, T)
            states = states * is_kept[..., None]  # (B, T, embedding_size)
        hidden_states = [states]
        for layer in self.layers:
            states = layer(self.dropout(states), reversal)  # (B, T, H)
            hidden_states.append(states)
        output = self.output(states, mask)
        if output_hidden_states:
            output.hidden_states = tuple(hidden_states)
        return output

    def output(self, states: torch.Tensor, mask: torch.Tensor) -> SGMEncoderOutput:
        """Completes the states of words (B, T, H) with mask (B, T)."""
        return SGMEncoderOutput(last_hidden_state=states, mask=mask, summary=final_states(states, mask))


def final_states(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The forward state at each text's last word beside the backward state at its first.

    Args:
        states: Forward half, then backward half, (B, T, H).
        mask: True for words, (B, T) bool.

    Returns:
        (B, H); zero for a text without words.
    """
    num_documents, num_words, size = states.shape
    if num_words == 0:
        return states.new_zeros(num_documents, size)  # (B, H)
    half = size // 2
    num_own = mask.sum(dim=1)  # (B)
    rows = torch.arange(num_documents, device=states.device)  # (B)
    last = states[rows, (num_own - 1).clamp(min=0), :half]  # (B, H / 2)
    final = torch.cat([last, states[:, 0, half:]], dim=-1)  # (B, H)
    return final.masked_fill(num_own[:, None] == 0, 0.0)  # (B, H)


# The kinds of `SGMConfig.encoder`.
ENCODERS: dict[str, type[SGMEncoder]] = {"recurrent": SGMRecurrentEncoder}
