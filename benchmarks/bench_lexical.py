#!/usr/bin/env python
"""Time, memory and quality of fitting the lexical branch, beside scikit-learn's liblinear on the same words.

    python benchmarks/bench_lexical.py --corpus reuters21578 --data_dir data/reuters21578 --cost 2
    python benchmarks/bench_lexical.py --corpus aapd --data_dir data/aapd --documents 12000 --bigram_weight 0.5

Both make the features of the encoded texts, and fit the model of all training documents and those of five folds. Each
has a process of its own, with one thread; its row is added to lexical.csv when it ends. Times are the process' own
processor time, which other load on the machine changes little; memory is its greatest resident memory. Micro-F1 is on
the test split, or on that of validation where there is none: by the sign of the scores, as `LinearSVC` predicts, and
by the threshold that is best for the out-of-fold scores. `test_documents_per_second` is from word ids to log-odds, in
batches of 64 by the branch, of all documents at once by scikit-learn.
"""

import argparse
import csv
import resource
import subprocess
import sys
import time
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sgm_hf import SGMTokenizer, compute_metrics, encode_dataset, fit_threshold, load_corpus
from sgm_hf.tables import markdown_table, write_csv
from sgm_hf.training import prepare_cpu
from sgm_hf.training.lexical import LexicalSettings, fit_lexical_branch

LEXICAL_CSV = Path(__file__).with_name("lexical.csv")
ARMS = ("liblinear", "ours")
BATCH = 64
COLUMNS = (
    *("date", "commit", "corpus", "documents", "words", "labels", "cost", "bigram_weight", "arm"),
    *("fit_seconds", "peak_mib", "micro_f1_sign", "micro_f1_threshold", "test_documents_per_second", "torch"),
)


def load_documents(arguments: argparse.Namespace) -> tuple[Any, Any, int, int]:
    """Encoded training and test documents, the number of words and that of labels."""
    corpus = load_corpus(arguments.corpus, data_dir=arguments.data_dir)
    train, test = corpus["train"].shuffle(seed=0), corpus["test" if "test" in corpus else "validation"]
    train = train.select(range(min(arguments.documents or len(train), len(train))))
    tokenizer = SGMTokenizer.train_from_texts(train["text"], model_max_length=10_000)
    names = train.features["labels"].feature.names
    return *(encode_dataset(part, tokenizer, names) for part in (train, test)), len(tokenizer), len(names)


def indicators(dataset: Any, num_labels: int) -> np.ndarray:
    """True labels, (documents, labels) bool."""
    found = np.zeros((len(dataset), num_labels), dtype=bool)
    for row, labels in enumerate(dataset["labels"]):
        found[row, labels] = True
    return found


def batches(dataset: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Padded word ids and their masks."""
    found = []
    for first in range(0, len(dataset), BATCH):
        rows = [torch.tensor(words) for words in dataset[first : first + BATCH]["input_ids"]]
        input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        found.append((input_ids, torch.arange(input_ids.shape[1]) < torch.tensor([[len(row)] for row in rows])))
    return found


# ---- arms: each returns scores whose sign decides of the test and (out of fold) of the training documents ----


def run_ours(train: Any, test: Any, sizes: tuple[int, int], settings: LexicalSettings) -> dict[str, Any]:
    """Fit and apply the branch."""
    start = time.process_time()
    fit = fit_lexical_branch(train, *sizes, settings)
    seconds = time.process_time() - start
    branch, padded = fit.branch(), batches(test)
    start = time.process_time()
    log_odds = torch.cat([branch(*batch) for batch in padded])
    speed = len(test) / (time.process_time() - start)
    out_of_fold = torch.cat(list(fit.iterate_out_of_fold_log_odds(train)))
    # Of the score 0 the log-odds are the intercept.
    scores = (log_odds.numpy() - fit.intercept, out_of_fold.numpy() - fit.intercept)
    return {"scores": scores, "fit_seconds": seconds, "test_documents_per_second": speed}


def run_liblinear(train: Any, test: Any, sizes: tuple[int, int], settings: LexicalSettings) -> dict[str, Any]:
    """The same with scikit-learn."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize
    from sklearn.svm import LinearSVC

    words = TfidfVectorizer(analyzer=lambda ids: ids, sublinear_tf=True, norm=None, min_df=settings.min_documents)
    pairs = TfidfVectorizer(
        analyzer=lambda ids: list(pairwise(ids)),
        sublinear_tf=True,
        norm=None,
        min_df=settings.min_bigram_documents,
        max_features=settings.max_bigrams,
    )
    kinds = [(words, 1.0)] + ([(pairs, settings.bigram_weight)] if settings.bigram_weight else [])

    def features(documents: list[list[int]], method: str) -> Any:
        parts = [weight * getattr(vectorizer, method)(documents) for vectorizer, weight in kinds]
        return normalize(hstack(parts, format="csr").astype(np.float32))

    truth = indicators(train, sizes[1])
    folds = np.random.default_rng(settings.seed).permutation(len(train)) % settings.num_folds
    train_ids, test_ids = train["input_ids"][:], test["input_ids"][:]
    start = time.process_time()
    matrix = features(train_ids, "fit_transform")
    out_of_fold = np.full(truth.shape, -1.0, dtype=np.float32)
    models = {}
    for label in range(sizes[1]):
        for fold in range(settings.num_folds + 1):
            inside = folds != fold
            if not truth[inside, label].any():
                continue
            model = LinearSVC(C=settings.cost).fit(matrix[inside], truth[inside, label])
            if fold < settings.num_folds:
                out_of_fold[~inside, label] = model.decision_function(matrix[~inside])
            else:
                models[label] = model
    seconds = time.process_time() - start
    start = time.process_time()
    test_matrix = features(test_ids, "transform")
    scores = np.full((len(test), sizes[1]), -1.0, dtype=np.float32)
    for label, model in models.items():
        scores[:, label] = model.decision_function(test_matrix)
    speed = len(test) / (time.process_time() - start)
    return {"scores": (scores, out_of_fold), "fit_seconds": seconds, "test_documents_per_second": speed}


def run_arm(arguments: argparse.Namespace) -> dict[str, Any]:
    """Be an arm; its row."""
    prepare_cpu(1)
    train, test, vocab_size, num_labels = load_documents(arguments)
    settings = LexicalSettings(cost=arguments.cost, bigram_weight=arguments.bigram_weight)
    run = run_ours if arguments.arm == "ours" else run_liblinear
    result = run(train, test, (vocab_size, num_labels), settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    scores, out_of_fold = (1 / (1 + np.exp(-part.astype(np.float64))) for part in result.pop("scores"))
    truth = indicators(test, num_labels)
    threshold = fit_threshold(indicators(train, num_labels), out_of_fold)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "corpus": arguments.corpus,
        "documents": len(train),
        "words": vocab_size,
        "labels": num_labels,
        "cost": settings.cost,
        "bigram_weight": settings.bigram_weight,
        "arm": arguments.arm,
        "fit_seconds": round(result["fit_seconds"], 2),
        "peak_mib": round(peak),
        "micro_f1_sign": round(compute_metrics(truth, scores > 0.5)["micro_f1"], 4),
        "micro_f1_threshold": round(compute_metrics(truth, scores >= threshold)["micro_f1"], 4),
        "test_documents_per_second": round(result["test_documents_per_second"]),
        "torch": torch.__version__,
    }


def main() -> None:
    """Run the arms one after the other, keep their rows, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="reuters21578", help="name of the corpus")
    parser.add_argument("--data_dir", help="its folder or archive")
    parser.add_argument("--documents", type=int, help="training documents; by default all")
    parser.add_argument("--cost", type=float, default=1.0, help="C")
    parser.add_argument("--bigram_weight", type=float, default=0.0, help="weight of pairs of adjacent words")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="what to run")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm is not None:
        write_csv([run_arm(arguments)], LEXICAL_CSV, COLUMNS, append=True)
        return
    for arm in arguments.arms:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--arm", arm], check=True)
    with LEXICAL_CSV.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[-len(arguments.arms) :]
    print(markdown_table(COLUMNS[2:-1], ([row[column] for column in COLUMNS[2:-1]] for row in rows)))


if __name__ == "__main__":
    main()
