"""The studies of the Seq2Set paper on a corpus: what `sgm-hf study` does."""

import json
import logging
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sgm_hf.analysis import studies
from sgm_hf.datasets_scripts import load as load_corpus
from sgm_hf.datasets_scripts.generated import default_process
from sgm_hf.metrics import compute_metrics
from sgm_hf.modeling import SGMConfig
from sgm_hf.programs.finetuning import TRAINERS, Seq2SetArguments
from sgm_hf.programs.options import read_settings
from sgm_hf.tables import markdown_table, mean_and_deviation, write_csv
from sgm_hf.training.checkpoints import has_complete_checkpoint, write_text_atomically
from sgm_hf.training.interruption import run_to_its_end

# The numbers of the CSV files have six significant digits.
write_rows = partial(write_csv, float_format=".6g")
logger = logging.getLogger(__name__)

SYSTEMS = ("likelihood", "likelihood_continued", *TRAINERS)
REMOVED = (0, 1, 2, 4, 8, 12, 16, 20, 30, 40, 50, 60)
METRICS = (*studies.TABLE_METRICS, "threshold_micro_f1")
SEARCHED_SPLIT = "validation"
SEARCHED = (
    *("method", "learning_rate", "num_samples", "baseline", "dropout_in_sampling", "likelihood_weight"),
    "num_train_epochs",
)


@dataclass
class Study:
    """A study that is to be trained.

    Args:
        config: What all systems have in common ("common"), the settings of each system by its name, and settings to
            try ("search").
        output_dir: Folder of the study.
        orders: Orders of the labels.
        seeds: Seeds of the trainings; the search uses the first one.
        data_dir: Folder or archive of the corpus, if it has files.
    """

    config: dict[str, Any]
    output_dir: Path
    orders: Sequence[str]
    seeds: Sequence[int]
    data_dir: Path | None = None


def read_study(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """Read the `config` of a study.

    Args:
        path: A JSON file.
        needed: The parts that it must have, besides the common one and that of the likelihood training.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not JSON, has an unknown system, or lacks a part.
    """
    config = read_settings(path, {"common", "search", *SYSTEMS})
    for name in ("common", SYSTEMS[0], *needed):
        if name not in config:
            raise ValueError(f"{path} has no {name!r}; see docs/seq2set.md for what the file of a study has.")
    return config


# ---- training ----


def run_program(system: str, settings: dict[str, Any], output_dir: Path) -> None:
    """Run one training in a process of its own, unless it is finished; resume it if it was interrupted.

    Args:
        system: One of SYSTEMS.
        settings: Of `sgm-hf train` or `sgm-hf finetune`.
        output_dir: Folder of the run; its settings and its log are files next to it.

    Raises:
        RuntimeError: If the training fails.
    """
    if (output_dir / "summary.json").exists():
        return
    if has_complete_checkpoint(output_dir):
        settings = settings | {"resume_from_checkpoint": "true"}
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    settings_file, log_file = output_dir.with_suffix(".json"), output_dir.with_suffix(".log")
    if system in TRAINERS:
        settings = settings | {"method": system}
    write_text_atomically(settings_file, json.dumps(settings | {"output_dir": str(output_dir)}, indent=2) + "\n")
    command = "finetune" if system in TRAINERS else "train"
    with log_file.open("a", encoding="utf-8") as log:
        status = run_to_its_end([sys.executable, "-m", "sgm_hf", command, str(settings_file)], stdout=log, stderr=log)
    if status:
        last_lines = "\n".join(log_file.read_text(encoding="utf-8").splitlines()[-5:])
        raise RuntimeError(f"the training {output_dir} failed; its log {log_file} ends with\n{last_lines}")


def run_folder(output_dir: Path, order: str, seed: int, system: str) -> Path:
    """The folder of a run of the study."""
    return output_dir / order / f"seed_{seed}" / system


def settings_of(system: str, order: str, seed: int, study: Study) -> dict[str, Any]:
    """The settings of one training of a system; all but "likelihood" start from the likelihood model."""
    settings = study.config["common"] | study.config[system]
    settings |= {"seed": seed, "do_train": True, "do_eval": True, "do_predict": True}
    if study.data_dir is not None:
        settings["data_dir"] = str(study.data_dir)
    if system == "likelihood":
        settings["label_order"] = order
    else:
        settings["model_name_or_path"] = str(run_folder(study.output_dir, order, seed, "likelihood"))
    return settings


def train_system(system: str, order: str, seed: int, study: Study) -> None:
    """Train one system of the study."""
    settings = settings_of(system, order, seed, study)
    run_program(system, settings, run_folder(study.output_dir, order, seed, system))


def train_study(study: Study) -> None:
    """Train every system for every order and seed."""
    runs = [
        (system, order, seed)
        for seed in study.seeds
        for order in study.orders
        for system in SYSTEMS
        if system in study.config
    ]
    for system, order, seed in tqdm(runs, unit="run", disable=not sys.stderr.isatty()):
        logger.info("%s, %s orders, seed %d", system, order, seed)
        train_system(system, order, seed, study)


def search_settings(study: Study) -> None:
    """Try each of the listed settings from the likelihood model of each order's first seed."""
    seed = study.seeds[0]
    for order in study.orders:
        train_system("likelihood", order, seed, study)
        for number, tried in enumerate(tqdm(study.config["search"], unit="setting", disable=not sys.stderr.isatty())):
            system = tried["method"]
            logger.info("search, %s orders, %s", order, tried)
            settings = settings_of(system, order, seed, study) | tried | {"do_predict": False}
            run_program(system, settings, study.output_dir / "search" / order / str(number))


# ---- report ----


def finished_runs(output_dir: Path) -> list[dict[str, Any]]:
    """Order, seed, system, folder and summary of each finished run of a study, sorted by order, system and seed."""
    runs = []
    for path in output_dir.glob("*/seed_*/*/summary.json"):
        order, seed, system = path.parts[-4:-1]
        summary = json.loads(path.read_text(encoding="utf-8"))
        run = {"order": order, "seed": int(seed.removeprefix("seed_")), "system": system}
        runs.append(run | {"folder": path.parent, "summary": summary})
    return sorted(runs, key=lambda run: (run["order"], SYSTEMS.index(run["system"]), run["seed"]))


def identity(run: dict[str, Any]) -> dict[str, Any]:
    """The columns that identify a run in the CSV files."""
    return {name: run[name] for name in ("order", "system", "seed")}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Tables 1 and 2 as one Markdown table: mean ± standard deviation, and the harm of shuffling in per cent."""
    titles = ["Labels in training", "System", "Seeds", "HL", "0/1 loss", "micro-F1", "P", "R", "micro-F1 of threshold"]
    lines = []
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["order"], row["system"]), []).append(row)
    means = {key: {m: statistics.mean(r[m] for r in group) for m in METRICS} for key, group in groups.items()}
    for (order, system), group in groups.items():
        cells = [order, system, str(len(group))]
        for metric in METRICS:
            decimals = 4 if metric == "hamming_loss" else 3
            cell = mean_and_deviation([row[metric] for row in group], decimals)
            if order == "shuffled" and ("frequency", system) in means:
                harm = studies.degradation(metric, means["frequency", system][metric], means[order, system][metric])
                cell += f" ({abs(harm):.1%} {'worse' if harm > 0 else 'better'})"
            cells.append(cell)
        lines.append(cells)
    return markdown_table(titles, lines)


def climb(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Validation micro-F1 of the best sequences by epoch; fine-tuning starts at the best epoch of likelihood."""
    starts = {
        (run["order"], run["seed"]): (
            run["summary"]["training"]["best_epoch"],
            run["summary"]["metrics"]["validation"],
        )
        for run in runs
        if run["system"] == SYSTEMS[0]
    }
    rows = []
    for run in runs:
        points = [(record["epoch"], record["eval_best_sequence_micro_f1"]) for record in run["summary"]["history"]]
        if run["system"] != SYSTEMS[0]:
            epoch, metrics = starts[run["order"], run["seed"]]
            points = [(epoch + own, value) for own, value in points]
            points.insert(0, (epoch, metrics["best_sequence_micro_f1"]))
        rows += [identity(run) | {"epoch": epoch, "micro_f1": value} for epoch, value in points]
    return rows


def search_rows(output_dir: Path) -> list[dict[str, Any]]:
    """The settings of each run of the search, and its micro-F1 and 0/1 loss on validation before and after."""
    rows = []
    for path in sorted(
        output_dir.glob("search/*/*/all_results.json"), key=lambda path: (path.parts[-3], int(path.parts[-2]))
    ):
        settings = json.loads(path.parent.with_suffix(".json").read_text(encoding="utf-8"))
        if settings["method"] == "order_free":
            settings["baseline"] = ""  # it has no reward
        results = json.loads(path.read_text(encoding="utf-8"))
        rows.append(
            {"order": path.parts[-3]}
            | {name: settings.get(name, getattr(Seq2SetArguments, name)) for name in SEARCHED}
            | {
                f"{when}_{metric}": results[f"{prefix}{SEARCHED_SPLIT}_best_sequence_{metric}"]
                for metric in ("micro_f1", "zero_one_loss")
                for when, prefix in (("before", "before_"), ("after", ""))
            }
        )
    return rows


def search_table(rows: Sequence[dict[str, Any]]) -> str:
    """The search as a Markdown table."""
    titles = ["Order", "Method", "Learning rate", "Samples", "Baseline", "Dropout", "Likelihood", "Epochs"]
    titles += ["micro-F1 before", "after", "0/1 loss before", "after"]
    measured = [name for name in rows[0] if name not in ("order", *SEARCHED)]
    return markdown_table(
        titles,
        (
            [row["order"], row["method"], f"{row['learning_rate']:g}", row["num_samples"], row["baseline"]]
            + ["on" if row["dropout_in_sampling"] else "off", row["likelihood_weight"], row["num_train_epochs"]]
            + [f"{row[name]:.4f}" for name in measured]
            for row in rows
        ),
    )


def optimum_of(runs: Iterable[dict[str, Any]]) -> float | None:
    """The best possible micro-F1 on the validation split, known only for the generated corpus."""
    if {run["summary"]["data"]["name"] for run in runs} != {"generated"}:
        return None
    validation = load_corpus("generated", split="validation")
    names = validation.features["labels"].feature.names
    gold = [[names[label] for label in labels] for labels in validation["labels"]]
    return default_process().optimal_micro_f1(validation["text"], gold)


def test_labels(folder: Path, set_decoding: str) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted labels of a run on the test split, most frequent label first, bool, shape (N, L) each."""
    config = SGMConfig.from_pretrained(folder)
    names = [config.id2label[label] for label in range(config.num_labels)]
    return studies.read_predictions(folder / "predictions_test.jsonl", names, set_decoding)


def report_study(study: Path, output: Path, set_decoding: str = "best_sequence") -> str:
    """Write the tables and figures of a study.

    Args:
        study: The folder that `train_study` and `search_settings` wrote.
        output: Folder for the tables and figures.
        set_decoding: Which predicted sets are compared: "best_sequence", "threshold" or "expected_f1".

    Returns:
        The Markdown table.

    Raises:
        FileNotFoundError: If no run of the study is finished.
        ModuleNotFoundError: If matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError("the figures need matplotlib: pip install 'sgm_hf[figures]'")
    from sgm_hf.analysis import figures  # an extra, which training needs not

    runs = finished_runs(study)
    if not runs:
        raise FileNotFoundError(f"{study} holds no finished run; run sgm-hf study train first.")
    metrics, top, frequency = [], [], []
    for run in runs:
        matrices = test_labels(run["folder"], set_decoding)
        measured = compute_metrics(*matrices)
        measured["threshold_micro_f1"] = compute_metrics(*test_labels(run["folder"], "threshold"))["micro_f1"]
        metrics.append(identity(run) | {name: measured[name] for name in METRICS})
        removed = [k for k in REMOVED if k <= 2 * matrices[0].shape[1] / 3]
        values = studies.without_top_labels(*matrices, removed)
        top += [identity(run) | {"removed": k, "micro_f1": f1} for k, f1 in zip(removed, values, strict=True)]
        frequency.append(identity(run) | studies.by_frequency(*matrices))
    corpus = runs[0]["summary"]["data"]["name"]
    write_rows(metrics, output / "table.csv")
    text = table(metrics)
    write_text_atomically(output / "table.md", text + "\n")
    write_rows(top, output / "without_top_labels.csv")
    figures.plot_without_top_labels(
        top, output / "without_top_labels", f"{corpus}, test: the k most frequent left out"
    )
    write_rows(frequency, output / "by_frequency.csv")
    figures.plot_by_frequency(frequency, output / "by_frequency", f"{corpus}, test: first and last 10 % of the labels")
    points = climb(runs)
    write_rows(points, output / "climb.csv")
    figures.plot_climb(points, output / "climb", f"{corpus}: training and fine-tuning", optimum_of(runs))
    searched = search_rows(study)
    if searched:
        write_rows(searched, output / "search.csv")
        write_text_atomically(output / "search.md", search_table(searched) + "\n")
    return text
