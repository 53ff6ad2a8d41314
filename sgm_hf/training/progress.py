"""What is shown while a program works: bars on a terminal, else lines, so that it is never silent for long."""

import re
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from sgm_hf.metrics import compute_metrics
from sgm_hf.metrics.calibration import SCORE_METRICS
from sgm_hf.metrics.ranking import RANKING_METRICS
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS

SECONDS = 30.0  # between two lines


class ProgressLines:
    """Writes how far a loop over `total` documents is, every 30 seconds; used like a `tqdm` bar."""

    def __init__(self, total: int, description: str, unit: str = "documents"):
        self.total, self.description, self.unit, self.done = total, description, unit, 0
        self.start = self.last = time.monotonic()

    def __enter__(self) -> "ProgressLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, count: int) -> None:
        """Count what is done."""
        self.done += count
        now = time.monotonic()
        if now - self.last < SECONDS:
            return
        self.last = now
        rate = self.done / (now - self.start)
        write_line(
            f"{self.description}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.1f} per second, "
            f"{duration((self.total - self.done) / rate)} left"
        )


def with_lines(texts: Iterable[str], total: int, description: str) -> Iterator[str]:
    """The texts, while lines tell how many were taken."""
    lines = ProgressLines(total, description)
    for text in texts:
        yield text
        lines.update(1)


def shown_progress(total: int, description: str, done: int = 0, unit: str = "documents") -> Any:
    """A bar with documents per second and the time left; where no terminal shows it, lines."""
    if sys.stderr.isatty():
        return tqdm(total=total, initial=done, desc=description, unit=f" {unit}")
    return ProgressLines(total - done, description, unit)


def write_line(line: str) -> None:
    """Write a line to the error output at once."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    Examples:
        >>> duration(3725.4)
        '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))


METRICS = "|".join(compute_metrics(np.zeros((1, 1), dtype=bool), np.zeros((1, 1), dtype=bool)))
# Of ours those that tell little of how a training goes: of one set decoding, and all but micro-F1.
UNSHOWN = re.compile(
    rf"_({'|'.join(SET_DECODINGS)})_({METRICS})$|_(?!micro_f1$)({METRICS})$"
    rf"|_({'|'.join((*SCORE_METRICS, *RANKING_METRICS))})$|_(micro|macro)_f1_(\d+_to_\d+|from_\d+)$"
    r"|_(loss|runtime|documents_per_second|label_threshold|position_deviation)$"
)
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
    """One readable line of what a training logs; of our metrics those that tell how the training goes."""
    # Of several evaluation sets micro-F1, and what a user's own compute_metrics reports.
    others = [name for name in logs if name.startswith("eval_") and name not in LOGGED and not UNSHOWN.search(name)]
    names = [*(name for name in LOGGED if name in logs), *(n for n in others if isinstance(logs[n], int | float))]
    shown = {name: name if name == "eval_loss" else name.removeprefix("eval_") for name in names}
    return "  ".join(f"{shown[name]} {logs[name]:.4g}" for name in names)
