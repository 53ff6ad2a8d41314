#!/usr/bin/env python
"""Train, evaluate and predict with SGM models on a named corpus or on your own files.

    python examples/run_sgm.py --train_file data.csv --output_dir runs/mine
    python examples/run_sgm.py examples/configs/aapd_sgm_ge.json --data_dir data/aapd --output_dir runs/aapd --seed 3
    python examples/run_sgm.py --model_name_or_path runs/mine --test_file new.csv --do_predict --output_dir runs/new

A JSON file gives settings by name; options after it override it. Without --do_train, --do_eval and --do_predict, all
three are done as far as there is data (training only without --model_name_or_path). Faulty settings and data end the
program with one line and exit code 2; with the variable SGM_HF_TRACEBACK in the environment, with a traceback.

In the output folder: after training the model and tokenizer, the model card `README.md` and the checkpoints; always
`all_results.json`, `summary.json` and `summary.txt`; with --do_predict `predictions_<split>.jsonl`, and with
--attention_figures a folder `attention_<split>`.
--push_to_hub sends all but the checkpoints to the Hub, --hub_model_id names the repository.
"""

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import DatasetCard
from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser, set_seed
from transformers.utils import logging as transformers_logging

from sgm_hf.data.encoding import encode_dataset
from sgm_hf.data.files import load_files
from sgm_hf.data.labels import label_sets_of, order_label_names
from sgm_hf.datasets_scripts import CORPORA, load
from sgm_hf.datasets_scripts.convert import CARDS
from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.modeling.label_sets_sgm import FORMER_SET_DECODINGS, SET_DECODINGS
from sgm_hf.programs import run_main
from sgm_hf.training import SGMPredictionOutput, SGMTrainer, SGMTrainingArguments
from sgm_hf.training.checkpoints import alone_in, find_checkpoint, is_unused, write_text_atomically
from sgm_hf.training.interruption import exit_on_signals
from sgm_hf.training.machine import prepare_cpu
from sgm_hf.training.progress import with_lines
from sgm_hf.training.summary import (
    TRAINING_FIELDS,
    describe_generation,
    describe_machine,
    describe_model,
    describe_training,
    epoch_history,
    package_versions,
    summary_text,
    write_summary,
)

logger = logging.getLogger("run_sgm")

AT_LEAST_ONE = (
    *("num_beams", "max_labels", "max_train_samples", "max_eval_samples", "max_predict_samples"),
    *("vocab_size", "min_frequency", "max_length", "num_threads"),
)
FILE_OPTIONS = ("text_column", "labels_column", "label_separator", "id_column", "delimiter")
WORD_OPTIONS = ("vocab_size", "min_frequency", "lowercase", "mask_numbers")
# Options of Transformers' Trainer.
NOT_OF_OUR_TRAINER = (
    *("train_sampling_strategy", "length_column_name", "remove_unused_columns", "label_names"),
    *("dataloader_drop_last", "dataloader_persistent_workers", "dataloader_multiprocessing_context"),
    *("dataloader_in_order",),
    *("prediction_loss_only", "eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object"),
    *("include_for_metrics", "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval"),
)


def option(help_text: str, default: Any = None, **metadata: Any) -> Any:
    """A dataclass field that is a command-line option."""
    return field(default=default, metadata={"help": help_text, **metadata})


@dataclass
class ModelArguments:
    """The model: a checkpoint to start from, or settings of `SGMConfig` for a new one, and how it generates."""

    model_name_or_path: str | None = option("Checkpoint to start from or to evaluate; default: a new model.")
    embedding_size: int | None = option("Size of word and label embeddings.")
    label_embedding_size: int | None = option("Size of the label embeddings, if not embedding_size.")
    encoder_hidden_size: int | None = option("Size of each direction of the encoder.")
    encoder_layers: int | None = option("LSTM layers of the encoder.")
    decoder_hidden_size: int | None = option("Size of the decoder.")
    decoder_layers: int | None = option("LSTM layers of the decoder.")
    attention: str | None = option("Attention over the text.", choices=["word", "none"])
    attention_size: int | None = option("Size of the attention's hidden layer.")
    label_feedback: str | None = option(
        "What the decoder gets of its previous output.",
        choices=["previous_label", "global_embedding", "fixed_mixture"],
    )
    mixture_lambda: float | None = option("λ of fixed_mixture (eq. 14).")
    gate_activation: str | None = option("Gate of the global embedding.", choices=["linear", "sigmoid"])
    label_mask: bool | None = option("Whether a label already produced is masked.")
    dropout: float | None = option("Dropout probability.")
    initializer_range: float | None = option("Standard deviation of the initial embeddings.")
    label_order: str | None = option(
        "Order of the labels in the target sequences; default frequency.",
        choices=["frequency", "alphabetical", "shuffled", "given"],
    )
    num_beams: int | None = option("Beam width, kept in the model's generation config.")
    set_decoding: str | None = option(
        "How the label set is chosen, kept in the generation config.", choices=[*SET_DECODINGS, *FORMER_SET_DECODINGS]
    )
    label_threshold: float | None = option(
        "Score from which the decoding threshold takes a label, where it is not fitted."
    )
    max_labels: int | None = option("Most labels of a document, kept in the generation config.")
    add_labels: bool = option(
        "Whether the model of --model_name_or_path gets the labels of the training data that it does not have.", False
    )
    freeze_encoder: bool = option("Whether the encoder of --model_name_or_path stays as it is in training.", False)


@dataclass
class DataArguments:
    """The data and its words."""

    dataset_name: str | None = option(
        "A named corpus; without any data and any checkpoint, the generated one.", choices=list(CORPORA)
    )
    dataset_config: str | None = option("Its variant, where it has several (rcv1_v2: lyrl2004, …).")
    data_dir: str | None = option("Folder or archive of the corpus' published files.")
    train_file: str | None = option("Your training documents: .csv, .tsv, .jsonl, .json or .parquet.")
    validation_file: str | None = option("Your validation documents; default: split off the training documents.")
    test_file: str | None = option("Your test documents.")
    text_column: str = option("Column of the text in your files.", "text")
    labels_column: str = option("Column of the labels in your files.", "labels")
    label_separator: str = option("What separates labels in one cell.", "|")
    id_column: str = option(
        "Column of the ids in your files; documents without one are called after their line.", "id"
    )
    delimiter: str | None = option("What separates cells in your .csv and .tsv files; default a comma, a tab.")
    validation_split_size: float = option(
        "Part (below 1) or number of training documents to validate on, where there is no validation split.", 0.1
    )
    threshold_split_size: float = option(
        "Part (below 1) or number of training documents to fit the label threshold on.", 0.0
    )
    split_seed: int = option("Seed of both splits; kept apart from --seed so that runs are comparable.", 0)
    max_train_samples: int | None = option("Use this many training documents only.")
    max_eval_samples: int | None = option("Use this many validation documents only.")
    max_predict_samples: int | None = option("Use this many test documents only.")
    vocab_size: int = option("Words in the vocabulary, from the training split alone.", 30000)
    min_frequency: int = option("Occurrences a word needs to be in the vocabulary.", 1)
    max_length: int = option("Words after which a text is cut.", 500)
    lowercase: bool = option("Whether texts are lower-cased.", True)
    mask_numbers: bool = option("Whether digits of numbers are masked.", True)
    unknown_labels: str = option(
        "A label in evaluation data that the model does not know: an error, or counted as missed.",
        "error",
        choices=["error", "count"],
    )
    num_threads: int | None = option("Threads of PyTorch; default as it chooses.")
    attention_figures: int = option(
        "Draw what each predicted label looked at in this many of the first predicted documents.", 0
    )


# ---- settings ----


def parse_arguments(
    arguments: Sequence[str],
    training_class: type[SGMTrainingArguments] = SGMTrainingArguments,
    description: str | None = __doc__,
) -> tuple[ModelArguments, DataArguments, SGMTrainingArguments]:
    """Read the settings from an optional JSON file and the options after it.

    Args:
        arguments: The command line without the program's name.
        training_class: The class of the training settings.
        description: What --help says first.

    Raises:
        FileNotFoundError: If the JSON file does not exist.
        ValueError: If it is not JSON or names a setting that does not exist, or a setting is out of its range.
    """
    classes = (ModelArguments, DataArguments, training_class)
    parser = HfArgumentParser(classes, description=description, usage="%(prog)s [SETTINGS.json] [--NAME value …]")
    arguments = list(arguments)
    if arguments and arguments[0].endswith(".json"):
        settings = read_settings(Path(arguments.pop(0)), {f.name for c in classes for f in fields(c)})
        # As options, so that their types and choices are checked; lists and nulls cannot be written as one.
        options = {name: value for name, value in settings.items() if isinstance(value, str | int | float)}
        parser.set_defaults(**{name: value for name, value in settings.items() if name not in options})
        arguments = [f"--{name}={value}" for name, value in options.items()] + arguments
    try:
        model_args, data_args, training_args = parser.parse_args_into_dataclasses(args=arguments)
    except ValueError as error:  # of Transformers for its own settings: for the user to mend, as ours are
        raise ValueError(str(error)) from error
    return model_args, data_args, training_args


def read_settings(path: Path, known: set[str]) -> dict[str, Any]:
    """The settings of a JSON file by name, all of them among the known ones."""
    if not path.is_file():
        raise FileNotFoundError(f"the settings file {path} does not exist; give the path of a JSON file.")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg}); correct the file.") from error
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"{path} sets {', '.join(unknown)}, which this program does not know; see its --help.")
    return settings


def choose_tasks(model_args: ModelArguments, training_args: SGMTrainingArguments) -> None:
    """Without any --do_… option, do all there is data for; evaluate in training only if there is training."""
    if not (training_args.do_train or training_args.do_eval or training_args.do_predict):
        training_args.do_train = model_args.model_name_or_path is None
        training_args.do_eval = training_args.do_predict = True
    if not training_args.do_train:
        training_args.eval_strategy = training_args.save_strategy = "no"
        training_args.load_best_model_at_end = False


def choose_data(model_args: ModelArguments, data_args: DataArguments) -> None:
    """Without any data and any checkpoint, take the generated corpus, which needs no download."""
    given = (data_args.dataset_name, data_args.train_file, data_args.validation_file, data_args.test_file)
    if not any(given) and model_args.model_name_or_path is None:
        data_args.dataset_name = "generated"


def check_settings(model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments) -> None:
    """Refuse settings that cannot work before anything is read or written, and tell of those without effect.

    Raises:
        ValueError: If data or model is missing or given twice, or a setting is out of its range.
        FileExistsError: If the output folder is in use.
    """
    files = (data_args.train_file, data_args.validation_file, data_args.test_file)
    if (data_args.dataset_name is None) == (not any(files)):
        raise ValueError(
            f"give either --dataset_name ({', '.join(CORPORA)}) or --train_file, --validation_file, --test_file."
        )
    if not training_args.do_train and model_args.model_name_or_path is None:
        raise ValueError("there is nothing to evaluate: give --model_name_or_path, or --do_train.")
    if training_args.do_train and data_args.dataset_name is None and data_args.train_file is None:
        raise ValueError("--do_train needs --train_file or --dataset_name.")
    check_evaluation_data(model_args, data_args, training_args)
    check_ranges(model_args, data_args)
    if model_args.model_name_or_path is None:
        check_label_threshold(model_args, model_args.set_decoding)
    check_attention_figures(model_args, data_args, training_args)
    trains_checkpoint = training_args.do_train and model_args.model_name_or_path is not None
    for name in ("add_labels", "freeze_encoder"):
        if getattr(model_args, name) and not trains_checkpoint:
            raise ValueError(
                f"--{name} is for going on with a model's training: give --model_name_or_path, --do_train."
            )
    check_output_dir(training_args)
    tell_of_idle_options(model_args, data_args, training_args)


def check_evaluation_data(
    model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments
) -> None:
    """Refuse to evaluate a checkpoint on nothing, and say so where it is on a part of the training file.

    Raises:
        ValueError: If there would be nothing to evaluate.
    """
    if training_args.do_train or data_args.dataset_name is not None or data_args.validation_file is not None:
        return
    if data_args.train_file is None:
        if not training_args.do_predict:
            raise ValueError("--do_eval evaluates the validation documents: give --validation_file, or --do_predict.")
    elif training_args.do_eval or data_args.test_file is None:
        logger.warning(
            "no --validation_file: evaluated is the part of %s that --validation_split_size and --split_seed take; "
            "the model has seen these documents, unless it was trained with the same file and the same two settings",
            data_args.train_file,
        )


def check_ranges(model_args: ModelArguments, data_args: DataArguments) -> None:
    """Refuse numbers that training, saving or generating would refuse later.

    Raises:
        ValueError: If there is one.
    """
    given = {**vars(model_args), **vars(data_args)}
    for name in AT_LEAST_ONE:
        if given[name] is not None and given[name] < 1:
            raise ValueError(f"--{name} is {given[name]}; it must be at least 1, or left out.")
    threshold = model_args.label_threshold
    if threshold is not None and not 0.0 < threshold <= 1.0:
        raise ValueError(f"--label_threshold is {threshold}; it must be above 0 and at most 1.")
    if data_args.validation_split_size <= 0 or data_args.threshold_split_size < 0:
        raise ValueError(
            f"--validation_split_size is {data_args.validation_split_size} and --threshold_split_size "
            f"{data_args.threshold_split_size}; give a part below 1 or a number of documents."
        )


def check_label_threshold(model_args: ModelArguments, set_decoding: str | None) -> None:
    """Refuse a label threshold that no predicted label would depend on.

    Args:
        model_args: The model settings.
        set_decoding: How the label sets will be chosen; None stands for the default, "best_sequence".

    Raises:
        ValueError: If there is one.
    """
    if model_args.label_threshold is not None and set_decoding not in ("threshold", *FORMER_SET_DECODINGS):
        raise ValueError(
            f"--label_threshold {model_args.label_threshold} has no effect on the labels that --set_decoding "
            f"{set_decoding or 'best_sequence'} chooses; give --set_decoding threshold with it, or leave it out."
        )


def tell_of_idle_options(
    model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments
) -> None:
    """Log a warning for options that were given (differ from their defaults) and have no effect."""
    is_corpus, is_checkpoint = data_args.dataset_name is not None, model_args.model_name_or_path is not None
    chooses = model_args.set_decoding in ("threshold", *FORMER_SET_DECODINGS)
    feedback, is_fitted = model_args.label_feedback, training_args.do_train and data_args.threshold_split_size > 0
    groups = (
        (is_corpus, FILE_OPTIONS, "with --dataset_name, which has a format of its own"),
        (not is_corpus, ("dataset_config", "data_dir"), "without --dataset_name"),
        (is_checkpoint, WORD_OPTIONS, "with --model_name_or_path, whose words stay as they are"),
        (model_args.attention == "none", ("attention_size",), "with --attention none"),
        (feedback != "fixed_mixture", ("mixture_lambda",), "without --label_feedback fixed_mixture"),
        (feedback != "global_embedding", ("gate_activation",), "without --label_feedback global_embedding"),
        (
            not is_checkpoint and not chooses,
            ("threshold_split_size",),
            "on labels without --set_decoding threshold",
        ),
        (is_fitted, ("label_threshold",), "with --threshold_split_size, on which the threshold is fitted"),
        (not training_args.do_train, ("resume_from_checkpoint",), "without --do_train true"),
        (not training_args.push_to_hub, ("hub_model_id", "hub_private_repo"), "without --push_to_hub true"),
        (training_args.halve_from_epoch is not None, ("lr_scheduler_type",), "with --halve_from_epoch"),
        (True, NOT_OF_OUR_TRAINER, "here: SGMTrainer makes its batches and evaluates in its own way"),
    )
    for is_idle, names, reason in groups:
        given = [f"--{name}" for name in names if is_idle and is_given(name, model_args, data_args, training_args)]
        if given:
            logger.warning("%s: no effect %s", ", ".join(given), reason)


def is_given(name: str, *arguments: ModelArguments | DataArguments | SGMTrainingArguments) -> bool:
    """Whether a setting differs from its default."""
    for part in arguments:
        if name in part.__dataclass_fields__:
            default = part.__dataclass_fields__[name]
            value = default.default if default.default_factory is MISSING else default.default_factory()
            return getattr(part, name) != value
    return False


def check_attention_figures(
    model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments
) -> None:
    """Refuse to draw what will not be there, before a long training.

    Raises:
        ValueError: If the number is negative, nothing is predicted, or the model has no attention.
        ModuleNotFoundError: If matplotlib is not installed.
    """
    if data_args.attention_figures == 0:
        return
    if data_args.attention_figures < 0 or not training_args.do_predict:
        raise ValueError(
            f"--attention_figures is {data_args.attention_figures}: give a number from 0 on, and with it "
            "--do_predict true, since predicted documents are drawn."
        )
    if model_args.attention == "none":
        raise ValueError("--attention_figures needs a model with attention, but --attention is none.")
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError("--attention_figures needs matplotlib: pip install 'sgm_hf[figures]'")


def check_output_dir(training_args: SGMTrainingArguments) -> None:
    """Refuse to train into a folder that holds something, unless training is resumed there."""
    output_dir = Path(training_args.output_dir)
    if not training_args.do_train or training_args.resume_from_checkpoint:
        return
    if not is_unused(output_dir):
        raise FileExistsError(
            f"the output folder {output_dir} is not empty; choose another --output_dir, or go on with the training "
            "in it with --resume_from_checkpoint true."
        )


# ---- data ----


def load_splits(data_args: DataArguments, label_names: Sequence[str] | None) -> DatasetDict:
    """The published splits of a named corpus, or those of the user's files.

    Args:
        data_args: The data settings.
        label_names: The labels of the checkpoint to start from; default those of the training data.
    """
    if data_args.dataset_name is not None:
        return load(data_args.dataset_name, config=data_args.dataset_config, data_dir=data_args.data_dir)
    return load_files(
        data_args.train_file,
        data_args.validation_file,
        data_args.test_file,
        text_column=data_args.text_column,
        labels_column=data_args.labels_column,
        label_separator=data_args.label_separator,
        id_column=data_args.id_column,
        delimiter=data_args.delimiter,
        label_names=label_names,
        unknown_labels=data_args.unknown_labels,
    )


def split_off(dataset: Dataset, size: float, seed: int, name: str) -> tuple[Dataset, Dataset]:
    """Split a random part off a data set.

    Args:
        dataset: The data.
        size: Share (below 1) or number of documents of the part.
        seed: Seed of the choice.
        name: Setting that gave the size, for the error message.

    Returns:
        The rest and the part, both in the order of the data.

    Raises:
        ValueError: If the part or the rest would be empty.
    """
    count = max(1, round(size * len(dataset))) if 0 < size < 1 else int(size)
    if not 0 < count < len(dataset):
        raise ValueError(
            f"--{name} {size:g} takes {count} of {len(dataset)} training documents; leave at least one on each side."
        )
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    part = set(chosen)
    rest = [row for row in range(len(dataset)) if row not in part]
    return dataset.select(rest), dataset.select(sorted(part))


def arrange_splits(splits: DatasetDict, data_args: DataArguments) -> dict[str, Dataset]:
    """Add a validation split and a threshold split, both from the training split, and shorten splits where asked.

    Returns:
        Splits among "train", "validation", "threshold" and "test".
    """
    arranged = dict(splits)
    if "validation" in arranged and is_given("validation_split_size", data_args):
        logger.warning("--validation_split_size has no effect: there is a validation split")
    if "train" in arranged and "validation" not in arranged:
        arranged["train"], arranged["validation"] = split_off(
            arranged["train"], data_args.validation_split_size, data_args.split_seed, "validation_split_size"
        )
    if "train" in arranged and data_args.threshold_split_size > 0:
        arranged["train"], arranged["threshold"] = split_off(
            arranged["train"], data_args.threshold_split_size, data_args.split_seed, "threshold_split_size"
        )
    limits = {
        "train": data_args.max_train_samples,
        "validation": data_args.max_eval_samples,
        "test": data_args.max_predict_samples,
    }
    for split, limit in limits.items():
        if limit is not None and split not in arranged:
            logger.warning("there is no %s split that could be cut to %d documents", split, limit)
        elif limit is not None:
            arranged[split] = arranged[split].select(range(min(limit, len(arranged[split]))))
    return arranged


def encode_splits(
    splits: dict[str, Dataset],
    tokenizer: SGMTokenizer,
    label_names: Sequence[str],
    data_args: DataArguments,
    do_train: bool,
) -> dict[str, Dataset]:
    """Encode each split that is used: the training split only if it is trained on."""
    logger.info("encoding the documents")
    if data_args.max_length > tokenizer.model_max_length and is_given("max_length", data_args):
        logger.warning(
            "--max_length %d: texts are cut at %d words, as when the model was made",
            data_args.max_length,
            tokenizer.model_max_length,
        )
    return {
        split: encode_dataset(
            dataset,
            tokenizer,
            label_names,
            max_length=min(data_args.max_length, tokenizer.model_max_length),
            training=split in ("train", "threshold"),
            unknown_labels=data_args.unknown_labels,
        )
        for split, dataset in splits.items()
        if do_train or split not in ("train", "threshold")
    }


# ---- model ----


def load_checkpoint(name: str) -> tuple[SGMForMultiLabelGeneration, SGMTokenizer]:
    """Load a checkpoint's model and tokenizer.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If tokenizer and model do not have the same number of words.
    """
    try:
        model = SGMForMultiLabelGeneration.from_pretrained(name)
        tokenizer = SGMTokenizer.from_pretrained(name)
    except OSError as error:
        raise FileNotFoundError(
            f"--model_name_or_path {name} is neither a folder with a model and its tokenizer nor a model on the Hub "
            f"that can be reached: {error}"
        ) from error
    if len(tokenizer) != model.config.vocab_size:
        raise ValueError(
            f"the tokenizer of {name} has {len(tokenizer)} words, its model {model.config.vocab_size}; "
            "take both from the same training."
        )
    return model, tokenizer


def build_tokenizer(train: Dataset, data_args: DataArguments) -> SGMTokenizer:
    """A tokenizer with the vocabulary of the training split."""
    logger.info("making the vocabulary of %s documents", f"{len(train):,}")
    return SGMTokenizer.train_from_texts(
        with_lines(train["text"], len(train), "Counting words"),
        vocab_size=data_args.vocab_size,
        lowercase=data_args.lowercase,
        mask_numbers=data_args.mask_numbers,
        model_max_length=data_args.max_length,
        min_frequency=data_args.min_frequency,
    )


def model_settings(model_args: ModelArguments) -> dict[str, Any]:
    """The fields of `SGMConfig` that were given."""
    names = [f.name for f in fields(ModelArguments) if f.name in SGMConfig.__dataclass_fields__]
    return {name: getattr(model_args, name) for name in names if getattr(model_args, name) is not None}


def build_model(train: Dataset, tokenizer: SGMTokenizer, model_args: ModelArguments) -> SGMForMultiLabelGeneration:
    """A new model for the labels of the training split.

    Raises:
        ValueError: If `SGMConfig` refuses the settings.
    """
    label_order = model_args.label_order or "frequency"
    names = order_label_names(label_sets_of(train), train.features["labels"].feature.names, label_order)
    try:
        config = SGMConfig(
            **model_settings(model_args),
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            id2label=dict(enumerate(names)),
        )
    except StrictDataclassError as error:
        raise ValueError(f"the model cannot be made with these settings: {' '.join(str(error).split())}") from error
    return SGMForMultiLabelGeneration(config)


def check_contradictions(model_args: ModelArguments, config: SGMConfig, source: str) -> None:
    """Refuse settings of a new model beside a model that has others.

    Args:
        model_args: The settings given.
        config: Those that the model has.
        source: Where it is from.

    Raises:
        ValueError: If there are any.
    """
    other = {name: value for name, value in model_settings(model_args).items() if getattr(config, name) != value}
    if other:
        listed = ", ".join(f"--{name} {value} (it has {getattr(config, name)})" for name, value in other.items())
        raise ValueError(
            f"the model of {source} is not made with {listed}; leave these options out, or train a new model."
        )


def match_labels(model: SGMForMultiLabelGeneration, data_args: DataArguments, add_labels: bool) -> None:
    """Add the training data's new labels to a checkpoint's model, most frequent first, or refuse them.

    Raises:
        ValueError: If there are any and they are not to be added.
    """
    own_files = {"validation_file": None, "test_file": None}
    train = load_splits(replace(data_args, **own_files), None)["train"]
    names = order_label_names(label_sets_of(train), train.features["labels"].feature.names, "frequency")
    unknown = [name for name in names if name not in model.config.label2id]
    if unknown and not add_labels:
        raise ValueError(
            f"the training data has {len(unknown)} label(s) that the model of --model_name_or_path does not have, "
            f"first {min(unknown)!r}; add them with --add_labels true, or train a new model by leaving "
            "--model_name_or_path out."
        )
    if unknown:
        model.add_labels(unknown)
        logger.info("labels added to the model: %s", ", ".join(unknown))


def set_generation(model: SGMForMultiLabelGeneration, model_args: ModelArguments) -> None:
    """Keep the generation settings given on the command line in the model's generation config.

    Raises:
        ValueError: If the model cannot generate so.
    """
    if model_args.max_labels is not None and model_args.max_labels > model.config.num_labels:
        raise ValueError(
            f"--max_labels is {model_args.max_labels}, but there are {model.config.num_labels} labels; give no "
            "more, or leave it out."
        )
    for name in ("num_beams", "set_decoding", "label_threshold", "max_labels"):
        value = getattr(model_args, name)
        if value is not None:
            setattr(model.generation_config, name, value)
    check_label_threshold(model_args, model.generation_config.set_decoding)
    if model.generation_config.num_beams == 1:
        model.generation_config.length_penalty = None  # no beams, no penalty: a config that has one cannot be saved
    model.rename_set_decoding()


# ---- what is done ----


def train(trainer: SGMTrainer) -> dict[str, float]:
    """Train, save model and tokenizer, and return the training's metrics."""
    metrics = dict(trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint).metrics)
    trainer.save_model()
    return metrics


def write_predictions(
    path: Path, dataset: Dataset, output: SGMPredictionOutput, trainer: SGMTrainer, names: Sequence[str]
) -> None:
    """Write a JSON line a document: id, chosen labels with their scores, gold labels, those of each decoding.

    Args:
        path: The file.
        dataset: The documents as they were before encoding.
        output: Their predictions.
        trainer: The trainer that made them.
        names: Label names by id.
    """
    decodings = {decoding: trainer.label_sets(output.predictions, decoding) for decoding in SET_DECODINGS}
    gold = label_sets_of(dataset) if "labels" in dataset.column_names else None
    ids = dataset["id"] if "id" in dataset.column_names else range(len(dataset))
    lines = []
    for row, document in enumerate(ids):
        labels = output.label_sets[row]
        scores = output.predictions.label_scores[row]
        record = {
            "id": document,
            "labels": [names[label] for label in labels],
            "scores": [round(float(scores[label]), 6) for label in labels],
            **({"gold": gold[row]} if gold is not None else {}),
            **{decoding: [names[label] for label in sets[row]] for decoding, sets in decodings.items()},
        }
        lines.append(json.dumps(record, ensure_ascii=False))
    write_text_atomically(path, "\n".join(lines) + "\n")


def draw_attention(trainer: SGMTrainer, splits: dict[str, Dataset], data_args: DataArguments) -> None:
    """Draw the attention of the first predicted documents into `attention_<split>`: `1.html`, `1.png`, `1.svg`, …

    Args:
        trainer: The trainer that wrote the predictions.
        splits: The splits as loaded.
        data_args: Number of documents, and length at which they were cut.
    """
    from sgm_hf.analysis.attention import attention_page, label_attention, plot_attention

    split = "test" if "test" in splits else "validation"
    output_dir = Path(trainer.args.output_dir)
    folder = output_dir / f"attention_{split}"
    folder.mkdir(exist_ok=True)
    lines = (output_dir / f"predictions_{split}.jsonl").read_text(encoding="utf-8").split("\n")
    count = min(data_args.attention_figures, len(splits[split]))
    for number, (text, line) in enumerate(zip(splits[split]["text"][:count], lines[:count], strict=True), start=1):
        record = json.loads(line)
        label_ids = [trainer.model.config.label2id[label] for label in record["labels"]]
        attention = label_attention(trainer.model, trainer.tokenizer, text, label_ids, data_args.max_length)
        entries = zip(record["labels"], record["scores"], attention, strict=True)
        prediction = [{"label": label, "score": score, "attention": words} for label, score, words in entries]
        title = f"Document {record['id']}"
        if "gold" in record:
            title += f", true labels: {', '.join(record['gold']) or 'none'}"
        write_text_atomically(folder / f"{number}.html", attention_page(text, prediction, title))
        if any(attention):
            plot_attention(prediction, folder / str(number), title)
    logger.info("attention of %d documents drawn into %s", count, folder)


def score_split(trainer: SGMTrainer, split: str, raw: Dataset, encoded: Dataset, write: bool) -> dict[str, float]:
    """Predict one split, write its predictions if asked, and return its metrics without a prefix."""
    output = trainer.predict(encoded, metric_key_prefix=split)
    if write and trainer.is_world_process_zero():
        path = Path(trainer.args.output_dir, f"predictions_{split}.jsonl")
        names = [trainer.model.config.id2label[label] for label in range(trainer.model.config.num_labels)]
        write_predictions(path, raw, output, trainer, names)
        logger.info("predictions written to %s", path)
    return {name.removeprefix(f"{split}_"): value for name, value in output.metrics.items()}


def score_splits(
    trainer: SGMTrainer, raw: dict[str, Dataset], encoded: dict[str, Dataset], write: bool
) -> dict[str, dict]:
    """Evaluate the validation split (--do_eval) and predict the test split (--do_predict), else the validation split.

    Args:
        trainer: Has the model.
        raw: The splits as loaded.
        encoded: The splits as encoded.
        write: Whether to write the predictions, where --do_predict asks for them.

    Returns:
        The metrics of each split.
    """
    wanted = {"validation": trainer.args.do_eval, "test": False}
    wanted["test" if "test" in encoded else "validation"] |= trainer.args.do_predict
    return {
        split: score_split(trainer, split, raw[split], encoded[split], write and trainer.args.do_predict)
        for split in wanted
        if wanted[split] and split in encoded
    }


def summarise(
    arguments: tuple[ModelArguments, DataArguments, SGMTrainingArguments],
    trainer: SGMTrainer,
    splits: dict[str, Dataset],
    train_metrics: dict[str, float],
    metrics: dict[str, dict],
) -> dict[str, Any]:
    """Everything worth keeping of a run, in sections."""
    model_args, data_args, training_args = arguments
    given = {**vars(model_args), **vars(data_args)}
    trained = training_args.to_dict() if training_args.do_train else {}
    return {
        "data": {
            "name": data_args.dataset_name or data_args.train_file or data_args.test_file or data_args.validation_file,
            **{f"{split}_documents": len(dataset) for split, dataset in splits.items()},
        },
        "model": describe_model(trainer.model),
        "generation": describe_generation(trainer.model),
        "settings": {name: value for name, value in given.items() if value is not None}
        | {"precision": training_args.precision}
        | {name: value for name, value in trained.items() if name in TRAINING_FIELDS},
        "training": describe_training(trainer.state, train_metrics, trainer.resumptions),
        "machine": describe_machine(),
        "versions": package_versions(),
        "metrics": metrics,
        "history": epoch_history(trainer.state.log_history),
    }


def write_results(
    output_dir: Path, train_metrics: dict[str, float], metrics: dict[str, dict], summary: dict[str, Any]
) -> None:
    """Write `all_results.json` (flat, as Transformers' examples do), `summary.json` and `summary.txt`."""
    flat = dict(train_metrics)
    for split, values in metrics.items():
        flat |= {f"{split}_{name}": value for name, value in values.items()}
    write_text_atomically(output_dir / "all_results.json", json.dumps(flat, indent=2) + "\n")
    write_summary(summary, output_dir)


def describe_data(data_args: DataArguments) -> dict[str, Any]:
    """What the model card says of the data: a corpus' title and language, or the name of the user's file."""
    if data_args.dataset_name is None:
        file = data_args.train_file or data_args.test_file or data_args.validation_file
        return {"dataset": Path(str(file)).stem}
    card = DatasetCard.load(CARDS / f"{data_args.dataset_name}.md").data
    return {"dataset": card.pretty_name, "language": card.language, "dataset_args": data_args.dataset_config}


def publish(trainer: SGMTrainer, data_args: DataArguments) -> None:
    """Write the model card of a trained model; with --push_to_hub send it, the model and the results to the Hub."""
    if trainer.args.push_to_hub:
        trainer.push_to_hub(**describe_data(data_args))
    elif trainer.args.do_train:
        trainer.create_model_card(**describe_data(data_args))


def build_trainer(
    arguments: tuple[ModelArguments, DataArguments, SGMTrainingArguments], trainer_class: type[SGMTrainer] = SGMTrainer
) -> tuple[SGMTrainer, dict[str, Dataset], dict[str, Dataset]]:
    """Load the data and the model, or make a new one, and put them into a trainer of a class.

    Returns:
        The trainer, the splits as loaded, and the splits as encoded.
    """
    model_args, data_args, training_args = arguments
    checkpoint = model_args.model_name_or_path
    model = tokenizer = names = None
    if checkpoint is not None:
        model, tokenizer = load_checkpoint(checkpoint)
        check_contradictions(model_args, model.config, checkpoint)
        if training_args.do_train:
            match_labels(model, data_args, model_args.add_labels)
        names = list(model.config.id2label.values())
    logger.info("reading the documents")
    splits = arrange_splits(load_splits(data_args, names), data_args)
    if model is None:
        tokenizer = build_tokenizer(splits["train"], data_args)
        model = build_model(splits["train"], tokenizer, model_args)
    if model_args.freeze_encoder:
        model.freeze_encoder()
    set_generation(model, model_args)
    label_names = [model.config.id2label[label] for label in range(model.config.num_labels)]
    encoded = encode_splits(splits, tokenizer, label_names, data_args, training_args.do_train)
    trainer = trainer_class(
        model,
        training_args,
        train_dataset=encoded.get("train"),
        eval_dataset=encoded.get("validation"),
        threshold_dataset=encoded.get("threshold"),
        processing_class=tokenizer,
    )
    return trainer, splits, encoded


def check_tasks(model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments) -> None:
    """Refuse a checkpoint with a training file and no word of what to do with it.

    Raises:
        ValueError: If that is so.
    """
    asked = training_args.do_train or training_args.do_eval or training_args.do_predict
    if not asked and model_args.model_name_or_path is not None and data_args.train_file is not None:
        raise ValueError(
            "--train_file with --model_name_or_path: give --do_train true to go on with the model's training, or "
            "--do_eval true to evaluate the model on a part of that file."
        )


def prepare(model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments) -> None:
    """Set up logging, complete and check the settings, and make the process ready to train."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S", level="INFO")
    transformers_logging.set_verbosity_warning()
    transformers_logging.disable_progress_bar()
    check_tasks(model_args, data_args, training_args)
    choose_tasks(model_args, training_args)
    choose_data(model_args, data_args)
    check_settings(model_args, data_args, training_args)
    if training_args.do_train:
        training_args.resume_from_checkpoint = find_checkpoint(
            training_args.resume_from_checkpoint, training_args.output_dir
        )
    prepare_cpu(data_args.num_threads)
    set_seed(training_args.seed)


def report(
    arguments: tuple[ModelArguments, DataArguments, SGMTrainingArguments],
    trainer: SGMTrainer,
    splits: dict[str, Dataset],
    encoded: dict[str, Dataset],
    train_metrics: dict[str, float],
    metrics: dict[str, dict],
    before: dict[str, dict] | None = None,
) -> None:
    """On the main process write the results and the summary, draw the attention if asked, and print the summary.

    Args:
        arguments: The settings.
        trainer: The trainer, which has trained and predicted.
        splits: The splits as loaded.
        encoded: The splits as encoded.
        train_metrics: What training gave.
        metrics: The metrics of each split.
        before: Those of the checkpoint that training went on from; default None, they were not measured.
    """
    if not trainer.is_world_process_zero():
        return
    summary = summarise(arguments, trainer, encoded, train_metrics, metrics)
    if before is not None:
        summary["metrics_before"] = before
        metrics = {f"before_{split}": values for split, values in before.items()} | metrics
    write_results(Path(trainer.args.output_dir), train_metrics, metrics, summary)
    data_args = arguments[1]
    if data_args.attention_figures:
        draw_attention(trainer, splits, data_args)
    print(summary_text(summary))


def run(
    model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments
) -> tuple[SGMTrainer, dict[str, dict]]:
    """Train, evaluate and predict as the settings say.

    Returns:
        The trainer, and the metrics of each split that was evaluated or predicted.
    """
    parsed = (model_args, data_args, training_args)
    prepare(*parsed)
    with one_run_in(training_args):
        trainer, splits, encoded = build_trainer(parsed)
        logger.info("documents: %s", ", ".join(f"{split} {len(dataset):,}" for split, dataset in encoded.items()))
        train_metrics = train(trainer) if training_args.do_train else {}
        metrics = score_splits(trainer, splits, encoded, write=True)
        report(parsed, trainer, splits, encoded, train_metrics, metrics)
        publish(trainer, data_args)
        trainer.accelerator.wait_for_everyone()
    return trainer, metrics


def one_run_in(training_args: SGMTrainingArguments) -> AbstractContextManager[None]:
    """Keep other processes out of the output folder, on behalf of all processes of this run."""
    return alone_in(training_args.output_dir) if training_args.should_save else nullcontext()


def main(arguments: Sequence[str] | None = None) -> dict[str, dict]:
    """Run the program.

    Args:
        arguments: The command line without the program's name; default the process' own.

    Returns:
        The metrics of each split that was evaluated or predicted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parsed = parse_arguments(arguments)
    with exit_on_signals([sys.argv[0], *arguments], parsed[2].output_dir):
        trainer, metrics = run(*parsed)
        trainer.accelerator.end_training()
    return metrics


if __name__ == "__main__":
    run_main(main)
