"""A pytest plugin that writes the outcome of every test to the JSON file that `CONFORMANCE_OUTCOMES` names."""

import json
import os
from pathlib import Path

import pytest

outcomes: dict[str, dict[str, str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst outcome of set-up, call, subtests and tear-down of a test."""
    name = "::".join(report.nodeid.split("::")[1:])
    known = outcomes.setdefault(name, {"outcome": "passed", "message": ""})
    rank = ("passed", "skipped", "failed")
    if rank.index(report.outcome) > rank.index(known["outcome"]):
        outcomes[name] = {"outcome": report.outcome, "message": _message(report)}


def pytest_sessionfinish() -> None:
    """Write the outcomes."""
    Path(os.environ["CONFORMANCE_OUTCOMES"]).write_text(json.dumps(outcomes, indent=1), encoding="utf-8")


def _message(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # of a skipped test: file, line, reason
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr)
