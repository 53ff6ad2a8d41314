"""Users' files: what is read, and how each fault is reported."""

import csv
import gzip
import json
import re
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sgm_hf.data.files import load_files
from sgm_hf.data.labels import label_sets_of, reference_matrix

DOCUMENTS = [
    ("a text", ["x", "y"]),
    ("another, with a comma", ["y"]),
    ('"quoted"\nover two lines', []),
    ("été", ["ü, ö"]),
]
NAMES = ["x", "y", "ü, ö"]


@pytest.fixture(autouse=True)
def no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file, gzipped if its name ends in .gz, and return its path."""

    def write_file(name, content):
        path = tmp_path / name
        content = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write_file


def write_documents(path, documents, delimiter=",", separator="|"):
    """Write (text, labels) pairs in the format that the name of the file says."""
    extension = path.name.removesuffix(".gz").rpartition(".")[2]
    if extension == "parquet":
        texts, labels = zip(*documents, strict=True)
        pq.write_table(pa.table({"text": texts, "labels": labels}), path)
        return path
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as stream:
        if extension in ("csv", "tsv"):
            writer = csv.writer(stream, delimiter="\t" if extension == "tsv" else delimiter)
            writer.writerows([("text", "labels"), *((text, separator.join(labels)) for text, labels in documents)])
        else:
            stream.writelines(json.dumps({"text": text, "labels": labels}) + "\n" for text, labels in documents)
    return path


@pytest.mark.parametrize(
    "name",
    ["d.csv", "d.tsv", "d.jsonl", "d.json", "d.parquet", "d.csv.gz", "d.tsv.gz", "d.jsonl.gz", "D.CSV", "D.JSONL.GZ"],
)
def test_every_format_gives_the_same_data_set(tmp_path, name):
    documents = write_documents(tmp_path / name.lower(), DOCUMENTS).rename(tmp_path / name)
    data = load_files(train_file=documents)["train"]
    expected = {"id": Value("string"), "text": Value("string"), "labels": List(ClassLabel(names=NAMES))}
    assert data.features == Features(expected)
    assert list(zip(data["text"], label_sets_of(data), strict=True)) == DOCUMENTS


def test_all_three_splits_share_the_labels_of_the_training_file(tmp_path):
    train = write_documents(tmp_path / "train.csv", DOCUMENTS)
    validation = write_documents(tmp_path / "validation.jsonl", DOCUMENTS[:1])
    test = write_documents(tmp_path / "test.parquet", DOCUMENTS[1:3])
    data = load_files(str(train), str(validation), str(test))
    assert {split: len(part) for split, part in data.items()} == {"train": 4, "validation": 1, "test": 2}
    assert all(part.features["labels"].feature.names == NAMES for part in data.values())


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
def test_a_label_is_the_same_with_blanks_around_it_and_in_each_unicode_form(tmp_path, name):
    documents = [("a", ["x", "caf\u00e9"]), ("b", [" x\t", "cafe\u0301"]), ("c", ["\u212bngstr\u00f6m", "x\u00a0"])]
    data = load_files(write_documents(tmp_path / name, documents))["train"]
    assert data.features["labels"].feature.names == ["caf\u00e9", "x", "\u00c5ngstr\u00f6m"]
    assert label_sets_of(data) == [["x", "caf\u00e9"], ["x", "caf\u00e9"], ["\u00c5ngstr\u00f6m", "x"]]


def test_given_label_names_stay_as_they_are_and_meet_the_files_labels_in_either_spelling(write):
    path = write("t.jsonl", '{"text": "a", "labels": ["x", "e\u0301"]}\n')
    data = load_files(test_file=path, label_names=["\u00e9", " x"])["test"]
    assert data.features["labels"].feature.names == ["\u00e9", " x"] and data["labels"] == [[1, 0]]
    with pytest.raises(ValueError, match="'x' is listed 2 times"):
        load_files(test_file=path, label_names=["x", " x"])


def test_documents_without_an_id_are_named_after_file_and_line(tmp_path):
    assert load_files(write_documents(tmp_path / "t.csv", DOCUMENTS))["train"]["id"] == [
        "t.csv:2",
        "t.csv:3",
        "t.csv:4",
        "t.csv:6",
    ]
    assert load_files(write_documents(tmp_path / "t.parquet", DOCUMENTS))["train"]["id"][0] == "t.parquet:1"


def test_ids_and_column_names_of_the_users_choice_are_used(write):
    path = write("t.jsonl", '{"nr": 7, "body": "a", "tags": "x; y"}\n\n{"nr": "8b", "body": "b", "tags": "y"}\n')
    data = load_files(path, text_column="body", labels_column="tags", id_column="nr", label_separator=";")["train"]
    assert data["id"] == ["7", "8b"] and data["text"] == ["a", "b"] and label_sets_of(data) == [["x", "y"], ["y"]]


@pytest.mark.parametrize("cell", ["x|y", " x | y ", "x||y|", "|x|y"])
def test_blanks_and_empty_parts_around_a_separator_are_not_labels(write, cell):
    data = load_files(write("t.csv", f"text,labels\na,{cell}\n"))["train"]
    assert label_sets_of(data) == [["x", "y"]]


@pytest.mark.parametrize("delimiter", [";", "\t", "\\t", "|"])
def test_a_csv_file_may_have_another_delimiter(tmp_path, delimiter):
    path = write_documents(tmp_path / "t.csv", DOCUMENTS, delimiter=delimiter.replace("\\t", "\t"))
    assert load_files(path, delimiter=delimiter)["train"]["text"] == [text for text, _ in DOCUMENTS]


def test_label_names_with_a_comma_need_quotes_in_csv_and_nothing_more(write):
    data = load_files(write("t.csv", 'text,labels\na,"Smith, J.|Ünsal, Ö."\nb,"Smith, J."\n'))["train"]
    assert label_sets_of(data) == [["Smith, J.", "Ünsal, Ö."], ["Smith, J."]]


def test_a_byte_order_mark_and_windows_line_ends_are_not_part_of_the_data(write):
    data = load_files(write("t.csv", b"\xef\xbb\xbftext,labels\r\na,x\r\n"))["train"]
    assert data["text"] == ["a"] and label_sets_of(data) == [["x"]]


def test_a_text_longer_than_the_csv_modules_limit_is_read_and_the_limit_stays(write):
    limit = 131_072
    csv.field_size_limit(limit)
    text = "word " * 40_000
    assert load_files(write("t.csv", f"text,labels\n{text},x\n"))["train"]["text"] == [text]
    assert csv.field_size_limit() == limit


def test_parquet_files_of_datasets_keep_their_label_names(tmp_path):
    features = Features({"id": Value("string"), "text": Value("string"), "labels": List(ClassLabel(names=NAMES))})
    columns = {"id": ["d1", "d2", "d3"], "text": ["a", "b", "c"], "labels": [[2, 0], [], [1]]}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "t.parquet")
    data = load_files(tmp_path / "t.parquet")["train"]
    assert data.features == features and data[:] == columns


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0], [1, None]], "expected label ids from 0 to 2, but None is not one"),
        ([[0], [3]], "expected label ids from 0 to 2, but 3 is not one"),
        ([[0], [-1]], "expected label ids from 0 to 2, but -1 is not one"),
    ],
)
def test_invalid_label_ids_are_reported_with_their_row(tmp_path, labels, message):
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=NAMES))})
    table = pa.table({"text": ["a", "b"], "labels": labels}, schema=features.arrow_schema)
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=f"t.parquet, row 2: .*{message}"):
        load_files(tmp_path / "t.parquet")


def test_a_damaged_note_of_datasets_is_named(tmp_path):
    table = pa.table({"text": ["a"], "labels": [[0]]}).replace_schema_metadata({"huggingface": '{"info": 1}'})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="t.parquet: the note of `datasets` on its columns cannot be read"):
        load_files(tmp_path / "t.parquet")


def test_a_part_of_a_parquet_file_that_cannot_be_read_is_reported_with_its_first_row(tmp_path):
    texts = pa.array([b"a"] * 1000 + [b"\xff"]).view(pa.string())  # read 1,000 rows at a time
    pq.write_table(pa.table({"text": texts, "labels": [["x"]] * 1001}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="t.parquet, row 1001: cannot be read"):
        load_files(tmp_path / "t.parquet")


def test_given_label_names_take_the_place_of_the_training_files(write):
    path = write("t.csv", "text,labels\na,x\n")
    assert load_files(test_file=path, label_names=["z", "x"])["test"]["labels"] == [[1]]
    assert load_files(path, label_names=["z", "x"])["train"].features["labels"].feature.names == ["z", "x"]
    with pytest.raises(ValueError, match=r"t.csv, line 2: unknown label 'x'"):
        load_files(path, label_names=["z"], unknown_labels="count")


def test_labels_without_a_list_of_all_labels_are_an_error(write):
    path = write("t.csv", "text,labels\na,x\n")
    with pytest.raises(ValueError, match="t.csv has labels, but there is no training file.*label_names"):
        load_files(test_file=path)


# --- unknown labels, missing labels, empty texts ---------------------------------------------------------------------


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_unknown_label_is_reported_with_file_line_and_remedy(write, split):
    train, other = write("t.csv", "text,labels\na,x\n"), write("o.jsonl", '{"text": "a", "labels": ["x", "new"]}\n')
    with pytest.raises(ValueError, match="o.jsonl, line 1: unknown label 'new'.*--unknown_labels count"):
        load_files(train, **{f"{split}_file": other})


def test_counted_unknown_labels_survive_to_the_evaluation(write):
    train = write("t.csv", "text,labels\na,x|y\n")
    other = write("o.csv", "text,labels\na,new|x\nb,y\nc,newer\n")
    data = load_files(train, other, other, unknown_labels="count")
    assert "unknown_labels" not in data["train"].column_names
    for split in ("validation", "test"):
        assert data[split]["labels"] == [[0], [1], []]
        assert data[split]["unknown_labels"] == [["new"], [], ["newer"]]
        matrix, unknown = reference_matrix(label_sets_of(data[split]), ["x", "y"], "count")
        assert unknown == ["new", "newer"]
        assert matrix.astype(int).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("name, content", [("o.csv", "text\na\n"), ("o.jsonl", '{"text": "a"}\n')])
def test_a_test_file_without_labels_can_be_predicted_and_says_so(write, name, content):
    train, path = write("t.csv", "text,labels\na,x\n"), write(name, content)
    with pytest.warns(UserWarning, match="no column 'labels' .*predicted, but not evaluated.*--labels_column"):
        data = load_files(train, test_file=path)
    assert data["test"].column_names == ["id", "text"]
    with pytest.warns(UserWarning, match="predicted"):
        assert load_files(test_file=path)["test"]["text"] == ["a"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_training_or_validation_file_without_labels_is_an_error(write, split):
    with pytest.raises(ValueError, match="o.csv has no column 'labels'; its columns are 'text'.*--labels_column"):
        load_files(
            **{"train_file": write("t.csv", "text,labels\na,x\n"), f"{split}_file": write("o.csv", "text\na\n")}
        )


def test_an_empty_text_is_an_error_in_training_and_kept_elsewhere(write):
    empty, full = write("e.csv", 'text,labels\na,x\n" ",x\n'), write("t.csv", "text,labels\na,x\n")
    with pytest.raises(ValueError, match="e.csv, line 3: the text .'text'. is empty"):
        load_files(empty)
    assert load_files(full, empty, empty)["test"]["text"] == ["a", " "]


def test_a_training_file_in_which_no_document_has_a_label_is_an_error(write):
    with pytest.raises(ValueError, match="t.csv: no document has a label"):
        load_files(write("t.csv", "text,labels\na,\n"))


def test_a_data_set_of_a_single_label_is_read(write):
    assert load_files(write("t.csv", "text,labels\na,x\nb,\n"))["train"]["labels"] == [[0], []]


# --- labels that look joined in another way --------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_labels_joined_by_another_separator_are_an_error_that_names_it(tmp_path, separator):
    documents = [("a", ["x", "y"]), ("b", ["y", "z"]), ("c", ["x", "z"]), ("d", ["x"]), ("e", ["y", "x", "z"])]
    path = write_documents(tmp_path / "t.csv", documents, separator=separator)
    with pytest.raises(ValueError, match="t.csv: no labels cell contains the separator.*4 of 5 .*--label_separator"):
        load_files(path)
    for name in (separator, separator.replace("\t", "\\t")):
        assert load_files(path, label_separator=name)["train"].features["labels"].feature.names == ["x", "y", "z"]


def test_single_names_with_a_comma_are_read_with_a_warning(write):
    path = write("t.csv", 'text,labels\na,"Smith, J."\nb,"Jones, K."\nc,"Smith, J."\n')
    with pytest.warns(UserWarning, match="'Smith, J.' is read as one label.*--label_separator ','"):
        assert label_sets_of(load_files(path)["train"]) == [["Smith, J."], ["Jones, K."], ["Smith, J."]]


def test_single_labels_and_lists_of_names_with_commas_are_not_suspected(tmp_path):
    assert load_files(write_documents(tmp_path / "t.csv", [("a", ["x"]), ("b", ["y"])]))
    assert load_files(write_documents(tmp_path / "t.jsonl", [("a", ["x, z"]), ("b", ["y, z"]), ("c", ["x, y"])]))


@pytest.mark.parametrize(
    "cells",
    [
        ["x;y", "y;z", "x", "z"],  # no more than half of the cells have the other separator
        ["x|y", "x;y", "y;z", "z;x"],  # one has the separator
        ["[x]", "[y", "z]", "w"],
        ["", "x", ""],
    ],
)
def test_cells_that_say_too_little_are_not_suspected(write, cells):
    data = load_files(write("t.csv", "text,labels\n" + "".join(f"a,{cell}\n" for cell in cells)))["train"]
    assert label_sets_of(data) == [[name for name in cell.split("|") if name] for cell in cells]


def test_another_separator_is_an_error_only_if_it_leaves_fewer_labels(write):
    with pytest.raises(ValueError, match="2 of 3 contain ';'"):
        load_files(write("t.csv", "text,labels\na,x;y\na,y;x\na,y\n"))
    with pytest.warns(UserWarning, match="2 of 3 contain ';'; 'x;y' is read as one label"):
        load_files(write("t.csv", "text,labels\na,x;y\na,z;x\na,w\n"))


def test_a_parquet_file_of_datasets_without_labels_can_be_predicted(tmp_path):
    Dataset.from_dict({"text": ["a", "b"]}).to_parquet(tmp_path / "o.parquet")
    with pytest.warns(UserWarning, match="predicted, but not evaluated"):
        assert load_files(test_file=tmp_path / "o.parquet")["test"]["text"] == ["a", "b"]


def test_lists_written_as_text_are_an_error(write):
    with pytest.raises(ValueError, match=r"t.csv: the labels are lists written as text, e.g. \"\['x'\]\"\. Join"):
        load_files(write("t.csv", "text,labels\na,['x']\nb,\"['x', 'y']\"\n"))


# --- faults of files -------------------------------------------------------------------------------------------------


def test_no_file_at_all_is_an_error():
    with pytest.raises(ValueError, match="--train_file, --validation_file and --test_file"):
        load_files()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.csv does not exist"):
        load_files(tmp_path / "absent.csv")


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        load_files(tmp_path)


@pytest.mark.parametrize("name", ["t.txt", "t", "t.parquet.gz", "t.csv.zip"])
def test_an_unknown_extension_is_refused_with_the_known_ones(write, name):
    with pytest.raises(ValueError, match="extension.*expected .csv, .tsv, .jsonl, .json, .parquet"):
        load_files(write(name, "text,labels\na,x\n"))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.csv.gz", "t.jsonl.gz"])
def test_an_empty_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{name} is empty"):
        load_files(tmp_path / name)


def test_a_file_without_documents_is_named(write, tmp_path):
    with pytest.raises(ValueError, match="t.csv holds no documents"):
        load_files(write("t.csv", "text,labels\n"))
    pq.write_table(
        pa.table({"text": pa.array([], pa.string()), "labels": pa.array([], pa.string())}), tmp_path / "t.parquet"
    )
    with pytest.raises(ValueError, match="t.parquet holds no documents"):
        load_files(tmp_path / "t.parquet")
    for name in ("e.csv.gz", "e.jsonl.gz", "e.jsonl"):
        with pytest.raises(ValueError, match=f"{name} holds no documents"):
            load_files(write(name, "\n"))


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.gz"])
def test_a_truncated_gzip_file_is_named_with_the_line_it_breaks_off_in(tmp_path, name):
    path = write_documents(tmp_path / name, [(f"text {i * 7919}", [f"label {i % 13}"]) for i in range(3000)])
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=rf"{name}, line \d+: the gzip stream breaks off"):
        load_files(path)


def test_a_file_that_is_not_gzip_is_named(tmp_path):
    (tmp_path / "t.csv.gz").write_text("text,labels\na,x\n")
    with pytest.raises(ValueError, match="t.csv.gz, line 1: the gzip stream"):
        load_files(tmp_path / "t.csv.gz")


@pytest.mark.parametrize("keep", [10, -10])
def test_a_truncated_parquet_file_is_named(tmp_path, keep):
    path = write_documents(tmp_path / "t.parquet", DOCUMENTS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="t.parquet is not a complete Parquet file"):
        load_files(path)


def test_a_label_id_outside_its_names_is_reported_with_its_row(tmp_path):
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["x", "y"]))})
    Dataset.from_dict({"text": ["a", "b"], "labels": [[0], [-1]]}, features=features).to_parquet(
        tmp_path / "t.parquet"
    )
    with pytest.raises(ValueError, match="t.parquet, row 2: .*-1"):
        load_files(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "lab', "not valid JSON .Unterminated string .* at character 15.*Expected one object per line"),
        ('["a", "x"]', "a JSON list. Expected one object per line"),
        ('{"text": "\\ud83d", "labels": []}', "not valid JSON .*surrogates"),
        ('{"labels": ["x"]}', "expected a text in 'text', got nothing .the record has 'labels'."),
        ('{"text": null, "labels": []}', "expected a text in 'text', got NoneType None"),
        ('{"text": 5, "labels": []}', "expected a text in 'text', got int 5"),
        ('{"text": "a"}', "expected the labels in 'labels' as a list of texts.*got nothing"),
        ('{"text": "a", "labels": 3}', "expected the labels in 'labels' as a list of texts.*got int 3"),
        ('{"text": "a", "labels": {"x": 1}}', "got dict"),
        ('{"text": "a", "labels": ["x", 3]}', "list of label names in 'labels', but 3 is not one"),
        ('{"text": "a", "labels": ["x", ""]}', "list of label names in 'labels', but '' is not one"),
        ('{"text": "a", "labels": [], "id": null}', "text or an integer in 'id', got NoneType None"),
        ('{"text": "a", "text": "b", "labels": []}', "not valid JSON .the key 'text' is given 2 times.* Expected one"),
        ('{"text": "a", "labels": ["x"], "more": {"n": 1, "n": 1}}', "the key 'n' is given 2 times"),
        ("[" * 100_000, "nested too deeply. Expected one object per line"),
        ('{"text": "a", "labels": [], "more": ' + '{"n":' * 100_000, "nested too deeply"),
        ('{"text": "a", "labels": [' + "[" * 900 + "]" * 900 + "]}", r"but \[+...\]+ is not one"),
        ('{"text": 5' + "0" * 5_000 + "}", "not valid JSON .*limit .4300 digits."),
    ],
)
def test_a_faulty_json_line_is_reported_with_file_and_line(write, line, message):
    path = write("t.jsonl", '{"text": "a", "labels": ["x"]}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=f"t.jsonl, line 3: .*{message}"):
        load_files(path)


@pytest.mark.parametrize(("line", "cause"), [("[" * 100_000, RecursionError), ("{", json.JSONDecodeError)])
def test_the_json_readers_own_error_stays_the_cause(write, line, cause):
    with pytest.raises(ValueError, match="line 1: ") as error:
        load_files(write("t.jsonl", line + "\n"))
    assert isinstance(error.value.__cause__, cause)


def test_labels_that_begin_after_the_first_record_are_reported(write):
    with (
        pytest.warns(UserWarning, match="predicted"),
        pytest.raises(ValueError, match="o.jsonl, line 2: has 'labels', but the first record has not"),
    ):
        load_files(test_file=write("o.jsonl", '{"text": "a"}\n{"text": "b", "labels": ["x"]}\n'))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("b,x,y\n", "line 4: 3 cells, but the header has 2.*quotes, or set --delimiter"),
        ("b\n", "line 4: 1 cells, but the header has 2"),
        ('"b,x\nc,y\n', "line 4: not valid CSV from here on .unexpected end of data"),
        ('"b"b,x\n', "line 4: not valid CSV from here on .*Double the quotes"),
        ('"b\nb",x\nc,x,x\n', "line 6: 3 cells"),
        (b"\xe9t\xe9,x\n", "line 4: not UTF-8 .*Save the file as UTF-8"),
    ],
)
def test_a_faulty_csv_row_is_reported_with_file_and_line(write, rows, message):
    rows = rows.encode() if isinstance(rows, str) else rows
    path = write("t.csv", b"text,labels\na,x\n\n" + rows)
    with pytest.raises(ValueError, match=f"t.csv, {message}"):
        load_files(path)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_wrong_delimiter_is_an_error_that_names_the_right_one(tmp_path, delimiter):
    path = write_documents(tmp_path / "t.csv", DOCUMENTS[:2], delimiter=delimiter)
    with pytest.raises(ValueError, match=r"t.csv, line 1: the header is one cell, 'text.*labels'. Set --delimiter"):
        load_files(path)


def test_a_delimiter_is_one_character(write):
    with pytest.raises(ValueError, match="one character, got ', '"):
        load_files(write("t.csv", "text,labels\na,x\n"), delimiter=", ")
    with pytest.raises(ValueError, match="label separator is empty"):
        load_files(write("t.csv", "text,labels\na,x\n"), label_separator="")


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_missing_text_column_lists_the_columns_there_are(tmp_path, name):
    path = write_documents(tmp_path / name, DOCUMENTS)
    with pytest.raises(
        ValueError, match=f"{name} has no column 'body'; its columns are 'text', 'labels'.*--text_column"
    ):
        load_files(path, text_column="body")


def test_a_file_without_a_header_shows_what_it_took_for_one(write):
    with pytest.raises(
        ValueError, match="its columns are 'a long text about x', 'x'.*name its columns in its first line"
    ):
        load_files(write("t.csv", "a long text about x,x\nb,y\n"))


def test_a_column_twice_is_an_error(write):
    with pytest.raises(ValueError, match="t.csv has 2 columns 'text'"):
        load_files(write("t.csv", "text,labels,text\na,x,b\n"))
    with pytest.raises(ValueError, match="i.csv has 2 columns 'id'"):
        load_files(write("i.csv", "id,id,text,labels\n1,2,a,x\n"))
    with pytest.raises(ValueError, match="l.csv has 2 columns 'labels'"):
        load_files(write("l.csv", "text,labels,labels\na,x,y\n"))


# --- messages, word by word ------------------------------------------------------------------------------------------

AN_OBJECT = 'Expected one object per line, e.g. {"text": "…", "labels": ["…", "…"]}.'
NAME_IT = (
    "a CSV file must name its columns in its first line and use the delimiter given by --delimiter."  # of one line
)
NUMBERED = [f"c{i}" for i in range(25)]
# What stands in a file, the arguments, and the whole message: @ is the file, ~ what another library says.
MESSAGES = [
    (
        "t.csv",
        'text,labels\n"a, b",x\nc,d,x\n',
        {},
        "@, line 3: 3 cells, but the header has 2. Put a cell that contains the delimiter between double quotes, or "
        "set --delimiter.",
    ),
    (
        "t.csv",
        'text,labels\n"a,x\n',
        {},
        "@, line 2: not valid CSV from here on (~). Double the quotes inside a quoted cell and close it, or set "
        "--delimiter.",
    ),
    ("t.csv", "text;labels\na;x\n", {}, "@, line 1: the header is one cell, 'text;labels'. Set --delimiter ';'."),
    (
        "t.csv",
        "body,labels\na,x\n",
        {},
        f"@ has no column 'text'; its columns are 'body', 'labels'. Name the column with --text_column; {NAME_IT}",
    ),
    (
        "t.csv",
        "text,tags\na,x\n",
        {},
        "@ has no column 'labels'; its columns are 'text', 'tags'. Name the column with --labels_column (where each "
        f"label has a column of its own, name them with --labels_columns); {NAME_IT}",
    ),
    (
        "t.csv",
        ",".join(NUMBERED) + "\n",
        {},
        f"@ has no column 'text'; its columns are {', '.join(map(repr, NUMBERED[:20]))} and 5 more. Name the column "
        f"with --text_column; {NAME_IT}",
    ),
    ("t.csv", "text,text,labels\na,b,x\n", {}, "@ has 2 columns 'text'. Rename or remove all but one."),
    (
        "t.csv",
        "text,labels\n,x\n",
        {},
        "@, line 2: the text ('text') is empty. Remove the document, or give it a text.",
    ),
    ("t.csv", "text,labels\n", {}, "@ holds no documents: expected at least one, in CSV after the header."),
    ("t.csv", "text,labels\na,\n", {}, "@: no document has a label, so that there is nothing to learn."),
    (
        "t.csv",
        "text,labels\na,['x']\n",
        {},
        "@: the labels are lists written as text, e.g. \"['x']\". Join the names with '|', or write the documents "
        "as JSON Lines, where labels can be lists.",
    ),
    (
        "t.csv",
        "text,labels\na,x;y\nb,y;z\nc,z;x\nd,x\n",
        {"label_separator": ","},
        "@: no labels cell contains the separator ',', but 3 of 4 contain ';'; 'x;y' is read as one label. If these "
        "are several, set --label_separator ';'; if this is one name, write the documents as JSON Lines with lists of "
        "labels.",
    ),
    (
        "t.csv",
        "text,labels\na,x\n",
        {"label_separator": ""},
        "The label separator is empty: give the text between two labels, e.g. --label_separator '|'.",
    ),
    (
        "t.csv",
        "text,labels\na,x\n",
        {"delimiter": "::"},
        "The delimiter must be one character, got '::'. Set --delimiter.",
    ),
    (
        "t.csv",
        b"text,labels\n\xe9,x\n",
        {},
        "@, line 2: not UTF-8 (~). Save the file as UTF-8, or name its encoding with --encoding, e.g. cp1252.",
    ),
    (
        "t.csv",
        "text,labels\na,x\n".encode("utf-16"),
        {},
        "@, line 1: not UTF-8 (~). It begins as a UTF-16 file does: convert it with iconv -f utf-16 -t utf-8 "
        "OLD > NEW.",
    ),
    ("t.csv", "", {}, "@ is empty: expected a file of documents."),
    (
        "t.txt",
        "a",
        {},
        "@ has an extension that does not tell its format: expected .csv, .tsv, .jsonl, .json, .parquet, or one of "
        "these except .parquet followed by .gz. Rename or convert the file.",
    ),
    (
        "t.jsonl",
        '{"text": "a", "labels": 3}\n',
        {},
        "@, line 1: expected the labels in 'labels' as a list of texts, or as one text with '|' between two labels, "
        "got int 3.",
    ),
    (
        "t.jsonl",
        '{"text": "a", "labels": {"' + "b" * 200 + '": 1}}\n',
        {},
        "@, line 1: expected the labels in 'labels' as a list of texts, or as one text with '|' between two labels, "
        f"got dict {{'{'b' * 27}...{'b' * 27}….",
    ),
    (
        "t.jsonl",
        '{"text": "a", "labels": ["x", 3]}\n',
        {},
        "@, line 1: expected a list of label names in 'labels', but 3 is not one.",
    ),
    ("t.jsonl", '{"text": 3, "labels": ["x"]}\n', {}, "@, line 1: expected a text in 'text', got int 3."),
    (
        "t.jsonl",
        '{"text": "a", "labels": ["x"], "id": 1.5}\n',
        {},
        "@, line 1: expected a text or an integer in 'id', got float 1.5.",
    ),
    (
        "t.jsonl",
        '{"text": "a", "labels": ["x"]}\n{"body": "a"}\n',
        {},
        "@, line 2: expected a text in 'text', got nothing (the record has 'body').",
    ),
    (
        "t.jsonl",
        '\n{"text": "a", "labels": ["x"\n',
        {},
        f"@, line 2: not valid JSON (~ at character 29). {AN_OBJECT}",
    ),
    (
        "t.jsonl",
        '{"text": "a", "text": "a"}\n',
        {},
        f"@, line 1: not valid JSON (the key 'text' is given 2 times). {AN_OBJECT}",
    ),
    ("t.jsonl", "[" * 100_000, {}, f"@, line 1: nested too deeply. {AN_OBJECT}"),
    ("t.jsonl", "[1]\n", {}, f"@, line 1: a JSON list. {AN_OBJECT}"),
    ("t.parquet", "nothing", {}, "@ is not a complete Parquet file (~). Write or copy it again."),
]


@pytest.mark.parametrize(("name", "content", "arguments", "message"), MESSAGES, ids=range(len(MESSAGES)))
def test_an_error_says_file_place_value_and_what_to_do(write, name, content, arguments, message):
    path = write(name, content)
    with pytest.raises(ValueError) as caught:
        load_files(path, **arguments)
    pattern = ".*".join(re.escape(part) for part in message.replace("@", str(path)).split("~"))
    assert re.fullmatch(pattern, str(caught.value))


def test_errors_about_paths_and_missing_files_say_what_to_do(tmp_path):
    cases = {
        tmp_path / "no.csv": "{} does not exist: expected a file of documents. Check the name and the folder.",
        tmp_path: "{} is not a file: expected a file of documents, not a folder.",
    }
    for path, message in cases.items():
        with pytest.raises((FileNotFoundError, ValueError)) as caught:
            load_files(path)
        assert str(caught.value) == message.format(path)
    with pytest.raises(ValueError) as caught:
        load_files()
    assert str(caught.value) == "No file given: give at least one of --train_file, --validation_file and --test_file."


def test_a_broken_gzip_file_says_what_to_do(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"text,labels\na,x\n")[:-4])
    with pytest.raises(
        ValueError, match=r"t.csv.gz, line 3: the gzip stream breaks off or is damaged \(.*\)\. Copy the file again\.$"
    ):
        load_files(tmp_path / "t.csv.gz")


def test_warnings_say_file_and_what_to_do(write):
    train, path = write("t.csv", "text,labels\na,x\n"), write("o.csv", "text,tags\na,x\n")
    with pytest.warns(UserWarning) as caught:
        load_files(train, test_file=path)
    assert [str(warning.message) for warning in caught] == [
        f"{path} has no column 'labels' (columns: 'text', 'tags'): its documents can be predicted, but not evaluated. "
        "If another column holds the labels, name it with --labels_column."
    ]


def test_labels_without_a_training_file_say_what_to_give(write):
    path = write("t.csv", "text,labels\na,x\n")
    with pytest.raises(ValueError) as caught:
        load_files(test_file=path)
    assert str(caught.value) == (
        f"{path} has labels, but there is no training file that says which labels exist: give train_file, or "
        "label_names (those of a trained model are list(model.config.label2id))."
    )
