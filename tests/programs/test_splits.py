import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from sgm_hf.data import load_files
from sgm_hf.programs.options import parse_arguments
from sgm_hf.programs.settings import DataArguments
from sgm_hf.programs.splits import arrange_splits, load_splits, split_off


def test_a_split_takes_what_is_asked_and_leaves_the_rest_in_order():
    data = Dataset.from_dict({"text": [str(row) for row in range(40)]})
    rest, part = split_off(data, 0.25, seed=0, name="validation_split_size")
    assert (len(rest), len(part)) == (30, 10)
    assert sorted([*rest["text"], *part["text"]], key=int) == data["text"][:]
    assert rest["text"][:] == sorted(rest["text"], key=int)
    assert split_off(data, 7, seed=0, name="x")[1]["text"][:] != split_off(data, 7, 1, "x")[1]["text"][:]
    for size in (40, 0, -1):
        with pytest.raises(ValueError, match=f"--validation_split_size {size} takes"):
            split_off(data, size, seed=0, name="validation_split_size")


def test_cuts_and_splits_that_are_not_made_are_warned_of(caplog):
    data = Dataset.from_dict({"text": ["a", "b", "c"]})
    arguments = DataArguments(validation_split_size=0.5, max_predict_samples=2, max_train_samples=2)
    arranged = arrange_splits({"train": data, "validation": data}, arguments)
    assert len(arranged["train"]) == 2
    assert "--validation_split_size has no effect" in caplog.text and "no test split" in caplog.text


def test_a_delimiter_and_an_id_column_of_the_users_own_are_read(tmp_path):
    (tmp_path / "test.csv").write_text("name;text\none;ball, goal\n")
    _, arguments, _ = parse_arguments(
        ["--test_file", str(tmp_path / "test.csv"), "--delimiter", ";", "--id_column", "name"]
    )
    with pytest.warns(UserWarning, match="no column 'labels'"):
        splits = load_splits(arguments, ["sport"])
    assert splits["test"][:] == {"id": ["one"], "text": ["ball, goal"]}


def saved(folder, **splits):
    """A data set as `save_to_disk` writes it, with a text and labels for each document."""
    columns = {name: {"text": ["a", "b"], "labels": [["x"], labels]} for name, labels in splits.items()}
    DatasetDict({name: Dataset.from_dict(rows) for name, rows in columns.items()}).save_to_disk(folder)
    return DataArguments(dataset_name=str(folder))


def test_a_saved_data_set_is_read_with_its_splits_under_our_names(tmp_path, caplog):
    splits = load_splits(saved(tmp_path / "data", train=["y"], dev=[], unlabelled=["x"]), None)
    assert set(splits) == {"train", "validation"} and splits["train"]["labels"][:] == [[0], [1]]
    assert "of the splits train, dev, unlabelled" in caplog.text
    Dataset.from_dict({"text": ["a"], "labels": ["x|y"]}).save_to_disk(tmp_path / "alone")
    assert set(load_splits(DataArguments(dataset_name=str(tmp_path / "alone")), None)) == {"train"}


def test_a_data_set_that_cannot_be_read_is_an_error_of_one_line_with_the_remedy(tmp_path):
    cases = {
        "reuter21578": (FileNotFoundError, "did you mean reuters21578[?] Named corpora are aapd, "),
        str(tmp_path / "absent"): (FileNotFoundError, "is neither a named corpus nor a folder of data files nor"),
    }
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.jsonl").write_text('{"text": "a"\n')
    cases[str(tmp_path / "broken")] = (ValueError, "cannot be read .*--dataset_config, --dataset_revision and --data_")
    for name, (kind, message) in cases.items():
        with pytest.raises(kind, match=message) as caught:
            load_splits(DataArguments(dataset_name=name), None)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="has the splits other: expected train, validation or test.*--train_file"):
        load_splits(saved(tmp_path / "other", other=[]), None)
    with pytest.raises(ValueError, match="the data set 'train' has no column 'body'; its columns are 'text', "):
        data_args = saved(tmp_path / "columns", train=[])
        data_args.text_column = "body"
        load_splits(data_args, None)


def test_a_stratified_split_has_the_same_sizes_and_is_asked_for_by_name():
    rows = {"text": list("abcdefghij"), "labels": [["x"]] * 5 + [["y"]] * 5}
    splits = load_files(pd.DataFrame(rows))
    for method, counts in (("stratified", {"x": 2, "y": 2}), ("random", None)):
        arranged = arrange_splits(dict(splits), DataArguments(validation_split_size=4, split_method=method))
        assert (len(arranged["train"]), len(arranged["validation"])) == (6, 4)
        labels = [splits["train"].features["labels"].feature.names[i] for (i,) in arranged["validation"]["labels"]]
        assert counts is None or {name: labels.count(name) for name in "xy"} == counts


def test_long_training_documents_are_left_out_before_the_splits_and_counted(caplog):
    texts = ["a b c d", "a\tb\nc", "a", "a b  c d e", "b c", "", None]
    splits = {"train": Dataset.from_dict({"text": texts}), "test": Dataset.from_dict({"text": ["a b c d"]})}
    caplog.set_level("INFO")
    arranged = arrange_splits(splits, DataArguments(max_train_words=3, validation_split_size=2))
    assert sorted(map(str, [*arranged["train"]["text"], *arranged["validation"]["text"]])) == [
        *("", "None", "a", "a\tb\nc", "b c"),
    ]
    assert arranged["test"]["text"][:] == ["a b c d"]
    assert "--max_train_words 3: 2 of 7 training documents have more words and are left out" in caplog.text
    only_test = arrange_splits({"test": splits["test"]}, DataArguments(max_train_words=3))
    assert {split: dataset["text"][:] for split, dataset in only_test.items()} == {"test": ["a b c d"]}
    with pytest.raises(ValueError, match="--max_train_words 1 leaves out all 2 training documents"):
        arrange_splits({"train": Dataset.from_dict({"text": ["a b", "c d"]})}, DataArguments(max_train_words=1))
