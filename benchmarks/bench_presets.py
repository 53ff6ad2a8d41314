#!/usr/bin/env python
"""The presets of `sgm-hf train`: their quality on test documents for each objective, and their minutes.

    python benchmarks/bench_presets.py --corpus reuters21578 --data_dir data/reuters21578.tar.gz --seeds 1 2 3
    python benchmarks/bench_presets.py --corpus aapd --data_dir data/aapd --validation_split_size 1500 --preset fast
    python benchmarks/bench_presets.py --train_file my.csv --test_file test.csv
    python benchmarks/bench_presets.py --corpus goemotions --data_dir data/goemotions --hold_out 0.1 -- --dropout 0.4

A model is trained once for each seed. For each objective it is then calibrated on the validation documents, which are
those of `bench_svm.py`, and measured on the test documents: a row of presets.csv. What stands behind `--` goes before
the preset's settings. Settings are compared with `--hold_out`, which leaves the test documents alone.

Minutes are the process' own processor time for words, word vectors, training and one calibration.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_svm import (
    COLUMNS,
    KNOWN_FREQUENCIES,
    PRESETS_CSV,
    add_document_options,
    check_document_options,
    describe_run,
    load_splits,
    split_command_line,
)
from datasets import Dataset
from transformers import set_seed

from sgm_hf import SGMTrainer, compute_metrics, encode_dataset
from sgm_hf.data.labels import label_matrix
from sgm_hf.programs.ending import log_to_stderr
from sgm_hf.programs.members import train_members
from sgm_hf.programs.models import build_model, build_tokenizer, set_generation, set_initial_vectors
from sgm_hf.programs.options import parse_arguments as parse_settings
from sgm_hf.programs.presets import PRESETS, suitable_epochs
from sgm_hf.tables import write_csv
from sgm_hf.training.arguments import OBJECTIVES
from sgm_hf.training.machine import prepare_cpu


def train(splits: dict[str, Dataset], options: list[str], folder: str) -> SGMTrainer:
    """The trainer of a model that was trained with a preset's settings, and options that go before them."""
    model_args, data_args, training_args = parse_settings(["--output_dir", folder, *options])
    training_args.objective = None  # all of them are fitted afterwards
    prepare_cpu(data_args.num_threads)
    set_seed(training_args.seed)
    if training_args.num_train_epochs == 0:
        training_args.num_train_epochs = suitable_epochs(len(splits["train"]), model_args.preset)
    tokenizer = build_tokenizer(splits["train"], data_args)
    model = build_model(splits["train"], tokenizer, model_args)
    set_generation(model, model_args)
    names = list(model.config.id2label.values())
    encoded = {
        split: encode_dataset(documents, tokenizer, names, data_args.max_length, split == "train", "count")
        for split, documents in splits.items()
    }
    trainer = SGMTrainer(
        model,
        training_args,
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        processing_class=tokenizer,
    )
    trainer.test_dataset = encoded["test"]
    if model_args.num_models > 1:
        train_members(trainer, model_args, splits["train"], encoded)
    else:
        set_initial_vectors(model, tokenizer, encoded["train"], model_args.initial_vectors, training_args.seed)
        trainer.train()
    return trainer


def measure(trainer: SGMTrainer, objective: str) -> dict[str, Any]:
    """What the model gives on the test documents when it is calibrated for an objective."""
    trainer.calibrate(objective=objective)
    output = trainer.predict(trainer.test_dataset)
    predicted = label_matrix(output.label_sets, output.references.shape[1])
    metrics = compute_metrics(output.references, predicted)
    print(f"  {objective}: ece {output.metrics['test_ece']:.4f}, nll {output.metrics['test_nll']:.4f}", flush=True)
    return {name: round(metrics[name], 4) for name in ("micro_f1", "macro_f1", "zero_one_loss")}


def measured_objectives(trainer: SGMTrainer, objectives: list[str], training: float) -> Iterator[dict[str, Any]]:
    """What the model gives for each objective, and the CPU minutes of that and of the seconds of training."""
    for objective in objectives:
        start = time.process_time()
        metrics = measure(trainer, objective)
        minutes = (training + time.process_time() - start) / 60
        yield {"objective": objective, **metrics, "cpu_minutes": round(minutes, 2)}


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and the options behind `--`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_document_options(parser)
    parser.add_argument("--preset", default="balanced", choices=list(PRESETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--objectives", nargs="+", default=["micro_f1", "macro_f1", "exact_match"], choices=OBJECTIVES)
    parser.add_argument("--output", type=Path, default=PRESETS_CSV)
    parser.add_argument("--keep", type=Path, help="folder to save the models in, before they are calibrated")
    own, options = split_command_line()
    arguments = parser.parse_args(own)
    check_document_options(parser, arguments)
    return arguments, options


def main() -> None:
    """Train with each seed, measure, and add the rows to the file."""
    arguments, options = parse_arguments()
    log_to_stderr()
    train_documents, validation, test, split = load_splits(arguments)
    splits = {"train": train_documents, "validation": validation, "test": test}
    run = describe_run()
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            settings = ["--preset", arguments.preset, "--seed", str(seed), "--save_strategy", "no", *options]
            trainer = train(splits, settings, folder)
            training = time.process_time() - start
            if arguments.keep:
                trainer.save_model(str(arguments.keep / f"{arguments.preset}-{seed}"))
            for measured in measured_objectives(trainer, arguments.objectives, training):
                row = {
                    "corpus": arguments.corpus or Path(arguments.train_file).stem,
                    "split": split,
                    "system": arguments.preset + (KNOWN_FREQUENCIES if trainer.args.label_frequencies else ""),
                    "seed": seed,
                    **measured,
                    **run,
                }
                print(", ".join(f"{name} {value}" for name, value in list(row.items())[:9]), flush=True)
                write_csv([row], arguments.output, COLUMNS, append=True)


if __name__ == "__main__":
    main()
