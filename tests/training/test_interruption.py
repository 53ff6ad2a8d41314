import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from sgm_hf.training import interruption
from sgm_hf.training.checkpoints import begin_checkpoint
from sgm_hf.training.interruption import Interrupted, exit_on_signals, run_to_its_end, signals_handled_by

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def test_a_resumed_program_goes_on_by_the_same_command(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(interruption, "has_complete_checkpoint", lambda folder: True)
    command = ["sgm-hf", "train", "--resume_from_checkpoint", "runs/checkpoint-1", "--seed", "3"]
    with pytest.raises(SystemExit), exit_on_signals(command, tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert capfd.readouterr().err.endswith("sgm-hf train --seed 3 --resume_from_checkpoint true\n")


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_program_ends_at_a_signal_with_its_status_and_the_command_that_goes_on(number, status, tmp_path, capfd):
    handler = signal.getsignal(number)
    begin_checkpoint(tmp_path / "checkpoint-1")  # not complete: nothing to resume from
    command = ["run sgm.py", "--hub_token", "secret", "--hub_token=secret", "--seed", "3"]
    with pytest.raises(SystemExit) as ended, exit_on_signals(command, tmp_path):
        os.kill(os.getpid(), number)
        time.sleep(10)
    assert ended.value.code == status
    assert signal.getsignal(number) == handler
    expected = f"Ended by {signal.Signals(number).name}. This goes on:\n  'run sgm.py' --seed 3\n"
    assert capfd.readouterr().err == expected


def test_a_signal_that_a_launcher_passes_on_does_not_disturb_the_end_of_a_program(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(interruption, "time", SimpleNamespace(monotonic=lambda: now[0]))
    seen = []
    with pytest.raises(Interrupted) as ended, exit_on_signals(["sgm-hf", "train"]):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            now[0] += 0.9
            signal.raise_signal(signal.SIGTERM)  # the same one once more
            seen.append("cleaned up")
            now[0] += 0.2
            signal.raise_signal(signal.SIGINT)
            seen.append("not reached")
    assert (ended.value.code, seen) == (130, ["cleaned up"])


@pytest.mark.parametrize(("rank", "lines"), [("0", 2), ("1", 0)])
def test_one_process_of_a_training_alone_says_how_to_go_on(monkeypatch, capfd, rank, lines):
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(Interrupted), exit_on_signals(["sgm-hf", "train"]):
        signal.raise_signal(signal.SIGTERM)
    assert len(capfd.readouterr().err.splitlines()) == lines


def test_the_output_of_a_program_that_is_started_goes_where_it_is_sent(tmp_path):
    with open(tmp_path / "log", "w") as log:
        assert run_to_its_end([sys.executable, "-S", "-c", "print(1)"], stdout=log) == 0
    assert (tmp_path / "log").read_text() == "1\n"


def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_handled_by(lambda number, frame: pytest.fail("an ignored signal was handled")):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_that_is_not_the_main_one_leaves_signals_alone():
    seen = []

    def enter():
        with signals_handled_by(lambda number, frame: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


CHILD = """
import signal, sys, time
def end(number, frame):
    time.sleep(0.5)  # as long as a checkpoint takes
    open(sys.argv[1], "w").write("saved")
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1] + ".ready", "w").close()
time.sleep(60)
"""


def test_a_program_passes_signals_on_and_waits_for_what_it_has_started(tmp_path):
    file = tmp_path / "file"

    def send():
        while not (tmp_path / "file.ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    with pytest.raises(Interrupted) as ended:
        run_to_its_end([sys.executable, "-c", CHILD, str(file)], stderr=subprocess.DEVNULL)
    assert (ended.value.code, file.read_text()) == (143, "saved")
    assert run_to_its_end([sys.executable, "-c", "raise SystemExit(3)"]) == 3
