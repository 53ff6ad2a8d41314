"""How the programs end: one line where settings or files are at fault, a traceback where the program is."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from sgm_hf import load_files
from sgm_hf.programs import run_main

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "run_sgm": (["--train_file", "{missing}.csv", "--output_dir", "{out}"], "{missing}.csv does not exist"),
    "run_baseline": (
        ["br_svm", "--train_file", "{missing}.csv", "--output_dir", "{out}"],
        "{missing}.csv does not exist",
    ),
    "run_seq2set": (["--train_file", "x.csv", "--output_dir", "{out}"], "give --model_name_or_path"),
    "run_study": (["train", "{missing}.json", "--output_dir", "{out}"], "{missing}.json does not exist"),
    "cross_dataset": (["{missing}.json", "--output_dir", "{out}"], "{missing}.json"),
    "app": (["{missing}", "--examples", "{missing}.jsonl"], "{missing}.jsonl"),
    "make_space": (["{missing}", "{used}"], "{used} is in use"),
    "demo": None,
}

# What the line begins with, where it is the command that the program is.
NAMES = {
    "run_sgm": "sgm-hf train",
    "run_baseline": "sgm-hf baseline",
    "run_seq2set": "sgm-hf finetune",
    "run_study": "sgm-hf study",
    "app": "sgm-hf app",
    "make_space": "sgm-hf space",
}


def end_of(main, monkeypatch, capsys) -> tuple[object, list[str]]:
    """Exit code and error lines of a program called `prog`."""
    monkeypatch.setattr(sys, "argv", [str(Path(__file__).with_name("prog.py"))])
    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    return stopped.value.code, capsys.readouterr().err.splitlines()


def test_every_program_is_among_those_tested():
    having = {path.stem for path in ROOT.glob("examples/*.py") if "__main__" in path.read_text(encoding="utf-8")}
    assert having == set(PROGRAMS)


@pytest.mark.parametrize("program", [name for name, fault in PROGRAMS.items() if fault])
def test_a_fault_of_the_user_ends_every_program_in_one_line(program, tmp_path, monkeypatch, capsys):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    places = {name: str(tmp_path / name) for name in ("missing", "out", "used")}
    options, message = PROGRAMS[program]
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(sys, "argv", [program, *(option.format(**places) for option in options)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "examples" / f"{program}.py"), run_name="__main__")
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{NAMES.get(program, program)}: error: ") and message.format(**places) in line


@pytest.mark.parametrize(
    "content",
    ["text,labels\nball,sport\n,sport\n", "words,labels\nball,sport\n", "text,labels\nball,sport,more\n"],
    ids=["empty text", "no such column", "too many cells"],
)
def test_a_fault_in_the_data_is_one_line_with_file_and_remedy(content, tmp_path, monkeypatch, capsys):
    file = tmp_path / "train.csv"
    file.write_text(content)
    code, lines = end_of(lambda: load_files(file), monkeypatch, capsys)
    assert code == 2 and len(lines) == 1
    assert lines[0].startswith(f"prog: error: {file}")


def test_an_error_of_the_system_is_one_line(tmp_path, monkeypatch, capsys):
    code, lines = end_of((tmp_path / "missing").read_text, monkeypatch, capsys)
    assert code == 2 and len(lines) == 1 and "missing" in lines[0]


@pytest.mark.parametrize(
    ("bug", "kind"),
    [
        (lambda: int("x"), ValueError),  # an expression of ours that nothing checks
        (lambda: json.loads("{"), ValueError),  # a raise of a library
        (lambda: "text" + 1, TypeError),
        (lambda: {}["label"], KeyError),
    ],
)
def test_a_fault_of_the_program_keeps_its_traceback(bug, kind, monkeypatch):
    monkeypatch.setattr(sys, "argv", [__file__])
    with pytest.raises(kind):
        run_main(bug)


def test_the_traceback_of_any_error_is_there_when_asked_for(monkeypatch):
    monkeypatch.setenv("SGM_HF_TRACEBACK", "1")
    with pytest.raises(ValueError, match="No file given"):
        run_main(load_files)


def test_ctrl_c_ends_a_program_without_a_traceback(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert end_of(interrupt, monkeypatch, capsys) == (130, ["prog: interrupted"])
