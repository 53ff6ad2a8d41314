import csv
import statistics
from pathlib import Path

import bench_label_texts
from datasets import ClassLabel, Dataset, Features, List, Value

from sgm_hf import label_sets_of

DOCUMENTS = Dataset.from_dict(
    {"text": list("abcde"), "labels": [[0, 1], [1], [2, 0], [], [2, 0, 1]]},
    features=Features({"text": Value("string"), "labels": List(ClassLabel(names=["x", "y", "z", "rare"]))}),
)


def test_left_out_labels_are_gone_with_the_documents_that_have_no_other():
    kept = bench_label_texts.without_labels(DOCUMENTS, ["y"])
    assert kept.features["labels"].feature.names == ["x", "z", "rare"]
    assert kept["text"][:] == ["a", "c", "e"]
    assert label_sets_of(kept) == [["x"], ["z", "x"], ["z", "x"]]


def test_labels_are_left_out_at_even_ranks_of_those_that_occur():
    assert bench_label_texts.spread_labels(DOCUMENTS, 3) == ["x", "y", "z"]
    assert bench_label_texts.spread_labels(DOCUMENTS, 1) == ["y"]


def test_the_page_has_the_means_of_the_rows():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "adding_labels.md").read_text(encoding="utf-8")
    with (root / "benchmarks" / "label_texts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for kind in ("without texts", "with texts"):
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {kind} |")]
        shown = [float(cell.strip(" *").split(" ")[0]) for cell in line.split("|")[2:-1]]
        columns = ("average_precision_with", "micro_f1_with", "average_precision_all", "micro_f1_all")
        values = [[float(row[name]) for row in rows if row["labels"] == kind] for name in columns]
        others = [float(row["micro_f1_of_others"]) for row in rows if row["labels"] == kind]
        assert shown == [round(statistics.mean(column), 3) for column in (*values, others)]
