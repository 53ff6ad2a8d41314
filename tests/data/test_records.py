"""JSON lists, DataFrames and data sets as records, and the place that errors about them name."""

import gzip
import json

import pandas as pd
import pytest
from datasets import Dataset

from sgm_hf.data import Layout, iterate_documents, label_sets_of, load_files

OBJECTS = [{"text": "a\u2028b", "labels": ["x", "y"]}, {"text": "c", "labels": []}, {"text": "d", "labels": ["y"]}]


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("before", ["", "\n \n", "\ufeff"])
def test_a_json_list_is_read_as_its_lines_are(tmp_path, name, indent, before):
    content = (before + json.dumps(OBJECTS, indent=indent, ensure_ascii=False)).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(item) + "\n" for item in OBJECTS))
    data, lines = load_files(tmp_path / name)["train"], load_files(tmp_path / "t.jsonl")["train"]
    assert data.features == lines.features and data["text"][:] == lines["text"][:]
    assert data["labels"][:] == lines["labels"][:] and data["id"][:] == [f"{name}:{i}" for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "t.json holds no documents"),
        (
            '[{"text": "a", "labels": "x"},\n {"text": "b" "labels": []}]',
            "t.json, line 2: not valid JSON .*character",
        ),
        ('[{"text": "a", "labels": ["x"]}', "t.json, line 1: not valid JSON"),
        ('[{"text": "a", "labels": ["x"]}, 3]', "t.json, item 2: a JSON int. Expected a list of objects"),
        ('[{"text": "a", "labels": ["x"]}, {"text": 5}]', "t.json, item 2: expected a text in 'text', got int 5"),
        ('[{"text": "a", "text": "b"}]', "t.json, item 1: not valid JSON .the key 'text' is given 2 times"),
        ('[{"text": "\\ud83d", "labels": ["x"]}]', "t.json, item 1: not valid JSON .*surrogates"),
        ('[{"text": "a", "labels": "x"},\n]', "t.json, line 2: not valid JSON .Expecting value at character 1."),
        ('[{"text": "a", "labels": "x"}\n] 3', "t.json, line 2: not valid JSON .something follows the list at .* 3"),
        ('[{"text": "a", "labels": "x"}\n{}]', "t.json, line 2: not valid JSON .a comma or the end .* is missing"),
        ("[" * 100_000, "t.json, item 1: nested too deeply"),
    ],
)
def test_a_fault_of_a_json_list_is_named_with_its_place(tmp_path, content, message):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_files(tmp_path / "t.json")


def test_frames_and_data_sets_are_read_as_files_are(tmp_path):
    frame = pd.DataFrame([{"id": f"d{i}", **item} for i, item in enumerate(OBJECTS)], index=[7, 7, 3])
    frame.to_parquet(tmp_path / "t.parquet")
    expected = load_files(tmp_path / "t.parquet", tmp_path / "t.parquet")
    for source in (frame, Dataset.from_pandas(frame, preserve_index=False)):
        data = load_files(source, source)
        for split in ("train", "validation"):
            assert data[split].features == expected[split].features and data[split][:] == expected[split][:]


def test_a_fault_of_a_frame_or_data_set_is_named_with_its_index(tmp_path):
    rows = {"text": ["a"] * 1500 + ["b"], "labels": [["x"]] * 1500 + [[""]]}
    for source, place in (
        (pd.DataFrame(rows), r"the DataFrame 'train', iloc 1500: "),
        (Dataset.from_dict(rows), r"the data set 'train', index 1500: "),
    ):
        with pytest.raises(ValueError, match=place + "expected a list of label names in 'labels', but '' is not one"):
            load_files(source)
    with pytest.raises(ValueError, match="the DataFrame 'train' has no column 'body'; its columns are 'text'"):
        load_files(pd.DataFrame(rows), text_column="body")
    with pytest.raises(ValueError, match="the DataFrame 'train' holds no documents"):
        load_files(pd.DataFrame({"text": [], "labels": []}))


def test_rows_without_an_id_are_named_after_their_split_and_index(tmp_path):
    frame = pd.DataFrame({"text": ["a", "b"], "labels": ["x", "x"]}, index=[5, 5])
    assert load_files(frame, frame)["validation"]["id"][:] == ["validation:0", "validation:1"]
    assert [document.id for document in iterate_documents(frame)] == ["data:0", "data:1"]


def test_columns_of_a_frame_may_be_numbers(tmp_path):
    frame = pd.DataFrame([["a", 1, 0], ["b", 0, 1]])
    data = load_files(frame, text_column="0", labels_columns="*")["train"]
    assert label_sets_of(data) == [["1"], ["2"]]
    documents = list(iterate_documents(frame, Layout(text_column="0"), labels="ignored"))
    assert [document.text for document in documents] == ["a", "b"]
