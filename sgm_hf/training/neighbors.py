"""Stores the nearest neighbors of the lexical branch (`modeling/neighbors_sgm.py`) and fits what they count for.

Each training document is asked for its neighbors among the documents of other folds, as the branch's linear models are
asked out of fold. On these answers a logistic regression of three numbers for all labels mixes the linear model's
log-odds with those of the neighbors' votes.

Shapes: N training documents, S stored ones, V words, L labels, k neighbors, n documents of the regression.
"""

import logging
from dataclasses import dataclass

import torch
from torch.nn import functional

from sgm_hf.modeling.neighbors_sgm import SGMNeighbors, ranges, smoothed_log_odds
from sgm_hf.training.calibration import fit_logistic
from sgm_hf.training.linear import SparseMatrix

logger = logging.getLogger(__name__)

# Words in more than this share of the documents tell little of their subject, and nearly all the time goes into them.
MOST_FREQUENT = 0.1
# Documents stored; of more, as many at random. To compare a document with all takes time in proportion to them.
MOST_STORED = 100_000
# Documents times labels of the regression.
MOST_CELLS = 2**22
# By how much the neighbors must raise micro-F1 out of fold, or they are left out: they cost memory and time.
LEAST_GAIN = 0.003


@dataclass
class NeighborFit:
    """The store, and what it says of each training document without the documents of its own fold.

    Args:
        store: Goes into the branch.
        scale: Of the linear model's log-odds beside it.
        offset: Added to the log-odds of each label, (L).
        neighbors: Of the document of each row number, (numbers, k) int32.
        votes: Of these, (numbers, k) float32.
    """

    store: SGMNeighbors
    scale: float
    offset: torch.Tensor
    neighbors: torch.Tensor
    votes: torch.Tensor

    def log_odds(self, linear: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """What the branch says out of fold.

        Args:
            linear: Log-odds of the linear model alone, (B, L).
            numbers: Row numbers of the documents, (B).

        Returns:
            (B, L).
        """
        evidence = self.store.evidence(self.neighbors[numbers], self.votes[numbers])  # (B, L)
        return self.scale * linear + self.offset + evidence


def make_store(
    matrix: SparseMatrix,
    scale: torch.Tensor,
    vocab_size: int,
    label_starts: torch.Tensor,
    label_ids: torch.Tensor,
    num_labels: int,
    num_neighbors: int,
) -> tuple[SGMNeighbors, torch.Tensor]:
    """Store the words of documents that are not too frequent.

    Args:
        matrix: Features that are used, of all documents.
        scale: Of all features, (V + bigrams); 0 for those that are not used.
        vocab_size: V.
        label_starts: Where the labels of each document begin in `label_ids`, and their number, (N + 1).
        label_ids: Of one document after the other.
        num_labels: L.
        num_neighbors: k.

    Returns:
        The store, whose votes do not count yet, and the number of each stored document, (S), ascending.
    """
    stored = torch.arange(matrix.num_documents)
    if len(stored) > MOST_STORED:
        logger.info("nearest neighbors: %s of %s documents are stored", f"{MOST_STORED:,}", f"{len(stored):,}")
        generator = torch.Generator().manual_seed(0)
        stored = torch.randperm(len(stored), generator=generator)[:MOST_STORED].sort().values
    place = torch.full((matrix.num_documents,), -1, dtype=torch.int32)
    place[stored] = torch.arange(len(stored), dtype=torch.int32)
    words = scale.nonzero().squeeze(1)  # feature of each column
    columns = torch.repeat_interleave(matrix.column_starts.diff().long())  # of each value of the matrix
    frequencies = matrix.column_starts.diff()[:-1]
    used = (words < vocab_size) & (frequencies <= MOST_FREQUENT * matrix.num_documents)
    used = functional.pad(used, (0, 1))  # the last column is 1 in every document
    kept = used[columns] & (place[matrix.column_documents] >= 0)
    store = SGMNeighbors(vocab_size, num_labels, num_neighbors)
    counts = torch.bincount(words[columns[kept]], minlength=vocab_size)
    store.starts = functional.pad(counts.cumsum(0), (1, 0))
    store.documents, store.values = place[matrix.column_documents[kept]], matrix.column_values[kept]
    entries, _ = ranges(label_starts[stored], label_starts[stored + 1])
    lengths = label_starts.diff()[stored]
    store.label_starts = functional.pad(lengths.cumsum(0), (1, 0))
    store.labels = label_ids[entries].int()
    store.prior = torch.bincount(store.labels, minlength=num_labels) / len(stored)
    return store, stored


def fit_mixture(
    store: SGMNeighbors, linear: torch.Tensor, neighbors: torch.Tensor, votes: torch.Tensor, truth: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Logistic regression of labels on the linear model's log-odds and those of the votes; sets the store's weight.

    Args:
        store: The store.
        linear: Log-odds of the linear model, (n, L).
        neighbors: (n, k).
        votes: (n, k).
        truth: 1 where a document has a label, else 0, (n, L).

    Returns:
        Scale of the linear model's log-odds, and what is added to those of each label, (L).
    """
    store.weight = torch.tensor(1.0)
    base = smoothed_log_odds(torch.zeros_like(store.prior), store.floor())  # (L), what no vote gives
    trained = store.prior > 0  # (L)
    voted = store.evidence(neighbors, votes) + base  # (n, L)
    sources = torch.stack([linear, voted])[..., trained].double().numpy()  # (2, n, trained labels)
    known = truth[:, trained].bool().numpy()
    scale, weight, intercept = fit_logistic(lambda rows: sources[:, rows].reshape(2, -1), 2, known).tolist()
    store.weight = torch.tensor(weight)
    return scale, weight * base + intercept


__all__ = ["LEAST_GAIN", "MOST_CELLS", "NeighborFit", "fit_mixture", "make_store"]
