#!/usr/bin/env python
"""Labels without examples: some are left out of training and added afterwards, with and without their texts.

    python benchmarks/bench_label_texts.py --corpus aapd --data_dir data/aapd --validation_split_size 1500 \
        --label_texts examples/label_texts/aapd.json --seeds 1 2 3
    python benchmarks/bench_label_texts.py --corpus generated --num_labels 3 --label_texts texts.json -- --preset none

The labels are taken away from training and validation documents; documents left without a label are not used. A model
is trained on the rest as `sgm-hf train --preset fast` does, the labels are added by `model.add_labels` to copies of
it, and measured on the test documents, without any training on them:

- average precision and micro-F1 of the left-out labels on the documents that have at least one of them, and on all
  (average precision is the mean of the labels that have documents);
- micro-F1 of the other labels on all documents, which new labels may lower.

By default the left-out labels are spread evenly over the labels' ranks by frequency. What stands behind `--` are
options of `sgm-hf train`. Rows are added to label_texts.csv. Without texts the labels start as average ones.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_presets import train
from bench_svm import add_document_options, check_document_options, describe_run, load_splits, split_command_line
from datasets import ClassLabel, Dataset, List
from sklearn.metrics import average_precision_score

from sgm_hf import SGMTrainer, compute_metrics, encode_dataset, label_sets_of
from sgm_hf.data import read_label_texts
from sgm_hf.data.labels import label_matrix
from sgm_hf.programs.ending import log_to_stderr
from sgm_hf.tables import write_csv

LABEL_TEXTS_CSV = Path(__file__).with_name("label_texts.csv")
MEASURED = (
    *("average_precision_with", "micro_f1_with", "average_precision_all", "micro_f1_all"),
    "micro_f1_of_others",
)
COLUMNS = ("corpus", "split", "left_out", "labels", "seed", *MEASURED, "cpu", "cores", "commit", "command")


def without_labels(dataset: Dataset, left_out: Sequence[str]) -> Dataset:
    """The documents without some labels, and without those that have no other."""
    names = [name for name in dataset.features["labels"].feature.names if name not in left_out]
    ids = {name: label for label, name in enumerate(names)}
    label_sets = [[ids[name] for name in labels if name in ids] for labels in label_sets_of(dataset)]
    changed = dataset.remove_columns("labels").add_column("labels", label_sets, feature=List(ClassLabel(names=names)))
    return changed.select([row for row, labels in enumerate(label_sets) if labels])


def spread_labels(train_documents: Dataset, count: int) -> list[str]:
    """Labels at even distances among those that occur, by frequency."""
    names = train_documents.features["labels"].feature.names
    counts = np.bincount([label for labels in train_documents["labels"] for label in labels], minlength=len(names))
    ranked = [names[label] for label in np.argsort(-counts, kind="stable") if counts[label]]
    places = (np.arange(count) + 0.5) * len(ranked) / count
    return [ranked[int(place)] for place in places]


def measure(trainer: SGMTrainer, test: Dataset, left_out: Sequence[str]) -> dict[str, float]:
    """The metrics of a model that has the left-out labels as its last ones, on test documents as loaded."""
    model = trainer.model
    names = list(model.config.id2label.values())
    encoded = encode_dataset(test, trainer.processing_class, names, unknown_labels="count")
    output = trainer.predict(encoded)
    true = output.references
    found = label_matrix(output.label_sets, true.shape[1])
    scores = output.predictions.label_scores_of(true.shape[1])
    new = [model.config.label2id[name] for name in left_out]
    old = [label for label in range(true.shape[1]) if label not in new]
    having = true[:, new].any(axis=1)
    metrics = {"micro_f1_of_others": compute_metrics(true[:, old], found[:, old])["micro_f1"]}
    for where, rows in (("with", having), ("all", np.ones(len(true), dtype=bool))):
        metrics[f"micro_f1_{where}"] = compute_metrics(true[rows][:, new], found[rows][:, new])["micro_f1"]
        precisions = [
            average_precision_score(true[rows, label], scores[rows, label]) for label in new if true[rows, label].any()
        ]
        metrics[f"average_precision_{where}"] = float(np.mean(precisions))
    return {name: round(metrics[name], 4) for name in MEASURED}


def systems(trainer: SGMTrainer, left_out: Sequence[str], texts: dict[str, str]) -> dict[str, Any]:
    """Copies of a trained model that have the left-out labels, by how they got them."""
    models = {name: copy.deepcopy(trainer.model) for name in ("without texts", "with texts")}
    models["without texts"].add_labels(left_out)
    models["without texts"].mark_labels_trained()  # else they would not be predicted at all
    models["with texts"].add_labels(left_out, texts, trainer.processing_class)
    return models


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and the options behind `--`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_document_options(parser)
    parser.add_argument("--label_texts", required=True, help="as sgm-hf train takes them")
    parser.add_argument("--num_labels", type=int, default=10, help="number of labels that are left out")
    parser.add_argument("--labels", nargs="+", help="these labels instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--output", type=Path, default=LABEL_TEXTS_CSV)
    own, options = split_command_line()
    arguments = parser.parse_args(own)
    check_document_options(parser, arguments)
    return arguments, options or ["--preset", "fast"]


def main() -> None:
    """Train, add the labels, measure, and add the rows to the file."""
    arguments, options = parse_arguments()
    log_to_stderr()
    train_documents, validation, test, split = load_splits(arguments)
    left_out = arguments.labels or spread_labels(train_documents, arguments.num_labels)
    texts = read_label_texts(arguments.label_texts, train_documents.features["labels"].feature.names)
    print(
        f"left out: {json.dumps({name: texts.get(name, name) for name in left_out}, ensure_ascii=False)}", flush=True
    )
    kept = [without_labels(part, left_out) for part in (train_documents, validation)]
    run = describe_run()
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            settings = ["--seed", str(seed), "--save_strategy", "no", *options]
            splits = {"train": kept[0], "validation": kept[1], "test": kept[1]}
            trainer = train(splits, settings, folder)
            if trainer.model.lexical is not None:
                trainer.calibrate(objective="micro_f1")
            for system, model in systems(trainer, left_out, texts).items():
                trainer.model = trainer.model_wrapped = model
                row = {
                    "corpus": arguments.corpus or Path(arguments.train_file).stem,
                    "split": split,
                    "left_out": " ".join(left_out),
                    "labels": system,
                    "seed": seed,
                    **measure(trainer, test, left_out),
                    **run,
                }
                print(", ".join(f"{name} {value}" for name, value in list(row.items())[3:10]), flush=True)
                write_csv([row], arguments.output, COLUMNS, append=True)


if __name__ == "__main__":
    main()
