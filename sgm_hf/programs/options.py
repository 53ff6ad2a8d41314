"""Command lines: options are given in full, and a wrong one is an error of one line that names the nearest."""

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn


class OneLineErrors(argparse.ArgumentParser):
    """A parser that takes no abbreviations, and raises what is wrong instead of printing its usage."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options, allow_abbrev=False)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Parse a command line.

        Raises:
            ValueError: If it has an option that does not exist, or a value that an option does not take.
        """
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise ValueError(self.unknown_message(unknown[0]))
        return namespace

    def unknown_message(self, word: str) -> str:
        """What is wrong with a word that no option takes."""
        if not word.startswith("-"):
            return f"{word!r} belongs to no option; see --help, and put a value with spaces in quotes."
        option = word.partition("=")[0]
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        longer = [name for name in known if name.startswith(option)]
        nearest = longer[:1] or difflib.get_close_matches(option.replace("-", "_"), known, n=1, cutoff=0.5)
        advice = f"did you mean {nearest[0]}? " if nearest else ""
        return f"there is no option {option}; {advice}see --help."

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found.

        Raises:
            ValueError: Always.
        """
        # Each option of several words is also taken with - for _; its error names it once.
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
