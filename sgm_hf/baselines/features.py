"""TF-IDF over the words of texts, and what the baselines that learn from it have in common.

(1 + log tf) * idf of words and, at a lower weight, of pairs of neighbouring words; rows of length 1. It is what
scikit-learn's `TfidfVectorizer(sublinear_tf=True)` makes of the words of `SGMTokenizer`, whole texts and all words of
the training documents.

Memory is bounded by the words of the documents and `MOST_PAIRS`: pairs are numbers, not texts, and counted in blocks.

Shapes: N documents, F features, L labels.
"""

import logging
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy import sparse

from sgm_hf.baselines.base import Baseline, Documents, digest_texts
from sgm_hf.data.encoding import TextEncoder
from sgm_hf.modeling import SGMTokenizer

logger = logging.getLogger(__name__)

FEATURES_FILE = "features.safetensors"
# Weights of one model, 1 GiB: where it has more, the features in most documents are kept.
MAX_WEIGHTS = 2**27
# Different features that are counted at a time; beyond it pairs that were in one document until then are forgotten.
MOST_PAIRS = 20_000_000
_DOCUMENTS_AT_ONCE = 10_000
# Numbers of the largest array while scores are made: 64 MiB.
MOST_CELLS = 2**23
# Every word counts, and the whole text.
_ALL_WORDS, _WHOLE_TEXT = 2**31 - 1, 10**9
_FIRST_WORD = 2  # ids before it are padding and unknown words


class TfidfFeatures:
    """Words and pairs of neighbouring words that the training documents have, weighted by TF-IDF.

    Args:
        bigram_weight: Weight of pairs beside the words; 0 leaves them out.
        min_df: Training documents that a feature must be in.
        sublinear_tf: Whether a word counts 1 + log tf, not tf.

    Attributes:
        keys: Of each feature a word's id, or of a pair first * 2**32 + second, ascending, (F) int64.
        idf: log((1 + N) / (1 + documents that have it)) + 1, scikit-learn's smooth idf, (F) float64.
        seconds: What the last choice of the features took.
    """

    keys: np.ndarray
    idf: np.ndarray
    tokenizer: SGMTokenizer
    seconds: float = 0.0

    def __init__(self, bigram_weight: float = 0.0, min_df: int = 1, sublinear_tf: bool = True):
        if not 0 <= bigram_weight < float("inf"):
            raise ValueError(f"bigram_weight is {bigram_weight}; give a finite number from 0 on.")
        if min_df < 1:
            raise ValueError(f"min_df is {min_df}; a feature must be in at least 1 document.")
        self.bigram_weight, self.min_df, self.sublinear_tf = bigram_weight, min_df, sublinear_tf
        self._fitted: tuple[str, int, sparse.csr_matrix] | None = None

    def fit_transform(self, texts: Sequence[str], max_features: int = MAX_WEIGHTS) -> sparse.csr_matrix:
        """Choose the features by training texts; the same texts again give the matrix that was kept.

        Args:
            texts: Of the training documents.
            max_features: Most features, those in most documents.

        Returns:
            The features of the texts, (N, F) float64.

        Raises:
            ValueError: If no word or pair is in `min_df` documents.
        """
        found = hash_texts(texts)
        if self._fitted is not None and self._fitted[:2] == (found, max_features):
            return self._fitted[2]
        self._fitted, start = None, time.perf_counter()
        self.tokenizer = SGMTokenizer.train_from_texts(texts, vocab_size=_ALL_WORDS, model_max_length=_WHOLE_TEXT)
        ids = [words for block in self._encoded(texts) for words in block]
        keys, documents = count_documents(self._occurrences(block) for block in _blocks(ids))
        kept = documents >= self.min_df
        if kept.sum() > max_features:
            ranked = np.argsort(-documents, kind="stable")[:max_features]
            kept = np.isin(np.arange(len(keys)), ranked)
            logger.warning("of the features %s are kept, those in most documents", f"{max_features:,}")
        if not kept.any():
            raise ValueError(f"no word is in {self.min_df} of {len(ids)} training documents; lower min_df.")
        self.keys = keys[kept]
        self.idf = np.log((1 + len(ids)) / (1 + documents[kept])) + 1
        matrix = sparse.vstack([self._weighted(block) for block in _blocks(ids)], format="csr")
        self._fitted = found, max_features, matrix
        self.seconds = time.perf_counter() - start
        return matrix

    def transform(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """The features of texts, (N, F) float64; a text without a known word has none."""
        matrices = [self._weighted(block) for block in self._encoded(texts)]
        return sparse.vstack(matrices, format="csr") if matrices else sparse.csr_matrix((0, len(self.keys)))

    def _encoded(self, texts: Sequence[str]) -> Iterator[list[np.ndarray]]:
        """The word ids of each text, in blocks."""
        encoder = TextEncoder(self.tokenizer, _WHOLE_TEXT)
        for block in _blocks(texts):
            yield [np.asarray(ids, dtype=np.int32) for ids in encoder(list(block))["input_ids"]]

    def _occurrences(self, ids: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Document, counted within the block, and key of each word and pair; unknown words make none."""
        rows = np.repeat(np.arange(len(ids)), [len(words) for words in ids])
        words = np.concatenate([*ids, np.zeros(0, np.int32)]).astype(np.int64)
        known = words >= _FIRST_WORD
        if not self.bigram_weight:
            return rows[known], words[known]
        together = known[:-1] & known[1:] & (rows[:-1] == rows[1:])
        pairs = (words[:-1] << 32) + words[1:]
        return np.concatenate([rows[known], rows[:-1][together]]), np.concatenate([words[known], pairs[together]])

    def _weighted(self, ids: Sequence[np.ndarray]) -> sparse.csr_matrix:
        """The features of a block of documents."""
        rows, keys = self._occurrences(ids)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        seen = self.keys[places] == keys
        found = (np.ones(int(seen.sum())), (rows[seen], places[seen]))
        matrix = sparse.coo_matrix(found, shape=(len(ids), len(self.keys))).tocsr()
        # In the order of scikit-learn's operations, so that the numbers have the same bits.
        counts = np.log(matrix.data) + 1 if self.sublinear_tf else matrix.data
        values = counts * self.idf[matrix.indices]
        values[self.keys[matrix.indices] >= 2**32] *= self.bigram_weight
        rows = np.repeat(np.arange(len(ids)), np.diff(matrix.indptr))
        lengths = np.sqrt(np.bincount(rows, weights=values * values, minlength=len(ids)))  # (n)
        matrix.data = values / lengths[rows]
        return matrix

    def save(self, folder: str | Path) -> None:
        """Write the words to `tokenizer.json` and the features to `features.safetensors`."""
        self.tokenizer.save_pretrained(folder)
        save_file({"keys": self.keys, "idf": self.idf}, Path(folder, FEATURES_FILE))

    def load(self, folder: str | Path) -> None:
        """Read what `save` has written."""
        self.tokenizer = SGMTokenizer.from_pretrained(str(folder))
        content = load_file(Path(folder, FEATURES_FILE))
        self.keys, self.idf = content["keys"], content["idf"]


@dataclass(eq=False, kw_only=True)
class TfidfBaseline(Baseline):
    """A baseline that learns from TF-IDF features.

    Args:
        cost: C of liblinear's classifiers: what errors cost against the L2 penalty.
        bigram_weight: Weight of pairs of neighbouring words beside the words; 0 leaves them out.
        min_df: Training documents that a word or pair must be in.
        sublinear_tf: Whether a word counts 1 + log tf, not tf.
        seed: Of all that is random.
    """

    cost: float = 1.0
    bigram_weight: float = 0.0
    min_df: int = 1
    sublinear_tf: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.cost < float("inf"):
            raise ValueError(f"cost is {self.cost}; give a finite number above 0.")
        self.features = TfidfFeatures(self.bigram_weight, self.min_df, self.sublinear_tf)

    def num_columns(self, truth: np.ndarray) -> int:
        """How many weights there are for each feature, given the true labels (N, L): one for each label."""
        return truth.shape[1]

    @abstractmethod
    def fit_matrix(self, matrix: sparse.csr_matrix, truth: np.ndarray) -> None:
        """Learn from features (N, F) and true labels (N, L)."""

    @abstractmethod
    def decide(self, matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """The scores of documents by their features (N, F), (N, L), and the system's own decision, (N, L) bool."""

    @abstractmethod
    def cells_per_document(self) -> int:
        """Numbers of the largest array while a document is labelled."""

    def fit_documents(self, train: Documents, validation: Documents | None) -> None:
        """Learn from the training documents."""
        most = max(1, MAX_WEIGHTS // self.num_columns(train.references))
        self.fit_matrix(self.features.fit_transform(train.texts, most), train.references)

    def reuse(self, other: Baseline) -> None:
        """Take over the features, if both make the same."""
        names = ("bigram_weight", "min_df", "sublinear_tf")
        if isinstance(other, TfidfBaseline) and all(getattr(other, n) == getattr(self, n) for n in names):
            self.features, self.reused_seconds = other.features, other.features.seconds

    def predict_scores(self, texts: Sequence[str]) -> np.ndarray:
        """A score of each label for each text, float32 in [0, 1], (N, L)."""
        scores = np.empty((len(texts), self.num_labels), dtype=np.float32)
        for rows, matrix in self._parts(texts):
            scores[rows], _ = self.decide(matrix)
        return scores

    def scores_and_sets(self, texts: Sequence[str]) -> tuple[np.ndarray, list[list[int]]]:
        """Scores, and the label ids that the system itself decides for, highest score first, then the lower id."""
        scores = np.empty((len(texts), self.num_labels), dtype=np.float32)
        sets = []
        for rows, matrix in self._parts(texts):
            scores[rows], chosen = self.decide(matrix)
            order = np.argsort(-scores[rows], axis=1, kind="stable")
            kept = np.take_along_axis(chosen, order, axis=1)
            sets += [row[is_kept].tolist() for row, is_kept in zip(order, kept, strict=True)]
        return scores, sets

    def _parts(self, texts: Sequence[str]) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """The features of some texts at a time, so that what is computed of them stays small."""
        size = min(_DOCUMENTS_AT_ONCE, max(1, MOST_CELLS // self.cells_per_document()))
        for first in range(0, len(texts), size):
            rows = slice(first, first + size)
            yield rows, self.features.transform(texts[rows])


def _blocks(documents: Sequence) -> Iterator[Sequence]:
    """Some thousand documents at a time."""
    for first in range(0, len(documents), _DOCUMENTS_AT_ONCE):
        yield documents[first : first + _DOCUMENTS_AT_ONCE]


def hash_texts(texts: Iterable[str]) -> str:
    """A hash of texts in their order, in hexadecimal."""
    return digest_texts(texts).hexdigest()


def count_documents(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Count the documents that have each key.

    Where there are more than `MOST_PAIRS` different keys, pairs that were in one document until then are forgotten.

    Args:
        blocks: Document and key of each occurrence, of different documents in each block.

    Returns:
        The keys, ascending, and their numbers of documents, both int64.
    """
    # Sorted runs, each more than twice as long as the next: what is counted is merged a few times only.
    runs = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for rows, keys in blocks:
        order = np.lexsort((rows, keys))
        rows, keys = rows[order], keys[order]
        is_new = np.ones(len(keys), dtype=bool)
        is_new[1:] = (keys[1:] != keys[:-1]) | (rows[1:] != rows[:-1])
        runs.append(_merged([(keys[is_new], np.ones(int(is_new.sum()), np.int64))]))
        while len(runs) > 1 and 2 * len(runs[-1][0]) >= len(runs[-2][0]):
            runs[-2:] = [_merged(runs[-2:])]
        if sum(len(run) for run, _ in runs) > MOST_PAIRS:
            counted, documents = _merged(runs)
            kept = (documents > 1) | (counted < 2**32)
            logger.warning("%s pairs of words that are in one document were forgotten", f"{(~kept).sum():,}")
            runs = [(counted[kept], documents[kept])]
    return _merged(runs)


def _merged(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Several keys with their numbers as one run, ascending, each key once."""
    keys, numbers = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    order = np.argsort(keys, kind="stable")
    keys, numbers = keys[order], numbers[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, np.int64)
    return keys[starts], np.add.reduceat(numbers, starts) if len(keys) else numbers
