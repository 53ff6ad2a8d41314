"""
The SGM family: a text encoder, an attention decoder that generates labels, and the model around them.

Read it from top to bottom, in the order of the data:

1. `SGMEncoder` turns words into states h (Yang et al. 2018, eq. 2-3).
2. `SGMAttention` gathers the states into a context vector c_t (eq. 4-6).
3. `SGMLabelFeedback` is g(y_{t-1}): what the decoder is told about the label before (eq. 7, 11-14).
4. `SGMDecoder` makes one step s_t, y_t after the other (eq. 7-10); `SGMDecoderState` is its memory between steps.
5. `SGMForMultiLabelGeneration` computes the loss; its `generate()` is in `generation_sgm.py`.

Shapes: B documents, T words, L labels, n decoder steps, R decoder rows (B times the number of beams or samples),
H_e encoder state size (both directions), H_d decoder size, A attention size, E label embedding size.
"""

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import Cache, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .configuration_sgm import SGMConfig
from .generation_sgm import SGMGenerationMixin, default_generation_config
from .loading_sgm import check_hashes, check_names, check_shapes, check_values, refuse_pickles, unusable_weights

if TYPE_CHECKING:
    # Nothing here uses them. Transformers saves with a checkpoint, and fetches with it, the files that this one names.
    from .handler import EndpointHandler  # noqa: F401
    from .pipeline_sgm import MultiLabelGenerationPipeline  # noqa: F401

# Elements of attention that are worked on at a time on a CPU: what a core's cache holds.
PIECE_SIZE = 2**18


class SGMPreTrainedModel(PreTrainedModel):
    """Base class: weight initialisation and loading."""

    config: SGMConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _is_stateful = True

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args: Any,
        use_safetensors: bool | None = True,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """
        Loads a checkpoint from a folder or from the Hub; weights in safetensors only.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Folder, or name of a repository.
            *model_args, **kwargs: As of every Transformers model (`revision`, `dtype`, `device_map`, `token`, ...).
            use_safetensors (`bool`, *optional*, defaults to `True`): There is no other choice: a pickle
                (`pytorch_model.bin`) may run code when it is read.
            ignore_mismatched_sizes (`bool`, *optional*, defaults to `False`): Whether weights that cannot be used are
                made anew, not refused: those that are missing, have another shape than the configuration says, are not
                of a floating-point type, or hold NaN or inf.
            output_loading_info (`bool`, *optional*, defaults to `False`): Whether to return the names of the weights
                that were missing, unexpected or of another shape; missing and unexpected ones are then not refused.

        Returns:
            [`SGMPreTrainedModel`]: The model in evaluation mode; with `output_loading_info` a tuple with that.

        Raises:
            RuntimeError: When weights have another shape than the configuration says.
            ValueError: When weights in pickle format are asked for; when weights are missing, not expected, not of a
                floating-point type, or not finite.
            OSError: When there is no such checkpoint, or its weights are damaged or not in safetensors.
        """
        refuse_pickles(use_safetensors)
        try:
            model, loading_info = super().from_pretrained(
                pretrained_model_name_or_path,
                *model_args,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # check_shapes names them
                output_loading_info=True,
                **kwargs,
            )
        except SafetensorError as error:
            raise OSError(
                f"The weights of {pretrained_model_name_or_path} are damaged, or not in safetensors format: {error}. "
                "Fetch them again (force_download=True), or take model.safetensors as it was saved."
            ) from error
        faults = model.__dict__.pop("_unusable_weights", {})
        if not ignore_mismatched_sizes:
            check_values(pretrained_model_name_or_path, faults)
            check_shapes(pretrained_model_name_or_path, loading_info["mismatched_keys"])
        # Where there is no checkpoint, the weights are the caller's own state_dict, of which the rest is made anew.
        if pretrained_model_name_or_path is not None and not (ignore_mismatched_sizes or output_loading_info):
            check_names(pretrained_model_name_or_path, loading_info["missing_keys"], loading_info["unexpected_keys"])
        model.rename_set_decoding()
        return (model, loading_info) if output_loading_info else model

    @staticmethod
    def _load_pretrained_model(
        model: "SGMPreTrainedModel",
        state_dict: dict[str, torch.Tensor] | None,
        checkpoint_files: list[str] | None,
        load_config: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Checks the files before Transformers reads them, and withholds from it the weights that cannot be used."""
        if state_dict is None and checkpoint_files is not None:
            check_hashes(load_config.pretrained_model_name_or_path, checkpoint_files)
            faults = unusable_weights(checkpoint_files, model.state_dict().keys())
            if faults:
                model._unusable_weights = faults  # for from_pretrained, which refuses them unless told otherwise
                state_dict = {name: value for file in checkpoint_files for name, value in load_file(file).items()}
                state_dict = {name: value for name, value in state_dict.items() if name not in faults}
        return PreTrainedModel._load_pretrained_model(
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Xavier for linear maps, orthogonal recurrences with an open forget gate, small normal embeddings."""
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.LSTM | nn.LSTMCell):
            for name, parameter in module.named_parameters():
                if name.startswith("weight_ih"):
                    init.xavier_uniform_(parameter)
                elif name.startswith("weight_hh"):
                    init.orthogonal_(parameter)
                elif not getattr(parameter, "_is_hf_initialized", False):
                    init.zeros_(parameter)
                    if name.startswith("bias_ih"):
                        hidden_size = parameter.shape[0] // 4
                        parameter[hidden_size : 2 * hidden_size] = 1.0  # forget gate


class SGMBidirectionalLSTM(GradientCheckpointingLayer):
    """
    One bidirectional LSTM layer over padded texts (eq. 2-3).

    The backward direction runs forward over each text reversed within its own length, so padding comes last for it too
    and never changes a result. This equals a packed `nn.LSTM` and runs many times faster on a CPU.

    Args:
        input_size (`int`): Size of the inputs.
        hidden_size (`int`): Size of one direction.
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.forward_lstm = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.backward_lstm = nn.LSTM(input_size, hidden_size, batch_first=True)

    def forward(self, inputs: torch.Tensor, reversal: torch.Tensor) -> torch.Tensor:
        """
        Args:
            inputs (`torch.Tensor` of shape `(B, T, input_size)`): Padded on the right.
            reversal (`torch.LongTensor` of shape `(B * T,)`): Result of [`reversal_index`].

        Returns:
            `torch.Tensor` of shape `(B, T, 2 * hidden_size)`: Forward and backward states of each word; positions of
            padding hold values without meaning.
        """
        if inputs.numel() == 0:  # no text, or texts without a word, which nn.LSTM refuses
            return inputs.new_zeros(*inputs.shape[:2], 2 * self.forward_lstm.hidden_size)  # (B, T, 2 * hidden_size)
        ahead, _ = self.forward_lstm(inputs)  # (B, T, hidden_size)
        behind, _ = self.backward_lstm(reorder_words(inputs, reversal))  # (B, T, hidden_size)
        return torch.cat([ahead, reorder_words(behind, reversal)], dim=-1)  # (B, T, 2 * hidden_size)


def reversal_index(lengths: torch.Tensor, num_words: int) -> torch.Tensor:
    """
    The permutation of all positions of a batch that reverses each text within its own length; its own inverse.

    Args:
        lengths (`torch.LongTensor` of shape `(B,)`): Number of words of each text.
        num_words (`int`): T, the padded length.

    Returns:
        `torch.LongTensor` of shape `(B * T,)`: Indices into the flattened `(B * T)` positions; padding stays in place.
    """
    position = torch.arange(num_words, device=lengths.device)  # (T)
    mirrored = lengths[:, None] - 1 - position  # (B, T)
    within = torch.where(mirrored >= 0, mirrored, position)  # (B, T)
    first = torch.arange(lengths.shape[0], device=lengths.device)[:, None] * num_words  # (B, 1)
    return (within + first).flatten()  # (B * T)


def reorder_words(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Takes the `(B, T, size)` states in the order of a flat `(B * T,)` index; returns `(B, T, size)`."""
    return states.flatten(0, 1).index_select(0, index).view_as(states)


class SGMDropout(nn.Dropout):
    """
    `nn.Dropout` that draws sixteen random bits an element on a CPU, where PyTorch's own draw takes four times as long.

    The probability is rounded to a multiple of 2⁻¹⁶, and what is kept is scaled by the rounded one.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Drops elements of a tensor of any shape in training; returns it as it is otherwise."""
        dropped = round(self.p * 2**16)
        if not self.training or input.device.type != "cpu" or not 0 < dropped < 2**16:
            return super().forward(input)
        bits = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = bits.view(torch.int16)[: input.numel()].view(input.shape) >= dropped - 2**15
        # As numbers of eight bits: PyTorch multiplies by these several times faster than by truth values.
        return (input * kept.view(torch.int8)).mul_(2**16 / (2**16 - dropped))


def word_mask(
    attention_mask: torch.Tensor | None, input_ids: torch.Tensor | None, states: torch.Tensor, pad_token_id: int
) -> torch.Tensor:
    """
    Which positions are words: as given, else what is not padding, else all.

    Args:
        attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for words.
        input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): Word ids.
        states (`torch.Tensor` of shape `(B, T, size)`): Embeddings or encoder states.
        pad_token_id (`int`): The padding word.

    Returns:
        `torch.BoolTensor` of shape `(B, T)`.
    """
    if attention_mask is not None:
        return attention_mask.bool()
    if input_ids is not None:
        return input_ids.ne(pad_token_id)
    return states.new_ones(states.shape[:2], dtype=torch.bool)


class SGMEncoder(nn.Module):
    """
    Word embeddings and a bidirectional LSTM (eq. 2-3).

    Args:
        config (`SGMConfig`): Sizes, number of layers and dropout.
    """

    main_input_name = "input_ids"

    def __init__(self, config: SGMConfig):
        super().__init__()
        self.pad_token_id = cast(int, config.pad_token_id)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        sizes = [config.embedding_size] + [2 * config.encoder_hidden_size] * (config.encoder_layers - 1)
        self.layers = nn.ModuleList(SGMBidirectionalLSTM(size, config.encoder_hidden_size) for size in sizes)
        self.dropout = SGMDropout(config.dropout)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): Word ids, padded on the right.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for words, 0 for padding; by default, what
                is not the padding word.
            inputs_embeds (`torch.Tensor` of shape `(B, T, embedding_size)`, *optional*): In place of `input_ids`.
            output_hidden_states (`bool`, *optional*): Whether to return the output of each layer.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutput`]: `last_hidden_state` h of shape `(B, T, H_e)`, and
            `hidden_states` (embeddings, then one a layer) on request.

        Raises:
            ValueError: When neither or both of `input_ids` and `inputs_embeds` are given, or padding is on the left.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give the encoder either input_ids or inputs_embeds, not both and not neither.")
        embeddings = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds  # (B, T, embedding_size)
        attention_mask = word_mask(attention_mask, input_ids, embeddings, self.pad_token_id)  # (B, T)
        if (attention_mask[:, 1:] & ~attention_mask[:, :-1]).any():
            raise ValueError("The attention mask must have its padding on the right: tokenizer.padding_side='right'.")
        reversal = reversal_index(attention_mask.sum(dim=1), attention_mask.shape[1])  # (B * T)

        states = embeddings  # (B, T, embedding_size)
        hidden_states = [states]
        for layer in self.layers:
            states = layer(self.dropout(states), reversal)  # (B, T, H_e)
            hidden_states.append(states)
        return BaseModelOutput(
            last_hidden_state=states, hidden_states=tuple(hidden_states) if output_hidden_states else None
        )


class SGMAttention(GradientCheckpointingLayer):
    """
    Additive attention of the decoder state over the words (eq. 4-6).

    Args:
        config (`SGMConfig`): Sizes.
    """

    def __init__(self, config: SGMConfig):
        super().__init__()
        attention_size = cast(int, config.attention_size)  # None only before the configuration is complete
        self.query = nn.Linear(config.decoder_hidden_size, attention_size)  # W_a
        self.key = nn.Linear(2 * config.encoder_hidden_size, attention_size, bias=False)  # U_a
        self.energy = nn.Linear(attention_size, 1, bias=False)  # v_a

    def keys(self, encoder_states: torch.Tensor) -> torch.Tensor:
        """Projects h `(B, T, H_e)` for all steps: 2 U_a h of shape `(B, T, A)`."""
        return 2 * self.key(encoder_states)  # (B, T, A)

    def forward(
        self, decoder_state: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            decoder_state (`torch.Tensor` of shape `(R, H_d)`): s_t; R is a multiple of B, a document's rows adjacent.
            keys (`torch.Tensor` of shape `(B, T, A)`): 2 U_a h, from [`~SGMAttention.keys`], once per document.
            values (`torch.Tensor` of shape `(B, T, H_e)`): h.
            mask (`torch.BoolTensor` of shape `(B, T)`): True for words.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: The context c_t of shape `(R, H_e)` and the weights α_t of shape
            `(R, T)`, zero on padding; both zero for a text without words.
        """
        num_documents, num_rows, is_padding = keys.shape[0], decoder_state.shape[0], ~mask[:, None]  # (B, 1, T)
        query = 2 * self.query(decoder_state)  # (R, A)
        query = query.view(num_documents, num_rows // max(num_documents, 1), 1, keys.shape[2])  # (B, R/B, 1, A)
        energy = at_least_float32(self._energy(query, keys))  # (B, R/B, T), eq. 4
        energy = energy.masked_fill(is_padding, torch.finfo(energy.dtype).min)  # (B, R/B, T)
        # Where all is padding, the softmax is even: such a text must not depend on how far it was padded.
        weights = energy.softmax(dim=-1).masked_fill(is_padding, 0.0)  # (B, R/B, T), eq. 5
        context = torch.bmm(weights.to(values.dtype), values)  # (B, R/B, H_e), eq. 6
        return context.flatten(0, 1), weights.flatten(0, 1)

    def _energy(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """
        Eq. 4 up to a constant that the softmax takes out: 2 v_a σ(2x) = v_a tanh(x) + Σ v_a.

        PyTorch's tanh takes six times as long as its sigmoid on a CPU. There, where no gradient is wanted, documents
        are taken a few at a time, so that a piece stays in the cache from the sum to the product with v_a.

        Args:
            query (`torch.Tensor` of shape `(B, R/B, 1, A)`): 2 W_a s_t.
            keys (`torch.Tensor` of shape `(B, T, A)`): 2 U_a h.

        Returns:
            `torch.Tensor` of shape `(B, R/B, T)`.
        """
        if torch.is_grad_enabled() or keys.device.type != "cpu":
            return 2 * self.energy(torch.sigmoid(query + keys[:, None])).squeeze(-1)  # (B, R/B, T)
        num_documents = max(1, PIECE_SIZE // max(1, query.shape[1] * keys.shape[1] * keys.shape[2]))
        pieces = zip(query.split(num_documents), keys.split(num_documents), strict=True)
        return 2 * torch.cat([self.energy((q + k[:, None]).sigmoid_()).squeeze(-1) for q, k in pieces])  # (B, R/B, T)


class SGMLabelFeedback(nn.Module):
    """
    g(y_{t-1}): the vector that tells the decoder about the label before (eq. 7, 11-14).

    Args:
        config (`SGMConfig`): `label_feedback`, `gate_activation`, `mixture_lambda`, sizes.
    """

    def __init__(self, config: SGMConfig):
        super().__init__()
        self.kind = config.label_feedback
        self.mixture_lambda = config.mixture_lambda
        self.sigmoid_gate = config.gate_activation == "sigmoid"
        self.num_labels = config.num_labels
        size = cast(int, config.label_embedding_size)  # None only before the configuration is complete
        # Labels, then eos, bos and padding.
        self.embed_labels = nn.Embedding(config.num_labels + 3, size)
        if self.kind == "global_embedding":
            # The paper writes L x L; only embedding x embedding fits eq. 12-13.
            self.gate_label = nn.Linear(size, size, bias=False)  # W_1
            self.gate_average = nn.Linear(size, size, bias=False)  # W_2

    @property
    def uses_distribution(self) -> bool:
        """Whether the whole distribution y_{t-1} is fed back, not the label alone."""
        return self.kind != "previous_label"

    def add_labels(self, count: int) -> None:
        """Gives `count` more labels the average embedding of those there are."""
        weight = self.embed_labels.weight  # (L + 3, E)
        labels, others = weight[: self.num_labels], weight[self.num_labels :]  # (L, E), (3, E)
        added = labels.mean(dim=0, keepdim=True).expand(count, -1)  # (count, E)
        self.embed_labels.weight = _parameter_like(weight, [labels, added, others])  # (L + count + 3, E)
        self.num_labels += count
        self.embed_labels.num_embeddings += count

    def average(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The average label embedding ē (eq. 11) of `probabilities` `(R, L + 1)`; shape `(R, E)`."""
        weight = self.embed_labels.weight  # (L + 3, E)
        if weight.is_meta:  # offloaded: accelerate fetches it when the module is called
            weight = self.embed_labels(torch.arange(weight.shape[0], device=probabilities.device))  # (L + 3, E)
        embeddings = weight[: self.num_labels]  # (L, E)
        return probabilities[:, : self.num_labels].to(embeddings.dtype) @ embeddings  # (R, E), eq. 11

    def forward(self, label_ids: torch.Tensor, average: torch.Tensor | None) -> torch.Tensor:
        """
        Args:
            label_ids (`torch.LongTensor` of shape `(R,)`): The labels (or bos) of the step before.
            average (`torch.Tensor` of shape `(R, E)`): ē of the step before; `None` at the first step, where y_0 is
                bos with certainty and so ē = e.

        Returns:
            `torch.Tensor` of shape `(R, E)`: g(y_{t-1}).
        """
        label = self.embed_labels(label_ids)  # (R, E)
        if not self.uses_distribution or average is None and self.kind == "fixed_mixture":
            return label
        average = label if average is None else average  # (R, E)
        if self.kind == "fixed_mixture":
            return (1 - self.mixture_lambda) * label + self.mixture_lambda * average  # (R, E), eq. 14
        gate = self.gate_label(label) + self.gate_average(average)  # (R, E), eq. 13
        gate = gate.sigmoid() if self.sigmoid_gate else gate  # (R, E)
        return (1 - gate) * label + gate * average  # (R, E), eq. 12


class SGMDecoderState(Cache):
    """
    What the decoder remembers between two steps, in the place where Transformers keeps key-value caches.

    Tensors over decoder rows follow their beam (`reorder_cache`); those over documents are kept once per document.

    Args:
        hidden (`list[torch.Tensor]` of shape `(R, H_d)`): Hidden state s of each decoder layer.
        cell (`list[torch.Tensor]` of shape `(R, H_d)`): Cell state of each decoder layer.
        keys (`torch.Tensor` of shape `(B, T, A)`, *optional*): Projected encoder states; `None` without attention.
        values (`torch.Tensor` of shape `(B, T, H_e)`): Encoder states.
        mask (`torch.BoolTensor` of shape `(B, T)`): True for words.
        masked (`torch.BoolTensor` of shape `(R, L + 1)`): Labels already produced or left out; never True for eos.
        has_left_out (`bool`): Whether any label is left out from the start.
    """

    def __init__(
        self,
        hidden: list[torch.Tensor],
        cell: list[torch.Tensor],
        keys: torch.Tensor | None,
        values: torch.Tensor,
        mask: torch.Tensor,
        masked: torch.Tensor,
        has_left_out: bool,
    ):
        super().__init__(layers=[])
        self.hidden = hidden
        self.cell = cell
        self.keys = keys
        self.values = values
        self.mask = mask
        self.masked = masked
        self.has_left_out = has_left_out
        self.context: torch.Tensor | None = None  # (R, H_e), c_{t-1}
        self.average: torch.Tensor | None = None  # (R, E), ē_{t-1}
        self.num_steps = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of decoder steps made."""
        return self.num_steps

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row r takes over what row `beam_idx[r]` remembers; `beam_idx` has the shape `(R,)`."""
        self.hidden = [state.index_select(0, beam_idx) for state in self.hidden]
        self.cell = [state.index_select(0, beam_idx) for state in self.cell]
        self.masked = self.masked.index_select(0, beam_idx)
        self.context = None if self.context is None else self.context.index_select(0, beam_idx)
        self.average = None if self.average is None else self.average.index_select(0, beam_idx)

    def keep_documents(self, documents: torch.Tensor) -> None:
        """Forgets the texts of all documents but those at the places `documents` `(D,)`; rows stay as they are."""
        self.keys = None if self.keys is None else self.keys.index_select(0, documents)
        self.values = self.values.index_select(0, documents)
        self.mask = self.mask.index_select(0, documents)


class SGMDecoder(nn.Module):
    """
    Generates labels one by one (eq. 7-10).

    Args:
        config (`SGMConfig`): Sizes, attention, label feedback and mask.
    """

    def __init__(self, config: SGMConfig):
        super().__init__()
        hidden_size, encoder_size = config.decoder_hidden_size, 2 * config.encoder_hidden_size
        self.num_labels = config.num_labels
        self.label_mask = config.label_mask
        self.feedback = SGMLabelFeedback(config)
        self.attention = SGMAttention(config) if config.attention == "word" else None
        context_size = encoder_size if self.attention is not None else 0
        self.initial_hidden = nn.Linear(encoder_size, config.decoder_layers * hidden_size)
        self.initial_cell = nn.Linear(encoder_size, config.decoder_layers * hidden_size)
        sizes = [cast(int, config.label_embedding_size) + context_size] + [hidden_size] * (config.decoder_layers - 1)
        self.cells = nn.ModuleList(nn.LSTMCell(size, hidden_size) for size in sizes)
        self.state_projection = nn.Linear(hidden_size, hidden_size)  # W_d
        if self.attention is not None:
            self.context_projection = nn.Linear(encoder_size, hidden_size, bias=False)  # V_d
        self.output = nn.Linear(hidden_size, config.num_labels + 1)  # W_o: labels and eos
        self.dropout = SGMDropout(config.dropout)

    def add_labels(self, count: int) -> None:
        """Gives `count` more labels the average output weights of those there are."""
        for name in ("weight", "bias"):
            rows = getattr(self.output, name)  # (L + 1, ...)
            labels, eos = rows.split([self.num_labels, 1])  # (L, ...), (1, ...)
            added = [labels.mean(dim=0, keepdim=True)] * count  # (1, ...) each
            setattr(self.output, name, _parameter_like(rows, [labels, *added, eos]))  # (L + count + 1, ...)
        self.output.out_features += count
        self.num_labels += count
        self.feedback.add_labels(count)

    def start(
        self, encoder_states: torch.Tensor, attention_mask: torch.Tensor, num_rows: int, num_left_out: int = 0
    ) -> SGMDecoderState:
        """
        The state before the first step: s_0 from the encoder's final states through a learned projection.

        Args:
            encoder_states (`torch.Tensor` of shape `(B, T, H_e)`): h.
            attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for words.
            num_rows (`int`): R, a multiple of B: how many sequences are decoded in parallel.
            num_left_out (`int`, *optional*, defaults to 0): How many of the last labels get no probability.

        Returns:
            [`SGMDecoderState`]: Its rows are `num_rows / B` equal copies per document.
        """
        mask = attention_mask.bool()  # (B, T)
        final = final_encoder_states(encoder_states, mask)  # (B, H_e)
        rows_per_document = num_rows // max(encoder_states.shape[0], 1)
        num_layers = len(self.cells)
        hidden = torch.tanh(self.initial_hidden(final))  # (B, layers * H_d)
        cell = self.initial_cell(final)  # (B, layers * H_d)
        masked = mask.new_zeros(num_rows, self.num_labels + 1)  # (R, L + 1)
        masked[:, self.num_labels - num_left_out : self.num_labels] = True
        return SGMDecoderState(
            hidden=list(hidden.repeat_interleave(rows_per_document, dim=0).chunk(num_layers, dim=-1)),
            cell=list(cell.repeat_interleave(rows_per_document, dim=0).chunk(num_layers, dim=-1)),
            keys=None if self.attention is None else self.attention.keys(encoder_states),  # (B, T, A)
            values=encoder_states,
            mask=mask,
            masked=masked,
            has_left_out=num_left_out > 0,
        )

    def step(
        self, label_ids: torch.Tensor, state: SGMDecoderState
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
        """
        One step: feed the label before, attend, score the next label. Updates `state`.

        Args:
            label_ids (`torch.LongTensor` of shape `(R,)`): Labels of the step before, bos at the first.
            state ([`SGMDecoderState`]): What the steps before left.

        Returns:
            `tuple`: Masked logits o_t + I_t of shape `(R, L + 1)`; attention weights of shape `(R, T)` or `None`;
            hidden states: g(y_{t-1}) of shape `(R, E)`, then that of each layer, `(R, H_d)`; the last is s_t.
        """
        inputs = self.feedback(label_ids, state.average)  # (R, E)
        hidden_states = [inputs]
        if self.attention is not None:
            if state.context is None:  # c_0
                state.context, _ = self.attention(state.hidden[-1], state.keys, state.values, state.mask)  # (R, H_e)
            inputs = torch.cat([inputs, state.context], dim=-1)  # (R, E + H_e)
        for layer, cell in enumerate(self.cells):
            hidden, memory = cell(self.dropout(inputs), (state.hidden[layer], state.cell[layer]))  # (R, H_d), eq. 7
            state.hidden[layer], state.cell[layer] = hidden, memory
            hidden_states.append(hidden)
            inputs = hidden  # (R, H_d)

        features = self.state_projection(inputs)  # (R, H_d)
        weights = None
        if self.attention is not None:
            state.context, weights = self.attention(inputs, state.keys, state.values, state.mask)  # (R, H_e), (R, T)
            features = features + self.context_projection(state.context)  # (R, H_d)
        logits = at_least_float32(self.output(self.dropout(torch.tanh(features))))  # (R, L + 1), eq. 8
        if self.label_mask:
            state.masked = state.masked | self._as_mask(label_ids)  # (R, L + 1)
        if self.label_mask or state.has_left_out:
            logits = logits.masked_fill(state.masked, float("-inf"))  # (R, L + 1), eq. 9-10
        if self.feedback.uses_distribution:
            state.average = self.feedback.average(logits.softmax(dim=-1))  # (R, E)
        state.num_steps += 1
        return logits, weights, hidden_states

    def forward(
        self, decoder_input_ids: torch.Tensor, state: SGMDecoderState, output_hidden_states: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None, tuple[torch.Tensor, ...] | None]:
        """
        Steps over known labels (teacher forcing), or over the one label that `generate()` has just chosen.

        Args:
            decoder_input_ids (`torch.LongTensor` of shape `(R, n)`): bos, then labels.
            state ([`SGMDecoderState`]): Updated in place.
            output_hidden_states (`bool`, *optional*, defaults to `False`): Whether to return the hidden states.

        Returns:
            `tuple`: Logits of shape `(R, n, L + 1)`; attention weights of shape `(R, n, T)` or `None`; the hidden
            states that [`~SGMDecoder.step`] describes, `(R, n, E)` and `(R, n, H_d)`, or `None`.
        """
        steps = [self.step(label_ids, state) for label_ids in decoder_input_ids.unbind(dim=1)]
        logits, weights, hidden = zip(*steps, strict=True)
        attention = None if self.attention is None else torch.stack(weights, dim=1)  # (R, n, T)
        hidden_states = None
        if output_hidden_states:
            hidden_states = tuple(torch.stack(layer, dim=1) for layer in zip(*hidden, strict=True))  # (R, n, ...)
        return torch.stack(logits, dim=1), attention, hidden_states

    def _as_mask(self, label_ids: torch.Tensor) -> torch.Tensor:
        """True where a column is the label of the row; never for eos, bos and padding. Shape `(R, L + 1)`."""
        columns = torch.arange(self.num_labels + 1, device=label_ids.device)  # (L + 1)
        return (label_ids[:, None] == columns) & (columns < self.num_labels)  # (R, L + 1)


def _parameter_like(parameter: torch.Tensor, rows: list[torch.Tensor]) -> nn.Parameter:
    """A parameter of these rows, frozen if the other one is."""
    return nn.Parameter(torch.cat(rows), requires_grad=parameter.requires_grad)


def final_encoder_states(encoder_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    The forward state at each text's last word beside the backward state at its first.

    Args:
        encoder_states (`torch.Tensor` of shape `(B, T, H_e)`): h.
        mask (`torch.BoolTensor` of shape `(B, T)`): True for words.

    Returns:
        `torch.Tensor` of shape `(B, H_e)`; zero for a text without words.
    """
    num_documents, num_words, size = encoder_states.shape
    if num_words == 0:
        return encoder_states.new_zeros(num_documents, size)  # (B, H_e)
    half = size // 2
    num_own = mask.sum(dim=1)  # (B)
    rows = torch.arange(num_documents, device=encoder_states.device)  # (B)
    last = encoder_states[rows, (num_own - 1).clamp(min=0), :half]  # (B, H_e / 2)
    final = torch.cat([last, encoder_states[:, 0, half:]], dim=-1)  # (B, H_e)
    return final.masked_fill(num_own[:, None] == 0, 0.0)  # (B, H_e)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """The values in single precision, whose half is too coarse for a softmax; float64 stays what it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class SGMForMultiLabelGeneration(SGMPreTrainedModel, SGMGenerationMixin):
    """
    Reads a text and generates its labels one by one (Yang et al. 2018, §2).

    Args:
        config ([`SGMConfig`]): Which system of the family, and its sizes.

    Example:

    ```python
    >>> import torch
    >>> from sgm_hf import SGMConfig, SGMForMultiLabelGeneration

    >>> model = SGMForMultiLabelGeneration(SGMConfig(vocab_size=100, num_labels=4))
    >>> output = model(input_ids=torch.tensor([[5, 8, 3]]), labels=torch.tensor([[2, 0, 4]]))  # 2, 0, eos
    >>> output.logits.shape
    torch.Size([1, 3, 5])
    ```
    """

    _auto_class = "AutoModel"  # this file goes with every checkpoint

    # The loss divides by `num_items_in_batch` itself, so Trainer must not scale it again.
    accepts_loss_kwargs = True

    def __init__(self, config: SGMConfig):
        super().__init__(config)
        self.encoder = SGMEncoder(config)
        self.decoder = SGMDecoder(config)
        self.generation_config = default_generation_config(config)
        self.post_init()

    def get_encoder(self, *args: Any, **kwargs: Any) -> SGMEncoder:
        """The text encoder."""
        return self.encoder

    def get_decoder(self, *args: Any, **kwargs: Any) -> SGMDecoder:
        """The label decoder."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embeddings."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the word embeddings by `value`."""
        self.encoder.embed_tokens = value

    def mark_labels_trained(self) -> None:
        """
        Has `generate()` predict labels that came by `add_labels()`: they are trained from now on.

        `SGMTrainer` calls it when it trains; call it yourself at the first update of a training loop of your own.
        """
        self.config.num_untrained_labels = 0

    def _num_left_out(self, labels: torch.Tensor | None) -> int:
        """How many of the last labels get no probability: untrained ones, unless they are wanted for a loss."""
        return 0 if self.training or labels is not None else self.config.num_untrained_labels

    @torch.no_grad()
    def add_labels(self, names: Sequence[str]) -> None:
        """
        Adds labels to a trained model, after those it has; `resize_token_embeddings` is the same for words.

        The labels get the ids from L on, so those of eos, bos and padding rise. They start as an average label. Until
        they are trained ([`~SGMForMultiLabelGeneration.mark_labels_trained`]), `generate()` leaves them out, and so
        predicts what it predicted before. Make the trainer or optimizer after this call: it replaces parameters.

        Args:
            names (`Sequence[str]`): Their names.

        Raises:
            TypeError: When `names` is a single string, or a name is not a string.
            ValueError: When there is none, or one stands twice or is among the labels already.

        Example:

        ```python
        >>> model.add_labels(["energy", "climate"])
        >>> model.config.num_untrained_labels
        2
        ```
        """
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"add_labels() takes a list of names, got {names!r}.")
        known = {*self.config.label2id}
        twice = sorted(name for name, count in Counter(names).items() if name in known or count > 1)
        if not names or twice:
            raise ValueError(
                f"add_labels() got {names!r:.200}, expected new names, each once; not new: {twice!r:.200}."
            )
        self.config.id2label = dict(enumerate([*self.config.id2label.values(), *names]))
        self.config.label2id = {name: label_id for label_id, name in self.config.id2label.items()}
        self.config.num_untrained_labels += len(names)
        self.decoder.add_labels(len(names))
        ids = default_generation_config(self.config)
        for name in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(self.generation_config, name, getattr(ids, name))

    def freeze_encoder(self) -> None:
        """Keeps the word embeddings and the encoder as they are: training moves the decoder only."""
        self.encoder.requires_grad_(False)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Shifts `labels` `(B, n)` to the right behind bos; -100 becomes decoder padding. Shape `(B, n)`."""
        start = labels.new_full((labels.shape[0], 1), self.config.bos_label_id)  # (B, 1)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)  # (B, n)
        return shifted.masked_fill(shifted == -100, self.config.pad_label_id)  # (B, n)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: SGMDecoderState | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        label_smoothing: float = 0.0,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput | tuple:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): Word ids, padded on the right.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): 1 for words, 0 for padding; by default, what
                is not the padding word.
            decoder_input_ids (`torch.LongTensor` of shape `(R, n)`, *optional*): bos, then labels; by default `labels`
                shifted. R is a multiple of B: a document's rows (beams, samples) are adjacent.
            labels (`torch.LongTensor` of shape `(B, n)`, *optional*): Gold labels, then eos, then -100.
            encoder_outputs (`BaseModelOutput` or `tuple`, *optional*): What the encoder returned for these texts.
            past_key_values ([`SGMDecoderState`], *optional*): Continue from this state, which is updated.
            inputs_embeds (`torch.Tensor` of shape `(B, T, embedding_size)`, *optional*): In place of `input_ids`.
            use_cache (`bool`, *optional*): Whether to return the decoder state; `config.use_cache` by default.
            output_attentions (`bool`, *optional*): Whether to return the attention weights; by default as the
                configuration says, like the next two.
            output_hidden_states (`bool`, *optional*): Whether to return encoder and decoder states.
            return_dict (`bool`, *optional*): Whether to return a `ModelOutput` or a tuple.
            label_smoothing (`float`, *optional*, defaults to 0.0): Share of the target spread evenly over the labels
                that the mask allows.
            num_items_in_batch (`int`, *optional*): Divide the summed loss by this, not by the number of target labels;
                `Trainer` gives it under gradient accumulation.

        Returns:
            [`~transformers.modeling_outputs.Seq2SeqLMOutput`]: `loss` (token cross-entropy, nats); `logits` of shape
            `(R, n, L + 1)`, -inf for masked labels; `past_key_values`; `encoder_last_hidden_state` `(B, T, H_e)`;
            on request `cross_attentions` (one tensor `(R, n, T)`), `decoder_hidden_states` (g(y_{t-1}) of shape
            `(R, n, E)`, then one tensor `(R, n, H_d)` a layer) and `encoder_hidden_states` (word embeddings, then one
            tensor `(B, T, H_e)` a layer).

        Raises:
            ValueError: When there is nothing to decode: neither `labels` nor `decoder_input_ids`; when `labels` asks
                for a label that the mask excludes, as one that appears twice in a row.
        """
        use_cache = self.config.use_cache if use_cache is None else use_cache
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("forward() needs labels or decoder_input_ids; to predict labels call generate().")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)  # (B, n)
        if past_key_values is None:
            if encoder_outputs is None:
                encoder_outputs = self.encoder(
                    input_ids, attention_mask, inputs_embeds, output_hidden_states=output_hidden_states
                )
            encoder_states = encoder_outputs[0]  # (B, T, H_e)
            attention_mask = word_mask(attention_mask, input_ids, encoder_states, self.encoder.pad_token_id)  # (B, T)
            past_key_values = self.decoder.start(
                encoder_states,
                attention_mask,
                decoder_input_ids.shape[0],
                self._num_left_out(labels),
            )
        logits, attentions, hidden_states = self.decoder(
            decoder_input_ids, past_key_values, output_hidden_states
        )  # (R, n, L + 1), (R, n, T), ...

        output = Seq2SeqLMOutput(
            loss=None if labels is None else label_loss(logits, labels, label_smoothing, num_items_in_batch),
            logits=logits,
            past_key_values=past_key_values if use_cache else None,
            decoder_hidden_states=hidden_states,
            cross_attentions=(attentions,) if output_attentions and attentions is not None else None,
            encoder_last_hidden_state=past_key_values.values,
            encoder_hidden_states=getattr(encoder_outputs, "hidden_states", None),
        )
        return output if return_dict else output.to_tuple()


def label_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    label_smoothing: float = 0.0,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """
    Token cross-entropy of the gold labels and eos (Yang et al. 2018, §2.2).

    Args:
        logits (`torch.Tensor` of shape `(B, n, L + 1)`): -inf for masked labels.
        labels (`torch.LongTensor` of shape `(B, n)`): Targets; -100 is ignored.
        label_smoothing (`float`, *optional*, defaults to 0.0): Share of the target spread evenly over what is not
            masked.
        num_items_in_batch (`int`, *optional*): Divisor of the sum; the number of targets by default.

    Returns:
        `torch.Tensor`: A scalar, in nats.

    Raises:
        ValueError: When a target is masked, so that its loss would be infinite.
    """
    log_probs = at_least_float32(logits).log_softmax(dim=-1)  # (B, n, L + 1)
    is_target = labels != -100  # (B, n)
    target = labels.where(is_target, 0)  # (B, n)
    losses = -log_probs.gather(-1, target[..., None]).squeeze(-1)  # (B, n)
    _refuse_masked_targets(labels, is_target & losses.isposinf())
    if label_smoothing:
        is_masked = logits == float("-inf")  # (B, n, L + 1)
        spread = -log_probs.masked_fill(is_masked, 0.0).sum(dim=-1) / (~is_masked).sum(dim=-1)  # (B, n)
        losses = (1 - label_smoothing) * losses + label_smoothing * spread  # (B, n)
    total = losses.masked_fill(~is_target, 0.0).sum()
    return total / (is_target.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


def _refuse_masked_targets(labels: torch.Tensor, is_masked: torch.Tensor) -> None:
    """Names the first of the `labels` `(B, n)` that are masked, where `is_masked` `(B, n)` says so of any."""
    if is_masked.any():  # waits for a GPU once a pass, as whoever looks at the loss does
        row, place = is_masked.nonzero()[0].tolist()
        raise ValueError(
            f"Row {row} of labels asks for the label {int(labels[row, place])} at place {place}, which the label mask "
            f"excludes there: {labels[row].tolist()!r:.200}. Give each label of a document once, or switch the mask "
            "off (config.label_mask)."
        )


__all__ = ["SGMForMultiLabelGeneration", "SGMPreTrainedModel"]
