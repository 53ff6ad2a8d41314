import dataclasses
import json
import os
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_training import make_documents, make_model

from sgm_hf.training import SamplingArguments, SGMTrainer
from sgm_hf.training.summary import (
    GENERATION_FIELDS,
    TRAINING_FIELDS,
    describe_generation,
    describe_machine,
    describe_model,
    describe_training,
    epoch_history,
    package_versions,
    summary_text,
    write_summary,
)


def test_history_joins_each_evaluation_with_the_losses_since_the_one_before():
    log = [
        {"loss": 2.0, "step": 1},
        {"loss": 1.0, "step": 2},
        {"eval_micro_f1": 0.5, "step": 2, "epoch": 1.0},
        {"eval_micro_f1": 0.6, "step": 4, "epoch": 2.0},
        {"train_loss": 1.5, "step": 4},
    ]
    history = epoch_history(log)
    assert [(record["epoch"], record["loss"], record["eval_micro_f1"]) for record in history] == [
        (1.0, 1.5, 0.5),
        (2.0, None, 0.6),
    ]


def test_the_loss_of_an_epoch_is_the_mean_of_its_updates_however_often_it_is_logged():
    log = [{"loss": 4.0, "step": 1}, {"loss": 1.0, "step": 5}, {"eval_micro_f1": 0.5, "step": 5, "epoch": 1.0}]
    log += [{"loss": 1.0, "step": 8}, {"loss": 3.0, "step": 10}, {"eval_micro_f1": 0.5, "step": 10, "epoch": 2.0}]
    assert [record["loss"] for record in epoch_history(log)] == [(4 + 4 * 1) / 5, (3 * 1 + 2 * 3) / 5]


def test_a_training_is_described_with_its_best_epoch(arguments):
    trainer = SGMTrainer(make_model(), arguments(num_train_epochs=3), make_documents(24), make_documents(12, seed=1))
    metrics = trainer.train().metrics
    training = describe_training(trainer.state, metrics)
    history = epoch_history(trainer.state.log_history)
    assert [record["epoch"] for record in history] == [1.0, 2.0, 3.0]
    assert all(record["loss"] > 0 for record in history)
    best = max(history, key=lambda record: record["eval_micro_f1"])
    assert (training["best_epoch"], training["best_metric"]) == (best["epoch"], best["eval_micro_f1"])
    assert 0 < training["evaluation_seconds"] < training["seconds"]
    spent = training["seconds"] - training["evaluation_seconds"]
    assert abs(training["documents_per_second"] * spent - 3 * 24) < 2


def test_no_training_is_described_by_nothing():
    assert describe_training(None, {}) == {}


def test_both_files_hold_every_section(tmp_path):
    summary = {
        "model": describe_model(make_model()),
        "machine": describe_machine(),
        "versions": package_versions(),
        "metrics": {
            "test": {"best_sequence_micro_f1": 0.25, "threshold_micro_f1": 0.75, "expected_f1_micro_f1": 0.625}
        },
        "history": [{"epoch": 1.0, "step": 3, "loss": 0.125, "eval_micro_f1": 0.5}],
        "training": {},
    }
    write_summary(summary, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["metrics"] == summary["metrics"]
    text = (tmp_path / "summary.txt").read_text()
    assert text == summary_text(summary)
    for shown in (
        "metrics, test",
        "0.25",
        "0.75",
        "0.625",
        "expected_f1",
        "0.125",
        "transformers",
        "parameters",
        "cpu",
    ):
        assert shown in text
    assert "training" not in text  # an empty section is left out


def test_a_losss_mean_counts_each_update_once():
    log = [
        {"loss": 4.0, "step": 1},
        {"loss": 1.0, "step": 4},
        {"eval_micro_f1": 0.5, "step": 4, "epoch": 1.0},
        {"loss": 3.0, "step": 6},
        {"eval_micro_f1": 0.6, "step": 6},
    ]
    history = epoch_history(log)
    assert [record["loss"] for record in history] == [(4.0 + 3 * 1.0) / 4, 3.0]
    assert [(record["epoch"], record["step"]) for record in history] == [(1.0, 4), (None, 6)]


def test_a_training_without_a_best_epoch_is_described_without_it():
    state = SimpleNamespace(log_history=[], best_global_step=None, global_step=3, epoch=1.5, best_metric=None)
    metrics = {
        "train_runtime": 9.0,
        "train_evaluation_seconds": 2.0,
        "train_documents_per_second": 5.0,
        "train_loss": 0.5,
    }
    assert describe_training(state, metrics) == {
        "seconds": 9.0,
        "evaluation_seconds": 2.0,
        "documents_per_second": 5.0,
        "updates": 3,
        "epochs": 1.5,
        "best_epoch": None,
        "best_metric": None,
        "loss": 0.5,
    }


def test_a_model_is_described_by_its_labels_its_own_fields_and_its_parameters():
    model = make_model()
    description = describe_model(model)
    assert list(description)[0] == "labels" and list(description)[-1] == "parameters"
    assert description["labels"] == 4 and description["embedding_size"] == 12 and description["dropout"] == 0.1
    assert description["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    model.generation_config.num_beams, model.generation_config.label_threshold = 7, 0.25
    generation = describe_generation(model)
    assert (generation["num_beams"], generation["label_threshold"]) == (7, 0.25)
    assert generation["set_decoding"] == "best_sequence"


def test_what_was_fitted_is_described_where_there_is_some():
    model = make_model()
    assert "objective" not in describe_generation(model) and "lexical_weight" not in describe_generation(model)
    settings = model.generation_config
    settings.objective, settings.lexical_weight, settings.label_calibration = "macro_f1", 1.5, [0.9, -0.25]
    settings.label_threshold = [0.125, 0.5, 0.25, 0.75, 0.375, 0.625, 0.3]
    generation = describe_generation(model)
    assert generation["label_threshold"] == settings.label_threshold  # summary.json has all
    lines = summary_text({"generation": generation}).splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines[1:])
    assert shown["objective"] == "macro_f1" and shown["lexical_weight"] == "1.5"
    assert shown["label_calibration"] == "0.9 -0.25"
    assert shown["label_threshold"] == "0.125 to 0.75, median 0.375 (7)"


def test_a_summary_is_laid_out_in_columns():
    summary = {
        "model": {"labels": 4, "learning rate": 0.000123456, "name": None},
        "machine": {"cores": 2},
        "history": [{"epoch": 1.0, "step": 3, "loss": 0.125, "eval_micro_f1": 0.5}],
        "metrics_before": {"test": {"runtime": 2.0}},
        "metrics": {
            "test": {"best_sequence_micro_f1": 0.25, "threshold_micro_f1": 0.75, "micro_f1": 0.75, "ece": 0.0125}
        },
    }
    lines = summary_text(summary).split("\n")
    assert lines[:5] == ["model", "  labels         4", "  learning rate  0.00012346", "  name           -", ""]
    assert lines[5:8] == ["machine", "  cores  2", ""]
    del lines[5:8]
    assert lines[5] == "history"
    titles, values = (line.split("  ") for line in lines[6:8])
    assert [title.strip() for title in titles if title.strip()][:4] == ["epoch", "step", "loss", "eval loss"]
    assert [value.strip() for value in values if value.strip()][:4] == ["1", "3", "0.125", "-"]
    assert lines[6].endswith("         chosen F1") and lines[7].endswith("             0.5")
    assert lines[8:11] == ["", "metrics before, test", "  runtime                              2"]
    assert lines[11:13] == ["", "metrics, test"]
    assert lines[13].split()[:2] == ["best_sequence", "threshold"]
    assert lines[14].startswith("  micro_f1                          0.25            0.75")
    assert lines[15:] == ["", "  ece                             0.0125", ""]
    assert len(lines[13]) == len(lines[14]) and len(lines[16]) == len("  micro_f1                          0.25")


def test_the_machine_is_described(monkeypatch):
    machine = describe_machine()
    assert machine["threads"] == torch.get_num_threads() and machine["cores"] >= 1
    assert machine["python"] == platform.python_version() and machine["system"] == platform.platform()
    assert list(machine) == ["cpu", "cores", "threads", "accelerator", "system", "python"]
    information = Path("/proc/cpuinfo")
    if information.exists() and "model name" in information.read_text():
        assert f": {machine['cpu']}\n" in information.read_text()
    assert (
        package_versions()["torch"] == torch.__version__.split("+")[0]
        or package_versions()["torch"] == torch.__version__
    )


@pytest.mark.parametrize(("counted", "cores"), [(6, 6), (None, 1)])
def test_cores_are_counted_where_a_system_does_not_say_which_may_be_used(monkeypatch, counted, cores):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert describe_machine()["cores"] == cores


def test_each_setting_that_is_shown_exists():
    settings = {field.name for field in dataclasses.fields(SamplingArguments)}
    assert set(TRAINING_FIELDS) - settings == {"method"}  # of `sgm-hf finetune`
    assert all(hasattr(make_model().generation_config, name) for name in GENERATION_FIELDS[:3])


def test_a_run_without_anything_has_no_lines():
    assert summary_text({"training": {}, "metrics": {}}) == "\n"
