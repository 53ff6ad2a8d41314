"""From records of text and labels to token ids and label ids."""

import logging
from collections.abc import Sequence
from typing import Any

from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from sgm_hf.data.labels import encode_label_sets, label_sets_of

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
    """Turn texts into token ids and label names into the model's label ids.

    Args:
        dataset: Columns `text`, optionally `id` (for messages) and `labels` (`ClassLabel` ids), see `label_sets_of`.
        tokenizer: The model's tokenizer.
        label_names: The L label names in the model's order; a label's id is its position.
        max_length: Tokens after which a text is cut; default the tokenizer's `model_max_length`.
        training: Whether the data is to train on: then a text without a word is an error.
        unknown_labels: What to do with a label that is not among `label_names`: "error", or "count" to give it an id
            of L or above (by name), which no prediction can reach. In training data it is always an error.
        num_proc: Processes that tokenize; default this one.

    Returns:
        A data set of as many rows, in the same order: `input_ids` and the tokenizer's other columns with a number for
        each token (without `attention_mask`, which the collator makes), `length` (tokens; 0 for a text without a
        word), `index` (row number) and, where the data has labels, `labels` (label ids in the order of the data).

    Raises:
        ValueError: If a text has no word at training, a document has a label twice, or a label is unknown and
            `unknown_labels` is "error" or `training` is true.
    """
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
    names = dataset["id"] if "id" in dataset.column_names else [f"number {row}" for row in range(len(dataset))]
    empty = [row for row, length in enumerate(encoded["length"]) if length == 0]
    shown = ", ".join(str(names[row]) for row in empty[:5])
    if empty and training:
        raise ValueError(f"{len(empty)} training document(s) have no word: {shown}; remove them or give them a text.")
    if empty:
        logger.warning("%d document(s) have no word and get an empty label set: %s", len(empty), shown)
    if "labels" not in dataset.column_names:
        return encoded
    unknown_labels = "error" if training else unknown_labels
    label_ids, _ = encode_label_sets(label_sets_of(dataset), label_names, unknown_labels, names)
    return encoded.add_column("labels", label_ids, feature=List(Value("int64")))


def _encode_texts(
    batch: dict[str, list[Any]], indices: list[int], tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> dict[str, list[Any]]:
    """Encode the texts of one batch of `datasets.map`."""
    texts = [text or "" for text in batch["text"]]
    encoding = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)
    # A text without a word has no token either, also where the tokenizer puts some around each text ([CLS], [SEP]).
    around = tokenizer.num_special_tokens_to_add()
    columns = {name: [row if len(row) > around else [] for row in rows] for name, rows in encoding.items()}
    return columns | {"length": [len(ids) for ids in columns["input_ids"]], "index": indices}
