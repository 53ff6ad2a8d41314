"""Tests of datasets_scripts/goemotions.py."""

import pytest

from sgm_hf.datasets_scripts import load
from sgm_hf.datasets_scripts.goemotions import LABEL_NAMES

LINES = ("Thank you, it’s fine!\t15\tid1", "so sad and so angry\t25,2\tid2", "ok\t27\tid3")


@pytest.fixture
def folder(write):
    """All three splits with the first 3, 2 and 1 of the lines."""
    for split, size in (("train", 3), ("dev", 2), ("test", 1)):
        write(f"{split}.tsv.gz", *LINES[:size])
    return write("emotions.txt", *LABEL_NAMES).parent


def test_every_document_is_read_and_streaming_gives_the_same(folder, cache):
    corpus = load("goemotions", data_dir=folder, cache_dir=cache)
    stream = load("goemotions", data_dir=folder, streaming=True)
    assert {split: part.num_rows for split, part in corpus.items()} == {"train": 3, "validation": 2, "test": 1}
    assert list(corpus["train"]) == [
        {"id": "id1", "text": "Thank you, it’s fine!", "labels": [15]},
        {"id": "id2", "text": "so sad and so angry", "labels": [25, 2]},
        {"id": "id3", "text": "ok", "labels": [27]},
    ]
    assert corpus["train"].features["labels"].feature.int2str([25, 2]) == ["sadness", "anger"]
    for split in corpus:
        assert stream[split].features == corpus[split].features
        assert list(stream[split]) == list(corpus[split])


def test_quotation_marks_of_the_file_format_are_undone(write, cache):
    write("emotions.txt", *LABEL_NAMES)
    folder = write("dev.tsv", '"He said ""no"". "\t27\ta', "it's\t27\tb").parent
    corpus = load("goemotions", data_dir=folder, cache_dir=cache)
    assert corpus["validation"]["text"][:] == ['He said "no". ', "it's"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("text,27,id", r"1 field\(s\) between tabs, expected 3"),
        ("text;27;id", r"1 field\(s\) between tabs, expected 3"),
        ("text\t27", r"2 field\(s\) between tabs, expected 3"),
        ("", r"line of tab-separated fields|0 field\(s\)"),
        ('"open\t27\tid', "no line of tab-separated fields"),
        ("text\t28\tid", "unknown label index '28'"),
        ("text\t-1\tid", "unknown label index '-1'"),
        ("text\tanger\tid", "unknown label index 'anger'"),
        ("text\t\tid", "unknown label index ''"),
        ("text\t²\tid", "unknown label index '²'"),
        (f"text\t{'1' * 5000}\tid", "unknown label index '1+'"),
        ("text\t2,3,2\tid", "the label 'anger' appears twice"),
        (" \t2\tid", "the text is empty"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_fault_is_named_with_file_and_line_and_leaves_nothing(write, cache, line, message, streaming):
    write("emotions.txt", *LABEL_NAMES)
    folder = write("train.tsv", LINES[0], line, LINES[2]).parent
    with pytest.raises(ValueError, match=rf"train\.tsv, line 2: .*({message})"):
        list(load("goemotions", data_dir=folder, split="train", streaming=streaming, cache_dir=cache))
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize("name", ["train.tsv", "train.tsv.gz"])
def test_a_file_without_documents_is_named(write, cache, name):
    write("emotions.txt", *LABEL_NAMES)
    with pytest.raises(ValueError, match=rf"{name} has no document"):
        load("goemotions", data_dir=write(name).parent, cache_dir=cache)


def test_a_truncated_file_is_named(folder, truncate, cache):
    truncate(folder / "dev.tsv.gz")
    with pytest.raises(ValueError, match=r"dev\.tsv\.gz, line \d+: the gzip stream breaks off"):
        load("goemotions", data_dir=folder, cache_dir=cache)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((*LABEL_NAMES[:2], "rage", *LABEL_NAMES[3:]), "line 3: got 'rage', expected anger"),
        ((*LABEL_NAMES, "other"), "line 29: got 'other', expected the end of the file"),
        (LABEL_NAMES[:-1], "ends after line 27, expected 28"),
        ((), "ends after line 0, expected 28"),
    ],
)
def test_another_list_of_emotions_is_an_error(folder, write, cache, names, message):
    write("emotions.txt", *names)
    with pytest.raises(ValueError, match=rf"emotions\.txt.* {message}"):
        load("goemotions", data_dir=folder, cache_dir=cache)


def test_missing_files_are_listed_with_where_to_get_them(folder, cache):
    (folder / "emotions.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks emotions\.txt .*train\.tsv.*google-research.*Apache-2\.0"):
        load("goemotions", data_dir=folder, cache_dir=cache)


def test_the_real_corpus_has_the_published_counts(real_data, cache, caplog):
    corpus = load("goemotions", data_dir=real_data / "goemotions", cache_dir=cache)
    sizes = {split: part.num_rows for split, part in corpus.items()}
    assert sizes == {"train": 43410, "validation": 5426, "test": 5427}
    counts = [len(labels) for part in corpus.values() for labels in part["labels"]]
    assert sum(counts) / len(counts) == pytest.approx(1.18, abs=0.005)
    assert not caplog.records
