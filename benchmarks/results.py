#!/usr/bin/env python
"""Keep the results of trainings as data, and make the README's table from them.

    python benchmarks/results.py add runs/reuters21578_sgm_ge --config examples/configs/reuters21578_sgm_ge.json
    python benchmarks/results.py table

`add` reads the run's summary.json and appends one row per split and set decoding to results.csv; `commit` is the one
that is checked out then.
"""

import argparse
import csv
import json
import statistics
import subprocess
from datetime import date
from pathlib import Path

from sgm_hf.metrics.calibration import SCORE_METRICS
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.tables import markdown_table, mean_and_deviation, write_csv

RESULTS = Path(__file__).with_name("results.csv")
METRICS = (
    "micro_f1",
    "micro_precision",
    "micro_recall",
    "macro_f1",
    "macro_f1_of_means",
    "samples_f1",
    "hamming_loss",
    "zero_one_loss",
)
# Metrics of the table.
SHOWN = ("micro_f1", "micro_precision", "micro_recall", "macro_f1", "hamming_loss", "zero_one_loss")
COLUMNS = (
    *("date", "commit", "config", "data", "split", "documents", "set_decoding", "label_threshold"),
    *("precision", "seed"),
    *METRICS,
    *("best_epoch", "training_minutes", "cpu", "cores", "threads", "accelerator", "torch", "transformers"),
    *SCORE_METRICS,  # of the label scores, the same for each set decoding; empty in rows of before they were measured
)


def rows_of_run(run: Path, config: str) -> list[dict]:
    """The rows of a finished run, one per split and set decoding.

    Args:
        run: The output folder of `sgm-hf train`.
        config: The configuration file of the run.
    """
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    common = {
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "config": config,
        "data": summary["data"]["name"],
        "precision": "bf16" if summary["settings"]["bf16"] else "fp32",
        "seed": summary["settings"]["seed"],
        "best_epoch": summary["training"]["best_epoch"],
        "training_minutes": round(summary["training"]["seconds"] / 60, 1),
        **{name: summary["machine"][name] for name in ("cpu", "cores", "threads", "accelerator")},
        **{name: summary["versions"][name] for name in ("torch", "transformers")},
    }
    return [
        common
        | {
            "split": split,
            "documents": summary["data"][f"{split}_documents"],
            "set_decoding": decoding,
            "label_threshold": round(metrics["label_threshold"], 4) if decoding == "threshold" else "",
        }
        | {name: round(metrics[f"{decoding}_{name}"], 5) for name in METRICS}
        | {name: round(metrics[name], 5) for name in SCORE_METRICS if name in metrics}
        for split, metrics in summary["metrics"].items()
        for decoding in SET_DECODINGS
    ]


def add(run: Path, config: str) -> None:
    """Append the rows of a run to results.csv."""
    write_csv(rows_of_run(run, config), RESULTS, COLUMNS, append=True)


def table() -> str:
    """The mean results over the seeds in Markdown: one line per configuration, precision, split and set decoding."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    groups: dict[tuple[str, ...], list[dict]] = {}
    for row in rows:
        key = (row["config"], row["precision"], row["split"], row["set_decoding"])
        groups.setdefault(key, []).append(row)
    columns = ["Configuration", "Precision", "Split", "Set decoding", "Seeds", "micro-F1", "P", "R", "macro-F1"]
    columns += ["Hamming loss", "0/1 loss", "Minutes"]
    lines = []
    for (config, precision, split, set_decoding), runs in groups.items():
        decimals = {name: 4 if name == "hamming_loss" else 3 for name in SHOWN}
        figures = [mean_and_deviation([float(run[name]) for run in runs], decimals[name]) for name in SHOWN]
        minutes = statistics.mean(float(run["training_minutes"]) for run in runs)
        cells = [f"`{Path(config).name}`", precision, split, f"`{set_decoding}`", str(len(runs)), *figures]
        lines.append([*cells, f"{minutes:.0f}"])
    return markdown_table(columns, lines)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add", help="append a run to results.csv")
    adding.add_argument("run", type=Path)
    adding.add_argument("--config", required=True)
    commands.add_parser("table", help="print the table")
    arguments = parser.parse_args()
    if arguments.command == "add":
        add(arguments.run, arguments.config)
    else:
        print(table())


if __name__ == "__main__":
    main()
