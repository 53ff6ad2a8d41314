"""Encoders: from the words of a text to states, their mask, and a summary for the decoder's first state.

To add one, subclass `SGMEncoder`, enter it in `ENCODERS`, and name it in `SGMConfig.encoder`.

Shapes: B documents, T words, T' states (T of them in the recurrent encoder), H state size, S summary size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput

from .configuration_sgm import SGMConfig
from .cpu_sgm import SGMDropout
from .windows_sgm import Windows, make_windows


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


@dataclass
class SGMUnitEncoderOutput(SGMEncoderOutput):
    """Words, and the semantic units around them.

    Args:
        units: The semantic units g, (B, T', H): as many as states, and with their mask.
    """

    units: torch.Tensor | None = None


class SGMEncoder(nn.Module):
    """What model and decoder ask of an encoder, however it is made."""

    main_input_name = "input_ids"
    embed_tokens: nn.Module
    output_size: int  # H
    summary_size: int  # S
    states_are_words = False  # whether state t is that of word t, so that attention falls on words
    makes_units = False  # whether it returns an `SGMUnitEncoderOutput`

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

    @property
    def word_vectors(self) -> torch.Tensor:
        """The word embeddings' weights, (V, E), which say what words mean.

        Raises:
            ValueError: If the encoder does not read words.
        """
        embeddings = self.get_input_embeddings()
        if not isinstance(embeddings, nn.Embedding):  # of images, these are maps of patches
            raise ValueError("The encoder has no vectors of words to compare texts with; give vectors of the texts.")
        return embeddings.weight  # (V, E)

    def output(self, states: torch.Tensor, mask: torch.Tensor) -> SGMEncoderOutput:
        """Completes states (B, T', H) with mask (B, T') that a caller gives without the rest of the output.

        Raises:
            ValueError: If the states alone do not say what else the encoder returns.
        """
        raise ValueError(
            f"encoder_outputs has states only, but {type(self).__name__} returns more; give what the encoder returned."
        )


def first_words(inputs: dict[str, Any], longest: int | None) -> dict[str, Any]:
    """Cuts what has an entry for each word, (B, T, ...), after `longest` words; None leaves it whole."""
    if longest is None:
        return inputs
    names = {"input_ids", "attention_mask", "inputs_embeds", "token_type_ids"}
    return {
        name: value[:, :longest] if name in names and value is not None else value for name, value in inputs.items()
    }


def word_mask(
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    pad_token_id: int | None,
) -> torch.Tensor:
    """Which places of padded texts hold words.

    Args:
        input_ids: Word ids, (B, T) int64.
        attention_mask: 1 for words, 0 for padding, (B, T); by default, what is not the padding word.
        inputs_embeds: In place of `input_ids`, (B, T, ...).
        pad_token_id: The padding word; without one, and of embeddings, all are words by default.

    Returns:
        (B, T) bool.

    Raises:
        ValueError: If neither or both of `input_ids` and `inputs_embeds` are given, or padding is on the left.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("Give the encoder either input_ids or inputs_embeds, not both and not neither.")
    words = cast(torch.Tensor, inputs_embeds if input_ids is None else input_ids)  # (B, T, ...)
    if attention_mask is not None:
        mask = attention_mask.bool()  # (B, T)
    elif input_ids is not None and pad_token_id is not None:
        mask = input_ids.ne(pad_token_id)  # (B, T)
    else:
        mask = words.new_ones(words.shape[:2], dtype=torch.bool)  # (B, T)
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("The attention mask must have its padding on the right: tokenizer.padding_side='right'.")
    return mask


class SGMLSTMLayer(GradientCheckpointingLayer):
    """One LSTM layer over padded texts, in both directions (Yang et al. 2018, eq. 2-3) or forward alone.

    The backward direction runs forward over each text reversed within its own length, so padding comes last for it as
    well and never changes a result. This equals a packed `nn.LSTM` and runs many times faster on a CPU.
    """

    kind = "lstm"  # a part of the names of the weights
    rnn_class: type[nn.LSTM] | type[nn.GRU] = nn.LSTM

    def __init__(self, input_size: int, output_size: int, is_bidirectional: bool):
        super().__init__()
        self.output_size, self.is_bidirectional = output_size, is_bidirectional
        directions = ("forward", "backward") if is_bidirectional else ("forward",)
        for direction in directions:
            rnn = self.rnn_class(input_size, output_size // len(directions), batch_first=True)
            self.add_module(f"{direction}_{self.kind}", rnn)

    def forward(self, inputs: torch.Tensor, reversal: torch.Tensor) -> torch.Tensor:
        """Runs its directions.

        Args:
            inputs: Padded on the right, (B, T, input_size).
            reversal: Result of [`reversal_index`], (B * T).

        Returns:
            Forward states, then backward states if there are, (B, T, H); those of padding have no meaning.
        """
        if inputs.numel() == 0:  # no text, or texts without a word, which nn.LSTM refuses
            return inputs.new_zeros(*inputs.shape[:2], self.output_size)  # (B, T, H)
        ahead, _ = getattr(self, f"forward_{self.kind}")(inputs)  # (B, T, H / 2), or (B, T, H)
        if not self.is_bidirectional:
            return ahead
        behind, _ = getattr(self, f"backward_{self.kind}")(reorder_words(inputs, reversal))  # (B, T, H / 2)
        return torch.cat([ahead, reorder_words(behind, reversal)], dim=-1)  # (B, T, H)


class SGMGRULayer(SGMLSTMLayer):
    """The same of gated recurrent units (Cho et al. 2014, "Learning Phrase Representations", §2.3)."""

    kind = "gru"
    rnn_class = nn.GRU


# The kinds of `SGMConfig.encoder_cell`.
LAYERS: dict[str, type[SGMLSTMLayer]] = {"lstm": SGMLSTMLayer, "gru": SGMGRULayer}


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
    """Word embeddings and a bidirectional LSTM (Yang et al. 2018, eq. 2-3) or GRU, or one that runs forward alone."""

    states_are_words = True

    def __init__(self, config: SGMConfig):
        super().__init__()
        self.output_size = self.summary_size = 2 * config.encoder_hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        sizes = [config.embedding_size] + [self.output_size] * (config.encoder_layers - 1)
        self.is_bidirectional = config.encoder_bidirectional
        layer_class = LAYERS[config.encoder_cell]
        self.layers = nn.ModuleList(layer_class(size, self.output_size, self.is_bidirectional) for size in sizes)
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
        pad_token_id = cast(int, self.embed_tokens.padding_idx)
        mask = word_mask(input_ids, attention_mask, inputs_embeds, pad_token_id)  # (B, T)
        states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds  # (B, T, embedding_size)
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
        summary = final_states(states, mask, self.is_bidirectional)  # (B, H)
        return SGMEncoderOutput(last_hidden_state=states, mask=mask, summary=summary)


def final_states(states: torch.Tensor, mask: torch.Tensor, is_bidirectional: bool = True) -> torch.Tensor:
    """The forward state at each text's last word beside the backward state at its first.

    Args:
        states: Forward half, then backward half, (B, T, H).
        mask: True for words, (B, T) bool.
        is_bidirectional: Whether there is a backward half; if not, all of a state is forward.

    Returns:
        (B, H); zero for a text without words.
    """
    num_documents, num_words, size = states.shape
    if num_words == 0:
        return states.new_zeros(num_documents, size)  # (B, H)
    half = size // 2 if is_bidirectional else size
    num_own = mask.sum(dim=1)  # (B)
    rows = torch.arange(num_documents, device=states.device)  # (B)
    last = states[rows, (num_own - 1).clamp(min=0), :half]  # (B, half)
    final = torch.cat([last, states[:, 0, half:]], dim=-1)  # (B, H)
    return final.masked_fill(num_own[:, None] == 0, 0.0)  # (B, H)


class SGMPretrainedEncoder(SGMEncoder):
    """Any encoder of Transformers with its own words, or of images with its own patches.

    Of a model with encoder and decoder, such as T5, it is the encoder. A text longer than the encoder reads is read in
    overlapping windows (`windows_sgm.py`). The summary is the mean of the states.
    """

    def __init__(self, config: SGMConfig):
        super().__init__()
        self.config = cast(PreTrainedConfig, config.encoder_config)
        dtype = torch.get_default_dtype()  # not what encoder_config says of the weights it was saved with
        self.model = encoder_of(AutoModel.from_config(self.config, dtype=dtype))
        self.main_input_name = self.model.main_input_name
        self.states_are_words = self.main_input_name == "input_ids"
        self.output_size = self.summary_size = self.config.hidden_size
        self.pad_token_id = config.pad_token_id
        self.num_around = config.encoder_special_tokens or [0, 0]
        self.window, self.overlap = window_size(config, position_limit(self.model))

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's embeddings of words, or of patches."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the embeddings by `value`, and says so in the encoder's configuration."""
        self.model.set_input_embeddings(value)
        self.config.vocab_size = len(cast(torch.Tensor, value.weight))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> SGMEncoderOutput:
        """Encodes texts, or images.

        Args:
            input_ids: Token ids, padded on the right, (B, T) int64.
            attention_mask: 1 for tokens, 0 for padding, (B, T); by default, what is not the padding token.
            inputs_embeds: In place of `input_ids`, (B, T, embedding size).
            pixel_values: Of an encoder of images, (B, channels, height, width).
            token_type_ids: Of an encoder that knows such, (B, T) int64.
            output_hidden_states: Whether to return the output of each layer.
            **kwargs: Passed to the encoder, if it takes them.

        Returns:
            States (B, T', H) of the tokens, T' = T, or of the patches of images.

        Raises:
            ValueError: If neither or both of `input_ids` and `inputs_embeds` are given, or padding is on the left; if
                an encoder of images gets no `pixel_values`, or another one gets some.
        """
        options = {"output_hidden_states": bool(output_hidden_states), **kwargs}
        if (pixel_values is None) == (self.main_input_name == "pixel_values"):
            raise ValueError(
                f"The encoder, of type {self.config.model_type!r}, reads {self.main_input_name}; give it these."
            )
        if pixel_values is not None:
            output = self.run_model(pixel_values=pixel_values.to(self.model.dtype), **options)
            states = output.last_hidden_state  # (B, T', H)
            mask = states.new_ones(states.shape[:2], dtype=torch.bool)  # (B, T')
            return self.output(states, mask, output.hidden_states)
        mask = word_mask(input_ids, attention_mask, inputs_embeds, self.pad_token_id)  # (B, T)
        if mask.numel() == 0:  # no text, or texts without a token
            dtype, device = self.model.dtype, mask.device
            return self.output(torch.zeros(*mask.shape, self.output_size, dtype=dtype, device=device), mask)
        texts = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "token_type_ids": token_type_ids}
        windows = self.windows_of(mask)
        if windows is not None:
            texts = {name: value if value is None else windows.cut(value) for name, value in texts.items()}
        read = mask if windows is None else windows.mask  # (N, W)
        # A text without a token reads its first padding, so that no softmax is empty; nothing looks at its state.
        read = read | (torch.arange(read.shape[1], device=read.device) == 0)  # (N, W)
        if windows is not None and input_ids is not None and self.pad_token_id is not None:
            pieces = cast(torch.Tensor, texts["input_ids"])  # (N, W)
            texts["input_ids"] = pieces.masked_fill(~read, self.pad_token_id)  # (N, W)
        output = self.run_model(attention_mask=read.long(), **texts, **options)
        layers = output.hidden_states
        if windows is None:
            return self.output(output.last_hidden_state, mask, layers)
        merged = None if layers is None else tuple(map(windows.merge, layers))  # (B, T, H) each
        return self.output(windows.merge(output.last_hidden_state), mask, merged)

    def run_model(self, **inputs: Any) -> BaseModelOutput:
        """Runs the encoder on what it takes of some inputs."""
        known = signature(self.model.forward).parameters
        takes_any = "kwargs" in known
        ours = {"output_hidden_states"} if takes_any else set()
        given = {name: value for name, value in inputs.items() if value is not None and name in {*known, *ours}}
        return self.model(**given, return_dict=True) if takes_any or "return_dict" in known else self.model(**given)

    def windows_of(self, mask: torch.Tensor) -> Windows | None:
        """The windows of texts with mask (B, T); None where each fits into one."""
        if self.window is None or mask.shape[1] <= self.window:
            return None
        return make_windows(mask.sum(dim=1), mask.shape[1], self.window, self.overlap, *self.num_around)

    def output(
        self, states: torch.Tensor, mask: torch.Tensor, hidden_states: tuple[torch.Tensor, ...] | None = None
    ) -> SGMEncoderOutput:
        """Completes states (B, T', H) with mask (B, T')."""
        total = (states * mask[..., None]).sum(dim=1)  # (B, H)
        summary = total / mask.sum(dim=1, keepdim=True).clamp(min=1)  # (B, H)
        return SGMEncoderOutput(
            last_hidden_state=states, mask=mask, summary=summary.to(states.dtype), hidden_states=hidden_states
        )


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """A model without the parts that nothing here looks at: its decoder, and the pooler over its first token."""
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    if getattr(encoder, "pooler", None) is not None and "add_pooling_layer" in signature(type(model)).parameters:
        encoder.pooler = None
    return encoder


def position_limit(model: PreTrainedModel) -> int | None:
    """The most tokens that an encoder has positions for; None where they are relative."""
    limit = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        # RoBERTa counts positions from behind that of padding.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit = module.num_embeddings - module.padding_idx - 1
    return limit


def window_size(config: SGMConfig, limit: int | None) -> tuple[int | None, int]:
    """The tokens of a window, None where a text is read whole, and how many of them two neighbours have in common.

    Args:
        config: Of the model.
        limit: The most tokens that the encoder has positions for.

    Raises:
        ValueError: If the encoder does not read as many, or nothing new is left to a window.
    """
    window = limit if config.encoder_window is None else config.encoder_window
    if window is None:
        return None, 0
    if limit is not None and window > limit:
        raise ValueError(
            f"encoder_window is {window}, but the encoder has positions for {limit} tokens; give no more."
        )
    overlap = window // 4 if config.encoder_overlap is None else config.encoder_overlap
    room = window - sum(config.encoder_special_tokens or ())
    if overlap >= room:
        raise ValueError(
            f"encoder_overlap is {overlap}, but a window of {window} tokens has room for {room} of the text; give a "
            "smaller overlap, or a larger encoder_window."
        )
    return window, overlap


class SGMSelfAttention(GradientCheckpointingLayer):
    """Attention of the states of a text to each other, added to them (Vaswani et al. 2017, eq. 1, with one head).

    Args:
        size: H.
    """

    def __init__(self, size: int):
        super().__init__()
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size, bias=False)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What each state h_i gathers: Σ_j softmax_j(q_i k_j / √H) v_j.

        Args:
            states: h, (B, T', H).
            mask: Which of them exist, (B, T') bool.

        Returns:
            (B, T', H); rows of padding have no meaning.
        """
        if states.numel() == 0:
            return states  # (B, T', H)
        # Where none exists, all are seen: a softmax over nothing is NaN, and what it gives is read by nobody.
        is_seen = mask | ~mask.any(dim=1, keepdim=True)  # (B, T')
        query, key, value = (layer(states)[:, None] for layer in (self.query, self.key, self.value))  # (B, 1, T', H)
        gathered = F.scaled_dot_product_attention(query, key, value, is_seen[:, None, None])  # (B, 1, T', H)
        return gathered.squeeze(1)  # (B, T', H)


class SGMSelfAttentiveEncoder(SGMRecurrentEncoder):
    """The recurrent encoder, whose states then attend to each other (Patel, SGM-MLC, "Attention Mechanisms")."""

    def __init__(self, config: SGMConfig):
        super().__init__(config)
        self.self_attention = SGMSelfAttention(self.output_size)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> SGMEncoderOutput:
        """Encodes texts, as [`~SGMRecurrentEncoder.forward`]."""
        encoded = super().forward(input_ids, attention_mask, inputs_embeds, output_hidden_states, **kwargs)
        states, mask = encoded.last_hidden_state, encoded.mask  # (B, T, H), (B, T)
        assert states is not None and mask is not None  # of every encoder
        output = self.output(states + self.self_attention(self.dropout(states), mask), mask)
        if encoded.hidden_states is not None:
            output.hidden_states = (*encoded.hidden_states, output.last_hidden_state)
        return output


class SGMDilatedConvolution(GradientCheckpointingLayer):
    """From states to semantic units: levels of dilated convolution, no pooling, no strides (Lin et al. 2018, §4.1).

    The paper has no padding, and so fewer units than words, and none in a text shorter than the receptive field. Here
    each level reads zeros beyond both ends of a text, and there is a unit for each state. The paper names no
    activation; SELU is that of the authors' code.
    """

    def __init__(self, size: int, kernel_size: int, dilations: Sequence[int]):
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv1d(size, size, kernel_size, dilation=dilation) for dilation in dilations)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Convolves states (B, T', H) with mask (B, T').

        Returns:
            Units, (B, T', H); those of padding have no meaning.
        """
        if states.numel() == 0:  # no text, or texts without a word, which nn.Conv1d refuses
            return states
        units, is_padding = states.mT, ~mask[:, None]  # (B, H, T'), (B, 1, T')
        for level in cast(Sequence[nn.Conv1d], self.levels):
            # Before every level: the bias of the one below has made something of padding.
            units = units.masked_fill(is_padding, 0.0)  # (B, H, T')
            reach = level.dilation[0] * (level.kernel_size[0] - 1)
            units = F.pad(units, (reach // 2, reach - reach // 2))  # (B, H, T' + reach)
            units = F.selu(level(units))  # (B, H, T')
        return units.mT  # (B, T', H)


class SGMUnitEncoder(SGMRecurrentEncoder):
    """The recurrent encoder, and semantic units made of its states (Lin et al. 2018, "Semantic-Unit-Based Dilated
    Convolution for Multi-Label Text Classification", §4.1)."""

    makes_units = True

    def __init__(self, config: SGMConfig):
        super().__init__(config)
        dilations = cast(list[int], config.unit_dilations)  # None only before the configuration is complete
        self.convolution = SGMDilatedConvolution(self.output_size, config.unit_kernel_size, dilations)

    def output(self, states: torch.Tensor, mask: torch.Tensor) -> SGMUnitEncoderOutput:
        """Completes the states of words (B, T, H) with mask (B, T)."""
        words = super().output(states, mask)
        return SGMUnitEncoderOutput(**words, units=self.convolution(states, mask))  # (B, T, H)


class SGMHierarchicalEncoder(SGMEncoder):
    """Hier-N: a second LSTM over the states of the words at which sentences end (Lin et al. 2018, §6.3).

    Sentences end after every `sentence_length` words, or at the words of `sentence_end_ids`, and where the text ends.
    """

    def __init__(self, config: SGMConfig):
        super().__init__()
        self.words = SGMRecurrentEncoder(config)
        self.output_size = self.summary_size = self.words.output_size
        self.sentences = nn.LSTM(self.output_size, self.output_size, batch_first=True)
        self.dropout = SGMDropout(config.dropout)
        self.sentence_length = config.sentence_length
        self.sentence_end_ids = config.sentence_end_ids

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.words.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings by `value`."""
        self.words.set_input_embeddings(value)

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
            output_hidden_states: Whether to return the embeddings, the output of each layer, and the states.
            **kwargs: Not used: what `generate()` passes to any encoder.

        Returns:
            States (B, T', H) of the T' sentences; the summary is the last sentence's state.

        Raises:
            ValueError: If sentences end at certain words and `inputs_embeds` is given in their place, and as of the
                recurrent encoder.
        """
        words = self.words(input_ids, attention_mask, inputs_embeds, output_hidden_states)
        is_end = self._is_end(input_ids, words.mask)  # (B, T)
        states, mask = select_states(words.last_hidden_state, is_end)  # (B, T', H), (B, T')
        if states.numel():  # nn.LSTM refuses texts without a word
            states, _ = self.sentences(self.dropout(states))  # (B, T', H)
        output = self.output(states, mask)
        if words.hidden_states is not None:
            output.hidden_states = (*words.hidden_states, states)
        return output

    def _is_end(self, input_ids: torch.Tensor | None, mask: torch.Tensor) -> torch.Tensor:
        """Which words end a sentence, (B, T), of those that exist (B, T)."""
        place = torch.arange(mask.shape[1], device=mask.device)  # (T)
        if self.sentence_end_ids is None:
            is_end = (place + 1) % self.sentence_length == 0  # (T)
        elif input_ids is None:
            raise ValueError(
                "Sentences end at certain words (config.sentence_end_ids), which inputs_embeds does not tell; give "
                "input_ids, or set sentence_end_ids to None."
            )
        else:
            is_end = torch.isin(input_ids, torch.tensor(self.sentence_end_ids, device=mask.device))  # (B, T)
        return mask & (is_end | (place == mask.sum(dim=1, keepdim=True) - 1))  # (B, T)

    def output(self, states: torch.Tensor, mask: torch.Tensor) -> SGMEncoderOutput:
        """Completes the states of sentences (B, T', H) with mask (B, T')."""
        # All of a state is of the forward direction: the last one has read all sentences.
        is_last = torch.arange(mask.shape[1], device=mask.device) == mask.sum(dim=1, keepdim=True) - 1  # (B, T')
        summary = (states * is_last[..., None]).sum(dim=1)  # (B, H), zero for a text without words
        return SGMEncoderOutput(last_hidden_state=states, mask=mask, summary=summary)


def select_states(states: torch.Tensor, is_selected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes some states of each text, in their order.

    Args:
        states: (B, T, H).
        is_selected: Which of them, (B, T) bool.

    Returns:
        The states, (B, T', H), and which of them exist, (B, T') bool; T' is the number of those of the fullest text.
    """
    num_selected = is_selected.sum(dim=1)  # (B)
    most = int(num_selected.max()) if num_selected.numel() else 0  # T'
    index = (~is_selected).long().argsort(dim=1, stable=True)[:, :most]  # (B, T')
    chosen = states.gather(1, index[..., None].expand(-1, -1, states.shape[2]))  # (B, T', H)
    return chosen, torch.arange(most, device=states.device) < num_selected[:, None]  # (B, T', H), (B, T')


# The kinds of `SGMConfig.encoder`.
ENCODERS: dict[str, type[SGMEncoder]] = {
    "recurrent": SGMRecurrentEncoder,
    "self_attentive": SGMSelfAttentiveEncoder,
    "semantic_units": SGMUnitEncoder,
    "hierarchical": SGMHierarchicalEncoder,
    "pretrained": SGMPretrainedEncoder,
}
