"""From records of text and labels to token ids and label ids."""

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from sgm_hf.data.labels import encode_label_sets, label_sets_of

logger = logging.getLogger(__name__)

# Different pieces of text whose ids are kept at hand: about 100 MB.
_MOST_PIECES = 500_000


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
    encoded = dataset.map(
        _encode_batch,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        num_proc=num_proc,
        fn_kwargs={"encoder": TextEncoder(tokenizer, max_length)},
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


def _encode_batch(batch: dict[str, list[Any]], indices: list[int], encoder: "TextEncoder") -> dict[str, list[Any]]:
    """Encode one batch of `datasets.map`."""
    columns = encoder([text or "" for text in batch["text"]])
    return columns | {"length": [len(ids) for ids in columns["input_ids"]], "index": indices}


class TextEncoder:
    """Turns many texts into token ids, several times as fast as the tokenizer where its words end at white space.

    Args:
        tokenizer: The model's tokenizer.
        max_length: Tokens after which a text is cut; default the tokenizer's `model_max_length`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.splits_at_spaces = getattr(tokenizer, "splits_at_spaces", False) and tokenizer.truncation_side == "right"
        self._ids: dict[str, list[int]] = {}
        # A call sets the tokenizer's truncation: done before datasets hashes it, the cache key is the same each time.
        self._tokenize([""])

    def __getstate__(self) -> dict[str, Any]:
        # Without the ids seen so far: they would change the cache key, too.
        return self.__dict__ | {"_ids": {}}

    def __call__(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        """Encode texts.

        Returns:
            `input_ids` and the tokenizer's other columns with a number for each token, but for `attention_mask`; a
            text without a word has no token.
        """
        if not texts:
            return {"input_ids": []}
        if not self.splits_at_spaces:
            # Also where the tokenizer puts some tokens around each text ([CLS], [SEP]).
            around = self.tokenizer.num_special_tokens_to_add()
            columns = self._tokenize(texts)
            return {name: [row if len(row) > around else [] for row in rows] for name, rows in columns.items()}
        pieces = [text.split() for text in texts]
        new = list(set(chain.from_iterable(pieces)).difference(self._ids))
        if len(self._ids) + len(new) > _MOST_PIECES:
            self._ids, new = {}, list(set(chain.from_iterable(pieces)))
        if new:
            self._ids.update(zip(new, self._tokenize(new)["input_ids"], strict=True))
        ids = self._ids.__getitem__
        end = self.tokenizer.model_max_length if self.max_length is None else self.max_length
        return {"input_ids": [list(chain.from_iterable(map(ids, row)))[:end] for row in pieces]}

    def _tokenize(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        encoding = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_length, return_attention_mask=False
        )
        return dict(encoding)
