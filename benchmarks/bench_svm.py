#!/usr/bin/env python
"""A tuned linear SVM, to compare with: its quality on test documents, and its minutes.

    python benchmarks/bench_svm.py --corpus reuters21578 --data_dir data/reuters21578.tar.gz --refit
    python benchmarks/bench_svm.py --corpus aapd --data_dir data/aapd --validation_split_size 1500
    python benchmarks/bench_svm.py --train_file my.csv --test_file test.csv --setting 0.5 0.3 3

One label against the rest (liblinear, squared hinge) over the words of `SGMTokenizer`, and pairs of neighbouring words
at a lower weight: (1 + log tf) * idf, rows of length 1. Weight of the pairs, C and the least number of documents of a
feature are chosen on validation documents alone, which are split off the training documents as `sgm-hf train` does it.
Rows of three objectives are added to presets.csv:

micro_f1     the setting with the highest micro-F1 on validation, one threshold fitted there
macro_f1     the same setting; a threshold for each label, fitted on the scores that five models give to the training
             documents that they have not seen, and moved half-way to the one threshold that is best for all of these
exact_match  the setting and the threshold with the lowest 0/1 loss on validation

`--label_frequencies` says how frequent labels are among the test documents, where that differs: margins move by as
much as log-odds would, and thresholds are fitted to documents drawn in such shares, as in `SGMTrainer.calibrate`.

`--refit` adds the first two of a model of the chosen setting that is trained on the validation documents too, and
whose thresholds come from five models likewise. Times are the process' own processor time: words, features, fit and
models of the thresholds of that setting; the time of the whole choice is printed.
"""

import argparse
import itertools
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from scipy import sparse
from sklearn.svm import LinearSVC

from sgm_hf import SGMTokenizer, compute_metrics, load_corpus
from sgm_hf.data.files import load_files
from sgm_hf.data.labels import label_matrix
from sgm_hf.programs.splits import split_off
from sgm_hf.tables import write_csv
from sgm_hf.training.calibration import fit_platt, probabilities
from sgm_hf.training.priors import PriorShift, fit_prior_shift, read_label_frequencies, resampled_rows
from sgm_hf.training.summary import describe_machine

PRESETS_CSV = Path(__file__).with_name("presets.csv")
COLUMNS = (
    *("corpus", "split", "system", "objective", "seed", "micro_f1", "macro_f1", "zero_one_loss", "cpu_minutes"),
    *("cpu", "cores", "commit", "command"),
)
FOLDS = 5
KNOWN_FREQUENCIES = ", known label frequencies"


class Setting(NamedTuple):
    """What is chosen: weight of pairs of words (0: none), C, and least number of documents of a feature."""

    bigram_weight: float
    cost: float
    min_df: int


class Documents(NamedTuple):
    """Word ids of each document, and the true labels, (N, L) bool."""

    ids: list[np.ndarray]
    truth: np.ndarray


class Model(NamedTuple):
    """Weights (F, L) and bias (L)."""

    weights: np.ndarray
    bias: np.ndarray


# ---- features ----


class Features:
    """(1 + log tf) * idf of words and pairs of neighbours, rows of length 1: what is seen in training documents."""

    def __init__(self, ids: list[np.ndarray], bigram_weight: float, min_df: int):
        self.bigram_weight = bigram_weight
        rows, keys = self._keys(ids)
        found, places = np.unique(keys, return_inverse=True)
        counts = sparse.coo_matrix((np.ones(len(rows)), (rows, places)), shape=(len(ids), len(found))).tocsr()
        documents = np.bincount(counts.indices, minlength=len(found))  # (F), that have each feature
        self.keys, documents = found[documents >= min_df], documents[documents >= min_df]
        self.scale = np.log((1 + len(ids)) / (1 + documents)) + 1  # scikit-learn's smooth idf
        self.scale[self.keys >= 2**32] *= bigram_weight

    def _keys(self, ids: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Document and key of each occurrence: a word's id, or for a pair first * 2**32 + second."""
        rows = np.repeat(np.arange(len(ids)), [len(words) for words in ids])
        words = np.concatenate(ids)
        known = words > 1  # neither padding nor an unknown word
        if not self.bigram_weight:
            return rows[known], words[known]
        together = known[:-1] & known[1:] & (rows[:-1] == rows[1:])
        pairs = (words[:-1] << 32) + words[1:]
        return np.concatenate([rows[known], rows[:-1][together]]), np.concatenate([words[known], pairs[together]])

    def transform(self, ids: list[np.ndarray]) -> sparse.csr_matrix:
        """The features of documents, (N, F)."""
        rows, keys = self._keys(ids)
        places = np.searchsorted(self.keys, keys)
        seen = self.keys[np.minimum(places, len(self.keys) - 1)] == keys
        shape = len(ids), len(self.keys)
        matrix = sparse.coo_matrix((np.ones(seen.sum()), (rows[seen], places[seen])), shape=shape).tocsr()
        matrix.data = (1 + np.log(matrix.data)) * self.scale[matrix.indices]
        length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())  # (N)
        return sparse.diags(1 / np.maximum(length, 1e-12)) @ matrix


# ---- models and thresholds ----


def fit(features: sparse.csr_matrix, truth: np.ndarray, cost: float) -> Model:
    """One linear SVM for each label; a label that no or every document has keeps that answer."""
    weights = np.zeros((features.shape[1], truth.shape[1]))
    bias = np.where(truth.all(axis=0), 1.0, -1.0)
    for label in np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0)):
        svm = LinearSVC(C=cost, random_state=0).fit(features, truth[:, label])
        weights[:, label], bias[label] = svm.coef_[0], svm.intercept_[0]
    return Model(weights, bias)


def margins(model: Model, features: sparse.csr_matrix) -> np.ndarray:
    """The score of each label, (N, L)."""
    return features @ model.weights + model.bias


def held_out_margins(features: sparse.csr_matrix, truth: np.ndarray, cost: float) -> np.ndarray:
    """The score of each label for each document, of the one of five models that was trained without it, (N, L)."""
    fold = np.random.default_rng(0).permutation(len(truth)) % FOLDS
    scores = np.empty(truth.shape)
    for number in range(FOLDS):
        own = fold == number
        scores[own] = margins(fit(features[~own], truth[~own], cost), features[own])
    return scores


def micro_f1_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of the highest micro-F1, between two neighbouring scores."""
    order = np.argsort(-scores, axis=None)
    ranked = scores.ravel()[order]
    micro_f1 = 2 * truth.ravel()[order].cumsum() / (np.arange(1, truth.size + 1) + truth.sum())
    # Only where the next score is lower can a threshold lie.
    micro_f1[:-1][ranked[:-1] == ranked[1:]] = -1
    best = int(micro_f1.argmax())
    return float((ranked[best] + ranked[min(best + 1, truth.size - 1)]) / 2)


def label_thresholds(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """A threshold for each label: half-way from the one that is best for it to that which is best for all, (L)."""
    common = micro_f1_threshold(truth, scores)
    own = [
        micro_f1_threshold(truth[:, [label]], scores[:, [label]]) if truth[:, label].any() else common
        for label in range(truth.shape[1])
    ]
    return (np.array(own) + common) / 2


def exact_match_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    """The one of 100 thresholds that gives the lowest 0/1 loss."""
    candidates = np.linspace(-1.0, 0.5, 100)
    return float(min(candidates, key=lambda threshold: ((scores >= threshold) != truth).any(axis=1).mean()))


# ---- the program ----


def minutes_of(function: Any, *arguments: Any) -> tuple[Any, float]:
    """The result of a call, and the minutes of processor time that it took."""
    start = time.process_time()
    result = function(*arguments)
    return result, (time.process_time() - start) / 60


def load_splits(arguments: argparse.Namespace) -> tuple[Dataset, Dataset, Dataset, str]:
    """Training, validation and test documents, and the name of the split that the last ones are.

    With `hold_out` the test documents are never looked at: what is measured are training documents that are left out.
    """
    if arguments.corpus:
        splits = load_corpus(arguments.corpus, data_dir=arguments.data_dir)
    else:
        splits = load_files(arguments.train_file, None, arguments.test_file)
    tested = "test" if "test" in splits else "validation"
    train, validation = splits["train"], splits["validation"] if tested == "test" and "validation" in splits else None
    if arguments.hold_out:
        tested = "held out"
        train, splits[tested] = split_off(train, arguments.hold_out, 1, "hold_out")
    if validation is None:
        size = arguments.validation_split_size
        train, validation = split_off(train, size, 0, "validation_split_size")
    return train, validation, splits[tested], tested


def encode(splits: tuple[Dataset, ...]) -> list[Documents]:
    """The documents as word ids of the training documents' words, and their labels."""
    tokenizer = SGMTokenizer.train_from_texts(splits[0]["text"], vocab_size=2**31, model_max_length=10**9)
    num_labels = splits[0].features["labels"].feature.num_classes
    return [
        Documents(
            [np.array(ids, dtype=np.int64) for ids in tokenizer(list(split["text"]))["input_ids"]],
            label_matrix(list(split["labels"]), num_labels),
        )
        for split in splits
    ]


def choose(settings: list[Setting], train: Documents, validation: Documents) -> dict[str, Setting]:
    """The settings with the highest micro-F1 and the lowest 0/1 loss on validation, each with its best threshold."""
    results = {}
    kept: tuple[Any, ...] = ()
    for setting in settings:
        if kept[:1] != ((setting.bigram_weight, setting.min_df),):
            features = Features(train.ids, setting.bigram_weight, setting.min_df)
            kept = (setting.bigram_weight, setting.min_df), *map(features.transform, (train.ids, validation.ids))
        model, minutes = minutes_of(fit, kept[1], train.truth, setting.cost)
        scores = margins(model, kept[2])
        thresholds = [find(validation.truth, scores) for find in (micro_f1_threshold, exact_match_threshold)]
        micro, exact = (compute_metrics(validation.truth, scores >= threshold) for threshold in thresholds)
        results[setting] = micro["micro_f1"], exact["zero_one_loss"]
        print(f"{setting}: {micro['micro_f1']:.4f} / {exact['zero_one_loss']:.4f}, {minutes:.2f} minutes", flush=True)
    return {
        "micro_f1": max(results, key=lambda setting: results[setting][0]),
        "exact_match": min(results, key=lambda setting: results[setting][1]),
    }


def train_setting(setting: Setting, train: Documents) -> tuple[Features, sparse.csr_matrix, Model]:
    """The features and the model of one setting."""
    features = Features(train.ids, setting.bigram_weight, setting.min_df)
    matrix = features.transform(train.ids)
    return features, matrix, fit(matrix, train.truth, setting.cost)


def measure(
    chosen: dict[str, Setting], train: Documents, validation: Documents, test: Documents, shift: PriorShift
) -> list[dict]:
    """The rows of the objectives, trained on the training documents."""
    rows = []
    setting = chosen["micro_f1"]
    (features, matrix, model), minutes = minutes_of(train_setting, setting, train)
    held_out, more = minutes_of(held_out_margins, matrix, train.truth, setting.cost)
    truth, held_out, bias = shifted(train.truth, held_out, shift)
    validation_rows = resampled_rows(shift.weights(validation.truth))
    validation_truth = validation.truth[validation_rows]
    scores = (margins(model, features.transform(validation.ids)) + bias)[validation_rows]
    test_scores = margins(model, features.transform(test.ids)) + bias
    rows.append(row("micro_f1", test.truth, test_scores >= micro_f1_threshold(validation_truth, scores), minutes))
    thresholds = label_thresholds(truth, held_out)
    rows.append(row("macro_f1", test.truth, test_scores >= thresholds, minutes + more))
    if chosen["exact_match"] != setting:
        (features, matrix, model), minutes = minutes_of(train_setting, chosen["exact_match"], train)
        scores = (margins(model, features.transform(validation.ids)) + bias)[validation_rows]
        test_scores = margins(model, features.transform(test.ids)) + bias
    threshold = exact_match_threshold(validation_truth, scores)
    rows.append(row("exact_match", test.truth, test_scores >= threshold, minutes))
    return rows


def shifted(truth: np.ndarray, held_out: np.ndarray, shift: PriorShift) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth and margins of held-out documents drawn for other label frequencies, and what each label gains."""
    slope = fit_platt(probabilities(held_out), truth).values[0]  # margins to log-odds
    rows, bias = resampled_rows(shift.weights(truth)), shift.log_odds / slope
    return truth[rows], held_out[rows] + bias, bias


def measure_refitted(
    setting: Setting, train: Documents, validation: Documents, test: Documents, shift: PriorShift
) -> list[dict]:
    """The rows of a model that is trained on the validation documents too."""
    both = Documents(train.ids + validation.ids, np.concatenate([train.truth, validation.truth]))
    (features, matrix, model), minutes = minutes_of(train_setting, setting, both)
    held_out, more = minutes_of(held_out_margins, matrix, both.truth, setting.cost)
    truth, held_out, bias = shifted(both.truth, held_out, shift)
    scores = margins(model, features.transform(test.ids)) + bias
    thresholds = {"micro_f1": micro_f1_threshold(truth, held_out), "macro_f1": label_thresholds(truth, held_out)}
    return [
        row(objective, test.truth, scores >= threshold, minutes + more) | {"system": "linear SVM, all data"}
        for objective, threshold in thresholds.items()
    ]


def row(objective: str, truth: np.ndarray, predicted: np.ndarray, minutes: float) -> dict[str, Any]:
    """The metrics and minutes of one objective."""
    metrics = compute_metrics(truth, predicted)
    return {
        "system": "linear SVM",
        "objective": objective,
        **{name: round(metrics[name], 4) for name in ("micro_f1", "macro_f1", "zero_one_loss")},
        "cpu_minutes": round(minutes, 2),
    }


def add_document_options(parser: argparse.ArgumentParser) -> None:
    """The options of `load_splits`."""
    parser.add_argument("--corpus", help="a corpus of sgm_hf.load_corpus")
    parser.add_argument("--data_dir", help="its published files")
    parser.add_argument("--train_file", help="or a file of documents as sgm-hf train reads it")
    parser.add_argument("--test_file")
    parser.add_argument("--validation_split_size", type=float, default=0.1, help="share or number of documents")
    parser.add_argument(
        "--hold_out",
        type=float,
        help="measure on this share of the training documents, not on test",
    )


def check_document_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the program unless there is one source of documents."""
    if bool(arguments.corpus) == bool(arguments.train_file and arguments.test_file):
        parser.error("give either --corpus, or --train_file and --test_file")


def split_command_line() -> tuple[list[str], list[str]]:
    """The arguments of this program, and those behind `--`, which are options of `sgm-hf train`."""
    own, _, options = " ".join(map(shlex.quote, sys.argv[1:])).partition(" -- ")
    return shlex.split(own), shlex.split(options)


def describe_run() -> dict[str, Any]:
    """The last columns of a row: processor, commit and command."""
    machine = describe_machine()
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]  # from any working folder
    commit = subprocess.run(command, capture_output=True, text=True, check=True)
    return {
        "cpu": machine["cpu"],
        "cores": machine["cores"],
        "commit": commit.stdout.strip(),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_document_options(parser)
    parser.add_argument("--bigram_weights", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--costs", type=float, nargs="+", default=[0.1, 0.3, 1.0, 2.0, 4.0])
    parser.add_argument("--min_dfs", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--setting", nargs=3, metavar=("BIGRAM_WEIGHT", "C", "MIN_DF"), help="this one only")
    parser.add_argument("--refit", action="store_true", help="also train on training and validation documents")
    parser.add_argument("--label_frequencies", help="thresholds and margins for these, as of `sgm-hf train`")
    parser.add_argument("--output", type=Path, default=PRESETS_CSV)
    arguments = parser.parse_args()
    check_document_options(parser, arguments)
    return arguments


def main() -> None:
    """Choose a setting, measure it, and add its rows to the file."""
    arguments = parse_arguments()
    train, validation, test, split = load_splits(arguments)
    print(f"documents: {len(train):,} for training, {len(validation):,} for validation, {len(test):,} {split}")
    documents, encoding = minutes_of(encode, (train, validation, test))
    if arguments.setting:
        weight, cost, min_df = arguments.setting
        settings = [Setting(float(weight), float(cost), int(min_df))]
        chosen = dict.fromkeys(("micro_f1", "exact_match"), settings[0])
    else:
        grid = itertools.product(arguments.bigram_weights, arguments.min_dfs, arguments.costs)
        settings = [Setting(weight, cost, min_df) for weight, min_df, cost in grid]
        chosen, minutes = minutes_of(choose, settings, *documents[:2])
        print(f"chosen of {len(settings)} settings in {minutes:.1f} minutes: {chosen}", flush=True)
    frequencies = read_label_frequencies(arguments.label_frequencies)
    names = train.features["labels"].feature.names
    # Without other frequencies nothing shifts: all weights are equal.
    shift = PriorShift(np.zeros(len(names)), np.zeros(len(names)))
    if frequencies:
        shift = fit_prior_shift(train, names, frequencies)
    rows = measure(chosen, *documents, shift)
    if arguments.refit:
        rows += measure_refitted(chosen["micro_f1"], *documents, shift)
    common = {
        "corpus": arguments.corpus or Path(arguments.train_file).stem,
        "split": split,
        "seed": 0,
        **describe_run(),
    }
    for values in rows:
        values["cpu_minutes"] = round(values["cpu_minutes"] + encoding, 2)
        values["system"] += KNOWN_FREQUENCIES if frequencies else ""
        print(", ".join(f"{name} {value}" for name, value in values.items()), flush=True)
    write_csv([common | values for values in rows], arguments.output, COLUMNS, append=True)


if __name__ == "__main__":
    main()
