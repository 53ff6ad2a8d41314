"""The documents of a run: loaded, split into training, validation, threshold and test documents, and encoded."""

import logging
from collections.abc import Sequence

import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from sgm_hf.data.encoding import encode_dataset
from sgm_hf.data.files import load_files
from sgm_hf.datasets_scripts import load
from sgm_hf.programs.settings import FILE_OPTIONS, DataArguments, is_given

logger = logging.getLogger(__name__)


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
        label_names=label_names,
        unknown_labels=data_args.unknown_labels,
        **{name: getattr(data_args, name) for name in FILE_OPTIONS},
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
    part = set(torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:count].tolist())
    return dataset.select([row for row in range(len(dataset)) if row not in part]), dataset.select(sorted(part))


def arrange_splits(splits: DatasetDict, data_args: DataArguments) -> dict[str, Dataset]:
    """Add a validation split and a threshold split, both from the training split, and shorten splits where asked.

    Returns:
        Splits among "train", "validation", "threshold" and "test".
    """
    arranged, sizes = dict(splits), {}
    if "validation" not in arranged:
        sizes["validation"] = "validation_split_size"
    elif is_given("validation_split_size", data_args):
        logger.warning("--validation_split_size has no effect: there is a validation split")
    if data_args.threshold_split_size > 0:
        sizes["threshold"] = "threshold_split_size"
    if "train" in arranged:
        for split, name in sizes.items():
            size = getattr(data_args, name)
            arranged["train"], arranged[split] = split_off(arranged["train"], size, data_args.split_seed, name)
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
    tokenizer: PreTrainedTokenizerBase,
    label_names: Sequence[str],
    data_args: DataArguments,
    do_train: bool,
) -> dict[str, Dataset]:
    """Encode each split that is used: the training and the threshold split only if there is training."""
    logger.info("encoding the documents")
    longest = tokenizer.model_max_length
    if data_args.max_length > longest and is_given("max_length", data_args):
        logger.warning(
            "--max_length %d: texts are cut at %d words, as when the model was made", data_args.max_length, longest
        )
    of_training = ("train", "threshold")
    return {
        split: encode_dataset(
            dataset,
            tokenizer,
            label_names,
            max_length=min(data_args.max_length, longest),
            training=split in of_training,
            unknown_labels=data_args.unknown_labels,
        )
        for split, dataset in splits.items()
        if do_train or split not in of_training
    }
