"""Fine-tune a trained model on label sequences that it samples (Seq2Set), so that the labels' order no longer matters.

    sgm-hf finetune runs/my --train_file my.csv
    sgm-hf finetune runs/mle examples/configs/reuters21578_seq2set.json --data_dir DIR --output_dir runs/seq2set

Without a model, `--pretrain_config examples/configs/reuters21578_sgm_ge.json` first trains one by likelihood in a
folder next to the output folder; started again, the command resumes that training.

`--method self_critical` is the reinforcement learning of Yang et al. 2019, `--method order_free` a supervised loss.
The metrics before and after are printed and written to all_results.json. All settings of `sgm-hf train` work, but
those of a new model must be those of this one. Use the data and the splits that the model was trained with.
"""

from collections.abc import Sequence

from sgm_hf.programs import Seq2SetArguments, exit_on_signals, parse_arguments, run_finetuning


def main(arguments: Sequence[str]) -> dict[str, dict]:
    """Run the command.

    Returns:
        The metrics of each split after fine-tuning.
    """
    parsed = parse_arguments(arguments, Seq2SetArguments, __doc__)
    with exit_on_signals(["sgm-hf", "finetune", *arguments], parsed[2].output_dir):
        return run_finetuning(*parsed)
