"""Fine-tune a trained model on label sequences that it samples (Seq2Set).

  sgm-hf finetune runs/my --train_file my.csv
  sgm-hf finetune runs/aapd --dataset_name aapd --data_dir data/aapd \\
      --method order_free --output_dir runs/aapd_order_free

So the order of the labels no longer matters: --method self_critical is the
reinforcement learning of Yang et al. 2019, --method order_free a supervised
loss. The metrics before and after are printed and are in all_results.json. Use
the data and the splits that the model was trained with.

MODEL is a folder or a model on the Hub. Without one, --pretrain_config, a JSON
file of settings of sgm-hf train, first trains one by likelihood in a folder
next to the output folder; started again, the command resumes that training.
"""

from collections.abc import Sequence

from sgm_hf.programs import Seq2SetArguments, exit_on_signals, parse_arguments, run_finetuning, with_model

USAGE = "sgm-hf finetune [MODEL] [SETTINGS.json] [--NAME value ...]"


def main(arguments: Sequence[str]) -> dict[str, dict]:
    """Run the command.

    Returns:
        The metrics of each split after fine-tuning.
    """
    parsed = parse_arguments(with_model(arguments), Seq2SetArguments, USAGE, __doc__)
    with exit_on_signals(["sgm-hf", "finetune", *arguments], parsed[2].output_dir):
        return run_finetuning(*parsed)
