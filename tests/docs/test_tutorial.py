"""The commands of docs/tutorial.md run as they stand, one after the other, and print what the page shows."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(bash|python|text)\n(.*?)```", re.DOTALL)


def blocks(name: str) -> list[tuple[str, str]]:
    """Language and text of each block of a page."""
    return BLOCK.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))


def run(command: str) -> None:
    """Run a command of the tutorial in this process; the page, which serves until it is ended, is left out."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[0] == "sgm-hf"
    if "runs/exact" in words:
        words += ["--num_train_epochs", "1"]  # what it prints is not shown
    if words[1] != "app":
        importlib.import_module(f"sgm_hf.cli.{words[1]}").main(words[2:])


def test_the_tutorial_runs_and_shows_what_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    languages = blocks("tutorial.md")
    assert languages[0][0] == "python" and sum(language == "bash" for language, _ in languages) == 7
    for language, text in languages:
        if language == "bash":
            run(text)
        elif language == "python":
            exec(compile(text, "tutorial.md", "exec"), {})
    printed = capsys.readouterr().out
    head = (tmp_path / "tickets.csv").read_text(encoding="utf-8")
    assert any(language == "text" and head.startswith(text) for language, text in languages)
    assert "The model is in runs/tickets. Label new texts with it:\n  sgm-hf predict runs/tickets new.csv\n" in printed
    assert "new.predictions.jsonl: 200 documents labelled" in printed
    # Rounding differs between processors; names and places do not.
    shown = next(text for language, text in languages if text.startswith('{"id"'))
    lines = (tmp_path / "new.predictions.jsonl").read_text(encoding="utf-8").splitlines()
    without_scores = [re.sub(r', "scores".*', "", line) for line in [*shown.splitlines(), *lines]]
    assert without_scores[: len(shown.splitlines())] == without_scores[len(shown.splitlines()) :][:3]
    assert "refund" in printed.splitlines()[-1]


def test_the_block_of_the_start_page_is_the_example():
    page = next(text for language, text in blocks("start.md") if language == "python")
    example = (ROOT / "examples" / "readme.py").read_text(encoding="utf-8").split('"""', 2)[2]

    def code(text: str) -> str:
        return re.sub(r"\s*#.*", "", text).strip()

    assert code(page) == code(example)


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
)
def test_every_command_that_a_page_names_exists(page):
    from sgm_hf.cli import COMMANDS

    text = (ROOT / page).read_text(encoding="utf-8")
    assert {name for name in re.findall(r"^sgm-hf (\w+)", text, re.MULTILINE)} <= {*COMMANDS}
