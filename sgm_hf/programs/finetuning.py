"""Fine-tune a trained model on label sequences that it samples: what `sgm-hf finetune` does."""

import logging
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from sgm_hf.modeling import SGMConfig
from sgm_hf.programs.checks import check_label_threshold, check_settings
from sgm_hf.programs.models import check_contradictions
from sgm_hf.programs.options import parse_arguments
from sgm_hf.programs.results import publish, report, say_what_comes_next, score_splits
from sgm_hf.programs.settings import (
    WORD_OPTIONS,
    DataArguments,
    ModelArguments,
    is_given,
    model_settings,
)
from sgm_hf.programs.training import build_trainer, one_run_in, prepare, run_training, train
from sgm_hf.training import OrderFreeTrainer, SamplingArguments, SelfCriticalTrainer
from sgm_hf.training.checkpoints import has_complete_checkpoint

logger = logging.getLogger(__name__)

TRAINERS = {"self_critical": SelfCriticalTrainer, "order_free": OrderFreeTrainer}
# Both trainings see the same documents, but these settings of data are the likelihood training's own.
OWN = {*WORD_OPTIONS, "max_length", "threshold_split_size", "attention_figures"}
DOCUMENTS = tuple(f.name for f in fields(DataArguments) if f.name not in OWN)
OF_THE_REWARD = ("reward", "baseline", "entropy_weight")
SHOWN = (
    *("best_sequence_micro_f1", "best_sequence_micro_precision", "best_sequence_micro_recall"),
    *("best_sequence_hamming_loss", "best_sequence_zero_one_loss", "threshold_micro_f1"),
)


@dataclass
class Seq2SetArguments(SamplingArguments):
    """The settings of training on samples.

    Args:
        method: "self_critical" or "order_free".
        pretrain_config: Settings of `sgm-hf train` for the training by likelihood that comes first; None if the
            checkpoint is given.
    """

    method: str = field(default="self_critical", metadata={"help": "The loss.", "choices": list(TRAINERS)})
    pretrain_config: str | None = field(
        default=None,
        metadata={"help": "JSON file of settings of sgm-hf train, to train a model by likelihood first. No default."},
    )


def comparison(before: dict[str, dict], after: dict[str, dict]) -> str:
    """A table of the metrics of each split before and after fine-tuning."""
    lines = [f"{'':<40}{'before':>10}{'after':>10}"]
    for split in after:
        for name in SHOWN:
            title = f"{split} {name}"
            lines.append(f"{title:<40}{before[split][name]:>10.4f}{after[split][name]:>10.4f}")
    return "\n".join(lines)


def pretrain(folder: Path, asked: ModelArguments, data_args: DataArguments, training_args: Seq2SetArguments) -> None:
    """Train the checkpoint to start from by likelihood, unless it is finished; resume an interrupted training.

    Args:
        folder: Where the checkpoint is written.
        asked: The model settings of fine-tuning, which must not contradict those of the checkpoint.
        data_args: The data settings, for the documents.
        training_args: Its `pretrain_config` names the other settings; both trainings have its precision.
    """
    if (folder / "summary.json").exists():
        return
    options = ["--output_dir", str(folder), "--do_train", "true", "--precision", training_args.precision]
    if has_complete_checkpoint(folder):
        options += ["--resume_from_checkpoint", "true"]
    model_args, own_data_args, likelihood_args = parse_arguments([str(training_args.pretrain_config), *options])
    config = SGMConfig(**model_settings(model_args))
    check_contradictions(asked, config, f"--pretrain_config {training_args.pretrain_config}")
    check_label_threshold(asked, asked.set_decoding or model_args.set_decoding)
    documents = {name: getattr(data_args, name) for name in DOCUMENTS}
    run_training(model_args, replace(own_data_args, **documents), likelihood_args)


def run_finetuning(
    model_args: ModelArguments, data_args: DataArguments, training_args: Seq2SetArguments
) -> dict[str, dict]:
    """Train by likelihood if there is a `pretrain_config`, then on samples.

    Returns:
        The metrics of each split after fine-tuning.

    Raises:
        ValueError: If there is not exactly one checkpoint to start from, or its labels are not those of the data.
    """
    parsed = (model_args, data_args, training_args)
    if (model_args.model_name_or_path is None) == (training_args.pretrain_config is None):
        raise ValueError(
            "give --model_name_or_path, a model that sgm-hf train has made on these data, or --pretrain_config, the "
            "settings of sgm-hf train to train one with; not both."
        )
    training_args.do_train = True
    if not (training_args.do_eval or training_args.do_predict):
        training_args.do_eval = training_args.do_predict = True
    if training_args.pretrain_config is not None:
        checkpoint = Path(f"{Path(training_args.output_dir)}_likelihood")
        model_args.model_name_or_path = str(checkpoint)
        check_settings(*parsed)  # before a long training, not after it
        pretrain(checkpoint, model_args, data_args, training_args)
    prepare(*parsed)
    if training_args.method == "order_free":
        given = [f"--{name}" for name in OF_THE_REWARD if is_given(name, training_args)]
        if given:
            logger.warning("%s: no effect with --method order_free, which has no reward", ", ".join(given))
    with one_run_in(training_args):
        trainer, splits, encoded = build_trainer(parsed, TRAINERS[training_args.method])
        before = score_splits(trainer, splits, encoded, write=False)
        train_metrics = train(trainer)
        after = score_splits(trainer, splits, encoded, write=True)
        report(parsed, trainer, splits, encoded, train_metrics, after, before)
        if trainer.is_world_process_zero():
            print(comparison(before, after))
            say_what_comes_next(str(training_args.output_dir))
        publish(trainer, data_args)
        trainer.accelerator.wait_for_everyone()
        trainer.accelerator.end_training()
    return after
