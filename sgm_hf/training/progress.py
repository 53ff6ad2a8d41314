"""What is shown while a program works: bars on a terminal, else lines, so that it is never silent for long."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from transformers import ProgressCallback, TrainerCallback

if TYPE_CHECKING:
    from sgm_hf.training.trainer import SGMTrainer

SECONDS = 30.0  # between two lines


class ProgressLines:
    """Writes how far a loop over documents is, every 30 seconds; used like a `tqdm` bar.

    Args:
        total: Number of documents.
        description: What is done with them.
    """

    def __init__(self, total: int, description: str):
        self.total, self.description, self.done = total, description, 0
        self.start = self.last = time.monotonic()

    def __enter__(self) -> "ProgressLines":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType) -> None:
        pass

    def update(self, count: int) -> None:
        """Count documents that are done."""
        self.done += count
        now = time.monotonic()
        if now - self.last < SECONDS:
            return
        self.last = now
        rate = self.done / (now - self.start)
        write_line(
            f"{self.description}: {self.done:,} of {self.total:,} documents, {rate:,.1f} per second, "
            f"{duration((self.total - self.done) / rate)} left"
        )


def with_lines(texts: Iterable[str], total: int, description: str) -> Iterator[str]:
    """The texts, while lines tell how many were taken."""
    lines = ProgressLines(total, description)
    for text in texts:
        yield text
        lines.update(1)


def write_line(line: str) -> None:
    """Write a line to the error output at once."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    Example:
        >>> duration(3725.4)
        '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))


LOGGED = (
    "epoch",
    "loss",
    "grad_norm",
    "learning_rate",
    "eval_loss",
    "eval_micro_f1",
    "eval_best_sequence_micro_f1",
    "eval_threshold_micro_f1",
    "eval_expected_f1_micro_f1",
    "eval_macro_f1",
    "eval_hamming_loss",
    "eval_label_threshold",
    "eval_runtime",
    "train_loss",
    "train_runtime",
)


def format_log(logs: dict[str, Any]) -> str:
    """One readable line of the values that a training logs.

    Args:
        logs: Names and values, as Transformers' callbacks get them. Of an evaluation's many metrics only those that
            tell how the training goes are shown.
    """
    names = [name for name in LOGGED if name in logs]
    shown = {name: name if name == "eval_loss" else name.removeprefix("eval_") for name in names}
    return "  ".join(f"{shown[name]} {logs[name]:.4g}" for name in names)


class LineCallback(TrainerCallback):
    """Writes a line a log, and one where 30 seconds passed without; it changes nothing of the training.

    Args:
        trainer: The training.
    """

    def __init__(self, trainer: "SGMTrainer"):
        self.trainer = trainer
        self.last = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Start the clock."""
        self.start = self.last = time.monotonic()
        self.first_step, self.first_epoch = state.global_step, state.epoch or 0.0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **keywords: Any) -> None:
        """Write what is logged."""
        if logs:
            self._write(state, format_log(logs))

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Write the mean loss since the last log, if there was no line for long."""
        if time.monotonic() - self.last >= SECONDS:
            # Transformers' own sum, only read: a log would begin a new one, at a moment that chance decides.
            steps = state.global_step - self.trainer._globalstep_last_logged
            loss = {"loss": self.trainer._tr_loss.item() / steps} if steps else {}
            self._write(state, format_log({"epoch": state.epoch, **loss}))

    def _write(self, state: Any, values: str) -> None:
        """Write a line: where the training is, the values, and in training its speed and what is left of it."""
        self.last = time.monotonic()
        if not state.is_world_process_zero:
            return
        speed = self._speed(state) if self.trainer.is_in_train else ""
        write_line(f"step {state.global_step}/{state.max_steps}  {values}{speed}")

    def _speed(self, state: Any) -> str:
        """Documents per second, evaluations apart, and the time left, evaluations included."""
        steps, seconds = state.global_step - self.first_step, self.last - self.start
        if steps <= 0:
            return ""
        documents = (state.epoch - self.first_epoch) * len(self.trainer.train_dataset)
        rate = documents / max(seconds - self.trainer.evaluation_seconds, 1e-9)
        left = seconds / steps * (state.max_steps - state.global_step)
        return f"  {rate:.1f} documents/s  {duration(left)} left"


class BarCallback(ProgressCallback):
    """A progress bar, and a line a log above it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **keywords: Any) -> None:
        """Write what is logged."""
        if state.is_world_process_zero and logs and self.training_bar is not None:
            self.training_bar.write(f"step {state.global_step}  {format_log(logs)}", file=sys.stderr)
