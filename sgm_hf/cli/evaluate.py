"""Evaluate a trained model on labelled documents: metrics and predictions.

  sgm-hf evaluate runs/my --test_file test.csv
  sgm-hf evaluate runs/aapd --dataset_name aapd --data_dir data/aapd

MODEL is a folder or a model on the Hub. The documents are those of --test_file
or --validation_file, or the validation and test documents of --dataset_name;
with --train_file, the part of it that training takes for validation.
"""

from collections.abc import Sequence

from sgm_hf.programs import OF_TRAINING, exit_on_signals, parse_arguments, run_evaluation, with_model

USAGE = "sgm-hf evaluate MODEL [SETTINGS.json] [--NAME value ...]"


def main(arguments: Sequence[str]) -> dict[str, dict]:
    """Run the command.

    Returns:
        The metrics of each split.
    """
    parsed = parse_arguments(with_model(arguments), usage=USAGE, description=__doc__, not_shown=OF_TRAINING)
    with exit_on_signals(["sgm-hf", "evaluate", *arguments]):
        return run_evaluation(*parsed)
