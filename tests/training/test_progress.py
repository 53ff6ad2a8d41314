import io
import sys

from tiny_training import Clock, make_documents, make_model

from sgm_hf.training import SGMTrainer, progress
from sgm_hf.training.progress import ProgressLines, duration, format_log, with_lines


def test_a_line_is_written_at_once(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw))
    progress.write_line("step 1/2")
    assert raw.getvalue() == b"step 1/2\n"


def test_an_evaluation_without_a_bar_is_never_silent_for_long(arguments, capsys, monkeypatch):
    monkeypatch.setattr(progress, "time", Clock(progress.SECONDS))
    settings = arguments(per_device_eval_batch_size=4, eval_strategy="no")
    trainer = SGMTrainer(make_model(), settings, eval_dataset=make_documents(16))
    trainer.evaluate()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Evaluating: ")]
    assert len(lines) == 4 and lines[1].startswith("Evaluating: 8 of 16 documents, ")
    trainer.fit_label_threshold(make_documents(4))
    assert capsys.readouterr().err.startswith("Fitting threshold: 4 of 4 documents, ")


def test_short_work_and_counted_texts_are_silent_and_unchanged(capsys):
    assert list(with_lines(iter("abc"), 3, "Counting words")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_line_of_documents_tells_speed_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "time", Clock(40.0))
    with ProgressLines(1000, "Counting words") as lines:
        lines.update(100)
    assert capsys.readouterr().err == "Counting words: 100 of 1,000 documents, 2.5 per second, 0:06:00 left\n"
    assert duration(3725.4) == "1:02:05"


def test_a_log_line_shows_what_matters_with_few_digits():
    line = format_log({"epoch": 1.0, "loss": 0.123456789, "eval_micro_f1": 0.5, "total_flos": 1e15})
    assert line == "epoch 1  loss 0.1235  micro_f1 0.5"
    assert format_log({"loss": 1.0, "eval_loss": 2.0}) == "loss 1  eval_loss 2"  # else there were two of one name


def test_a_log_line_shows_micro_f1_of_each_set_and_metrics_of_the_users_own():
    hidden = {
        "eval_a_hamming_loss": 2.0,
        "eval_a_threshold_micro_f1": 3.0,
        "eval_a_runtime": 4.0,
        "eval_zero_one_loss": 1.0,
        "eval_a_ece": 5.0,
        "eval_nll": 6.0,
        "eval_a_precision_at_5": 6.0,
        "eval_micro_f1_1_to_9": 7.0,
        "eval_a_macro_f1_from_1000": 8.0,
    }
    assert format_log({"eval_a_micro_f1": 0.5, "eval_mine": 0.25, **hidden}) == "a_micro_f1 0.5  mine 0.25"
