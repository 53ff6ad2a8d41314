"""Word vectors: counts, PPMI and SVD against plain loops and scipy; files of vectors and their faults."""

import gzip
import logging
import math
import random
import tracemalloc
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.sparse.linalg import svds

from sgm_hf import (
    SGMConfig,
    SGMForMultiLabelGeneration,
    SGMTokenizer,
    ppmi_vectors,
    set_word_vectors,
    vectors_from_file,
)
from sgm_hf.training import vectors as module
from sgm_hf.training.vectors import count_pairs, ppmi_matrices, sample_documents, truncated_svd

WORDS = 30


def encoded(documents):
    return Dataset.from_dict({"input_ids": documents, "length": [len(document) for document in documents]})


def drawn_documents(count=60, seed=0, words=WORDS, longest=25):
    """Ids from 1 on, low ones more often; among the documents some of one word."""
    generator = random.Random(seed)
    lengths = [generator.randint(1, longest) for _ in range(count)]
    return [[min(words - 2, 1 + int(generator.expovariate(0.15))) for _ in range(n)] for n in lengths]


def counted_by_hand(documents, window):
    """How often (word, word in its context) occurs."""
    counts = Counter()
    for ids in documents:
        for i, j in permutations(range(len(ids)), 2):
            if abs(i - j) <= window:
                counts[ids[i], ids[j]] += 1
    return counts


def ppmi_by_hand(counts, power, size):
    """The matrix as Levy et al. (2015) write it, eq. 1 and 3."""
    words, contexts = Counter(), Counter()
    for (word, context), count in counts.items():
        words[word] += count
        contexts[context] += count
    total, smoothed = sum(words.values()), {c: n**power for c, n in contexts.items()}
    all_smoothed = sum(smoothed.values())
    matrix = np.zeros((size, size))
    for (word, context), count in counts.items():
        joint, expected = count / total, words[word] / total * smoothed[context] / all_smoothed
        matrix[word, context] = max(0.0, math.log(joint / expected))
    return matrix


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of few words, so that there are many to merge."""
    monkeypatch.setattr(module, "_WORDS_AT_ONCE", 40)
    monkeypatch.setattr(module, "_DOCUMENTS_AT_ONCE", 3)


# ---- counts, PPMI, SVD ----


@pytest.mark.parametrize("window", [1, 5, 100])
def test_counts_are_those_of_a_plain_loop(small_blocks, window):
    documents = drawn_documents()
    keys, counts = count_pairs(encoded(documents), WORDS, window)
    assert (np.diff(keys) > 0).all()
    found = Counter()
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        first, second = divmod(key, WORDS)
        # Of two different words the one is once in the other's context, and the other way round; a word twice.
        found[first, second] += count
        found[second, first] += count
    assert found == counted_by_hand(documents, window)


@pytest.mark.parametrize("power", [1.0, 0.75])
def test_ppmi_is_that_of_the_paper(power):
    documents = drawn_documents()
    matrix, transposed = ppmi_matrices(*count_pairs(encoded(documents), WORDS, 5), WORDS, power)
    expected = ppmi_by_hand(counted_by_hand(documents, 5), power, WORDS)
    np.testing.assert_allclose(matrix.to_dense(), expected, atol=2e-6)
    np.testing.assert_allclose(transposed.to_dense(), expected.T, atol=2e-6)
    assert len(matrix.values()) == (matrix.to_dense() > 0).sum()


def test_the_svd_is_that_of_scipy():
    documents = drawn_documents(400, words=200, longest=40)
    matrix, transposed = ppmi_matrices(*count_pairs(encoded(documents), 200, 5), 200, 0.75)
    left, values = truncated_svd(matrix, transposed, 6, seed=0)
    expected_left, expected, _ = svds(matrix.to_dense().numpy().astype(np.float64), k=6, rng=0)
    np.testing.assert_allclose(values, expected[::-1], rtol=2e-3)
    torch.testing.assert_close(left.T @ left, torch.eye(6), atol=1e-4, rtol=0)
    # The same subspace: of the first vectors, which are well apart from the others.
    overlap = np.linalg.svd(left[:, :2].numpy().T @ expected_left[:, ::-1][:, :2])[1]
    assert overlap.min() > 0.999


def test_the_svd_of_a_matrix_of_low_rank_has_its_rank_and_gives_it_back():
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(40, 3, generator=generator) @ torch.randn(3, 30, generator=generator)
    left, values = truncated_svd(matrix, matrix.T, 8, seed=0)
    assert values.shape == (3,)
    torch.testing.assert_close(left @ left.T @ matrix, matrix, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(values, torch.linalg.svdvals(matrix)[:3], atol=1e-3, rtol=1e-4)


# ---- vectors ----


def test_norms_are_alike_padding_is_zero_and_words_without_counts_are_small():
    vectors = ppmi_vectors(encoded(drawn_documents()), WORDS, 16, pad_token_id=0)
    norms = vectors.norm(dim=1)
    assert vectors.dtype == torch.float32 and vectors.shape == (WORDS, 16)
    torch.testing.assert_close(norms[1 : WORDS - 1], torch.full((WORDS - 2,), 0.15 * 16**0.5))
    assert norms[0] == 0.0
    assert 0.0 < norms[WORDS - 1] < 0.03 * 16**0.5  # no document has the last word


def test_the_order_of_the_documents_does_not_matter(small_blocks):
    documents = drawn_documents()
    shuffled = random.Random(5).sample(documents, len(documents))
    assert torch.equal(ppmi_vectors(encoded(documents), WORDS, 8), ppmi_vectors(encoded(shuffled), WORDS, 8))


def test_seeds_repeat_and_leave_the_random_state_alone():
    data = encoded(drawn_documents())
    state = torch.get_rng_state()
    vectors = ppmi_vectors(data, WORDS, 8, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(vectors, ppmi_vectors(data, WORDS, 8, seed=3))
    # Another seed rounds otherwise only, but for the word without counts.
    other = ppmi_vectors(data, WORDS, 8, seed=4)
    torch.testing.assert_close(vectors[1:-1], other[1:-1], atol=2e-3, rtol=0)
    assert (vectors[-1] - other[-1]).abs().max() > 1e-3


def test_threads_change_no_more_than_the_rounding():
    data, threads = encoded(drawn_documents(300, words=150)), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ppmi_vectors(data, 150, 8)
        torch.set_num_threads(2)
        torch.testing.assert_close(ppmi_vectors(data, 150, 8), one, atol=1e-4, rtol=0)
    finally:
        torch.set_num_threads(threads)


def test_words_with_similar_contexts_get_similar_vectors():
    generator, topics = random.Random(0), 4
    # Words 1-40: ten of each topic; a document has words of one topic, and those of all (41-50).
    documents = []
    for _ in range(400):
        topic = generator.randrange(topics)
        words = [*range(1 + 10 * topic, 11 + 10 * topic), *range(41, 51)]
        documents.append(generator.choices(words, k=20))
    vectors = torch.nn.functional.normalize(ppmi_vectors(encoded(documents), 51, 8)[1:41], dim=1)
    similarity = vectors @ vectors.T
    same = torch.eye(topics, dtype=torch.bool).repeat_interleave(10, 0).repeat_interleave(10, 1)
    assert similarity[same].min() > similarity[~same].max()


@pytest.mark.parametrize(
    "documents", [[[3]], [[3], [4], [5]], [[3, 3, 3, 3]], [[1, 2, 3]], []], ids=lambda documents: str(documents)
)
def test_corpora_almost_without_words_have_vectors(documents):
    data = encoded(documents) if documents else encoded([[1]]).select([])
    vectors = ppmi_vectors(data, 6, 20, pad_token_id=0)
    assert vectors.shape == (6, 20) and vectors.isfinite().all()
    assert (vectors.norm(dim=1)[1:] > 0).all() and vectors[0].eq(0.0).all()


def test_ids_above_the_vocabulary_and_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="the word id 9; expected ids from 0 to 6"):
        ppmi_vectors(encoded([[1, 2], [3, 9]]), 7, 4)
    with pytest.raises(ValueError, match="window 0; each must be at least 1"):
        ppmi_vectors(encoded([[1, 2]]), 7, 4, window=0)


def test_many_documents_are_sampled_and_this_is_said(monkeypatch, caplog):
    documents = drawn_documents(200)
    data = encoded(documents)
    assert sample_documents(data, sum(map(len, documents)), 0) is data
    with caplog.at_level(logging.INFO):
        sample = sample_documents(data, 500, seed=0)
    assert 440 < sum(sample["length"]) <= 500
    assert f"word vectors are made of {len(sample)} of 200 documents" in caplog.text
    assert sample_documents(data, 500, seed=0)["input_ids"] == sample["input_ids"]
    assert sample_documents(data, 500, seed=1)["input_ids"] != sample["input_ids"]
    monkeypatch.setattr(module, "_MOST_WORDS", 500)
    assert torch.equal(ppmi_vectors(data, WORDS, 8), ppmi_vectors(sample, WORDS, 8))


# ---- files ----


@pytest.fixture
def tokenizer():
    return SGMTokenizer.train_from_texts(["apple pear in 1987 and", "plum of pear Zürich"])


LINES = ["apple 1 2 3", "Pear 4 5 6", "PEAR 7 8 9", "1987 -1 -2e-1 .5", "other 0 0 0", "1988 9 9 9", "zürich 1 1 1"]


def write(path, lines, header=None):
    text = "".join(f"{line}\n" for line in ([header] if header else []) + lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "header"), [("glove.txt", None), ("wiki.vec", "7 3"), ("wiki.vec.gz", "7 3")])
def test_each_format_gives_each_word_its_vector(tmp_path, tokenizer, caplog, name, header):
    ends = " " if header else ""  # fastText ends lines with a space
    path = write(tmp_path / name, [line + ends for line in LINES], header)
    with caplog.at_level(logging.INFO):
        vectors = vectors_from_file(path, tokenizer, 3)
    rows = {word: vectors[tokenizer.convert_tokens_to_ids(word)].tolist() for word in tokenizer.get_vocab()}
    assert rows["apple"] == [1, 2, 3] and rows["zürich"] == [1, 1, 1] and rows["<pad>"] == [0, 0, 0]
    assert rows["pear"] == [4, 5, 6]  # of Pear, which comes before PEAR
    assert rows["0000"] == pytest.approx([-1, -0.2, 0.5])  # of 1987, which comes before 1988
    assert all(0 < max(map(abs, rows[word])) < 1.5 for word in ("plum", "in", "<unk>"))
    assert f"{path} has vectors of 4 of the 8 words" in caplog.text


def test_the_word_as_it_is_spelled_comes_first_wherever_it_stands(tmp_path, tokenizer):
    for number, lines in enumerate((["Apple 1 1", "apple 2 2", "APPLE 3 3"], ["apple 2 2", "Apple 1 1", "apple 4 4"])):
        vectors = vectors_from_file(write(tmp_path / f"{number}.txt", lines), tokenizer, 2)
        assert vectors[tokenizer.convert_tokens_to_ids("apple")].tolist() == [2, 2]


def test_a_vocabulary_with_case_takes_no_other_spelling(tmp_path):
    tokenizer = SGMTokenizer.train_from_texts(["Apple apple Pear"], lowercase=False)
    vectors = vectors_from_file(write(tmp_path / "v.txt", ["Apple 100 1", "pear 2 2"]), tokenizer, 2)
    assert vectors[tokenizer.convert_tokens_to_ids("Apple")].tolist() == [100, 1]
    for word in ("apple", "Pear"):
        assert vectors[tokenizer.convert_tokens_to_ids(word)].tolist() != [2, 2]


def test_words_with_spaces_are_words_and_seeds_repeat(tmp_path, tokenizer):
    path = write(tmp_path / "v.txt", ["apple 1 2", "at name@domain.com 3 4", ". . . 5 6", "<unk> 7 7", "<pad> 8 8"])
    vectors = vectors_from_file(path, tokenizer, 2, seed=1)
    assert torch.equal(vectors, vectors_from_file(path, tokenizer, 2, seed=1))
    assert not torch.equal(vectors, vectors_from_file(path, tokenizer, 2, seed=2))
    assert 7 not in vectors and 8 not in vectors


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["apple 1 2 3", "pear 1 2"], r"v.txt, line 2: 2 numbers after 'pear 1 2', not 3. Expected a word and"),
        (["apple 1 2 3", "pear 1 2 3 4"], r"v.txt, line 2: 4 numbers after 'pear 1 2 3 4', not 3"),
        (["apple 1 2 3", ""], r"v.txt, line 2: 0 numbers after '', not 3"),
        (["2 3", "apple 1 2 3", "pear 1 x 3"], r"v.txt, line 3: 'x' is not a finite number"),
        (["apple 1 nan 3"], r"v.txt, line 1: 'nan' is not a finite number"),
        (["apple 1 2"], r"v.txt, line 1: the vectors have 2 numbers, but .* 3; give --embedding_size 2, or"),
        (["10 5", "apple 1 2 3 4 5"], r"v.txt, line 1: the vectors have 5 numbers, but .* 3"),
        (["other 1 2 3", "another 1 2 3"], r"v.txt has none of the 8 words of the vocabulary, such as '"),
        ([], r"v.txt has none of the 8 words"),
    ],
)
def test_faults_are_named_with_file_and_line(tmp_path, tokenizer, lines, message):
    with pytest.raises(ValueError, match=message):
        vectors_from_file(write(tmp_path / "v.txt", lines), tokenizer, 3)


def write_binary(path, lines, end=b""):
    """The lines in word2vec's binary format: its own program ends a vector with a line feed, gensim does not."""
    rows = [line.split(" ") for line in lines]
    content = f"{len(rows)} {len(rows[0]) - 1}\n".encode()
    for word, *numbers in rows:
        content += word.encode() + b" " + np.array(numbers, dtype="<f4").tobytes() + end
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("end", [b"\n", b""], ids=["word2vec", "gensim"])
@pytest.mark.parametrize("name", ["v.bin", "v.bin.gz", "named_like_text.txt"])
@pytest.mark.parametrize("at_once", [7, 2**20])
def test_a_binary_file_gives_what_the_same_vectors_as_text_give(
    monkeypatch, tmp_path, tokenizer, caplog, end, name, at_once
):
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", at_once)
    path = write_binary(tmp_path / name, LINES, end)
    with caplog.at_level(logging.INFO):
        vectors = vectors_from_file(path, tokenizer, 3, seed=4)
    assert f"{path} has vectors of 4 of the 8 words (50 %)" in caplog.text
    expected = vectors_from_file(write(tmp_path / "text", LINES, "7 3"), tokenizer, 3, seed=4)
    assert torch.equal(vectors, expected)


@pytest.mark.parametrize("number", [0.0, 10.0, -1e-30, 2.7e-41, 1.5e-5, 65536.5])
def test_whatever_the_bytes_of_its_numbers_a_binary_file_is_known_as_such(tmp_path, tokenizer, number):
    # Among them zero bytes, line feeds and printable ones.
    random = np.random.default_rng(0)
    for size in (1, 4, 50):
        values = np.full(size, number, dtype="<f4")
        values[1:] = random.standard_normal(size - 1)
        content = f"1 {size}\n".encode() + b"apple " + values.tobytes()
        path = tmp_path / "v"
        path.write_bytes(content)
        vectors = vectors_from_file(path, tokenizer, size)
        assert np.array_equal(vectors[tokenizer.convert_tokens_to_ids("apple")].numpy(), values)


def test_a_binary_file_that_is_cut_anywhere_or_goes_on_is_refused(tmp_path, tokenizer):
    whole = write_binary(tmp_path / "v.bin", LINES, b"\n").read_bytes()
    path = tmp_path / "cut.bin"
    for length in range(len("7 3\napple ") + 12, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut.bin breaks off in vector \d of the 7 that its first line counts"):
            vectors_from_file(path, tokenizer, 3)
    path.write_bytes(whole[:-1])  # without the last line feed
    assert torch.equal(vectors_from_file(path, tokenizer, 3), vectors_from_file(tmp_path / "v.bin", tokenizer, 3))
    for more in (b"pear " + bytes(12), b"x", b"\n\nx"):
        path.write_bytes(whole + more)
        with pytest.raises(ValueError, match="cut.bin goes on after the 7 vectors"):
            vectors_from_file(path, tokenizer, 3)
    path.write_bytes(whole[:30] + bytes(20_000))
    with pytest.raises(ValueError, match=r"cut.bin: vector \d of 7 begins with no word"):
        vectors_from_file(path, tokenizer, 3)
    path = tmp_path / "cut.bin.gz"
    path.write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(ValueError, match="cut.bin.gz: the gzip stream breaks off or is damaged"):
        vectors_from_file(path, tokenizer, 3)


def test_faults_of_binary_files_are_named(tmp_path, tokenizer, caplog):
    path = write_binary(tmp_path / "v.bin", ["other 0 0 1", "apple 1 nan 1"])
    with pytest.raises(ValueError, match="v.bin: vector 2 has numbers that are not finite"):
        vectors_from_file(path, tokenizer, 3)
    with pytest.raises(
        ValueError, match="v.bin, line 1: the vectors have 3 numbers, but .* 5; give --embedding_size 3"
    ):
        vectors_from_file(path, tokenizer, 5)
    path.write_bytes(b"2 1\nZ\xc3 \x00\x00\x80?apple \x00\x00\x80?")
    assert vectors_from_file(path, tokenizer, 1)[tokenizer.convert_tokens_to_ids("apple")].item() == 1.0
    assert "1 of the 2 words of" in caplog.text and "are not UTF-8 and were left out" in caplog.text


def test_a_binary_file_is_never_in_memory_as_a_whole(monkeypatch, tmp_path, tokenizer):
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", 2**14)
    path = write_binary(tmp_path / "v.bin", [f"w{i} 1" + " 2" * 99 for i in range(8_000)] + ["apple 1" + " 2" * 99])
    assert path.stat().st_size > 3_000_000
    vectors_from_file(path, tokenizer, 100)  # what is imported and kept stays out of the measurement
    tracemalloc.start()
    try:
        vectors_from_file(path, tokenizer, 100)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_a_text_file_with_fewer_vectors_than_it_says_is_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="v.vec breaks off: 6 vectors follow its first line, which counts 7"):
        vectors_from_file(write(tmp_path / "v.vec", LINES[:-1], "7 3"), tokenizer, 3)


def test_other_formats_and_missing_files_are_refused(tmp_path, tokenizer):
    path = tmp_path / "model.bin"
    path.write_bytes(b"\xba\x16\x4f\x2f" + bytes(100))  # as fastText's own models begin
    with pytest.raises(ValueError, match=r"model.bin is neither text in UTF-8 nor .* take the vectors \(.vec\)"):
        vectors_from_file(path, tokenizer, 3)
    with pytest.raises(FileNotFoundError, match="there is no file of word vectors .*missing.txt"):
        vectors_from_file(tmp_path / "missing.txt", tokenizer, 3)


# ---- into the model ----


def make_model(**settings):
    torch.manual_seed(0)
    sizes = {"embedding_size": 4, "encoder_hidden_size": 4, "encoder_layers": 1, "decoder_hidden_size": 4}
    return SGMForMultiLabelGeneration(SGMConfig(vocab_size=6, id2label={0: "a", 1: "b"}, **sizes, **settings))


@pytest.mark.parametrize("kind", [torch.tensor, np.array], ids=["tensor", "array"])
def test_a_model_gets_the_vectors_and_trains_them_but_for_padding(kind):
    model = make_model(dropout=0.0)
    set_word_vectors(model, kind([[0.125 * row] * 4 for row in range(1, 7)]))
    weight = model.get_input_embeddings().weight
    assert weight.requires_grad and weight.is_leaf
    assert weight[:, 0].tolist() == [0, 0.25, 0.375, 0.5, 0.625, 0.75]
    model(input_ids=torch.tensor([[3, 4, 0]]), labels=torch.tensor([[0, 2]])).loss.backward()
    assert weight.grad[3].abs().sum() > 0 and weight.grad[0].abs().sum() == 0


def test_vectors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"the word vectors are \(6, 5\), but the model's embeddings \(6, 4\)"):
        set_word_vectors(make_model(), torch.zeros(6, 5))
    with pytest.raises(ValueError, match="not finite"):
        set_word_vectors(make_model(), torch.full((6, 4), float("nan")))
