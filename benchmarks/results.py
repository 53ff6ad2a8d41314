#!/usr/bin/env python
"""Keep the results of trainings as data, and make the tables of the documentation from them.

    python benchmarks/results.py add runs/reuters21578_sgm_ge --config examples/configs/reuters21578_sgm_ge.json
    python benchmarks/results.py add runs/ge_reuters21578 --config sgm_global_embedding
    python benchmarks/results.py table
    python benchmarks/results.py tables

`add` takes the output folder of `sgm-hf train`, `finetune` or `baseline`, or the folder of a study, whose
finished runs are all taken. Each run gives one row per split and set decoding in results.csv; rows that are
there are not added again. `commit` is the one that is checked out then. `table` prints the table of the runs
that are of no study. `tables` writes it between the marks `<!-- results -->` and `<!-- end of results -->` of
README.md and docs/*.md, and that of a study between `<!-- results NAME -->`, or of a study's runs on one corpus
between `<!-- results NAME CORPUS -->`, and the same end.
"""

import argparse
import csv
import hashlib
import json
import re
import shlex
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from sgm_hf.data.lines import read_json_lines
from sgm_hf.metrics.calibration import SCORE_METRICS
from sgm_hf.metrics.ranking import RANKING_METRICS
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.programs.studies import STUDY_FILE, load_study
from sgm_hf.tables import cells_of_groups, markdown_table, mean_and_deviation, write_csv
from sgm_hf.training.checkpoints import write_text_atomically

RESULTS = Path(__file__).with_name("results.csv")
ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- results ?(\w*) ?(\w*) -->\n)(.*?)(<!-- end of results -->)", re.DOTALL)
METRICS = (
    "micro_f1",
    "micro_precision",
    "micro_recall",
    "macro_f1",
    "macro_f1_of_means",
    "samples_f1",
    "hamming_loss",
    "zero_one_loss",
)
# Metrics of the tables: whether more is better, and the decimals.
SHOWN = {
    **dict.fromkeys(("micro_f1", "micro_precision", "micro_recall", "macro_f1"), (True, 3)),
    "hamming_loss": (False, 4),
    "zero_one_loss": (False, 3),
}
COLUMNS = (
    *("date", "commit", "config", "data", "split", "documents", "set_decoding", "label_threshold"),
    *("precision", "seed"),
    *METRICS,
    *("best_epoch", "training_minutes", "cpu", "cores", "threads", "accelerator", "torch", "transformers"),
    *SCORE_METRICS,  # of the label scores, the same for each set decoding; empty in rows of before they were measured
    # What further is empty in older rows: the system's name in a study, whose name is `config` then; the decoding that
    # the run was set to; the command; a hash of ids and true labels of the documents; minutes of all settings tried.
    *("system", "chosen_decoding", "command", "data_hash", "tuning_minutes"),
    *RANKING_METRICS,  # of the label scores, as SCORE_METRICS
)
# What tells one row from another.
KEY = (*("config", "system", "data", "data_hash", "split", "set_decoding", "precision", "seed"), *METRICS)


def rows_of_run(run: Path, config: str, system: str = "", command: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a finished run, one per split and set decoding.

    Args:
        run: The output folder of `sgm-hf train` or one of its like.
        config: The configuration file of the run, or the name of the study.
        system: Its system in the study.
        command: How it can be made again; default by its program with the configuration file.
    """
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    training = summary["training"]
    common = {
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "config": config,
        "data": summary["data"]["name"],
        "precision": "bf16" if summary["settings"]["bf16"] else "fp32",
        "seed": summary["settings"]["seed"],
        "best_epoch": training["best_epoch"],
        "training_minutes": round(training["seconds"] / 60, 1),
        **{name: summary["machine"][name] for name in ("cpu", "cores", "threads", "accelerator")},
        **{name: summary["versions"][name] for name in ("torch", "transformers")},
        "system": system,
        "chosen_decoding": summary["generation"]["set_decoding"],
        "command": shlex.join(command or command_of(summary, config)),
        "tuning_minutes": round(training["tuning_seconds"] / 60, 1) if "tuning_seconds" in training else "",
    }
    return [
        common
        | {
            "split": split,
            "documents": summary["data"][f"{split}_documents"],
            "data_hash": data_hash(run / f"predictions_{split}.jsonl"),
            "set_decoding": decoding,
            "label_threshold": round(metrics["label_threshold"], 4)
            if decoding == "threshold" and "label_threshold" in metrics
            else "",
        }
        | {name: round(metrics[f"{decoding}_{name}"], 5) for name in METRICS}
        | {name: round(metrics[name], 5) for name in (*SCORE_METRICS, *RANKING_METRICS) if name in metrics}
        for split, metrics in summary["metrics"].items()
        for decoding in SET_DECODINGS
    ]


def command_of(summary: Mapping[str, Any], config: str) -> list[str]:
    """The command that made a run from its configuration file."""
    if "baseline" in summary["model"]:
        return ["sgm-hf", "baseline", summary["model"]["baseline"], config]
    return ["sgm-hf", "finetune" if "method" in summary["settings"] else "train", config]


def data_hash(predictions: Path) -> str:
    """A hash of ids and true labels of the documents of a predictions file; empty where there is no such file."""
    if not predictions.is_file():
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for _, record in read_json_lines(predictions):
        digest.update(json.dumps([record["id"], sorted(record["gold"])]).encode())
    return digest.hexdigest()


def runs_of(folder: Path, config: str) -> Iterator[dict[str, Any]]:
    """The rows of a run, or of all finished runs of a study.

    Args:
        folder: Output folder of a run or of a study.
        config: The configuration file of the run, or the name of the study.
    """
    if not (folder / STUDY_FILE).exists():
        yield from rows_of_run(folder, config)
        return
    study = load_study(folder)
    for run in study.finished_runs():
        command = ["sgm-hf", "study", "train", config, "--systems", run.system, "--seeds", str(run.seed)]
        command += ["--dataset_name", study.corpus] if study.corpus else []
        command += ["--orders", run.order] if run.order else []
        name = run.system if run.order is None else f"{run.system}, {run.order}"
        yield from rows_of_run(run.folder, config, name, command)


def read_rows() -> list[dict[str, str]]:
    """The rows of results.csv."""
    if not RESULTS.exists():
        return []
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add(folder: Path, config: str) -> int:
    """Append the rows of a run or a study to results.csv, but for those that are there; returns how many."""
    known = {tuple(row[name] for name in KEY) for row in read_rows()}
    rows = [row for row in runs_of(folder, config) if tuple(str(row[name]) for name in KEY) not in known]
    if rows:
        write_csv(rows, RESULTS, COLUMNS, append=True)
    return len(rows)


def table() -> str:
    """The mean results over the seeds in Markdown: one line per configuration, precision, split and set decoding.

    Runs of studies have tables of their own.
    """
    groups: dict[tuple[str, ...], list[dict]] = {}
    for row in (row for row in read_rows() if not row["system"]):
        key = (row["config"], row["precision"], row["split"], row["set_decoding"])
        groups.setdefault(key, []).append(row)
    columns = ["Configuration", "Precision", "Split", "Set decoding", "Seeds", "micro-F1", "P", "R", "macro-F1"]
    columns += ["Hamming loss", "0/1 loss", "Minutes"]
    lines = []
    for (config, precision, split, set_decoding), runs in groups.items():
        figures = [
            mean_and_deviation([float(run[name]) for run in runs], decimals) for name, (_, decimals) in SHOWN.items()
        ]
        minutes = statistics.mean(float(run["training_minutes"]) for run in runs)
        cells = [f"`{Path(config).name}`", precision, split, f"`{set_decoding}`", str(len(runs)), *figures]
        lines.append([*cells, f"{minutes:.0f}"])
    return markdown_table(columns, lines)


def study_table(config: str, corpus: str = "") -> str:
    """The mean results of a study over the seeds: one line per corpus, precision, label sets and system.

    Label sets are those that a system was set to ("its own"), and the most probable sequences, of sequence models. The
    best micro-F1 stands first; the best mean of each corpus and kind of label sets is in bold. Where there are test
    documents, only these are shown.

    Args:
        config: The name of the study.
        corpus: The only one that is shown, without columns for it and its split; default all.
    """
    groups: dict[tuple[str, ...], list[dict]] = {}
    rows = [
        row
        for row in read_rows()
        if row["config"] == config and row["system"] and (not corpus or row["data"] == corpus)
    ]
    tested = {row["data"] for row in rows if row["split"] == "test"}
    for row in rows:
        if row["split"] == "test" or row["data"] not in tested:
            place = (row["data"], row["split"], row["precision"], row["system"])
            if row["set_decoding"] == row["chosen_decoding"]:
                groups.setdefault((*place, "its own"), []).append(row)
            if row["set_decoding"] == "best_sequence" and not row["command"].startswith("sgm-hf baseline"):
                groups.setdefault((*place, "best_sequence"), []).append(row)
    cells = cells_of_groups(groups, SHOWN, kind=lambda key: (key[0], key[1], key[4]))
    best_first = {key: -statistics.mean(float(run["micro_f1"]) for run in runs) for key, runs in groups.items()}
    lines = []
    for key in sorted(groups, key=lambda key: (key[0], key[1], key[4] != "its own", best_first[key])):
        data, split, precision, system, sets = key
        runs = groups[key]
        minutes = statistics.mean(float(run["training_minutes"]) for run in runs)
        line = [sets, system, precision, str(len(runs)), *cells[key], f"{minutes:.1f}"]
        lines.append(line if corpus else [data, split, *line])
    titles = ["Label sets", "System", "Precision", "Seeds", "micro-F1", "P", "R", "macro-F1"]
    titles = titles if corpus else ["Corpus", "Split", *titles]
    return markdown_table([*titles, "Hamming loss", "0/1 loss", "Minutes"], lines)


def with_tables(text: str) -> str:
    """A page with the tables between its marks as they are made from results.csv now."""

    def block(found: re.Match[str]) -> str:
        start, study, corpus, _, end = found.groups()
        return f"{start}{study_table(study, corpus) if study else table()}\n{end}"

    return BLOCK.sub(block, text)


def pages() -> list[Path]:
    """The pages that may have tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add", help="append a run to results.csv")
    adding.add_argument("run", type=Path, help="output folder of a run, or of a study")
    adding.add_argument("--config", required=True, help="its configuration file, or the name of the study")
    commands.add_parser("table", help="print the table of the runs that are of no study")
    commands.add_parser("tables", help="write the tables into README.md and docs")
    arguments = parser.parse_args()
    if arguments.command == "add":
        print(f"{add(arguments.run, arguments.config)} rows added")
    elif arguments.command == "tables":
        for page in pages():
            text = page.read_text(encoding="utf-8")
            if with_tables(text) != text:
                write_text_atomically(page, with_tables(text))
                print(f"{page.relative_to(ROOT)} rewritten")
    else:
        print(table())


if __name__ == "__main__":
    main()
