"""The documents of a run: loaded, split into training, validation, threshold and test documents, and encoded."""

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from transformers import ImageProcessingMixin, PreTrainedTokenizerBase

from sgm_hf.data.encoding import encode_dataset
from sgm_hf.data.files import load_files
from sgm_hf.data.hierarchy import add_ancestors, read_label_hierarchy
from sgm_hf.data.images import encode_images, load_images
from sgm_hf.data.stratification import stratified_rows
from sgm_hf.datasets_scripts import CORPORA, load
from sgm_hf.programs.settings import FILE_OPTIONS, DataArguments, is_given

logger = logging.getLogger(__name__)

# What data sets call their splits, besides the three names that are ours.
OTHER_SPLIT_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}


def load_splits(data_args: DataArguments, label_names: Sequence[str] | None, images: bool = False) -> DatasetDict:
    """The published splits of a named corpus, or those of the user's files or data set.

    With --add_ancestors the training documents have all ancestors of their labels.

    Args:
        data_args: The data settings.
        label_names: The labels of the checkpoint to start from; default those of the training data.
        images: Whether the documents are images, and not texts.
    """
    splits = read_splits(data_args, label_names, images)
    if data_args.add_ancestors and "train" in splits:
        hierarchy = read_label_hierarchy(str(data_args.label_hierarchy))
        splits["train"], documents, labels = add_ancestors(splits["train"], hierarchy)
        logger.info(
            "%s of %s training documents lacked ancestors of their labels and got %s labels",
            *(f"{count:,}" for count in (documents, len(splits["train"]), labels)),
        )
    return splits


def read_splits(data_args: DataArguments, label_names: Sequence[str] | None, images: bool = False) -> DatasetDict:
    """The splits as they were written; arguments as of `load_splits`.

    Raises:
        ValueError: If a corpus has texts where images are wanted, or the other way round.
    """
    if data_args.dataset_name in CORPORA:
        splits = load(data_args.dataset_name, config=data_args.dataset_config, data_dir=data_args.data_dir)
        columns = next(iter(splits.values())).column_names
        wanted = "image" if images else "text"
        if wanted not in columns:
            raise ValueError(
                f"the model reads {wanted}s, but the documents of --dataset_name {data_args.dataset_name} have "
                f"{', '.join(columns)}; give another --dataset_config (coco has captions_2017 and images_2017), or an "
                "encoder that reads them."
            )
        return splits
    files = {f"{split}_file": getattr(data_args, f"{split}_file") for split in ("train", "validation", "test")}
    if data_args.dataset_name is not None:
        files = {f"{split}_file": dataset for split, dataset in load_named_dataset(data_args).items()}
    layout = {name: getattr(data_args, name) for name in FILE_OPTIONS}
    known: dict[str, Any] = {"label_names": label_names, "unknown_labels": data_args.unknown_labels}
    if images:
        return load_images(**files, image_column=data_args.image_column, **known, **layout)
    return load_files(**files, **known, **layout)


def load_named_dataset(data_args: DataArguments) -> dict[str, Dataset]:
    """The splits of a data set of the Hub, or of a folder of files or of one that `save_to_disk` has written.

    Returns:
        Those among "train", "validation" and "test" that there are.

    Raises:
        FileNotFoundError: If there is no such data set, or the Hub cannot be reached.
        ValueError: If it cannot be read, or has none of these splits.
    """
    name = str(data_args.dataset_name)
    options = (data_args.dataset_config, data_args.data_dir)
    try:
        if (Path(name) / "dataset_dict.json").is_file() or (Path(name) / "state.json").is_file():
            loaded = load_from_disk(name)
        else:
            loaded = load_dataset(name, *options, revision=data_args.dataset_revision)
    except OSError as error:
        nearest = difflib.get_close_matches(name, CORPORA, n=1)
        hint = f"did you mean {nearest[0]}? Named corpora are" if nearest else "named corpora are"
        raise FileNotFoundError(
            f"--dataset_name {name} is neither a named corpus nor a folder of data files nor a data set of the Hub "
            f"that can be reached ({one_line(error)}); {hint} {', '.join(CORPORA)}."
        ) from error
    except (DatasetsError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"--dataset_name {name} cannot be read ({one_line(error)}); check --dataset_config, --dataset_revision "
            "and --data_dir, or give its files with --train_file."
        ) from error
    found = loaded if isinstance(loaded, DatasetDict) else {"train": loaded}
    splits = {OTHER_SPLIT_NAMES.get(split, split): dataset for split, dataset in found.items()}
    known = {split: splits[split] for split in ("train", "validation", "test") if split in splits}
    if not known:
        raise ValueError(
            f"--dataset_name {name} has the splits {', '.join(found)}: expected train, validation or test. Save the "
            "right one as a file, e.g. with its method to_parquet, and give that with --train_file."
        )
    if len(known) < len(found):
        logger.warning("of the splits %s of %s only train, validation and test are read", ", ".join(found), name)
    return known


def one_line(error: Exception) -> str:
    """The first line of an error's message, without its last full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def split_off(dataset: Dataset, size: float, seed: int, name: str, method: str = "random") -> tuple[Dataset, Dataset]:
    """Split a part off a data set.

    Args:
        dataset: The data, with labels if the split is stratified.
        size: Share (below 1) or number of documents of the part.
        seed: Seed of the choice.
        name: Setting that gave the size, for the error message.
        method: "random", or "stratified": both parts have each label's share of the documents.

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
    if method == "stratified":
        part = set(stratified_rows(dataset["labels"][:], count, seed))
    else:
        part = set(torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:count].tolist())
    return dataset.select([row for row in range(len(dataset)) if row not in part]), dataset.select(sorted(part))


def leave_out_long(train: Dataset, max_words: int) -> Dataset:
    """Leave out documents of more words than `max_words`, as white space separates them, and say how many.

    Raises:
        ValueError: If none is left.
    """
    rows = [row for row, text in enumerate(train["text"]) if len((text or "").split()) <= max_words]
    logger.info(
        "--max_train_words %d: %s of %s training documents have more words and are left out",
        *(max_words, f"{len(train) - len(rows):,}", f"{len(train):,}"),
    )
    if not rows:
        raise ValueError(f"--max_train_words {max_words} leaves out all {len(train)} training documents; raise it.")
    return train.select(rows)


def arrange_splits(splits: DatasetDict, data_args: DataArguments) -> dict[str, Dataset]:
    """Add a validation split and a threshold split, both from the training split, and shorten splits where asked.

    Returns:
        Splits among "train", "validation", "threshold" and "test".
    """
    arranged, sizes = dict(splits), {}
    if data_args.max_train_words is not None and "train" in arranged:
        arranged["train"] = leave_out_long(arranged["train"], data_args.max_train_words)
    if "validation" not in arranged:
        sizes["validation"] = "validation_split_size"
    elif is_given("validation_split_size", data_args):
        logger.warning("--validation_split_size has no effect: there is a validation split")
    if data_args.threshold_split_size > 0:
        sizes["threshold"] = "threshold_split_size"
    if "train" in arranged:
        for split, name in sizes.items():
            size = getattr(data_args, name)
            arranged["train"], arranged[split] = split_off(
                arranged["train"], size, data_args.split_seed, name, data_args.split_method
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
    tokenizer: PreTrainedTokenizerBase | ImageProcessingMixin,
    label_names: Sequence[str],
    data_args: DataArguments,
    do_train: bool,
) -> dict[str, Dataset]:
    """Encode each split that is used: the training and the threshold split only if there is training."""
    logger.info("encoding the documents")
    of_training = ("train", "threshold")
    used = {split: dataset for split, dataset in splits.items() if do_train or split not in of_training}
    if isinstance(tokenizer, ImageProcessingMixin):
        return {
            split: encode_images(dataset, tokenizer, label_names, split in of_training, data_args.unknown_labels)
            for split, dataset in used.items()
        }
    longest = tokenizer.model_max_length
    if data_args.max_length > longest and is_given("max_length", data_args):
        logger.warning(
            "--max_length %d: texts are cut at %d words, as when the model was made", data_args.max_length, longest
        )
    return {
        split: encode_dataset(
            dataset,
            tokenizer,
            label_names,
            max_length=min(data_args.max_length, longest),
            training=split in of_training,
            unknown_labels=data_args.unknown_labels,
        )
        for split, dataset in used.items()
    }
