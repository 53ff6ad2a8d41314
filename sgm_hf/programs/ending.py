"""What the command-line programs share: how they end."""

import linecache
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

# What our own checks raise about settings, files and the machine; and FloatingPointError of a training that diverges.
RAISED_BY_CHECKS = (ValueError, TypeError, ImportError, FloatingPointError, RuntimeError)


def run_main(main: Callable[[], object]) -> None:
    """Run a program's `main`, and end the process in one line where settings, files or the machine are at fault.

    Such an error is written to the error output without a traceback, and the exit code is 2; after Ctrl-C it is 130.
    With the variable `SGM_HF_TRACEBACK` in the environment, and after any other error, there is a traceback.

    Args:
        main: Takes no arguments; what it returns is not used.
    """
    program = Path(sys.argv[0])
    try:
        main()
    except KeyboardInterrupt:
        print(f"{program.stem}: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if os.environ.get("SGM_HF_TRACEBACK") or not is_users_error(error, program.parent):
            raise
        print(f"{program.stem}: error: {error}", file=sys.stderr)
        sys.exit(2)


def is_users_error(error: Exception, program_folder: Path) -> bool:
    """Whether an error tells of what the program was given: one of the system, or one that a check of ours raised.

    A `ValueError` or `TypeError` out of a library, or out of an expression of ours, is a bug and wants its traceback.

    Args:
        error: With its traceback.
        program_folder: Where our own code lies besides the package `sgm_hf`.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, RAISED_BY_CHECKS):
        return False
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    file = Path(frame.f_code.co_filename).resolve()
    of_package = frame.f_globals.get("__name__", "").partition(".")[0] == "sgm_hf"
    statement = linecache.getline(str(file), line).strip()
    return (of_package or file.parent == program_folder.resolve()) and statement.startswith("raise")
