"""Ctrl-C and SIGTERM end a training with a checkpoint, and a program without a traceback."""

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from sgm_hf.training.checkpoints import has_complete_checkpoint

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A launcher may pass on a Ctrl-C that its processes also got themselves.
SAME_SIGNAL_SECONDS = 1.0


class Interrupted(SystemExit):
    """The end of the process by a signal; its exit status is that of shells: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, signal_number: int):
        super().__init__(128 + signal_number)
        self.signal_name = signal.Signals(signal_number).name


@contextmanager
def signals_handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Give SIGINT and SIGTERM to a handler within the block, in the main thread; those that are ignored stay so."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def write_unbuffered(text: str) -> None:
    """Write a line to the error output, past Python's buffers: a signal may come while they are written to."""
    os.write(2, f"{text}\n".encode())


@contextmanager
def exit_on_signals(command: Sequence[str], output_dir: str | Path | None = None) -> Iterator[None]:
    """End a program at a signal, with a line that says how to go on.

    Args:
        command: The whole command, as the user would type it.
        output_dir: The folder of its training, which resumes if that has a checkpoint; None for a program that finds
            out itself how to go on.

    Raises:
        Interrupted: At a signal.
    """
    received: list[float] = []

    def end(number: int, frame: FrameType | None) -> None:
        """End, unless a launcher has passed on what this process also got itself."""
        now = time.monotonic()
        if not received or now - received[0] > SAME_SIGNAL_SECONDS:
            received.append(now)
            raise Interrupted(number)

    try:
        with signals_handled_by(end):
            yield
    except Interrupted as interrupted:
        if os.environ.get("RANK", "0") == "0":
            again = without_option("--hub_token", command)  # a log should not keep it
            if output_dir is not None and has_complete_checkpoint(output_dir):
                again = [*without_option("--resume_from_checkpoint", again), "--resume_from_checkpoint", "true"]
            write_unbuffered(f"Ended by {interrupted.signal_name}. This goes on:\n  {shlex.join(again)}")
        raise


def run_to_its_end(command: Sequence[str], **streams: Any) -> int:
    """Run a program in a process of its own, which gets the signals and decides how it ends.

    Returns:
        The program's exit status.

    Raises:
        Interrupted: After its end, if there was a signal.
    """
    received: list[int] = []
    with subprocess.Popen(command, **streams) as process:

        def pass_on(number: int, frame: FrameType | None) -> None:
            received.append(number)
            process.send_signal(number)

        with signals_handled_by(pass_on):
            status = process.wait()
    if received:
        raise Interrupted(received[0])
    return status


def without_option(option: str, command: Sequence[str]) -> list[str]:
    """A command without an option and its value."""
    kept = []
    for previous, word in zip(["", *command], command, strict=False):
        if option not in (word, previous) and not word.startswith(f"{option}="):
            kept.append(word)
    return kept
