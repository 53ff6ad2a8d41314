import logging

import numpy as np
import pytest
from documents import make_documents
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from sgm_hf.baselines import features as module
from sgm_hf.baselines.features import TfidfFeatures, count_documents, hash_texts
from sgm_hf.modeling import SGMTokenizer

TRAIN = [*make_documents(50).texts, "Gold rose 5.93 pct, gold fell", "gold"]
TEST = [*make_documents(20, seed=1).texts, "unheard words only", "", "gold unheard gold"]


def names_of(features: TfidfFeatures) -> list[str]:
    """The words of each feature, as n-grams are written by scikit-learn."""
    words = {number: word for word, number in features.tokenizer.get_vocab().items()}
    return [words[k] if k < 2**32 else f"{words[k >> 32]} {words[k & 2**32 - 1]}" for k in features.keys.tolist()]


def vectorizer(tokenizer: SGMTokenizer, ngrams: int, min_df: int, sublinear_tf: bool) -> TfidfVectorizer:
    return TfidfVectorizer(
        tokenizer=tokenizer.tokenize,
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, ngrams),
        min_df=min_df,
        sublinear_tf=sublinear_tf,
    )


@pytest.mark.parametrize("min_df", [1, 3])
@pytest.mark.parametrize("bigram_weight", [0.0, 1.0])
@pytest.mark.parametrize("sublinear_tf", [True, False])
def test_words_and_pairs_are_scikit_learns(bigram_weight, min_df, sublinear_tf):
    features = TfidfFeatures(bigram_weight, min_df, sublinear_tf)
    ours = features.fit_transform(TRAIN), features.transform(TRAIN), features.transform(TEST[:20])
    theirs = vectorizer(features.tokenizer, 2 if bigram_weight else 1, min_df, sublinear_tf)
    expected = theirs.fit_transform(TRAIN), theirs.transform(TRAIN), theirs.transform(TEST[:20])
    names = names_of(features)
    assert sorted(names) == sorted(theirs.vocabulary_)
    order = [theirs.vocabulary_[name] for name in names]
    np.testing.assert_array_equal(features.idf, theirs.idf_[order])
    for found, wanted in zip(ours, expected, strict=True):
        # The norm of a row sums up in the order of the columns, which is another one.
        np.testing.assert_allclose(found.toarray(), wanted[:, order].toarray(), rtol=1e-14)


def test_a_pair_counts_as_much_less_as_its_weight():
    full, half = (TfidfFeatures(weight) for weight in (1.0, 0.5))
    full.fit_transform(TRAIN), half.fit_transform(TRAIN)
    np.testing.assert_array_equal(full.keys, half.keys)
    text = "gold fell"
    before, after = (f.transform([text]).toarray()[0] for f in (full, half))
    is_pair = full.keys >= 2**32
    pair, word = np.flatnonzero(before * is_pair), np.flatnonzero(before * ~is_pair)
    assert len(pair) == 1 and len(word) == 2
    np.testing.assert_allclose(after[pair] / after[word], 0.5 * before[pair] / before[word])


def test_rows_have_length_1_and_texts_without_known_words_none():
    features = TfidfFeatures(0.5)
    features.fit_transform(TRAIN)
    lengths = sparse.linalg.norm(features.transform(TEST), axis=1)
    np.testing.assert_allclose(lengths, [*[1.0] * 20, 0, 0, 1])
    assert features.transform([]).shape == (0, len(features.keys))
    # No pair reaches across an unknown word, nor from one text to the next.
    pairs = features.transform(["gold unheard oil", "gas gold"])[0]
    assert pairs.nnz == 2


def test_blocks_change_nothing(monkeypatch):
    whole = TfidfFeatures(0.5, 2)
    expected = whole.fit_transform(TRAIN)
    monkeypatch.setattr(module, "_DOCUMENTS_AT_ONCE", 7)
    parts = TfidfFeatures(0.5, 2)
    found = parts.fit_transform(TRAIN)
    np.testing.assert_array_equal(whole.keys, parts.keys)
    assert (expected != found).nnz == 0
    assert (whole.transform(TEST) != parts.transform(TEST)).nnz == 0


def test_what_is_saved_is_loaded_with_the_same_bits(tmp_path):
    features = TfidfFeatures(0.5, 2)
    features.fit_transform(TRAIN)
    features.save(tmp_path)
    loaded = TfidfFeatures(0.5, 2)
    loaded.load(tmp_path)
    assert (features.transform(TEST) != loaded.transform(TEST)).nnz == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_the_same_texts_are_not_counted_twice_but_others_are():
    features = TfidfFeatures()
    first = features.fit_transform(TRAIN)
    assert features.fit_transform(list(TRAIN)) is first
    other = features.fit_transform(TRAIN[:-1])
    assert other.shape[0] == first.shape[0] - 1
    assert hash_texts(["ab", "c"]) != hash_texts(["a", "bc"])


def test_of_too_many_features_those_in_most_documents_are_kept(caplog):
    features = TfidfFeatures()
    every = features.fit_transform(TRAIN)
    documents = np.diff(every.tocsc().indptr)
    keys = features.keys
    few = features.fit_transform(TRAIN, max_features=5)
    assert few.shape[1] == 5
    assert documents[np.isin(keys, features.keys)].min() >= np.sort(documents)[-5]
    assert "5 are kept" in caplog.text


def test_counted_documents_are_those_of_a_plain_count(monkeypatch, caplog):
    generator = np.random.default_rng(0)
    blocks = [(generator.integers(0, 9, 40), generator.integers(0, 30, 40) << 31) for _ in range(9)]
    plain: dict[int, int] = {}
    for rows, keys in blocks:
        for _, key in {*zip(rows.tolist(), keys.tolist(), strict=True)}:
            plain[key] = plain.get(key, 0) + 1
    keys, documents = count_documents(blocks)
    assert dict(zip(keys.tolist(), documents.tolist(), strict=True)) == plain
    assert (np.diff(keys) > 0).all()
    monkeypatch.setattr(module, "MOST_PAIRS", 10)
    with caplog.at_level(logging.WARNING):
        keys, documents = count_documents(blocks)
    assert "forgotten" in caplog.text
    # Words are never forgotten; a pair may only be missing, or counted too low.
    assert {key for key in plain if key < 2**32} <= set(keys.tolist())
    assert all(number <= plain[key] for key, number in zip(keys.tolist(), documents.tolist(), strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [((-1.0, 1), "bigram_weight is -1"), ((float("nan"), 1), "bigram_weight is nan"), ((0.0, 0), "min_df is 0")],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TfidfFeatures(*settings)


def test_texts_without_a_frequent_word_are_refused():
    with pytest.raises(ValueError, match="no word is in 3 of 2 training documents"):
        TfidfFeatures(min_df=3).fit_transform(["gold", "oil"])
