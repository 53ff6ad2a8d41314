#!/usr/bin/env python
"""Speed and memory of reading documents, of making a vocabulary and of encoding, on one core.

    python benchmarks/bench_data.py
    python benchmarks/bench_data.py --documents 400000 --repetitions 1

The baseline of the vocabulary is the trainer of `tokenizers` on whole texts, that of encoding the tokenizer called by
`datasets.map`; both give what ours gives. The texts are drawn: 120 words each, most of them next to a mark, whose
frequencies fall as in Reuters' news (7 % of a million words are different ones). A value is documents per second of
processor time.
"""

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import harness
import numpy as np
from datasets import Dataset
from tokenizers.trainers import WordLevelTrainer

from sgm_hf import SGMTokenizer, encode_dataset, load_files
from sgm_hf.modeling.tokenization_sgm import PAD_TOKEN, UNK_TOKEN

TASKS = {
    "reading": ("ours",),
    "vocabulary": ("textbook", "ours"),
    "encoding": ("textbook", "ours"),
}
WORDS_PER_DOCUMENT = 120
DIFFERENT_WORDS = 500_000
DOCUMENTS_AT_ONCE = 10_000


def draw_texts(num_documents: int) -> list[str]:
    """Texts of invented words, whose frequencies fall by the law of Zipf and Mandelbrot."""
    random = np.random.default_rng(0)
    letters = random.choice(list("etaoinshrdlucmfwypvbgkjqxz"), (DIFFERENT_WORDS, 10))
    words = np.array(["".join(row[: 2 + i % 9]) + " ,).'"[i % 5] for i, row in enumerate(letters)])
    shares = np.cumsum((np.arange(DIFFERENT_WORDS) + 4.0) ** -1.25)
    texts = []
    for first in range(0, num_documents, DOCUMENTS_AT_ONCE):
        size = (min(DOCUMENTS_AT_ONCE, num_documents - first), WORDS_PER_DOCUMENT)
        texts += map(" ".join, words[np.searchsorted(shares, random.random(size) * shares[-1])])
    return texts


def train_tokenizer(texts: list[str]) -> None:
    """Make the vocabulary from whole texts, by the trainer of `tokenizers`."""
    backend = SGMTokenizer.train_from_texts(["a"]).backend_tokenizer
    backend.train_from_iterator(
        texts, WordLevelTrainer(vocab_size=30_000, special_tokens=[PAD_TOKEN, UNK_TOKEN], show_progress=False)
    )


def tokenize_dataset(texts: list[str], tokenizer: SGMTokenizer) -> None:
    """Encode the texts by the tokenizer, a batch of `datasets.map` at a time."""

    def encode(batch: dict[str, list[str]]) -> dict[str, list]:
        return tokenizer(batch["text"], truncation=True, return_attention_mask=False)

    Dataset.from_dict({"text": texts}).map(encode, batched=True, remove_columns=["text"], load_from_cache_file=False)


def make_job(task: str, arm: str, num_documents: int) -> Callable[[], Any]:
    """The function that an arm times."""
    texts = draw_texts(num_documents)
    if task == "reading":
        path = Path(tempfile.mkdtemp()) / "texts.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "labels"), *((text, "a|b") for text in texts)])
        texts.clear()
        return lambda: load_files(path)
    if task == "vocabulary":
        return lambda: train_tokenizer(texts) if arm == "textbook" else SGMTokenizer.train_from_texts(texts)
    tokenizer = SGMTokenizer.train_from_texts(texts)
    if arm == "textbook":
        return lambda: tokenize_dataset(texts, tokenizer)
    return lambda: encode_dataset(Dataset.from_dict({"text": texts}), tokenizer, [])


def make_arm(arguments: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """The function that does one repetition of an arm (`task:arm`)."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    datasets.disable_progress_bars()
    task, _, arm = arguments.arm.partition(":")
    job = make_job(task, arm, arguments.documents)

    def repeat() -> dict[str, Any]:
        start = time.process_time()
        job()
        return {"documents": arguments.documents, "seconds": time.process_time() - start}

    return repeat


def main() -> None:
    """Run the arms of each task in turns, keep the results, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="what to time")
    parser.add_argument("--documents", type=int, default=20_000, help="documents per repetition")
    parser.add_argument("--repetitions", type=int, default=5, help="repetitions of each arm")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.data_dir, arguments.device, arguments.threads = None, "cpu", 1
    arguments.size = f"{arguments.documents} documents"
    if arguments.arm is not None:
        harness.serve(make_arm(arguments), arguments.device)
        return
    for task in arguments.tasks:
        arguments.arms = [f"{task}:{arm}" for arm in TASKS[task]]
        results = harness.take_turns(__file__, arguments)
        values, peaks = {}, {}
        for name, runs in results.items():
            arm = name.partition(":")[2]
            values[arm] = [harness.documents_per_second(run) for run in runs]
            peaks[arm] = runs[-1]["peak_mib"]
        rows = harness.summarise(task, "documents/s", values, peaks, arguments)
        harness.keep(rows)
        harness.show(rows)


if __name__ == "__main__":
    main()
