"""The command line `sgm-hf`: one file per command, each with a `main` that takes the words after the command.

The work is done by the functions of `sgm_hf.programs`.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from sgm_hf import __version__
from sgm_hf.programs import run_main

__all__ = ["COMMANDS", "main"]

# What each command does. Its file, of the same name, is imported when it is run.
COMMANDS = {
    "train": "train a model on your files or on a named corpus, and evaluate it",
    "predict": "label a file of texts of any size",
    "evaluate": "measure a model on labelled documents",
    "compare": "compare systems from their predictions, with intervals",
    "app": "serve a page to try a model in the browser",
    "finetune": "train a model further on label sets that it samples (Seq2Set)",
    "space": "make a Space of the Hub of a model",
    "convert": "write a named corpus as Parquet files with a dataset card",
    "baseline": "tune a classifier to compare with: linear SVM, chains, label trees",
    "study": "compare systems on a corpus as the papers do, over seeds",
}
USAGE = """usage: sgm-hf COMMAND [OPTIONS]        sgm-hf --version: {version}

Multi-label text classification by generating the labels of a text one by one.

commands:
{commands}

example:
  sgm-hf train --train_file my.csv    # with the columns text and labels (a|b)
  sgm-hf predict runs/my new.csv      # with the column text

sgm-hf COMMAND --help lists the options of a command with an example."""


def overview() -> str:
    """The commands, one a line, with an example."""
    commands = "\n".join(f"  {name:<9} {summary}" for name, summary in COMMANDS.items())
    return USAGE.format(version=__version__, commands=commands)


def run_command(arguments: Sequence[str]) -> None:
    """Run the command that the first word names.

    Raises:
        ValueError: If there is no such command.
    """
    command, *rest = arguments
    if command not in COMMANDS:
        nearest = difflib.get_close_matches(command, COMMANDS, n=1)
        advice = f"did you mean {nearest[0]}?" if nearest else f"it is one of {', '.join(COMMANDS)}."
        raise ValueError(f"there is no command {command!r}; {advice}")
    importlib.import_module(f"sgm_hf.cli.{command}").main(rest)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, and end the process as `run_main` says.

    Args:
        arguments: The command and its options; default those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return
    if arguments[0] == "--version":
        print(f"sgm-hf {__version__}")
        return
    name = f"sgm-hf {arguments[0]}" if arguments[0] in COMMANDS else "sgm-hf"
    run_main(lambda: run_command(arguments), name)
