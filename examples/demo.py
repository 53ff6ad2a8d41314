#!/usr/bin/env python
"""The main job in one go: train on the generated corpus, compare with its known optimum, predict with the pipeline.

    python examples/demo.py

The generated corpus needs no download, and the best micro-F1 that any reader of its texts can reach is known. Results
go to a new folder below `runs/`.
"""

import tempfile
import time
from pathlib import Path

from transformers import pipeline

from sgm_hf import load_corpus
from sgm_hf.datasets_scripts import default_process
from sgm_hf.programs import parse_arguments, run_main, run_training

CONFIG = Path(__file__).parent / "configs" / "generated_sgm_ge.json"
NUM_SHOWN = 4


def show_predictions(checkpoint: Path, texts: list[str], gold: list[list[str]]) -> None:
    """Predict the labels of texts with the pipeline, and print them with the true ones."""
    classifier = pipeline("multi-label-generation", model=str(checkpoint))
    for text, predicted, labels in zip(texts, classifier(texts), gold, strict=True):
        print(f"\ntext       {text[:100]}…")
        print("predicted  " + ", ".join(f"{label['label']} {label['score']:.2f}" for label in predicted))
        print("true       " + ", ".join(sorted(labels)))


def main() -> float:
    """Run the demo, and return the model's micro-F1 on unseen texts as a share of the optimum's."""
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    output_dir = Path(tempfile.mkdtemp(prefix="demo-", dir=runs))
    start = time.perf_counter()
    _, metrics = run_training(*parse_arguments([str(CONFIG), "--output_dir", str(output_dir)]))
    minutes = (time.perf_counter() - start) / 60

    test = load_corpus("generated", split="test")
    names = test.features["labels"].feature.names
    gold = [[names[i] for i in labels] for labels in test["labels"]]
    reached = metrics["test"]["micro_f1"]
    optimum = default_process().optimal_micro_f1(test["text"], gold)
    show_predictions(output_dir, test["text"][:NUM_SHOWN], gold[:NUM_SHOWN])
    print(f"\ntraining and evaluation took {minutes:.1f} minutes; the model is in {output_dir}")
    print(f"micro-F1 on {len(gold):,} unseen texts: {reached:.3f}; the best possible: {optimum:.3f}")
    print(f"share of the optimum: {reached / optimum:.1%}")
    return reached / optimum


if __name__ == "__main__":
    run_main(main)
