"""Batches of documents of similar length, capped by padded words and by documents."""

import math
from collections.abc import Iterator, Sequence
from heapq import heapify, heappush, heapreplace

import numpy as np
from torch.utils.data import Sampler

BUCKET_GROWTH = 1.08
UNIT = 2**32  # a document that comes once, in the whole numbers in which repeats are counted


def bucket_lengths(lengths: Sequence[int] | np.ndarray, growth: float = BUCKET_GROWTH) -> np.ndarray:
    """Round each length up to the end of its length bucket; the buckets' ends grow geometrically.

    Args:
        lengths: Tokens of each document, (N,).
        growth: Ratio of one bucket's end to the end before it, above 1.

    Returns:
        The end of each document's bucket, (N,) int64: at least the document's length, never above the greatest one.
    """
    # Documents of one bucket are interchangeable: whichever share a batch, at most growth - 1 of it is padding.
    values = np.asarray(lengths, dtype=np.int64)
    if values.size == 0:
        return values
    longest = int(values.max())
    ends = [1]
    while ends[-1] < longest:
        ends.append(max(ends[-1] + 1, int(ends[-1] * growth)))
    ends[-1] = max(longest, 1)
    return np.asarray(ends, dtype=np.int64)[np.searchsorted(ends, values)]


def cut_batches(lengths: Sequence[int], max_tokens: int, max_documents: int) -> list[tuple[int, int]]:
    """Cut a list of documents, sorted by length, into runs that obey both caps of `LengthBucketBatchSampler`.

    Args:
        lengths: Ascending lengths, (N,).
        max_tokens: Greatest product of a run's number of documents and its longest length.
        max_documents: Greatest number of documents in a run.

    Returns:
        The runs as half-open ranges (first, last) over the list, in order.
    """
    runs, first = [], 0
    for position, length in enumerate(lengths):
        count = position - first + 1
        if count > 1 and (count > max_documents or count * length > max_tokens):
            runs.append((first, position))
            first = position
    if len(lengths) > 0:
        runs.append((first, len(lengths)))
    return runs


def split_runs(runs: list[tuple[int, int]], multiple_of: int) -> list[tuple[int, int]]:
    """Halve the largest of the half-open ranges until their number is a multiple of `multiple_of`.

    Returns:
        The runs, in order; a run is repeated only where every run holds a single document.
    """
    heap = [(first - last, first, last) for first, last in runs]  # the largest run first, of equal ones the first
    heapify(heap)
    for _ in range(-len(runs) % multiple_of):
        _, first, last = heap[0]
        if last - first == 1:
            break
        middle = (first + last) // 2
        heapreplace(heap, (first - middle, first, middle))
        heappush(heap, (middle - last, middle, last))
    split = sorted((first, last) for _, first, last in heap)
    return split + split[:1] * (-len(split) % multiple_of)


def repeat_shares(factors: Sequence[float] | np.ndarray) -> np.ndarray:
    """How often each document is to come on average, in whole numbers of `UNIT`, so that sums of them are exact.

    Args:
        factors: How often each document is to come, (N), at least 1 each.

    Returns:
        (N) int64. All are enlarged by the same factor so that together they are whole documents, at most one more.

    Raises:
        ValueError: If a factor is below 1 or not finite.
    """
    factors = np.asarray(factors, dtype=np.float64)
    if not (np.isfinite(factors) & (factors >= 1)).all():
        raise ValueError("repeat_factors must be finite numbers from 1 on, one per document.")
    total = math.ceil(factors.sum())
    shares = np.rint(factors * (total / factors.sum() * UNIT)).astype(np.int64)
    shares[shares.argmax()] += total * UNIT - shares.sum()  # what rounding has left
    return shares


def draw_repeats(shares: np.ndarray, order: np.ndarray, start: int) -> np.ndarray:
    """Draw the documents of an epoch by systematic sampling: each as often as its share says, rounded up or down.

    Args:
        shares: Of `repeat_shares`, (N).
        order: All documents, in the order in which their shares are put one after the other, (N).
        start: Random, from 0 to below `UNIT`.

    Returns:
        The documents, ascending. The first k of the order come as often as their shares together, rounded up or down.
    """
    ends = (np.cumsum(shares[order]) + start) // UNIT
    return np.sort(np.repeat(order, np.diff(ends, prepend=0)))


class LengthBucketBatchSampler(Sampler[list[int]]):
    """Yield batches of document indices of similar length, which are drawn again in each epoch.

    Documents are shuffled within buckets of nearly equal length, the sorted list is cut into batches under both caps,
    and the batches come in random order. Every epoch has the same number of batches, which depend on `seed` and the
    epoch alone.

    Args:
        lengths: Tokens of each document, (N,).
        max_tokens: Greatest number of tokens of a batch after padding (documents times longest document). A document
            longer than this gets a batch of its own.
        max_documents: Greatest number of documents in a batch.
        seed: Seed of the shuffling.
        shuffle: Whether to shuffle; without it, batches come longest first and are the same in every epoch.
        multiple_of: The number of batches is a multiple of this: the number of processes that share them.
        repeat_factors: How often each document comes in an epoch on average, (N), at least 1 each; fractions are
            rounded up or down at random in each epoch. Default: each comes once.

    Raises:
        ValueError: If a cap or a repeat factor is below 1 or there is no document.
    """

    # accelerate reads these two; a batch size of None tells it that batches differ in size.
    batch_size = None
    drop_last = False

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        max_tokens: int,
        max_documents: int,
        seed: int = 0,
        shuffle: bool = True,
        multiple_of: int = 1,
        repeat_factors: Sequence[float] | np.ndarray | None = None,
    ):
        caps = {"max_tokens": max_tokens, "max_documents": max_documents, "multiple_of": multiple_of}
        for name, value in caps.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        if len(lengths) == 0:
            raise ValueError("there is no document to make batches of; check the split that was passed.")
        # Bucket ends, not lengths, decide where the list is cut, so that every epoch is cut at the same places.
        self.keys = bucket_lengths(lengths) if shuffle else np.asarray(lengths, dtype=np.int64)
        self.shares = None if repeat_factors is None else repeat_shares(repeat_factors)
        runs = cut_batches(self._longest_keys().tolist(), max_tokens, max_documents)
        self.runs = split_runs(runs, multiple_of)
        self.seed, self.shuffle, self.epoch = seed, shuffle, 0

    def _longest_keys(self) -> np.ndarray:
        """For each place in an epoch's list of documents by length, the greatest key that it has in any epoch."""
        order = np.argsort(self.keys, kind="stable")
        if self.shares is None:
            return self.keys[order]
        # The first k documents fill at least as many places as their shares have whole documents.
        surely_filled = np.cumsum(self.shares[order]) // UNIT
        places = np.arange(surely_filled[-1])
        return self.keys[order][np.searchsorted(surely_filled, places, side="right")]

    def _documents(self) -> np.ndarray:
        """The documents of the epoch, ascending, repeated ones several times."""
        if self.shares is None:
            return np.arange(len(self.keys))
        # Drawn apart from the shuffling, which is the same where no document is repeated.
        random = np.random.default_rng((self.seed, self.epoch, 1))
        shuffled = random.permutation(len(self.keys))
        order = shuffled[np.argsort(self.keys[shuffled], kind="stable")]
        return draw_repeats(self.shares, order, int(random.integers(UNIT)))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (counted from 0) whose batches the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of batches of an epoch, the same for every epoch."""
        return len(self.runs)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the epoch's batches as lists of document indices."""
        documents = self._documents()
        keys = self.keys[documents]
        if self.shuffle:
            random = np.random.default_rng((self.seed, self.epoch))
            shuffled = random.permutation(len(documents))
            order = documents[shuffled[np.argsort(keys[shuffled], kind="stable")]]
            sequence = random.permutation(len(self.runs))
        else:
            order = documents[np.argsort(keys, kind="stable")]
            sequence = np.arange(len(self.runs))[::-1]
        for run in sequence:
            first, last = self.runs[run]
            yield order[first:last].tolist()
