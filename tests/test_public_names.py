"""The commands and the examples import public names of the package only, so that they are also examples of its API."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import sgm_hf

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("sgm_hf/cli", "examples") for path in (ROOT / folder).rglob("*.py"))
# The last two lie elsewhere in the repository.
PACKAGES = {"sgm_hf", "sgm_hf.modeling", "sgm_hf.datasets_scripts"} | {
    info.name for info in pkgutil.walk_packages(sgm_hf.__path__, "sgm_hf.") if info.ispkg
}


def not_public(text: str) -> set[str]:
    """The names of the package that a text imports though no `__all__` has them."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "sgm_hf"} - PACKAGES
        elif isinstance(node, ast.ImportFrom) and (node.level or node.module.split(".")[0] == "sgm_hf"):
            public = importlib.import_module(node.module).__all__ if node.module in PACKAGES else ()
            found |= {f"{node.module}.{alias.name}" for alias in node.names if alias.name not in public}
    return found - {"sgm_hf.__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_examples_import_public_names_only(path):
    assert not_public(path.read_text(encoding="utf-8")) == set()


def test_a_private_name_is_found():
    assert not_public("from sgm_hf.programs.settings import DataArguments") == {
        "sgm_hf.programs.settings.DataArguments"
    }
    assert not_public("from sgm_hf.programs import settings") == {"sgm_hf.programs.settings"}
    assert not_public("import sgm_hf.programs.settings") == {"sgm_hf.programs.settings"}
    assert not_public("import sgm_hf.training\nfrom sgm_hf import load_files\nimport json") == set()


def test_every_package_lists_its_public_names():
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{package}.{name}"
    assert len(FILES) > 10
