"""The mutation run itself: what is changed, which tests are chosen, and what the page says."""

import ast

import mutation_run
import pytest
from mutants import find_mutants

SOURCE = '''"""A module."""

import logging

logger = logging.getLogger(__name__)
LIMIT: int = 3


def grow(value: int, by: float = 2.0) -> float:
    """Grow a value up to a limit."""
    if value > LIMIT:
        raise ValueError(f"{value} is above {LIMIT}")
    logger.info("growing", value)
    scale(value, "name", text="a text of many words", device=value)
    return min(
        value * by,
        LIMIT,
    )
'''


@pytest.fixture
def mutants(tmp_path):
    (tmp_path / "module.py").write_text(SOURCE)
    return find_mutants(tmp_path, "module.py")


def test_each_mutant_is_one_change_of_code_that_runs(mutants):
    assert {mutant.after for mutant in mutants if mutant.line == 11} == {"if value >= LIMIT:"}
    changes = {mutant.after for mutant in mutants}
    assert {
        "LIMIT: int = 4",
        "LIMIT: int = None",
        "value / by,",
        'scale(value, "XXnameXX", text="a text of many words", device=value)',
    } <= (changes)
    assert {
        "def grow(value: int, by: float = 3.0) -> float:",
        'scale(None, "name", text="a text of many words", device=value)',
    } <= changes
    for mutant in mutants:
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(SOURCE))
        assert mutant.before in SOURCE and mutant.after in mutant.source
    assert len({mutant.source for mutant in mutants}) == len(mutants)


def test_texts_for_people_and_annotations_are_not_mutated(mutants):
    for kept in (
        "A module.",
        "Grow a value",
        "raise ValueError",
        'logger.info("growing"',
        "a text of many words",
        "-> float",
        "device=value",
    ):
        assert all(kept in mutant.source for mutant in mutants), kept


def test_a_mutant_knows_its_statement_and_whether_import_runs_it(mutants):
    places = {mutant.after: (mutant.line, mutant.last_line, mutant.at_import) for mutant in mutants}
    assert places["LIMIT: int = 4"] == (6, 6, True)
    assert places["def grow(value: int, by: float = 3.0) -> float:"][2]
    assert places["value / by,"] == (15, 18, False)


def test_a_mutants_tests_are_those_that_ran_its_line_the_mirrored_file_first(mutants):
    near, far, shared, slow = (
        "tests/x/test_module.py::near",
        "tests/y/test_far.py::far",
        "tests/z/t.py::a",
        "tests/z/t.py::s",
    )
    recorded = {
        "seconds": {near: 2.0, far: 0.1, shared: 1.0, slow: 1e3, "tests/y/test_far.py::fails": 0.1},
        "failed": ["tests/y/test_far.py::fails"],
        "lines": {
            "x/module.py": {"11": [near], "16": [near, far, "tests/y/test_far.py::fails"], "17": ["tests/z/t.py"]}
        },
    }
    tests = mutation_run.Tests(recorded)
    for mutant in mutants:
        object.__setattr__(mutant, "file", "x/module.py")
    by_change = {mutant.after: mutant for mutant in mutants}
    assert tests.of(by_change["if value >= LIMIT:"]) == [near]
    assert tests.of(by_change["value / by,"]) == [near, far, shared]
    assert set(tests.of(by_change["LIMIT: int = 4"])) == {near, far, shared}
    tests.kills["x/module.py"][far] += 1
    assert tests.of(by_change["value / by,"])[0] == far


def test_the_sample_is_the_same_each_time_and_has_the_given_size():
    files = ["sgm_hf/training/rewards.py", "sgm_hf/data/collation.py"]
    first, counts = mutation_run.sample_mutants(files, 5, seed=3)
    again, _ = mutation_run.sample_mutants(files, 5, seed=3)
    assert first == again != mutation_run.sample_mutants(files, 5, seed=4)[0]
    assert [sum(mutant.file == file for mutant in first) for file in files] == [5, 5]
    assert all(counts[file] > 40 for file in files)


def test_the_page_weighs_each_file_by_its_mutants_and_names_the_survivors():
    def row(file, outcome):
        return {"file": file, "line": 3, "before": "a + b", "after": "a - b", "outcome": outcome, "by": ""}

    rows = [row("a.py", "killed")] * 9 + [row("a.py", "survived")] + [row("b.py", "killed")] * 5
    page = mutation_run.report(rows, {"a.py": 300, "b.py": 100})
    assert "92.5% killed" in page and "15 of the 400 mutants" in page
    assert "| `a.py` | 300 | 10 | 9 | 1 | 90.0% |" in page
    assert "- a.py, line 3\n\n  ```diff\n  - a + b\n  + a - b\n  ```" in page
