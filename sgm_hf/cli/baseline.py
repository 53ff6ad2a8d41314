"""Tune a baseline to compare with on your files or a named corpus.

  sgm-hf baseline br_svm --train_file my.csv --test_file test.csv
  sgm-hf baseline cc --dataset_name aapd --data_dir data/aapd --seed 3
  sgm-hf baseline lp --train_file my.csv --grid '{"cost": [0.1, 1]}'

NAME is one of
{names}

Settings are tried on the validation documents, or on those of
--threshold_split_size, and the best is kept; tuning.json has all that were
tried, so the same command goes on after a kill. Documents, splits and files of
results are those of sgm-hf train. A JSON file after NAME gives options by name;
options after it override it.
"""

import textwrap
from collections.abc import Sequence

from sgm_hf.baselines import BASELINES
from sgm_hf.programs import exit_on_signals, parse_baseline_arguments, run_baseline

USAGE = "sgm-hf baseline NAME [SETTINGS.json] [--OPTION value ...]"


def main(arguments: Sequence[str]) -> dict[str, dict]:
    """Run the command.

    Returns:
        The metrics of each split that was evaluated or predicted.
    """
    names = textwrap.fill(", ".join(BASELINES), 76, initial_indent="  ", subsequent_indent="  ")
    parsed = parse_baseline_arguments(arguments, USAGE, (__doc__ or "").replace("{names}", names))
    with exit_on_signals(["sgm-hf", "baseline", *arguments]):
        return run_baseline(*parsed)
