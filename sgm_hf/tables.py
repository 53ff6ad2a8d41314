"""Tables as Markdown and as CSV."""

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def markdown_table(titles: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table without a line break at its end; "|" in a cell is escaped."""
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |" for cells in (titles, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(titles), *lines[1:]])


def mean_and_deviation(values: Sequence[float], decimals: int) -> str:
    """The mean, and the standard deviation if there are several values, for the cell of a table."""
    mean = f"{statistics.mean(values):.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{decimals}f}"


def cells_of_groups(
    groups: Mapping[Any, Sequence[Mapping[str, Any]]],
    metrics: Mapping[str, tuple[bool, int]],
    kind: Callable[[Any], Any] = lambda key: None,
) -> dict[Any, list[str]]:
    """The cells of a table with a line per group of rows: their means, with the best of each column in bold.

    Args:
        groups: The rows of each line, by a key of the line.
        metrics: Of each column, by the entry of a row: whether more is better, and the decimals.
        kind: What lines that are compared have in common, from their key; default: all are. One alone has no best.

    Returns:
        A cell for each metric, by the key of the line.
    """
    means = {
        key: {name: statistics.mean(float(row[name]) for row in rows) for name in metrics}
        for key, rows in groups.items()
    }
    lines: dict[Any, list[str]] = {}
    for key, rows in groups.items():
        compared = [mean for other, mean in means.items() if kind(other) == kind(key)]
        lines[key] = []
        for name, (more_is_better, decimals) in metrics.items():
            cell = mean_and_deviation([float(row[name]) for row in rows], decimals)
            best = (max if more_is_better else min)(mean[name] for mean in compared)
            lines[key].append(f"**{cell}**" if len(compared) > 1 and means[key][name] == best else cell)
    return lines


def span(values: Sequence[float]) -> str:
    """Several numbers, such as the thresholds of all labels, in the space of one: "0.12 to 0.58, median 0.3 (54)"."""
    low, middle, high = (f"{value:.3g}" for value in (min(values), statistics.median(values), max(values)))
    return f"{low} to {high}, median {middle} ({len(values)})"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same entries as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(
    rows: Sequence[Mapping[str, Any]],
    path: str | Path,
    columns: Sequence[str] | None = None,
    float_format: str = "",
    append: bool = False,
) -> None:
    """Write rows as CSV.

    Args:
        rows: At least one if `columns` is not given.
        path: The file; its folder is made where it is missing.
        columns: The entries of a row that are written; by default all of the first row.
        float_format: How numbers are written, e.g. ".6g".
        append: Whether the rows are added to the end of the file if it exists.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    has_header = append and path.exists()
    with path.open("a" if append else "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), extrasaction="ignore", lineterminator="\n")
        if not has_header:
            writer.writeheader()
        for row in rows:
            writer.writerow({k: format(v, float_format) if isinstance(v, float) else v for k, v in row.items()})
