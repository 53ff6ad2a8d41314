"""Tables and figures of a study, from what its runs predicted: what `sgm-hf study report` does."""

import json
import logging
import math
import statistics
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgm_hf.analysis import studies
from sgm_hf.analysis.comparison import Comparison, MetricDifference, compare_predictions, corrected, enough_resamples
from sgm_hf.data.labels import LABEL_ORDERS
from sgm_hf.data.lines import read_json_lines
from sgm_hf.datasets_scripts import load as load_corpus
from sgm_hf.datasets_scripts.generated import default_process
from sgm_hf.metrics import compute_metrics, mean_position_deviation, metrics_by_set_size
from sgm_hf.metrics.calibration import SCORE_METRICS
from sgm_hf.metrics.ranking import RANKING_METRICS
from sgm_hf.programs.finetuning import Seq2SetArguments
from sgm_hf.programs.studies import Run, Study, full_name, load_study, minutes_of, read_summary
from sgm_hf.programs.study_cases import cases_page, cases_table, chosen_rows, texts_of
from sgm_hf.tables import cells_of_groups, markdown_table, mean_and_deviation, write_csv
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
# The same of the scores of all labels.
SCORE_TITLES = {
    "precision_at_1": ("P@1", True),
    "precision_at_3": ("P@3", True),
    "ndcg_at_3": ("nDCG@3", True),
    "ndcg_at_5": ("nDCG@5", True),
    "r_precision": ("R-precision", True),
    "lrap": ("LRAP", True),
    "macro_ap": ("macro AP", True),
    "ece": ("ECE", False),
}
# Those of the table of differences and its figure.
DIFFERENCES = ("micro_f1", "macro_f1", "hamming_loss", "zero_one_loss")
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
        self.packed: dict[tuple[Path, str], np.ndarray] = {}

    @property
    def documents_title(self) -> str:
        """The corpus and the split."""
        return f"{self.study.corpus or 'files'}, {self.split}"

    @property
    def title(self) -> str:
        """The corpus, the split, and which label sets where they are not those that the systems were set to."""
        decoding = "" if self.set_decoding == "labels" else f", {self.set_decoding}"
        return f"{self.documents_title}{decoding}"

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

    @property
    def set_decodings(self) -> list[str]:
        """The set decodings of the tables."""
        return self.study.config.get("set_decodings", [self.set_decoding])

    @property
    def shown(self) -> list[Run]:
        """The runs of the systems that crowded figures show."""
        systems = self.study.config.get("shown", self.study.config["systems"])
        return [run for run in self.runs if run.system in systems]

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
        if key not in self.packed:
            path = self.predictions_file(run)
            _, predicted = studies.read_predictions(path, self.label_names, key[1])
            if self.documents_of(run) != self.documents:
                raise ValueError(
                    f"{path} and {self.predictions_file(self.runs[0])} are not of the same documents and true labels; "
                    "train all systems on the same data."
                )
            self.packed[key] = np.packbits(predicted, axis=1)  # (N, L / 8): a study has dozens of these
        return np.unpackbits(self.packed[key], axis=1, count=len(self.label_names)).view(np.bool_)

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
    return [
        evaluated.identity(run)
        | {"set_decoding": decoding, "documents": len(evaluated.references)}
        | {name: metrics[name] for name in METRICS}
        | {"minutes": round(minutes_of(run), 2)}
        for decoding in evaluated.set_decodings
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
    columns = {name: (better, 4 if name == "hamming_loss" else 3) for name, (_, better) in METRICS.items()}
    cells_of = cells_of_groups(groups, columns, kind=lambda key: key[0])
    decodings = list(dict.fromkeys(row["set_decoding"] for row in rows))
    has_orders = any(row["order"] for row in rows)
    lines = []
    for (decoding, order, system), group in groups.items():
        cells = cells_of[decoding, order, system]
        ordered = groups.get((decoding, "frequency", system))
        if order == "shuffled" and ordered is not None:
            cells = [cell + harm(metric, ordered, group) for cell, metric in zip(cells, METRICS, strict=True)]
        cells = [system, str(len(group)), *cells]
        minutes = statistics.mean(row["minutes"] for row in group)
        lines.append([*([order] * has_orders), *([decoding] * (len(decodings) > 1)), *cells, f"{minutes:.1f}"])
    titles = ["Labels in training"] * has_orders + ["Label sets"] * (len(decodings) > 1) + ["System", "Seeds"]
    return markdown_table([*titles, *(title for title, _ in METRICS.values()), "Minutes"], lines)


def harm(metric: str, ordered: Sequence[dict[str, Any]], shuffled: Sequence[dict[str, Any]]) -> str:
    """By how much the mean of runs with shuffled labels is worse than that of runs with ordered ones, for a cell."""
    before, after = (statistics.mean(row[metric] for row in rows) for rows in (ordered, shuffled))
    worse = studies.degradation(metric, before, after)
    return f" ({abs(worse):.1%} {'worse' if worse > 0 else 'better'})"


def write_table(evaluated: Evaluated, output: Path) -> str:
    """Write `table.csv` and `table.md`, and return the latter."""
    rows = table_rows(evaluated)
    evaluated.write(rows, output / "table.csv")
    text = table(rows)
    write_text_atomically(output / "table.md", text + "\n")
    return text


def ranking_rows(evaluated: Evaluated) -> list[dict[str, Any]]:
    """How well the scores of each run rank labels, as the run has measured it; not of runs of older versions."""
    names = (*RANKING_METRICS, *SCORE_METRICS)
    measured = [(run, read_summary(run)["metrics"][evaluated.split]) for run in evaluated.runs]
    return [
        evaluated.identity(run) | {name: metrics[name] for name in names}
        for run, metrics in measured
        if metrics.keys() >= set(names)
    ]


def write_ranking(evaluated: Evaluated, output: Path) -> None:
    """Write `ranking.csv` and `ranking.md`: how well scores rank labels."""
    rows = ranking_rows(evaluated)
    if not rows:
        logger.warning("no run has measured how its scores rank the labels.")
        return
    evaluated.write(rows, output / "ranking.csv")
    systems: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        systems.setdefault(full_name(row["system"], row["order"] or None), []).append(row)
    cells = cells_of_groups(systems, {name: (better, 3) for name, (_, better) in SCORE_TITLES.items()})
    lines = [[name, str(len(own)), *cells[name]] for name, own in systems.items()]
    titles = ["System", "Seeds", *(title for title, _ in SCORE_TITLES.values())]
    write_text_atomically(output / "ranking.md", markdown_table(titles, lines) + "\n")


# ---- differences ----


class Difference(NamedTuple):
    """A system compared with its reference, over all their runs."""

    order: str
    system: str
    reference: str
    runs: int
    reference_runs: int
    comparison: Comparison


def differences(evaluated: Evaluated) -> list[Difference]:
    """Each system compared with its reference, p-values corrected for all of these comparisons together."""
    config = evaluated.study.config
    files: dict[tuple[str, str], list[Path]] = {}
    for run in evaluated.runs:
        files.setdefault((run.order or "", run.system), []).append(evaluated.predictions_file(run))
    pairs = []
    for (order, system), own in files.items():
        reference = config["systems"][system].get("reference", config.get("reference"))
        others = files.get((order, reference), [])
        if others and reference != system:
            pairs.append((order, system, reference, own, others))
    resamples = enough_resamples(len(pairs) * len(evaluated.set_decodings))
    found = []
    for decoding in evaluated.set_decodings:
        for order, system, reference, own, others in pairs:
            compared = compare_predictions(others, own, decoding, resamples, num_labels=len(evaluated.label_names))
            found.append(Difference(order, system, reference, len(own), len(others), compared))
    comparisons = corrected([difference.comparison for difference in found])
    return [one._replace(comparison=comparison) for one, comparison in zip(found, comparisons, strict=True)]


def write_differences(evaluated: Evaluated, output: Path) -> None:
    """Write `differences.csv`, `.md`, `.png` and `.svg`: each system minus its reference, with 95 % intervals."""
    from sgm_hf.analysis import figures

    found = differences(evaluated)
    if not found:
        logger.warning("there are no differences to report: no reference has a finished run beside another system's.")
        return
    rows: list[dict[str, Any]] = [
        {"order": one.order, "system": one.system, "reference": one.reference}
        | {"set_decoding": one.comparison.set_decoding, "runs": one.runs, "reference_runs": one.reference_runs}
        | {"metric": row.metric, "reference_value": row.a, "value": row.b, "difference": row.difference}
        | {"low": row.low, "high": row.high, "p_value": row.p_value, "p_holm": row.p_holm}
        for one in found
        for row in one.comparison.metrics
    ]
    evaluated.write(rows, output / "differences.csv")
    write_text_atomically(output / "differences.md", differences_table(found, evaluated.documents_title) + "\n")
    drawn = [
        row | {"name": f"{full_name(row['system'], row['order'] or None)} - {row['reference']}"}
        for row in rows
        if row["metric"] in DIFFERENCES and row["set_decoding"] == evaluated.set_decoding
    ]
    figures.plot_differences(drawn, output / "differences", f"{evaluated.title}: differences to a reference")


def differences_table(found: Sequence[Difference], title: str) -> str:
    """Differences in Markdown; those that are no chance after correction are in bold."""
    has_orders = any(one.order for one in found)
    lines = []
    for one in found:
        by_metric = {row.metric: row for row in one.comparison.metrics}
        cells = [f"{one.system} - {one.reference}", f"{one.runs}, {one.reference_runs}"]
        cells += [difference_cell(by_metric[metric]) for metric in DIFFERENCES]
        lines.append([*([one.order] * has_orders), one.comparison.set_decoding, *cells])
    titles = (
        ["Labels in training"] * has_orders
        + ["Label sets", "System - reference", "Runs"]
        + [METRICS[metric][0] for metric in DIFFERENCES]
    )
    first = found[0].comparison
    note = (
        f"{title}: {first.documents:,} documents. In brackets 95 % intervals of a paired bootstrap over documents and "
        f"runs ({first.resamples:,} repetitions; with one run each they are about these runs alone). In bold: p < .05 "
        f"after Holm's correction for the {first.corrected_for} differences of all metrics."
    )
    return f"{markdown_table(titles, lines)}\n\n{note}"


def difference_cell(row: MetricDifference) -> str:
    """A difference with its interval, in bold where the corrected p-value is below .05."""
    decimals = 5 if row.metric == "hamming_loss" else 4
    cell = f"{row.difference:+.{decimals}f} [{row.low:+.{decimals}f}, {row.high:+.{decimals}f}]"
    return f"**{cell}**" if row.p_holm < 0.05 else cell


# ---- λ, sizes, correlations, places ----


def draw_lambda(evaluated: Evaluated, output: Path) -> None:
    """Hamming loss and micro-F1 by λ of the fixed mixture, and of the adaptive gate (SGM, Figure 2)."""
    from sgm_hf.analysis import figures

    rows, gate = [], []
    for run in evaluated.runs:
        model = read_summary(run)["model"]
        metrics = compute_metrics(evaluated.references, evaluated.predictions(run))
        row = evaluated.identity(run) | {name: metrics[name] for name in ("hamming_loss", "micro_f1")}
        if model.get("label_feedback") == "global_embedding":
            gate.append(row | {"mixture_lambda": "gate"})
        elif "label_feedback" in model:
            is_mixture = model["label_feedback"] == "fixed_mixture"
            rows.append(row | {"mixture_lambda": model["mixture_lambda"] if is_mixture else 0.0})
    if not rows:
        logger.warning("no run has a fixed λ: there is no figure of it.")
        return
    evaluated.write(rows + gate, output / "lambda.csv")
    figures.plot_mixture(rows, output / "lambda", f"{evaluated.title}: fixed λ and adaptive gate", gate)


def draw_set_sizes(evaluated: Evaluated, output: Path) -> None:
    """Micro-F1 and Hamming loss by the number of true labels (SGM, Figure 3)."""
    from sgm_hf.analysis import figures

    kept = ("size", "documents", "micro_f1", "hamming_loss")
    largest = largest_group(evaluated.references)
    rows = [
        evaluated.identity(run) | {name: row[name] for name in kept}
        for run in evaluated.shown
        for row in metrics_by_set_size(evaluated.references, evaluated.predictions(run), largest)
    ]
    evaluated.write(rows, output / "set_sizes.csv")
    named = [row | {"system": full_name(row["system"], row["order"] or None)} for row in rows]
    figures.plot_set_sizes(named, output / "set_sizes", f"{evaluated.title}: documents by their number of true labels")


def largest_group(references: np.ndarray, least: int = 20, most: int = 7) -> int:
    """The number of true labels from which on documents are one group: at most `most`, with `least` documents."""
    sizes = references.sum(axis=1)
    return max((size for size in range(2, most + 1) if (sizes >= size).sum() >= least), default=2)


def draw_correlations(evaluated: Evaluated, output: Path, most: int = 30) -> None:
    """Correlations of the most frequent labels in the data and in predictions, clustered (SGM, Table 5)."""
    from sgm_hf.analysis import figures

    counts = evaluated.references.sum(axis=0)
    frequent = np.argsort(-counts, kind="stable")[:most]
    labels = np.sort(frequent[(counts[frequent] > 0) & (counts[frequent] < len(evaluated.references))])
    if len(labels) < 2:
        logger.warning("fewer than two labels vary from document to document: there are no correlations to draw.")
        return
    data = studies.label_correlations(evaluated.references[:, labels])
    order = studies.clustered_order(data)
    names = [evaluated.label_names[labels[place]] for place in order]
    runs: dict[str, list[np.ndarray]] = {}
    for run in evaluated.shown:
        matrix = studies.label_correlations(evaluated.predictions(run)[:, labels])
        runs.setdefault(full_name(run.system, run.order), []).append(matrix)
    means = {"true labels": data} | {name: np.mean(matrices, axis=0) for name, matrices in runs.items()}
    pairs = [(a, b) for a in range(len(order)) for b in range(a + 1, len(order))]
    rows = [
        {"label": names[a], "other": names[b]}
        | {name: float(matrix[order[a], order[b]]) for name, matrix in means.items()}
        for a, b in pairs
    ]
    write_rows(rows, output / "correlations.csv")
    titled = {}
    for name, matrix in means.items():
        distances = np.abs(matrix - data)[np.triu_indices(len(order), 1)]
        note = ""
        if name != "true labels" and not np.isnan(distances).all():
            note = f"\nmean distance to the true labels: {np.nanmean(distances):.3f}"
        titled[f"{name}{note}"] = matrix[np.ix_(order, order)]
    title = f"{evaluated.title}: correlations of the {len(order)} most frequent labels"
    figures.plot_correlations(titled, names, output / "correlations", title)


def write_cases(evaluated: Evaluated, output: Path) -> None:
    """Write documents on which systems differ: `cases.md`, and `cases.html`, which has texts (SGM, Table 5)."""
    runs: dict[str, Run] = {}
    for run in evaluated.shown:  # the first seed of each system
        runs.setdefault(full_name(run.system, run.order), run)
    predicted = {name: evaluated.predictions(run) for name, run in runs.items()}
    rows = chosen_rows(evaluated.references, list(predicted.values()))
    if not rows:
        logger.warning("the systems predict as many wrong labels for each document: there are no cases to show.")
        return
    labels = {
        name: [[evaluated.label_names[label] for label in np.flatnonzero(matrix[row])] for row in rows]
        for name, matrix in ({"true labels": evaluated.references} | predicted).items()
    }
    ids = [document for document, _ in evaluated.documents]
    shown = [ids[row] for row in rows]
    write_text_atomically(output / "cases.md", cases_table(shown, labels) + "\n")
    data_dir = {} if evaluated.study.data_dir is None else {"data_dir": str(evaluated.study.data_dir)}
    texts = texts_of(evaluated.runs[0].settings | data_dir, evaluated.split, ids, rows)
    write_text_atomically(output / "cases.html", cases_page(evaluated.title, shown, texts, labels))


def write_positions(evaluated: Evaluated, output: Path) -> None:
    """Write how far labels stand from their places in the training's order, of the models that have one (SGM-MLC)."""
    rows = []
    for run in evaluated.runs:
        if run.program == "baseline":
            continue
        config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
        if config["label_order"] in (
            "frequency",
            "alphabetical",
            "hierarchical",
        ):  # of the others each set has its own
            places = {name: int(label) for label, name in config["id2label"].items()}
            records = [record for _, record in read_json_lines(evaluated.predictions_file(run))]
            gold = [sorted(places[label] for label in record["gold"]) for record in records]
            found = [[places[label] for label in record["best_sequence"]] for record in records]
            rows.append(evaluated.identity(run) | {"position_deviation": mean_position_deviation(gold, found)})
    if not rows:
        logger.warning("no model has an order of labels that its sequences could be compared with.")
        return
    evaluated.write(rows, output / "positions.csv")
    systems: dict[str, list[float]] = {}
    for row in rows:
        systems.setdefault(full_name(row["system"], row["order"] or None), []).append(row["position_deviation"])
    lines = []
    for name, values in systems.items():
        known = [value for value in values if not math.isnan(value)]  # NaN: no predicted label was true
        lines.append([name, str(len(values)), mean_and_deviation(known, 4) if known else "no label is right"])
    text = markdown_table(["System", "Seeds", "Mean deviation of a label's place"], lines)
    write_text_atomically(output / "positions.md", text + "\n")


# ---- frequent and rare labels, epochs ----


def draw_without_top_labels(evaluated: Evaluated, output: Path) -> None:
    """Micro-F1 without the k most frequent labels (Seq2Set, Figure 1; semantic units, Figure 3)."""
    from sgm_hf.analysis import figures

    rows = []
    removed = [k for k in REMOVED if k <= 2 * len(evaluated.label_names) / 3]
    for run in evaluated.shown:
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
        for run in evaluated.shown
    ]
    evaluated.write(rows, output / "by_frequency.csv")
    title = f"{evaluated.title}: first and last 10 % of the labels"
    figures.plot_by_frequency(rows, output / "by_frequency", title)


def climb(evaluated: Evaluated) -> list[dict[str, Any]]:
    """Validation micro-F1 of the best sequences by epoch; a run that goes on from another starts at its best epoch."""
    summaries = {(run.system, run.order, run.seed): read_summary(run) for run in evaluated.runs}
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
    "ranking": write_ranking,
    "differences": write_differences,
    "lambda": draw_lambda,
    "set_sizes": draw_set_sizes,
    "correlations": draw_correlations,
    "cases": write_cases,
    "positions": write_positions,
    "without_top_labels": draw_without_top_labels,
    "by_frequency": draw_by_frequency,
    "climb": draw_climb,
}


def report_study(
    folder: Path, output: Path, set_decoding: str | None = None, reports: Sequence[str] | None = None
) -> str:
    """Write the tables and figures of a study that its file names.

    Args:
        folder: The folder that `train_study` and `search_settings` wrote.
        output: Folder for the tables and figures.
        set_decoding: Which predicted sets the figures compare: a field of the predictions, "labels" for those that
            each system was set to; default the first one of the study.
        reports: Names among `REPORTS`; default those of the study.

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
    for name in study.config.get("reports", []) if reports is None else reports:
        if name != "table":
            logger.info("report: %s", name)
            DRAWN[name](evaluated, output)
    searched = search_rows(study)
    if searched:
        write_rows(searched, output / "search.csv")
        write_text_atomically(output / "search.md", search_table(searched) + "\n")
    return text
