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
        pad_token_id: Token id that fills `input_ids`; of None 0 does: the mask says what is padding.
        num_labels: Number of labels L; `eos` is L.
        label_order: "frequency", "alphabetical" and "hierarchical" sort a document's labels by id (the ids are in that
            order), "given" keeps the order they have, "shuffled" permutes them afresh for each document in each epoch.
        seed: Seed of the permutations of "shuffled".
        pad_token_type_id: What fills `token_type_ids`, which some tokenizers give.
        keep_index: Whether a batch also holds the documents' row numbers.

    Examples:
        >>> collate = MultiLabelCollator(pad_token_id=0, num_labels=3)
        >>> collate([{"input_ids": [7, 8], "labels": [2, 0]}, {"input_ids": [9], "labels": []}])["labels"].tolist()
        [[0, 2, 3], [3, -100, -100]]
    """

    def __init__(
        self,
        pad_token_id: int | None,
        num_labels: int,
        label_order: str = "frequency",
        seed: int = 0,
        pad_token_type_id: int = 0,
        keep_index: bool = False,
    ):
        self.pad_values = {"input_ids": pad_token_id or 0, "token_type_ids": pad_token_type_id}  # others: 0
        self.num_labels, self.label_order, self.seed, self.epoch = num_labels, label_order, seed, 0
        self.keep_index = keep_index

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (counted from 0) whose permutations "shuffled" draws."""
        self.epoch = epoch

    def __call__(self, documents: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate B encoded documents: records as of `encode_dataset`, with or without `labels`.

        Returns:
            The tensors of `pad_texts`; where the records have labels `labels`, (B, n) int64: label ids, then `eos`,
            then -100; on request `index`, (B) int64.
        """
        batch = self.pad_texts(documents)
        if self.keep_index:
            batch["index"] = torch.tensor([document["index"] for document in documents])
        if "labels" in documents[0]:
            batch["labels"] = pad_right([self.target_sequence(document) for document in documents], IGNORED)
        return batch

    def pad_texts(self, documents: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate the texts of B encoded documents.

        Any list of a record but `labels` must have a number for each token; what is not a list is not used.

        Returns:
            `input_ids`, the other lists, and `attention_mask` (1 for tokens, 0 for padding), (B, T) int64 each; of
            images `pixel_values`, (B, channels, height, width) float32.
        """
        if "pixel_values" in documents[0]:
            images = np.stack([np.asarray(document["pixel_values"], dtype=np.float32) for document in documents])
            return {"pixel_values": torch.from_numpy(images)}
        columns = [name for name, value in documents[0].items() if np.ndim(value) == 1 and name != "labels"]
        batch = {
            name: pad_right([document[name] for document in documents], self.pad_values.get(name, 0))
            for name in columns
        }
        return batch | {"attention_mask": pad_right([[1] * len(document["input_ids"]) for document in documents], 0)}

    def target_sequence(self, document: dict[str, Any]) -> list[int]:
        """The label ids of one document in target order, then `eos`."""
        generator = None
        if self.label_order == "shuffled":
            # Whatever the batches are, and in a resumed training too, a document's targets of an epoch are the same.
            generator = np.random.default_rng((self.seed, self.epoch, document["index"]))
        return target_sequence(document["labels"], self.label_order, generator) + [self.num_labels]


def pad_right(sequences: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Stack sequences of different length into one tensor, (B, longest) int64, filled up with `value`."""
    longest = max(len(sequence) for sequence in sequences)
    return torch.tensor([list(s) + [value] * (longest - len(s)) for s in sequences], dtype=torch.long)
