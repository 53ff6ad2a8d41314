import json
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from test_trainer import RecordLearningRates, StopAt, assert_equal_weights, weights
from tiny_training import make_documents, make_model
from transformers import TrainerCallback

from sgm_hf.modeling import SGMTokenizer
from sgm_hf.training import SamplingArguments, SelfCriticalTrainer, SGMTrainer
from sgm_hf.training.checkpoints import alone_in, begin_checkpoint, is_complete
from sgm_hf.training.interruption import Interrupted
from sgm_hf.training.resuming import set_learning_rate

WORDS = " ".join(f"w{letter}" for letter in "abcdefghijklmnopqrstuvwxyzäö")
LOSSES = ("loss", "grad_norm", "learning_rate", "step", "epoch")


class SignalAt(TrainerCallback):
    """Sends this process a signal in an update, or in the evaluation after it."""

    def __init__(self, update: int, number: int = signal.SIGINT, event: str = "on_step_begin"):
        self.update, self.number, self.event = update, number, event

    def send(self, event, state):
        if event == self.event and state.global_step == self.update:
            os.kill(os.getpid(), self.number)

    def on_step_begin(self, args, state, control, **keywords):
        self.send("on_step_begin", state)

    def on_evaluate(self, args, state, control, **keywords):
        self.send("on_evaluate", state)


def make_tokenizer(text=WORDS):
    return SGMTokenizer.train_from_texts([text], vocab_size=30)


@pytest.fixture
def trainer(arguments):
    """Makes trainers of one small training, with what differs."""

    def make(folder="run", callbacks=None, trainer_class=SGMTrainer, threshold=None, **settings):
        parts = {name: settings.pop(name) for name in ("data", "validation", "model", "tokenizer") if name in settings}
        return trainer_class(
            parts.get("model") or make_model(),
            arguments(
                folder, **({"num_train_epochs": 3, "logging_steps": 4, "load_best_model_at_end": False} | settings)
            ),
            parts.get("data") or make_documents(40),
            parts.get("validation") or make_documents(10, seed=1),
            threshold,
            processing_class=parts.get("tokenizer") or make_tokenizer(),
            callbacks=callbacks,
        )

    return make


def interrupt(trainer, update):
    """Train up to an update, from which there is a checkpoint then."""
    trainer.add_callback(SignalAt(update - 1))
    with pytest.raises(Interrupted):
        trainer.train()


@pytest.fixture
def stopped(trainer, tmp_path_factory):
    """A training in the folder "run" that was interrupted after 3 updates; it is made once."""
    kept = tmp_path_factory.getbasetemp() / "stopped"
    run = Path(trainer().args.output_dir)
    if not kept.exists():
        interrupt(trainer(), 3)
        shutil.copytree(run, kept)
    return Path(shutil.copytree(kept, run, dirs_exist_ok=True))


@pytest.fixture
def whole_weights(trainer, tmp_path_factory):
    """The weights after that training without interruption; they are made once."""
    kept = tmp_path_factory.getbasetemp() / "whole.pt"
    if not kept.exists():
        whole = trainer("whole")
        whole.train()
        torch.save(weights(whole.model), kept)
    return torch.load(kept)


def losses_of(trainer):
    """The logged losses of a training, and the metrics of its evaluations without times."""
    kept = []
    for record in trainer.state.log_history:
        if "loss" in record:
            kept.append({name: record[name] for name in LOSSES})
        elif "eval_micro_f1" in record:
            kept.append({n: v for n, v in record.items() if "runtime" not in n and "per_second" not in n})
    return kept


def renamed_labels(model):
    names = ["LABEL_1", "LABEL_0", "LABEL_2", "LABEL_3"]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: label for label, name in enumerate(names)}
    return model


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"data": make_documents(40, seed=5)}, r"training data: 40 documents, hash \w+ → 40 documents, hash"),
        ({"data": make_documents(41)}, "training data: 40 documents.* → 41 documents"),
        ({"validation": make_documents(10, seed=6)}, "validation data: 10 documents"),
        ({"threshold": make_documents(10, seed=6)}, "threshold data: none → 10 documents"),
        ({"tokenizer": make_tokenizer(WORDS.replace("wc", "x"))}, r"vocabulary: 30 words, hash \w+ → 30 words"),
        ({"model": renamed_labels(make_model())}, "labels: 2 of 4 differ, first label 0: 'LABEL_0' → 'LABEL_1'"),
        ({"model": make_model(dropout=0.2)}, "dropout: 0.1 → 0.2"),
        ({"seed": 8}, "seed: 7 → 8"),
        ({"max_tokens_per_batch": 100}, "max_tokens_per_batch: 16384 → 100"),
        ({"weight_decay": 0.1}, "weight_decay: 0.0 → 0.1"),
        ({"early_stopping_patience": 2}, "early_stopping_patience: None → 2"),
        ({"label_weights": "balanced"}, "label_weights: none → balanced"),
        ({"label_weights": {"LABEL_1": 2.0}}, "label_weights: none → {'LABEL_1': 2.0}"),
        ({"repeat_factor_threshold": 0.5}, "repeat_factor_threshold: None → 0.5"),
        ({"focal_gamma": 2.0}, "focal_gamma: 0.0 → 2.0"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps: 1 → 2"),
    ],
)
def test_resuming_another_training_is_refused_with_what_differs(trainer, stopped, change, difference):
    before = {path: path.read_bytes() for path in stopped.rglob("*.*") if path.is_file()}
    with pytest.raises(ValueError, match=f"cannot be resumed, because(.|\n)*  {difference}"):
        trainer(**change).train(resume_from_checkpoint=True)
    assert {path: path.read_bytes() for path in stopped.rglob("*.*") if path.is_file()} == before


def test_several_differences_are_all_named(trainer, stopped):
    model = make_model()
    model.freeze_encoder()
    model.generation_config.num_beams = 2
    with pytest.raises(ValueError) as error:
        trainer(model=model, halve_from_epoch=1).train(resume_from_checkpoint=True)
    for name in ("trained parameters: ", "num_beams: 5 → 2", "halve_from_epoch: None → 1"):
        assert f"\n  {name}" in str(error.value)


def test_what_does_not_decide_the_outcome_may_change(trainer, stopped, whole_weights):
    settings = {"logging_steps": 2, "save_total_limit": None, "per_device_eval_batch_size": 3, "report_to": "none"}
    resumed = trainer(**settings)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(whole_weights, weights(resumed.model))
    assert resumed.resumptions == [{"update": 3, "changed": {}}]
    steps = [record["step"] for record in resumed.state.log_history if "loss" in record]
    assert {4, 6, 8} <= set(steps)


def test_the_best_checkpoint_is_found_where_the_folder_was_moved_to(trainer, tmp_path):
    settings = {"learning_rate": 0.3, "per_device_train_batch_size": 4, "save_total_limit": None}
    settings["load_best_model_at_end"] = True
    whole = trainer("whole", **settings)
    whole.train()
    assert whole.state.best_global_step < whole.state.global_step
    shutil.move(tmp_path / "whole", tmp_path / "moved")
    moved = trainer("moved", **settings)
    moved.train(resume_from_checkpoint=True)
    assert Path(moved.state.best_model_checkpoint).parent.name == "moved"
    assert_equal_weights(weights(whole.model), weights(moved.model))


def test_a_resumed_training_takes_a_changed_learning_rate_and_says_so(trainer, caplog):
    settings = {"halve_from_epoch": 1, "optim": "sgd"}
    first = trainer(callbacks=[StopAt(7)], **settings)
    first.train()
    rates = RecordLearningRates()
    resumed = trainer(callbacks=[rates], **(settings | {"learning_rate": 2e-3}))
    resumed.train(resume_from_checkpoint=True)
    assert rates.rates == [1e-3] * 3 + [5e-4] * 5
    assert resumed.resumptions == [{"update": 7, "changed": {"learning_rate": [0.005, 0.002]}}]
    assert "learning_rate: 0.005 → 0.002, from update 7 on." in caplog.messages
    again = trainer(**(settings | {"learning_rate": 2e-3}))
    again.train(resume_from_checkpoint=True)
    assert again.resumptions == [*resumed.resumptions, {"update": 15, "changed": {}}]


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_a_changed_rate_is_in_optimizer_and_schedule_as_if_it_had_always_been(optimizer_class):
    def after_updates(rate):
        optimizer = optimizer_class([{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(2)], lr=rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 0.5**update)
        for _ in range(3):
            optimizer.step()
            schedule.step()
        return optimizer, schedule

    def rates_of(optimizer, schedule):
        groups = [(group["lr"], group["initial_lr"]) for group in optimizer.param_groups]
        return groups, schedule.base_lrs, schedule.get_last_lr()

    changed = after_updates(0.1)
    set_learning_rate(*changed, [0.8, 0.8])
    assert rates_of(*changed) == rates_of(*after_updates(0.8))
    other = torch.optim.lr_scheduler.ReduceLROnPlateau(changed[0])
    with pytest.raises(ValueError, match="cannot change on resume under ReduceLROnPlateau"):
        set_learning_rate(changed[0], other, [0.8, 0.8])


def test_steps_given_as_a_share_of_the_training_hold_when_it_is_resumed(trainer, stopped):
    resumed = trainer(logging_steps=0.2)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.logging_steps == 3
    assert {6, 9, 12} <= {record["step"] for record in resumed.state.log_history if "loss" in record}


def test_a_longer_training_is_resumed_where_its_rates_stay_and_refused_where_they_would_not(trainer):
    whole = trainer("whole", num_train_epochs=3)
    whole.train()
    trainer(num_train_epochs=2).train()
    resumed = trainer(num_train_epochs=3)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(weights(whole.model), weights(resumed.model))
    assert resumed.resumptions[0]["changed"] == {"num_train_epochs": [2, 3]}
    with pytest.raises(ValueError, match="has 15 updates, more than the 5 of these settings"):
        trainer(num_train_epochs=1).train(resume_from_checkpoint=True)
    trainer("linear", lr_scheduler_type="linear", num_train_epochs=2).train()
    with pytest.raises(ValueError, match="num_train_epochs: 2 → 3, on which the learning rates"):
        trainer("linear", lr_scheduler_type="linear", num_train_epochs=3).train(resume_from_checkpoint=True)


def test_another_trainer_does_not_go_on(stopped):
    settings = SamplingArguments(str(stopped), disable_tqdm=True)
    other = SelfCriticalTrainer(
        make_model(), settings, train_dataset=make_documents(40), eval_dataset=make_documents(5)
    )
    with pytest.raises(ValueError, match="trainer: SGMTrainer → SelfCriticalTrainer"):
        other.train(resume_from_checkpoint=True)


def test_a_checkpoint_without_fingerprint_is_resumed_with_one_warning(trainer, stopped, whole_weights, caplog):
    (stopped / "checkpoint-3" / "checkpoint.json").unlink()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(whole_weights, weights(resumed.model))
    assert sum("no fingerprint" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"])
def test_a_damaged_checkpoint_is_skipped_and_the_result_stays(trainer, whole_weights, name, caplog):
    settings = {"save_strategy": "steps", "eval_strategy": "no", "save_steps": 3, "save_total_limit": None}
    interrupt(trainer(**settings), 7)
    resumed = trainer(**settings)
    file = Path(resumed.args.output_dir, "checkpoint-7", name)
    file.write_bytes(file.read_bytes()[:100])
    resumed.train(resume_from_checkpoint=True)
    assert resumed.resumptions[0]["update"] == 6
    assert any("checkpoint-7 is skipped" in message and name in message for message in caplog.messages)
    assert_equal_weights(whole_weights, weights(resumed.model))


@pytest.mark.parametrize("settings", [{"max_steps": 3}, {"num_train_epochs": 1}, {"early_stopping_patience": 1}])
def test_a_finished_training_makes_no_further_update_when_resumed(trainer, settings):
    steps = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 1, "eval_steps": 1}
    settings = steps | {"load_best_model_at_end": "early_stopping_patience" in settings} | settings
    whole = trainer(**settings)
    whole.train()
    assert whole.state.global_step < 6
    again = trainer(**settings)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == whole.state.global_step
    assert_equal_weights(weights(whole.model), weights(again.model))


def test_the_fitted_threshold_is_resumed(trainer):
    settings = {"threshold": make_documents(20, seed=2)}
    whole = trainer(**settings)
    whole.train()
    threshold = whole.model.generation_config.label_threshold
    assert threshold != make_model().generation_config.label_threshold
    again = trainer(**settings)
    again.train(resume_from_checkpoint=True)
    assert again.model.generation_config.label_threshold == threshold


def test_what_a_kill_left_is_removed_when_training_starts(trainer, tmp_path):
    begin_checkpoint(tmp_path / "run" / "checkpoint-3")
    (tmp_path / "run" / ".saving-x").mkdir()
    (tmp_path / "run" / ".saving-x" / "training_args.bin").write_text("secret")
    started = trainer(num_train_epochs=1)
    started.train()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint-5"}


def test_a_token_is_never_written_to_disk(trainer, tmp_path):
    token = "hf_secret_of_mine"
    written = trainer(hub_token=token)
    seen = []
    save = written._save

    def save_and_look(output_dir=None, state_dict=None):
        save(output_dir, state_dict)
        seen.extend(path.name for path in Path(output_dir).iterdir())

    written._save = save_and_look
    written.train()
    written.save_model()
    written.create_model_card()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if token.encode() in path.read_bytes()]
    assert "model.safetensors" in seen and "training_args.bin" not in seen  # not for a moment


def test_a_model_is_written_where_it_is_to_be_before_it_replaces_the_old_one(trainer, tmp_path, monkeypatch):
    # From another disk, such as that of temporary files, nothing can be moved into place at once.
    saved, moved, replace = trainer(), [], os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: (moved.append(Path(source)), replace(source, target)))
    output_dir = Path(saved.args.output_dir)
    for target, inside in ((output_dir, output_dir), (output_dir / "best", output_dir), (tmp_path / "other",) * 2):
        moved.clear()
        saved.save_model(str(target))
        assert "model.safetensors" in {path.name for path in moved}
        assert {path.parent.parent for path in moved if path.name == "model.safetensors"} == {inside}


def test_two_trainings_in_one_folder_are_refused(trainer, tmp_path):
    other = tmp_path / "run"
    pid = os.fork()
    if pid == 0:
        with alone_in(other):
            Path(tmp_path, "ready").touch()
            signal.pause()
    while not Path(tmp_path, "ready").exists():
        pass
    try:
        with pytest.raises(FileExistsError, match=f"run is in use by process {pid} on"):
            trainer().train()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    trainer(num_train_epochs=1).train()
    assert "_lock" not in os.listdir(other)


@pytest.mark.parametrize(
    ("number", "update", "event", "status"),
    [
        (signal.SIGINT, 2, "on_step_begin", 130),
        (signal.SIGTERM, 6, "on_step_begin", 143),
        (signal.SIGINT, 4, "on_step_begin", 130),  # the update that ends the first epoch
        (signal.SIGTERM, 5, "on_evaluate", 143),
        (signal.SIGINT, 15, "on_evaluate", 130),  # the end of training
    ],
)
def test_a_signal_ends_training_with_a_checkpoint_that_goes_on_as_if_nothing_had_been(
    trainer, number, update, event, status, capfd
):
    held_out = make_documents(20, seed=2)
    whole = trainer("whole", threshold=held_out)
    whole.train()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stopped = trainer(callbacks=[SignalAt(update, number, event)], threshold=held_out)
    with pytest.raises(Interrupted) as ended:
        stopped.train()
    assert ended.value.code == status
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    at = update + (event == "on_step_begin")
    assert is_complete(Path(stopped.args.output_dir, f"checkpoint-{at}"))
    message = capfd.readouterr().err
    assert f"checkpoint-{at} is saved in" in message and "resume_from_checkpoint=True" in message
    resumed = trainer(threshold=held_out)
    torch.rand(17)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(weights(whole.model), weights(resumed.model))
    assert [r for r in losses_of(resumed) if "loss" not in r] == [r for r in losses_of(whole) if "loss" not in r]
    assert resumed.state.best_metric == whole.state.best_metric
    assert resumed.model.generation_config.label_threshold == whole.model.generation_config.label_threshold


def test_the_losses_logged_after_a_resumption_are_those_of_the_whole_training(trainer):
    settings = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "no", "save_total_limit": None}
    whole = trainer("whole", **settings)
    whole.train()
    shutil.copytree(
        Path(whole.args.output_dir, "checkpoint-6"), Path(whole.args.output_dir).parent / "run/checkpoint-6"
    )
    resumed = trainer(**settings)
    resumed.train(resume_from_checkpoint=True)
    assert losses_of(resumed) == losses_of(whole)


def test_a_second_signal_ends_training_at_once(trainer, monkeypatch):
    monkeypatch.setattr("sgm_hf.training.callbacks.SAME_SIGNAL_SECONDS", 0.0)

    class Twice(TrainerCallback):
        def on_step_begin(self, args, state, control, **keywords):
            if state.global_step == 2:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)

    stopped = trainer(callbacks=[Twice()])
    with pytest.raises(Interrupted) as ended:
        stopped.train()
    assert ended.value.code == 143
    assert not list(Path(stopped.args.output_dir).glob("checkpoint-*"))


def test_a_signal_passed_on_by_a_launcher_counts_once(trainer):
    stopped = trainer(callbacks=[SignalAt(2), SignalAt(2, signal.SIGTERM)])
    with pytest.raises(Interrupted) as ended:
        stopped.train()
    assert ended.value.code == 130
    assert is_complete(Path(stopped.args.output_dir, "checkpoint-3"))


def test_the_record_is_not_pushed_with_the_model():
    from sgm_hf.training.pushing import RESUMING_FILES

    assert {"checkpoint.json", "trainer_state.json"} <= set(RESUMING_FILES)


def test_a_fingerprint_reads_back_as_it_was(trainer, stopped, caplog):
    record = json.loads((stopped / "checkpoint-3" / "checkpoint.json").read_text())
    resumed = trainer()
    with caplog.at_level(logging.WARNING, logger="sgm_hf"):
        resumed.train(resume_from_checkpoint=True)
    assert record["fingerprint"] == resumed.fingerprint
    assert not [message for message in caplog.messages if "→" in message or "fingerprint" in message]
