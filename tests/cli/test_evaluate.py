"""`sgm-hf evaluate`."""

import json
import shutil

import pytest
from test_train import TINY, read_lines, write_csv

from sgm_hf.cli import evaluate, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a model and its training file, in which the commands are run."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main(["--train_file", write_csv(folder / "my.csv", 60), "--num_train_epochs", "2", *TINY])
    return folder


@pytest.fixture(autouse=True)
def in_folder(trained, monkeypatch):
    monkeypatch.chdir(trained)


def test_training_goes_into_a_folder_named_after_the_file_and_says_what_comes_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train.main(["--train_file", write_csv(tmp_path / "news items.csv", 20), "--num_train_epochs", "1", *TINY])
    assert (tmp_path / "runs" / "news items" / "model.safetensors").is_file()
    assert capsys.readouterr().out.endswith("\n  sgm-hf predict 'runs/news items' new.csv\n")


def test_a_model_is_measured_on_a_test_file_as_training_measures_it(trained, capsys):
    test_file = write_csv(trained / "test.csv", 20, seed=1)
    metrics = evaluate.main(["runs/my", "--test_file", test_file])
    assert set(metrics) == {"test"}
    again = train.main(
        ["--model_name_or_path", "runs/my", "--test_file", test_file, "--do_predict", "--output_dir", "again"]
    )
    assert metrics["test"]["micro_f1"] == again["test"]["micro_f1"]
    assert len(read_lines("runs/my_on_test/predictions_test.jsonl")) == 20
    results = json.loads((trained / "runs" / "my_on_test" / "all_results.json").read_text())
    assert results["test_micro_f1"] == metrics["test"]["micro_f1"]
    assert "sgm-hf predict" not in capsys.readouterr().out


def test_the_part_of_the_training_file_is_the_one_that_training_validated_on(trained):
    metrics = evaluate.main(["runs/my", "--train_file", "my.csv", "--output_dir", "part"])
    trained_with = json.loads((trained / "runs" / "my" / "all_results.json").read_text())
    assert metrics["validation"]["micro_f1"] == trained_with["validation_micro_f1"]


def test_documents_without_labels_are_not_evaluated(trained):
    (trained / "new.csv").write_text("text\nball goal\n")
    with (
        pytest.warns(UserWarning, match="no column 'labels'"),
        pytest.raises(ValueError, match="sgm-hf predict runs/my"),
    ):
        evaluate.main(["runs/my", "--test_file", "new.csv"])
    assert not (trained / "runs" / "my_on_new" / "all_results.json").exists()


def test_evaluation_trains_nothing_and_needs_a_model(trained):
    with pytest.raises(ValueError, match="trains nothing"):
        evaluate.main(["runs/my", "--train_file", "my.csv", "--do_train", "true"])
    with pytest.raises(ValueError, match="there is no model to evaluate"):
        evaluate.main(["--test_file", "my.csv"])


def test_a_folder_that_is_misspelt_is_refused_at_once_with_those_there_are(trained, monkeypatch):
    monkeypatch.setattr("sgm_hf.programs.models.SGMForMultiLabelGeneration.from_pretrained", pytest.fail)
    with pytest.raises(FileNotFoundError, match=r"no model runs/mine: the models in runs are my\. A model of the Hub"):
        evaluate.main(["runs/mine", "--test_file", "my.csv"])


def test_a_model_of_the_hub_that_is_in_the_cache_is_taken_next_to_a_folder_of_its_users_name(trained, monkeypatch):
    asked = []
    monkeypatch.setattr("sgm_hf.programs.models.try_to_load_from_cache", lambda *name: asked.append(name) or "here")
    with pytest.raises(FileNotFoundError, match="neither a folder with a model"):
        evaluate.main(["runs/mine", "--test_file", "my.csv"])
    assert asked == [("runs/mine", "config.json")]
    shutil.rmtree(trained / "runs" / "mine_on_my", ignore_errors=True)
