"""Initial word vectors of a new model: from its training documents by PPMI and SVD, or from a file."""

import gzip
import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgm_hf.data.lines import read_lines
from sgm_hf.training.progress import shown_progress

logger = logging.getLogger(__name__)

NORM = 0.15  # of a word's vector, times √size
UNSEEN_NORM = 0.1  # of the vector of a word without counts, as a part of that

# Words of documents that are counted at most: a sample of the documents above. Bounds memory and time.
_MOST_WORDS = 20_000_000
_WORDS_AT_ONCE = 1_000_000
_DOCUMENTS_AT_ONCE = 250
# Of the randomised SVD: directions in addition to those asked for, and rounds of the power iteration.
_OVERSAMPLING, _ROUNDS = 10, 4
_SMALLEST = 1e-5  # singular value that is no rounding error, as a part of the largest

# Of binary files of vectors.
_BYTES_AT_ONCE = 2**20
_LONGEST_WORD = 10_000
_PRINTABLE = bytes(range(32, 127)) + b"\t\r\n"
_EXPECTED = "Expected a word and its numbers, separated by single spaces: the 0.12 -0.3 …"


# ---- from the training documents ----


def ppmi_vectors(
    dataset: Dataset,
    vocab_size: int,
    size: int,
    window: int = 5,
    context_power: float = 0.75,
    pad_token_id: int | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Word vectors from the words around each word: positive pointwise mutual information, factored by an SVD.

    Levy, Goldberg and Dagan (2015), "Improving Distributional Similarity with Lessons Learned from Word Embeddings":
    PPMI with a smoothed context distribution (§3.2) and U √S as vectors (§3.3, p = 0.5). All vectors have the same
    norm, 0.15 √size. The order of the documents does not matter, and neither does the random state of PyTorch.

    Args:
        dataset: Encoded documents, as `encode_dataset` returns them. Where they have more than twenty million words
            together, a random sample of them is taken.
        vocab_size: Number of word ids.
        size: Size of the vectors.
        window: How many words before and after a word are its context.
        context_power: Exponent of the distribution of context words; below 1 it lowers the weight of rare ones.
        pad_token_id: Id whose vector is zero.
        seed: Seed of the SVD, of the sample and of the words without counts, which get small random vectors.

    Returns:
        The vectors, float32, (vocab_size, size).

    Raises:
        ValueError: If a size is below 1, or a document has an id that is not below `vocab_size`.

    Examples:
        >>> vectors = ppmi_vectors(encoded, len(tokenizer), model.config.embedding_size)
        >>> set_word_vectors(model, vectors)
    """
    if min(vocab_size, size, window) < 1:
        raise ValueError(f"vocab_size is {vocab_size}, size {size} and window {window}; each must be at least 1.")
    keys, counts = count_pairs(sample_documents(dataset, _MOST_WORDS, seed), vocab_size, window)
    logger.info("making word vectors of %s pairs of words", f"{len(keys):,}")
    matrices = ppmi_matrices(keys, counts, vocab_size, context_power)
    left, values = truncated_svd(*matrices, size, seed)  # (vocab_size, k), (k)
    vectors = torch.zeros(vocab_size, size)
    vectors[:, : len(values)] = left * values.sqrt()
    norms = vectors.norm(dim=1, keepdim=True)
    is_known = norms > _SMALLEST * norms.max()
    random = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed)) / size**0.5
    vectors = torch.where(is_known, vectors / norms.clamp(min=torch.finfo(norms.dtype).tiny), UNSEEN_NORM * random)
    if pad_token_id is not None:
        vectors[pad_token_id] = 0.0
    return NORM * size**0.5 * vectors


def sample_documents(dataset: Dataset, most_words: int, seed: int) -> Dataset:
    """As many random documents as have `most_words` words together; all of them where they have no more."""
    lengths = np.asarray(dataset["length"], dtype=np.int64)
    if lengths.sum() <= most_words:
        return dataset
    rows = np.random.default_rng(seed).permutation(len(lengths))
    rows = np.sort(rows[np.cumsum(lengths[rows]) <= most_words])
    logger.info(
        "word vectors are made of %s of %s documents, which have %s words",
        *(f"{number:,}" for number in (len(rows), len(lengths), lengths[rows].sum())),
    )
    return dataset.select(rows)


def count_pairs(dataset: Dataset, vocab_size: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Count how often two words are at most `window` words apart in a document.

    Returns:
        Of each pair that occurs its key, `first * vocab_size + second` with first <= second, ascending, and its
        count, both int64.

    Raises:
        ValueError: If a document has an id that is not below `vocab_size`.
    """
    # Sorted runs, each more than twice as long as the next: what is counted is merged a few times only.
    runs: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for ids, documents in _blocks(dataset):
        if ids.min() < 0 or ids.max() >= vocab_size:
            wrong = ids[(ids < 0) | (ids >= vocab_size)][0]
            raise ValueError(f"a document has the word id {wrong}; expected ids from 0 to {vocab_size - 1}.")
        keys = []
        for distance in range(1, min(window, len(ids) - 1) + 1):
            before, after = ids[:-distance], ids[distance:]
            pairs = np.minimum(before, after) * vocab_size + np.maximum(before, after)
            keys.append(pairs[documents[:-distance] == documents[distance:]])
        if keys:
            runs.append(np.unique(np.concatenate(keys), return_counts=True))
        while len(runs) > 1 and 2 * len(runs[-1][0]) >= len(runs[-2][0]):
            runs[-2:] = [_merge(runs[-2:])]
    return _merge(runs)


def _blocks(dataset: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The ids of many documents one after the other, and the number of the document of each, while progress shows."""
    rows: list[np.ndarray] = []
    with shown_progress(len(dataset), "Counting pairs of words") as progress:
        for batch in dataset.select_columns(["input_ids"]).with_format("numpy").iter(_DOCUMENTS_AT_ONCE):
            rows += list(batch["input_ids"])
            progress.update(len(batch["input_ids"]))
            lengths = [len(row) for row in rows]
            if sum(lengths) >= _WORDS_AT_ONCE:
                yield np.concatenate(rows).astype(np.int64), np.repeat(np.arange(len(rows)), lengths)
                rows = []
        if sum(map(len, rows)):
            yield np.concatenate(rows).astype(np.int64), np.repeat(np.arange(len(rows)), [len(row) for row in rows])


def _merge(runs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys and their counts, of several of these."""
    keys, counts = (np.concatenate(arrays) for arrays in zip(*runs, strict=True))
    order = np.argsort(keys, kind="stable")  # of sorted runs: merges them
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[starts], np.add.reduceat(counts, starts) if len(starts) else counts


def ppmi_matrices(
    keys: np.ndarray, counts: np.ndarray, vocab_size: int, context_power: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positive pointwise mutual information of words (rows) and context words (columns), and the transpose.

    Args:
        keys: Of `count_pairs`.
        counts: Of `count_pairs`.
        vocab_size: Number of word ids.
        context_power: Exponent of the distribution of context words.

    Returns:
        Two sparse CSR matrices, float32, (vocab_size, vocab_size). The exponent makes them differ.
    """
    first, second = np.divmod(keys, vocab_size)
    is_mirrored = first != second
    # A word that is near itself is the context of both occurrences.
    counts = np.concatenate([np.where(is_mirrored, counts, 2 * counts), counts[is_mirrored]])
    keys = np.concatenate([keys, (second * vocab_size + first)[is_mirrored]])
    del first, second, is_mirrored  # large
    order = np.argsort(keys, kind="stable")
    rows, columns = np.divmod(keys[order], vocab_size)
    counts = counts[order]
    del keys, order
    words = np.bincount(rows, weights=counts, minlength=vocab_size)
    contexts = words**context_power
    with np.errstate(divide="ignore", invalid="ignore"):  # words without counts are in no pair
        of_word = np.log(words).astype(np.float32)
        of_context = (np.log(contexts) - np.log(contexts.sum())).astype(np.float32)
    logs = np.log(counts, dtype=np.float32)
    matrix, transposed = (
        _positive(rows, columns, logs - ours[rows] - theirs[columns], vocab_size)
        for ours, theirs in ((of_word, of_context), (of_context, of_word))
    )
    return matrix, transposed


def _positive(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, size: int) -> torch.Tensor:
    """A CSR matrix of the values above 0, whose rows and columns ascend."""
    chosen = values > 0
    ends = np.zeros(size + 1, dtype=np.int32)
    ends[1:] = np.cumsum(np.bincount(rows[chosen], minlength=size))
    parts = ends, columns[chosen].astype(np.int32), values[chosen]
    row_ends, column_ids, kept = map(torch.from_numpy, parts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(row_ends, column_ids, kept, (size, size), check_invariants=False)


def truncated_svd(
    matrix: torch.Tensor, transposed: torch.Tensor, rank: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest singular values of a matrix and their left vectors, by random projection.

    Halko, Martinsson and Tropp (2011), "Finding Structure with Randomness", algorithms 4.4 and 5.1.

    Args:
        matrix: A matrix (n, m), sparse or not.
        transposed: Its transpose (m, n).
        rank: How many are wanted; where the matrix has fewer, those that it has.
        seed: Seed of the projection.

    Returns:
        The left singular vectors (n, k) and the singular values (k), descending, k at most `rank`. The element of
        each vector that is largest in magnitude is positive.
    """
    width = min(rank + _OVERSAMPLING, *matrix.shape)
    start = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(seed))  # (m, w)
    basis = torch.linalg.qr(matrix @ start).Q  # (n, w)
    with shown_progress(_ROUNDS, "Making word vectors", unit="rounds") as progress:
        for _ in range(_ROUNDS):
            basis = torch.linalg.qr(transposed @ basis).Q  # (m, w)
            basis = torch.linalg.qr(matrix @ basis).Q  # (n, w)
            progress.update(1)
    # The matrix is about basis @ basis^T @ matrix; the second product's SVD gives that of the whole.
    _, values, right = torch.linalg.svd(transposed @ basis, full_matrices=False)  # (w), (w, w)
    values = values[:rank]
    values = values[values > _SMALLEST * values[:1]]  # (k)
    left = basis @ right[: len(values)].mT  # (n, k)
    # An SVD leaves the signs open; fixed, they do not depend on the number of threads.
    signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()  # (1, k)
    return left * signs, values


# ---- from a file ----


def vectors_from_file(path: str | Path, tokenizer: PreTrainedTokenizerBase, size: int, seed: int = 0) -> torch.Tensor:
    """Read the vectors of a tokenizer's words from a file of GloVe, word2vec or fastText.

    In text each line is a word and its numbers; a first line with the number of words and the size may come before
    them. In word2vec's binary format that line comes first, and each word is followed by a space and its float32
    numbers. The file is read piece by piece, and kept are the vectors of the vocabulary's words alone; the log tells
    how many of them the file has. A word that the file does not have as the vocabulary spells it takes the first
    vector whose word the tokenizer's rules turn into it: `apple` that of `Apple`, `0000` that of `1987`. Words that
    the file does not have get small random vectors.

    Args:
        path: The file, plain or `.gz`, with words in UTF-8. What it holds tells its format, whatever its name.
        tokenizer: The model's tokenizer.
        size: Size of the vectors, that of the model's word embeddings.
        seed: Seed of the random vectors.

    Returns:
        The vectors as the file has them, float32, (number of words, size); that of the padding word is zero.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another format, its vectors have another size, it has fewer of them than its first line
            says, numbers are missing or not finite, or the file has none of the words.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of word vectors {path}.")
    logger.info("reading the word vectors of %s", path)
    ids, normalizer = tokenizer.get_vocab(), tokenizer.backend_tokenizer.normalizer
    special = set(tokenizer.all_special_ids)
    exact, other = (np.zeros(len(tokenizer), dtype=bool) for _ in range(2))
    vectors = np.zeros((len(tokenizer), size), dtype=np.float32)
    for number, word, values in _binary_vectors(path, size) if _is_binary(path) else _word_lines(path, size):
        found, row = exact, ids.get(word)
        if row is None:
            found, row = other, ids.get(normalizer.normalize_str(word)) if normalizer else None
        if row is None or row in special or exact[row] or found[row]:
            continue
        vectors[row] = _numbers(path, number, values)
        found[row] = True
    is_found, words = exact | other, len(tokenizer) - len(special)
    if not is_found.any():
        raise ValueError(f"{path} has none of the {words:,} words of the vocabulary, such as {_some_words(ids)}.")
    share = is_found.sum() / words
    logger.info(
        "%s has vectors of %s of the %s words (%.0f %%)", path, f"{is_found.sum():,}", f"{words:,}", 100 * share
    )
    random = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed)).numpy()
    vectors[~is_found] = UNSEEN_NORM * vectors[is_found].std() * random[~is_found]
    if tokenizer.pad_token_id is not None:
        vectors[tokenizer.pad_token_id] = 0.0
    return torch.from_numpy(vectors)


def _some_words(ids: dict[str, int]) -> str:
    """A few words in the middle of a vocabulary."""
    return ", ".join(repr(word) for word in sorted(ids, key=lambda word: ids[word])[len(ids) // 2 :][:3])


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, those of the content of a `.gz`.

    Raises:
        ValueError: If a gzip file is truncated or damaged.
    """
    try:
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as stream:
            yield stream  # type: ignore[misc]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}: the gzip stream breaks off or is damaged ({error}). Copy the file again."
        ) from error


def _header(line: bytes) -> tuple[int, int] | None:
    """Number and size of the vectors, if a first line says them."""
    parts = line.split()
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(map(bytes.isdigit, parts)) else None


def _is_binary(path: Path) -> bool:
    """Whether a file of word vectors is in word2vec's binary format, as its first vector shows."""
    with _opened(path) as stream:
        header = _header(stream.readline(_LONGEST_WORD))
        if header is None:
            return False
        size = min(header[1], _BYTES_AT_ONCE)
        numbers = stream.read(_LONGEST_WORD + 32 * size).partition(b" ")[2]
    line = numbers.partition(b"\n")[0].strip()
    is_line_of_text = len(line.split(b" ")) == size and not line.translate(None, _PRINTABLE)
    return not is_line_of_text and bool(numbers[: 4 * size].translate(None, _PRINTABLE))


def _binary_vectors(path: Path, size: int) -> Iterator[tuple[int, str, bytes]]:
    """Number from 1, word and float32 numbers, as bytes, of each vector of a file in word2vec's binary format.

    Raises:
        ValueError: If the vectors have not `size` numbers, or there are more or fewer than the first line says.
    """
    undecodable = 0
    with _opened(path) as stream:
        count, found = _header(stream.readline(_LONGEST_WORD)) or (0, 0)
        if found != size:
            raise ValueError(_other_size(path, 1, found, size))
        buffer, place = b"", 0
        for number in range(1, count + 1):
            end = buffer.find(b" ", place)
            while end < 0 or len(buffer) < end + 1 + 4 * size:
                if end < 0 and len(buffer) - place > _LONGEST_WORD:
                    raise ValueError(
                        f"{path}: vector {number:,} of {count:,} begins with no word; copy the file again."
                    )
                more = stream.read(_BYTES_AT_ONCE)
                if not more:
                    raise ValueError(
                        f"{path} breaks off in vector {number:,} of the {count:,} that its first line counts; copy it "
                        "again."
                    )
                buffer, place = buffer[place:] + more, 0
                end = buffer.find(b" ")
            word = buffer[place:end].lstrip(b"\n")  # that ended the vector before
            place = end + 1 + 4 * size
            try:
                yield number, word.decode("utf-8"), buffer[end + 1 : place]
            except UnicodeDecodeError:
                undecodable += 1  # a word that was cut, which no text has
        if (buffer[place:] + stream.read(_BYTES_AT_ONCE)).strip(b"\n"):
            raise ValueError(
                f"{path} goes on after the {count:,} vectors that its first line counts; it is damaged: copy it again."
            )
    if undecodable:
        logger.warning("%s of the %s words of %s are not UTF-8 and were left out", undecodable, count, path)


def _word_lines(path: Path, size: int) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, word and numbers as text of each line of a file of word vectors, without a header.

    Raises:
        ValueError: If the file is not text, a line does not have `size` numbers, or lines are missing.
    """
    number, header = 0, None
    try:
        for number, line in read_lines(path, keep_ends=True):
            line = line.rstrip(" \r\n")
            if number == 1 and (header := _header(line.encode())):
                if header[1] != size:
                    raise ValueError(_other_size(path, number, header[1], size))
                continue
            if number == 1 and line.count(" ") != size:
                raise ValueError(_other_size(path, number, line.count(" "), size))
            word, *values = line.rsplit(" ", size)
            # A word may have spaces in it, as in GloVe's largest files ("at name@domain.com"), but no number last.
            if len(values) != size or not word or (" " in word and _is_number(word.rpartition(" ")[2])):
                found = line.count(" ")
                raise ValueError(
                    f"{path}, line {number}: {found} numbers after {line[:20]!r}, not {size}. {_EXPECTED}"
                )
            yield number, word, values
    except ValueError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        raise ValueError(
            f"{path} is neither text in UTF-8 nor in word2vec's binary format. Of fastText take the vectors (.vec), "
            "not the model (.bin); unpack a .zip."
        ) from error
    if header is not None and number - 1 < header[0]:
        raise ValueError(
            f"{path} breaks off: {number - 1:,} vectors follow its first line, which counts {header[0]:,}. Copy the "
            "file again, or correct the number where it was cut on purpose."
        )


def _other_size(path: Path, number: int, found: int, size: int) -> str:
    return (
        f"{path}, line {number}: the vectors have {found} numbers, but the model's word embeddings {size}; give "
        f"--embedding_size {found}, or vectors of {size} numbers. {_EXPECTED}"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, line: int, values: list[str] | bytes) -> np.ndarray:
    """The numbers of a line of text, or of the vector of a binary file.

    Raises:
        ValueError: If one is none, or not finite.
    """
    if isinstance(values, bytes):
        vector = np.frombuffer(values, dtype="<f4")
        if not np.isfinite(vector).all():
            raise ValueError(f"{path}: vector {line:,} has numbers that are not finite; copy the file again.")
        return vector
    wrong = next((text for text in values if not _is_number(text)), None)
    numbers: Any = None if wrong is not None else np.array(values, dtype=np.float32)
    if wrong is None and not np.isfinite(numbers).all():
        wrong = values[int(np.argmin(np.isfinite(numbers)))]
    if wrong is not None:
        raise ValueError(f"{path}, line {line}: {wrong!r} is not a finite number. {_EXPECTED}")
    return numbers


# ---- into the model ----


@torch.no_grad()
def set_word_vectors(model: PreTrainedModel, vectors: torch.Tensor | np.ndarray) -> None:
    """Copy word vectors into a model's word embeddings, which are trained on from there; padding stays zero.

    Args:
        model: The model.
        vectors: A vector of each word, (vocab_size, embedding_size).

    Raises:
        ValueError: If the shape is not that of the embeddings, or a number is not finite.
    """
    embeddings = model.get_input_embeddings()
    vectors = torch.as_tensor(vectors)
    if vectors.shape != embeddings.weight.shape:
        raise ValueError(
            f"the word vectors are {tuple(vectors.shape)}, but the model's embeddings "
            f"{tuple(embeddings.weight.shape)}: expected one vector for each word, of size embedding_size."
        )
    if not vectors.isfinite().all():
        raise ValueError("the word vectors have numbers that are not finite; make them again.")
    embeddings.weight.copy_(vectors)
    if embeddings.padding_idx is not None:
        embeddings.weight[embeddings.padding_idx] = 0.0
