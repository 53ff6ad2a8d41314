#!/usr/bin/env python
"""Make files of two corpora with the labels that they share, to train on one and evaluate on the other.

    python examples/cross_dataset.py examples/cross_dataset/labels.json --output_dir data/cross
    sgm-hf study train examples/cross_dataset/study.json --output_dir runs/cross_dataset

The settings file names two corpora, each with what `load` of `sgm_hf.datasets_scripts` takes, and for each of their
labels that takes part the name that both have in common. Other labels are left out, and documents that have no other.
`train.jsonl` has the training documents of the first corpus, `own_test.jsonl` its test documents, `test.jsonl` all
documents of the second.
"""

import argparse
import json
from pathlib import Path

from datasets import Dataset, concatenate_datasets

from sgm_hf.datasets_scripts import load
from sgm_hf.programs import run_main


def with_shared_labels(documents: Dataset, shared: dict[str, str]) -> Dataset:
    """Id, text and labels by their shared names, of the documents that have one.

    Raises:
        ValueError: If the corpus lacks a label of the settings file, or no document has one of them.
    """
    names = documents.features["labels"].feature.names
    unknown = sorted(shared.keys() - set(names))
    if unknown:
        raise ValueError(f"the settings file has the label {unknown[0]!r}; the corpus has {', '.join(names)}.")
    rows = [
        {
            "id": document["id"],
            "text": document["text"],
            "labels": sorted({shared[names[label]] for label in document["labels"] if names[label] in shared}),
        }
        for document in documents
    ]
    kept = [row for row in rows if row["labels"]]
    if not kept:
        raise ValueError(
            f"none of {len(rows)} documents has one of the labels of the settings file: {', '.join(shared)}."
        )
    return Dataset.from_list(kept)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path, help="the JSON file")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the files")
    arguments = parser.parse_args()
    first, second = json.loads(arguments.settings.read_text(encoding="utf-8"))
    corpora = [load(one["name"], config=one.get("config"), data_dir=one.get("data_dir")) for one in (first, second)]
    parts = {
        "train": with_shared_labels(corpora[0]["train"], first["labels"]),
        "own_test": with_shared_labels(corpora[0]["test"], first["labels"]),
        "test": with_shared_labels(concatenate_datasets(list(corpora[1].values())), second["labels"]),
    }
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for name, documents in parts.items():
        documents.to_json(arguments.output_dir / f"{name}.jsonl", force_ascii=False)
        print(f"{name}.jsonl: {len(documents):,} documents")


if __name__ == "__main__":
    run_main(main)
