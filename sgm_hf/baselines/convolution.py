"""Convolutional networks over words: CNN and XML-CNN, and the encoder of CNN-RNN.

1. `TextConvolution` turns the words of a text into pooled features.
2. `CNNForMultiLabelClassification` gives each label a probability of its own (Kim 2014, "Convolutional Neural Networks
   for Sentence Classification"; with several chunks and a bottleneck layer Liu et al. 2017, "Deep Learning for Extreme
   Multi-label Text Classification").
3. `CNNRNNForMultiLabelGeneration` generates labels with an LSTM that starts from the features (after Chen et al. 2017,
   "Ensemble Application of Convolutional and Recurrent Neural Networks for Multi-label Text Categorization").

Shapes: B documents, T words of size E, C feature maps of one width, M windows of that width, p chunks, L labels.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import CONFIG_NAME

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration
from sgm_hf.modeling.cpu_sgm import SGMDropout
from sgm_hf.modeling.decoder_sgm import SGMDecoder
from sgm_hf.modeling.encoders_sgm import SGMEncoder, SGMEncoderOutput, word_mask
from sgm_hf.modeling.generation_sgm import default_generation_config
from sgm_hf.modeling.modeling_sgm import SGMPreTrainedModel

# Random word embeddings are uniform between minus this and this, as in Kim's code.
EMBEDDING_RANGE = 0.25


def dynamic_max_pool(windows: torch.Tensor, counts: torch.Tensor, num_chunks: int) -> torch.Tensor:
    """The greatest value of each chunk of a document's windows (Liu et al. 2017, §3.1); of one chunk, over all time.

    Each document is cut by the windows that it has itself, padding apart. Where these cannot be divided evenly, chunks
    begin at the place rounded down and end at the place rounded up, as those of `nn.AdaptiveMaxPool1d`, so that a
    document with fewer windows than chunks has some in each.

    Args:
        windows: One row per feature map, (B, C, M).
        counts: Windows of each document, at least 1, (B) int64.
        num_chunks: p.

    Returns:
        (B, C, p).
    """
    num_maps, num_windows = windows.shape[1:]
    chunk = torch.arange(num_chunks, device=windows.device)  # (p)
    first = chunk * counts[:, None] // num_chunks  # (B, p)
    last = -(-(chunk + 1) * counts[:, None] // num_chunks) - 1  # (B, p), the end rounded up
    longest = min(num_windows, num_windows // num_chunks + 2)  # S
    step = torch.arange(longest, device=windows.device)  # (S)
    # Shorter chunks see their last window again, which changes no maximum.
    places = torch.minimum(first[..., None] + step, last[..., None])  # (B, p, S)
    chunks = windows.gather(2, places.flatten(1)[:, None].expand(-1, num_maps, -1))  # (B, C, p * S)
    return chunks.unflatten(2, (num_chunks, longest)).max(dim=-1).values  # (B, C, p)


class TextConvolution(nn.Module):
    """Word embeddings, convolutions of several widths with ReLU, and max pooling (Kim 2014, §2).

    A text that is shorter than a filter is filled up with zeros to one window. Padding beyond that is never pooled.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        widths: Sequence[int],
        feature_maps: int,
        num_chunks: int = 1,
        pad_token_id: int = 0,
    ):
        super().__init__()
        self.embed_tokens: nn.Module = nn.Embedding(vocab_size, embedding_size, padding_idx=pad_token_id)
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding_size, feature_maps, width) for width in widths)
        self.num_chunks = num_chunks
        self.output_size = len(widths) * feature_maps * num_chunks

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The pooled features of texts.

        Args:
            input_ids: Word ids, padded on the right, (B, T) int64.
            mask: True for words, (B, T) bool.

        Returns:
            (B, widths * C * p): by width, then feature map, then chunk.
        """
        words = self.embed_tokens(input_ids) * mask[..., None]  # (B, T, E)
        words, lengths = words.mT, mask.sum(dim=1)  # (B, E, T), (B)
        features = []
        for convolution in cast(Sequence[nn.Conv1d], self.convolutions):
            (width,) = convolution.kernel_size
            filled = F.pad(words, (0, max(0, width - words.shape[2])))  # (B, E, T or width)
            windows = F.relu(convolution(filled))  # (B, C, M)
            counts = (lengths - width + 1).clamp(min=1)  # (B)
            features.append(dynamic_max_pool(windows, counts, self.num_chunks).flatten(1))  # (B, C * p)
        return torch.cat(features, dim=1)  # (B, widths * C * p)


class CNNConfig(PreTrainedConfig):
    """Describes a CNN or an XML-CNN.

    Args:
        vocab_size: Number of words, special tokens included.
        embedding_size: E (Kim 2014, §3.2: 300).
        widths: Words that a filter of each kind reads (Kim 2014, §3.1: 3, 4, 5; Liu et al. 2017, §4.6: 2, 4, 8).
        feature_maps: Filters of each width (Kim 2014, §3.1: 100; Liu et al. 2017, §4.6: 128).
        num_chunks: Chunks of a text that are pooled apart.
        bottleneck_size: Units of a hidden layer before the output layer (Liu et al. 2017, §4.6: 512). Default: there
            is no such layer.
        dropout: Dropout probability before the output layer (both papers: 0.5).
        pad_token_id: Id of the padding word.
    """

    model_type = "sgm_hf_cnn"

    vocab_size: int = 30000
    embedding_size: int = 300
    widths: list[int] | tuple[int, ...] = (3, 4, 5)
    feature_maps: int = 100
    num_chunks: int = 1
    bottleneck_size: int | None = None
    dropout: float | int = 0.5
    pad_token_id: int | None = 0


class CNNForMultiLabelClassification(PreTrainedModel):
    """A probability for each label, independent of the others, from convolutional features of the text."""

    config: CNNConfig
    config_class = CNNConfig
    main_input_name = "input_ids"

    def __init__(self, config: CNNConfig):
        super().__init__(config)
        self.convolution = TextConvolution(
            config.vocab_size,
            config.embedding_size,
            config.widths,
            config.feature_maps,
            config.num_chunks,
            config.pad_token_id or 0,
        )
        size = self.convolution.output_size
        self.bottleneck = None
        if config.bottleneck_size is not None:
            self.bottleneck = nn.Linear(size, config.bottleneck_size)
            size = config.bottleneck_size
        self.dropout = SGMDropout(config.dropout)
        self.output = nn.Linear(size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Xavier for linear maps and filters, small uniform embeddings."""
        if isinstance(module, nn.Linear | nn.Conv1d):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -EMBEDDING_RANGE, EMBEDDING_RANGE)  # that of padding is masked

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.convolution.embed_tokens

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Scores the labels of texts.

        Args:
            input_ids: Word ids, padded on the right, (B, T) int64.
            attention_mask: 1 for words, 0 for padding, (B, T); by default, what is not the padding word.
            labels: 1 for the true labels, else 0, (B, L) float.

        Returns:
            The logits (B, L); with labels the loss, binary cross-entropy of a label of a document on average.
        """
        mask = word_mask(input_ids, attention_mask, None, self.config.pad_token_id)  # (B, T)
        features = self.convolution(input_ids, mask)  # (B, widths * C * p)
        if self.bottleneck is not None:
            features = F.relu(self.bottleneck(features))  # (B, bottleneck_size)
        logits = self.output(self.dropout(features)).float()  # (B, L)
        loss = None if labels is None else F.binary_cross_entropy_with_logits(logits, labels.float())
        return SequenceClassifierOutput(loss=loss, logits=logits)


class CNNRNNConfig(SGMConfig):
    """Describes a CNN-RNN: the decoder's settings are those of `SGMConfig`, those of its encoders are not used.

    Args:
        widths: Words that a filter of each kind reads.
        feature_maps: Filters of each width.
        text_size: Size of the layer over the pooled features, from which the decoder starts.
    """

    model_type = "sgm_hf_cnn_rnn"

    widths: list[int] | tuple[int, ...] = (3, 4, 5)
    feature_maps: int = 100
    text_size: int = 256

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Saves `config.json`, and no code beside it: that of this network is here."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self.to_json_file(Path(save_directory, CONFIG_NAME))

    def to_dict(self) -> dict[str, Any]:
        """The settings, without the names of files that have the code of other models."""
        own = super().to_dict()
        return {name: value for name, value in own.items() if name not in ("auto_map", "custom_pipelines")}


class ConvolutionalEncoder(SGMEncoder):
    """One state for the whole text: a layer over the features of `TextConvolution`."""

    def __init__(self, config: CNNRNNConfig):
        super().__init__()
        self.convolution = TextConvolution(
            config.vocab_size,
            config.embedding_size,
            config.widths,
            config.feature_maps,
            pad_token_id=config.pad_token_id or 0,
        )
        self.dropout = SGMDropout(config.dropout)
        self.text = nn.Linear(self.convolution.output_size, config.text_size)
        self.output_size = self.summary_size = config.text_size
        self.pad_token_id = config.pad_token_id

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.convolution.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings by `value`."""
        self.convolution.embed_tokens = value

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> SGMEncoderOutput:
        """Encodes texts.

        Args:
            input_ids: Word ids, padded on the right, (B, T) int64.
            attention_mask: 1 for words, 0 for padding, (B, T); by default, what is not the padding word.
            **kwargs: Not used: what `generate()` passes to any encoder.

        Returns:
            The text as the only state, (B, 1, text_size), and as the summary.
        """
        mask = word_mask(input_ids, attention_mask, None, self.pad_token_id)  # (B, T)
        features = self.convolution(input_ids, mask)  # (B, widths * C)
        text = torch.tanh(self.text(self.dropout(features)))  # (B, text_size)
        return SGMEncoderOutput(last_hidden_state=text[:, None], mask=mask.new_ones(len(text), 1), summary=text)


class CNNRNNForMultiLabelGeneration(SGMForMultiLabelGeneration):
    """An LSTM that generates the labels, started from convolutional features of the text.

    It is S2S (`attention="none"`) with another encoder: decoder, label mask, beam search and label scores are those of
    the models that it is compared with.
    """

    config: CNNRNNConfig
    config_class = CNNRNNConfig

    def __init__(self, config: CNNRNNConfig):
        # Not the parent's, which makes an encoder of another kind; what Transformers gives is not typed.
        SGMPreTrainedModel.__init__(self, config)  # type: ignore[call-arg]
        self.encoder = ConvolutionalEncoder(config)
        self.decoder = SGMDecoder(config, self.encoder)
        self.lexical = None
        self.generation_config = default_generation_config(config)
        self.post_init()
