"""docs/architecture.md names files and what is in them; all of it exists."""

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(\w+_sgm)\.py: ([\w.]+)`", PAGE)))


@pytest.mark.parametrize(("module", "name"), NAMED)
def test_what_the_page_names_exists(module, name):
    reduce(getattr, name.split("."), importlib.import_module(f"sgm_hf.modeling.{module}"))


def test_the_page_names_every_dictionary_of_kinds_and_existing_files():
    assert {("encoders_sgm", "ENCODERS"), ("attention_sgm", "ATTENTIONS"), ("decoder_sgm", "CELLS")} <= set(NAMED)
    for path in re.findall(r"`(tests/[\w/.]+)`", PAGE):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"\w+_sgm\.py", PAGE):
        assert (ROOT / "modeling" / module).is_file(), module


def test_all_code_that_travels_is_listed_once():
    from sgm_hf.modeling.configuration_sgm import CODE_FILES

    files = {path.name for path in (ROOT / "modeling").glob("*.py")} - {"__init__.py"}
    assert list(CODE_FILES) == sorted(files)
