"""What the command-line programs are made of: settings, documents, model, results, and how a program ends."""

from sgm_hf.programs.ending import run_main

__all__ = ["run_main"]
