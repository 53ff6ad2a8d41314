#!/usr/bin/env python
"""A label hierarchy in training: flat and hierarchical F1 with and without it, and sets that violate it.

    python benchmarks/bench_hierarchy.py --data_dir data/rcv1 --hierarchy data/rcv1/rcv1.topics.hier --seeds 1 2 3
    python benchmarks/bench_hierarchy.py --corpus generated --config default --hierarchy labels.json -- --preset none

A quarter of the documents, chosen by seed 0, is for the test; `sgm-hf train` makes the rest from what remains. Three
systems are measured for each seed, in rows of hierarchy.csv: a model trained without the hierarchy, the same model
when its generation is constrained by it, and one trained with it (`--label_hierarchy`: labels in its order, generation
constrained). What stands behind `--` are options of `sgm-hf train`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_svm import describe_run, split_command_line

from sgm_hf import compute_metrics, load_corpus
from sgm_hf.data.hierarchy import parents_of_labels, read_label_hierarchy, with_ancestors
from sgm_hf.data.labels import label_matrix
from sgm_hf.metrics import compute_hierarchical_metrics
from sgm_hf.programs.options import parse_arguments as parse_settings
from sgm_hf.programs.splits import split_off
from sgm_hf.programs.training import run_evaluation, run_training
from sgm_hf.tables import write_csv

HIERARCHY_CSV = Path(__file__).with_name("hierarchy.csv")
MEASURED = ("micro_f1", "macro_f1", "hierarchical_precision", "hierarchical_recall", "hierarchical_f1", "violations")
COLUMNS = ("corpus", "test_documents", "system", "seed", *MEASURED, "minutes", "cpu", "cores", "commit", "command")


def write_splits(arguments: argparse.Namespace, folder: Path) -> tuple[list[str], list[str]]:
    """Write the documents as files of `sgm-hf train`.

    Returns:
        The options that name them, and the label names.
    """
    documents = load_corpus(arguments.corpus, arguments.config, data_dir=arguments.data_dir, split="train")
    rest, test = split_off(documents, 0.25, 0, "test")
    options = []
    for name, part in (("train", rest), ("test", test)):
        path = folder / f"{name}.parquet"
        part.to_parquet(path)
        options += [f"--{name}_file", str(path)]
    return options, documents.features["labels"].feature.names


def measure(predictions: Path, names: list[str], parents: dict[str, str]) -> dict[str, float]:
    """Flat and hierarchical metrics of the sets that a run has predicted, and the share of sets that violate."""
    records = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    ids = {name: column for column, name in enumerate(names)}
    true, found = (
        label_matrix([[ids[name] for name in record[field]] for record in records], len(names))
        for field in ("gold", "labels")
    )
    columns = np.array([ids[parents[name]] if name in parents else -1 for name in names])
    metrics = compute_metrics(true, found) | compute_hierarchical_metrics(true, found, columns)
    sets = [record["labels"] for record in records]
    violations = sum(len(with_ancestors(labels, parents)) > len(labels) for labels in sets)
    metrics["violations"] = violations / len(sets)
    return {name: round(metrics[name], 4) for name in MEASURED}


def systems(folder: Path, files: list[str], hierarchy: str, options: list[str]) -> dict[str, tuple[Path, float]]:
    """The predictions of each system, and its minutes."""
    flat, constrained, trained = (folder / name for name in ("flat", "constrained", "trained"))
    with_hierarchy = ["--label_hierarchy", hierarchy]
    test = [*files[2:], "--do_predict", "true", "--disable_tqdm", "true"]
    runs: dict[str, tuple[Any, list[str]]] = {
        "without": (run_training, [*files, *options, "--output_dir", str(flat)]),
        "constrained generation": (
            run_evaluation,
            ["--model_name_or_path", str(flat), *test, *with_hierarchy, "--output_dir", str(constrained)],
        ),
        "training and generation": (
            run_training,
            [*files, *options, *with_hierarchy, "--output_dir", str(trained)],
        ),
    }
    found = {}
    for (system, (run, arguments)), output in zip(runs.items(), (flat, constrained, trained), strict=True):
        start = time.process_time()
        run(*parse_settings(arguments))
        found[system] = output / "predictions_test.jsonl", (time.process_time() - start) / 60
    return found


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and the options behind `--`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="rcv1_v2")
    parser.add_argument("--config", default="sample")
    parser.add_argument("--data_dir")
    parser.add_argument("--hierarchy", required=True, help="as --label_hierarchy of sgm-hf train takes it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--output", type=Path, default=HIERARCHY_CSV)
    own, options = split_command_line()
    return parser.parse_args(own), options or ["--preset", "fast"]


def main() -> None:
    """Train, measure, and add the rows to the file."""
    arguments, options = parse_arguments()
    run = describe_run()
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files, names = write_splits(arguments, folder)
            parents = parents_of_labels(read_label_hierarchy(arguments.hierarchy), names)
            settings = [*options, "--seed", str(seed), "--do_train", "true", "--do_predict", "true"]
            for system, (path, minutes) in systems(folder, files, arguments.hierarchy, settings).items():
                row = {
                    "corpus": arguments.corpus,
                    "test_documents": len(path.read_text(encoding="utf-8").splitlines()),
                    "system": system,
                    "seed": seed,
                    **measure(path, names, parents),
                    "minutes": round(minutes, 2),
                    **run,
                }
                print(", ".join(f"{name} {value}" for name, value in list(row.items())[:11]), flush=True)
                write_csv([row], arguments.output, COLUMNS, append=True)


if __name__ == "__main__":
    main()
