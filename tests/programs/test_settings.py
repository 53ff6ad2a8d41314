import inspect
import json
from dataclasses import asdict, fields, make_dataclass
from typing import Literal

import pytest
from transformers import HfArgumentParser

from sgm_hf.data.files import load_files
from sgm_hf.modeling import SGMConfig, SGMTokenizer
from sgm_hf.programs.options import parse_arguments
from sgm_hf.programs.settings import (
    FILE_OPTIONS,
    NOT_OPTIONS,
    WORD_OPTIONS,
    DataArguments,
    config_options,
    model_settings,
    option_type,
)


def test_settings_of_a_json_file_are_overridden_by_options_after_it(tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"dataset_name": "aapd", "seed": 1, "weight_decay": 0.5, "label_mask": False}))
    model_args, data_args, training_args = parse_arguments(
        [str(settings), "--seed", "3", "--data_dir", "x", "--output_dir", str(tmp_path)]
    )
    assert (training_args.seed, training_args.weight_decay, model_args.label_mask) == (3, 0.5, False)
    assert (data_args.dataset_name, data_args.data_dir) == ("aapd", "x")


def test_types_of_a_settings_file_are_those_of_the_command_line(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"num_beams": 2.5}))
    with pytest.raises(ValueError, match=r"^argument --num_beams: invalid int value: '2.5'; see --help\.$"):
        parse_arguments([str(file)])
    file.write_text(json.dumps({"save_total_limit": None, "label_mask": False, "learning_rate": 1e-05}))
    model_args, _, training_args = parse_arguments([str(file)])
    assert (model_args.label_mask, training_args.save_total_limit, training_args.learning_rate) == (False, None, 1e-5)


def test_an_unknown_set_decoding_is_refused_on_the_command_line_and_in_a_file(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"set_decoding": "best"}))
    for arguments in (["--set_decoding", "best"], [str(tmp_path / "settings.json")]):
        with pytest.raises(ValueError, match="invalid choice: 'best'"):
            parse_arguments(arguments)


def test_a_faulty_settings_file_is_named_with_its_fault(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.json"):
        parse_arguments([str(tmp_path / "missing.json")])
    broken = tmp_path / "broken.json"
    broken.write_text('{"seed": 1,\n"beam_width" 3}')
    with pytest.raises(ValueError, match="broken.json, line 2"):
        parse_arguments([str(broken)])
    unknown = tmp_path / "unknown.json"
    unknown.write_text('{"seed": 1, "beam_width": 3}')
    with pytest.raises(ValueError, match="unknown.json sets beam_width"):
        parse_arguments([str(unknown)])


class GrownConfig(SGMConfig):
    """A configuration with fields that no program knows.

    Args:
        pooling: How 50 % of the states go.
        share: Of the states,
            in words.
        keeps_order: Whether it does.
        nested: Of another model.
    """

    pooling: Literal["mean", "max"] = "max"
    share: float | int = 0.5
    keeps_order: bool = True
    width: int | None = None
    nested: dict | None = None


def test_a_new_field_of_the_configuration_is_an_option_by_itself():
    grown = make_dataclass("Grown", config_options(GrownConfig))
    parser = HfArgumentParser(grown)
    (options,) = parser.parse_args_into_dataclasses(["--pooling", "mean", "--share", "0.25", "--keeps_order", "false"])
    assert asdict(options) == {"pooling": "mean", "share": 0.25, "keeps_order": False, "width": None}
    text = " ".join(parser.format_help().split())
    assert "How 50 % of the states go. Default: max." in text and "Of the states, in words." in text


def test_a_kind_that_the_configuration_does_not_have_is_refused(capsys):
    parser = HfArgumentParser(make_dataclass("Grown", config_options(GrownConfig)))
    with pytest.raises(SystemExit):
        parser.parse_args(["--pooling", "sum"])
    assert "mean, max" in capsys.readouterr().err.replace("'", "")  # Python 3.11 quotes them


def test_every_field_of_the_configuration_is_an_explained_option_or_set_by_the_library():
    explained = {name for name, _, option in config_options() if option.metadata["help"]}
    nested = {name for name, kind in SGMConfig.__annotations__.items() if option_type(kind) is None}
    assert explained | NOT_OPTIONS | nested == set(SGMConfig.__annotations__)
    assert {"attention", "dropout", "label_mask"} <= explained


def test_settings_of_a_model_are_those_given():
    model_args, *_ = parse_arguments(
        ["--preset", "none", "--dropout", "0.25", "--label_mask", "false", "--output_dir", "unused"]
    )
    assert model_settings(model_args) == {"dropout": 0.25, "label_mask": False}
    assert not parse_arguments(["--output_dir", "unused"])[0].add_labels


@pytest.mark.parametrize("function", [load_files, SGMTokenizer.train_from_texts], ids=lambda f: f.__name__)
def test_options_have_the_defaults_of_the_functions_that_take_them(function):
    parameters = inspect.signature(function).parameters
    shared = {f.name: f.default for f in fields(DataArguments) if f.name in parameters}
    assert shared == {name: parameters[name].default for name in shared}
    assert set(FILE_OPTIONS) <= set(shared) or set(WORD_OPTIONS) <= set(shared)
