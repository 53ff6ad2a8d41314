"""Fits the lexical branch (`modeling/lexical_sgm.py`) to encoded training documents, before the rest is trained.

One linear model per label (`linear.py`) is fitted to all documents, which is the branch, and again for each of K folds
without its documents: training must see what the branch says of documents it does not know, or the rest would learn to
trust it too much. A document's out-of-fold log-odds are those of the models fitted without its fold. Nearest neighbors
(`neighbors.py`) come on top, those of a training document from the other folds.

Memory is bounded: nothing of documents times labels is kept, labels are fitted in blocks, and the number of features
is limited where there are many labels (`MAX_WEIGHTS`).

Shapes: N documents, L labels, V words, F features that are used, K folds, C labels fitted at once.
"""

import copy
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from sgm_hf.modeling.lexical_sgm import (
    UNTRAINED_LOG_ODDS,
    SGMLexicalBranch,
    count_features,
    sum_features,
    weigh_features,
)
from sgm_hf.modeling.neighbors_sgm import SGMNeighbors, ranges
from sgm_hf.training.fingerprint import hash_dataset
from sgm_hf.training.linear import SparseMatrix, fit_linear
from sgm_hf.training.neighbors import LEAST_GAIN, MOST_CELLS, NeighborFit, fit_mixture, make_store
from sgm_hf.training.progress import ProgressLines
from sgm_hf.training.streaming import is_stream

logger = logging.getLogger(__name__)

# Nobody but a resumed training needs it, and it is large: what begins with _ is not pushed to the Hub.
FOLDS_FILE = "_lexical_folds.safetensors"
# Before the names of its tensors that are of nearest neighbors, and of these those of the store.
_NEAREST, _STORE = "nearest.", "store."
# Weights of one linear model, 512 MiB: where labels are so many that the features would need more, the most frequent
# features are kept. A model with K folds has K + 1 times as many.
MAX_WEIGHTS = 2**27
_DOCUMENTS_AT_ONCE = 10_000
# Between two lines of progress.
_DOCUMENTS_SEARCHED_AT_ONCE = 500
# Of Platt's calibration, for scores that do not rise with the truth, as of labels given at random.
_LEAST_SLOPE = 1e-3
# Different pairs of words that are counted at a time; beyond it those that occurred once are forgotten.
_MOST_PAIRS = 20_000_000


@dataclass(frozen=True)
class LexicalSettings:
    """How the branch is fitted.

    Args:
        cost: C of `LinearSVC`: what a document that is on the wrong side of the margin costs, against the L2 penalty.
        bigram_weight: Weight of pairs of adjacent words beside the words; 0 leaves them out.
        max_bigrams: Pairs kept, those in most documents.
        min_documents: Documents that a word must be in to count.
        min_bigram_documents: The same for pairs.
        num_folds: K.
        num_neighbors: Most similar documents that vote for their labels; 0 leaves them out.
        seed: Of the folds.
    """

    cost: float = 1.0
    bigram_weight: float = 0.0
    max_bigrams: int = 100_000
    min_documents: int = 1
    min_bigram_documents: int = 3
    num_folds: int = 5
    num_neighbors: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings (ValueError)."""
        if self.cost <= 0:
            raise ValueError(f"cost is {self.cost}; it must be above 0.")
        if self.bigram_weight < 0:
            raise ValueError(f"bigram_weight is {self.bigram_weight}; it must not be negative.")
        if self.num_neighbors < 0:
            raise ValueError(f"num_neighbors is {self.num_neighbors}; it must not be negative.")
        if not 2 <= self.num_folds <= 127:
            raise ValueError(f"num_folds is {self.num_folds}; it must be from 2 to 127.")
        for name in ("max_bigrams", "min_documents", "min_bigram_documents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")


@dataclass
class LexicalFit:
    """A fitted branch, and the same fitted without each of K folds.

    Idf and choice of the features are those of all documents: they know words, not labels. Nothing of a document's own
    labels is in its out-of-fold log-odds but their share in a few numbers for all documents: slope and intercept of
    Platt's calibration, and how much neighbors count.

    Args:
        scale: Of each feature, (V + bigrams); 0 for features that are not used.
        bigrams: `first * vocab_size + second` of each pair, ascending.
        weight: Of the branch, of the F features whose scale is not 0, (F, L); the calibration is folded in.
        bias: Of the branch, (L).
        fold_weight: Of the models without a fold, before the calibration, (K * F, L).
        fold_bias: Of these, (K, L).
        folds: The fold of each training document by its row number (the column `index`), int8; -1 for numbers that
            no document has.
        slope: Of Platt's calibration.
        intercept: Of Platt's calibration.
        out_of_fold_f1: Best micro-F1 of one threshold on out-of-fold log-odds; optimistic by the choice of one number.
        settings: How it was fitted.
        data_hash: Of the documents it was fitted to.
        nearest: The nearest neighbors; None where none were asked for, or they do not raise micro-F1.
    """

    scale: torch.Tensor
    bigrams: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    fold_weight: torch.Tensor
    fold_bias: torch.Tensor
    folds: torch.Tensor
    slope: float
    intercept: float
    out_of_fold_f1: float
    settings: LexicalSettings
    data_hash: str
    nearest: NeighborFit | None = None

    @property
    def num_bigrams(self) -> int:
        """What `config.lexical_bigrams` must be."""
        return len(self.bigrams)

    def branch(self) -> SGMLexicalBranch:
        """The branch fitted on all documents."""
        num_labels = len(self.bias)
        branch = SGMLexicalBranch(len(self.scale) - self.num_bigrams, num_labels, self.num_bigrams)
        branch.scale, branch.bigrams, branch.bias = self.scale, self.bigrams, self.bias
        branch.weight[self.scale != 0] = self.weight
        if self.nearest is not None:
            branch.weight *= self.nearest.scale
            mixed = self.nearest.scale * self.bias + self.nearest.offset
            branch.bias = torch.where(self.bias == UNTRAINED_LOG_ODDS, self.bias, mixed)
            branch.neighbors = copy.deepcopy(self.nearest.store)
        return branch

    @property
    def num_neighbors(self) -> int:
        """What `config.lexical_neighbors` must be."""
        return 0 if self.nearest is None else self.nearest.store.num_neighbors

    @torch.no_grad()
    def out_of_fold_log_odds(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, numbers: torch.Tensor
    ) -> torch.Tensor:
        """What the branch says of training documents when it was fitted without them.

        Args:
            input_ids: Words of each document, (B, T).
            attention_mask: 0 for padding, (B, T); None for none.
            numbers: The documents' row numbers (the column `index`), (B).

        Returns:
            Log-odds, (B, L) float32, on the device of the words.

        Raises:
            ValueError: If a document has no fold, because it is no training document.
        """
        numbers = numbers.cpu()
        if not len(numbers) or int(numbers.max()) >= len(self.folds) or (self.folds[numbers] < 0).any():
            raise ValueError(
                "a document has no fold, so it is none of those that the lexical branch was fitted to; give documents "
                "with the row numbers (index) of these."
            )
        documents, words = _flat(input_ids.cpu(), attention_mask)
        return self._log_odds(documents, words, numbers).to(input_ids.device)

    @torch.no_grad()
    def iterate_out_of_fold_log_odds(self, dataset: Dataset) -> Iterator[torch.Tensor]:
        """The out-of-fold log-odds of all training documents, in their order, in blocks of (documents, L)."""
        numbers, first = _row_numbers(dataset), 0
        for documents, words, count in _blocks(dataset):
            yield self._log_odds(documents, words, numbers[first : first + count])
            first += count

    def _log_odds(self, documents: torch.Tensor, words: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Log-odds of documents of given row numbers, (B, L); labels that no document has keep those of the branch."""
        scores = self._out_of_fold_scores(documents, words, self.folds[numbers].long())
        log_odds = self.slope * scores + self.intercept
        if self.nearest is not None:
            log_odds = self.nearest.log_odds(log_odds, numbers)
        return torch.where(self.bias == UNTRAINED_LOG_ODDS, self.bias, log_odds)

    def _out_of_fold_scores(self, documents: torch.Tensor, words: torch.Tensor, folds: torch.Tensor) -> torch.Tensor:
        """Scores before the calibration, (B, L), of documents of given folds, (B)."""
        counted = count_features(documents, words, self.bigrams, len(self.scale) - self.num_bigrams)
        documents, features, values = weigh_features(*counted, self.scale, len(folds))
        rows = ((self.scale != 0).cumsum(0) - 1)[features] + folds[documents] * len(self.weight)
        return sum_features(documents, rows, values, self.fold_weight, len(folds)) + self.fold_bias[folds]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write all to `_lexical_folds.safetensors` of a folder, such as a checkpoint."""
        record = {name: value for name, value in vars(self).items() if not isinstance(value, torch.Tensor)}
        record |= {"settings": asdict(self.settings), "nearest": None}
        tensors = {name: value for name, value in vars(self).items() if name not in record}
        if self.nearest is not None:
            record["nearest"] = {"scale": self.nearest.scale, "num_neighbors": self.num_neighbors}
            of_nearest = vars(self.nearest) | self.nearest.store.state_dict(prefix=_STORE)
            tensors |= {f"{_NEAREST}{n}": value for n, value in of_nearest.items() if isinstance(value, torch.Tensor)}
        # Written under another name first: a process that is killed leaves no half of a file.
        unfinished = Path(folder, f"{FOLDS_FILE}.unfinished")
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        save_file(contiguous, unfinished, metadata={"record": json.dumps(record)})
        unfinished.replace(Path(folder, FOLDS_FILE))

    @classmethod
    def load(cls, folder: str | os.PathLike[str], dataset: Dataset | None = None) -> "LexicalFit":
        """Read what `save` has written.

        Args:
            folder: Where it is.
            dataset: The training documents, to make sure that it was fitted to them.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it was fitted to other documents.
        """
        file = Path(folder, FOLDS_FILE)
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is not there, so the folds of the lexical branch are not known; fit it again, without "
                "resuming."
            )
        with safe_open(file, framework="pt") as content:
            record = json.loads(content.metadata()["record"])
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118, is no dict
        record["settings"] = LexicalSettings(**record["settings"])
        if record.get("nearest") is not None:
            of_nearest = {n.removeprefix(_NEAREST): tensors.pop(n) for n in list(tensors) if n.startswith(_NEAREST)}
            record["nearest"] = _nearest_of(of_nearest, **record["nearest"])
        fit = cls(**tensors, **record)
        found = fit.data_hash if dataset is None else hash_dataset(dataset)
        if found != fit.data_hash:
            raise ValueError(
                f"{file} is of training documents with hash {fit.data_hash}, these have {found}: their folds are not "
                "known. Train on the same documents in the same order, or start anew."
            )
        return fit


def _nearest_of(tensors: dict[str, torch.Tensor], scale: float, num_neighbors: int) -> NeighborFit:
    """The neighbors that `LexicalFit.save` has written."""
    buffers = {name.removeprefix(_STORE): tensors.pop(name) for name in list(tensors) if name.startswith(_STORE)}
    sizes = len(buffers["label_starts"]) - 1, len(buffers["documents"]), len(buffers["labels"])
    store = SGMNeighbors(len(buffers["starts"]) - 1, len(buffers["prior"]), num_neighbors, sizes)
    store.load_state_dict(buffers)
    return NeighborFit(store=store, scale=scale, **tensors)


# ---- features ----


def _flat(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Document and word of each place that is no padding, (M) each."""
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.cpu()
    documents, positions = mask.nonzero(as_tuple=True)
    return documents, input_ids[documents, positions]


def _blocks(dataset: Dataset, size: int = _DOCUMENTS_AT_ONCE) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Documents and words of some thousand documents at a time, and their number."""
    for block in dataset.select_columns(["input_ids"]).with_format("arrow").iter(batch_size=size):
        values = block["input_ids"].combine_chunks()
        lengths = torch.from_numpy(np.array(values.value_lengths(), dtype=np.int64))
        words = torch.from_numpy(np.array(values.flatten(), dtype=np.int64))
        yield torch.repeat_interleave(torch.arange(len(lengths)), lengths), words, len(lengths)


def _document_frequencies(dataset: Dataset, vocab_size: int) -> torch.Tensor:
    """In how many documents each word is, (V) int64."""
    frequencies, none = torch.zeros(vocab_size, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    for documents, words, _ in _blocks(dataset):
        if len(words) and not 0 <= int(words.min()) <= int(words.max()) < vocab_size:
            raise ValueError(
                f"The documents have word ids from {int(words.min())} to {int(words.max())}, but the vocabulary has "
                f"{vocab_size} words; encode them with the model's tokenizer."
            )
        features = count_features(documents, words, none, vocab_size)[1]
        frequencies += torch.bincount(features, minlength=vocab_size)
    return frequencies


def _frequent_pairs(
    dataset: Dataset, vocab_size: int, min_documents: int, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs of adjacent words that are in most documents, ascending, and in how many they are."""
    pairs, frequencies = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    for documents, words, _ in _blocks(dataset):
        together = documents[:-1] == documents[1:]
        keys = np.stack([documents[:-1][together].numpy(), (words[:-1] * vocab_size + words[1:])[together].numpy()])
        order = np.lexsort(keys)  # by pair, then by document
        keys = keys[:, order]
        first = np.ones(len(order), dtype=bool)
        first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
        found, counts = np.unique(keys[1, first], return_counts=True)
        merged, places = np.unique(np.concatenate([pairs, found]), return_inverse=True)
        sums = np.bincount(places, np.concatenate([frequencies, counts]), len(merged)).astype(np.int64)
        kept = sums > (len(merged) > _MOST_PAIRS)
        pairs, frequencies = merged[kept], sums[kept]
    enough = frequencies >= min_documents
    pairs, frequencies = pairs[enough], frequencies[enough]
    chosen = np.sort(np.argsort(-frequencies, kind="stable")[:most])
    return torch.from_numpy(pairs[chosen]), torch.from_numpy(frequencies[chosen])


def _choose_features(
    dataset: Dataset, vocab_size: int, num_labels: int, settings: LexicalSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs that are features, and the scale of all features: smooth idf as of scikit-learn, 0 if not used."""
    limit = max(1, MAX_WEIGHTS // num_labels)
    frequencies = _document_frequencies(dataset, vocab_size)
    frequencies[frequencies < settings.min_documents] = 0
    found = int(frequencies.count_nonzero())
    if found > limit:
        logger.warning(
            "The lexical branch uses the %d most frequent of %d words, so that it has no more than %d weights for %d "
            "labels.",
            *(limit, found, MAX_WEIGHTS, num_labels),
        )
        frequencies[frequencies.argsort(descending=True, stable=True)[limit:]] = 0
    bigrams = torch.zeros(0, dtype=torch.int64)
    room = min(settings.max_bigrams, limit - min(found, limit))
    if settings.bigram_weight and room:
        bigrams, counts = _frequent_pairs(dataset, vocab_size, settings.min_bigram_documents, room)
        frequencies = torch.cat([frequencies, counts])
    scale = ((1 + len(dataset)) / (1 + frequencies.double())).log() + 1
    scale[vocab_size:] *= settings.bigram_weight
    return bigrams, torch.where(frequencies > 0, scale, 0).float()


def feature_blocks(
    dataset: Dataset, bigrams: torch.Tensor, scale: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]]:
    """Document, place among the features that are used, value, and number of documents: what `SparseMatrix` takes."""
    rows = (scale != 0).cumsum(0) - 1
    for documents, words, count in _blocks(dataset):
        counted = count_features(documents, words, bigrams, len(scale) - len(bigrams))
        documents, features, values = weigh_features(*counted, scale, count)
        yield documents, rows[features], values, count


# ---- labels and scores ----


class _Labels:
    """Which documents have which label."""

    def __init__(self, dataset: Dataset, num_labels: int):
        column = dataset.select_columns(["labels"]).with_format("arrow")[:]["labels"].combine_chunks()
        lengths = torch.from_numpy(np.array(column.value_lengths(), dtype=np.int64))
        labels = torch.from_numpy(np.array(column.flatten(), dtype=np.int64))
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_labels:
            raise ValueError(
                f"The documents have label ids from {int(labels.min())} to {int(labels.max())}, but the model has "
                f"{num_labels} labels."
            )
        self.num_documents, self.num_labels = len(lengths), num_labels
        self.starts, self.of_documents = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), labels
        order = labels.argsort(stable=True)
        self._documents = torch.repeat_interleave(torch.arange(len(lengths)), lengths)[order]  # label by label
        self._labels = labels[order]
        self.counts = self.counts_among(torch.ones(len(lengths), dtype=torch.bool))

    def counts_among(self, used: torch.Tensor) -> torch.Tensor:
        """How many of the documents used, (N) bool, have each label, (L)."""
        return torch.bincount(self._labels[used[self._documents]], minlength=self.num_labels)

    def sides(self, labels: torch.Tensor) -> torch.Tensor:
        """1 where a document has a label, else -1, (N, C)."""
        sides, ends = torch.full((self.num_documents, len(labels)), -1.0), self.counts.cumsum(0)
        for column, label in enumerate(labels.tolist()):
            first, end = ends[label] - self.counts[label], ends[label]
            sides[self._documents[first:end], column] = 1.0
        return sides

    def truth(self, rows: torch.Tensor) -> torch.Tensor:
        """1 where one of some documents, (n), has a label, else 0, (n, L)."""
        entries, places = ranges(self.starts[rows], self.starts[rows + 1])
        truth = torch.zeros(len(rows), self.num_labels)
        truth[places, self.of_documents[entries]] = 1.0
        return truth


class _Histogram:
    """How many true and false labels have which score: all that a calibration or a threshold needs of any number."""

    lowest, highest, bins = -16.0, 16.0, 2**16  # scores beyond are counted at the ends

    def __init__(self) -> None:
        self.true = torch.zeros(self.bins, dtype=torch.float64)
        self.false = torch.zeros(self.bins, dtype=torch.float64)
        self.sums = torch.zeros(self.bins, dtype=torch.float64)

    def add(self, scores: torch.Tensor, sides: torch.Tensor) -> None:
        """Count scores of labels, of which those with side 1 are true."""
        scores, true = scores.flatten().clamp(self.lowest, self.highest), sides.flatten() > 0
        width = (self.highest - self.lowest) / self.bins
        places = ((scores - self.lowest) / width).long().clamp(max=self.bins - 1)
        self.true += torch.bincount(places[true], minlength=self.bins)
        self.false += torch.bincount(places[~true], minlength=self.bins)
        self.sums += torch.bincount(places, scores.double(), minlength=self.bins)

    def best_micro_f1(self) -> float:
        """The highest micro-F1 that one threshold gives."""
        true, false = self.true.flip(0).cumsum(0), self.false.flip(0).cumsum(0)
        return float((2 * true / (true + false + true[-1]).clamp(min=1)).max())

    def fit_platt(self) -> tuple[float, float]:
        """Slope and intercept of the logistic regression of truth on scores (Platt 1999, §2.2), by Newton's method.

        The slope is above 0, so that the labels keep their order.
        """
        counts = self.true + self.false
        scores = self.sums / counts.clamp(min=1)
        num_true, num_false = self.true.sum(), self.false.sum()
        # Platt's targets, which keep the slope finite where a threshold parts true from false.
        true_target, false_target = (num_true + 1) / (num_true + 2), 1 / (num_false + 2)
        targets = self.true * true_target + self.false * false_target
        inputs = torch.stack([scores, torch.ones_like(scores)])  # (2, bins)
        base = torch.logit(targets.sum() / counts.sum())
        found = torch.stack([torch.zeros_like(base), base])
        loss = _platt_loss(found, inputs, targets, counts)
        for _ in range(100):
            chances = torch.sigmoid(found @ inputs)
            gradient = inputs @ (counts * chances - targets)
            if gradient.abs().max() < 1e-9 * counts.sum():
                break
            curvature = (inputs * (counts * chances * (1 - chances))) @ inputs.T
            step = torch.linalg.solve(curvature + 1e-12 * counts.sum() * torch.eye(2), gradient)
            length = 1.0
            while (new_loss := _platt_loss(found - length * step, inputs, targets, counts)) > loss and length > 1e-6:
                length /= 2
            found, loss = found - length * step, new_loss
        slope, intercept = found.tolist()
        return (slope, intercept) if slope > _LEAST_SLOPE else (_LEAST_SLOPE, base.item())


def _best_micro_f1(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """The highest micro-F1 that one threshold on scores gives, both (n, L)."""
    histogram = _Histogram()
    histogram.add(scores, 2 * truth - 1)
    return histogram.best_micro_f1()


def _platt_loss(
    found: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of a slope and an intercept, (2)."""
    log_odds = found @ inputs
    return (counts * torch.nn.functional.softplus(log_odds) - targets * log_odds).sum()


# ---- fitting ----


def fit_lexical_branch(
    dataset: Any,
    vocab_size: int,
    num_labels: int,
    settings: LexicalSettings | None = None,
    show_progress: bool = False,
    show_lines: bool = False,
) -> LexicalFit:
    """Fit the branch and its folds.

    Without neighbors the result is the same, bit for bit, on any number of threads; with them their weight may differ
    by rounding. Labels without a training document get log-odds of -10 for every document.

    Args:
        dataset: Encoded training documents: columns `input_ids` of the whole texts, and `labels`.
        vocab_size: V.
        num_labels: L.
        settings: How to fit; default [`LexicalSettings`].
        show_progress: Whether to show a bar.
        show_lines: Whether to write lines in its place.

    Raises:
        ValueError: If the documents are a stream, are fewer than the folds, or have words or labels that are not the
            model's.
    """
    settings, dataset = settings or LexicalSettings(), _as_dataset(dataset)
    num_folds = settings.num_folds
    numbers = _row_numbers(dataset)
    folds = _assign_folds(numbers, settings)
    row_folds = folds[numbers]
    bigrams, scale = _choose_features(dataset, vocab_size, num_labels, settings)
    labels, num_features = _Labels(dataset, num_labels), int(scale.count_nonzero())
    matrix = SparseMatrix(feature_blocks(dataset, bigrams, scale), num_features)
    # Of each fold, and last of all documents.
    weights = torch.empty(num_folds + 1, num_features, num_labels)
    biases = torch.empty(num_folds + 1, num_labels)
    histogram = _Histogram()
    with _progress((num_folds + 1) * num_labels, show_progress, show_lines) as progress:
        for fold in range(num_folds + 1):
            used = row_folds != fold
            for chosen, fitted in fit_linear(matrix, labels.sides, labels.counts_among(used), used, settings.cost):
                weights[fold][:, chosen], biases[fold][chosen] = fitted[:-1], fitted[-1]
                if fold < num_folds:
                    held_out = row_folds == fold
                    histogram.add(matrix.times(fitted)[held_out], labels.sides(chosen)[held_out])
                progress.update(len(chosen))
    slope, intercept = histogram.fit_platt()
    fit = LexicalFit(
        scale=scale,
        bigrams=bigrams,
        weight=weights[-1] * slope,
        bias=torch.where(labels.counts > 0, biases[-1] * slope + intercept, UNTRAINED_LOG_ODDS),
        fold_weight=weights[:-1].flatten(0, 1),
        fold_bias=biases[:-1],
        folds=folds,
        slope=slope,
        intercept=intercept,
        out_of_fold_f1=histogram.best_micro_f1(),
        settings=settings,
        data_hash=hash_dataset(dataset),
    )
    if settings.num_neighbors:
        with _progress(len(dataset), show_progress, show_lines, "Finding nearest neighbors", "documents") as progress:
            _add_neighbors(fit, dataset, matrix, labels, progress)
    return fit


@torch.no_grad()
def _add_neighbors(
    fit: LexicalFit, dataset: Dataset, matrix: SparseMatrix, labels: _Labels, progress: tqdm | ProgressLines
) -> None:
    """Give a fit its nearest neighbors, unless they do not raise micro-F1 out of fold."""
    numbers, vocab_size = _row_numbers(dataset), len(fit.scale) - fit.num_bigrams
    store, stored = make_store(
        *(matrix, fit.scale, vocab_size, labels.starts, labels.of_documents),
        *(labels.num_labels, fit.settings.num_neighbors),
    )
    stored_folds = fit.folds[numbers[stored]]
    width = min(fit.settings.num_neighbors, len(stored))
    neighbors = torch.zeros(len(fit.folds), width, dtype=torch.int32)
    votes, first = torch.zeros(len(fit.folds), width), 0
    for documents, words, count in _blocks(dataset, _DOCUMENTS_SEARCHED_AT_ONCE):
        counted = count_features(documents, words, fit.bigrams, vocab_size)
        own = numbers[first : first + count]
        found = store.find(*weigh_features(*counted, fit.scale, count), count, fit.folds[own], stored_folds)
        neighbors[own], votes[own] = found[0].int(), found[1]
        first += count
        progress.update(count)
    rows = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(fit.settings.seed))
    rows = rows[: max(1, MOST_CELLS // labels.num_labels)].sort().values
    asked, truth = dataset.select(rows.tolist()), labels.truth(rows)
    linear = torch.cat(list(fit.iterate_out_of_fold_log_odds(asked)))
    own = numbers[rows]
    scale, offset = fit_mixture(store, linear, neighbors[own], votes[own], truth)
    nearest = NeighborFit(store, scale, offset, neighbors, votes)
    before, after = (_best_micro_f1(scores, truth) for scores in (linear, nearest.log_odds(linear, own)))
    outcome = "they are left out"
    if after - before >= LEAST_GAIN:
        fit.nearest, fit.out_of_fold_f1 = nearest, after
        outcome = f"the words of {len(stored):,} documents are stored with the model, without their order"
    logger.info("nearest neighbors: out-of-fold micro-F1 %.4f, without them %.4f; %s", after, before, outcome)


def choose_lexical_settings(
    dataset: Any,
    vocab_size: int,
    num_labels: int,
    validation: Any = None,
    settings: LexicalSettings | None = None,
    costs: Sequence[float] = (0.1, 0.3, 1.0, 3.0),
    bigram_weights: Sequence[float] = (0.0, 0.5),
    show_progress: bool = False,
    show_lines: bool = False,
) -> LexicalSettings:
    """The cost and the bigram weight of highest micro-F1, at the best threshold, on documents that were not fitted to.

    Args:
        dataset: As of `fit_lexical_branch`.
        vocab_size: V.
        num_labels: L.
        validation: Encoded documents to choose on; default: one fold of the training documents.
        settings: What is not chosen.
        costs: To try.
        bigram_weights: To try.
        show_progress: Whether to show a bar.
        show_lines: Whether to write lines in its place.
    """
    settings, dataset = settings or LexicalSettings(), _as_dataset(dataset)
    labels, judge = _Labels(dataset, num_labels), dataset if validation is None else _as_dataset(validation)
    judge_labels = labels if validation is None else _Labels(judge, num_labels)
    used, judged = torch.ones(len(dataset), dtype=torch.bool), torch.ones(len(judge), dtype=torch.bool)
    if validation is None:
        numbers = _row_numbers(dataset)
        judged = _assign_folds(numbers, settings)[numbers] == 0
        used = ~judged
    tried = {}
    with _progress(len(costs) * len(bigram_weights) * num_labels, show_progress, show_lines) as progress:
        for bigram_weight in bigram_weights:
            settings = replace(settings, bigram_weight=bigram_weight)
            bigrams, scale = _choose_features(dataset, vocab_size, num_labels, settings)
            num_features = int(scale.count_nonzero())
            matrix = SparseMatrix(feature_blocks(dataset, bigrams, scale), num_features)
            judge_matrix = matrix
            if validation is not None:
                judge_matrix = SparseMatrix(feature_blocks(judge, bigrams, scale), num_features)
            for cost in costs:
                histogram = _Histogram()
                for chosen, fitted in fit_linear(matrix, labels.sides, labels.counts_among(used), used, cost):
                    histogram.add(judge_matrix.times(fitted)[judged], judge_labels.sides(chosen)[judged])
                    progress.update(len(chosen))
                tried[replace(settings, cost=cost)] = histogram.best_micro_f1()
    for candidate, f1 in tried.items():
        logger.info("cost %g, bigram weight %g: micro-F1 %.4f", candidate.cost, candidate.bigram_weight, f1)
    return max(tried, key=tried.__getitem__)


def _row_numbers(dataset: Dataset) -> torch.Tensor:
    """By what training knows its documents: the column `index`, which a part of a data set keeps; else 0 to N - 1."""
    if "index" not in dataset.column_names:
        return torch.arange(len(dataset))
    return torch.from_numpy(np.array(dataset.with_format("numpy")["index"][:], dtype=np.int64))


def _assign_folds(numbers: torch.Tensor, settings: LexicalSettings) -> torch.Tensor:
    """A fold for each row number at random, of one size, and -1 for those that do not occur, int8.

    Rows of one number, as of a document that comes several times, are never on both sides.
    """
    different = numbers.unique()
    if len(different) < settings.num_folds:
        raise ValueError(
            f"There are {len(different)} training documents for {settings.num_folds} folds; take fewer folds."
        )
    folds = torch.full((int(different[-1]) + 1,), -1, dtype=torch.int8)
    order = np.random.default_rng(settings.seed).permutation(len(different))
    folds[different] = torch.from_numpy(order % settings.num_folds).to(torch.int8)
    return folds


def _as_dataset(documents: Any) -> Dataset:
    """Documents as a data set: columns of lists become one."""
    if is_stream(documents):
        raise ValueError(
            "The training documents are a stream, but the lexical branch is fitted to all of them several times; load "
            "them as a data set, or set lexical_branch to False."
        )
    return documents if isinstance(documents, Dataset) else Dataset.from_dict(documents)


def _progress(
    total: int,
    show_progress: bool,
    show_lines: bool,
    description: str = "Fitting the lexical branch",
    unit: str = "linear models",
) -> AbstractContextManager[Any]:
    if show_lines:
        return ProgressLines(total, description, unit=unit)
    return tqdm(total=total, desc=description, unit=f" {unit}", disable=not show_progress, leave=False)


__all__ = ["LexicalFit", "LexicalSettings", "choose_lexical_settings", "fit_lexical_branch"]
