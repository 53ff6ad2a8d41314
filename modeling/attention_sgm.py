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
from .encoders_sgm import SGMEncoder, SGMEncoderOutput, SGMUnitEncoderOutput


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
        num_documents = keys.shape[0]
        query = 2 * self.query(query)  # (R, A)
        query = query.view(num_documents, query.shape[0] // max(num_documents, 1), 1, keys.shape[2])  # (B, R/B, 1, A)
        # Eq. 4 up to a constant that the softmax takes out: 2 v_a σ(2x) = v_a tanh(x) + Σ v_a. PyTorch's tanh takes
        # six times as long as its sigmoid on a CPU.
        if torch.is_grad_enabled() or keys.device.type != "cpu":
            energy = self.energy(torch.sigmoid(query + keys[:, None])).squeeze(-1)  # (B, R/B, T')
        else:
            energy = energy_in_pieces(query, keys, self.energy)  # (B, R/B, T')
        return gather(2 * energy, values, mask)  # (R, H), (R, T'), eq. 4-6


class SGMBilinearAttention(SGMAttention):
    """Bilinear attention over the words (Lin et al. 2018, eq. 4-6), which is queried by s_{t-1} there: that is
    `SGMConfig.context_input="current"`."""

    memory_names = ("keys", "values", "mask")

    def __init__(self, config: SGMConfig, encoder: SGMEncoder):
        super().__init__()
        self.context_size = encoder.output_size
        self.key = nn.Linear(encoder.output_size, config.decoder_hidden_size, bias=False)  # W_a

    def memory(self, encoded: SGMEncoderOutput) -> dict[str, torch.Tensor]:
        """The states h, their mask, and W_a h of shape (B, T', H_d)."""
        states, mask = encoded.last_hidden_state, encoded.mask
        assert states is not None and mask is not None  # of every encoder
        return {"keys": self.key(states), "values": states, "mask": mask}

    def forward(self, query: torch.Tensor, *memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attends.

        Args:
            query: A decoder state, (R, H_d).
            *memory: Keys (B, T', H_d), values (B, T', H) and mask (B, T').

        Returns:
            The context (R, H) and the weights (R, T'), zero on padding; both are zero for a text without words.
        """
        return attend_bilinearly(query, *memory)  # (R, H), (R, T')


class SGMUnitAttention(SGMBilinearAttention):
    """Bilinear attention over the semantic units alone: "MDC" (Lin et al. 2018, §4.2 and Table 4)."""

    over_states = False

    def __init__(self, config: SGMConfig, encoder: SGMEncoder):
        super().__init__(config, encoder)
        check_units(config, encoder)

    def memory(self, encoded: SGMEncoderOutput) -> dict[str, torch.Tensor]:
        """The units g, their mask, and W_a g of shape (B, T', H_d)."""
        units, mask = units_of(encoded), encoded.mask  # (B, T', H), (B, T')
        assert mask is not None  # of every encoder
        return {"keys": self.key(units), "values": units, "mask": mask}


class SGMTwoLevelAttention(SGMAttention):
    """What attention over semantic units and words has of both.

    Args:
        config: The configuration.
        encoder: Of the model.
        word_query_size: Size of what queries the words; a decoder state queries the units.
    """

    memory_names = ("unit_keys", "units", "word_keys", "words", "mask")

    def __init__(self, config: SGMConfig, encoder: SGMEncoder, word_query_size: int):
        super().__init__()
        check_units(config, encoder)
        self.context_size = encoder.output_size
        self.unit_key = nn.Linear(encoder.output_size, config.decoder_hidden_size, bias=False)  # W_a, of units
        self.word_key = nn.Linear(encoder.output_size, word_query_size, bias=False)  # W_a, of words

    def memory(self, encoded: SGMEncoderOutput) -> dict[str, torch.Tensor]:
        """Units g and words h, (B, T', H), their mask, and W_a g and W_a h."""
        words, mask, units = encoded.last_hidden_state, encoded.mask, units_of(encoded)
        assert words is not None and mask is not None  # of every encoder
        keys = {"unit_keys": self.unit_key(units), "word_keys": self.word_key(words)}
        return {**keys, "units": units, "words": words, "mask": mask}


class SGMAdditiveAttention(SGMTwoLevelAttention):
    """The sum of a context over the semantic units and one over the words (Lin et al. 2018, §4.2)."""

    def __init__(self, config: SGMConfig, encoder: SGMEncoder):
        super().__init__(config, encoder, word_query_size=config.decoder_hidden_size)

    def forward(self, query: torch.Tensor, *memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attends to both levels.

        Args:
            query: A decoder state, (R, H_d).
            *memory: Keys (B, T', H_d) and units (B, T', H), keys (B, T', H_d) and words (B, T', H), mask (B, T').

        Returns:
            The context (R, H) and the weights of the words (R, T').
        """
        unit_keys, units, word_keys, words, mask = memory
        of_units, _ = attend_bilinearly(query, unit_keys, units, mask)  # (R, H), s'_t
        of_words, weights = attend_bilinearly(query, word_keys, words, mask)  # (R, H), (R, T'), s̃_t
        return of_units + of_words, weights  # (R, H), (R, T')


class SGMHybridAttention(SGMTwoLevelAttention):
    """Semantic units first, then words, queried by what was found there (Lin et al. 2018, §4.2, eq. 7).

    The paper says that s'_t has the information of the decoder and of the units, not how: here it is a linear layer
    over both, and tanh. ⊕ of eq. 7 is a sum of elements, as in the authors' code and as in the additive attention.
    """

    def __init__(self, config: SGMConfig, encoder: SGMEncoder):
        super().__init__(config, encoder, word_query_size=encoder.output_size)
        self.combine = nn.Linear(config.decoder_hidden_size + encoder.output_size, encoder.output_size)

    def forward(self, query: torch.Tensor, *memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attends in two hops.

        Args:
            query: A decoder state, (R, H_d).
            *memory: Keys (B, T', H_d) and units (B, T', H), keys (B, T', H) and words (B, T', H), mask (B, T').

        Returns:
            o_t = s'_t ⊕ s̃_t (R, H) and the weights of the words (R, T').
        """
        unit_keys, units, word_keys, words, mask = memory
        of_units, _ = attend_bilinearly(query, unit_keys, units, mask)  # (R, H)
        guided = torch.tanh(self.combine(torch.cat([query, of_units], dim=-1)))  # (R, H), s'_t
        of_words, weights = attend_bilinearly(guided, word_keys, words, mask)  # (R, H), (R, T'), s̃_t
        return guided + of_words, weights  # (R, H), (R, T'), eq. 7


def attend_bilinearly(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention by products with keys (Lin et al. 2018, eq. 4-6).

    Args:
        query: (R, A).
        keys: W_a h, (B, T', A).
        values: h, (B, T', H).
        mask: Which of them exist, (B, T').

    Returns:
        The context (R, H) and the weights (R, T').
    """
    num_documents = keys.shape[0]
    query = query.view(num_documents, query.shape[0] // max(num_documents, 1), keys.shape[2])  # (B, R/B, A)
    return gather(torch.bmm(query, keys.mT), values, mask)  # (R, H), (R, T'), eq. 6


def gather(energy: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the values by the softmax of their energies (Yang et al. 2018, eq. 5-6).

    Args:
        energy: (B, R/B, T').
        values: (B, T', H).
        mask: Which of them exist, (B, T').

    Returns:
        The context (R, H) and the weights (R, T'), zero on padding; both are zero for a text without words.
    """
    energy, is_padding = at_least_float32(energy), ~mask[:, None]  # (B, R/B, T'), (B, 1, T')
    energy = energy.masked_fill(is_padding, torch.finfo(energy.dtype).min)  # (B, R/B, T')
    # Where all is padding, the softmax is even: such a text must not depend on how far it was padded.
    weights = energy.softmax(dim=-1).masked_fill(is_padding, 0.0)  # (B, R/B, T'), eq. 5
    context = torch.bmm(weights.to(values.dtype), values)  # (B, R/B, H), eq. 6
    return context.flatten(0, 1), weights.flatten(0, 1)  # (R, H), (R, T')


def units_of(encoded: SGMEncoderOutput) -> torch.Tensor:
    """The semantic units (B, T', H) of what an encoder that makes units has returned."""
    assert isinstance(encoded, SGMUnitEncoderOutput) and encoded.units is not None  # `check_units`
    return encoded.units


def check_units(config: SGMConfig, encoder: SGMEncoder) -> None:
    """Refuses (ValueError) an encoder without semantic units."""
    if not encoder.makes_units:
        raise ValueError(
            f"attention={config.attention!r} looks at semantic units, which encoder={config.encoder!r} does not make; "
            "set encoder to 'semantic_units', or attention to one over words."
        )


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
ATTENTIONS: dict[str, type[SGMAttention]] = {
    "word": SGMWordAttention,
    "bilinear": SGMBilinearAttention,
    "semantic": SGMUnitAttention,
    "additive": SGMAdditiveAttention,
    "hybrid": SGMHybridAttention,
    "none": SGMNoAttention,
}
