"""Damaged and odd files: what is read equals an independent reading, or the error names the file and the place.

Each test changes small valid files in all ways of one kind, or in ways drawn from a seed.
"""

import csv
import gzip
import io
import json
import random
import re
import unicodedata
import warnings
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgm_hf.data.files import load_files
from sgm_hf.data.labels import label_sets_of

DOCUMENTS = [
    ("a plain text", ["x", "y"]),
    ('with "quotes", a comma\nand a second line', ["y"]),
    ("été 日本 😀", []),
    ("last", ["été", "x"]),
]
# Errors about a file as a whole have no line; all others have one.
WHOLE_FILE = (
    "is empty",
    "holds no documents",
    "has no column",
    "columns '",
    "no document has a label",
    "no labels cell contains",
    "lists written as text",
    "is not a complete Parquet file",
    "the note of `datasets`",
)


def content_of(name, documents=DOCUMENTS):
    """The documents as the bytes of a CSV, TSV or JSON Lines file, gzipped if the name ends in .gz."""
    stream = io.StringIO(newline="")
    if ".json" in name:
        lines = [json.dumps({"text": text, "labels": labels}, ensure_ascii=False) for text, labels in documents]
        stream.write("\n".join(lines) + "\n" if ".jsonl" in name else "[" + ",\n".join(lines) + "]\n")
    else:
        writer = csv.writer(stream, delimiter="\t" if ".tsv" in name else ",")
        writer.writerows([("text", "labels"), *((text, "|".join(labels)) for text, labels in documents)])
    content = stream.getvalue().encode()
    return gzip.compress(content, mtime=0) if name.endswith(".gz") else content


def plain(content):
    """The bytes of a gzip file of one or several members, by zlib alone."""
    parts = []
    while content:
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(content))
        if not member.eof:
            raise ValueError("cut off")
        content = member.unused_data.lstrip(b"\0")  # gzip allows zeros after a member
    return b"".join(parts)


def independent_reading(path):
    """Texts and labels of a file of each format, read in the shortest way and without a check."""
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        content = path.read_bytes()
        text = (plain(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
        if ".json" in path.name and text.lstrip().startswith("["):
            rows = json.loads(text)
        elif ".json" in path.name:
            rows = [json.loads(line) for line in map(str.strip, text.split("\n")) if line]
        else:
            delimiter = "\t" if ".tsv" in path.name else ","
            header, *cells = filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
            rows = [dict(zip(header, row, strict=True)) for row in cells]
    return [(row["text"], names(row["labels"])) for row in rows]


def names(labels):
    """The labels of a record as a sorted list."""
    labels = labels.split("|") if isinstance(labels, str) else labels
    return sorted({unicodedata.normalize("NFC", name.strip()) for name in labels or [] if name.strip()})


def check(path):
    """Read a file; return whether it was read. Anything but equal documents and an error with a place fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = load_files(path)["train"]
    except ValueError as error:
        assert str(path) in str(error)
        place = re.search(rf"{re.escape(str(path))}, (line|row|item) [1-9]\d*: ", str(error))
        assert place or any(part in str(error) for part in WHOLE_FILE), error
        return False
    read = [(text, sorted(labels)) for text, labels in zip(data["text"], label_sets_of(data), strict=True)]
    assert read == independent_reading(path)
    return True


TEXT_FILES = ["t.csv", "t.tsv", "t.jsonl"]
ALL_TEXT_FILES = TEXT_FILES + ["t.json", "t.csv.gz", "t.jsonl.gz"]


@pytest.mark.parametrize("name", ALL_TEXT_FILES)
def test_a_file_cut_off_at_any_byte_gives_whole_documents_or_an_error(tmp_path, name):
    content = content_of(name)
    path = tmp_path / name
    read = 0
    for end in range(len(content) + 1):
        path.write_bytes(content[:end])
        read += check(path)
    assert read >= 1
    if name.endswith(".gz"):
        assert read == 1


@pytest.mark.parametrize("name", ALL_TEXT_FILES)
def test_a_changed_byte_gives_what_the_file_holds_or_an_error(tmp_path, name):
    content = content_of(name)
    path = tmp_path / name
    generator = random.Random(0)
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] = generator.choice(b"\0\t\n\r \"',;[]{}\\ux9\x80\xc3\xed\xff")
        path.write_bytes(changed)
        check(path)


@pytest.mark.parametrize("name", TEXT_FILES)
def test_inserted_bytes_give_what_the_file_holds_or_an_error(tmp_path, name):
    content = content_of(name)
    path = tmp_path / name
    pieces = [b"\0", b"\r", b"\n", b"\r\n", b'"', b",", b"\t", b"\xef\xbb\xbf", b"\xc2\xa0", b"\xe2\x80\xa8", b"\xff"]
    pieces += [b"\\", b"\\ud83d", b"null", b"NaN", b"[" * 2000, b"1" * 5000, b"{}", b"\n\n \n", b"|", b"e\xcc\x81"]
    generator = random.Random(0)
    for piece in pieces:
        for position in generator.sample(range(len(content) + 1), 12):
            path.write_bytes(content[:position] + piece + content[position:])
            check(path)


@pytest.mark.parametrize("name", TEXT_FILES)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-8-sig", "shift-jis"])
def test_another_encoding_is_an_error_that_says_so_or_shows_what_was_read(tmp_path, name, encoding):
    documents = [("café \xfc", ["é"]), ("plain", ["x"])]
    path = tmp_path / name
    path.write_bytes(content_of(name, documents).decode().encode(encoding, "replace"))
    assert check(path) == (encoding == "utf-8-sig" or encoding == "shift-jis")


@pytest.mark.parametrize("name", TEXT_FILES)
@pytest.mark.parametrize("end", ["\r\n", "\r", "\n\n", "\r\n\n", "\n\r\n"])
def test_other_ends_of_lines_give_the_same_documents_or_an_error(tmp_path, name, end):
    documents = [("a text", ["x"]), ("another", ["y", "x"])]
    path = tmp_path / name
    path.write_bytes(content_of(name, documents).replace(b"\r\n", b"\n").replace(b"\n", end.encode()))
    assert check(path) == (end != "\r")
    path.write_bytes(content_of(name, documents).replace(b"\r\n", b"\n").replace(b"\n", end.encode(), 1))
    assert check(path) == (end != "\r")


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_gzip_files_of_several_members_and_with_garbage_lose_no_document(tmp_path, name):
    path = tmp_path / f"{name}.gz"
    content = content_of(name)
    for cut in range(0, len(content), 7):
        members = gzip.compress(content[:cut]) + gzip.compress(b"") + gzip.compress(content[cut:])
        path.write_bytes(members)
        assert check(path)
        path.write_bytes(members + b"\0" * cut)
        assert check(path)
        for garbage in (b"\x1f", b"\x1f\x8b", b"garbage", gzip.compress(b"x")[:-1]):
            path.write_bytes(members + garbage)
            assert not check(path)


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "1e999", "-1e400", "9" * 5000, '"\\u0000"', "true", "[[[]]]", '{"a": {"b": null}}', '""'],
)
def test_json_values_are_read_as_they_are_or_refused_with_their_line(tmp_path, value):
    path = tmp_path / "t.jsonl"
    for column in ("text", "labels", "other"):
        record = {"text": '"a"', "labels": '["x"]', "other": "1"} | {column: value}
        line = "{" + ", ".join(f'"{key}": {text}' for key, text in record.items()) + "}\n"
        path.write_text('{"text": "first", "labels": ["x"]}\n' + line)
        if not check(path):
            with pytest.raises(ValueError, match="t.jsonl, line 2: "):
                load_files(path)


@pytest.mark.parametrize("name", TEXT_FILES)
@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
            st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), max_size=4),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_documents_are_read_as_they_were_written(tmp_path, name, documents):
    path = tmp_path / name
    path.write_bytes(content_of(name, documents))
    if check(path):
        assert load_texts(path) == [text for text, _ in documents]


def load_texts(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_files(path)["train"]["text"][:]


# --- Parquet ---------------------------------------------------------------------------------------------------------

TEXTS = [text for text, _ in DOCUMENTS]
LABELS = [labels for _, labels in DOCUMENTS]
STRINGS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]


@pytest.mark.parametrize("kind", STRINGS, ids=str)
def test_every_kind_of_arrow_string_and_list_is_read(tmp_path, kind):
    path = tmp_path / "t.parquet"
    try:
        pa.array(TEXTS).cast(kind)
    except pa.ArrowNotImplementedError as error:
        pytest.skip(f"pyarrow {pa.__version__} cannot make such a column: {error}")
    for labels_type in (pa.list_(kind), pa.large_list(kind)):
        table = pa.table({"text": pa.array(TEXTS).cast(kind), "labels": pa.array(LABELS).cast(labels_type)})
        pq.write_table(table, path)
        assert check(path)
    joined = pa.array(["|".join(labels) for labels in LABELS]).cast(kind)
    pq.write_table(pa.table({"text": TEXTS, "labels": joined}), path)
    assert check(path)


WRONG = {
    "binary": pa.array([b"x"] * 4),
    "integers": pa.array([1, 2, 3, 4]),
    "floats": pa.array([1.0, float("nan"), 2.0, 3.0]),
    "null column": pa.nulls(4),
    "one null": pa.array(["x", None, "y", "z"]),
    "structs": pa.array([{"a": "x"}] * 4),
    "lists of lists": pa.array([[["x"]]] * 4),
    "lists with a null": pa.array([["x"], ["y", None], [], ["x"]]),
    "lists of integers": pa.array([[1], [2], [], [3]]),
    "lists of binary": pa.array([[b"x"], [], [b"y"], []]),
    "maps": pa.array([[("x", 1)]] * 4, pa.map_(pa.string(), pa.int8())),
    "times": pa.array([2**62, 2, 3, 4], pa.timestamp("ns")),
    "far days": pa.array([2**31 - 1, 2, 3, 4], pa.date32()),
    "decimals": pa.array([1, 2, 3, 4]).cast(pa.decimal128(21, 2)),
}


@pytest.mark.parametrize("column", ["text", "labels", "id"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_parquet_column_of_another_type_is_reported_with_its_row(tmp_path, column, wrong):
    if (column, wrong) in (("id", "integers"), ("labels", "null column"), ("labels", "one null")):
        return
    path = tmp_path / "t.parquet"
    columns = {"text": TEXTS, "labels": LABELS, "id": ["a", "b", "c", "d"]}
    pq.write_table(pa.table(columns | {column: WRONG[wrong]}), path)
    row = 2 if wrong == "one null" or (wrong, column) == ("lists with a null", "labels") else 1
    with pytest.raises(ValueError, match=rf"t\.parquet, row {row}: "):
        load_files(path)


def test_parquet_files_of_no_rows_or_of_many_groups_lose_none(tmp_path):
    path = tmp_path / "t.parquet"
    table = pa.table({"text": [f"text {i}" for i in range(5000)], "labels": [[f"l{i % 7}"] for i in range(5000)]})
    pq.write_table(table, path, row_group_size=333)
    assert check(path) and len(load_texts(path)) == 5000
    pq.write_table(table.slice(0, 0), path)
    assert not check(path)


def test_a_parquet_file_cut_off_anywhere_is_named(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": TEXTS, "labels": LABELS}), path)
    content = path.read_bytes()
    for end in range(0, len(content), 11):
        path.write_bytes(content[:end])
        assert not check(path)


def test_a_parquet_file_with_a_changed_byte_gives_what_it_holds_or_an_error(tmp_path):
    path = tmp_path / "t.parquet"
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["x", "y", "été"]))})
    Dataset.from_dict({"text": TEXTS, "labels": LABELS}, features=features).to_parquet(path)
    content = path.read_bytes()
    generator = random.Random(0)
    for position in generator.sample(range(len(content)), 250):
        changed = bytearray(content)
        changed[position] = generator.randrange(256)
        path.write_bytes(changed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read = load_files(path)["train"]["text"][:]
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert read == pq.read_table(path, columns=["text"])["text"].to_pylist()
