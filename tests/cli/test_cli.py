"""The command `sgm-hf` as a whole: its overview, its help, its faults."""

import importlib
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import sgm_hf
from sgm_hf.cli import COMMANDS, main
from sgm_hf.modeling import SGMConfig
from sgm_hf.programs import DataArguments, ModelArguments, Seq2SetArguments
from sgm_hf.programs.help import FURTHER, GROUPS, OF_TRAINING, TEXTS, grouped, option_text
from sgm_hf.training import SGMTrainingArguments

CLASSES = (ModelArguments, DataArguments, SGMTrainingArguments)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def printed(capsys, *arguments: str) -> str:
    """What a command prints that ends well."""
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code
    streams = capsys.readouterr()
    assert streams.err == ""
    return streams.out


def complaint(capsys, *arguments: str) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_the_overview_fits_on_a_screen_and_has_a_line_per_command_and_the_version(arguments, capsys):
    lines = printed(capsys, *arguments).splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 80
    for command, summary in COMMANDS.items():
        assert sum(line.split() == [command, *summary.split()] for line in lines) == 1
    assert sgm_hf.__version__ in lines[0]


def test_the_version_is_the_packages(capsys):
    assert printed(capsys, "--version") == f"sgm-hf {sgm_hf.__version__}\n"


def test_there_is_a_file_for_each_command_and_a_command_for_each_file():
    files = Path(importlib.import_module("sgm_hf.cli").__file__).parent.glob("*.py")
    assert {path.stem for path in files} - {"__init__"} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_fits_the_terminal(command, capsys):
    lines = printed(capsys, command, "--help").splitlines()
    assert lines[0].startswith(f"usage: sgm-hf {command}")
    assert any(line.startswith(f"  sgm-hf {command} ") for line in lines)
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("command", ["train", "evaluate", "finetune"])
def test_the_options_are_in_groups_with_the_many_of_transformers_last_and_only_when_asked_for(command, capsys):
    few, all_of_them = (printed(capsys, command, option) for option in ("--help", "--help_all"))
    shown = [line for line in few.splitlines() if re.fullmatch(r"\w[\w' -]*:", line)]
    titles = [title for title in GROUPS if title != "Fine-tuning" or command == "finetune"]
    hidden = {FURTHER, *(OF_TRAINING if command == "evaluate" else ())}
    assert shown == [f"{title}:" for title in titles if title not in hidden]
    assert f"\n{FURTHER}:\n" in all_of_them and "--adam_beta1" in all_of_them and "--adam_beta1" not in few
    assert "--output_dir" in few and ("--per_device_train_batch_size" in few) == (command != "evaluate")


def test_every_option_is_shown_unless_it_has_no_effect():
    shown = {option.name for _, options in grouped(CLASSES, left_out=()) for option in options}
    declared = {option.name for settings_class in CLASSES for option in fields(settings_class)}
    assert {"train_file", "dropout", "fsdp", "optim"} <= shown < declared
    assert not {"remove_unused_columns", "local_rank"} & shown


@pytest.mark.parametrize("training_class", [SGMTrainingArguments, Seq2SetArguments])
def test_every_option_says_what_holds_where_it_is_not_given(training_class):
    groups = grouped((ModelArguments, DataArguments, training_class), left_out=(FURTHER,))
    texts = {option.name: option_text(option) for _, options in groups for option in options}
    assert {name for name, text in texts.items() if "default" not in text.lower()} == set()
    assert not [text for text in texts.values() if "None" in text]


def test_the_defaults_shown_are_those_that_hold(capsys):
    text = " ".join(printed(capsys, "train", "--help").split())
    for name in ("embedding_size", "decoder_layers", "dropout", "label_feedback", "label_order"):
        (shown,) = re.findall(rf"--{name} .*?Default: ([\w.]*\w)", text)
        assert shown == str(getattr(SGMConfig, name)), name
    (beams,) = re.findall(r"--num_beams .*?Default: (\d+)", text)
    config = SGMConfig(vocab_size=9, id2label={0: "a", 1: "b"}, embedding_size=4)
    model = sgm_hf.SGMForMultiLabelGeneration(config)
    assert int(beams) == model.generation_config.num_beams
    assert "--learning_rate NUMBER Learning rate of Adam. Default: 0.001." in text
    tuned = " ".join(printed(capsys, "finetune", "--help").split())
    assert "--learning_rate NUMBER Learning rate of Adam. Default: 1e-05." in tuned
    assert TEXTS.keys() <= {option.name for settings_class in CLASSES for option in fields(settings_class)}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("trian",), "sgm-hf: error: there is no command 'trian'; did you mean train?"),
        (("xyzzy",), "sgm-hf: error: there is no command 'xyzzy'; it is one of train, predict"),
        (("train", "--train_fiel", "x.csv"), "sgm-hf train: error: there is no option --train_fiel; did you mean"),
        (("train", "--num-beam", "3"), "there is no option --num-beam; did you mean --num_beams?"),
        (("train", "--learning", "1"), "there is no option --learning; did you mean --learning_rate?"),
        (("train", "my.csv"), "'my.csv' belongs to no option"),
        (("train", "--num_beams", "many"), "argument --num_beams: invalid int value: 'many'; see --help."),
        (("train", "--train_file", "none.csv"), "none.csv does not exist"),
        (("evaluate", "--test_file", "x.csv"), "there is no model to evaluate"),
        (("evaluate", "nowhere", "--test_file", "x.csv"), "nowhere is neither a folder with a model"),
        (("predict", "--top", "x"), "sgm-hf predict: error: "),
        (("study", "train", "x.json", "--output_dir", "x", "--sed", "1"), "--sed; did you mean --seeds?"),
        (("convert", "generatde", "--output_dir", "x"), "invalid choice: 'generatde'"),
        (("app", "--prot", "1"), "sgm-hf app: error: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_slip_is_one_line_that_names_the_nearest(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert expected in complaint(capsys, *arguments)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_page_without_gradio_is_refused_with_what_to_install(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("sgm_hf.programs.app")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = complaint(capsys, "app", "runs/my")
    assert line == "sgm-hf app: error: the page needs gradio: pip install 'sgm_hf[app]'"


def test_an_abbreviation_is_not_taken(capsys):
    assert "did you mean --output_dir?" in complaint(capsys, "convert", "generated", "--output", "x")


def test_the_output_folder_is_named_after_the_data_and_the_model(monkeypatch, tmp_path):
    from sgm_hf.programs import parse_arguments, with_model

    def folder(*arguments, **options):
        return parse_arguments(with_model(arguments), **options)[2].output_dir

    monkeypatch.chdir(tmp_path)
    assert folder("--train_file", "data/my.csv", "--test_file", "test.csv") == "runs/my"
    assert folder("--dataset_name", "generated") == folder() == "runs/generated"
    assert folder("runs/my", "--test_file", "data/test.csv") == "runs/my_on_test"
    assert folder("--model_name_or_path", "me/m", "--train_file", "more.csv", "--do_train", "true") == "runs/more"
    assert folder("runs/my", "--train_file", "my.csv", training_class=Seq2SetArguments) == "runs/my_seq2set"
    assert folder("--train_file", "my.csv", "--output_dir", "x") == "x"
