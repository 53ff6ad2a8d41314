"""Command lines: options are given in full, and a wrong one is an error of one line that names the nearest."""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

from sgm_hf.programs.help import FURTHER, help_text
from sgm_hf.programs.presets import DEFAULT_PRESET, DEPENDENT, PRESETS
from sgm_hf.programs.settings import DataArguments, ModelArguments
from sgm_hf.training import SGMTrainingArguments


class OneLineErrors(argparse.ArgumentParser):
    """A parser that takes no abbreviations, and raises what is wrong instead of printing its usage."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse a command line.

        Raises:
            ValueError: If it has an option that does not exist, or a value that an option does not take.
        """
        args = sys.argv[1:] if args is None else args
        self.check_names(args)
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} belongs to no option; see --help, and put a value with spaces in quotes."
            )
        return namespace

    def names(self) -> set[str]:
        """The options, those of the parts of a command among them."""
        found: set[str] = set()
        for action in self._actions:
            found.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                found.update(*(part.names() for part in action.choices.values()))
        return found

    def check_names(self, args: Sequence[str]) -> None:
        """Refuse an option that does not exist before anything else that may be wrong.

        Raises:
            ValueError: If there is one.
        """
        known = self.names()
        for option in (word.partition("=")[0] for word in args if word.startswith("--")):
            if option not in known:
                # Each option of several words is also taken with - for _; one of the two is enough here.
                spellings = sorted(name for name in known if name.startswith("--") and "-" not in name[2:])
                written = f"--{option[2:].replace('-', '_')}"
                longer = [name for name in spellings if name.startswith(written)]
                nearest = longer or difflib.get_close_matches(written, spellings, n=1, cutoff=0.5)
                advice = f"did you mean {nearest[0]}? See --help." if nearest else "see --help."
                raise ValueError(f"there is no option {option}; {advice}")

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found.

        Raises:
            ValueError: Always.
        """
        # With - and with _ it is one option.
        raise ValueError(f"{re.sub(r'(--[a-z_]+)/--[a-z-]+', lambda found: found[1], message)}; see --help.")


class CommandParser(OneLineErrors):
    """The parser of a command of `sgm-hf`.

    Args:
        command: The command's name.
        description: What --help says first, with its line breaks.
    """

    def __init__(self, command: str = "", description: str | None = None, **options: Any):
        settings = {"prog": f"sgm-hf {command}", "formatter_class": argparse.RawDescriptionHelpFormatter} | options
        super().__init__(description=description, **settings)


class SettingsParser(OneLineErrors, HfArgumentParser):
    """Transformers' parser of dataclasses, with our errors."""


def parse_arguments(
    arguments: Sequence[str],
    training_class: type[SGMTrainingArguments] = SGMTrainingArguments,
    usage: str = "sgm-hf train [SETTINGS.json] [--NAME value ...]",
    description: str | None = None,
    not_shown: Collection[str] = (),
) -> tuple[ModelArguments, DataArguments, SGMTrainingArguments]:
    """Read the settings from an optional JSON file and the options after it; print the help if it is asked for.

    Args:
        arguments: The command line without the program's name.
        training_class: The class of the training settings.
        usage: How the command is called.
        description: What --help says first.
        not_shown: Titles of the groups of options that only --help_all shows, besides that of Transformers' Trainer.

    Raises:
        FileNotFoundError: If the JSON file does not exist.
        ValueError: If it is not JSON or names a setting that does not exist, or a setting is out of its range.
        SystemExit: After the help.
    """
    classes = (ModelArguments, DataArguments, training_class)
    if {"-h", "--help", "--help_all"} & set(arguments):
        left_out = () if "--help_all" in arguments else (*not_shown, FURTHER)
        print(help_text(usage, description, classes, left_out), end="")
        raise SystemExit(0)
    parser = SettingsParser(classes, add_help=False)
    is_file = bool(arguments) and arguments[0].endswith(".json")
    arguments = with_settings(parser, arguments, classes)
    preset = chosen_preset(arguments, is_file, training_class)
    parser.set_defaults(**PRESETS[preset])
    found = vars(parser.parse_args(arguments))
    not_taken = [name for switch, names in DEPENDENT.items() if found[switch] is False for name in names]
    if found["label_hierarchy"] is not None:
        not_taken.append("label_order")  # that of the hierarchy goes before a preset's
    parser.set_defaults(**dict.fromkeys(not_taken))
    given = vars(parser.parse_args(arguments)) | {"preset": preset}
    if given["output_dir"] is None:
        given["output_dir"] = default_output_dir(given, training_class)
    try:
        model_args, data_args, training_args = parser.parse_dict(given)
    except ValueError as error:  # raised by Transformers for its own settings: for the user to correct, as ours are
        raise ValueError(str(error)) from error
    return model_args, data_args, training_args


def with_settings(parser: argparse.ArgumentParser, arguments: Sequence[str], classes: Sequence[type]) -> list[str]:
    """A command line whose first word may be a JSON file of settings, with these as options before the others."""
    arguments = list(arguments)
    if not arguments or not arguments[0].endswith(".json"):
        return arguments
    settings = read_settings(Path(arguments.pop(0)), {f.name for c in classes for f in fields(c)})
    # As options, so that their types and choices are checked; lists and nulls cannot be written as one.
    options = {name: value for name, value in settings.items() if isinstance(value, str | int | float)}
    parser.set_defaults(**{name: value for name, value in settings.items() if name not in options})
    return [f"--{name}={value}" for name, value in options.items()] + arguments


def chosen_preset(arguments: Sequence[str], is_file: bool, training_class: type[SGMTrainingArguments]) -> str:
    """The preset named; without a name that of a new model whose settings are no file and whose encoder is new too.

    Raises:
        ValueError: If there is no preset of that name.
    """
    parser = OneLineErrors(add_help=False)
    parser.add_argument("--preset", choices=list(PRESETS))
    parser.add_argument("--model_name_or_path", "--model-name-or-path")
    parser.add_argument("--encoder_name_or_path", "--encoder-name-or-path")
    found, _ = parser.parse_known_args(arguments)
    is_new = found.model_name_or_path is None and found.encoder_name_or_path is None
    is_new &= training_class is SGMTrainingArguments
    return found.preset or (DEFAULT_PRESET if is_new and not is_file else "none")


def default_output_dir(given: Mapping[str, Any], training_class: type[SGMTrainingArguments]) -> str:
    """The folder below `runs` that is named after the data, and after the model where that is only evaluated."""
    files = [given[name] for name in ("train_file", "validation_file", "test_file") if given[name]]
    name = Path(given["dataset_name"] or (files[0] if files else "generated")).stem
    if training_class is not SGMTrainingArguments:
        name = f"{name}_seq2set"
    elif given["model_name_or_path"] and not given["do_train"]:
        name = f"{Path(given['model_name_or_path']).name}_on_{name}"
    return str(Path("runs", name))


def with_model(arguments: Sequence[str]) -> list[str]:
    """A command line with its first word, if it is neither an option nor a JSON file, as --model_name_or_path."""
    if not arguments or arguments[0].startswith("-") or arguments[0].endswith(".json"):
        return list(arguments)
    model, *rest = arguments
    settings = rest[:1] if rest and rest[0].endswith(".json") else []
    return [*settings, "--model_name_or_path", model, *rest[len(settings) :]]


def read_settings(path: Path, known: set[str]) -> dict[str, Any]:
    """The settings of a JSON file by name, all of them among the known ones."""
    if not path.is_file():
        raise FileNotFoundError(f"the settings file {path} does not exist; give the path of a JSON file.")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg}); correct the file.") from error
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"{path} sets {', '.join(unknown)}, which this program does not know; see its --help.")
    return settings
