"""Batches of a training data set that is read as a stream."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from sgm_hf.data.batching import cut_batches, split_runs

WINDOW_BATCHES = 50  # full batches that a window holds; with fewer, more of each batch is padding


def is_stream(dataset: Any) -> bool:
    """Whether a data set is an `IterableDataset`, of `datasets` or of PyTorch: documents in one order, uncounted."""
    return isinstance(dataset, datasets.IterableDataset | IterableDataset)


def start_pass(part: Any, epoch: int) -> None:
    """Tell a stream, a sampler or a collator which pass over the data (from 0) begins, if it wants to know."""
    if hasattr(part, "set_epoch"):
        part.set_epoch(epoch)


class StreamedBatches(IterableDataset):
    """Collated batches of a stream of encoded documents, without end: after the last document it is read again.

    The documents of a window are sorted by length and cut into batches under both caps, which come in random order.
    Batches depend on the stream, `seed` and the pass alone: a resumed training sees those that it would have seen.

    Args:
        dataset: The stream; documents have `input_ids` and `labels`, and a pass over them gives each once.
        collate: Makes the tensors of a batch; gets the number of each document in its pass as `index`.
        max_tokens: Most words of a batch after padding; a longer document is a batch of its own.
        max_documents: Most documents of a batch.
        seed: Of the order of the batches of a window.
        process_index: This process.
        num_processes: Processes; each reads the whole stream and keeps its share of the batches of each window.
        batches_per_update: Batches of an update in each process; no update has batches of two windows.
    """

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]],
        max_tokens: int,
        max_documents: int,
        seed: int,
        process_index: int = 0,
        num_processes: int = 1,
        batches_per_update: int = 1,
    ):
        self.dataset, self.collate, self.seed = dataset, collate, seed
        self.max_tokens, self.max_documents = max_tokens, max_documents
        self.process_index, self.num_processes = process_index, num_processes
        self.multiple_of = num_processes * batches_per_update

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the batches of this process.

        Raises:
            ValueError: If the stream has no document, or one has no `input_ids`.
        """
        window_size = WINDOW_BATCHES * self.max_documents * self.multiple_of
        for epoch in itertools.count():
            start_pass(self.dataset, epoch)
            start_pass(self.collate, epoch)
            random = np.random.default_rng((self.seed, epoch))
            documents = ({"index": index, **document} for index, document in enumerate(self.dataset))
            window = list(itertools.islice(documents, window_size))
            if not window and get_worker_info() is not None:
                return  # a worker that has none of the stream's shards
            if not window or "input_ids" not in window[0]:
                found = f"documents of {', '.join(window[0])}" if window else "no document"
                raise ValueError(
                    f"train_dataset, an IterableDataset, gave {found}; expected documents of input_ids and labels, as "
                    "sgm_hf.encode_dataset makes them."
                )
            while window:
                lengths = np.array([len(document["input_ids"]) for document in window])
                order = np.argsort(lengths, kind="stable")
                runs = cut_batches(lengths[order].tolist(), self.max_tokens, self.max_documents)
                runs = split_runs(runs, self.multiple_of)
                for run in random.permutation(len(runs))[self.process_index :: self.num_processes]:
                    first, last = runs[run]
                    yield self.collate([window[row] for row in order[first:last]])
                window = list(itertools.islice(documents, window_size))
