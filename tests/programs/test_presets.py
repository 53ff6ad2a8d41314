"""Presets come before all other settings, and are settings that there are."""

import json
from dataclasses import fields

import pytest
from huggingface_hub.errors import StrictDataclassError

from sgm_hf.modeling import SGMConfig
from sgm_hf.programs.help import help_text
from sgm_hf.programs.options import parse_arguments
from sgm_hf.programs.presets import DEFAULT_PRESET, DEPENDENT, PRESETS, suitable_epochs
from sgm_hf.programs.settings import DataArguments, ModelArguments, model_settings
from sgm_hf.training import SamplingArguments, SGMTrainingArguments

CLASSES = (ModelArguments, DataArguments, SGMTrainingArguments)


def values(*options: str, training_class: type = SGMTrainingArguments) -> dict:
    parsed = parse_arguments([*options, "--output_dir", "unused"], training_class)
    return {name: value for part in parsed for name, value in vars(part).items()}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_what_it_says_and_nothing_else(preset):
    found, plain = values("--preset", preset), values("--preset", "none")
    assert set(PRESETS[preset]) <= {f.name for kind in CLASSES for f in fields(kind)}
    declared = {*ModelArguments.__dataclass_fields__, *DataArguments.__dataclass_fields__} - {"preset"}
    for name in declared | {*PRESETS[preset]} - {"precision", "num_train_epochs"}:  # which become what they stand for
        assert found[name] == PRESETS[preset].get(name, plain[name]), name


def test_what_is_given_goes_before_the_preset(tmp_path):
    (tmp_path / "settings.json").write_text('{"preset": "fast", "dropout": 0.25, "word_dropout": 0.2}')
    found = values(str(tmp_path / "settings.json"), "--embedding_size", "24", "--word_dropout", "0.3")
    assert (found["preset"], found["dropout"], found["embedding_size"], found["word_dropout"]) == (
        "fast",
        0.25,
        24,
        0.3,
    )
    assert found["encoder_hidden_size"] == PRESETS["fast"]["encoder_hidden_size"]


@pytest.mark.parametrize("switch", DEPENDENT)
@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "none"])
def test_what_is_switched_off_needs_no_more_than_that(preset, switch, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"preset": preset, switch: False}))
    for options in (["--preset", preset, f"--{switch}", "false"], [str(tmp_path / "settings.json")]):
        found = values(*options)
        assert found[switch] is False and all(found[name] is None for name in DEPENDENT[switch])
        assert found["encoder_hidden_size"] == PRESETS[preset]["encoder_hidden_size"]
        assert SGMConfig(**{name: found[name] for name in found if name.startswith("lexical") and found[name]})


@pytest.mark.parametrize(
    ("name", "value"), [("lexical_bigrams", "7"), ("lexical_in_decoder", "true"), ("lexical_dropout", "0.5")]
)
def test_what_is_given_of_a_branch_that_is_switched_off_is_refused(name, value):
    model_args, _, _ = parse_arguments(["--lexical_branch", "false", f"--{name}", value, "--output_dir", "unused"])
    with pytest.raises(StrictDataclassError, match=name):
        SGMConfig(**model_settings(model_args))


def test_only_a_new_model_without_a_settings_file_has_the_default_preset(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    assert values()["preset"] == DEFAULT_PRESET and values()["lexical_branch"]
    assert values(str(tmp_path / "settings.json"))["preset"] == "none"
    assert values("--model_name_or_path", "some/model")["preset"] == "none"
    assert values(training_class=SamplingArguments)["preset"] == "none"


def test_there_are_fewer_epochs_for_more_documents_and_for_less_time():
    counts = [1, 100, 2_000, 10_000, 50_000, 800_000]
    epochs = [suitable_epochs(count, DEFAULT_PRESET) for count in counts]
    assert epochs == sorted(epochs, reverse=True) and epochs[0] > 10 * epochs[-1] > 0
    assert all(suitable_epochs(count, "fast") <= suitable_epochs(count, "balanced") for count in counts)


def test_a_preset_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="--preset.*invalid choice: 'slow'"):
        values("--preset", "slow")


def test_the_help_names_the_presets():
    text = help_text("usage", None, CLASSES)
    assert "--preset" in text and "|".join(PRESETS) in text
