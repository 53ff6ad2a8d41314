#!/usr/bin/env python
"""Time, memory and quality by number of training documents and size of the model.

    python benchmarks/bench_sizes.py
    python benchmarks/bench_sizes.py --corpus reuters21578 --data_dir data/reuters21578 --documents 1000 6900
    python benchmarks/bench_sizes.py table
    python benchmarks/bench_sizes.py draw

Each training has a process of its own, with one thread; its row is added to sizes.csv when it ends. Times are the
process' own processor time, which other load on the machine changes little; memory is its greatest resident memory.
`linear` is a linear SVM on TF-IDF features as scikit-learn makes it, untuned, to compare with. `table` and `draw`
make the table and the picture of docs/sizes.md from sizes.csv.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

SIZES_CSV = Path(__file__).with_name("sizes.csv")
PICTURE = Path(__file__).parents[1] / "docs" / "figures" / "sizes"
COLUMNS = (
    *("date", "commit", "corpus", "words", "labels", "documents", "model", "parameters", "epochs", "best_epoch"),
    *("training_seconds", "training_documents_per_second", "peak_mib", "beam_documents_per_second"),
    *("micro_f1", "micro_f1_threshold", "macro_f1", "zero_one_loss", "seed", "threads", "machine", "torch"),
)
MODELS = {
    "small": {"embedding_size": 32, "encoder_hidden_size": 32, "encoder_layers": 1, "decoder_hidden_size": 64},
    "medium": {"embedding_size": 96, "encoder_hidden_size": 96, "encoder_layers": 1, "decoder_hidden_size": 128},
    "large": {"embedding_size": 256, "encoder_hidden_size": 256, "encoder_layers": 2, "decoder_hidden_size": 512},
}
ARMS = (*MODELS, "linear")
# Documents seen in a training of a generative model: 30 epochs of 1,000 documents, 5 of 16,000.
SEEN = ((1_000, 30), (4_000, 12), (16_000, 5))
NUM_VALIDATION = 300


def epochs_for(num_documents: int) -> int:
    """The epochs of a training: those of the nearest number of documents in `SEEN`."""
    return min(SEEN, key=lambda pair: abs(pair[0] - num_documents))[1]


def load_splits(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Training, validation and test documents; validation documents are the last of the training split."""
    from sgm_hf import load_corpus

    corpus = load_corpus(arguments.corpus, data_dir=arguments.data_dir)
    train = corpus["train"].shuffle(seed=0)
    count = min(arguments.num_documents, len(train) - NUM_VALIDATION)
    validation = train.select(range(len(train) - NUM_VALIDATION, len(train)))
    test = corpus["test" if "test" in corpus else "validation"]
    return train.select(range(count)), validation, test


# ---- arms ----


def train_linear(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate a linear SVM, one label against the rest."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MultiLabelBinarizer
    from sklearn.svm import LinearSVC

    from sgm_hf import compute_metrics

    train, _, test = load_splits(arguments)
    classes = MultiLabelBinarizer(classes=range(train.features["labels"].feature.num_classes))
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), OneVsRestClassifier(LinearSVC(random_state=0)))
    start = time.process_time()
    model.fit(train["text"], classes.fit_transform(train["labels"]))
    seconds = time.process_time() - start
    start = time.process_time()
    predicted = model.predict(test["text"])
    metrics = compute_metrics(classes.transform(test["labels"]).astype(bool), predicted.astype(bool))
    return describe(arguments, train) | {
        "training_seconds": seconds,
        "training_documents_per_second": len(train) / seconds,
        "beam_documents_per_second": len(test) / (time.process_time() - start),
        **{name: metrics[name] for name in ("micro_f1", "macro_f1", "zero_one_loss")},
    }


def train_model(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a generative model, and evaluate its best epoch."""
    from transformers import set_seed
    from transformers.utils import logging

    import sgm_hf
    from sgm_hf.training import prepare_cpu

    logging.disable_progress_bar()
    prepare_cpu(1)
    set_seed(arguments.seed)
    train, validation, test = load_splits(arguments)
    tokenizer = sgm_hf.SGMTokenizer.train_from_texts(train["text"], vocab_size=20_000, model_max_length=300)
    names = sgm_hf.order_label_names(
        sgm_hf.label_sets_of(train), train.features["labels"].feature.names, order="frequency"
    )
    config = sgm_hf.SGMConfig(
        vocab_size=len(tokenizer),
        id2label=dict(enumerate(names)),
        label_feedback="global_embedding",
        dropout=0.3,
        **MODELS[arguments.arm],
    )
    encoded = [sgm_hf.encode_dataset(part, tokenizer, names) for part in (train, validation, test)]
    with tempfile.TemporaryDirectory() as folder:
        settings = sgm_hf.SGMTrainingArguments(
            folder,
            num_train_epochs=epochs_for(arguments.num_documents),
            learning_rate=2e-3 if arguments.arm != "large" else 1e-3,
            lr_scheduler_type="linear",
            per_device_train_batch_size=32,
            disable_tqdm=True,
            seed=arguments.seed,
        )
        trainer = sgm_hf.SGMTrainer(
            sgm_hf.SGMForMultiLabelGeneration(config), settings, train_dataset=encoded[0], eval_dataset=encoded[1]
        )
        start = time.process_time()
        trainer.train()
        seconds = time.process_time() - start
        start = time.process_time()
        metrics = trainer.predict(encoded[2]).metrics
        speed = len(test) / (time.process_time() - start)
    best = max((entry for entry in trainer.state.log_history if "eval_micro_f1" in entry), key=best_of)
    return describe(arguments, train) | {
        "parameters": trainer.model.num_parameters(),
        "epochs": settings.num_train_epochs,
        "best_epoch": best["epoch"],
        "training_seconds": seconds,
        "training_documents_per_second": settings.num_train_epochs * len(train) / seconds,
        "beam_documents_per_second": speed,
        "micro_f1": metrics["test_best_sequence_micro_f1"],
        "micro_f1_threshold": metrics["test_threshold_micro_f1"],
        "macro_f1": metrics["test_best_sequence_macro_f1"],
        "zero_one_loss": metrics["test_best_sequence_zero_one_loss"],
    }


def best_of(entry: dict[str, Any]) -> float:
    """What the best checkpoint is chosen by."""
    return entry["eval_micro_f1"]


def describe(arguments: argparse.Namespace, train: Any) -> dict[str, Any]:
    """What a row says of the data and the machine."""
    import torch

    from sgm_hf.training.summary import describe_machine

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "corpus": arguments.corpus,
        "words": round(sum(len(text.split()) for text in train["text"]) / len(train)),
        "labels": train.features["labels"].feature.num_classes,
        "documents": len(train),
        "model": arguments.arm,
        "seed": arguments.seed,
        "threads": 1,
        "machine": describe_machine()["cpu"],
        "torch": torch.__version__,
    }


# ---- the table and the picture ----


def read_rows() -> list[dict[str, str]]:
    """The rows of sizes.csv, by corpus, number of documents and model."""
    with SIZES_CSV.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    return sorted(rows, key=lambda row: (corpora.index(row["corpus"]), int(row["documents"]), order(row["model"])))


def order(arm: str) -> int:
    """The place of an arm: the linear model first."""
    return ("linear", *MODELS).index(arm)


def table() -> str:
    """The rows in Markdown."""
    from sgm_hf.tables import markdown_table

    columns = ("Corpus", "Documents", "Model", "Parameters", "Training", "Memory", "Predicted/s")
    lines = []
    for row in read_rows():
        million = f"{int(row['parameters']) / 1e6:.1f} M" if row["parameters"] else ""
        sizes = [row["corpus"], f"{int(row['documents']):,}", row["model"], million]
        seconds = f"{float(row['training_seconds']):,.{0 if row['parameters'] else 1}f} s"
        speed = f"{float(row['beam_documents_per_second']):,.0f}"
        scores = [f"{float(row[name]):.3f}" for name in ("micro_f1", "macro_f1", "zero_one_loss")]
        lines.append([*sizes, seconds, f"{int(row['peak_mib']):,} MiB", speed, *scores])
    return markdown_table([*columns, "micro-F1", "macro-F1", "0/1 loss"], lines)


def draw() -> None:
    """Micro-F1 over processor time, a panel per corpus, a line per model, a point per number of documents."""
    from matplotlib import pyplot

    from sgm_hf.analysis.figures import save_figure

    rows = read_rows()
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    figure, panels = pyplot.subplots(1, len(corpora), figsize=(4.6 * len(corpora), 3.8), layout="constrained")
    for corpus, axes in zip(corpora, [panels] if len(corpora) == 1 else panels, strict=True):
        for number, arm in enumerate(ARMS):
            points = sorted(
                (int(row["documents"]), float(row["training_seconds"]), float(row["micro_f1"]))
                for row in rows
                if (row["corpus"], row["model"]) == (corpus, arm)
            )
            if points:
                documents, seconds, scores = zip(*points, strict=True)
                axes.plot(seconds, scores, "o-", color=f"C{number}", label=arm)
                for point in points:
                    axes.annotate(f"{point[0]:,}", point[1:], xytext=(4, -11), textcoords="offset points", fontsize=7)
        words, labels = next((row["words"], row["labels"]) for row in rows if row["corpus"] == corpus)
        title = f"{corpus}: {words} words, {labels} labels"
        axes.set(xscale="log", xlabel="training, seconds of one core", title=title)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(0.15)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    (panels if len(corpora) == 1 else panels[0]).legend(frameon=False, loc="lower center")
    figure.supylabel("micro-F1 on unseen documents", fontsize=10)
    save_figure(figure, PICTURE)


# ---- the program ----


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=("measure", "table", "draw"), default="measure")
    parser.add_argument("--corpus", default="generated", help="a corpus of sgm_hf.load_corpus")
    parser.add_argument("--data_dir", help="its published files")
    parser.add_argument("--documents", type=int, nargs="+", default=[count for count, _ in SEEN])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--num_documents", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> None:
    """Run each arm for each number of documents in a process of its own, and add its row to sizes.csv."""
    from sgm_hf.tables import write_csv

    for num_documents in arguments.documents:
        for arm in arguments.arms:
            command = [sys.executable, "-W", "ignore", *sys.argv, "--arm", arm, "--num_documents", str(num_documents)]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            row = json.loads(run.stdout.splitlines()[-1])
            decimals = {"training_seconds": 1, "training_documents_per_second": 1, "beam_documents_per_second": 1}
            row = {k: round(v, decimals.get(k, 4)) if isinstance(v, float) else v for k, v in row.items()}
            write_csv([row], SIZES_CSV, COLUMNS, append=True)
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def main() -> None:
    """Measure, or draw what was measured."""
    arguments = parse_arguments()
    if arguments.action == "draw":
        draw()
    elif arguments.action == "table":
        print(table())
    elif arguments.arm is None:
        measure(arguments)
    else:
        row = train_linear(arguments) if arguments.arm == "linear" else train_model(arguments)
        print(json.dumps(row | {"peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}))


if __name__ == "__main__":
    main()
