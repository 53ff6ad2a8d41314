#!/usr/bin/env python
"""Mutation run: changes a sample of places of the library one at a time, and counts the changes that a test notices.

    make mutants                                             a sample of every file, then docs/mutants.md
    make mutants MUTANTS='modeling/beam_search_sgm.py'       one file
    make mutants MUTANTS='--sample 0'                        every mutant (hours)
    make mutants MUTANTS='--retry'                           the survivors again

An interrupted run is resumed: results are kept in build/mutants as long as the mutant's file is unchanged. The tests
of a mutant are those that ran its line, of the mirrored test file first; it is killed if one of them fails or takes
far longer than without it.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from mutants import Mutant, find_mutants

from sgm_hf.tables import markdown_table, write_csv

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TARGETS = ("modeling", "sgm_hf/training", "sgm_hf/data")
TESTS = ("tests/modeling", "tests/data", "tests/metrics", "tests/training")
# It starts processes whose lines are not recorded.
LEFT_OUT = ("tests/training/test_distributed.py",)
# Tests longer than this are left out, and a mutant gets no more tests than take this in total (seconds).
LONGEST_TEST, LONGEST_RUN = 8.0, 60.0
# Names of the packages that are folders of another name in the repository, see setup.py.
MAPPED = {"sgm_hf/modeling": "../modeling", "sgm_hf/datasets_scripts": "../datasets_scripts"}
COLUMNS = ("file", "line", "before", "after", "outcome", "by", "took")


class Worker:
    """A process that runs tests on mutants in its own copy of the repository.

    Args:
        folder: Where the copy is written.
    """

    def __init__(self, folder: Path):
        self.tree = folder / "tree"
        copy_repository(self.tree)
        variables = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        variables |= {"HF_HOME": str(folder / "home"), "PYTHONPATH": str(self.tree), "TOKENIZERS_PARALLELISM": "false"}
        self.output = str(folder / "output.txt")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "mutation_worker.py")],
            cwd=self.tree,
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, **job: Any) -> dict[str, Any]:
        """Send a job and wait for its result."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({**job, "output": self.output}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a worker of the mutation run ended; its last output is in {self.output}.")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def copy_repository(target: Path) -> None:
    """Copy the files that git does not ignore, with the packages under the names of their installation."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(command, cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for name, there in MAPPED.items():
        (target / name).symlink_to(there)


def hash_files(names: Iterable[str]) -> str:
    """A hash of the names and contents of files."""
    contents = b"".join(name.encode() + (ROOT / name).read_bytes() for name in names)
    return hashlib.sha256(contents).hexdigest()[:16]


def python_files(folders: Sequence[str]) -> list[str]:
    """The Python files in folders (or files themselves), relative to the repository."""
    paths = [ROOT / name for name in folders]
    every = [path for start in paths for path in ([start] if start.is_file() else start.rglob("*.py"))]
    return sorted(str(path.relative_to(ROOT)) for path in every)


class Tests:
    """Which tests run which lines, and how long they take.

    Args:
        recorded: The result of `mutation_worker.record`.
    """

    def __init__(self, recorded: dict[str, Any]):
        self.seconds = {name: s for name, s in recorded["seconds"].items() if s <= LONGEST_TEST}
        for name in recorded["failed"]:
            self.seconds.pop(name, None)
        self.lines = {file: {int(n): names for n, names in lines.items()} for file, lines in recorded["lines"].items()}
        self.of_file = defaultdict(list)
        for name in self.seconds:
            self.of_file[name.split("::")[0]].append(name)
        self.kills: dict[str, Counter[str]] = defaultdict(Counter)

    def of(self, mutant: Mutant) -> list[str]:
        """The tests that run a mutant's statement, first those that are most likely to fail."""
        lines = self.lines.get(mutant.file, {})
        numbers = lines if mutant.at_import else range(mutant.line, mutant.last_line + 1)
        contexts = {name for number in numbers for name in lines.get(number, ())}
        names = {test for name in contexts for test in self.of_file.get(name, [name]) if test in self.seconds}
        folder = Path(mutant.file).parent.name
        mirror = f"tests/{folder}/test_{Path(mutant.file).name}"
        kills = self.kills[mutant.file]
        order = sorted(names, key=lambda n: (-kills[n], not n.startswith(mirror), self.seconds[n]))
        chosen, total = [], 0.0
        for name in order:
            total += self.seconds[name]
            if total <= LONGEST_RUN:
                chosen.append(name)
        return chosen


def sample_mutants(files: Sequence[str], size: int, seed: int) -> tuple[list[Mutant], dict[str, int]]:
    """A seeded random sample of the mutants of each file, shuffled, and the number of mutants of each file."""
    chosen, counts = [], {}
    for file in files:
        every = find_mutants(ROOT, file)
        counts[file] = len(every)
        generator = random.Random(f"{seed} {file}")
        generator.shuffle(every)
        chosen += every[:size] if size else every
    random.Random(seed).shuffle(chosen)
    return chosen, counts


class Results:
    """The results of mutants, kept in a JSON Lines file so that an interrupted run can be resumed.

    Args:
        path: The file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.known[row["key"]] = row

    @staticmethod
    def key(mutant: Mutant) -> str:
        """A hash of the whole source of a mutant."""
        return hashlib.sha256(f"{mutant.file}\n{mutant.source}".encode()).hexdigest()[:20]

    def add(self, mutant: Mutant, result: dict[str, Any]) -> None:
        """Keep a result."""
        fields = {name: getattr(mutant, name) for name in ("file", "line", "before", "after")}
        row = {"key": self.key(mutant), **fields, **result}
        self.known[row["key"]] = row
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def run_mutants(mutants: Sequence[Mutant], workers: Sequence[Worker], tests: Tests, results: Results) -> None:
    """Judge mutants with one thread per worker, and print a line for each."""
    queue: Queue[Mutant] = Queue()
    for mutant in mutants:
        queue.put(mutant)
    lock, errors = threading.Lock(), []

    def work(worker: Worker) -> None:
        while not errors:
            try:
                mutant = queue.get_nowait()
            except Empty:
                return
            try:
                result = judge(mutant, worker, tests)
            except Exception as error:
                errors.append(error)
                return
            with lock:
                results.add(mutant, result)
                tests.kills[mutant.file][result["by"]] += 1
                place = f"{mutant.file}:{mutant.line}"
                done = len(mutants) - queue.qsize()
                print(f"{done}/{len(mutants)} {result['outcome']:<8} {place} {result['by']}", flush=True)
                if result["outcome"] == "survived":
                    print(f"    - {mutant.before}\n    + {mutant.after}", flush=True)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def judge(mutant: Mutant, worker: Worker, tests: Tests) -> dict[str, Any]:
    """The outcome ("killed", "survived" or "invalid"), and the test that killed the mutant."""
    try:
        compile(mutant.source, mutant.file, "exec")
    except SyntaxError:
        return {"outcome": "invalid", "by": "", "took": 0.0}
    chosen = tests.of(mutant)
    if not chosen:
        return {"outcome": "survived", "by": "(no test runs the line)", "took": 0.0}
    limit = 20 + 4 * sum(tests.seconds[name] for name in chosen)
    return worker.do(file=mutant.file, source=mutant.source, tests=chosen, limit=limit)


def read_reasons() -> dict[tuple[str, str, str], str]:
    """The reasons why some survivors change nothing, by file, line before and line after."""
    entries = tomllib.loads((HERE / "equivalent.toml").read_text(encoding="utf-8")).get("mutants", [])
    return {(entry["file"], entry["before"], entry["after"]): entry["reason"] for entry in entries}


def report(rows: Sequence[dict[str, Any]], counts: dict[str, int]) -> str:
    """The page docs/mutants.md: one row per file, the score with its error, and every survivor.

    Args:
        rows: Results of the sample.
        counts: Number of all mutants of each file.
    """
    reasons = read_reasons()
    lines, share, variance, total = [], 0.0, 0.0, sum(counts.values())
    for file, count in counts.items():
        outcomes = Counter(row["outcome"] for row in rows if row["file"] == file)
        tried = outcomes["killed"] + outcomes["survived"]
        if not tried:
            continue
        score = outcomes["killed"] / tried
        share += count / total * score
        # Variance of a sample without replacement; add-one, so that a file without survivors also has an error.
        smooth = (outcomes["killed"] + 1) / (tried + 2)
        variance += (count / total) ** 2 * smooth * (1 - smooth) / tried * (1 - tried / count)
        lines.append((f"`{file}`", count, tried, outcomes["killed"], outcomes["survived"], f"{score:.1%}"))
    killed = sum(row["outcome"] == "killed" for row in rows)
    tried = sum(row["outcome"] in ("killed", "survived") for row in rows)
    lines.append(("all", total, tried, killed, tried - killed, f"{killed / max(tried, 1):.1%}"))
    table = markdown_table(("file", "mutants", "tried", "killed", "survived", "score"), lines)
    survivors = [row for row in rows if row["outcome"] == "survived"]
    known = [reasons.get((row["file"], row["before"], row["after"])) for row in survivors]
    pairs = sorted(zip(survivors, known, strict=True), key=lambda pair: (pair[0]["file"], pair[0]["line"]))
    shown = [survivor_lines(row, reason) for row, reason in pairs]
    template = (HERE / "report.md").read_text(encoding="utf-8")
    error = 1.96 * variance**0.5
    fields = {"table": table, "score": f"{share:.1%}", "error": f"{100 * error:.1f}"}
    fields |= {"survivors": "\n".join(shown), "equivalent": str(sum(reason is not None for reason in known))}
    fields |= {"tried": str(tried), "total": f"{total:,}", "count": str(len(survivors))}
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
    return template.format(**fields, commit=commit)


def survivor_lines(row: dict[str, Any], reason: str | None) -> str:
    """A survivor for the page: its place, the line before and after, and the reason if it changes nothing."""
    title = f"- {row['file']}, line {row['line']} {row['by']}".rstrip()
    title += f". Changes nothing that could be tested: {reason}" if reason else ""
    return f"{title}\n\n  ```diff\n  - {row['before']}\n  + {row['after']}\n  ```\n"


def write_report(rows: Sequence[dict[str, Any]], counts: dict[str, int]) -> None:
    """Write docs/mutants.md, and every mutant of the sample to docs/mutants.csv."""
    (ROOT / "docs" / "mutants.md").write_text(report(rows, counts), encoding="utf-8")
    rows = sorted(rows, key=lambda row: (row["file"], row["line"], row["before"], row["after"]))
    write_csv(rows, ROOT / "docs" / "mutants.csv", COLUMNS)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "files", nargs="*", default=[], help="files to mutate; default all of modeling, training, data"
    )
    parser.add_argument("--sample", type=int, default=10, help="mutants per file; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--processes", type=int, default=2, help="mutants that run in parallel")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="test files and folders to run")
    parser.add_argument("--retry", action="store_true", help="run survivors again")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the mutants without a result, and report all."""
    given = parse_arguments()
    cache = ROOT / "build" / "mutants"
    cache.mkdir(parents=True, exist_ok=True)
    # A package's __init__ is imported before the processes of the worker start.
    files = given.files or [name for name in python_files(TARGETS) if not name.endswith("__init__.py")]
    chosen, counts = sample_mutants(files, given.sample, given.seed)
    results = Results(cache / "results.jsonl")
    known = {mutant: results.known.get(results.key(mutant)) for mutant in chosen}
    waiting = [m for m, row in known.items() if row is None or (given.retry and row["outcome"] == "survived")]
    print(f"{len(chosen)} of {sum(counts.values())} mutants, {len(waiting)} of them to run")
    if waiting:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            workers = [Worker(Path(folder, str(i))) for i in range(given.processes)]
            run_mutants(waiting, workers, record_tests(cache, workers[0], given.tests), results)
            for worker in workers:
                worker.close()
    rows = [results.known[results.key(mutant)] for mutant in chosen]
    if not given.files:
        write_report(rows, counts)
    tried = Counter(row["outcome"] for row in rows)
    score = tried["killed"] / max(1, tried["killed"] + tried["survived"])
    print(f"killed {tried['killed']}, survived {tried['survived']}: {score:.1%}")


def record_tests(cache: Path, worker: Worker, paths: Sequence[str]) -> Tests:
    """The lines that the tests run, recorded again if a source or a test has changed."""
    path = cache / f"tests-{hash_files(python_files((*TARGETS, 'sgm_hf/metrics', *paths)))}.json"
    if not path.exists():
        left_out = [f"--ignore={name}" for name in LEFT_OUT]
        print("recording which test runs which line (minutes) …", flush=True)
        recorded = worker.do(paths=[*paths, *left_out], limit=3600)
        if "lines" not in recorded:
            raise RuntimeError(f"the tests could not be recorded: {recorded}")
        path.write_text(json.dumps(recorded), encoding="utf-8")
    recorded = json.loads(path.read_text(encoding="utf-8"))
    for name in recorded["failed"]:
        print(f"skipped, it fails without a mutant: {name}")
    return Tests(recorded)


if __name__ == "__main__":
    main()
