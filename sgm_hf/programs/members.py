"""Train several models of other seeds, and make one of them that averages what they say."""

import copy
import logging
from pathlib import Path

from datasets import Dataset
from transformers import set_seed

from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.programs.models import (
    build_model,
    set_generation,
    set_initial_labels,
    set_initial_vectors,
    set_trained_part,
)
from sgm_hf.programs.settings import ModelArguments
from sgm_hf.training import SGMTrainer, SGMTrainingArguments
from sgm_hf.training.checkpoints import has_complete_checkpoint

logger = logging.getLogger(__name__)

# In the output folder, below a folder of each member.
FOLDER = "members"


def train_members(
    trainer: SGMTrainer, model_args: ModelArguments, train: Dataset, encoded: dict[str, Dataset]
) -> dict[str, float]:
    """Train `--num_models` models and give their average to a trainer, calibrated and saved.

    Each model is trained in a folder of its own, `members/1`, `members/2`, …, from which a training that was
    interrupted goes on; those that are finished stay.

    Args:
        trainer: The trainer of the run, whose model has the settings of all.
        model_args: The model settings.
        train: The training documents as loaded.
        encoded: The splits as encoded.

    Returns:
        The training's metrics, of all models together.
    """
    metrics: dict[str, float] = {}
    members: list[SGMForMultiLabelGeneration] = []
    for number in range(1, model_args.num_models + 1):
        args = member_arguments(trainer.args, number)
        logger.info("model %d of %d, in %s", number, model_args.num_models, args.output_dir)
        set_seed(args.seed)
        parents = getattr(trainer.model.generation_config, "label_hierarchy", None)
        model = build_model(train, trainer.processing_class, model_args, parents)
        set_trained_part(model, model_args)
        set_generation(model, model_args)
        set_initial_vectors(model, trainer.processing_class, encoded["train"], model_args.initial_vectors, args.seed)
        set_initial_labels(model, trainer.processing_class, model_args.label_texts)
        member = SGMTrainer(
            model,
            args,
            train_dataset=encoded["train"],
            eval_dataset=encoded.get("validation"),
            threshold_dataset=encoded.get("threshold"),
            processing_class=trainer.processing_class,
        )
        if trainer.lexical_fit is not None and args.should_save:  # of the same documents
            Path(args.output_dir).mkdir(parents=True, exist_ok=True)
            trainer.lexical_fit.save(args.output_dir)
        found = member.train(resume_from_checkpoint=args.resume_from_checkpoint).metrics
        for name, value in found.items():
            metrics[name] = metrics.get(name, 0.0) + value
        members.append(member.model)
        trainer.state, trainer.lexical_fit = member.state, member.lexical_fit
    for name in ("train_loss", "train_documents_per_second", "epoch"):
        if name in metrics:
            metrics[name] /= len(members)
    trainer.model = trainer.model_wrapped = SGMForMultiLabelGeneration.from_members(members)
    if trainer.args.objective is not None:
        trainer.calibrate()
    trainer.save_model()
    return metrics


def member_arguments(arguments: SGMTrainingArguments, number: int) -> SGMTrainingArguments:
    """The settings of the training of one member: its folder and its seed, and no calibration of its own."""
    args = copy.copy(arguments)
    args.output_dir = str(Path(arguments.output_dir, FOLDER, str(number)))
    args.seed = arguments.seed + number - 1
    args.objective, args.push_to_hub = None, False
    is_begun = bool(arguments.resume_from_checkpoint) and has_complete_checkpoint(args.output_dir)
    args.resume_from_checkpoint = True if is_begun else None  # type: ignore[assignment]
    return args
