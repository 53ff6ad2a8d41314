#!/usr/bin/env python
"""Runs the common tests of Transformers on our classes and compares with the list of those that cannot apply.

    python tests/conformance/run.py           prints the report
    python tests/conformance/run.py --write   also writes it to docs/conformance.md

The exit status is 0 if every test passes that is not in `not_applicable.toml`, and none passes that is.
"""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import transformers
from obtain import IndexUnreachable, obtain_suite

from sgm_hf.tables import markdown_table

HERE = Path(__file__).parent
REPORT = HERE.parents[1] / "docs" / "conformance.md"


@dataclass
class Reason:
    """Why some tests cannot apply.

    Args:
        reason: The reason in words.
        tests: Patterns (`fnmatch`) of their names, `Class::test`.
        hardware: Whether they pass on a machine that has the hardware for them.
        matched: Names of the tests that the patterns match.
    """

    reason: str
    tests: list[str]
    hardware: bool = False
    matched: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """The result of a run.

    Args:
        passed: Names of the tests that passed.
        reasons: The list, with the tests that match.
        faults: Differences from the list, as messages.
    """

    passed: list[str]
    reasons: list[Reason]
    faults: list[str]


def run_suites(folder: Path) -> dict[str, dict[str, str]]:
    """Run the suites in a process of their own, since they change what they import.

    Args:
        folder: The folder that `obtain_suite` returns.

    Returns:
        `outcome` ("passed", "failed" or "skipped") and `message` of each test.

    Raises:
        RuntimeError: If the process wrote no outcomes.
    """
    # A package, because others install one called tests, which would be found before a folder without this file.
    (folder / "tests" / "__init__.py").touch()
    with tempfile.TemporaryDirectory() as temporary:
        outcomes = Path(temporary, "outcomes.json")
        paths = os.pathsep.join([str(folder), str(HERE)])
        environment = {**os.environ, "CONFORMANCE_OUTCOMES": str(outcomes), "PYTHONPATH": paths}
        environment |= {"HF_HUB_OFFLINE": "1", "RUN_SLOW": "1", "TMPDIR": temporary}
        options = ["-p", "recorder", "-p", "no:cacheprovider", "-c", os.devnull, "-W", "ignore", "--tb=short", "-q"]
        command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), str(HERE / "suites.py")]
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if not outcomes.is_file():
            raise RuntimeError(f"the suites could not be run:\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
        return json.loads(outcomes.read_text(encoding="utf-8"))


def read_reasons() -> list[Reason]:
    """The list of the tests that cannot apply."""
    entries = tomllib.loads((HERE / "not_applicable.toml").read_text(encoding="utf-8"))
    return [Reason(**entry) for entry in entries["reasons"]]


def compare(outcomes: dict[str, dict[str, str]], reasons: list[Reason]) -> Comparison:
    """Compare the outcomes with the list, and add to each reason the tests that match.

    A fault is a test that did not pass and is not listed, a listed one that passed, one that is listed twice, and a
    pattern that matches no test.
    """
    passed, faults = [], []
    used: set[str] = set()
    for name, result in outcomes.items():
        found = [(reason, pattern) for reason in reasons for pattern in reason.tests if fnmatch.fnmatch(name, pattern)]
        used |= {pattern for _, pattern in found}
        if len(found) > 1:
            faults.append(f"{name} is listed {len(found)} times: {', '.join(pattern for _, pattern in found)}")
        if result["outcome"] == "passed":
            passed.append(name)
            if found and not found[0][0].hardware:
                faults.append(f"{name} is listed as not applicable, but it passed: take it off the list")
        elif found and not (found[0][0].hardware and result["outcome"] == "failed"):
            found[0][0].matched.append(name)
        else:
            faults.append(f"{name} {result['outcome']}: {result['message'].strip().splitlines()[0][:300]}")
    for pattern in [pattern for reason in reasons for pattern in reason.tests if pattern not in used]:
        faults.append(f"no test matches {pattern}: take it off the list")
    return Comparison(passed, reasons, faults)


def write_report(comparison: Comparison) -> str:
    """The report, in Markdown."""
    listed = sum(len(reason.matched) for reason in comparison.reasons)
    classes = sorted({name.split("::")[0] for name in comparison.passed})
    lines = [
        "# Conformance",
        "",
        "Made by `python tests/conformance/run.py --write`; `make test` makes the same comparison.",
        "",
        f"The source distribution of Transformers {transformers.__version__} holds the common tests that its own",
        "model classes, configurations, tokenizers and pipelines have to pass. `tests/conformance` obtains it from",
        "the package index (its SHA-256 must be the recorded one), runs these tests on ours, and compares with",
        "`tests/conformance/not_applicable.toml`. A test that fails or is skipped and is not on the list is an error,",
        "and so is a listed test that passes. None of their code is in this repository.",
        "",
        "`SGM`, `GlobalEmbedding` and `SequenceToSequence` are three configurations of the model: the word attention",
        "of SGM, SGM+GE, and plain S2S without attention and mask. The distribution leaves out the sub-folders of",
        "`tests`, hence the suites of `generate()` and of exporting; `tests/modeling` tests generation. A few of the",
        "tests find nothing to check in our model (it ties no weights and has no buffers), and pass.",
        "",
    ]
    rows = []
    for name in [*classes, None]:
        passed = [test for test in comparison.passed if name in (None, test.split("::")[0])]
        other = [t for reason in comparison.reasons for t in reason.matched if name in (None, t.split("::")[0])]
        rows.append(("All" if name is None else f"`{name}`", len(passed) + len(other), len(passed), len(other), 0))
    lines.append(markdown_table(("Class", "Run", "Passed", "Not applicable", "Failed"), rows))
    if comparison.faults:
        lines += ["", "**The comparison found faults:**", "", *(f"- {fault}" for fault in comparison.faults)]
    lines += ["", f"## Not applicable: {listed} tests, {len(comparison.reasons)} reasons"]
    for reason in comparison.reasons:
        names = [test_name(pattern) for pattern in reason.tests]
        lines += ["", f"- {reason.reason} ({len(reason.matched)}: {', '.join(names)})"]
    lines += ["", "## Passed", ""]
    tests = sorted({test.split("::")[1] for test in comparison.passed})
    for test in tests:
        where = [name for name in classes if f"{name}::{test}" in comparison.passed]
        lines.append(f"- `{test}`: {', '.join(where)}")
    return "\n".join(lines) + "\n"


def test_name(pattern: str) -> str:
    """A pattern as the report shows it: with the class if the test is not applicable only there."""
    class_name, test = pattern.split("::")
    return f"`{test}`" if class_name == "*" else f"`{class_name}::{test}`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return the exit status: 0, 1 for faults, 2 if the package index cannot be reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {REPORT.name}")
    options = parser.parse_args(arguments)
    try:
        comparison = compare(run_suites(obtain_suite()), read_reasons())
    except IndexUnreachable as error:
        print(error, file=sys.stderr)
        return 2
    report = write_report(comparison)
    print(report)
    if options.write and not comparison.faults:
        REPORT.write_text(report, encoding="utf-8")
    return 1 if comparison.faults else 0


if __name__ == "__main__":
    sys.exit(main())
