"""Runs tests on mutants in forked processes, so that torch and Transformers are imported once.

Reads one job per line from the standard input and writes one result per line, both as JSON. `mutation_run.py` starts
it in a copy of the repository.
"""

import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PACKAGE = ("sgm_hf", "modeling", "datasets_scripts")
# So that a mutant that allocates without end does not crash the machine.
MEMORY = 8 * 2**30


class Chosen:
    """Selects and orders the tests of a job and records the first that fails.

    Args:
        tests: Their names, or None for all.
    """

    def __init__(self, tests: list[str] | None):
        self.rank = None if tests is None else {name: place for place, name in enumerate(tests)}
        self.failed: str | None = None
        self.ran = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.rank is not None:
            items[:] = sorted((item for item in items if item.nodeid in self.rank), key=lambda i: self.rank[i.nodeid])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed = self.failed or f"{report.nodeid} (import)"

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.ran += report.when == "call"
        if report.failed:
            self.failed = self.failed or report.nodeid


class Recorder:
    """Records the seconds of each test and the lines it runs.

    The lines of a fixture that tests share count for all tests of the file that used it first.
    """

    def __init__(self, coverage: Any):
        self.coverage, self.context = coverage, ""
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.context = item.nodeid
        self.coverage.switch_context(item.nodeid)
        start = time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.perf_counter() - start
            self.coverage.switch_context("")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        self.coverage.switch_context(self.context.split("::")[0])
        try:
            return (yield)
        finally:
            self.coverage.switch_context(self.context)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def run_tests(paths: list[str], plugin: Any, *options: str) -> int:
    """Run test files in this process."""
    quiet = ["-q", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "--basetemp", "../pytest"]
    return int(pytest.main([*paths, *quiet, *options], plugins=[plugin]))


def record(job: dict[str, Any]) -> dict[str, Any]:
    """Run all tests without a mutant: seconds and lines of each, and those that fail."""
    from coverage import Coverage

    here = os.path.realpath(".")
    coverage = Coverage(data_file=None, include=[f"{here}/{folder}/*" for folder in PACKAGE], config_file=False)
    coverage.start()
    recorder = Recorder(coverage)
    run_tests(job["paths"], recorder)
    coverage.stop()
    data = coverage.get_data()
    lines = {
        os.path.relpath(file, here): {line: sorted(set(names) - {""}) for line, names in by_line.items()}
        for file in data.measured_files()
        for by_line in [data.contexts_by_lineno(file)]
    }
    return {"seconds": recorder.seconds, "failed": recorder.failed, "lines": lines}


def judge(job: dict[str, Any]) -> dict[str, Any]:
    """Run the tests of a mutant up to the first failure: those of the first test's file, then the others."""
    sys.dont_write_bytecode = True  # no later mutant may load it
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    first = job["tests"][0].split("::")[0]
    groups = [
        [name for name in job["tests"] if (name.split("::")[0] == first) == is_first] for is_first in (True, False)
    ]
    for tests in filter(None, groups):
        chosen = Chosen(tests)
        status = run_tests(list(dict.fromkeys(name.split("::")[0] for name in tests)), chosen, "-x")
        if status != 0:
            return {"outcome": "killed", "by": chosen.failed or f"{first} (import)"}
    return {"outcome": "survived", "by": ""}


@contextmanager
def mutated(job: dict[str, Any]) -> Iterator[None]:
    """Replace the file by the mutant."""
    if "source" not in job:
        yield
        return
    path = Path(job["file"])
    original = path.read_bytes()
    path.write_text(job["source"], encoding="utf-8")
    try:
        yield
    finally:
        path.write_bytes(original)


def run_forked(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job in a process of its own, which is killed after the time limit."""
    for folder in (os.environ["HF_HOME"], "../pytest"):
        shutil.rmtree(folder, ignore_errors=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        result = record(job) if "source" not in job else judge(job)
        with os.fdopen(writer, "w") as pipe:
            pipe.write(json.dumps(result))
        os._exit(0)
    os.close(writer)
    text, end = b"", time.monotonic() + job["limit"]
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reader, 2**20)
        if not part:
            break
        text += part
    else:
        text = b'{"outcome": "killed", "by": "(time)"}'
    os.close(reader)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.waitpid(child, 0)
    # A child that writes nothing has crashed.
    return json.loads(text or b'{"outcome": "killed", "by": "(crash)"}')


def import_libraries() -> None:
    """Import every module that our package imports, but none of the package itself."""
    names = "sgm_hf.training, sgm_hf.data.files, sgm_hf.data.encoding, sgm_hf.modeling.pipeline_sgm, sgm_hf.metrics"
    program = f"import sys, {names}, sklearn.metrics, hypothesis, coverage; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", program], text=True).splitlines()[-1].split()
    for name in modules:
        if name.split(".")[0] not in (*PACKAGE, "__main__") and "editable" not in name:
            try:
                __import__(name)
            except ImportError:
                pass  # a module that is only imported as part of another


def main() -> None:
    sys.path.insert(0, os.getcwd())
    import_libraries()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        job = json.loads(line)
        start = time.monotonic()
        with mutated(job):
            result = run_forked(job)
        answers.write(json.dumps({**result, "took": round(time.monotonic() - start, 2)}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
