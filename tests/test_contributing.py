"""What CONTRIBUTING.md says of the code is true."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGES = ("modeling", "sgm_hf", "datasets_scripts", "examples", "benchmarks", "tests")


def functions():
    """Yield file and node of each function of the repository."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield path.relative_to(ROOT), node


def length_of_body(function):
    """The lines of a function below its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_no_body_of_a_function_is_longer_than_60_lines():
    lengths = {f"{path}: {function.name}": length_of_body(function) for path, function in functions()}
    assert {name: length for name, length in lengths.items() if length > 60} == {}
    assert len(lengths) > 1000 and max(lengths.values()) > 20


def test_every_file_and_folder_is_where_it_says():
    tree = re.search(r"```\n(modeling/.*?)```", CONTRIBUTING, re.DOTALL)[1]
    folder, listed = "", set()
    for line in tree.splitlines():
        names = re.findall(r"[\w/]+(?:\.py|/)(?= |$)", re.split(r" {4,}", line.strip())[0] + " ")
        folder = folder if line.startswith(" ") else names[0]
        listed |= {name if name == folder else folder + name for name in names}
    assert {path for path in listed if not (ROOT / path).exists()} == set()
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    there = {f"{path.split('/')[0]}/" for path in files if "/" in path and not path.startswith(".")}
    there |= {path for path in files if re.fullmatch(r"(modeling|sgm_hf)/(?!__)\w+\.py", path)}
    there |= {f"sgm_hf/{path.split('/')[1]}/" for path in files if path.startswith("sgm_hf/") and path.count("/") > 1}
    assert there == listed
