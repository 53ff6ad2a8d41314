#!/usr/bin/env python
"""Time and memory of `generate()` with many labels, with and without constraints.

    python benchmarks/bench_many_labels.py
    python benchmarks/bench_many_labels.py --num_labels 10000 1000000 --repetitions 3

The model is tiny, so that only what grows with the number of labels is measured. Each number of labels and each case
has a process of its own. A value is the processor time of one call with one thread, which on an idle machine is its
wall-clock time; the peak is the greatest resident memory of the process, most of it allocated before the first call.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import harness
import torch

from sgm_hf import SGMConfig, SGMForMultiLabelGeneration
from sgm_hf.tables import markdown_table

NUM_LABELS = (10_000, 20_000, 50_000, 100_000)
CASES = ("no_constraint", "max_labels", "required_label", "hierarchy")
COLUMNS = ("labels", "case", "ms", "ns per label", "MiB before", "peak MiB", "KiB per label")
MAX_LABELS = 5
NUM_WORDS = 20


def make_model(num_labels: int) -> SGMForMultiLabelGeneration:
    """An untrained tiny model that never prefers eos, so that each call makes `MAX_LABELS` + 1 steps."""
    torch.manual_seed(0)
    names = ("embedding_size", "encoder_hidden_size", "decoder_hidden_size", "attention_size")
    config = SGMConfig(vocab_size=100, num_labels=num_labels, **dict.fromkeys(names, 16))
    model = SGMForMultiLabelGeneration(config).eval()
    with torch.no_grad():
        model.decoder.output.bias[config.eos_label_id] = -20.0
    return model


def constraints(case: str, num_labels: int) -> dict[str, Any]:
    """The arguments of `generate()` in a case."""
    if case == "no_constraint":
        return {"max_new_tokens": MAX_LABELS + 1}
    if case == "required_label":
        return {"max_labels": MAX_LABELS, "required_labels": [num_labels // 2]}
    if case == "hierarchy":  # a binary tree of all labels: L - 1 edges
        return {
            "max_labels": MAX_LABELS,
            "label_hierarchy": {label: (label - 1) // 2 for label in range(1, num_labels)},
        }
    return {"max_labels": MAX_LABELS}


def make_arm(arguments: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """The function that does one repetition of an arm (`case:labels`): one call for a batch of texts."""
    case, _, num_labels = arguments.arm.partition(":")
    torch.set_num_threads(1)
    model, limits = make_model(int(num_labels)), constraints(case, int(num_labels))
    texts = torch.randint(1, 100, (arguments.documents, NUM_WORDS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def repeat() -> dict[str, Any]:
        start = time.process_time()
        model.generate(texts, num_beams=arguments.num_beams, **limits)
        return {"milliseconds": 1000 * (time.process_time() - start), "before_mib": before}

    return repeat


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_labels", type=int, nargs="+", default=NUM_LABELS, help="numbers of labels")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="constraints")
    parser.add_argument("--documents", type=int, default=1, help="texts per call")
    parser.add_argument("--num_beams", type=int, default=5, help="beam width")
    parser.add_argument("--repetitions", type=int, default=5, help="calls of each arm")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.size, arguments.data_dir, arguments.device, arguments.threads = "tiny", None, "cpu", 1
    return arguments


def main() -> None:
    """Run the arms of each number of labels in turns, keep the results, and print them."""
    arguments = parse_arguments()
    if arguments.arm is not None:
        harness.serve(make_arm(arguments), arguments.device)
        return
    lines = []
    for num_labels in arguments.num_labels:
        arguments.arms = [f"{case}:{num_labels}" for case in arguments.cases]
        results = harness.take_turns(__file__, arguments)
        values = {arm: [run["milliseconds"] for run in runs] for arm, runs in results.items()}
        peaks = {arm: runs[-1]["peak_mib"] for arm, runs in results.items()}
        benchmark = f"generate() of {arguments.documents} texts with many labels, beam {arguments.num_beams}"
        rows = harness.summarise(benchmark, "ms", values, peaks, arguments)
        harness.keep(rows)
        for row, (arm, runs) in zip(rows, results.items(), strict=True):
            before = runs[-1]["before_mib"]
            time_each, memory_each = 1e6 * row["value"] / num_labels, 1024 * (row["peak_mib"] - before) / num_labels
            case = arm.partition(":")[0]
            lines.append(
                (f"{num_labels:,}", case, f"{row['value']:.0f}", f"{time_each:.0f}", f"{before:.0f}")
                + (row["peak_mib"], f"{memory_each:.1f}")
            )
    print(markdown_table(COLUMNS, lines))


if __name__ == "__main__":
    main()
