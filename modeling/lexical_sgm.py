"""The lexical branch: a sparse linear model over the words of the whole text, which gives log-odds of every label.

A document's features are its words and, where the model has some, pairs of adjacent words (bigrams), each weighted by
(1 + log tf) times the feature's `scale`, the whole of length 1: what `TfidfVectorizer(sublinear_tf=True)` makes of the
same words, with its idf in `scale`. What the labels of similar training documents say (`neighbors_sgm.py`) may be
added to the log-odds. `sgm_hf.training.lexical` fits the branch; nothing else trains it.

Shapes: B documents, T words, V words in the vocabulary, K bigrams, F = V + K features, L labels, N words of all
documents of a batch (padding left out), M different features of each document, summed over the documents.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .neighbors_sgm import SGMNeighbors

# The log-odds of a label without evidence: probability .00005, below any threshold, and of the size that rare labels
# have. Not -inf: log-odds are scaled, averaged and added up.
UNTRAINED_LOG_ODDS = -10.0


class SGMLexicalBranch(nn.Module):
    """One linear model per label over words and bigrams, and nearest neighbors beside it.

    All it knows lies in buffers, which optimizers and `num_parameters()` leave out:

    - `scale` (F): idf of each feature, 0 for what no training document has; that of bigrams times their weight;
    - `weight` (F, L) and `bias` (L), into which the slope and intercept of Platt's calibration are folded;
    - `bigrams` (K) int64: `first * vocab_size + second` of each pair, ascending; pair k is feature V + k;
    - those of `neighbors`, if there are any.

    It computes in float32, also under autocast. `model.to(torch.bfloat16)` rounds its buffers like all weights (three
    decimals are left) and changes the log-odds by that much and no more.

    Args:
        vocab_size: V.
        num_labels: L.
        num_bigrams: K.
        num_neighbors: Training documents that vote for their labels; 0 for none.
        datastore: The sizes of the store of these, see [`SGMNeighbors`].
    """

    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    bigrams: torch.Tensor

    def __init__(
        self,
        vocab_size: int,
        num_labels: int,
        num_bigrams: int = 0,
        num_neighbors: int = 0,
        datastore: Sequence[int] | None = None,
    ):
        super().__init__()
        self.vocab_size = vocab_size
        self.register_buffer("scale", torch.zeros(vocab_size + num_bigrams))  # (F)
        self.register_buffer("weight", torch.zeros(vocab_size + num_bigrams, num_labels))  # (F, L)
        self.register_buffer("bias", torch.full((num_labels,), UNTRAINED_LOG_ODDS))  # (L)
        self.register_buffer("bigrams", torch.arange(num_bigrams))  # (K), any that ascend
        self.neighbors = SGMNeighbors(vocab_size, num_labels, num_neighbors, datastore) if num_neighbors else None

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Computes the log-odds of every label.

        A document's result is the same, bit for bit, whatever its padding and the other documents of the batch. Words
        that no training document has contribute nothing; a document without other words gets `bias`, and what
        [`SGMNeighbors`] says of a document without neighbors.

        Args:
            input_ids: Words, (B, T) int64.
            attention_mask: 0 for padding, (B, T); default: there is none.

        Returns:
            Log-odds, (B, L) float32.
        """
        documents, features, values = self.features(input_ids, attention_mask)  # (M) each
        bias = self.bias.float()  # (L)
        if self.neighbors is not None:
            bias = bias + self.neighbors(documents, features, values, len(input_ids))  # (B, L)
        weight = self.weight
        if weight.dtype != torch.float32:  # the model was cast; of its rows only those that occur are cast back
            rows, features = torch.unique(features, return_inverse=True)  # (U), (M)
            weight = weight[rows].float()  # (U, L)
        return sum_features(documents, features, values, weight, len(input_ids)) + bias  # (B, L)

    def features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Finds the features of each document.

        Args:
            input_ids: Words, (B, T) int64.
            attention_mask: 0 for padding, (B, T); default: there is none.

        Returns:
            Document (ascending), feature (ascending in a document) and value, (M) each; those of scale 0 are left out.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        documents, positions = mask.nonzero(as_tuple=True)  # (N), (N)
        documents, features, counts = count_features(
            documents, input_ids[documents, positions], self.bigrams, self.vocab_size
        )  # (M) each
        return weigh_features(documents, features, counts, self.scale.float(), len(input_ids))  # (M) each

    def resize_words(self, vocab_size: int) -> None:
        """Takes words away from the end of the vocabulary, with their bigrams, or adds words without weight.

        Args:
            vocab_size: The new V.
        """
        first, second = self.bigrams // self.vocab_size, self.bigrams % self.vocab_size  # (K), (K)
        kept = torch.maximum(first, second) < vocab_size  # (K)
        words, added = min(vocab_size, self.vocab_size), max(0, vocab_size - self.vocab_size)
        for name in ("scale", "weight"):
            rows = getattr(self, name)  # (F, ...)
            new = rows.new_zeros(added, *rows.shape[1:])  # (added, ...)
            setattr(self, name, torch.cat([rows[:words], new, rows[self.vocab_size :][kept]]))  # (new F, ...)
        # Still ascending: pairs are ordered by their first word, then by their second.
        self.bigrams = first[kept] * vocab_size + second[kept]  # (new K)
        self.vocab_size = vocab_size
        if self.neighbors is not None:
            self.neighbors.resize_words(vocab_size)

    def add_labels(self, count: int, shares: torch.Tensor | None = None, likeness: torch.Tensor | None = None) -> None:
        """Appends labels.

        Without more than their number nothing is known of them: their log-odds are -10 for every document, until the
        branch is fitted. Else their weights are mixed from those there are, and added to what each word says for
        them by its meaning, which gets the length of a usual label's weights.

        Args:
            count: Labels to add.
            shares: Of each label that there is, (count, L).
            likeness: How much each word speaks for each new label, (V, count); given with `shares`.
        """
        if self.neighbors is not None:
            self.neighbors.add_labels(count)
        if shares is not None and likeness is not None:
            weight = self.weight.float()  # (F, L)
            usual = weight[: self.vocab_size].norm(dim=0).mean()  # ()
            added = weight @ shares.T  # (F, count)
            added[: self.vocab_size] += usual * F.normalize(likeness, dim=0)  # (V, count)
            bias = shares @ self.bias.float()  # (count)
            self.weight = torch.cat([self.weight, added.to(self.weight.dtype)], dim=1)  # (F, L + count)
            self.bias = torch.cat([self.bias, bias.to(self.bias.dtype)])  # (L + count)
            return
        self.weight = F.pad(self.weight, (0, count))  # (F, L + count)
        self.bias = F.pad(self.bias, (0, count), value=UNTRAINED_LOG_ODDS)  # (L + count)


def count_features(
    documents: torch.Tensor, words: torch.Tensor, bigrams: torch.Tensor, vocab_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts words and bigrams of documents.

    Args:
        documents: The document of each word, ascending, (N) int64.
        words: The words, document after document, (N) int64.
        bigrams: Pairs of words that are features, `first * vocab_size + second`, ascending, (K) int64.
        vocab_size: V.

    Returns:
        Document, feature and count, (M) each, ordered by document and feature.
    """
    num_features = vocab_size + len(bigrams)
    keys = documents * num_features + words  # (N)
    if len(bigrams):
        pairs = words[:-1] * vocab_size + words[1:]  # (N - 1)
        places = torch.searchsorted(bigrams, pairs).clamp(max=len(bigrams) - 1)  # (N - 1)
        found = (bigrams[places] == pairs) & (documents[:-1] == documents[1:])  # (N - 1)
        pair_keys = documents[:-1] * num_features + vocab_size + places  # (N - 1)
        keys = torch.cat([keys, pair_keys[found]])  # (N + pairs found)
    keys, counts = torch.unique_consecutive(keys.sort().values, return_counts=True)  # (M), (M)
    found_in = torch.div(keys, num_features, rounding_mode="floor")  # (M)
    return found_in, keys - found_in * num_features, counts  # (M) each


def weigh_features(
    documents: torch.Tensor, features: torch.Tensor, counts: torch.Tensor, scale: torch.Tensor, num_documents: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighs counted features by (1 + log tf) * scale and divides by the document's Euclidean norm.

    Args:
        documents: Document of each count, ascending, (M) int64.
        features: Feature, (M) int64.
        counts: How often it occurs, (M) int64.
        scale: Of each feature, (F) float32.
        num_documents: B.

    Returns:
        Document, feature and value, of those whose scale is not 0.
    """
    scales = scale[features]  # (M)
    known = scales != 0  # (M)
    documents, features = documents[known], features[known]  # (M) each
    values = (1 + counts[known].float().log()) * scales[known]  # (M)
    # Added up one after the other: the sum over a padded row would round differently with its width.
    squares = values.new_zeros(num_documents).index_add_(0, documents, values.square())  # (B)
    return documents, features, values / squares.sqrt()[documents]  # (M) each


def sum_features(
    documents: torch.Tensor, features: torch.Tensor, values: torch.Tensor, weight: torch.Tensor, num_documents: int
) -> torch.Tensor:
    """Adds up each document's features, weighted by their values.

    Args:
        documents: Document of each feature, ascending, (M) int64.
        features: Row of the weight, (M) int64.
        values: (M) float32.
        weight: (F, L) float32.
        num_documents: B.

    Returns:
        Scores, (B, L); 0 for a document without features.
    """
    if not len(features):
        return weight.new_zeros(num_documents, weight.shape[1])  # (B, L)
    starts = torch.searchsorted(documents, torch.arange(num_documents, device=documents.device))  # (B)
    return F.embedding_bag(features, weight, starts, mode="sum", per_sample_weights=values)  # (B, L)


__all__ = ["UNTRAINED_LOG_ODDS", "SGMLexicalBranch", "count_features", "sum_features", "weigh_features"]
