"""Nearest neighbors: what the labels of the most similar training documents say of a document's labels.

The lexical branch stores its training documents as their words, weighted as its features are. A document's neighbors
are the k of them with the largest inner product, and vote for their labels with softmax(similarity / temperature), as
in k-nearest-neighbor models of language and of labels (Khandelwal et al. 2020, "Generalization through memorization",
§2; Su et al. 2022, "Contrastive learning-enhanced nearest neighbor mechanism for multi-label text classification",
§3.2). `sgm_hf.training.neighbors` makes the store and fits how much the votes count.

Shapes: B documents, M features of all of them, N stored documents, E words of these (postings), G labels of these,
V words in the vocabulary, L labels, k neighbors.
"""

from collections.abc import Sequence

import torch
from torch import nn

TEMPERATURE = 0.03
# Of the votes: a label that no neighbor has may still be right, more so a frequent one.
SMOOTHING = 0.02
# Documents compared with the store at a time: so few that their postings stay in a processor's cache, which makes it
# twice as fast as 16 are.
_DOCUMENTS_AT_ONCE = 4


class SGMNeighbors(nn.Module):
    """The stored documents, by word, with their labels.

    All lies in buffers, which optimizers and `num_parameters()` leave out:

    - `starts` (V + 1) int64: the postings of word v are those from `starts[v]` to before `starts[v + 1]`;
    - `documents` (E) int32 and `values` (E): in which stored document a posting's word is, and the word's value there;
    - `label_starts` (N + 1) int64 and `labels` (G) int32: the labels of each stored document, likewise;
    - `prior` (L): share of the stored documents that have a label; votes say nothing of a label where it is 0;
    - `weight` (): of the votes' log-odds beside those of the linear model.

    Args:
        vocab_size: V.
        num_labels: L.
        num_neighbors: k.
        sizes: N, E and G; default: nothing is stored, and nothing said.
    """

    starts: torch.Tensor
    documents: torch.Tensor
    values: torch.Tensor
    label_starts: torch.Tensor
    labels: torch.Tensor
    prior: torch.Tensor
    weight: torch.Tensor

    def __init__(self, vocab_size: int, num_labels: int, num_neighbors: int, sizes: Sequence[int] | None = None):
        super().__init__()
        self.num_neighbors = num_neighbors
        num_documents, num_postings, num_label_entries = sizes or (0, 0, 0)
        self.register_buffer("starts", torch.zeros(vocab_size + 1, dtype=torch.int64))  # (V + 1)
        self.register_buffer("documents", torch.zeros(num_postings, dtype=torch.int32))  # (E)
        self.register_buffer("values", torch.zeros(num_postings))  # (E)
        self.register_buffer("label_starts", torch.zeros(num_documents + 1, dtype=torch.int64))  # (N + 1)
        self.register_buffer("labels", torch.zeros(num_label_entries, dtype=torch.int32))  # (G)
        self.register_buffer("prior", torch.zeros(num_labels))  # (L)
        self.register_buffer("weight", torch.zeros(()))  # ()

    @property
    def sizes(self) -> list[int]:
        """N, E and G, which a configuration must have for the store to be loaded."""
        return [len(self.label_starts) - 1, len(self.documents), len(self.labels)]

    def forward(
        self, documents: torch.Tensor, features: torch.Tensor, values: torch.Tensor, num_documents: int
    ) -> torch.Tensor:
        """Finds the neighbors of documents and what these say.

        Args:
            documents: Document of each feature, ascending, (M) int64.
            features: Of these the first V are words; others are passed over. (M) int64.
            values: (M) float32.
            num_documents: B.

        Returns:
            What is added to the log-odds of each label, (B, L) float32.
        """
        return self.evidence(*self.find(documents, features, values, num_documents))

    def find(
        self,
        documents: torch.Tensor,
        features: torch.Tensor,
        values: torch.Tensor,
        num_documents: int,
        folds: torch.Tensor | None = None,
        stored_folds: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds the nearest stored documents.

        Args:
            documents: Document of each feature, ascending, (M) int64.
            features: (M) int64.
            values: (M) float32.
            num_documents: B.
            folds: Of each document, (B): no neighbor is of the same fold. Default: any may be one.
            stored_folds: Of each stored document, (N); given with `folds`.

        Returns:
            Neighbors (B, k) and their votes (B, k), which sum to 1; 0 for documents that have no word in common, so
            that a document without neighbors has none. At most N columns.
        """
        words = features < len(self.starts) - 1  # (M)
        documents, features, values = documents[words], features[words], values[words]  # (words of M) each
        found = []
        for first in range(0, num_documents, _DOCUMENTS_AT_ONCE):
            count = min(_DOCUMENTS_AT_ONCE, num_documents - first)
            part = slice(*torch.searchsorted(documents, documents.new_tensor([first, first + count])).tolist())
            similarities = self._similarities(documents[part] - first, features[part], values[part], count)  # (b, N)
            if folds is not None and stored_folds is not None:
                same = folds[first : first + count, None] == stored_folds  # (b, N)
                similarities = similarities.masked_fill(same, 0.0)  # (b, N)
            found.append(similarities.topk(min(self.num_neighbors, similarities.shape[1])))  # (b, k) each
        similarities, neighbors = (torch.cat(parts) for parts in zip(*found, strict=True))  # (B, k) each
        votes = (similarities / TEMPERATURE).masked_fill(similarities <= 0, -torch.inf).softmax(dim=1)  # (B, k)
        return neighbors, votes.nan_to_num()  # not a number where no document has a word in common

    def _similarities(
        self, documents: torch.Tensor, features: torch.Tensor, values: torch.Tensor, num_documents: int
    ) -> torch.Tensor:
        """The inner products of documents with the stored ones, (B, N)."""
        num_stored = len(self.label_starts) - 1
        postings, sources = ranges(self.starts[features], self.starts[features + 1])  # (P), (P)
        places = (documents * num_stored).index_select(0, sources) + self.documents.index_select(0, postings)  # (P)
        products = values.index_select(0, sources) * self.values.index_select(0, postings).float()  # (P)
        similarities = products.new_zeros(num_documents * num_stored)  # (B * N)
        # Added up one after the other, in the order of the document's words: batch-mates never change a bit.
        return similarities.index_add_(0, places, products).view(num_documents, num_stored)  # (B, N)

    def evidence(self, neighbors: torch.Tensor, votes: torch.Tensor) -> torch.Tensor:
        """What neighbors say: 0 for a label that none of them has, more the more of the votes are for it.

        Args:
            neighbors: Stored documents, (B, k).
            votes: Of each, (B, k).

        Returns:
            `weight` times the growth of the log-odds of a label's share of the votes, (B, L) float32.
        """
        num_documents, num_labels, prior = len(votes), len(self.prior), self.prior.float()  # prior (L)
        voters = neighbors.flatten().long()  # (B * k)
        entries, sources = ranges(self.label_starts[voters], self.label_starts[voters + 1])  # (P), (P)
        rows = torch.div(sources, max(1, votes.shape[1]), rounding_mode="floor")  # (P)
        places = rows * num_labels + self.labels[entries]  # (P)
        shares = votes.new_zeros(num_documents * num_labels)  # (B * L)
        shares = shares.index_add_(0, places, votes.flatten()[sources]).view(num_documents, num_labels)  # (B, L)
        shares = shares + (1 - votes.sum(dim=1, keepdim=True)) * prior  # (B, L): without neighbors, what is usual
        growth = smoothed_log_odds(shares, self.floor()) - smoothed_log_odds(torch.zeros_like(prior), self.floor())
        return self.weight.float() * growth.masked_fill(prior == 0, 0.0)  # (B, L)

    def floor(self) -> torch.Tensor:
        """What the votes for each label are taken to be at least, (L)."""
        return SMOOTHING * self.prior.float().clamp(min=1 / max(1, len(self.label_starts) - 1))  # (L)

    def resize_words(self, vocab_size: int) -> None:
        """Takes words away from the end of the vocabulary, or adds words that no stored document has.

        Args:
            vocab_size: The new V.
        """
        words = min(vocab_size + 1, len(self.starts))
        added = self.starts[-1:].expand(vocab_size + 1 - words)  # (new V - V)
        self.starts = torch.cat([self.starts[:words], added])  # (new V + 1)
        end = int(self.starts[-1])
        self.documents, self.values = self.documents[:end], self.values[:end]  # (new E) each

    def add_labels(self, count: int) -> None:
        """Appends labels that no stored document has."""
        self.prior = torch.cat([self.prior, self.prior.new_zeros(count)])  # (L + count)


def ranges(starts: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes ranges of numbers one after the other.

    Args:
        starts: The first number of each range, (R) int64.
        ends: The number after its last, (R) int64.

    Returns:
        The numbers (P) and the range that each is of (P).
    """
    counts = ends - starts  # (R)
    sources = torch.repeat_interleave(counts)  # (P)
    offsets = starts - (counts.cumsum(0) - counts)  # (R)
    numbers = torch.arange(len(sources), device=starts.device) + offsets.index_select(0, sources)  # (P)
    return numbers, sources


def smoothed_log_odds(shares: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """Log-odds of shares of votes that stay finite for 0 and 1.

    Args:
        shares: (..., L).
        floor: Added to them, (L).

    Returns:
        (..., L).
    """
    return (shares + floor).log() - (1 - shares + SMOOTHING).log()  # (..., L)


__all__ = ["SGMNeighbors", "ranges", "smoothed_log_odds"]
