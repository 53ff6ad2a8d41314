"""Documents read one by one: the same as `load_files` reads, in memory that does not grow with their number."""

import csv
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgm_hf.data import Document, Layout, iterate_documents, load_files
from sgm_hf.data.labels import label_sets_of


def write_many(path, count):
    """Write `count` documents of 100 words in the format that the name says."""
    texts, labels = (f"{number} " + "word " * 100 for number in range(count)), ["x", "y"]
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, pa.schema({"text": pa.string(), "labels": pa.list_(pa.string())})) as writer:
            for text in texts:
                writer.write_table(pa.table({"text": [text], "labels": [labels]}))
    else:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("text,labels\n" if path.suffix == ".csv" else "")
            for text in texts:
                line = json.dumps({"text": text, "labels": labels})
                stream.write(f"{text},x|y\n" if path.suffix == ".csv" else f"{line}\n")
    return path


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
def test_the_documents_are_those_of_load_files(tmp_path, name):
    path = write_many(tmp_path / name, 3)
    data = load_files(path)["train"]
    documents = list(iterate_documents(path))
    assert [d.id for d in documents] == data["id"][:] and [d.text for d in documents] == data["text"][:]
    assert [d.labels for d in documents] == label_sets_of(data)
    unit, first = ("row", 1) if name.endswith("parquet") else ("line", 1 + name.endswith("csv"))
    assert [d.place for d in documents] == [f"{path}, {unit} {first + i}" for i in range(3)]


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
def test_ten_times_the_documents_take_no_more_memory(tmp_path, name):
    peaks = []
    for count in (300, 3000):
        path = write_many(tmp_path / f"{count}_{name}", count)
        tracemalloc.start()
        assert sum(1 for _ in iterate_documents(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 2,700 more documents are 1.4 MB of text.
    assert peaks[1] < peaks[0] + (700_000 if name.endswith("parquet") else 100_000), peaks


def test_files_with_long_cells_can_be_read_by_turns(tmp_path):
    limit = csv.field_size_limit()
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        path.write_text("text,labels\n" + f"{'word ' * 40_000},x\n" * 3)
    first, second = map(iterate_documents, paths)
    assert len(next(first).text) == len(next(second).text) == 200_000
    assert csv.field_size_limit() == limit
    assert [len(document.text) for document in first] == [len(document.text) for document in second] == [200_000] * 2


def test_what_is_no_source_is_refused_by_its_type():
    for wrong in ([{"text": "a"}], {"train": "t.csv"}, 3):
        with pytest.raises(TypeError, match=f"expected a file, a pandas DataFrame or .* got {type(wrong).__name__}"):
            load_files(wrong)


def test_labels_that_are_ignored_may_be_faulty_or_missing(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "labels": 3}\n')
    documents = list(iterate_documents(path, labels="ignored"))
    assert documents[1] == Document("t.jsonl:2", "b", None, f"{path}, line 2") and documents[0].labels is None
    with pytest.raises(ValueError, match="labels must be one of required, if_present, ignored, got 'none'"):
        iterate_documents(path, labels="none")


def test_what_a_file_lacks_is_said_at_the_call_and_a_fault_at_its_document(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,labels\na,x\nb,y,z\n")
    with pytest.raises(ValueError, match="no column 'body'"):
        iterate_documents(path, Layout(text_column="body"))
    documents = iterate_documents(path)
    assert next(documents).text == "a"
    with pytest.raises(ValueError, match="t.csv, line 3: 3 cells"):
        next(documents)
