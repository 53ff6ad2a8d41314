"""The tests on other releases and other Pythons: `nox`, or one of `nox --list` by `nox --session newest-3.13`.

A Python that is not on the machine is skipped. Some tests only: `nox --session lowest -- tests/modeling`.
"""

import nox

PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))  # of its classifiers
OFFLINE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The lowest release of each dependency that pyproject.toml declares, on the oldest Python."""
    session.install("--constraint", "constraints-lowest.txt", "--editable", ".[dev]")
    run_tests(session)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The newest release of each."""
    session.install("--upgrade", "--upgrade-strategy", "eager", "--editable", ".[dev]")
    run_tests(session)


def run_tests(session: nox.Session) -> None:
    """Say what is installed, and run the tests that were named, or all."""
    session.run("python", "-m", "pip", "freeze", "--all")
    session.run("python", "-m", "pytest", "-q", *(session.posargs or ["--numprocesses", "2"]), env=OFFLINE)
