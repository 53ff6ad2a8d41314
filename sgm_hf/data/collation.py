"""From encoded documents to the tensors of one batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sgm_hf.data.labels import target_sequence

IGNORED = -100


class MultiLabelCollator:
    """Pad the documents of a batch and write their label sets as target sequences that end in `eos`.

    Args:
        pad_token_id: Word id that fills the texts.
        num_labels: Number of labels L; `eos` is L.
        label_order: "frequency" and "alphabetical" sort a document's labels by id (the ids are in that order),
            "given" keeps the order they have, "shuffled" permutes them afresh for each document in each epoch.
        seed: Seed of the permutations of "shuffled". A document's permutation depends on the seed, the epoch and
            the document's `index` alone, so that a resumed training sees the same targets.

    Example:
        >>> collate = MultiLabelCollator(pad_token_id=0, num_labels=3)
        >>> collate([{"input_ids": [7, 8], "labels": [2, 0]}, {"input_ids": [9], "labels": []}])["labels"].tolist()
        [[0, 2, 3], [3, -100, -100]]
    """

    def __init__(self, pad_token_id: int, num_labels: int, label_order: str = "frequency", seed: int = 0):
        self.pad_token_id, self.num_labels = pad_token_id, num_labels
        self.label_order, self.seed, self.epoch = label_order, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (counted from 0) whose permutations "shuffled" draws."""
        self.epoch = epoch

    def __call__(self, documents: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate encoded documents.

        Args:
            documents: B records of `input_ids` (word ids), optionally `labels` (label ids below L), and for
                "shuffled" `index` (the document's number in its data set).

        Returns:
            `input_ids` and `attention_mask`, (B, T) int64, and where the records have labels `labels`, (B, n) int64:
            label ids, then `eos`, then -100.
        """
        texts = [document["input_ids"] for document in documents]
        batch = {
            "input_ids": pad_right(texts, self.pad_token_id),
            "attention_mask": pad_right([[1] * len(text) for text in texts], 0),
        }
        if "labels" in documents[0]:
            batch["labels"] = pad_right([self.target_sequence(document) for document in documents], IGNORED)
        return batch

    def target_sequence(self, document: dict[str, Any]) -> list[int]:
        """The label ids of one document in target order, then `eos`."""
        generator = None
        if self.label_order == "shuffled":
            generator = np.random.default_rng((self.seed, self.epoch, document["index"]))
        return target_sequence(document["labels"], self.label_order, generator) + [self.num_labels]


def pad_right(sequences: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Stack sequences of different length into one tensor, (B, longest) int64, filled up with `value`."""
    longest = max(len(sequence) for sequence in sequences)
    return torch.tensor([list(s) + [value] * (longest - len(s)) for s in sequences], dtype=torch.long)
