import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from test_train import metrics_of, read_lines, write_csv

from sgm_hf.baselines import Baseline
from sgm_hf.baselines.classification import ClassificationTrainer
from sgm_hf.baselines.linear import BinaryRelevanceSVM
from sgm_hf.cli.baseline import main
from sgm_hf.programs import BaselineArguments, baseline, parse_baseline_arguments
from sgm_hf.programs.baseline import Tried, Tuning, settings_to_try

GRID = ["--grid", '{"bigram_weight": [0, 0.5], "min_df": 1, "cost": [0.001, 1]}']


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline")
    train, test = write_csv(folder / "train.csv", 120), write_csv(folder / "test.csv", 30, seed=2)
    return ["--train_file", train, "--test_file", test]


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """They take a second each; that of `run`, which is made before, has them."""
    monkeypatch.setattr(baseline, "draw_reliability", lambda *arguments: None)


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "svm"
    metrics = main(["br_svm", *files, *GRID, "--output_dir", str(folder)])
    return folder, metrics


def test_the_files_of_results_are_those_of_a_training(run):
    folder, metrics = run
    names = {path.name for path in folder.iterdir()}
    expected = {"all_results.json", "summary.json", "summary.txt", "tuning.json", "baseline.json"}
    expected |= {"features.safetensors", "weights.safetensors", "tokenizer.json", "tokenizer_config.json"}
    for split in ("validation", "test"):
        expected |= {f"predictions_{split}.jsonl", f"reliability_{split}.png", f"reliability_{split}.svg"}
    assert names == expected
    lines = read_lines(folder / "predictions_test.jsonl")
    fields = ["id", "labels", "scores", "gold", "best_sequence", "threshold", "expected_f1"]
    assert len(lines) == 30 and all(list(line) == fields for line in lines)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metrics"] == metrics and set(metrics) == {"validation", "test"}
    for field in ("best_sequence", "threshold", "expected_f1"):
        assert metrics["test"][f"{field}_micro_f1"] == pytest.approx(metrics_of(lines, field)["micro_f1"])
    assert metrics["test"]["micro_f1"] == pytest.approx(metrics_of(lines, "labels")["micro_f1"])
    assert metrics["test"]["micro_f1"] > 0.8 and {"ece", "nll", "brier"} <= set(metrics["test"])
    flat = json.loads((folder / "all_results.json").read_text())
    assert flat["test_micro_f1"] == metrics["test"]["micro_f1"] and flat["train_seconds"] > 0
    assert summary["data"] == {
        "name": summary["settings"]["train_file"],
        **{"train_documents": 108, "validation_documents": 12, "test_documents": 30},
    }
    assert summary["settings"]["seed"] == 42 and summary["versions"]["scikit-learn"]


def test_the_rows_of_results_csv_are_made_of_a_run(run, monkeypatch):
    path = Path(__file__).parents[2] / "benchmarks" / "results.py"
    specification = importlib.util.spec_from_file_location("results_of_runs", path)
    results = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(results)
    threshold = json.loads((run[0] / "summary.json").read_text())["generation"]["label_threshold"]
    if isinstance(threshold, list):
        pytest.skip("a threshold for each label has no column")
    rows = results.rows_of_run(run[0], "br_svm")
    assert {(row["split"], row["set_decoding"]) for row in rows} >= {("test", "threshold"), ("test", "best_sequence")}


def test_the_best_setting_is_kept_and_loads_as_it_was_measured(run):
    folder, metrics = run
    tried = json.loads((folder / "tuning.json").read_text())["tried"]
    assert [one["settings"] for one in tried] == [
        {"bigram_weight": weight, "min_df": 1, "cost": cost} for weight in (0, 0.5) for cost in (0.001, 1)
    ]
    assert all(one["metric"] == "micro_f1" and one["seconds"] > 0 for one in tried)
    loaded = Baseline.load(folder)
    best = max(tried, key=lambda one: one["value"])
    assert loaded.settings == {**best["settings"], "sublinear_tf": True, "seed": 42}
    lines = read_lines(folder / "predictions_test.jsonl")
    with open(json.loads((folder / "summary.json").read_text())["settings"]["test_file"], newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert loaded.predict_labels(texts) == [line["labels"] for line in lines]
    predicted = loaded.predict(texts[:1])
    names = list(loaded.label_names)
    scores = [round(float(predicted.label_scores[0, names.index(label)]), 6) for label in lines[0]["labels"]]
    assert scores == lines[0]["scores"] == sorted(scores, reverse=True)


def test_a_search_that_was_killed_in_its_first_setting_goes_on_from_its_checkpoints(files, tmp_path, monkeypatch):
    folders, out = [], tmp_path / "out"

    def checkpoint_and_die(self, *documents):
        folders.append(Path(self.checkpoint_folder))
        folders[-1].mkdir(exist_ok=True)
        raise KeyboardInterrupt

    command = ["br_svm", *files, *GRID, "--output_dir", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(BinaryRelevanceSVM, "fit_documents", checkpoint_and_die)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                main(command)
    assert folders[0] == folders[1] and folders[0].is_dir() and folders[0].parent == out
    main(command)
    assert not list(out.glob("_*"))


def test_a_search_that_was_killed_goes_on_to_the_same_result(run, files, tmp_path, monkeypatch):
    folder, metrics = run
    fit, fitted = BinaryRelevanceSVM.fit_documents, []

    def fit_until_killed(self, *documents):
        fitted.append(self.settings)
        if len(fitted) == 3:
            raise KeyboardInterrupt
        fit(self, *documents)

    command = ["br_svm", *files, *GRID, "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(BinaryRelevanceSVM, "fit_documents", fit_until_killed)
    with pytest.raises(KeyboardInterrupt):
        main(command)
    assert len(json.loads((tmp_path / "out" / "tuning.json").read_text())["tried"]) == 2
    assert not (tmp_path / "out" / "summary.json").exists()
    again = main(command)
    assert len(fitted) == 5 and fitted[3] == fitted[2]  # the third once more, and the fourth
    for split, values in metrics.items():
        timeless = {name: value for name, value in values.items() if name not in ("runtime", "documents_per_second")}
        assert timeless == {name: again[split][name] for name in timeless}
    assert (tmp_path / "out" / "predictions_test.jsonl").read_text() == (folder / "predictions_test.jsonl").read_text()
    # A third time nothing is fitted; nor where the kill came before the best was saved.
    assert main(command)["test"]["micro_f1"] == metrics["test"]["micro_f1"] and len(fitted) == 5
    (tmp_path / "out" / "baseline.json").unlink()
    assert main(command)["test"]["micro_f1"] == metrics["test"]["micro_f1"] and len(fitted) == 6


@pytest.mark.parametrize(
    ("change", "name"),
    [(["--split_seed", "1"], "train"), (["--seed", "1"], "seed"), (["--objective", "exact_match"], "objective")],
)
def test_settings_tried_on_other_documents_are_refused(run, files, change, name):
    with pytest.raises(ValueError, match=rf"tuning.json has settings that were tried otherwise \(.*{name}: "):
        main(["br_svm", *files, *GRID, "--output_dir", str(run[0]), *change])
    assert Baseline.load(run[0]).settings["seed"] == 42


def test_another_baseline_or_a_folder_of_something_else_is_refused(run, files, tmp_path):
    with pytest.raises(ValueError, match="baseline: br_svm → cc"):
        main(["cc", *files, "--output_dir", str(run[0])])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        main(["br_svm", *files, "--output_dir", str(tmp_path)])


def test_without_training_the_baseline_of_the_folder_is_evaluated(run, files, monkeypatch):
    folder, metrics = run
    monkeypatch.setattr(BinaryRelevanceSVM, "fit_documents", None)
    options = ["--output_dir", str(folder), "--do_train", "false", "--do_eval", "false"]
    again = main(["br_svm", "--test_file", files[3], *options])
    assert list(again) == ["test"]
    assert again["test"]["micro_f1"] == metrics["test"]["micro_f1"]


@pytest.mark.parametrize("name", ["br_logistic", "cc", "lp", "pcc", "ecc", "plt"])
def test_every_baseline_of_words_runs_and_learns(name, files, tmp_path):
    options = ["--grid", '{"bigram_weight": 0, "min_df": 1, "cost": 10}', "--output_dir", str(tmp_path / "out")]
    metrics = main([name, *files, *options, "--threshold_split_size", "20"])
    assert metrics["test"]["micro_f1"] > 0.8
    assert "held_out" in json.loads((tmp_path / "out" / "tuning.json").read_text())["made_with"]


def test_with_a_threshold_split_the_validation_documents_only_measure(files, tmp_path):
    options = [*files, *GRID, "--threshold_split_size", "20"]
    first = main(["br_svm", *options, "--output_dir", str(tmp_path / "first")])
    assert len(read_lines(tmp_path / "first" / "predictions_validation.jsonl")) == 12
    second = main(["br_svm", *options, "--output_dir", str(tmp_path / "second"), "--max_eval_samples", "5"])
    assert first["test"]["micro_f1"] == second["test"]["micro_f1"]
    tried = [json.loads((tmp_path / name / "tuning.json").read_text())["tried"] for name in ("first", "second")]
    assert [one["value"] for one in tried[0]] == [one["value"] for one in tried[1]]
    # Without it they do choose.
    with pytest.raises(ValueError, match="held_out: "):
        main(["br_svm", *options[:-2], "--output_dir", str(tmp_path / "first")])


def test_unknown_labels_of_test_documents_count_as_missed(files, tmp_path):
    test = tmp_path / "test.csv"
    test.write_text("text,labels\nball goal team,sport|unheard\n", encoding="utf-8")
    options = ["--grid", '{"bigram_weight": 0, "min_df": 1, "cost": 10}', "--output_dir", str(tmp_path / "out")]
    metrics = main(["br_svm", *files[:2], "--test_file", str(test), *options, "--unknown_labels", "count"])
    assert metrics["test"]["best_sequence_micro_recall"] == 0.5
    assert metrics["test"]["best_sequence_zero_one_loss"] == 1


def test_settings_come_from_a_file_and_options_override_them(tmp_path):
    (tmp_path / "my.json").write_text(json.dumps({"train_file": "a.csv", "seed": 3, "grid": {"cost": [1, 2]}}))
    name, data, own = parse_baseline_arguments(["lp", str(tmp_path / "my.json"), "--seed", "5"], "usage")
    assert (name, data.train_file, own.seed, own.grid) == ("lp", "a.csv", 5, {"cost": [1, 2]})
    assert own.output_dir == str(Path("runs", "a_lp"))
    assert parse_baseline_arguments(["lp"], "usage")[2].output_dir == str(Path("runs", "generated_lp"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no baseline is named; give one of br_svm, "),
        (["svm"], "there is no baseline 'svm'; give one of br_svm, "),
        (["br_svm", "--output_fold", "x"], "did you mean --output_dir"),
        (["br_svm", "--objective", "f1"], "objective"),
        (["br_svm", "--grid", "{cost: 1}"], "--grid is not JSON"),
        (["br_svm", "--grid", "[1]"], r"--grid is \[1\]; expected settings"),
        (["br_svm", "--grid", '{"costs": 1}'], "--grid has 'costs'; the settings of br_svm are cost, bigram_weight"),
        (["br_svm", "--grid", '{"seed": 1}'], "--grid has 'seed'"),
        (["br_svm", "--grid", '{"cost": ["a"]}'], "--grid has 'a' for cost; expected one like its default, 1.0"),
        (["br_svm", "--grid", '{"cost": true}'], "--grid has True for cost"),
        (["br_svm", "--grid", '{"min_df": 1.5}'], "--grid has 1.5 for min_df"),
        (["br_svm", "--grid", '{"cost": []}'], "--grid has no value for cost"),
        (["br_svm", "--grid", '{"cost": [-1]}'], "cost is -1"),
        (["br_svm", "--dataset_name", "aapd", "--train_file", "a.csv"], "give either --dataset_name"),
        (["br_svm", "--test_file", "a.csv"], "--do_train needs --train_file"),
        (["br_svm", "--train_file", "a.csv", "--max_train_samples", "0"], "--max_train_samples is 0"),
    ],
)
def test_a_slip_is_refused_before_anything_is_read(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baseline, "load_splits", None)
    with pytest.raises(ValueError, match=message):
        main(arguments)
    assert list(tmp_path.iterdir()) == []


def test_options_without_effect_are_named(tmp_path, files, caplog):
    baseline.check_run(
        parse_baseline_arguments(["lp", *files, "--vocab_size", "9", "--max_length", "9"], "usage")[1],
        BaselineArguments(output_dir=str(tmp_path)),
    )
    assert "--vocab_size, --max_length: no effect on a baseline" in caplog.text


def test_the_settings_of_a_grid_are_all_combinations_with_the_last_varying_fastest():
    grid = {"cost": [1, 2], "min_df": 5}
    found = settings_to_try(BinaryRelevanceSVM, grid)
    expected = [{"bigram_weight": weight, "min_df": 5, "cost": cost} for weight in (0.0, 0.5, 1.0) for cost in (1, 2)]
    assert found == expected
    assert len(settings_to_try(BinaryRelevanceSVM, None)) == np.prod(
        [len(v) for v in BinaryRelevanceSVM.grid.values()]
    )


def test_of_losses_the_least_is_best_and_of_settings_alike_the_first(tmp_path):
    tuning = Tuning(tmp_path, {"seed": 1})
    for cost, value in ((1, 0.3), (2, 0.2), (3, 0.2)):
        tuning.add(Tried({"cost": cost}, value, "zero_one_loss", 1.0))
    settings = [{"cost": cost} for cost in (1, 2, 3, 4)]
    assert tuning.best(settings).settings == {"cost": 2}
    assert tuning.best(settings[:1]).settings == {"cost": 1} and tuning.best(settings[3:]) is None
    assert Tuning(tmp_path, {"seed": 1}).tried == tuning.tried
    (tmp_path / "tuning.json").write_text("{")
    with pytest.raises(ValueError, match="tuning.json is damaged"):
        Tuning(tmp_path, {"seed": 1})


def test_a_network_that_was_killed_goes_on_from_its_last_epoch(files, tmp_path, monkeypatch):
    folder, evaluated = tmp_path / "cnn", []
    evaluate = ClassificationTrainer.evaluate

    def killed_at_the_third(self, *arguments, **keywords):
        evaluated.append(self.state.epoch)
        if len(evaluated) == 3:
            raise RuntimeError("killed")
        return evaluate(self, *arguments, **keywords)

    monkeypatch.setattr(ClassificationTrainer, "evaluate", killed_at_the_third)
    grid = {"dropout": 0.1, "learning_rate": 0.02, "embedding_size": 12, "feature_maps": 8, "widths": [[2, 3]]}
    command = ["cnn", *files, "--grid", json.dumps(grid | {"num_train_epochs": 5, "precision": "fp32"})]
    with pytest.raises(RuntimeError, match="killed"):
        main([*command, "--output_dir", str(folder)])
    metrics = main([*command, "--output_dir", str(folder)])
    assert evaluated == [1, 2, 3, 3, 4, 5]
    assert metrics["test"]["micro_f1"] > 0.8
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["model"]["widths"] == [2, 3] and summary["settings"]["precision"] == "fp32"
    assert 1 <= summary["training"]["best_epoch"] <= 5
    assert not [path.name for path in folder.iterdir() if path.is_dir()]  # no checkpoint is left


def test_the_example_is_the_command(monkeypatch, capsys):
    path = Path(__file__).parents[2] / "examples" / "run_baseline.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as ended:
        exec(compile(path.read_text(), str(path), "exec"), {"__name__": "__main__"})
    assert ended.value.code in (0, None) and "sgm-hf baseline NAME" in capsys.readouterr().out
