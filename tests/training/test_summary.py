import json

from tiny_training import make_documents, make_model

from sgm_hf.training import SGMTrainer
from sgm_hf.training.summary import (
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
