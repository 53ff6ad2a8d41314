import pytest
from datasets import Dataset

from sgm_hf.programs.settings import DataArguments, parse_arguments
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
