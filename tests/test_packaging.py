"""What reaches a user's machine: the wheel, the sdist, and the cost of importing the package.

The distributions are built offline from a copy of the sources, so that no build product lands in the repository.
"""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import sgm_hf

ROOT = Path(__file__).resolve().parents[1]
# Folder in the repository -> folder in a user's site-packages.
INSTALLED_AS = {"sgm_hf": "sgm_hf", "modeling": "sgm_hf/modeling", "datasets_scripts": "sgm_hf/datasets_scripts"}
PASSED_ON = {".py", ".md", ".typed", ".json"}


def source_files(folder: str) -> list[Path]:
    """The files of a source folder that a user needs, relative to the repository."""
    files = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.suffix in PASSED_ON)
    return sorted(path for path in files if "__pycache__" not in path.parts)


def copy_sources(target: Path) -> None:
    """Copy what a build may read, test and example files included: they must not be packaged."""
    top_level = [path.relative_to(ROOT) for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    folders = ("sgm_hf", "modeling", "datasets_scripts", "tests", "examples", "docs")
    for path in top_level + [path for folder in folders for path in source_files(folder)]:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes((ROOT / path).read_bytes())


def run(*command: str, cwd: Path) -> str:
    finished = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def run_python(code: str, cwd: Path) -> str:
    # -I: neither the working directory nor the environment adds to sys.path.
    return run(sys.executable, "-I", "-c", code, cwd=cwd)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> dict[str, Path]:
    """The sdist, a wheel built from it, and a wheel built from the sources."""
    sources = tmp_path_factory.mktemp("sources")
    copy_sources(sources)
    build = (sys.executable, "-m", "build", "--no-isolation")
    run(*build, "--outdir", "dist", cwd=sources)
    run(*build, "--outdir", "direct", "--wheel", cwd=sources)
    return {
        "sdist": next(sources.glob("dist/*.tar.gz")),
        "wheel": next(sources.glob("dist/*.whl")),
        "direct wheel": next(sources.glob("direct/*.whl")),
    }


@pytest.fixture(scope="module")
def wheel_names(distributions) -> list[str]:
    return sorted(zipfile.ZipFile(distributions["wheel"]).namelist())


@pytest.fixture(scope="module")
def unpacked(distributions, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(distributions["wheel"]).extractall(folder)
    return folder


@pytest.fixture(scope="module")
def metadata(unpacked):
    return Parser().parsestr(next(unpacked.glob("*.dist-info/METADATA")).read_text(encoding="utf-8"))


def test_a_wheel_puts_only_sgm_hf_into_site_packages(wheel_names, metadata):
    top_level = {name.split("/")[0] for name in wheel_names}
    assert top_level == {"sgm_hf", f"sgm_hf-{metadata['Version']}.dist-info"}


def test_a_wheel_holds_every_module_and_card_and_nothing_else(wheel_names):
    expected = {
        str(Path(installed) / path.relative_to(folder))
        for folder, installed in INSTALLED_AS.items()
        for path in source_files(folder)
    }
    assert "sgm_hf/py.typed" in expected
    assert {name for name in wheel_names if name.startswith("sgm_hf/")} == expected


def test_an_sdist_builds_the_same_wheel_as_the_sources(distributions, wheel_names):
    assert sorted(zipfile.ZipFile(distributions["direct wheel"]).namelist()) == wheel_names


def test_an_sdist_has_the_licence_the_tests_and_no_build_product(distributions):
    with tarfile.open(distributions["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "CITATION.cff", "CHANGELOG.md", "Makefile", "tests/test_packaging.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.split("/")[0] in ("build", "dist", ".venv")]


def test_an_unpacked_wheel_imports_from_its_own_files(unpacked):
    modules = ("sgm_hf.modeling", "sgm_hf.datasets_scripts", "sgm_hf.data", "sgm_hf.training", "sgm_hf.metrics")
    code = f"import sys; sys.path.insert(0, {str(unpacked)!r})\n"
    code += "".join(f"import {module}; print({module}.__file__)\n" for module in modules)
    files = run_python(code, cwd=unpacked).split()
    assert [Path(file) for file in files] == [
        unpacked / module.replace(".", "/") / "__init__.py" for module in modules
    ]


def test_every_imported_distribution_is_declared(metadata):
    imported = set()
    for path in (path for folder in INSTALLED_AS for path in source_files(folder) if path.suffix == ".py"):
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    # huggingface_hub imports jinja2, which it does not require, to fill in the template of the model card.
    third_party = imported - set(sys.stdlib_module_names) - {"sgm_hf"} | {"jinja2"}
    distribution_of = packages_distributions()
    needed = {normalise(distribution_of[module][0]) for module in third_party}
    # What an extra brings is imported where it is used; the tests' own tools are not for the package.
    requirements = [line for line in metadata.get_all("Requires-Dist") if 'extra == "dev"' not in line]
    assert needed <= {normalise(re.match(r"[\w.-]+", line)[0]) for line in requirements}


def normalise(distribution: str) -> str:
    return distribution.lower().replace("_", "-")


def test_the_lowest_releases_are_those_that_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["app"], *extras["figures"], *extras["baselines"]]
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line[0] != "#"] == [
        re.sub(r"^([\w-]+)>=([\d.]+)(,<\d+)?$", r"\1==\2", requirement) for requirement in declared
    ]


def test_the_pythons_are_from_the_lowest_on_one_after_the_other():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert project["requires-python"] == f">={named[0]}"
    assert named == [f"3.{minor}" for minor in range(11, 11 + len(named))]


def test_the_version_is_the_same_wherever_it_is_written(metadata):
    version = sgm_hf.__version__
    assert metadata["Version"] == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def make_with(python_version: str, folder: Path) -> tuple[subprocess.CompletedProcess, list[str]]:
    """How `make test` ends with an interpreter that believes to be another version, and what it was called with."""
    for name in ("Makefile", "setup.py", "pyproject.toml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    python = folder / "python"
    version_info = tuple(map(int, python_version.split(".")))
    code = f"import sys; sys.version_info = {version_info}; exec(sys.argv[1])"
    python.write_text(
        f'#!/bin/sh\necho "$1" >> "{folder}/calls"\ncase "$1" in\n'
        f'--version) echo "Python {python_version}";;\n-c) exec "{sys.executable}" -c "{code}" "$2";;\nesac\n'
    )
    python.chmod(0o755)
    finished = subprocess.run(
        ["make", "test", f"PYTHON={python}"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    return finished, (folder / "calls").read_text().splitlines()


def test_make_refuses_an_older_python_before_anything_is_downloaded(tmp_path):
    finished, calls = make_with("3.10.12", tmp_path)
    assert finished.returncode != 0 and set(calls) == {"-c", "--version"}
    assert "Python 3.11 or newer is needed" in finished.stderr and "Python 3.10.12" in finished.stderr
    assert "make test PYTHON=python3.11" in finished.stderr


@pytest.mark.parametrize("python", ["3.11.9", "3.14.0"])
def test_make_takes_the_pythons_that_the_package_declares(python, tmp_path, metadata):
    _, calls = make_with(python, tmp_path)
    assert calls == ["-c", "-m"]  # -m venv; what it should have made is then not there
    assert metadata["Requires-Python"] == ">=3.11"
