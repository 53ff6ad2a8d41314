#!/usr/bin/env python
"""The variants of the model at equal settings: parameters, minutes and quality on test documents.

    python benchmarks/bench_variants.py --corpus reuters21578 --data_dir data/reuters21578.tar.gz
    python benchmarks/bench_variants.py --corpus aapd --data_dir data/aapd --validation_split_size 1500 \
        --variants SGM "SGM+GE" --seeds 1 2 3
    python benchmarks/bench_variants.py table

Sizes, rate, epochs, word vectors and batches are those of `--preset fast`, without its lexical branch and with
labels in the order of their frequency; a variant changes only what makes it one. *Seq2Set* goes on from the training
of *Seq2Set, likelihood* as docs/seq2set.md found best on Reuters-21578. What stands behind `--` are options of
`sgm-hf train` for all variants.

A model is calibrated for each objective and measured as in bench_presets.py: a row of variants.csv. `table` prints
these in Markdown: micro-F1, macro-F1 and 0/1 loss are each of the objective that serves it, means over the seeds.
"""

import argparse
import csv
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_presets import measured_objectives, train
from bench_svm import add_document_options, check_document_options, describe_run, load_splits, split_command_line

from sgm_hf import SamplingArguments, SelfCriticalTrainer, SGMTrainer
from sgm_hf.programs.ending import log_to_stderr
from sgm_hf.tables import markdown_table, mean_and_deviation, write_csv

VARIANTS_CSV = Path(__file__).with_name("variants.csv")
EQUAL = (
    "--preset fast --lexical_branch false --label_feedback previous_label --label_order frequency --save_strategy no"
).split()
OF_THE_STEP = "--context_input current"
UNITS = f"--encoder semantic_units {OF_THE_STEP}"
SGM_MLC = "--encoder self_attentive --label_attention true --label_order alphabetical"
SELF_CRITICAL = "Seq2Set"
# Each variant as the options that make it one.
VARIANTS = {
    "S2S": "--attention none",
    "SGM": "",
    "SGM, λ = 0.5": "--label_feedback fixed_mixture --mixture_lambda 0.5",
    "SGM+GE": "--label_feedback global_embedding",
    "SGM, GRU": "--encoder_cell gru --cell gru",
    "Seq2Set, likelihood": OF_THE_STEP,
    SELF_CRITICAL: OF_THE_STEP,
    "semantic units: without attention": f"--attention none {OF_THE_STEP}",
    "semantic units: attention": f"--attention bilinear {OF_THE_STEP}",
    "semantic units: MDC": f"--attention semantic {UNITS}",
    "semantic units: additive": f"--attention additive {UNITS}",
    "semantic units: hybrid": f"--attention hybrid {UNITS}",
    "semantic units: hybrid, a quarter of the rate": f"--attention hybrid {UNITS} --learning_rate 5e-4",
    "Hier-5": "--encoder hierarchical --sentence_length 5",
    "Hier-10": "--encoder hierarchical --sentence_length 10",
    "Hier-20": "--encoder hierarchical --sentence_length 20",
    "self-attention": "--encoder self_attentive",
    "label attention": "--label_attention true",
    "SGM-MLC": SGM_MLC,
    "SGM-MLC, GRU": f"{SGM_MLC} --encoder_cell gru --cell gru",
    "SGM-MLC, its loss": f"{SGM_MLC} --label_loss binary_cross_entropy",
}
# The metric that each objective serves.
SERVED = {"micro_f1": "micro_f1", "macro_f1": "macro_f1", "exact_match": "zero_one_loss"}
COLUMNS = (
    *("corpus", "split", "variant", "objective", "seed", *SERVED.values()),
    *("parameters", "cpu_minutes", "cpu", "cores", "commit", "command"),
)


def finetune(trainer: SGMTrainer, folder: str, seed: int) -> SelfCriticalTrainer:
    """Self-critical training of a trained model, with the settings that docs/seq2set.md chose on validation."""
    arguments = SamplingArguments(
        folder,
        learning_rate=3e-4,
        lr_scheduler_type="linear",
        num_train_epochs=3,
        num_samples=5,
        baseline="leave_one_out",
        dropout_in_sampling=True,
        likelihood_weight=0.5,
        max_grad_norm=8.0,
        per_device_train_batch_size=trainer.args.per_device_train_batch_size,
        max_tokens_per_batch=trainer.args.max_tokens_per_batch,
        precision=trainer.args.precision,
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        seed=seed,
    )
    tuned = SelfCriticalTrainer(
        trainer.model,
        arguments,
        train_dataset=trainer.train_dataset,
        eval_dataset=trainer.eval_dataset,
        processing_class=trainer.processing_class,
    )
    tuned.test_dataset = trainer.test_dataset
    tuned.train()
    return tuned


def run_variant(splits: dict[str, Any], variant: str, seed: int, options: list[str]) -> list[dict[str, Any]]:
    """Train a variant and measure it for each objective."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        trainer = train(splits, [*EQUAL, "--seed", str(seed), *VARIANTS[variant].split(), *options], folder)
        if variant == SELF_CRITICAL:
            trainer = finetune(trainer, folder, seed)
        rows = list(measured_objectives(trainer, list(SERVED), time.process_time() - start))
    parameters = trainer.model.num_parameters()
    return [{"variant": variant, "seed": seed, "parameters": parameters, **row} for row in rows]


def table(path: Path) -> str:
    """The means over the seeds in Markdown, one line per corpus and variant."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["corpus"], row["split"], row["variant"]), []).append(row)
    order = list(VARIANTS)
    lines = []
    for key in sorted(groups, key=lambda key: (*key[:2], order.index(key[2]))):
        runs = groups[key]
        cells = [
            mean_and_deviation([float(run[metric]) for run in runs if run["objective"] == objective], 3)
            for objective, metric in SERVED.items()
        ]
        minutes = statistics.mean(float(run["cpu_minutes"]) for run in runs)
        seeds = len({run["seed"] for run in runs})
        lines.append([*key, str(seeds), f"{int(runs[0]['parameters']) / 1e6:.2f}", f"{minutes:.1f}", *cells])
    titles = (
        "Corpus",
        "Split",
        "Variant",
        "Seeds",
        "Parameters, M",
        "CPU minutes",
        "micro-F1",
        "macro-F1",
        "0/1 loss",
    )
    return markdown_table(titles, lines)


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line, and the options behind `--`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_document_options(parser)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--output", type=Path, default=VARIANTS_CSV)
    own, options = split_command_line()
    arguments = parser.parse_args(own)
    check_document_options(parser, arguments)
    return arguments, options


def main() -> None:
    """Train the variants with each seed, measure, and add the rows to the file; or print the table."""
    if sys.argv[1:] == ["table"]:
        print(table(VARIANTS_CSV))
        return
    arguments, options = parse_arguments()
    log_to_stderr()
    train_documents, validation, test, split = load_splits(arguments)
    splits = {"train": train_documents, "validation": validation, "test": test}
    common = {"corpus": arguments.corpus or Path(arguments.train_file).stem, "split": split, **describe_run()}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            rows = [common | row for row in run_variant(splits, variant, seed, options)]
            for row in rows:
                print(", ".join(f"{name} {row[name]}" for name in COLUMNS[2:10]), flush=True)
            write_csv(rows, arguments.output, COLUMNS, append=True)


if __name__ == "__main__":
    main()
