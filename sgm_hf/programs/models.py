"""The model and tokenizer of a run: those of a checkpoint, or new ones for the training documents."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    ImageProcessingMixin,
    PreTrainedTokenizerBase,
)

from sgm_hf.baselines.base import BASELINE_FILE
from sgm_hf.data.encoding import special_tokens_around
from sgm_hf.data.hierarchy import parents_of_labels, read_label_hierarchy, with_ancestors
from sgm_hf.data.labels import label_sets_of, order_label_names, read_label_texts
from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.modeling.pipeline_sgm import check_vocabulary
from sgm_hf.programs.checks import check_label_threshold
from sgm_hf.programs.settings import WORD_OPTIONS, DataArguments, GenerationOptions, ModelArguments, model_settings
from sgm_hf.programs.splits import load_splits
from sgm_hf.training.lora import add_lora
from sgm_hf.training.progress import with_lines
from sgm_hf.training.vectors import ppmi_vectors, set_word_vectors, vectors_from_file

logger = logging.getLogger(__name__)

# What makes a model's inputs of documents: a tokenizer, or an image processor, of which no type is known.
Reader: TypeAlias = Any


def check_model_name(name: str) -> None:
    """Refuse a folder that does not exist, for which the Hub would be asked in vain and for half a minute.

    Raises:
        FileNotFoundError: If the name is that of a folder in an existing one, and of no model of the Hub that is here.
        ValueError: If the folder has a baseline.
    """
    if (Path(name) / BASELINE_FILE).is_file():
        baseline = json.loads((Path(name) / BASELINE_FILE).read_text(encoding="utf-8")).get("baseline", "NAME")
        raise ValueError(
            f"{name} has the baseline {baseline}, not a model; it labels a file by sgm-hf baseline {baseline} "
            f"--do_train false --do_eval false --test_file FILE --output_dir {name}."
        )
    folder = Path(name).parent
    if Path(name).is_dir() or str(folder) == "." or not folder.is_dir():
        return
    may_be_on_hub = len(Path(name).parts) == 2 and not Path(name).is_absolute()
    if may_be_on_hub and try_to_load_from_cache(name, "config.json"):
        return
    others = sorted(path.name for path in folder.iterdir() if (path / "config.json").is_file())
    advice = f"the models in {folder} are {', '.join(others)}" if others else f"{folder} has no model"
    of_hub = f" A model of the Hub of this name is taken after hf download {name}." if may_be_on_hub else ""
    raise FileNotFoundError(f"there is no model {name}: {advice}.{of_hub}")


def reads_images(name: str | None) -> bool:
    """Whether a checkpoint, or an encoder, reads images.

    Args:
        name: Folder, name on the Hub, or a configuration's .json file; None is that of no encoder.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if name is None:
        return False
    check_model_name(str(Path(name).parent) if name.endswith(".json") else name)
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError):
        return False  # what loads the model says what is wrong with it
    config = config.encoder_config if isinstance(config, SGMConfig) else config
    classes = MODEL_MAPPING.get(type(config), None)  # some configurations have several
    return getattr(classes[0] if isinstance(classes, tuple) else classes, "main_input_name", None) == "pixel_values"


def load_checkpoint(name: str) -> tuple[SGMForMultiLabelGeneration, Reader]:
    """Load a checkpoint's model and its tokenizer, or the image processor of a model that reads images.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the tokenizer does not have the model's number of words, or more than a pre-trained encoder.
    """
    check_model_name(name)
    try:
        model = SGMForMultiLabelGeneration.from_pretrained(name)
        if model.encoder.main_input_name == "pixel_values":
            return model, AutoImageProcessor.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except OSError as error:
        raise FileNotFoundError(
            f"{name} is neither a folder with a model and its tokenizer or image processor nor a model on the Hub "
            f"that can be reached: {' '.join(str(error).split())}"
        ) from error
    check_vocabulary(len(tokenizer), model.config, f"the tokenizer of {name}")
    return model, tokenizer


def build_tokenizer(train: Dataset, data_args: DataArguments, encoder: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer with the vocabulary of the training split; that of a pre-trained encoder where there is one."""
    if encoder is not None:
        return load_encoder_tokenizer(encoder, data_args.max_length)
    logger.info("making the vocabulary of %s documents", f"{len(train):,}")
    return SGMTokenizer.train_from_texts(
        with_lines(train["text"], len(train), "Counting words"),
        model_max_length=data_args.max_length,
        **{name: getattr(data_args, name) for name in WORD_OPTIONS},
    )


def load_encoder_tokenizer(name: str, max_length: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a pre-trained encoder.

    Args:
        name: Folder, name on the Hub, or a configuration in a folder with a tokenizer.
        max_length: Tokens after which it cuts a text.

    Raises:
        FileNotFoundError: If there is none.
    """
    folder = str(Path(name).parent) if name.endswith(".json") else name
    check_model_name(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=max_length)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"--encoder_name_or_path {name}: {folder} has no tokenizer that can be read, or is not on the Hub or not "
            f"in reach: {' '.join(str(error).split())}"
        ) from error
    tokenizer.padding_side = "right"
    return tokenizer


def load_image_processor(name: str) -> ImageProcessingMixin:
    """The image processor of an encoder of images; arguments and errors as of `load_encoder_tokenizer`."""
    folder = str(Path(name).parent) if name.endswith(".json") else name
    try:
        return AutoImageProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"--encoder_name_or_path {name} reads images, but {folder} has no image processor that can be read: "
            f"{' '.join(str(error).split())}"
        ) from error


def build_model(
    train: Dataset,
    tokenizer: Reader,
    model_args: ModelArguments,
    parents: Mapping[str, str] | None = None,
) -> SGMForMultiLabelGeneration:
    """A new model for the labels of the training split.

    Args:
        train: The training split.
        tokenizer: The model's tokenizer, or its image processor.
        model_args: The model settings.
        parents: The parent of each label that has one, where there is a hierarchy: it orders the labels, unless the
            settings say otherwise, and the model generates a label only after its ancestors.

    Raises:
        FileNotFoundError: If there is no such encoder.
        ValueError: If `SGMConfig` refuses the settings, or the encoder reads neither texts nor images.
    """
    settings = model_settings(model_args)
    if parents is not None:
        settings.setdefault("label_order", "hierarchical")
    label_order = settings.get("label_order", SGMConfig.label_order)
    names = order_label_names(label_sets_of(train), train.features["labels"].feature.names, label_order, parents)
    settings["id2label"] = dict(enumerate(names))
    try:
        if model_args.encoder_name_or_path is not None:
            model = build_around_encoder(model_args.encoder_name_or_path, tokenizer, settings)
        else:
            words = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
            model = SGMForMultiLabelGeneration(SGMConfig(**settings, **words))
    except StrictDataclassError as error:
        raise ValueError(f"the model cannot be made with these settings: {' '.join(str(error).split())}") from error
    if parents is not None:
        model.generation_config.label_hierarchy = dict(parents)
    return model


def build_around_encoder(name: str, tokenizer: Reader, settings: dict[str, Any]) -> SGMForMultiLabelGeneration:
    """A new model around a pre-trained encoder, or around a random one of which there is the configuration only.

    Args:
        name: Folder or name on the Hub; of a configuration its .json file.
        tokenizer: The encoder's, or its image processor.
        settings: Of `SGMConfig`.

    Raises:
        FileNotFoundError: If there is no such encoder.
        ValueError: If it reads neither texts nor images, or lacks words of the tokenizer.
    """
    images = isinstance(tokenizer, ImageProcessingMixin)
    settings = {field: value for field, value in settings.items() if field != "encoder"}
    if not images:
        settings["encoder_special_tokens"] = list(special_tokens_around(tokenizer))
    try:
        if name.endswith(".json"):
            config = SGMConfig(encoder="pretrained", encoder_config=AutoConfig.from_pretrained(name), **settings)
            model = SGMForMultiLabelGeneration(config)
        else:
            model = SGMForMultiLabelGeneration.from_encoder_pretrained(name, **settings)
    except OSError as error:
        raise FileNotFoundError(
            f"--encoder_name_or_path {name} is no model of Transformers with weights in safetensors that can be read: "
            f"{' '.join(str(error).split())}"
        ) from error
    if model.encoder.main_input_name != ("pixel_values" if images else "input_ids"):
        raise ValueError(
            f"--encoder_name_or_path {name} reads {model.encoder.main_input_name}; give one of texts or of images."
        )
    if images:
        return model
    check_vocabulary(len(tokenizer), model.config, f"the tokenizer of {name}")
    return model


def parents_of(data_args: DataArguments, names: Sequence[str]) -> dict[str, str] | None:
    """The parent of each of these labels that has one, or None where no hierarchy is given.

    Raises:
        ValueError: If the hierarchy cannot be read, or does not fit the labels.
    """
    if data_args.label_hierarchy is None:
        return None
    return parents_of_labels(read_label_hierarchy(data_args.label_hierarchy), names)


def warn_of_targets(train: Dataset, config: SGMConfig, parents: Mapping[str, str]) -> None:
    """Warn where training shows what generation under the hierarchy never does."""
    ids = config.label2id
    sorts = config.label_order not in ("shuffled", "given")
    if not sorts or any(ids[parent] > ids[child] for child, parent in parents.items()):
        logger.warning(
            "the model learns its labels in the order %s, in which labels come before their ancestors, but generates "
            "ancestors first; a new model does both with --label_order hierarchical",
            config.label_order,
        )
    label_sets = label_sets_of(train)
    lacking = sum(len(with_ancestors(labels, parents)) > len(labels) for labels in label_sets)
    if lacking:
        logger.warning(
            "%s of %s training documents lack ancestors of their labels, which generation always adds; "
            "--add_ancestors true adds them to the training documents",
            f"{lacking:,}",
            f"{len(label_sets):,}",
        )


def set_initial_vectors(
    model: SGMForMultiLabelGeneration,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    initial_vectors: str,
    seed: int,
) -> None:
    """Give a new model the word vectors that it begins with, the same in all processes; pre-trained ones stay.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        train: The encoded training split.
        initial_vectors: "ppmi", "none" (the random ones that the model has), or a file.
        seed: Of what is random in them.

    Raises:
        ValueError: If the file's vectors cannot be used, see `vectors_from_file`.
    """
    if initial_vectors == "none" or model.config.encoder == "pretrained":
        return
    size = model.config.embedding_size
    made: list[torch.Tensor | None] = [None]
    if PartialState().is_main_process:
        if initial_vectors == "ppmi":
            made = [ppmi_vectors(train, len(tokenizer), size, pad_token_id=tokenizer.pad_token_id, seed=seed)]
        else:
            made = [vectors_from_file(initial_vectors, tokenizer, size, seed)]
    # Another number of threads rounds otherwise, so one process makes them for all.
    set_word_vectors(model, broadcast_object_list(made)[0])


def set_initial_labels(
    model: SGMForMultiLabelGeneration, tokenizer: PreTrainedTokenizerBase, label_texts: str | None
) -> None:
    """Give a new model labels that are like their texts; call it when it has its word vectors.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        label_texts: The file of texts, see `read_label_texts`; nothing is done without one.
    """
    if label_texts is None:
        return
    texts = read_label_texts(label_texts, list(model.config.label2id))
    count = model.set_label_texts(texts, tokenizer)
    logger.info(
        "%d of %d labels have a text, %d of them or of the names have known words",
        len(texts),
        model.config.num_labels,
        count,
    )


def check_contradictions(model_args: ModelArguments, config: SGMConfig, source: str) -> None:
    """Refuse settings that a model does not have.

    Args:
        model_args: The settings given.
        config: The model's.
        source: Where the model is from, for the error.

    Raises:
        ValueError: If there are any.
    """
    other = {name: value for name, value in model_settings(model_args).items() if getattr(config, name) != value}
    if other:
        listed = ", ".join(f"--{name} {value} (it has {getattr(config, name)})" for name, value in other.items())
        raise ValueError(
            f"the model of {source} is not made with {listed}; leave these options out, or train a new model."
        )


def match_labels(
    model: SGMForMultiLabelGeneration,
    tokenizer: Reader,
    data_args: DataArguments,
    model_args: ModelArguments,
) -> None:
    """Add the training data's new labels to a checkpoint's model, most frequent first, or refuse them.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        data_args: The data settings.
        model_args: Say whether labels are added, and which texts they have.

    Raises:
        ValueError: If there are any and they are not to be added.
    """
    images = isinstance(tokenizer, ImageProcessingMixin)
    splits = load_splits(replace(data_args, validation_file=None, test_file=None), None, images)
    if "train" not in splits:
        raise ValueError(f"--do_train needs training documents: --dataset_name {data_args.dataset_name} has none.")
    train = splits["train"]
    names = order_label_names(label_sets_of(train), train.features["labels"].feature.names, "frequency")
    unknown = [name for name in names if name not in model.config.label2id]
    if unknown and not model_args.add_labels:
        raise ValueError(
            f"the training data has {len(unknown)} label(s) that the model of --model_name_or_path does not have, "
            f"first {min(unknown)!r}; add them with --add_labels true, or train a new model by leaving "
            "--model_name_or_path out."
        )
    if unknown:
        texts = None
        if model_args.label_texts is not None:
            texts = read_label_texts(model_args.label_texts, [*model.config.label2id, *unknown])
        model.add_labels(unknown, texts, tokenizer)
        logger.info("labels added to the model: %s", ", ".join(unknown))


def set_trained_part(model: SGMForMultiLabelGeneration, model_args: ModelArguments) -> None:
    """Freeze the encoder, or put adapters into it, where the settings say so."""
    if model_args.freeze_encoder:
        model.freeze_encoder()
    if model_args.lora_rank is not None:
        add_lora(model, model_args.lora_rank, model_args.lora_alpha, model_args.lora_dropout)


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
    for name in (f.name for f in fields(GenerationOptions)):
        value = getattr(model_args, name)
        if value is not None:
            setattr(model.generation_config, name, value)
    check_label_threshold(model_args, model.generation_config.set_decoding)
    if model.generation_config.num_beams == 1:
        model.generation_config.length_penalty = None  # no beams, no penalty: a config that has one cannot be saved
    model.rename_set_decoding()
