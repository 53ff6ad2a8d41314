"""No module of the package imports itself by way of others, counting imports in functions and for type checkers."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"sgm_hf": "sgm_hf", "sgm_hf.modeling": "modeling", "sgm_hf.datasets_scripts": "datasets_scripts"}


def sources() -> dict[str, str]:
    """The text of each module, by its installed name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path.read_text("utf-8")
    return found


def imports(name: str, text: str, packages: set[str]) -> set[str]:
    """All that a module imports anywhere in its text: modules, and for `from a import b` also a.b."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".") if name in packages else name.split(".")[:-1]
            start = base[: len(base) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return found


def graph(texts: dict[str, str]) -> dict[str, set[str]]:
    """The modules of the package that each module imports."""
    packages = {name for name in texts if any(other.startswith(f"{name}.") for other in texts)}
    edges = {}
    for name, text in texts.items():
        named = imports(name, text, packages)
        # `from package import module` does not use what else the package has.
        through = {module.rpartition(".")[0] for module in named if module in texts}
        own_names = {module.rpartition(".")[0] for module in named if module not in texts}
        edges[name] = {
            module for module in named if module in texts and (module not in through or module in own_names)
        }
    return edges


def test_there_is_no_circle():
    TopologicalSorter(graph(sources())).prepare()


def test_modeling_imports_nothing_of_the_library():
    for name, modules in graph(sources()).items():
        if name.startswith("sgm_hf.modeling"):
            assert all(module.startswith("sgm_hf.modeling.") for module in modules), name


@pytest.mark.parametrize(
    "back",
    [
        "from .a import x",
        "from . import a",
        "import p.a",
        "def f():\n    from p.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import x",
    ],
)
def test_a_circle_is_found(back):
    texts = {"p": "from .a import x", "p.a": "from .b import y", "p.b": "import json", "p.c": "from p import x"}
    TopologicalSorter(graph(texts)).prepare()
    with pytest.raises(CycleError, match="p.b"):
        TopologicalSorter(graph(texts | {"p.b": back})).prepare()
    with pytest.raises(CycleError, match="'p'"):
        TopologicalSorter(graph(texts | {"p.b": "from p import x"})).prepare()


def test_every_module_is_in_the_graph():
    edges = graph(sources())
    assert "sgm_hf.modeling.decoder_sgm" in edges["sgm_hf.modeling.generation_sgm"]
    assert "sgm_hf.modeling" in edges["sgm_hf"]
    assert sum(map(len, edges.values())) > 100
