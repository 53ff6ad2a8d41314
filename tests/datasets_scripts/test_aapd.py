"""Tests of datasets_scripts/aapd.py."""

import gzip
from collections import Counter
from itertools import pairwise

import pytest

from sgm_hf.datasets_scripts import load
from sgm_hf.datasets_scripts.aapd import LABEL_NAMES

TEXTS = ("we prove a bound", "parsing of \\( x \\) with grammars , twice", "a code for channels")
LABELS = ("cs.LG stat.ML", "cs.CL", "cs.IT math.IT")


@pytest.fixture(params=["", ".gz"], ids=["plain", "gzip"])
def folder(request, write):
    """All three splits, each with the first 3, 2 and 1 of the documents."""
    for split, size in (("train", 3), ("val", 2), ("test", 1)):
        write(f"text_{split}{request.param}", *TEXTS[:size])
        write(f"label_{split}{request.param}", *LABELS[:size])
    return write("unrelated.txt", "x").parent


def test_every_document_is_read_with_its_labels_in_their_order(folder, cache):
    corpus = load("aapd", data_dir=folder, cache_dir=cache)
    assert {split: part.num_rows for split, part in corpus.items()} == {"train": 3, "validation": 2, "test": 1}
    names = corpus["train"].features["labels"].feature.names
    assert names == list(LABEL_NAMES)
    assert corpus["train"]["text"][:] == list(TEXTS)
    assert [" ".join(names[i] for i in ids) for ids in corpus["train"]["labels"]] == list(LABELS)
    assert corpus["validation"]["id"][:] == ["validation-1", "validation-2"]


def test_streaming_gives_the_same_documents(folder, cache):
    corpus = load("aapd", data_dir=folder, cache_dir=cache)
    stream = load("aapd", data_dir=folder, streaming=True)
    assert stream.keys() == corpus.keys()
    for split in corpus:
        assert stream[split].features == corpus[split].features
        assert list(stream[split]) == list(corpus[split])


def test_a_split_without_files_is_absent_and_named_when_asked_for(folder, cache):
    for name in ("text_test", "label_test"):
        for path in folder.glob(f"{name}*"):
            path.unlink()
    assert list(load("aapd", data_dir=folder, cache_dir=cache)) == ["train", "validation"]
    for streaming in (False, True):
        with pytest.raises(FileNotFoundError, match=r"the test split needs text_test, label_test .*lancopku/SGM"):
            load("aapd", data_dir=folder, split="test", streaming=streaming, cache_dir=cache)


def test_labels_without_texts_are_an_error(folder, cache):
    for path in folder.glob("text_train*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks text_train \(plain or \.gz\), needed by the train split"):
        load("aapd", data_dir=folder, cache_dir=cache)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (TEXTS, LABELS[:2], r"text_train, line 3: .*label_train ends at line 2"),
        (TEXTS[:2], LABELS, r"label_train, line 3: .*text_train ends at line 2"),
        ((), (), r"text_train and .*label_train have no document"),
        ((), LABELS, r"label_train, line 1: .*text_train ends at line 0"),
        (TEXTS, ("cs.LG", "cs.XX cs.CL", "cs.IT"), r"label_train, line 2: unknown label 'cs\.XX'"),
        (TEXTS, ("cs.LG", "cs.CL,cs.IT", "cs.IT"), r"label_train, line 2: unknown label 'cs\.CL,cs\.IT'"),
        (TEXTS, ("cs.LG", "", "cs.IT"), r"label_train, line 2: no label"),
        (("a", " ", "b"), LABELS, r"text_train, line 2: the text is empty"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_fault_is_named_with_file_and_line_and_leaves_nothing(write, cache, texts, labels, message, streaming):
    folder = write("text_train", *texts).parent
    write("label_train", *labels)
    with pytest.raises(ValueError, match=message):
        list(load("aapd", data_dir=folder, split="train", streaming=streaming, cache_dir=cache))
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_truncated_file_is_named_and_leaves_nothing(write, truncate, cache):
    write("label_train", *LABELS)
    text = write("text_train.gz", *TEXTS)
    truncate(text)
    with pytest.raises(ValueError, match=r"text_train\.gz, line \d+: the gzip stream breaks off"):
        load("aapd", data_dir=text.parent, cache_dir=cache)
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_label_that_appears_twice_is_kept_once_with_a_warning(write, cache, caplog):
    write("text_train", *TEXTS)
    folder = write("label_train", "cs.LO", "cs.LO math.LO math.LO", "cs.CR cs.LO cs.CR").parent
    labels = load("aapd", data_dir=folder, split="train", cache_dir=cache)["labels"]
    assert [[LABEL_NAMES[i] for i in ids] for ids in labels] == [["cs.LO"], ["cs.LO", "math.LO"], ["cs.CR", "cs.LO"]]
    (warning,) = [record.getMessage() for record in caplog.records if "twice" in record.getMessage()]
    assert warning.startswith("2 document(s)") and "label_train, line 2: label 'math.LO'" in warning


def test_another_number_of_documents_than_published_gives_a_warning(write, cache, caplog):
    write("text_val", *TEXTS)
    load("aapd", data_dir=write("label_val", *LABELS).parent, cache_dir=cache)
    assert "validation split has 3 documents, the complete published files have 1,000" in caplog.text


def test_the_label_order_is_the_frequency_in_the_official_training_labels(real_data):
    with gzip.open(real_data / "aapd" / "label_train_official.gz", "rt", encoding="utf-8") as file:
        counts = Counter(label for line in file for label in set(line.split()))
    assert set(counts) == set(LABEL_NAMES)
    assert all((-counts[a], a) < (-counts[b], b) for a, b in pairwise(LABEL_NAMES))


def test_the_real_validation_split_has_the_published_counts(real_data, cache, caplog, tmp_path):
    for name in ("text_val.gz", "label_val.gz"):
        (tmp_path / name).symlink_to(real_data / "aapd" / name)
    corpus = load("aapd", data_dir=tmp_path, cache_dir=cache)
    assert list(corpus) == ["validation"] and corpus["validation"].num_rows == 1000
    assert sum(map(len, corpus["validation"]["labels"])) / 1000 == pytest.approx(2.40, abs=0.005)
    assert sum(len(text.split()) for text in corpus["validation"]["text"]) / 1000 == pytest.approx(162.1, abs=0.05)
    assert not caplog.records
