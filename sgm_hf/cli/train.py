"""Train a model on your files or on a named corpus, evaluate it and predict.

  sgm-hf train --train_file my.csv
  sgm-hf train --train_file my.csv --test_file test.csv --num_train_epochs 20
  sgm-hf train settings.json --seed 3 --output_dir runs/third
  sgm-hf train --model_name_or_path runs/my --train_file more.csv \\
      --do_train true --add_labels true --output_dir runs/more

my.csv has the columns text and labels, with several labels as a|b. A JSON file
gives settings by name; options after it override it.

In the output folder are, after training, the model, its tokenizer, the model
card README.md and the checkpoints; always all_results.json, summary.json and
summary.txt; with --do_predict predictions_<split>.jsonl.
"""

from collections.abc import Sequence

from sgm_hf.programs import exit_on_signals, parse_arguments, run_training, say_what_comes_next


def main(arguments: Sequence[str]) -> dict[str, dict]:
    """Run the command.

    Returns:
        The metrics of each split that was evaluated or predicted.
    """
    parsed = parse_arguments(arguments, description=__doc__)
    output_dir = parsed[2].output_dir
    with exit_on_signals(["sgm-hf", "train", *arguments], output_dir):
        trainer, metrics = run_training(*parsed)
        trainer.accelerator.end_training()
    if parsed[2].do_train and trainer.is_world_process_zero():
        say_what_comes_next(output_dir)
    return metrics
