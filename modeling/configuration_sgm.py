"""Configuration of the SGM family of generative multi-label text classifiers."""

import copy
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME, cached_file, logging

from .private_sgm import commit_hash

logger = logging.get_logger(__name__)

# Of what config.json says; raised when an older release would read a new checkpoint wrongly.
FORMAT_VERSION = 1

# What Transformers runs of a repository's own files, for users who have not installed the package and trust them.
AUTO_MAP = {
    "AutoConfig": "configuration_sgm.SGMConfig",
    "AutoModel": "modeling_sgm.SGMForMultiLabelGeneration",
    "AutoModelForSeq2SeqLM": "modeling_sgm.SGMForMultiLabelGeneration",
}
CUSTOM_PIPELINES = {
    "multi-label-generation": {
        "impl": "pipeline_sgm.MultiLabelGenerationPipeline",
        "pt": ["AutoModel"],
        "type": "text",
    }
}

# The code that a checkpoint takes along: what AUTO_MAP and CUSTOM_PIPELINES name with all it imports, and the handler.
CODE_FILES = (
    "adapters_sgm.py",
    "attention_sgm.py",
    "beam_search_sgm.py",
    "configuration_sgm.py",
    "constraints_sgm.py",
    "cpu_sgm.py",
    "decoder_sgm.py",
    "encoders_sgm.py",
    "ensemble_sgm.py",
    "generation_sgm.py",
    "handler.py",
    "inputs_sgm.py",
    "label_sets_sgm.py",
    "label_texts_sgm.py",
    "lexical_sgm.py",
    "loading_sgm.py",
    "modeling_sgm.py",
    "neighbors_sgm.py",
    "pipeline_sgm.py",
    "private_sgm.py",
    "tokenization_sgm.py",
    "windows_sgm.py",
)

# In what the members of an ensemble may differ.
MEMBER_SETTINGS = (
    "embedding_size",
    "encoder",
    "encoder_bidirectional",
    "encoder_cell",
    "encoder_config",
    "encoder_hidden_size",
    "encoder_layers",
    "encoder_max_length",
    "encoder_window",
    "encoder_overlap",
    "encoder_special_tokens",
    "unit_kernel_size",
    "unit_dilations",
    "sentence_length",
    "sentence_end_ids",
    "cell",
    "decoder_hidden_size",
    "decoder_layers",
    "label_embedding_size",
    "attention",
    "label_attention",
    "context_input",
    "attention_size",
    "label_feedback",
    "mixture_lambda",
    "gate_activation",
    "lexical_in_decoder",
    "lexical_logit_dropout",
    "lexical_dropout",
    "dropout",
    "word_dropout",
    "label_order",
)

# False in the copy of this file that Transformers makes of a repository's.
IS_INSTALLED = not __name__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}.")


@strict
class SGMConfig(PreTrainedConfig):
    r"""Describes one model of the SGM family.

    The systems of Yang et al. (2018), "SGM: Sequence Generation Model for Multi-label Classification", are values of
    this configuration. Sizes default to the paper's AAPD setting (§3.3); what the paper does not say (dropout, initial
    weights, sizes of attention and label embeddings) is our choice or that of the authors' code, see `docs/papers.md`.

    The labels are those of `id2label` (or `num_labels` nameless ones). In the decoder, label *i* has the id *i*; three
    ids that are not labels follow: end of sequence (`eos_label_id`), start (`bos_label_id`) and padding
    (`pad_label_id`). Generation defaults (beam width, constraints, set decoding) are in the `GenerationConfig`.

    Args:
        vocab_size: Number of words, special tokens included (paper: 30,000 AAPD, 50,000 RCV1-V2).
        embedding_size: Size *k* of the word embeddings (paper: 256 AAPD, 512 RCV1-V2).
        encoder: Kind of encoder: "recurrent", a bidirectional LSTM over word embeddings (eq. 2-3),
            "self_attentive", the same with attention of its states to each other (Patel, SGM-MLC), "semantic_units",
            the same with dilated convolutions over its states (Lin et al. 2018, §4.1), "hierarchical", with an LSTM
            over sentences (Lin et al. 2018, §6.3), or "pretrained", any encoder of Transformers, which
            `encoder_config` describes.
        encoder_bidirectional: Whether an encoder over word embeddings reads a text in both directions; if not, forward
            alone, with as many units as both together.
        encoder_cell: Recurrent cell of an encoder over word embeddings: "lstm" (eq. 2-3) or "gru".
        encoder_config: Configuration of a pre-trained encoder; `vocab_size` and `pad_token_id` are then its.
        encoder_hidden_size: Size of one of two directions of the encoder; a word's state has twice this size.
        encoder_layers: Number of layers of the encoder.
        encoder_max_length: Words after which the encoder stops reading; the lexical branch reads all that the
            tokenizer leaves. Default: none.
        encoder_window: Tokens that a pre-trained encoder reads at once; a longer text is read in overlapping windows.
            Default: as many as it has positions for.
        encoder_overlap: Tokens that a window has in common with the one before it; default a quarter of the window.
        encoder_special_tokens: How many tokens the tokenizer puts before and after each text, such as `[1, 1]` for
            [CLS] and [SEP]; they are put around each window. Default: none.
        unit_kernel_size: Of `encoder="semantic_units"`, states that a convolution reads for each unit.
        unit_dilations: Of `encoder="semantic_units"`, how far apart these are, by level; default 1, 2 and 3.
        sentence_length: Of `encoder="hierarchical"`, words of a sentence (Lin et al. 2018: 5, 10, 15 or 20).
        sentence_end_ids: Of `encoder="hierarchical"`, ids of the words that end a sentence, in place of a length.
            Default: none.
        cell: Recurrent cell of the decoder: "lstm" (eq. 7) or "gru".
        decoder_hidden_size: Size of the decoder.
        decoder_layers: Number of layers of the decoder (paper: 1 AAPD, 2 RCV1-V2).
        label_embedding_size: Size of the label embeddings fed back to the decoder; default `embedding_size`.
        attention: Attention over the text: "word", additive over its words (eq. 4-6), "bilinear" over its words
            (Lin et al. 2018, eq. 4-6); over semantic units "semantic", over these and the words "additive", the sum of
            both, or "hybrid", words as the units say (Lin et al. 2018, §4.2); or "none", plain S2S: the decoder sees
            the text through its first state only.
        label_attention: Whether the decoder attends to the label embeddings, too (Patel, SGM-MLC): what it gathers
            stands beside the context of the text.
        context_input: Which context enters the decoder's cell: "previous", c_{t-1} (eq. 7), or "current", c_t, for
            which the attention is queried by s_{t-1} (Yang et al. 2019, "A Deep Reinforced Sequence-to-Set Model for
            Multi-Label Classification", eq. 3). The output layer sees c_t in both.
        attention_size: Size of the attention's hidden layer (the length of *v_a* in eq. 4); default
            `decoder_hidden_size`.
        label_feedback: What g(y_{t-1}) of eq. 7 is: "previous_label", the embedding of the previous label (SGM),
            "global_embedding", with the adaptive gate (SGM+GE, eq. 11-13), or "fixed_mixture", with the fixed
            coefficient λ (eq. 14).
        mixture_lambda: λ of eq. 14, between 0 and 1, of `label_feedback="fixed_mixture"`.
        gate_activation: Activation of the transform gate H of eq. 13: "linear" as the paper writes it, or "sigmoid" as
            the authors' released code has it.
        label_mask: Whether labels already produced are masked (I_t of eq. 9-10), in training and in decoding.
        lexical_branch: Whether a sparse linear model over the words of the whole text gives the log-odds of each label
            ([`SGMLexicalBranch`]); it is fitted before the rest is trained.
        lexical_bigrams: Number of pairs of neighbouring words that the branch counts in addition.
        lexical_neighbors: How many of the most similar training documents the branch asks for their labels; their
            words, without order, are then stored with the model. Default: none.
        lexical_datastore: Number of these documents, of their words and of their labels; none before it is fitted.
        lexical_data: A hash of the documents that the branch was fitted to; none before it is fitted.
        lexical_in_decoder: Whether the branch's log-odds enter the logits of every decoder step. If not, they take
            part when sets and scores are made of what the decoder has found.
        lexical_logit_dropout: Share of the documents for which the decoder has only these log-odds to score labels by,
            in training with `lexical_in_decoder`.
        lexical_dropout: Share of the documents for which it has only its own, their log-odds being 0, likewise.
        dropout: Dropout probability on the inputs of every encoder layer (the word embeddings first) and of every
            decoder layer (label feedback and context first), and before the output layer.
        word_dropout: Probability that a word of the encoder's input is left out in training: its embedding is zero.
        initializer_range: Standard deviation of the initial word and label embeddings.
        label_order: Order of the labels in the training targets: "frequency", "alphabetical", "shuffled", "given" or
            "hierarchical" (ancestors first). A record only: the data pipeline produces the order.
        num_untrained_labels: How many of the last labels were added to the model and have not been trained since.
            `generate()` leaves them out. `model.add_labels()` counts up, `model.mark_labels_trained()` (which
            `SGMTrainer` calls) sets it to 0.
        members: Of a model that averages several, in what each of them differs from this configuration, such as
            `[{}, {"encoder_hidden_size": 128}]`; see [`SGMForMultiLabelGeneration.from_members`], which makes it.
            Default: it is one model.
        pad_token_id: Id of the padding *word* (decoder padding is `pad_label_id`).

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a value has the wrong type, a size is not positive, a
            probability or λ is outside its range, or `id2label` has a gap or names a label twice.

    Examples:
        >>> from sgm_hf import SGMConfig, SGMForMultiLabelGeneration

        >>> config = SGMConfig(id2label={0: "economy", 1: "markets", 2: "sport"}, label_feedback="global_embedding")
        >>> model = SGMForMultiLabelGeneration(config)
        >>> config.num_labels, config.eos_label_id, config.bos_label_id, config.pad_label_id
        (3, 3, 4, 5)
    """

    model_type = "sgm"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"hidden_size": "decoder_hidden_size", "num_hidden_layers": "encoder_layers"}
    sub_configs = {"encoder_config": AutoConfig}

    vocab_size: int = 30000
    embedding_size: int = 256
    encoder: Literal["recurrent", "self_attentive", "semantic_units", "hierarchical", "pretrained"] = "recurrent"
    encoder_bidirectional: bool = True
    encoder_cell: Literal["lstm", "gru"] = "lstm"
    encoder_config: dict[str, Any] | PreTrainedConfig | None = None
    encoder_hidden_size: int = 256
    encoder_layers: int = 2
    encoder_max_length: int | None = None
    encoder_window: int | None = None
    encoder_overlap: int | None = None
    encoder_special_tokens: list[int] | None = None
    unit_kernel_size: int = 3
    unit_dilations: list[int] | None = None
    sentence_length: int = 10
    sentence_end_ids: list[int] | None = None
    cell: Literal["lstm", "gru"] = "lstm"
    decoder_hidden_size: int = 512
    decoder_layers: int = 1
    label_embedding_size: int | None = None
    attention: Literal["word", "bilinear", "semantic", "additive", "hybrid", "none"] = "word"
    label_attention: bool = False
    context_input: Literal["previous", "current"] = "previous"
    attention_size: int | None = None
    label_feedback: Literal["previous_label", "global_embedding", "fixed_mixture"] = "previous_label"
    mixture_lambda: float | int = 0.5
    gate_activation: Literal["linear", "sigmoid"] = "linear"
    label_mask: bool = True
    lexical_branch: bool = False
    lexical_bigrams: int = 0
    lexical_neighbors: int = 0
    lexical_datastore: list[int] | None = None
    lexical_data: str | None = None
    lexical_in_decoder: bool = False
    lexical_logit_dropout: float | int = 0.0
    lexical_dropout: float | int = 0.0
    dropout: float | int = 0.5
    word_dropout: float | int = 0.0
    initializer_range: float | int = 0.1
    label_order: Literal["frequency", "alphabetical", "shuffled", "given", "hierarchical"] = "frequency"
    num_untrained_labels: int = 0
    members: list[dict[str, Any]] | None = None
    use_cache: bool = True
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs: Any) -> None:
        if self.label_embedding_size is None:
            self.label_embedding_size = self.embedding_size
        if self.attention_size is None:
            self.attention_size = self.decoder_hidden_size
        if self.unit_dilations is None:
            self.unit_dilations = [1, 2, 3]
        if isinstance(self.encoder_config, dict):
            if "model_type" not in self.encoder_config:
                raise ValueError(
                    f"encoder_config names no model_type: {self.encoder_config!r:.80}. Give the configuration of a "
                    "model of Transformers, such as BertConfig(), or what its to_dict() returns."
                )
            self.encoder_config = AutoConfig.for_model(**self.encoder_config)
        # A copy: Transformers writes into it how the model that has it attends, and resets that here.
        self.encoder_config = copy.deepcopy(self.encoder_config)
        if self.encoder_config is not None:
            self.vocab_size = getattr(self.encoder_config, "vocab_size", self.vocab_size)
            self.pad_token_id = getattr(self.encoder_config, "pad_token_id", self.pad_token_id)
        kwargs.pop("sgm_format", None)
        if IS_INSTALLED:
            # To run a repository's pipeline, Transformers asks for trust; the package's own needs none.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
        if self.id2label is not None:
            self.label2id = {name: label_id for label_id, name in self.id2label.items()}

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Saves `config.json` and, beside it, the code that it names; `model.save_pretrained` calls it.

        Args:
            save_directory: The folder.
            **kwargs: As of every Transformers configuration.
        """
        super().save_pretrained(save_directory, **kwargs)
        for name in CODE_FILES:
            file = Path(__file__).with_name(name)
            try:
                if not file.is_file():  # of a repository Transformers has fetched what the model imports
                    file = Path(cached_file(self.name_or_path, name, revision=commit_hash(self)))
                shutil.copyfile(file, Path(save_directory, name))
            except OSError as error:
                logger.warning("%s is not saved beside config.json, which names it: %s", name, error)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "SGMConfig":
        """Makes a configuration of what a `config.json` says.

        Args:
            config_dict: Its content.
            **kwargs: Values that override it, and what Transformers passes on.

        Returns:
            The configuration; with `return_unused_kwargs` a tuple with the arguments not used.

        Raises:
            ValueError: If it describes another kind of model, has a newer format, or names no labels.
        """
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(
                f"This is the configuration of a model of type {model_type!r}, expected {cls.model_type!r}; load it "
                "with the class of its own kind, or give a checkpoint of an SGM model."
            )
        version = config_dict.get("sgm_format", FORMAT_VERSION)
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ValueError(
                f"The checkpoint has the format {version!r}, this release of sgm_hf reads up to {FORMAT_VERSION}; "
                "install a newer release of sgm_hf."
            )
        if not config_dict.get("id2label"):
            raise ValueError(
                "The configuration names no labels (id2label); expected the name of each label by its id. Take "
                "config.json from the checkpoint as it was saved."
            )
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The settings, the format of the checkpoint, and which of its files have the code."""
        code = {"auto_map": AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES}
        return {**super().to_dict(), "sgm_format": FORMAT_VERSION, **copy.deepcopy(code)}

    def to_diff_dict(self) -> dict[str, Any]:
        """What `config.json` says: all label names, and else what differs from the defaults of Transformers."""
        return {**super().to_diff_dict(), "id2label": dict(self.id2label)}

    def validate_labels(self) -> None:
        """Part of `@strict` validation: label ids run from 0 without a gap and no name appears twice."""
        names = self.id2label or {}
        if sorted(map(int, names)) != list(range(len(names))):
            raise ValueError(f"id2label must have the ids 0 to {len(names) - 1}, got {sorted(names)}.")
        if len(set(names.values())) < len(names):
            twice = sorted(str(name) for name, count in Counter(names.values()).items() if count > 1)
            raise ValueError(f"id2label must name each label once, but these appear twice: {twice!r:.200}.")

    def validate_encoder(self) -> None:
        """Part of `@strict` validation: a pre-trained encoder has its configuration, and no other encoder has one."""
        of_pretrained = ("encoder_config", "encoder_window", "encoder_overlap", "encoder_special_tokens")
        given = [name for name in of_pretrained if getattr(self, name) is not None]
        if self.encoder != "pretrained" and given:
            raise ValueError(
                f"{given[0]} is a setting of a pre-trained encoder, which encoder={self.encoder!r} is not; leave it "
                "out, or choose encoder='pretrained'."
            )
        if self.encoder != "pretrained":
            return
        if self.encoder_config is None:
            raise ValueError(
                "encoder='pretrained' needs encoder_config, the configuration of a model of Transformers; "
                "SGMForMultiLabelGeneration.from_encoder_pretrained takes it from a checkpoint, with its weights."
            )
        if not isinstance(getattr(self.encoder_config, "hidden_size", None), int):
            raise ValueError(
                f"encoder_config is of a {getattr(self.encoder_config, 'model_type', None)!r} model, which has no "
                "hidden_size; give an encoder whose states all have one size, such as BERT, T5 or ViT."
            )
        if self.word_dropout:
            raise ValueError(
                f"word_dropout is {self.word_dropout}, but a pre-trained encoder drops out as encoder_config says; "
                "leave it out."
            )
        window, overlap = self.encoder_window, self.encoder_overlap
        if (window is not None and window < 1) or (overlap is not None and overlap < 0):
            raise ValueError(
                f"encoder_window is {window} and encoder_overlap {overlap}; give numbers of tokens, above 0 and from "
                "0 on."
            )
        around = self.encoder_special_tokens
        if around is not None and (len(around) != 2 or min(around) < 0):
            raise ValueError(
                f"encoder_special_tokens is {around}; give how many are before and how many after a text, as [1, 1]."
            )

    def validate_levels(self) -> None:
        """Part of `@strict` validation: the levels above words are made of something, and looked at."""
        if self.encoder == "semantic_units" and self.attention in ("word", "bilinear", "none"):
            raise ValueError(
                f"attention={self.attention!r} never looks at the units that encoder='semantic_units' makes; set "
                "attention to 'semantic', 'additive' or 'hybrid', or encoder to 'recurrent'."
            )
        if not self.unit_dilations or min(self.unit_dilations) < 1:
            raise ValueError(
                f"unit_dilations is {self.unit_dilations}; expected one distance or more, each at least 1, such as "
                "[1, 2, 3]."
            )
        if self.sentence_end_ids is not None and not self.sentence_end_ids:
            raise ValueError(
                "sentence_end_ids is an empty list; give the ids of the words that end a sentence, or None for "
                "sentences of sentence_length words."
            )

    def validate_untrained_labels(self) -> None:
        """Part of `@strict` validation: not more labels are untrained than there are."""
        if not 0 <= self.num_untrained_labels <= self.num_labels:
            raise ValueError(
                f"num_untrained_labels must lie between 0 and num_labels={self.num_labels}, got "
                f"{self.num_untrained_labels}."
            )

    def validate_sizes(self) -> None:
        """Part of `@strict` validation: every size is at least 1, every probability within its range."""
        sizes = (
            "vocab_size",
            "embedding_size",
            "encoder_hidden_size",
            "encoder_layers",
            "decoder_hidden_size",
            "decoder_layers",
            "label_embedding_size",
            "attention_size",
            "unit_kernel_size",
            "sentence_length",
        )
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0.0 <= self.mixture_lambda <= 1.0:
            raise ValueError(f"mixture_lambda must lie between 0 and 1 (eq. 14), got {self.mixture_lambda}.")
        if self.encoder_max_length is not None and self.encoder_max_length < 1:
            raise ValueError(f"encoder_max_length must be at least 1, got {self.encoder_max_length}.")
        for name in ("dropout", "word_dropout", "lexical_logit_dropout", "lexical_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}.")

    def validate_lexical_branch(self) -> None:
        """Part of `@strict` validation: nothing is asked of a lexical branch that is not there."""
        for name in ("lexical_bigrams", "lexical_neighbors"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        asked = [
            name for name in ("lexical_bigrams", "lexical_neighbors", "lexical_in_decoder") if getattr(self, name)
        ]
        if asked and not self.lexical_branch:
            raise ValueError(
                f"{asked[0]} is {getattr(self, asked[0])}, but there is no lexical_branch; set it to True."
            )
        shares = (self.lexical_logit_dropout, self.lexical_dropout)
        if any(shares) and not self.lexical_in_decoder:
            raise ValueError(
                f"lexical_logit_dropout and lexical_dropout are {shares}, but without lexical_in_decoder the decoder "
                "has its own logits only; set that to True, or leave these out."
            )
        if sum(shares) > 1:
            raise ValueError(f"lexical_logit_dropout and lexical_dropout are {shares}; together at most 1.")

    def validate_members(self) -> None:
        """Part of `@strict` validation: each member of an ensemble is a valid model of these words and labels."""
        if self.members is None:
            return
        if not self.members:
            raise ValueError("members is an empty list; give the settings of each member, or None for one model.")
        for place, settings in enumerate(self.members):
            unknown = sorted(settings.keys() - set(MEMBER_SETTINGS))
            if unknown:
                raise ValueError(
                    f"Member {place} has {', '.join(unknown)} of its own, but members may differ only in "
                    f"{', '.join(MEMBER_SETTINGS)}."
                )
        for place, config in enumerate(self.member_configs()):
            limit = self.encoder_max_length
            if limit is not None and (config.encoder_max_length is None or config.encoder_max_length > limit):
                raise ValueError(
                    f"encoder_max_length of member {place} is {config.encoder_max_length}, beyond {limit}, where the "
                    "ensemble stops reading; give the ensemble the longest."
                )
            if config.lexical_in_decoder and not self.lexical_in_decoder:
                raise ValueError(f"lexical_in_decoder is True of member {place}; set it to True of the ensemble too.")
            words, own = ((one.vocab_size, one.pad_token_id) for one in (self, config))
            if own != words:  # its pre-trained encoder has others
                raise ValueError(
                    f"vocab_size and pad_token_id of member {place} are {own}, of the ensemble {words}; members read "
                    "the same words."
                )

    def member_configs(self) -> list["SGMConfig"]:
        """The configuration of each member of an ensemble."""
        shared = ("vocab_size", "pad_token_id", "id2label", "label_mask", "lexical_branch", "num_untrained_labels")
        settings = {name: getattr(self, name) for name in (*shared, *MEMBER_SETTINGS)}
        return [type(self)(**{**settings, **own}) for own in self.members or ()]

    @property
    def eos_label_id(self) -> int:
        """Decoder id that ends a label sequence: L."""
        return self.num_labels

    @property
    def bos_label_id(self) -> int:
        """Decoder id that starts a label sequence: L + 1."""
        return self.num_labels + 1

    @property
    def pad_label_id(self) -> int:
        """Decoder id that pads finished label sequences: L + 2."""
        return self.num_labels + 2


SGMConfig.register_for_auto_class()  # a configuration that is pushed alone takes this file along

__all__ = ["SGMConfig"]
