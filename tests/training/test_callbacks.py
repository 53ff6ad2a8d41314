import re
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny_training import Clock, make_documents, make_model

from sgm_hf.training import SGMTrainer, callbacks
from sgm_hf.training.callbacks import BarCallback, LineCallback

LINE = re.compile(r"step (\d+)/(\d+)  epoch (\S+)  loss (\S+).*  (\S+) documents/s  (\d+:\d\d:\d\d) left")


def train(arguments, folder, **settings):
    options = {"num_train_epochs": 2, "disable_tqdm": True} | settings
    trainer = SGMTrainer(make_model(), arguments(folder, **options), make_documents(48), make_documents(8, seed=1))
    trainer.train()
    return trainer


def test_the_first_update_of_a_training_is_shown_with_speed_and_time_left(arguments, capsys):
    train(arguments, "run")
    lines = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines() if line.startswith("step 1/")]
    assert len(lines) == 1
    step, steps, epoch, loss, rate, _ = lines[0].groups()
    assert (step, steps) == ("1", "12") and 0 < float(epoch) < 1 and float(loss) > 0 and float(rate) > 0


def test_a_quick_training_has_no_lines_but_those_of_its_logs(arguments, capsys):
    trainer = train(arguments, "run", eval_strategy="no", logging_steps=1000)
    shown = [int(found[1]) for found in map(LINE.match, capsys.readouterr().err.splitlines()) if found]
    assert shown == [record["step"] for record in trainer.state.log_history if "loss" in record]


@pytest.mark.parametrize(
    ("step", "epoch", "speed"),
    [
        (20, 2.0, ""),
        (21, 2.1, "  2.0 documents/s  0:25:00 left"),
        (26, 2.6, "  12.0 documents/s  0:02:47 left"),
        (36, 3.6, "  32.0 documents/s  0:00:00 left"),
    ],
)
def test_speed_and_time_left_are_those_since_the_training_was_resumed(capsys, monkeypatch, step, epoch, speed):
    monkeypatch.setattr(callbacks, "time", Clock(100.0))
    # Half of the 100 seconds of the test went to evaluation.
    documents = round((epoch - 2.0) * 1000)
    training = SimpleNamespace(is_in_train=True, trained_documents=documents, evaluation_seconds=50.0)
    state = SimpleNamespace(global_step=20, epoch=2.0, max_steps=36, is_world_process_zero=True)
    lines = LineCallback(training)
    lines.on_train_begin(None, state, None)
    state.global_step, state.epoch = step, epoch
    lines.on_log(None, state, None, logs={"loss": 1.0})
    assert capsys.readouterr().err == f"step {step}/36  loss 1{speed}\n"


def test_a_bar_has_one_line_per_log_above_it():
    written = []
    callback = BarCallback()
    callback.training_bar = SimpleNamespace(write=lambda line, file: written.append((line, file)))
    for first in (True, False):
        state = SimpleNamespace(is_world_process_zero=first, global_step=7)
        callback.on_log(None, state, None, logs={"loss": 0.5})
        callback.on_log(None, state, None, logs={})
    assert written == [("step 7  loss 0.5", sys.stderr)]


def test_a_training_without_a_bar_is_never_silent_for_long(arguments, capsys, monkeypatch):
    monkeypatch.setattr(callbacks, "time", Clock(callbacks.SECONDS / 2))
    trainer = train(arguments, "run", eval_strategy="no", logging_steps=1000)
    shown = [int(found[1]) for found in map(LINE.match, capsys.readouterr().err.splitlines()) if found]
    assert shown[0] == 1
    assert max(after - before for before, after in zip(shown, [*shown[1:], 12], strict=True)) <= 2
    assert [record["step"] for record in trainer.state.log_history if "loss" in record] == [1, 6, 12]


def test_lines_by_time_change_nothing_of_a_training(arguments, monkeypatch):
    quiet = train(arguments, "quiet")
    monkeypatch.setattr(callbacks, "time", Clock(callbacks.SECONDS))
    talking = train(arguments, "talking")
    for name, value in quiet.model.state_dict().items():
        assert torch.equal(value, talking.model.state_dict()[name]), name
    kept = [{n: v for n, v in r.items() if "runtime" not in n and "second" not in n} for r in quiet.state.log_history]
    again = [
        {n: v for n, v in r.items() if "runtime" not in n and "second" not in n} for r in talking.state.log_history
    ]
    assert kept == again


def test_the_loss_of_a_line_by_time_is_the_mean_since_the_last_log(arguments, capsys, monkeypatch):
    trained = train(arguments, "every", eval_strategy="no", logging_steps=1)
    losses = [record["loss"] for record in trained.state.log_history if "loss" in record]
    capsys.readouterr()
    monkeypatch.setattr(callbacks, "time", Clock(callbacks.SECONDS))
    train(arguments, "time", eval_strategy="no", logging_steps=1000)
    found = {int(line[1]): float(line[4]) for line in map(LINE.match, capsys.readouterr().err.splitlines()) if line}
    assert found[4] == pytest.approx(sum(losses[1:4]) / 3, rel=1e-3)
