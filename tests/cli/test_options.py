"""Every option that a message or a docstring of the package and the programs names is an option of a program."""

import ast
import re
from pathlib import Path

import pytest
from transformers import HfArgumentParser

from sgm_hf.programs import (
    BaselineArguments,
    CommandParser,
    DataArguments,
    ModelArguments,
    Seq2SetArguments,
    add_labelling_options,
)

ROOT = Path(__file__).parents[2]
FOLDERS = ("sgm_hf", "modeling", "datasets_scripts", "examples", "benchmarks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9_-]*[a-z0-9])(?!_)")
ADDED = re.compile(r'add_argument\(\s*"--([a-z_]+)"')
# Of `hf upload`, which `sgm-hf space` names.
OF_OTHERS = {"repo-type", "private"}
# Taken before a parser is made.
HELP = {"help", "help_all", "version"}


def options() -> set[str]:
    """The options of all programs; a word of Transformers' parser may have - for _."""
    classes = ((ModelArguments, DataArguments, Seq2SetArguments), (BaselineArguments,))
    labelling = CommandParser()
    add_labelling_options(labelling)
    of_parser = labelling.names() | {
        name for part in classes for action in HfArgumentParser(part)._actions for name in action.option_strings
    }
    own = {name for path in FILES for name in ADDED.findall(path.read_text(encoding="utf-8"))}
    return own | {name.removeprefix("--") for name in of_parser}


def named(path: Path) -> set[str]:
    """The options that the strings of a file name."""
    strings = (
        node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)
    )
    return {name for text in strings if isinstance(text, str) for name in OPTION.findall(text)}


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if "benchmarks" not in path.parts and named(path)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_messages_advise_only_options_that_exist(path):
    assert named(path) - options() - OF_OTHERS - HELP == set()


def test_docs_name_only_options_that_exist():
    shell = {"write", "session", "index-url", "no-deps", "config_file", *HELP}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        assert set(OPTION.findall(text)) - options() - OF_OTHERS - shell == set(), page.name
