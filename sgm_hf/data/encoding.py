"""From records of text and labels to word ids and label ids."""

import logging
from collections.abc import Sequence
from typing import Any

from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from sgm_hf.data.labels import UNKNOWN_LABELS, encode_label_sets, label_sets_of

logger = logging.getLogger(__name__)


def encode_dataset(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    label_names: Sequence[str],
    max_length: int | None = None,
    training: bool = False,
    unknown_labels: str = "error",
    num_proc: int | None = None,
) -> Dataset:
    """Turn texts into word ids and label names into the model's label ids.

    Args:
        dataset: Columns `text`, optionally `id` (string) and `labels` (`ClassLabel` ids), see `label_sets_of`.
        tokenizer: The model's tokenizer.
        label_names: The L label names in the model's order; a label's id is its position.
        max_length: Words after which a text is cut; default the tokenizer's `model_max_length`.
        training: Whether the data is to train on: then a text without a word is an error.
        unknown_labels: What to do with a label that is not among `label_names`: "error", or "count" to give it an id
            of L or above (by name), which no prediction can reach. In training data it is always an error.
        num_proc: Processes that tokenise; default this one.

    Returns:
        A data set of as many rows, in the same order: `input_ids`, `length` (words), `index` (row number) and, where
        the data has labels, `labels` (label ids in the order of the data).

    Raises:
        ValueError: If a text has no word at training, a document has a label twice, or a label is unknown and
            `unknown_labels` is "error" or `training` is true.
    """
    if unknown_labels not in UNKNOWN_LABELS:
        raise ValueError(f"unknown_labels is {unknown_labels!r}; choose one of {', '.join(UNKNOWN_LABELS)}.")
    max_length = max_length or tokenizer.model_max_length
    # A call changes the tokenizer's truncation: done before datasets hashes it, the cache key is the same each time.
    tokenizer("", truncation=True, max_length=max_length)
    encoded = dataset.map(
        _encode_texts,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        num_proc=num_proc,
        fn_kwargs={"tokenizer": tokenizer, "max_length": max_length},
        desc="Encoding",
    )
    _check_texts(dataset, encoded, training)
    if "labels" not in dataset.column_names:
        return encoded
    unknown_labels = "error" if training else unknown_labels
    label_ids, _ = encode_label_sets(label_sets_of(dataset), label_names, unknown_labels, _document_names(dataset))
    return encoded.add_column("labels", label_ids, feature=List(Value("int64")))


def _encode_texts(
    batch: dict[str, list[Any]], indices: list[int], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, list[Any]]:
    """Encode the texts of one batch of `datasets.map`."""
    texts = [text or "" for text in batch["text"]]
    words = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
    return {"input_ids": words, "length": [len(ids) for ids in words], "index": indices}


def _document_names(dataset: Dataset) -> Sequence[str]:
    """The documents' ids, or their row numbers where there is no `id` column."""
    return dataset["id"] if "id" in dataset.column_names else [f"number {row}" for row in range(len(dataset))]


def _check_texts(dataset: Dataset, encoded: Dataset, training: bool) -> None:
    """Raise on a text without a word where the data is to train on, else warn."""
    empty = [row for row, length in enumerate(encoded["length"]) if length == 0]
    if not empty:
        return
    names = _document_names(dataset)
    shown = ", ".join(str(names[row]) for row in empty[:5])
    if training:
        raise ValueError(f"{len(empty)} training document(s) have no word: {shown}; remove them or give them a text.")
    logger.warning("%d document(s) have no word and get an empty label set: %s", len(empty), shown)
