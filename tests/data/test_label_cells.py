"""Every form of labels gives the same label sets; a wrong cell is named with its place."""

import json
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sgm_hf.data import label_sets_of, load_files

NAMES = ["sport", "world news", "ü, ö"]
SETS = [["sport", "ü, ö"], [], ["world news"]]
ROWS = [[int(name in labels) for name in NAMES] for labels in SETS]


@pytest.fixture(autouse=True)
def no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def one_hot_frame(values=(0, 1)):
    """The documents with a column per label."""
    columns = {name: [values[row[i]] for row in ROWS] for i, name in enumerate(NAMES)}
    return pd.DataFrame({"id": ["a", "b", "c"], "text": ["one", "two", "three"], **columns})


def check(data):
    """Names in the given order, and the sets."""
    assert data.features["labels"].feature.names == NAMES
    assert [set(labels) for labels in label_sets_of(data)] == [set(labels) for labels in SETS]


@pytest.mark.parametrize("values", [(0, 1), (0.0, 1.0), (False, True), ("no", "yes"), (None, 1), ("FALSE", " True ")])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.json"])
def test_a_column_per_label_is_read_from_every_format(tmp_path, name, values):
    path, frame = tmp_path / name, one_hot_frame(values)
    if name == "t.csv":
        frame.to_csv(path, index=False)
    elif name == "t.parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=name == "t.jsonl")
    for columns in (NAMES, "*", "sport,world*,ü*", ["sport", "*"]):
        check(load_files(path, labels_columns=columns)["train"])
    check(load_files(frame, labels_columns="*")["train"])
    check(load_files(Dataset.from_pandas(frame), labels_columns="*")["train"])


def test_labels_of_columns_exist_though_no_document_has_them(tmp_path):
    frame = one_hot_frame()
    train, test = frame[:2], frame
    data = load_files(train, test_file=test, labels_columns="*")
    assert data["train"].features["labels"].feature.names == NAMES
    check(data["test"])


@pytest.mark.parametrize("value", [2, -1, 0.5, "maybe", "2", [1]])
def test_a_cell_that_is_neither_is_named_with_its_place(tmp_path, value):
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"text": "a", "x": 1, "y": 1}}\n{{"text": "a", "x": 0, "y": {json.dumps(value)}}}\n')
    with pytest.raises(ValueError, match=r"t.jsonl, line 2: expected 0 or 1 .* in 'y', got .*--labels_columns.$"):
        load_files(path, labels_columns="x,y")


def test_columns_that_are_not_there_are_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,a,b\nt,1,0\n")
    for columns, missing in (("a,c", "c"), ("label_*", "label_[*]")):
        with pytest.raises(ValueError, match=f"t.csv has no column '{missing}'; its columns are .* --labels_columns"):
            load_files(path, labels_columns=columns)
    path.write_text("text,a,a\nt,1,0\n")
    with pytest.raises(ValueError, match="has 2 columns 'a'"):
        load_files(path, labels_columns="*")
    with pytest.raises(ValueError, match="no column 'labels'.* of its own, name them with --labels_columns"):
        load_files(path)


def test_a_test_file_without_any_label_column_can_be_predicted_and_one_with_some_is_warned_of(tmp_path):
    train, frame = one_hot_frame(), one_hot_frame()
    with pytest.warns(UserWarning, match="predicted, but not evaluated"):
        data = load_files(train, test_file=frame[["text"]], labels_columns=NAMES)
    assert data["test"].column_names == ["id", "text"]
    with pytest.warns(UserWarning, match="predicted, but not evaluated"):
        other = load_files(train, test_file=frame[["text"]].assign(labels="x"), labels_columns=NAMES)
    assert other["test"].column_names == ["id", "text"]
    with pytest.raises(ValueError, match="has no column 'ü, ö'"):
        load_files(train, test_file=frame[["text", *NAMES[:2]]], labels_columns=NAMES)
    with pytest.warns(UserWarning, match="test has no column for 1 of the 3 labels .first: 'ü, ö'.*not having them"):
        load_files(train, test_file=frame[["text", *NAMES[:2]]], labels_columns="*")


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "t.csv"])
def test_lists_of_zeros_and_ones_are_read_with_their_names(tmp_path, name):
    path, names = tmp_path / name, tmp_path / "names.txt"
    names.write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    frame = pd.DataFrame({"text": ["one", "two", "three"], "labels": ROWS})
    if name == "t.csv":
        frame.to_csv(path, index=False)
    elif name == "t.parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    for given in (NAMES, str(names), names):
        check(load_files(path, multi_hot_names=given)["train"])
    check(load_files(frame, multi_hot_names=NAMES)["train"])
    with pytest.raises(ValueError, match="--multi_hot_names"):
        load_files(path)
    with pytest.raises(ValueError, match="[12]: expected a list of 2 numbers 0 or 1 in 'labels', one for each"):
        load_files(path, multi_hot_names="a,b")


@pytest.mark.parametrize(
    "cell", ["[1 0 1]", "1,0,1", "(1, 0, 1)", "[1.0, 0.0, 1.0]", "[1. 0. 1.]", "[True, False, True]"]
)
def test_lists_of_zeros_and_ones_in_a_cell_of_text_are_read(tmp_path, cell):
    path = tmp_path / "t.tsv"
    path.write_text(f"text\tlabels\na\t{cell}\nb\t\n", encoding="utf-8")
    assert label_sets_of(load_files(path, multi_hot_names="a,b,c")["train"]) == [["a", "c"], []]


@pytest.mark.parametrize("value", ["[1, 2, 0]", "3", '{"a": 1}', '"1 0 ... 1"', '["a", "b", "c"]', "[1, null, 0]"])
def test_a_list_that_is_not_of_zeros_and_ones_is_named_with_its_place(tmp_path, value):
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"text": "a", "labels": [1, 0, 0]}}\n{{"text": "b", "labels": {value}}}\n')
    with pytest.raises(ValueError, match="t.jsonl, line 2: expected a list of 3 numbers 0 or 1 in 'labels'"):
        load_files(path, multi_hot_names="a,b,c")


def test_names_of_numbers_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="names.txt does not exist: .*--multi_hot_names"):
        load_files(one_hot_frame(), multi_hot_names="names.txt")
    with pytest.raises(ValueError, match="'a' is listed 2 times"):
        load_files(one_hot_frame(), multi_hot_names=["a", "a"])
    with pytest.raises(ValueError, match="--labels_columns and --multi_hot_names"):
        load_files(one_hot_frame(), multi_hot_names=["a", "b"], labels_columns="*")


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.parquet", "frame", "dataset"])
def test_null_is_no_label(tmp_path, name):
    path, labels = tmp_path / name, [["x"], None, ["y", "x"]]
    frame = pd.DataFrame({"text": ["a", "b", "c"], "labels": labels})
    source = path
    if name == "t.parquet":
        pq.write_table(pa.table({"text": ["a", "b", "c"], "labels": labels}), path)
    elif name.startswith("t."):
        frame.to_json(path, orient="records", lines=name == "t.jsonl")
    else:
        source = frame if name == "frame" else Dataset.from_dict({"text": ["a", "b", "c"], "labels": labels})
    assert label_sets_of(load_files(source)["train"]) == [["x"], [], ["y", "x"]]
    frame["labels"] = ["x|y", float("nan"), pd.NA]
    assert label_sets_of(load_files(frame)["train"]) == [["x", "y"], [], []]


def test_a_repeated_label_counts_once_with_one_warning_for_the_file(tmp_path):
    path = tmp_path / "t.jsonl"
    labels = [["x", "y"], ["y", "x", " y", "y"], "x|x", ["e\u0301", "\u00e9"]]
    path.write_text("".join(json.dumps({"text": "a", "labels": names}) + "\n" for names in labels))
    with pytest.warns(UserWarning) as caught:
        data = load_files(path)["train"]
    assert label_sets_of(data) == [["x", "y"], ["y", "x"], ["x"], ["\u00e9"]]
    assert [str(warning.message) for warning in caught] == [
        f"{path}: 3 document(s) name a label more than once, which counts as once; first: 'y' is there 3 times in "
        "line 2."
    ]


def test_class_labels_alone_and_in_lists_are_read_from_data_sets_and_their_files(tmp_path):
    alone = Dataset.from_dict(
        {"text": ["a", "b"], "labels": [1, 0]},
        features=Features({"text": Value("string"), "labels": ClassLabel(names=["no", "yes", "perhaps"])}),
    )
    several = Dataset.from_dict(
        {"text": ["a", "b"], "labels": [[1, 0], []]},
        features=Features({"text": Value("string"), "labels": List(ClassLabel(names=["no", "yes", "perhaps"]))}),
    )
    for dataset, expected in ((alone, [["yes"], ["no"]]), (several, [["yes", "no"], []])):
        dataset.to_parquet(tmp_path / "t.parquet")
        for source in (dataset, tmp_path / "t.parquet"):
            data = load_files(source)["train"]
            assert label_sets_of(data) == expected
            assert data.features["labels"].feature.names == ["no", "yes", "perhaps"]


def test_columns_of_class_labels_that_say_yes_and_no_are_read_by_their_names():
    kinds = {"text": Value("string"), "x": ClassLabel(names=["yes", "no"]), "y": ClassLabel(names=["clean", "dirty"])}
    data = Dataset.from_dict({"text": ["a", "b"], "x": [0, 1], "y": [0, 1]}, Features(kinds))
    assert label_sets_of(load_files(data, labels_columns="*")["train"]) == [["x"], ["y"]]


def test_arrays_tuples_and_sets_in_a_frame_are_lists(tmp_path):
    for labels in (np.array(["x", "y"]), ("x", "y"), {"x", "y"}):
        data = load_files(pd.DataFrame({"text": ["a"], "labels": [labels]}))["train"]
        assert label_sets_of(data) == [["x", "y"]]
    data = load_files(pd.DataFrame({"text": ["a"], "labels": [np.array([1, 0])]}), multi_hot_names=["x", "y"])["train"]
    assert label_sets_of(data) == [["x"]]
