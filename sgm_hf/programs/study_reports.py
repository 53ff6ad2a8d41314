"""Tables and figures of a study, from what its runs predicted: what `sgm-hf study report` does."""

import json
import logging
import statistics
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sgm_hf.analysis import studies
from sgm_hf.data.labels import LABEL_ORDERS
from sgm_hf.data.lines import read_json_lines
from sgm_hf.datasets_scripts import load as load_corpus
from sgm_hf.datasets_scripts.generated import default_process
from sgm_hf.metrics import compute_metrics
from sgm_hf.programs.finetuning import Seq2SetArguments
from sgm_hf.programs.studies import Run, Study, load_study, minutes_of
from sgm_hf.tables import markdown_table, mean_and_deviation, write_csv
from sgm_hf.training.checkpoints import write_text_atomically

# The numbers of the CSV files have six significant digits.
write_rows = partial(write_csv, float_format=".6g")
logger = logging.getLogger(__name__)

REMOVED = (0, 1, 2, 4, 8, 12, 16, 20, 30, 40, 50, 60)
# Titles of the metrics of the table, and whether more is better.
METRICS = {
    "hamming_loss": ("HL", False),
    "zero_one_loss": ("0/1 loss", False),
    "micro_precision": ("P", True),
    "micro_recall": ("R", True),
    "micro_f1": ("micro-F1", True),
    "macro_f1": ("macro-F1", True),
}
SEARCHED = (
    *("method", "learning_rate", "num_samples", "baseline", "dropout_in_sampling", "likelihood_weight"),
    "num_train_epochs",
)


class Evaluated:
    """The finished runs of a study and the label sets that they predict, matrices of shape (N, L).

    Args:
        study: The study.
        set_decoding: The field of the predictions that the figures are drawn from.

    Attributes:
        runs: The finished runs.
        split: "test", or "validation" where there are no test documents.

    Raises:
        FileNotFoundError: If no run is finished, or one has no predictions.
    """

    def __init__(self, study: Study, set_decoding: str):
        self.study, self.set_decoding = study, set_decoding
        self.runs = study.finished_runs()
        if not self.runs:
            raise FileNotFoundError(f"{study.output_dir} holds no finished run; run sgm-hf study train first.")
        has_test = any((run.folder / "predictions_test.jsonl").exists() for run in self.runs)
        self.split = "test" if has_test else "validation"
        self.matrices: dict[tuple[Path, str], np.ndarray] = {}

    @property
    def title(self) -> str:
        """The corpus and the split."""
        return f"{self.study.corpus or 'files'}, {self.split}"

    @cached_property
    def label_names(self) -> list[str]:
        """The labels: in the order of their frequency in training where a model has it, else in that of a run."""
        models = [run for run in self.runs if run.program != "baseline"]
        configs = [json.loads((run.folder / "config.json").read_text(encoding="utf-8")) for run in models]
        configs.sort(key=lambda config: config["label_order"] not in ("frequency", "shuffled"))
        names = [[config["id2label"][str(label)] for label in range(len(config["id2label"]))] for config in configs]
        for run in self.runs:
            if run.program == "baseline":
                record = json.loads((run.folder / "baseline.json").read_text(encoding="utf-8"))
                names.append(record["label_names"])
        for run_names in names:
            if set(run_names) != set(names[0]):
                raise ValueError(
                    f"the runs in {self.study.output_dir} have different labels, e.g. "
                    f"{sorted(set(run_names) ^ set(names[0]))[0]!r}: they are not of one corpus."
                )
        return names[0]

    @cached_property
    def documents(self) -> list[tuple[Any, tuple[str, ...]]]:
        """Id and true labels of each document."""
        return self.documents_of(self.runs[0])

    def documents_of(self, run: Run) -> list[tuple[Any, tuple[str, ...]]]:
        """Id and true labels of each document, in the predictions of a run."""
        records = (record for _, record in read_json_lines(self.predictions_file(run)))
        return [(record["id"], tuple(sorted(record["gold"]))) for record in records]

    def predictions_file(self, run: Run) -> Path:
        """The predictions of a run."""
        return run.folder / f"predictions_{self.split}.jsonl"

    @cached_property
    def references(self) -> np.ndarray:
        """The true labels."""
        return studies.read_predictions(self.predictions_file(self.runs[0]), self.label_names, "labels")[0]

    def predictions(self, run: Run, set_decoding: str | None = None) -> np.ndarray:
        """The predicted labels of a run.

        Raises:
            ValueError: If they are not of the same documents as those of the first run.
        """
        key = (run.folder, set_decoding or self.set_decoding)
        if key not in self.matrices:
            path = self.predictions_file(run)
            _, predicted = studies.read_predictions(path, self.label_names, key[1])
            if self.documents_of(run) != self.documents:
                raise ValueError(
                    f"{path} and {self.predictions_file(self.runs[0])} are not of the same documents and true labels; "
                    "train all systems on the same data."
                )
            self.matrices[key] = predicted
        return self.matrices[key]

    def identity(self, run: Run) -> dict[str, Any]:
        """The columns that identify a run; "order" is empty where the study compares none."""
        return {"order": run.order or "", "system": run.system, "seed": run.seed}

    def write(self, rows: Sequence[dict[str, Any]], path: Path) -> None:
        """Write rows as CSV, without a column of orders where the study compares none."""
        kept = [name for name in rows[0] if name != "order" or rows[0]["order"]]
        write_rows(rows, path, kept)


# ---- table ----


def table_rows(evaluated: Evaluated) -> list[dict[str, Any]]:
    """The metrics of each run, for each set decoding of the study, and the minutes of its training."""
    decodings = evaluated.study.config.get("set_decodings", [evaluated.set_decoding])
    return [
        evaluated.identity(run)
        | {"set_decoding": decoding, "documents": len(evaluated.references)}
        | {name: metrics[name] for name in METRICS}
        | {"minutes": round(minutes_of(run), 2)}
        for decoding in decodings
        for run in evaluated.runs
        for metrics in [compute_metrics(evaluated.references, evaluated.predictions(run, decoding))]
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `table_rows` in Markdown: mean ± standard deviation over seeds, the best mean of a decoding in bold.

    Where the study compares orders of labels, the harm of shuffling stands in brackets, in per cent.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["set_decoding"], row["order"], row["system"]), []).append(row)
    means = {key: {m: statistics.mean(row[m] for row in group) for m in METRICS} for key, group in groups.items()}
    decodings = list(dict.fromkeys(row["set_decoding"] for row in rows))
    has_orders = any(row["order"] for row in rows)
    lines = []
    for (decoding, order, system), group in groups.items():
        cells = [system, str(len(group))]
        for metric, (_, more_is_better) in METRICS.items():
            cell = mean_and_deviation([row[metric] for row in group], 4 if metric == "hamming_loss" else 3)
            best = (max if more_is_better else min)(mean[metric] for key, mean in means.items() if key[0] == decoding)
            own, ordered = means[decoding, order, system][metric], means.get((decoding, "frequency", system))
            if own == best and len(means) > len(decodings):
                cell = f"**{cell}**"
            if order == "shuffled" and ordered is not None:
                harm = studies.degradation(metric, ordered[metric], own)
                cell += f" ({abs(harm):.1%} {'worse' if harm > 0 else 'better'})"
            cells.append(cell)
        minutes = statistics.mean(row["minutes"] for row in group)
        lines.append([*([order] * has_orders), *([decoding] * (len(decodings) > 1)), *cells, f"{minutes:.1f}"])
    titles = ["Labels in training"] * has_orders + ["Label sets"] * (len(decodings) > 1) + ["System", "Seeds"]
    return markdown_table([*titles, *(title for title, _ in METRICS.values()), "Minutes"], lines)


def write_table(evaluated: Evaluated, output: Path) -> str:
    """Write `table.csv` and `table.md`, and return the latter."""
    rows = table_rows(evaluated)
    evaluated.write(rows, output / "table.csv")
    text = table(rows)
    write_text_atomically(output / "table.md", text + "\n")
    return text


# ---- frequent and rare labels, epochs ----


def draw_without_top_labels(evaluated: Evaluated, output: Path) -> None:
    """Micro-F1 without the k most frequent labels (Seq2Set, Figure 1; semantic units, Figure 3)."""
    from sgm_hf.analysis import figures

    rows = []
    removed = [k for k in REMOVED if k <= 2 * len(evaluated.label_names) / 3]
    for run in evaluated.runs:
        values = studies.without_top_labels(evaluated.references, evaluated.predictions(run), removed)
        rows += [
            evaluated.identity(run) | {"removed": k, "micro_f1": f1} for k, f1 in zip(removed, values, strict=True)
        ]
    evaluated.write(rows, output / "without_top_labels.csv")
    title = f"{evaluated.title}: the k most frequent left out"
    figures.plot_without_top_labels(rows, output / "without_top_labels", title)


def draw_by_frequency(evaluated: Evaluated, output: Path) -> None:
    """Micro-F1 of the most and of the least frequent labels (Seq2Set, Figure 2)."""
    from sgm_hf.analysis import figures

    rows = [
        evaluated.identity(run) | studies.by_frequency(evaluated.references, evaluated.predictions(run))
        for run in evaluated.runs
    ]
    evaluated.write(rows, output / "by_frequency.csv")
    title = f"{evaluated.title}: first and last 10 % of the labels"
    figures.plot_by_frequency(rows, output / "by_frequency", title)


def climb(evaluated: Evaluated) -> list[dict[str, Any]]:
    """Validation micro-F1 of the best sequences by epoch; a run that goes on from another starts at its best epoch."""
    summaries = {
        (run.system, run.order, run.seed): json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
        for run in evaluated.runs
    }
    rows = []
    for run in evaluated.runs:
        history = summaries[run.system, run.order, run.seed].get("history", [])
        points = [
            (record["epoch"], record["eval_best_sequence_micro_f1"])
            for record in history
            if "eval_best_sequence_micro_f1" in record
        ]
        base = evaluated.study.config["systems"][run.system].get("after")
        if base is not None:
            start = summaries[base, run.order, run.seed]
            epoch = start["training"]["best_epoch"]
            points = [(epoch + own, value) for own, value in points]
            points.insert(0, (epoch, start["metrics"]["validation"]["best_sequence_micro_f1"]))
        rows += [evaluated.identity(run) | {"epoch": epoch, "micro_f1": value} for epoch, value in points]
    return rows


def draw_climb(evaluated: Evaluated, output: Path) -> None:
    """Micro-F1 on validation by epoch, and the best possible, which is known for the generated corpus."""
    from sgm_hf.analysis import figures

    rows = climb(evaluated)
    if not rows:
        logger.warning("no run was evaluated after its epochs (--eval_strategy): there is no figure of them.")
        return
    evaluated.write(rows, output / "climb.csv")
    corpus = evaluated.study.corpus or "files"
    optimum = best_possible_f1() if corpus == "generated" else None
    figures.plot_climb(rows, output / "climb", f"{corpus}: training and fine-tuning", optimum)


def best_possible_f1() -> float:
    """The best possible micro-F1 on the validation split of the generated corpus."""
    validation = load_corpus("generated", split="validation")
    names = validation.features["labels"].feature.names
    gold = [[names[label] for label in labels] for labels in validation["labels"]]
    return default_process().optimal_micro_f1(validation["text"], gold)


# ---- settings tried ----


def search_rows(study: Study) -> list[dict[str, Any]]:
    """The settings of each finished run of the search, and its metrics on validation before and after."""
    rows = []
    for order in [None] if study.orders == [None] else LABEL_ORDERS:
        for run in study.search_runs(order):
            if not run.is_finished:
                continue
            settings = dict(run.settings)
            if settings["method"] == "order_free":
                settings["baseline"] = ""  # it has no reward
            results = json.loads((run.folder / "all_results.json").read_text(encoding="utf-8"))
            rows.append(
                {"order": order or ""}
                | {name: settings.get(name, getattr(Seq2SetArguments, name)) for name in SEARCHED}
                | {
                    f"{when}_{metric}": results[f"{prefix}validation_best_sequence_{metric}"]
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


# ---- all ----

DRAWN: dict[str, Callable[[Evaluated, Path], Any]] = {
    "table": write_table,
    "without_top_labels": draw_without_top_labels,
    "by_frequency": draw_by_frequency,
    "climb": draw_climb,
}


def report_study(folder: Path, output: Path, set_decoding: str | None = None) -> str:
    """Write the tables and figures of a study that its file names.

    Args:
        folder: The folder that `train_study` and `search_settings` wrote.
        output: Folder for the tables and figures.
        set_decoding: Which predicted sets the figures compare: a field of the predictions, "labels" for those that
            each system was set to; default the first one of the study.

    Returns:
        The table in Markdown.

    Raises:
        FileNotFoundError: If no run of the study is finished.
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If the runs are not of the same documents and labels.
    """
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError("the figures need matplotlib: pip install 'sgm_hf[figures]'")
    study = load_study(folder)
    if set_decoding is not None:
        study.config["set_decodings"] = [set_decoding]
    evaluated = Evaluated(study, study.config.get("set_decodings", ["labels"])[0])
    output.mkdir(parents=True, exist_ok=True)
    text = write_table(evaluated, output)
    for name in study.config.get("reports", []):
        if name != "table":
            logger.info("report: %s", name)
            DRAWN[name](evaluated, output)
    searched = search_rows(study)
    if searched:
        write_rows(searched, output / "search.csv")
        write_text_atomically(output / "search.md", search_table(searched) + "\n")
    return text
