#!/usr/bin/env python
"""Where an update of training spends its time, as a picture: the textbook model, ours, and the limit.

    python benchmarks/plot_parts.py --size aapd --data_dir data/aapd --output docs/figures/training_parts

Each arm of bench_training.py runs in a process of its own under PyTorch's profiler. The output is the picture (PNG and
SVG) and its numbers (CSV).
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import bench_training
import torch
from matplotlib import pyplot
from torch.profiler import ProfilerActivity, profile

from sgm_hf.analysis.figures import save_figure
from sgm_hf.tables import write_csv

ARMS = ("textbook_unpacked", "ours_fp32", "ours_bf16", "limit_fp32", "limit_bf16")
# Regular expressions for the names of the PyTorch operations of each part.
PARTS = {
    "LSTM layers": r".*rnn_layer.*",
    "other matrix products": r"(add|b)?mm",
    "tanh and sigmoid": r"(tanh|sigmoid).*",
    "drawing dropout": r"bernoulli|random|ge",
    "Adam and clipping": r"fused_adam|foreach.*|linalg_vector_norm|addcdiv|addcmul|lerp|sqrt",
}
REST = "the rest"


def part_of(operation: str) -> str:
    """The part that an operation of PyTorch, such as "aten::addmm", belongs to."""
    name = operation.removeprefix("aten::").strip("_")
    return next((part for part, pattern in PARTS.items() if re.fullmatch(pattern, name)), REST)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds per document of each part of one arm, after one repetition to warm up."""
    repeat = bench_training.make_arm(arguments)
    repeat()
    start = time.perf_counter()
    num_documents = repeat()["documents"]
    seconds = time.perf_counter() - start
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        repeat()
    parts = dict.fromkeys([*PARTS, REST], 0.0)
    for event in profiler.key_averages():
        parts[part_of(event.key)] += event.self_cpu_time_total
    # The profiler costs time, so only the shares of the parts are taken from it.
    total = sum(parts.values())
    return {part: 1000 * seconds / num_documents * microseconds / total for part, microseconds in parts.items()}


def draw(measured: dict[str, dict[str, float]], title: str, output: Path) -> None:
    """Write the picture and its numbers.

    Args:
        measured: Milliseconds per document of each part of each arm.
        title: Of the picture.
        output: Path without an ending.
    """
    write_csv(
        [{"arm": arm} | {part: round(value, 3) for part, value in parts.items()} for arm, parts in measured.items()],
        output.with_suffix(".csv"),
    )
    figure, axes = pyplot.subplots(figsize=(9, 0.6 * len(measured) + 1.6), layout="constrained")
    arms = list(measured)[::-1]
    left = [0.0] * len(arms)
    for number, part in enumerate([*PARTS, REST]):
        widths = [measured[arm][part] for arm in arms]
        axes.barh(arms, widths, left=left, label=part, color=f"C{number}" if part != REST else "lightgrey")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for arm, end in zip(arms, left, strict=True):
        axes.text(end, arm, f" {end:.1f}", va="center")
    axes.set_xlabel("milliseconds per document")
    axes.set_xlim(0, 1.08 * max(left))
    axes.set_title(title)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, output)


def main() -> None:
    """Measure each arm in a process of its own and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(bench_training.harness.SIZES), default="aapd")
    parser.add_argument("--data_dir", help="folder or archive of the corpus; by default random texts are drawn")
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.set_defaults(device="cpu", batch_size=None)
    parser.add_argument("--output", type=Path, default=Path("docs/figures/training_parts"))
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm is not None:
        print(json.dumps(measure(arguments)))
        return
    measured = {}
    for arm in ARMS:
        print(f"{arm} …", file=sys.stderr)
        command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        measured[arm] = json.loads(run.stdout.splitlines()[-1])
    draw(measured, f"Training, {arguments.size}: time by part, {arguments.threads} threads", arguments.output)


if __name__ == "__main__":
    main()
