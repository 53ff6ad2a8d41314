"""Attention of the decoder over what the encoder returned.

To add one, subclass `SGMAttention`, enter it in `ATTENTIONS`, and name it in `SGMConfig.attention`.

Shapes: B documents, T' encoder states of size H, R decoder rows (B times the beams or samples of a document, which are
adjacent) of size H_d, A attention size.
"""

from typing import cast

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_sgm import SGMConfig
from .cpu_sgm import energy_in_pieces
from .encoders_sgm import SGMEncoder, SGMEncoderOutput


class SGMAttention(nn.Module):
    """What the decoder asks of its attention.

    The tensors that attention needs of each document are made once, by `memory`, and are handed to every call in the
    order of `memory_names`: one by one, because gradient checkpointing sees only tensors that are arguments.
    """

    context_size: int  # of c_t
    memory_names: tuple[str, ...]
    over_states = True  # whether its weights are over the encoder's states

    def memory(self, encoded: SGMEncoderOutput) -> dict[str, torch.Tensor]:
        """What is kept of each document, by name; each tensor begins with the dimension B."""
        raise NotImplementedError

    def forward(self, query: torch.Tensor, *memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gathers the memory for decoder states (R, H_d): s_t, or s_{t-1} with `context_input="current"`.

        Returns:
            The context c_t, (R, context_size), and the weights to show, (R, T') or `None`.
        """
        raise NotImplementedError


class SGMNoAttention(SGMAttention):
    """None: the decoder of plain S2S sees the text through its first state only."""

    context_size = 0
    memory_names = ()
    over_states = False

    def __init__(self, config: SGMConfig, encoder: SGMEncoder):
        super().__init__()

    def memory(self, encoded: SGMEncoderOutput) -> dict[str, torch.Tensor]:
        """Nothing."""
        return {}

    def forward(self, query: torch.Tensor, *memory: torch.Tensor) -> tuple[torch.Tensor, None]:
        """An empty context."""
        return query.new_zeros(query.shape[0], 0), None  # (R, 0)


class SGMWordAttention(SGMAttention, GradientCheckpointingLayer):
    """Additive attention over the words (Yang et al. 2018, eq. 4-6)."""

    memory_names = ("keys", "values", "mask")

    def __init__(self, config: SGMConfig, encoder: SGMEncoder):
        super().__init__()
        attention_size = cast(int, config.attention_size)  # None only before the configuration is complete
        self.context_size = encoder.output_size
        self.query = nn.Linear(config.decoder_hidden_size, attention_size)  # W_a
        self.key = nn.Linear(encoder.output_size, attention_size, bias=False)  # U_a
        self.energy = nn.Linear(attention_size, 1, bias=False)  # v_a

    def memory(self, encoded: SGMEncoderOutput) -> dict[str, torch.Tensor]:
        """The states h, their mask, and 2 U_a h of shape (B, T', A), for all steps and all rows of a document."""
        states, mask = encoded.last_hidden_state, encoded.mask
        assert states is not None and mask is not None  # of every encoder
        return {"keys": 2 * self.key(states), "values": states, "mask": mask}

    def forward(self, query: torch.Tensor, *memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attends.

        Args:
            query: s_t, (R, H_d).
            *memory: Keys (B, T', A), values (B, T', H) and mask (B, T').

        Returns:
            The context (R, H) and the weights α_t (R, T'), zero on padding; both are zero for a text without words.
        """
        keys, values, mask = memory
        num_documents, is_padding = keys.shape[0], ~mask[:, None]  # (B, 1, T')
        query = 2 * self.query(query)  # (R, A)
        query = query.view(num_documents, query.shape[0] // max(num_documents, 1), 1, keys.shape[2])  # (B, R/B, 1, A)
        # Eq. 4 up to a constant that the softmax takes out: 2 v_a σ(2x) = v_a tanh(x) + Σ v_a. PyTorch's tanh takes
        # six times as long as its sigmoid on a CPU.
        if torch.is_grad_enabled() or keys.device.type != "cpu":
            energy = self.energy(torch.sigmoid(query + keys[:, None])).squeeze(-1)  # (B, R/B, T')
        else:
            energy = energy_in_pieces(query, keys, self.energy)  # (B, R/B, T')
        energy = at_least_float32(2 * energy)  # (B, R/B, T'), eq. 4
        energy = energy.masked_fill(is_padding, torch.finfo(energy.dtype).min)  # (B, R/B, T')
        # Where all is padding, the softmax is even: such a text must not depend on how far it was padded.
        weights = energy.softmax(dim=-1).masked_fill(is_padding, 0.0)  # (B, R/B, T'), eq. 5
        context = torch.bmm(weights.to(values.dtype), values)  # (B, R/B, H), eq. 6
        return context.flatten(0, 1), weights.flatten(0, 1)  # (R, H), (R, T')


class SGMLabelAttention(nn.Module):
    """Attention of the decoder over the label embeddings (Patel, SGM-MLC, "Contextual Attention").

    The paper has no equation: β_t = softmax(E W s_t), and the context is β_t E, of all label embeddings E. It is
    bilinear, since additive attention would take A times the memory of a step's logits.
    """

    def __init__(self, config: SGMConfig):
        super().__init__()
        self.context_size = cast(int, config.label_embedding_size)  # None only before the configuration is complete
        self.query = nn.Linear(config.decoder_hidden_size, self.context_size, bias=False)  # W

    def forward(self, query: torch.Tensor, embeddings: torch.Tensor, is_label: torch.Tensor) -> torch.Tensor:
        """Attends.

        Args:
            query: The decoder state that attention over the text has, (R, H_d).
            embeddings: E, (L, size).
            is_label: False for labels that are not to be seen, (B, L) bool.

        Returns:
            The context, (R, size); zero where no label is to be seen.
        """
        energy = at_least_float32(self.query(query) @ embeddings.mT)  # (R, L)
        energy = energy.view(is_label.shape[0], -1, energy.shape[1]) if len(energy) else energy[None]  # (B, R/B, L)
        is_hidden = ~is_label[:, None]  # (B, 1, L)
        energy = energy.masked_fill(is_hidden, torch.finfo(energy.dtype).min)  # (B, R/B, L)
        weights = energy.softmax(dim=-1).masked_fill(is_hidden, 0.0)  # (B, R/B, L)
        return weights.flatten(0, 1).to(embeddings.dtype) @ embeddings  # (R, size)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """The values in single precision, whose half is too coarse for a softmax; float64 stays what it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


# The kinds of `SGMConfig.attention`.
ATTENTIONS: dict[str, type[SGMAttention]] = {"word": SGMWordAttention, "none": SGMNoAttention}
