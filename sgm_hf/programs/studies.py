"""The papers' studies, each a settings file: what `sgm-hf study train` and `search` do.

A study compares systems on one corpus over seeds. The reports on its runs are made in `study_reports.py`.
"""

import json
import logging
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sgm_hf.baselines import BASELINES
from sgm_hf.baselines.base import BASELINE_FILE
from sgm_hf.data.labels import LABEL_ORDERS
from sgm_hf.programs.baseline import parse_baseline_arguments, settings_to_try
from sgm_hf.programs.finetuning import TRAINERS, Seq2SetArguments
from sgm_hf.programs.options import parse_arguments, read_settings
from sgm_hf.training import SGMTrainingArguments
from sgm_hf.training.checkpoints import alone_in, has_complete_checkpoint, write_text_atomically
from sgm_hf.training.interruption import run_to_its_end

logger = logging.getLogger(__name__)

STUDIES = Path(__file__).parents[1] / "studies"
STUDY_FILE = "study.json"
REPORTS = (
    *("table", "ranking", "differences", "lambda", "set_sizes", "correlations", "cases", "positions"),
    *("without_top_labels", "by_frequency", "climb"),
)
# Settings of all systems, and of those of a kind: new models, models that go on from another system's, baselines.
SECTIONS = ("common", "train", "after", "baseline")
PARTS = {
    *SECTIONS,
    *("description", "corpora", "systems", "orders", "seeds", "search"),
    *("reference", "shown", "set_decodings", "reports"),
}
# What a system has that is no setting of its program.
OF_SYSTEM = ("after", "seeds", "reference")
# Settings that may differ from those of a finished run: they say where files are, and how to go on.
FREE = {"output_dir", "data_dir", "resume_from_checkpoint", "num_threads"}


@dataclass(frozen=True)
class Run:
    """One training of a study.

    Args:
        system: Name of the system.
        order: Order of the labels in training, where the study compares several.
        seed: Its seed.
        program: "train", "finetune" or "baseline".
        settings: Of that program; for "baseline" its `baseline` is the name of the baseline.
        folder: Its output folder; settings and log are files beside it.
        after: Folder of the run that has to be finished before: that whose model it goes on from, or that on which
            its baseline was tuned.
    """

    system: str
    order: str | None
    seed: int
    program: str
    settings: dict[str, Any]
    folder: Path
    after: Path | None = None

    @property
    def title(self) -> str:
        """How the run is called in messages."""
        return f"{full_name(self.system, self.order)}, seed {self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return (self.folder / "summary.json").exists()

    @property
    def settings_file(self) -> Path:
        """The file of its settings, as they were when it was last started."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def program_settings(self) -> dict[str, Any]:
        """What the file of its settings has."""
        own = self.settings | {"output_dir": str(self.folder)}
        if self.program != "baseline":
            return own
        own.pop("baseline")
        if self.after is not None and (self.after / BASELINE_FILE).is_file():
            tuned = json.loads((self.after / BASELINE_FILE).read_text(encoding="utf-8"))["settings"]
            # Each value in a list of its own: a list is a grid's way of naming several.
            own["grid"] = {name: [value] for name, value in tuned.items() if name != "seed"}
        return own


@dataclass
class Study:
    """A study of a corpus in a folder.

    Args:
        config: What its settings file says.
        output_dir: Folder of the runs.
        dataset_name: The corpus; None where the file says it, or names the user's files.
        data_dir: Folder or archive of the corpus, if it has files.
    """

    config: dict[str, Any]
    output_dir: Path
    dataset_name: str | None = None
    data_dir: Path | None = None

    @property
    def corpus(self) -> str | None:
        """The name of the corpus; None for the user's files."""
        return self.dataset_name or self.config.get("common", {}).get("dataset_name")

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds of the systems that have none of their own."""
        return self.config.get("seeds", [1, 2, 3])

    def seeds_of(self, system: str) -> Sequence[int]:
        """The seeds of a system: its own, else those of the study."""
        return self.config["systems"][system].get("seeds", self.seeds)

    @property
    def orders(self) -> Sequence[str | None]:
        """The orders of the labels that are compared; one None where none are."""
        return self.config.get("orders", [None])

    def run_of(self, system: str, order: str | None, seed: int) -> Run:
        """The run of a system with an order and a seed."""
        own = self.config["systems"][system]
        base = own.get("after")
        kind = "after" if base else "baseline" if "baseline" in own else "train"
        settings: dict[str, Any] = {}
        of_corpus = self.config.get("corpora", {}).get(self.corpus, {})
        for part in (self.config, of_corpus):
            settings |= part.get("common", {}) | part.get(kind, {})
        settings |= {name: value for name, value in own.items() if name not in OF_SYSTEM}
        settings |= of_corpus.get("systems", {}).get(system, {}) | {"seed": seed}
        if self.corpus is not None:
            settings["dataset_name"] = self.corpus
        if self.data_dir is not None:
            settings["data_dir"] = str(self.data_dir)
        after = None
        if base is not None:
            after = self.folder_of(base, order, seed)
            settings["model_name_or_path"] = str(after)
        elif kind == "baseline" and seed != self.seeds_of(system)[0]:
            after = self.folder_of(system, order, self.seeds_of(system)[0])  # tuned once: a seed is no setting
        elif order is not None and kind == "train":
            settings["label_order"] = order
        if kind != "baseline":
            settings |= {"do_train": True, "do_eval": True, "do_predict": True}
        program = "finetune" if "method" in own else "baseline" if kind == "baseline" else "train"
        return Run(system, order, seed, program, settings, self.folder_of(system, order, seed), after)

    def folder_of(self, system: str, order: str | None, seed: int) -> Path:
        """The folder of a run."""
        return self.output_dir / folder_name(full_name(system, order)) / f"seed_{seed}"

    def runs(
        self,
        systems: Sequence[str] | None = None,
        orders: Sequence[str | None] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Run]:
        """The runs in their order: seed by seed, a system after the one that it goes on from.

        Args:
            systems: Those to run, and those that they go on from; default all.
            orders: Of the labels; default those of the file.
            seeds: Default those of the file; a system that has seeds of its own keeps to those among them. A baseline
                is tuned with its first seed, whether that is among them or not.

        Raises:
            ValueError: If there is no such system, or the study does not compare orders.
        """
        known = self.config["systems"]
        unknown = [name for name in systems or () if name not in known]
        if unknown:
            raise ValueError(f"the study has no system {unknown[0]!r}; it has {', '.join(known)}.")
        if orders is not None and "orders" not in self.config:
            raise ValueError("this study does not compare label orders; leave out --orders.")
        needed = {known[name].get("after") for name in systems or ()} | set(systems or known)
        named = sorted((name for name in known if name in needed), key=lambda name: "after" in known[name])
        found = []
        for seed in seeds or self.seeds:
            for order in orders or self.orders:
                found += [self.run_of(name, order, seed) for name in named if seed in known[name].get("seeds", [seed])]
        tuned = [self.run_of(r.system, r.order, self.seeds_of(r.system)[0]) for r in found if r.program == "baseline"]
        folders = {run.folder for run in found}
        return list({run.folder: run for run in [r for r in tuned if r.folder not in folders] + found}.values())

    def finished_runs(self) -> list[Run]:
        """The finished runs of all systems with any seed and order: in the order of the systems, then of the seeds."""
        orders = self.orders if self.orders == [None] else LABEL_ORDERS
        found = []
        for order in orders:
            for system in self.config["systems"]:
                folders = self.folder_of(system, order, 0).parent.glob("seed_*/summary.json")
                seeds = sorted(int(path.parent.name.removeprefix("seed_")) for path in folders)
                found += [self.run_of(system, order, seed) for seed in seeds]
        return found

    def search_runs(self, order: str | None) -> list[Run]:
        """The runs of the settings to try, from the first seed's model."""
        found = []
        for number, tried in enumerate(self.config.get("search", [])):
            settings = {name: value for name, value in tried.items() if name != "system"}
            run = self.run_of(tried["system"], order, self.seeds[0])
            folder = self.output_dir / "search" / folder_name(f"{order or ''} {number}")
            settings = run.settings | settings | {"do_predict": False}
            found.append(replace(run, settings=settings, folder=folder))
        return found


def full_name(system: str, order: str | None) -> str:
    """The name of a system trained on labels in an order."""
    return system if order is None else f"{system}, {order}"


def folder_name(name: str) -> str:
    """A name in lower case, with "_" for all that is neither a letter of the alphabet nor a digit."""
    return re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")


# ---- settings files ----


def study_names() -> dict[str, str]:
    """The studies that come with the package, each with what its file says of it."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))["description"]
        for path in sorted(STUDIES.glob("*.json"))
    }


def read_study(name_or_path: str | Path) -> dict[str, Any]:
    """Read and check the settings file of a study.

    Args:
        name_or_path: A name among `study_names`, or a JSON file.

    Raises:
        FileNotFoundError: If there is neither such a study nor such a file.
        ValueError: If it is not JSON, or says what no study can be.
    """
    path = Path(name_or_path)
    if path.suffix != ".json":
        path = STUDIES / f"{name_or_path}.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no study {str(name_or_path)!r}; give the path of a JSON file, or one of "
                f"{', '.join(study_names())}."
            )
    config = read_settings(path, PARTS)
    for fault in faults_of(config):
        raise ValueError(f"{path}: {fault}; see docs/studies.md for what the file of a study has.")
    return config


def faults_of(config: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the content of a settings file."""
    systems = config.get("systems")
    if not systems:
        yield "it has no 'systems'"
        return
    folders: dict[str, str] = {}
    for name, own in systems.items():
        base = own.get("after")
        if base is not None and (base not in systems or "after" in systems[base] or "baseline" in systems[base]):
            yield f"system {name!r} goes on from {base!r}, which is no system that is trained anew"
        if own.get("method", "self_critical") not in TRAINERS:
            yield f"system {name!r} has the method {own['method']!r}; there are {', '.join(TRAINERS)}"
        if own.get("reference", name) not in systems:
            yield f"the reference {own['reference']!r} of system {name!r} is no system"
        other = folders.setdefault(folder_name(name), name)
        if not folder_name(name) or other != name or folder_name(name) == "search":
            yield f"system {name!r} has no folder of its own; change its name, of which letters and digits count"
    for corpus, part in config.get("corpora", {}).items():
        for name in part.get("systems", {}):
            if name not in systems:
                yield f"corpus {corpus!r} has settings of {name!r}, which is no system"
            elif not part["systems"][name].keys().isdisjoint({*OF_SYSTEM, "baseline", "method"}):
                yield f"corpus {corpus!r} changes what the system {name!r} is; it may only change its settings"
    for part in ("reference", "shown"):
        named = config.get(part, [])
        for name in [named] if isinstance(named, str) else named:
            if name not in systems:
                yield f"{part} {name!r} is no system"
    for name in config.get("reports", []):
        if name not in REPORTS:
            yield f"there is no report {name!r}; there are {', '.join(REPORTS)}"
    for tried in config.get("search", []):
        if "after" not in systems.get(tried.get("system"), {}):
            yield f"search tries {tried}, whose 'system' is none that goes on from another"


# ---- runs ----


def run_program(run: Run) -> None:
    """Run one training in a process of its own, unless it is finished; go on if it was interrupted.

    Raises:
        RuntimeError: If the training fails.
    """
    if run.is_finished:
        return
    settings = run.program_settings
    if run.program != "baseline" and has_complete_checkpoint(run.folder):
        settings["resume_from_checkpoint"] = "true"
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    log_file = run.folder.with_name(f"{run.folder.name}.log")
    write_text_atomically(run.settings_file, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    words = ["baseline", run.settings["baseline"]] if run.program == "baseline" else [run.program]
    with log_file.open("a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "sgm_hf", *words, str(run.settings_file)]
        status = run_to_its_end(command, stdout=log, stderr=log)
    if status or not run.is_finished:
        last_lines = "\n".join(log_file.read_text(encoding="utf-8").splitlines()[-5:])
        raise RuntimeError(f"the training {run.folder} failed; its log {log_file} ends with\n{last_lines}")


def changes_of(run: Run) -> list[str]:
    """The settings of a finished run that are others now, as "name: then → now"."""
    then = json.loads(run.settings_file.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(run.program_settings))
    record = run.folder / BASELINE_FILE
    if run.program == "baseline" and record.exists():
        then["baseline"] = json.loads(record.read_text(encoding="utf-8"))["baseline"]
        now["baseline"] = run.settings["baseline"]
    for settings in (then, now):
        if "model_name_or_path" in settings:  # a run of this study, whose folder may have been moved
            settings["model_name_or_path"] = "/".join(Path(settings["model_name_or_path"]).parts[-2:])
    names = sorted((then.keys() | now.keys()) - FREE)
    return [
        f"{name}: {then.get(name, 'not set')} → {now.get(name, 'not set')}"
        for name in names
        if then.get(name) != now.get(name)
    ]


def refuse_changes(runs: Iterable[Run]) -> None:
    """Refuse finished runs whose settings are not those that they were trained with.

    Raises:
        ValueError: If there is one.
    """
    for run in runs:
        if not run.settings_file.exists():
            raise ValueError(f"{run.settings_file} is missing, so nothing says how {run.folder} was trained.")
        changes = changes_of(run)
        if changes:
            raise ValueError(
                f"{run.title} is finished in {run.folder}, but with other settings ({'; '.join(changes)}); choose "
                "another --output_dir, or remove that folder to train it again."
            )


def refuse_faulty_settings(runs: Iterable[Run]) -> None:
    """Read all settings as their programs will, so that a fault is found before anything is trained.

    Raises:
        ModuleNotFoundError: If a library that a baseline needs is missing.
        ValueError: If a program does not know a setting, or not its value.
    """
    seen = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "settings.json")
        for run in runs:
            if (run.system, run.order) in seen:
                continue
            seen.add((run.system, run.order))
            path.write_text(json.dumps(run.program_settings), encoding="utf-8")
            try:
                if run.program == "baseline":
                    name, _, own = parse_baseline_arguments([run.settings["baseline"], str(path)], usage="")
                    settings_to_try(BASELINES[name], own.grid)
                else:
                    kind = Seq2SetArguments if run.program == "finetune" else SGMTrainingArguments
                    parse_arguments([str(path)], kind)
            except ValueError as error:
                raise ValueError(f"system {run.system!r}: {str(error).replace(str(path), 'its part')}") from error


def write_record(study: Study) -> None:
    """Write what the study is into its folder, for the reports.

    Raises:
        ValueError: If the folder is of a study of another corpus.
    """
    path = study.output_dir / STUDY_FILE
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))["dataset_name"]
        if before != study.corpus:
            raise ValueError(
                f"{study.output_dir} has runs on {before or 'files'}, not on {study.corpus or 'files'}; choose "
                "another --output_dir."
            )
    study.output_dir.mkdir(parents=True, exist_ok=True)
    data_dir = None if study.data_dir is None else str(study.data_dir)
    record = {"dataset_name": study.corpus, "data_dir": data_dir, "study": study.config}
    write_text_atomically(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def load_study(folder: Path) -> Study:
    """The study whose runs are in a folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no study; run sgm-hf study train first.")
    record = json.loads(path.read_text(encoding="utf-8"))
    data_dir = None if record["data_dir"] is None else Path(record["data_dir"])
    return Study(record["study"], folder, record["dataset_name"], data_dir)


def minutes_of(run: Run) -> float:
    """The minutes of a finished run's training; of a baseline that was tuned, with the best settings alone."""
    return read_summary(run).get("training", {}).get("seconds", 0.0) / 60


def read_summary(run: Run) -> dict[str, Any]:
    """The `summary.json` of a finished run."""
    return json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))


def minutes_left(runs: Sequence[Run], minutes: Mapping[Path, float]) -> float | None:
    """About how long the unfinished runs take: as long as finished ones of their system, else of all systems.

    The run that tunes a baseline is longer than the others of its system, and does not count for them.

    Args:
        runs: All runs.
        minutes: Minutes by the folder of each finished run.

    Returns:
        None as long as no run is finished.
    """
    if not minutes:
        return None
    by_kind: dict[tuple[str, bool], list[float]] = {}
    for run in runs:
        if run.folder in minutes:
            by_kind.setdefault((run.system, run.after is None), []).append(minutes[run.folder])
    mean = statistics.mean(minutes.values())
    left = [run for run in runs if run.folder not in minutes]
    return sum(statistics.mean(by_kind.get((run.system, run.after is None), [mean])) for run in left)


def train_all(runs: Sequence[Run]) -> None:
    """Train what is not finished, and say before each how many are and about how long the rest takes.

    Several processes can share a study: a run that another one is at, or that comes after such a one, is left to it.
    """
    minutes = {}
    for run in runs:
        if run.is_finished:
            training = read_summary(run).get("training", {})
            # Of a baseline all settings that were tried.
            minutes[run.folder] = training.get("tuning_seconds", training.get("seconds", 0.0)) / 60
    elsewhere = []
    firsts: dict[Path | None, Run] = {run.folder: run for run in runs}
    for run in runs:
        if run.is_finished:
            minutes.setdefault(run.folder, minutes_of(run))
            continue
        first = firsts.get(run.after)
        if first is not None and not first.is_finished:
            elsewhere.append(run.title)
            continue
        left = minutes_left(runs, minutes)
        rest = "" if left is None else f", about {left:.0f} min left"
        logger.info("%d of %d runs are finished%s; now %s", len(minutes), len(runs), rest, run.title)
        start = time.monotonic()
        try:
            with alone_in(run.folder.with_name(f"{run.folder.name}.running")):
                run_program(run)
        except FileExistsError:
            elsewhere.append(run.title)
        else:
            minutes[run.folder] = (time.monotonic() - start) / 60
    if elsewhere:
        logger.warning(
            "%d of %d runs are left to another process that is at them: %s. The same command says later whether all "
            "are finished.",
            *(len(elsewhere), len(runs), "; ".join(elsewhere)),
        )
    else:
        logger.info("all %d runs are finished", len(runs))


def train_study(
    study: Study,
    systems: Sequence[str] | None = None,
    orders: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> None:
    """Train the systems of a study; arguments and errors as of `Study.runs`.

    Raises:
        ValueError: If a finished run has other settings, the folder is of another corpus, or a setting is at fault.
        RuntimeError: If a training fails.
    """
    runs = study.runs(systems, orders, seeds)
    refuse_changes(study.finished_runs())
    refuse_faulty_settings(runs)
    write_record(study)
    train_all(runs)


def search_settings(study: Study, orders: Sequence[str] | None = None) -> None:
    """Try each of the listed settings from the model of the first seed; errors as of `train_study`.

    Raises:
        ValueError: If there is nothing to try.
    """
    if not study.config.get("search"):
        raise ValueError("the study has no 'search': there are no settings to try.")
    seed = study.seeds[:1]
    tried = [run for order in orders or study.orders for run in study.search_runs(order)]
    bases = list(dict.fromkeys(study.config["systems"][run.system]["after"] for run in tried))
    runs = study.runs(bases, orders, seed) + tried
    refuse_changes(run for run in runs if run.is_finished)
    refuse_faulty_settings(runs)
    write_record(study)
    train_all(runs)
