"""From records of text and labels to token ids and label ids."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, count, islice, pairwise
from typing import Any

import numpy as np
from datasets import Dataset, List, Value
from transformers import PreTrainedTokenizerBase

from sgm_hf.data.labels import encode_label_sets, label_sets_of

logger = logging.getLogger(__name__)

# Different pieces of text whose ids are kept at hand, and these ids: about 100 MB. A piece is a word and its
# punctuation, but a sentence or more in scripts without spaces.
_MOST_PIECES, _MOST_IDS = 500_000, 2_000_000
_PIECES_AT_ONCE = 1_000


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


def special_tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """How many tokens a tokenizer puts before and after each text, such as 1 and 1 for [CLS] and [SEP]."""
    total = tokenizer.num_special_tokens_to_add()
    empty, text = (tokenizer(text)["input_ids"] for text in ("", "a"))
    before = next((place for place in range(total) if empty[place] != text[place]), total)
    if before == total and text[-1:] == empty[-1:] and total:  # the text begins as its end does
        before = total - 1
    return before, total - before


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
        self._forget()
        # A call sets the tokenizer's truncation: done before datasets hashes it, the cache key is the same each time.
        self._tokenize([""])

    def _forget(self) -> None:
        """Empty what is kept of each piece of text: its number, and by this where its ids begin and end."""
        self._numbers: dict[str, int] = defaultdict(count().__next__)
        self._ends = np.zeros(1, dtype=np.int64)
        self._ids = np.zeros(0, dtype=np.int32)

    def __reduce__(self) -> tuple[type, tuple]:
        # Without the pieces seen so far: they would change the cache key, too.
        return TextEncoder, (self.tokenizer, self.max_length)

    def __call__(self, texts: Sequence[str]) -> dict[str, list[Sequence[int]]]:
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
        rows = [text.split() for text in texts]
        if len(self._numbers) > _MOST_PIECES or len(self._ids) > _MOST_IDS:
            self._forget()
        # A new piece gets the next number by being looked up.
        lengths = [len(row) for row in rows]
        numbers = np.fromiter(map(self._numbers.__getitem__, chain.from_iterable(rows)), np.int64, sum(lengths))
        self._learn(list(islice(self._numbers, len(self._ends) - 1, None)))
        counts = np.diff(self._ends)[numbers]
        ends = np.concatenate([[0], np.cumsum(counts)])
        # The ids of the pieces one after the other: for each id, its place among all that are kept.
        ids = self._ids[np.repeat(self._ends[numbers] - ends[:-1], counts) + np.arange(ends[-1])]
        ends = ends[np.cumsum([0, *lengths])]
        longest = self.tokenizer.model_max_length if self.max_length is None else self.max_length
        return {"input_ids": [ids[a : min(b, a + longest)] for a, b in pairwise(ends.tolist())]}

    def _learn(self, pieces: Sequence[str]) -> None:
        """Keep the ids of new pieces."""
        ids, counts = [self._ids], [np.zeros(0, dtype=np.int64)]
        for first in range(0, len(pieces), _PIECES_AT_ONCE):
            # As one text: a call for each piece takes four times as long.
            block = pieces[first : first + _PIECES_AT_ONCE]
            encoding = self.tokenizer(
                " ".join(block), return_attention_mask=False, return_offsets_mapping=True, verbose=False
            )
            starts = [start for start, _ in encoding["offset_mapping"]]
            places = np.searchsorted(np.cumsum([len(piece) + 1 for piece in block]), starts, side="right")
            counts.append(np.bincount(places, minlength=len(block)))
            ids.append(np.array(encoding["input_ids"], dtype=np.int32))
        self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum(np.concatenate(counts))])
        self._ids = np.concatenate(ids)

    def _tokenize(self, texts: Sequence[str]) -> dict[str, list[list[int]]]:
        encoding = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_length, return_attention_mask=False
        )
        return dict(encoding)
