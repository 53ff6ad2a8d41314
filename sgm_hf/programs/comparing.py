"""`sgm-hf compare`: systems from their prediction files, as a table, JSON or CSV."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sgm_hf.analysis.comparison import Comparison, DocumentDifference, compare_predictions, corrected, enough_resamples
from sgm_hf.tables import csv_text
from sgm_hf.training.checkpoints import write_text_atomically

TITLES = {
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "micro_precision": "micro precision",
    "micro_recall": "micro recall",
    "samples_f1": "F1 of a document",
    "hamming_loss": "Hamming loss *",
    "zero_one_loss": "0/1 loss *",
}
FORMATS = (".json", ".csv")


def compare_systems(
    systems: Sequence[Sequence[str | Path]],
    set_decoding: str = "labels",
    resamples: int | None = None,
    seed: int = 0,
    show: int = 10,
    num_labels: int | None = None,
    output: str | Path | None = None,
) -> list[Comparison]:
    """Compare each further system with the first; the p-values are corrected for all comparisons together.

    Args:
        systems: The prediction files of each system, one per run.
        set_decoding: As `compare_predictions` takes it, like all that follow.
        resamples: Repetitions of the bootstrap; default 2,000, and more of many systems.
        seed: Seed of the draws.
        show: How many documents to list.
        num_labels: Number of labels.
        output: File to write, JSON or CSV by its ending.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If there are fewer than two systems, `output` ends in something else, or a file or a number has a
            fault.
    """
    if len(systems) < 2:
        raise ValueError(f"there is nothing to compare with {len(systems)} system; give two or more.")
    if output is not None and Path(output).suffix not in FORMATS:
        raise ValueError(f"--output is {output}; its ending must be {' or '.join(FORMATS)}, which says the format.")
    first, *others = systems
    resamples = enough_resamples(len(others)) if resamples is None else resamples
    comparisons = corrected(
        [compare_predictions(first, other, set_decoding, resamples, seed, show, num_labels) for other in others]
    )
    if output is not None:
        write_comparisons(comparisons, Path(output))
    return comparisons


def write_comparisons(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write comparisons as JSON, with the documents, or as CSV, a row per metric."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [asdict(comparison) for comparison in comparisons]
    if path.suffix == ".json":
        write_text_atomically(path, json.dumps(records, indent=2, ensure_ascii=False) + "\n")
        return
    rows = []
    for record in records:
        metrics = record.pop("metrics")
        del record["most_different"]
        files = {side: " ".join(record.pop(side)) for side in "ab"}
        # The values of a metric are named a and b, too.
        rows += [{"files_a": files["a"], "files_b": files["b"], **record, **metric} for metric in metrics]
    write_text_atomically(path, csv_text(rows))


def comparison_text(comparisons: Sequence[Comparison]) -> str:
    """Comparisons as tables, each with the documents where the two systems differ most."""
    lines = [line for comparison in comparisons for line in [*table_lines(comparison), ""]]
    lines += [
        "* lower is better. p: of a difference by chance, for this row alone.",
        f"p (Holm): corrected for all {comparisons[0].corrected_for} rows above.",
    ]
    if all(len(runs) == 1 for comparison in comparisons for runs in (comparison.a, comparison.b)):
        lines.append("The intervals are about these runs alone; to cover other seeds, give several with --a and --b.")
    for comparison in comparisons:
        if comparison.most_different:
            name = "" if len(comparisons) == 1 else f" from {comparison.b[0]}"
            lines += ["", f"documents that differ most{name}, by F1"]
            lines += [line for document in comparison.most_different for line in document_lines(document)]
    return "\n".join(lines)


def table_lines(comparison: Comparison) -> list[str]:
    """One comparison: what was compared, and a line per metric."""
    drawn = "documents" if len(comparison.a) == len(comparison.b) == 1 else "documents and runs"
    lines = [
        *(f"{side}  {path}" for side, paths in (("A", comparison.a), ("B", comparison.b)) for path in paths),
        f"{comparison.documents:,} documents, {comparison.labels:,} labels, sets of {comparison.set_decoding!r}; "
        f"{comparison.resamples:,} resamples of {drawn}, seed {comparison.seed}",
        "",
        f"{'':<17}{'A':>8}{'B':>8}{'B - A':>9}   {'95 % interval':<21}{'p':>8}{'p (Holm)':>10}",
    ]
    for row in comparison.metrics:
        places = 5 if row.metric == "hamming_loss" else 4
        a, b = (f"{value:>8.{places}f}" for value in (row.a, row.b))
        interval = f"{row.low:+.{places}f} to {row.high:+.{places}f}"
        lines.append(
            f"{TITLES[row.metric]:<17}{a}{b}{row.difference:>+9.{places}f}   {interval:<21}"
            f"{row.p_value:>8.4f}{row.p_holm:>10.4f}"
        )
    return lines


def document_lines(document: DocumentDifference) -> list[str]:
    """A document: its id and F1, and the three label sets."""
    sets = {"true": document.gold, "A": document.a, "B": document.b}
    return [
        f"{document.id}  F1 of A {document.f1_a:.3f}, of B {document.f1_b:.3f}",
        *(f"  {name:<5}{', '.join(labels) or '(none)'}" for name, labels in sets.items()),
    ]
