"""The settings of the programs that train: options on the command line, entries of a JSON file.

The options of a new model are made from `SGMConfig`: a new field or kind there is an option here.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from types import MappingProxyType
from typing import Any, Literal, Optional, get_args, get_origin

from sgm_hf.data.labels import UNKNOWN_LABELS
from sgm_hf.data.layout import ImageLayout, Layout
from sgm_hf.datasets_scripts import CORPORA
from sgm_hf.modeling import SGMConfig
from sgm_hf.modeling.label_sets_sgm import FORMER_SET_DECODINGS, SET_DECODINGS
from sgm_hf.programs.presets import DEFAULT_PRESET, PRESETS

# Fields of SGMConfig that the data or the library set.
NOT_OPTIONS = {
    *("vocab_size", "num_untrained_labels", "pad_token_id", "lexical_data", "lexical_datastore"),
    *("encoder_special_tokens",),
    *("use_cache", "is_encoder_decoder", "tie_word_embeddings"),
}
FILE_OPTIONS = tuple(f.name for f in fields(Layout))
SPLIT_METHODS = ("random", "stratified")
WORD_OPTIONS = ("vocab_size", "min_frequency", "lowercase", "mask_numbers")


def option(help_text: str, default: Any = None, **metadata: Any) -> Any:
    """A dataclass field that is a command-line option."""
    return field(default=default, metadata={"help": help_text, **metadata})


# ---- options of SGMConfig ----


def option_type(kind: Any) -> Any:
    """The type of the option for a field, None included (not given); None where no option can write the value."""
    kinds = (kind,) if get_origin(kind) is Literal else get_args(kind) or (kind,)
    for member in kinds:
        if get_origin(member) is Literal:
            return Optional[member]  # noqa: UP045 (a Literal held by a variable)
        if member in (list[str], list[int], list[float]):
            return member | None
    # float before int: a field of both takes fractions.
    return next((scalar | None for scalar in (bool, str, float, int) if scalar in kinds), None)


def argument_texts(documented: type) -> dict[str, str]:
    """The text of each argument in a class's docstring, by name, on one line."""
    section = re.search(r"\nArgs:\n(.*?)(?:\n\S|\Z)", inspect.getdoc(documented) or "", re.DOTALL)
    entries = re.findall(r"^ {4}(\w+):(.*(?:\n(?: {8}.*)?$)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def config_options(config_class: type = SGMConfig) -> list[tuple[str, Any, Any]]:
    """Name, type and dataclass field of the option for each field that a configuration class declares."""
    texts, options = argument_texts(config_class), []
    for name, annotation in config_class.__annotations__.items():
        kind = option_type(annotation)
        if name not in NOT_OPTIONS and kind is not None:
            default = getattr(config_class, name, None)
            shown = (
                ""
                if default is None
                else f" Default: {str(default).lower() if isinstance(default, bool) else default}."
            )
            help_text = (texts.get(name, "") + shown).strip()
            options.append((name, kind, option(help_text.replace("%", "%%"))))  # argparse formats it with %
    return options


# Any, because type checkers do not see its fields.
ConfigOptions: Any = make_dataclass("ConfigOptions", config_options())


def model_settings(model_args: Any) -> dict[str, Any]:
    """The fields of `SGMConfig` that were given."""
    names = [f.name for f in fields(ConfigOptions)]
    return {name: getattr(model_args, name) for name in names if getattr(model_args, name) is not None}


# ---- all settings ----


@dataclass
class GenerationOptions:
    """What is kept in the model's generation config."""

    num_beams: int | None = option(
        "Beam width, kept in the generation config. Default: 5 in a new model, else the model's."
    )
    set_decoding: str | None = option(
        "How the label set is chosen, kept in the generation config. Default: best_sequence in a new model, else the "
        "model's.",
        choices=[*SET_DECODINGS, *FORMER_SET_DECODINGS],
    )
    label_threshold: float | None = option(
        "Score from which the decoding threshold takes a label, where it is not fitted. Default: 0.5 in a new model, "
        "else the model's."
    )
    max_labels: int | None = option(
        "Most labels of a document, kept in the generation config. Default: any number in a new model, else the "
        "model's."
    )


@dataclass
class ModelArguments(GenerationOptions, ConfigOptions):
    """The model: a checkpoint to start from, or settings of `SGMConfig` for a new one, and how it generates."""

    preset: str | None = option(
        "Settings by the minutes that there are, before all others. Default: "
        f"{DEFAULT_PRESET} for a new model without a settings file, else none.",
        choices=list(PRESETS),
    )
    model_name_or_path: str | None = option("Checkpoint to start from or to evaluate; default: a new model.")
    encoder_name_or_path: str | None = option(
        "Pre-trained encoder of Transformers to build a new model around: a folder or a name on the Hub, whose "
        "tokenizer is used too; or its config.json, for random weights. No default."
    )
    lora_rank: int | None = option(
        "Train low-rank adapters (LoRA) of this size in the pre-trained encoder, and else the decoder only. Default: "
        "no adapters."
    )
    lora_alpha: float | None = option("What they add is scaled by this over their rank. Default: twice the rank.")
    lora_dropout: float = option("Dropout before each of them.", 0.0)
    num_models: int = option(
        "Models that are trained, with the seeds --seed, --seed + 1, …, and averaged into one.", 1
    )
    add_labels: bool = option(
        "Whether the model of --model_name_or_path gets the labels of the training data that it does not have.", False
    )
    initial_vectors: str = option(
        "Word vectors that a new model begins with: ppmi, made from the words around each word of the training "
        "documents; none, random ones; or a file of GloVe, word2vec or fastText (.vec).",
        "ppmi",
    )
    label_texts: str | None = option(
        "JSON file of the labels' texts by name, such as descriptions: a new model begins with labels that are like "
        "their texts; with --add_labels the new ones take over from labels of like texts. No default."
    )
    freeze_encoder: bool = option(
        "Whether the encoder, of --model_name_or_path or --encoder_name_or_path, is not trained.", False
    )


@dataclass
class FileArguments:
    """How documents are written in files and data sets: the fields of `Layout`, and the column of images."""

    text_column: str = option("Column of the text; title,abstract joins the texts of both.", "text")
    labels_column: str = option("Column of the labels: names in one cell, or a list.", "labels")
    label_separator: str = option("What separates labels in one cell.", "|")
    delimiter: str | None = option("What separates cells in .csv and .tsv files; default a comma or a tab.")
    id_column: str = option("Column of the ids; documents without one are named after their line.", "id")
    labels_columns: str | None = option(
        "Where each label has a column of 0 and 1 (true, false, yes, no, or empty): these columns, as a,b,c or "
        "topic_*; * means all but text and id. No default."
    )
    multi_hot_names: str | None = option(
        "Where the labels are a list as [0, 1, 0]: their names, as a,b,c, or a file of one name a line. No default."
    )
    text_separator: str = option("What joins the texts of several columns; default an end of line.", "\n")
    encoding: str = option("Encoding of text files, e.g. cp1252.", "utf-8")
    image_column: str = option(
        "Column of the images, or of their paths from the file's folder, where the model reads images.", "image"
    )

    def layout(self, images: bool = False) -> Layout:
        """The layout that the options describe, of texts or of paths of images.

        Raises:
            ValueError: If it cannot be.
        """
        given = {name: getattr(self, name) for name in FILE_OPTIONS}
        return ImageLayout(**given | {"text_column": self.image_column}) if images else Layout(**given)


@dataclass
class DataArguments(FileArguments):
    """The data and its words."""

    dataset_name: str | None = option(
        f"A named corpus ({', '.join(CORPORA)}), a data set of the Hub, a folder of files or of a saved data set. "
        "Default: your files; without them and without a model, generated."
    )
    dataset_config: str | None = option(
        "Its variant, where it has several (rcv1_v2: lyrl2004, …). Default: the first."
    )
    dataset_revision: str | None = option("Branch, tag or commit of a data set of the Hub. Default: the newest.")
    data_dir: str | None = option(
        "Folder or archive of the corpus' files; in a data set, the folder to read. Default: the whole data set; the "
        "corpora need it, but for generated."
    )
    train_file: str | None = option("Your training documents: .csv, .tsv, .jsonl, .json or .parquet. No default.")
    validation_file: str | None = option("Your validation documents; default: split off the training documents.")
    test_file: str | None = option("Your test documents. Default: none.")
    validation_split_size: float = option(
        "Part (below 1) or number of training documents to validate on, where there is no validation split.", 0.1
    )
    threshold_split_size: float = option(
        "Part (below 1) or number of training documents to fit the label threshold on. Default: 0, which fits "
        "nothing.",
        0.0,
    )
    split_method: str = option(
        "How both splits are chosen: random, or stratified, with each label's share of the documents in both parts.",
        "random",
        choices=list(SPLIT_METHODS),
    )
    split_seed: int = option("Seed of both splits; kept apart from --seed so that runs are comparable.", 0)
    max_train_samples: int | None = option("Use this many training documents only. Default: all.")
    max_eval_samples: int | None = option("Use this many validation documents only. Default: all.")
    max_predict_samples: int | None = option("Use this many test documents only. Default: all.")
    label_hierarchy: str | None = option(
        'File of the labels\' hierarchy: lines "parent: P child: C", or .json of child to parent. A new model learns '
        "and generates a label only after its ancestors; F1 is reported with ancestors, too. No default."
    )
    add_ancestors: bool = option("Whether training documents get the ancestors that their labels lack.", False)
    max_train_words: int | None = option(
        "Leave out training documents of more words, as white space separates them, before any split. Default: none; "
        "longer texts are cut at --max_length."
    )
    vocab_size: int = option("Words in the vocabulary, from the training split alone.", 30000)
    min_frequency: int = option("Occurrences a word needs to be in the vocabulary.", 1)
    max_length: int = option("Words after which a text is cut.", 500)
    lowercase: bool = option("Whether texts are lower-cased.", True)
    mask_numbers: bool = option("Whether digits of numbers are masked.", True)
    unknown_labels: str = option(
        "A label in evaluation data that the model does not know: an error, or counted as missed.",
        "error",
        choices=list(UNKNOWN_LABELS),
    )
    num_threads: int | None = option("Threads of PyTorch; default: its own choice.")
    attention_figures: int = option("Number of predicted documents, from the first on, whose attention is drawn.", 0)


def is_given(name: str, *arguments: Any, preset: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether a setting differs from its default in the dataclass that has it, and from what a preset says."""
    for part in arguments:
        if name in part.__dataclass_fields__:
            default = part.__dataclass_fields__[name]
            value = default.default if default.default_factory is MISSING else default.default_factory()
            return getattr(part, name) not in (value, preset.get(name, value))
    return False
