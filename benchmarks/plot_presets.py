#!/usr/bin/env python
"""Quality against processor minutes, as a picture: presets, a tuned linear SVM, and the paper's SGM+GE.

    python benchmarks/plot_presets.py

The rows of presets.csv are one training each: those of bench_svm.py, and of `sgm-hf train --preset …` as `command`
says. A row without `cpu_minutes` is a published figure. Written are docs/figures/presets.png and .svg, without the
systems that were told the label frequencies; `table` prints the means over the seeds of all in Markdown.
"""

import argparse
import csv
import statistics
from pathlib import Path
from typing import Any

from sgm_hf.tables import markdown_table, mean_and_deviation

PRESETS_CSV = Path(__file__).with_name("presets.csv")
PICTURE = Path(__file__).parents[1] / "docs" / "figures" / "presets"
NUMBERS = ("micro_f1", "macro_f1", "zero_one_loss", "cpu_minutes")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows, with numbers as such, and None where there is none.

    Raises:
        ValueError: If there is no row, or a cell that is to be a number is none.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path} has no row; measure something first, e.g. with benchmarks/bench_svm.py.")
    for number, row in enumerate(rows, start=2):
        for name in NUMBERS:
            try:
                row[name] = float(row[name]) if row[name] else None
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {name} is {row[name]!r}, expected a number.") from error
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The means over the seeds in Markdown: one line per corpus, system and objective."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["corpus"], row["split"], row["system"], row["objective"]), []).append(row)
    lines = []
    for key, runs in groups.items():
        cells = []
        for name in NUMBERS[:3]:
            values = [run[name] for run in runs if run[name] is not None]
            cells.append(mean_and_deviation(values, 3) if values else "")
        minutes = [run["cpu_minutes"] for run in runs if run["cpu_minutes"] is not None]
        lines.append([*key, str(len(runs)), *cells, f"{statistics.mean(minutes):.1f}" if minutes else ""])
    titles = ("Corpus", "Split", "System", "Objective", "Runs", "micro-F1", "macro-F1", "0/1 loss", "CPU minutes")
    return markdown_table(titles, lines)


def main() -> None:
    """Draw the picture, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=("draw", "table"), default="draw")
    parser.add_argument("--rows", type=Path, default=PRESETS_CSV)
    parser.add_argument("--output", type=Path, default=PICTURE, help="path of the picture without an ending")
    arguments = parser.parse_args()
    rows = read_rows(arguments.rows)
    if arguments.action == "table":
        print(table(rows))
    else:
        from sgm_hf.analysis.figures import plot_quality_by_minutes

        shown = [row for row in rows if "known label frequencies" not in row["system"]]  # more than colors can tell
        plot_quality_by_minutes(shown, arguments.output, "Quality against the processor time of the training")


if __name__ == "__main__":
    main()
