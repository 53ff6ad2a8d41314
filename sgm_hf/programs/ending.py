"""What the command-line programs say while they run, and how they end."""

import linecache
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

# What our own checks raise about settings, files and the machine; and FloatingPointError of a training that diverges.
RAISED_BY_CHECKS = (ValueError, TypeError, ImportError, FloatingPointError, RuntimeError)


def log_to_stderr() -> None:
    """Write what is done, with the time, to the error output."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S", level="INFO")
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own


def run_main(main: Callable[[], object], name: str | None = None) -> None:
    """Run a program's `main`; an error in settings, files or the machine ends the process with one line on stderr.

    The exit code is then 2, and 130 after Ctrl-C. Other errors keep their traceback; with the variable
    `SGM_HF_TRACEBACK` in the environment, all do.

    Args:
        main: The program.
        name: What the line begins with; default the name of the process' file.
    """
    program = Path(sys.argv[0])
    name = name or program.stem
    format_before, warnings.formatwarning = warnings.formatwarning, warning_line
    try:
        main()
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # of `… | head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes at its end
        sys.exit(1)
    except Exception as error:
        if os.environ.get("SGM_HF_TRACEBACK") or not is_users_error(error, program.parent):
            raise
        print(f"{name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        warnings.formatwarning = format_before


def warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning without the place in the code from which it comes."""
    return f"warning: {message}\n"


def is_users_error(error: Exception, program_folder: Path) -> bool:
    """Whether an error is about the program's input: an `OSError`, or raised by a check of ours.

    A `ValueError` or `TypeError` of a library, or of an expression of ours, is a bug and keeps its traceback.

    Args:
        error: The error, with its traceback.
        program_folder: The folder of our own code outside the package `sgm_hf`.
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
