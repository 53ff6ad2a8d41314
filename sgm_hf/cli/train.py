"""Train a model on your files or on a named corpus, evaluate it and predict with it.

    sgm-hf train --train_file my.csv
    sgm-hf train examples/configs/aapd_sgm_ge.json --data_dir data/aapd --output_dir runs/aapd --seed 3
    sgm-hf train --model_name_or_path runs/my --train_file more.csv --do_train true --add_labels true

A JSON file gives settings by name; options after it override it. Without --do_train, --do_eval and --do_predict, all
three are done as far as there is data (training only without --model_name_or_path).

In the output folder: after training the model and tokenizer, the model card README.md and the checkpoints; always
all_results.json, summary.json and summary.txt; with --do_predict predictions_<split>.jsonl, and with
--attention_figures a folder attention_<split>. --push_to_hub sends all but the checkpoints to the Hub, --hub_model_id
names the repository.
"""

from collections.abc import Sequence

from sgm_hf.programs import exit_on_signals, parse_arguments, run_training


def main(arguments: Sequence[str]) -> dict[str, dict]:
    """Run the command.

    Returns:
        The metrics of each split that was evaluated or predicted.
    """
    parsed = parse_arguments(arguments, description=__doc__)
    with exit_on_signals(["sgm-hf", "train", *arguments], parsed[2].output_dir):
        trainer, metrics = run_training(*parsed)
        trainer.accelerator.end_training()
    return metrics
