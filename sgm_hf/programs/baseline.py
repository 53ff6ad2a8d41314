"""Tune a baseline on held-out documents, evaluate it and predict: what `sgm-hf baseline` does."""

import hashlib
import inspect
import itertools
import json
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, disable_progress_bars

from sgm_hf.baselines import BASELINES, Baseline, Documents, fit_decision
from sgm_hf.baselines.base import BASELINE_FILE, digest_texts
from sgm_hf.baselines.decisions import METRIC_OF
from sgm_hf.data.labels import label_sets_of, reference_matrix
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.programs.checks import check_hierarchy, check_ranges, check_source
from sgm_hf.programs.ending import log_to_stderr
from sgm_hf.programs.help import help_text
from sgm_hf.programs.options import SettingsParser, with_settings
from sgm_hf.programs.results import draw_reliability, write_predictions
from sgm_hf.programs.settings import WORD_OPTIONS, DataArguments, ModelArguments, is_given, option
from sgm_hf.programs.splits import arrange_splits, load_splits
from sgm_hf.training.checkpoints import alone_in, is_unused, write_text_atomically
from sgm_hf.training.machine import prepare_cpu
from sgm_hf.training.prediction import metrics_of_decodings
from sgm_hf.training.progress import duration
from sgm_hf.training.summary import describe_machine, package_versions, summary_text, write_summary

logger = logging.getLogger(__name__)

TUNING_FILE = "tuning.json"
# Of the setting that is being trained; what begins with _ is not for the user.
CHECKPOINTS = "_checkpoints_"
# Those of the extra "baselines", by the names of their distributions.
LIBRARIES = ("scikit-learn", "scipy", "napkinxc")
# Of the documents' options those that only models have.
WITHOUT_EFFECT = (*WORD_OPTIONS, "max_length", "attention_figures", "image_column")


@dataclass
class BaselineArguments:
    """What is done with a baseline."""

    output_dir: str | None = option(
        "Folder of the results. Default: runs/DATA_NAME, where DATA is the training file's or the corpus' name."
    )
    grid: str | None = option(
        'JSON of the values of settings that are tried, as {"cost": [0.1, 1]}; other settings keep those of the '
        "baseline's own grid, which is the default.",
    )
    objective: str = option(
        "What label sets are to be best at: settings are chosen and decisions fitted by it.",
        "micro_f1",
        choices=list(METRIC_OF),
    )
    seed: int = option("Seed of the baseline.", 42)
    do_train: bool = option("Tune and train; else what is evaluated is the baseline that --output_dir has.", True)
    do_eval: bool = option("Evaluate the validation documents.", True)
    do_predict: bool = option("Predict the test documents, else the validation documents.", True)

    def __post_init__(self) -> None:
        """Check the objective (ValueError)."""
        if self.objective not in METRIC_OF:
            raise ValueError(f"--objective is {self.objective!r}; choose one of {', '.join(METRIC_OF)}.")


class Tried(NamedTuple):
    """A setting that was tried.

    Args:
        settings: Keywords of the baseline's `__init__`.
        value: The metric of the objective on held-out documents.
        metric: Its name.
        seconds: Of training.
        best_epoch: The one that was kept, of a network.
    """

    settings: dict[str, Any]
    value: float
    metric: str
    seconds: float
    best_epoch: float | None = None

    def is_better_than(self, other: "Tried") -> bool:
        """Whether its value is better by the same metric."""
        return self.value < other.value if self.metric.endswith("loss") else self.value > other.value


# ---- settings ----


def parse_baseline_arguments(
    arguments: Sequence[str], usage: str, description: str | None = None
) -> tuple[str, DataArguments, BaselineArguments]:
    """Read the name of a baseline, an optional JSON file of settings, and the options after it.

    Args:
        arguments: The command line without the program's name.
        usage: How the command is called.
        description: What --help says first.

    Raises:
        FileNotFoundError: If the JSON file does not exist.
        ValueError: If there is no such baseline or setting, or a setting is out of its range.
        SystemExit: After the help.
    """
    classes = (DataArguments, BaselineArguments)
    if {"-h", "--help", "--help_all"} & set(arguments):
        print(help_text(usage, description, classes, ("Words",), texts={}), end="")
        raise SystemExit(0)
    if not arguments or arguments[0] not in BASELINES:
        given = f"there is no baseline {arguments[0]!r}" if arguments else "no baseline is named"
        raise ValueError(f"{given}; give one of {', '.join(BASELINES)} first, see --help.")
    name, *rest = arguments
    parser = SettingsParser(classes, add_help=False)
    given = vars(parser.parse_args(with_settings(parser, rest, classes)))
    if given["output_dir"] is None:
        files = [given[f"{split}_file"] for split in ("train", "validation", "test") if given[f"{split}_file"]]
        data = Path(given["dataset_name"] or (files[0] if files else "generated")).stem
        given["output_dir"] = str(Path("runs", f"{data}_{name}"))
    data_args, run_args = parser.parse_dict(given)
    return name, data_args, run_args


def settings_to_try(baseline_class: type[Baseline], grid: str | Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """All combinations of the grid, the last setting varying fastest; each of them makes a baseline.

    Args:
        baseline_class: The class of the baseline.
        grid: JSON, or what it says: a value or a list of them by the name of a setting, in place of the class' own.

    Raises:
        ValueError: If it is not such JSON, or has a setting or value that the class does not take.
    """
    example = """'{"cost": [0.1, 1]}'"""
    if isinstance(grid, str):
        try:
            grid = json.loads(grid)
        except json.JSONDecodeError as error:
            raise ValueError(f"--grid is not JSON ({error.msg}): {grid}; write it as {example}.") from error
    if grid is not None and not isinstance(grid, Mapping):
        raise ValueError(f"--grid is {grid!r}; expected settings and their values, as {example}.")
    parameters = inspect.signature(baseline_class).parameters
    known = [name for name in parameters if name != "seed"]
    values = dict(baseline_class.grid)
    for name, tried in (grid or {}).items():
        if name not in known:
            raise ValueError(f"--grid has {name!r}; the settings of {baseline_class.name} are {', '.join(known)}.")
        values[name] = tuple(tried) if isinstance(tried, list) else (tried,)
        default = parameters[name].default
        wrong = [value for value in values[name] if not is_of_kind(value, default)]
        if wrong or not values[name]:
            given = repr(wrong[0]) if wrong else "no value"
            raise ValueError(f"--grid has {given} for {name}; expected one like its default, {default!r}.")
    settings = [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
    for setting in settings:
        baseline_class(**setting)  # checks it
    return settings


def is_of_kind(value: Any, default: Any) -> bool:
    """Whether a value is of the type of a setting's default; without a default any is."""
    if default in (None, inspect.Parameter.empty) or isinstance(default, bool):
        return isinstance(value, bool) or not isinstance(default, bool)
    kinds = {float: (int, float), tuple: (list,)}.get(type(default), (type(default),))  # JSON has lists
    return isinstance(value, kinds) and not isinstance(value, bool)


def check_run(data_args: DataArguments, run_args: BaselineArguments) -> None:
    """Refuse settings that cannot work, and warn of those that have no effect.

    Raises:
        ValueError: If data is missing or given twice, or a setting is out of its range.
        FileExistsError: If the output folder has something else than a tuning of a baseline.
        FileNotFoundError: If there is no file of the label hierarchy.
    """
    files = (data_args.train_file, data_args.validation_file, data_args.test_file)
    if data_args.dataset_name is None and not any(files):
        data_args.dataset_name = "generated"  # which needs no download
    check_source(data_args)
    check_ranges(ModelArguments(), data_args)
    check_hierarchy(ModelArguments(), data_args)
    if run_args.do_train and data_args.dataset_name is None and data_args.train_file is None:
        raise ValueError("--do_train needs --train_file or --dataset_name.")
    folder = Path(str(run_args.output_dir))
    if run_args.do_train and not is_unused(folder) and not (folder / TUNING_FILE).is_file():
        raise FileExistsError(f"the output folder {folder} is not empty; choose another --output_dir.")
    given = [f"--{name}" for name in WITHOUT_EFFECT if is_given(name, data_args)]
    if given:
        logger.warning("%s: no effect on a baseline, which has settings of its own (--grid)", ", ".join(given))
    if data_args.label_hierarchy is not None and not data_args.add_ancestors:
        logger.warning("--label_hierarchy: no effect on a baseline without --add_ancestors true")


# ---- tuning ----


def documents_of(dataset: Dataset, names: Sequence[str], data_args: DataArguments) -> Documents:
    """Texts and true labels, with a column for each of the names, and behind them for labels that are unknown."""
    ids = dataset["id"][:] if "id" in dataset.column_names else None
    references, _ = reference_matrix(label_sets_of(dataset), names, data_args.unknown_labels, ids)
    return Documents([text or "" for text in dataset["text"]], references)


def hash_documents(documents: Documents) -> str:
    """A hash of texts and labels in their order, in hexadecimal."""
    digest = digest_texts(documents.texts)
    digest.update(str(documents.references.shape).encode())
    digest.update(np.packbits(documents.references, axis=1).tobytes())
    return digest.hexdigest()


class Tuning:
    """The settings that were tried, kept in `tuning.json`, so that a search that was killed goes on.

    Args:
        folder: Where the file is.
        made_with: What all settings have in common: the baseline, the seed, the objective, hashes of the documents.

    Raises:
        ValueError: If the file is of something else, or damaged.
    """

    def __init__(self, folder: Path, made_with: dict[str, Any]):
        self.path, self.made_with = folder / TUNING_FILE, json.loads(json.dumps(made_with))
        self.tried: list[Tried] = []
        if not self.path.is_file():
            self._keep()  # from now on the folder is that of this tuning
            return
        remedy = "choose another --output_dir, or remove that file"
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
            old, self.tried = record["made_with"], [Tried(**tried) for tried in record["tried"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} is damaged ({error}); remove it, or choose another --output_dir."
            ) from error
        changed = [name for name in {**old, **self.made_with} if old.get(name) != self.made_with.get(name)]
        if changed:
            shown = ", ".join(f"{name}: {old.get(name)} → {self.made_with.get(name)}" for name in changed)
            raise ValueError(f"{self.path} has settings that were tried otherwise ({shown:.300}); {remedy}.")

    def find(self, settings: Mapping[str, Any]) -> Tried | None:
        """The outcome of settings, None where they were not tried."""
        return next((tried for tried in self.tried if tried.settings == dict(settings)), None)

    def add(self, tried: Tried) -> None:
        """Keep an outcome."""
        self.tried.append(tried)
        self._keep()

    def _keep(self) -> None:
        """Write the file."""
        record = {"made_with": self.made_with, "tried": [one._asdict() for one in self.tried]}
        write_text_atomically(self.path, json.dumps(record, indent=2) + "\n")

    def best(self, settings: Sequence[Mapping[str, Any]]) -> Tried | None:
        """The best of these settings that were tried, the first of those alike."""
        best = None
        for tried in map(self.find, settings):
            if tried is not None and (best is None or tried.is_better_than(best)):
                best = tried
        return best


def tune(
    baseline_class: type[Baseline],
    settings: Sequence[dict[str, Any]],
    documents: Mapping[str, Documents],
    names: Sequence[str],
    run_args: BaselineArguments,
) -> Tuning:
    """Try settings on held-out documents; the best baseline is saved to the output folder.

    Args:
        baseline_class: The class of the baseline.
        settings: Those to try.
        documents: To train on ("train"), and to choose by ("held_out").
        names: Of the labels.
        run_args: Seed, objective and output folder.
    """
    folder, seed = Path(str(run_args.output_dir)), run_args.seed
    made_with = {"baseline": baseline_class.name, "seed": seed, "objective": run_args.objective}
    made_with |= {split: hash_documents(part) for split, part in documents.items()}
    labels = hashlib.blake2b(json.dumps(list(names)).encode(), digest_size=16).hexdigest()
    tuning = Tuning(folder, made_with | {"labels": labels})
    left = [setting for setting in settings if tuning.find(setting) is None]
    if len(left) < len(settings):
        logger.info("%d of %d settings were tried before", len(settings) - len(left), len(settings))
    last, start = None, time.perf_counter()
    for number, setting in enumerate(left, start=1):
        last, tried = train_setting(baseline_class, setting, last, documents, names, run_args)
        best = tuning.best(settings)
        if best is None or tried.is_better_than(best):
            last.save(folder)  # first: what is among those tried is also saved, if it is the best
        tuning.add(tried)
        shutil.rmtree(checkpoint_folder(run_args, setting), ignore_errors=True)
        remaining = (time.perf_counter() - start) / number * (len(left) - number)
        logger.info(
            "setting %d of %d, %s: %s %.4f, %s; %s left",
            *(len(settings) - len(left) + number, len(settings), setting, tried.metric, tried.value),
            *(duration(tried.seconds), duration(remaining)),
        )
    best = tuning.best(settings)
    assert best is not None  # there is a setting at least
    if not is_saved(
        folder, {**best.settings, "seed": seed}
    ):  # the grid was another, or a kill came while it was saved
        last, _ = train_setting(baseline_class, best.settings, last, documents, names, run_args)
        last.save(folder)
        shutil.rmtree(checkpoint_folder(run_args, best.settings), ignore_errors=True)
    return tuning


def is_saved(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder has a complete baseline of these settings."""
    path = folder / BASELINE_FILE
    return path.is_file() and settings.items() <= json.loads(path.read_text(encoding="utf-8"))["settings"].items()


def checkpoint_folder(run_args: BaselineArguments, setting: Mapping[str, Any]) -> Path:
    """Where a network that is trained with a setting keeps its checkpoints."""
    digest = hashlib.blake2b(json.dumps(setting, sort_keys=True).encode(), digest_size=8)
    return Path(str(run_args.output_dir), f"{CHECKPOINTS}{digest.hexdigest()}")


def train_setting(
    baseline_class: type[Baseline],
    setting: dict[str, Any],
    last: Baseline | None,
    documents: Mapping[str, Documents],
    names: Sequence[str],
    run_args: BaselineArguments,
) -> tuple[Baseline, Tried]:
    """Train one setting and fit its decision.

    Args:
        baseline_class: The class of the baseline.
        setting: Keywords of it.
        last: The one that was trained before, of which parts may be reused.
        documents: To train on ("train"), and to choose by ("held_out").
        names: Of the labels.
        run_args: Seed, objective and output folder.

    Returns:
        The baseline, and what it reached.
    """
    baseline = baseline_class(**setting, seed=run_args.seed)
    baseline.label_names = list(names)
    if last is not None:
        baseline.reuse(last)
    baseline.checkpoint_folder = checkpoint_folder(run_args, setting)  # a kill costs an epoch of a network at most
    start = time.perf_counter()
    baseline.fit(documents["train"], documents["held_out"])
    seconds = time.perf_counter() - start + baseline.reused_seconds
    found = baseline.scores_and_sets(documents["held_out"].texts)
    baseline.decision, value = fit_decision(documents["held_out"].references, *found, run_args.objective)
    return baseline, Tried(setting, value, METRIC_OF[run_args.objective], round(seconds, 3), baseline.best_epoch)


# ---- the program ----


def score_split(
    baseline: Baseline,
    dataset: Dataset,
    split: str,
    training_counts: np.ndarray | None,
    data_args: DataArguments,
    run_args: BaselineArguments,
) -> dict[str, float]:
    """The metrics of a split as `SGMTrainer.predict` reports them; writes its reliability diagram and predictions.

    Args:
        baseline: With names and decision.
        dataset: The documents.
        split: Its name.
        training_counts: Training documents of each label, where they are known.
        data_args: What becomes of unknown labels.
        run_args: The folder, and whether predictions are written.
    """
    names, folder = list(baseline.label_names or ()), Path(str(run_args.output_dir))
    start = time.perf_counter()
    predicted = baseline.predict([text or "" for text in dataset["text"]])
    seconds = time.perf_counter() - start
    decodings = {decoding: baseline.decision.label_sets(predicted, decoding) for decoding in SET_DECODINGS}
    chosen, threshold = baseline.decision.set_decoding, baseline.decision.threshold
    metrics: dict[str, float] = {}
    references = None
    if "labels" in dataset.column_names:
        references = documents_of(dataset, names, data_args).references
        scores = predicted.label_scores_of(references.shape[1])
        metrics = metrics_of_decodings(references, decodings, chosen, scores, training_counts=training_counts)
    if isinstance(threshold, float):  # there may be one per label
        metrics["label_threshold"] = threshold
    metrics |= {"runtime": round(seconds, 3), "documents_per_second": round(len(dataset) / seconds, 1)}
    draw_reliability(references, predicted, split, folder)
    if run_args.do_predict:
        path = folder / f"predictions_{split}.jsonl"
        write_predictions(path, dataset, decodings[chosen], decodings, predicted.label_scores, names)
        logger.info("predictions written to %s", path)
    return metrics


def run_baseline(name: str, data_args: DataArguments, run_args: BaselineArguments) -> dict[str, dict]:
    """Tune, train, evaluate and predict as the settings say.

    Args:
        name: A key of `BASELINES`.
        data_args: The documents.
        run_args: What is done.

    Returns:
        The metrics of each split that was evaluated or predicted.

    Raises:
        ValueError: If the settings cannot work, or the baseline in the folder is another.
        FileExistsError: If the output folder is in use.
        FileNotFoundError: If nothing is to be trained and the folder has no baseline.
    """
    log_to_stderr()
    if not sys.stderr.isatty():
        disable_progress_bars()  # of datasets; lines are written instead
    baseline_class = BASELINES[name]
    settings = settings_to_try(baseline_class, run_args.grid)
    check_run(data_args, run_args)
    prepare_cpu(data_args.num_threads)
    folder = Path(str(run_args.output_dir))
    baseline = None if run_args.do_train else baseline_class.load(folder)
    with alone_in(folder):
        logger.info("reading the documents")
        known = None if baseline is None else baseline.label_names
        splits = arrange_splits(load_splits(data_args, known), data_args)
        logger.info("documents: %s", ", ".join(f"{split} {len(dataset):,}" for split, dataset in splits.items()))
        training: dict[str, Any] = {}
        counts = None
        if baseline is None:
            names = splits["train"].features["labels"].feature.names
            # As for our models, the validation documents only measure where there are others to fit on.
            parts = {"train": splits["train"], "held_out": splits.get("threshold", splits["validation"])}
            used = {part: documents_of(dataset, names, data_args) for part, dataset in parts.items()}
            # Decisions are about the known labels alone.
            used = {part: Documents(texts, truth[:, : len(names)]) for part, (texts, truth) in used.items()}
            counts = used["train"].references.sum(axis=0)
            training = describe_tuning(tune(baseline_class, settings, used, names, run_args), settings)
            baseline = baseline_class.load(folder)
        wanted = {"validation": run_args.do_eval, "test": False}
        wanted["test" if "test" in splits else "validation"] |= run_args.do_predict
        metrics = {
            split: score_split(baseline, splits[split], split, counts, data_args, run_args)
            for split in wanted
            if wanted[split] and split in splits
        }
        report(baseline, splits, training, metrics, data_args, run_args)
    return metrics


def describe_tuning(tuning: Tuning, settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Time of the best settings and of all that were tried, and what they reached."""
    best = tuning.best(settings)
    assert best is not None  # one was tried at least
    return {
        "seconds": best.seconds,
        "tuning_seconds": round(sum(tried.seconds for tried in tuning.tried), 3),
        "settings_tried": len(tuning.tried),
        "best_epoch": best.best_epoch,
        "best_metric": best.value,
    }


def is_installed(distribution: str) -> bool:
    """Whether a distribution is there: not every baseline needs every library."""
    return any(True for _ in distributions(name=distribution))


def report(
    baseline: Baseline,
    splits: Mapping[str, Dataset],
    training: dict[str, Any],
    metrics: dict[str, dict],
    data_args: DataArguments,
    run_args: BaselineArguments,
) -> None:
    """Write `all_results.json`, `summary.json` and `summary.txt` as `sgm-hf train` does, and print the summary."""
    folder = Path(str(run_args.output_dir))
    given = {**asdict(data_args), **asdict(run_args)}
    summary = {
        "data": {
            "name": data_args.dataset_name or data_args.train_file or data_args.test_file or data_args.validation_file,
            **{f"{split}_documents": len(dataset) for split, dataset in splits.items()},
        },
        "model": {"labels": baseline.num_labels, "baseline": baseline.name, **baseline.settings},
        "generation": {
            "set_decoding": baseline.decision.set_decoding,
            "label_threshold": baseline.decision.threshold,
            "objective": run_args.objective,
        },
        "settings": {key: value for key, value in given.items() if value is not None}
        | {
            "seed": baseline.settings["seed"],
            "precision": "bf16" if baseline.bf16 else "fp32",
            "bf16": baseline.bf16,
        },
        "training": training,
        "machine": describe_machine(),
        "versions": package_versions() | {package: version(package) for package in LIBRARIES if is_installed(package)},
        "metrics": metrics,
    }
    flat = {f"train_{name}": value for name, value in training.items() if isinstance(value, int | float)}
    for split, values in metrics.items():
        flat |= {f"{split}_{name}": value for name, value in values.items()}
    write_text_atomically(folder / "all_results.json", json.dumps(flat, indent=2) + "\n")
    write_summary(summary, folder)
    print(summary_text(summary))
    print(f"\nThe baseline is in {folder}; in Python: Baseline.load({str(folder)!r}).predict_labels(texts)")
