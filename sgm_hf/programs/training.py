"""Train, evaluate and predict as the settings say: what `sgm-hf train` does."""

import logging
import sys
from contextlib import AbstractContextManager, nullcontext

from datasets import Dataset, disable_progress_bars
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from sgm_hf.programs.checks import check_images, check_settings, complete_settings
from sgm_hf.programs.ending import log_to_stderr
from sgm_hf.programs.members import train_members
from sgm_hf.programs.models import (
    build_model,
    build_tokenizer,
    check_contradictions,
    load_checkpoint,
    load_image_processor,
    match_labels,
    parents_of,
    reads_images,
    set_generation,
    set_initial_labels,
    set_initial_vectors,
    set_trained_part,
    warn_of_targets,
)
from sgm_hf.programs.presets import suitable_epochs
from sgm_hf.programs.results import Arguments, publish, report, score_splits
from sgm_hf.programs.settings import DataArguments, ModelArguments
from sgm_hf.programs.splits import arrange_splits, encode_splits, load_splits
from sgm_hf.training import SGMTrainer, SGMTrainingArguments
from sgm_hf.training.checkpoints import alone_in, find_checkpoint
from sgm_hf.training.machine import prepare_cpu

logger = logging.getLogger(__name__)


def prepare(model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments) -> None:
    """Set up logging, complete and check the settings, and make the process ready to train."""
    log_to_stderr()
    transformers_logging.set_verbosity_warning()
    transformers_logging.disable_progress_bar()
    if not sys.stderr.isatty():
        disable_progress_bars()  # of datasets; the trainer and the reader write lines instead
    complete_settings(model_args, data_args, training_args)
    check_settings(model_args, data_args, training_args)
    if training_args.do_train and model_args.num_models == 1:  # several models look for their own
        training_args.resume_from_checkpoint = find_checkpoint(
            training_args.resume_from_checkpoint, training_args.output_dir
        )
    prepare_cpu(data_args.num_threads)
    set_seed(training_args.seed)


def one_run_in(training_args: SGMTrainingArguments) -> AbstractContextManager[None]:
    """Keep other processes out of the output folder, on behalf of all processes of this run."""
    return alone_in(training_args.output_dir) if training_args.should_save else nullcontext()


def build_trainer(
    arguments: Arguments, trainer_class: type[SGMTrainer] = SGMTrainer
) -> tuple[SGMTrainer, dict[str, Dataset], dict[str, Dataset]]:
    """Load the data, load or make the model, and make a trainer of them.

    Returns:
        The trainer, the splits as loaded, and the splits as encoded.
    """
    model_args, data_args, training_args = arguments
    checkpoint, encoder = model_args.model_name_or_path, model_args.encoder_name_or_path
    model = tokenizer = names = None
    if checkpoint is not None:
        model, tokenizer = load_checkpoint(checkpoint)
    images = reads_images(encoder) if model is None else model.encoder.main_input_name == "pixel_values"
    check_images(model_args, data_args, images)
    if checkpoint is not None:
        assert model is not None  # which has just been loaded
        check_contradictions(model_args, model.config, checkpoint)
        if training_args.do_train:
            match_labels(model, tokenizer, data_args, model_args)
        names = list(model.config.id2label.values())
    elif images:
        tokenizer = load_image_processor(str(encoder))
    logger.info("reading the documents")
    splits = arrange_splits(load_splits(data_args, names, images), data_args)
    if training_args.num_train_epochs == 0 and "train" in splits:
        training_args.num_train_epochs = suitable_epochs(len(splits["train"]), model_args.preset)
    if model is None:
        if tokenizer is None:
            tokenizer = build_tokenizer(splits["train"], data_args, encoder)
        parents = parents_of(data_args, splits["train"].features["labels"].feature.names)
        model = build_model(splits["train"], tokenizer, model_args, parents)
    else:
        parents = parents_of(data_args, list(model.config.label2id))
        if parents is not None:
            model.generation_config.label_hierarchy = parents
    if parents is not None and training_args.do_train:
        warn_of_targets(splits["train"], model.config, parents)
    set_trained_part(model, model_args)
    if data_args.attention_figures and not model.attends_to_words:
        raise ValueError(
            "--attention_figures needs a model with attention over the words, but --encoder is "
            f"{model.config.encoder} and --attention is {model.config.attention}."
        )
    set_generation(model, model_args)
    label_names = [model.config.id2label[label] for label in range(model.config.num_labels)]
    encoded = encode_splits(splits, tokenizer, label_names, data_args, training_args.do_train)
    # A checkpoint has vectors; several models are made anew, each with its own.
    if checkpoint is None and training_args.resume_from_checkpoint is None and model_args.num_models == 1:
        set_initial_vectors(model, tokenizer, encoded["train"], model_args.initial_vectors, training_args.seed)
        set_initial_labels(model, tokenizer, model_args.label_texts)
    trainer = trainer_class(
        model,
        training_args,
        train_dataset=encoded.get("train"),
        eval_dataset=encoded.get("validation"),
        threshold_dataset=encoded.get("threshold"),
        processing_class=tokenizer,
    )
    return trainer, splits, encoded


def train(trainer: SGMTrainer) -> dict[str, float]:
    """Train, save model and tokenizer, and return the training's metrics."""
    metrics = dict(trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint).metrics)
    trainer.save_model()
    return metrics


def run_training(
    model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments
) -> tuple[SGMTrainer, dict[str, dict]]:
    """Train, evaluate and predict as the settings say.

    Returns:
        The trainer, and the metrics of each split that was evaluated or predicted.
    """
    parsed = (model_args, data_args, training_args)
    prepare(*parsed)
    with one_run_in(training_args):
        trainer, splits, encoded = build_trainer(parsed)
        logger.info("documents: %s", ", ".join(f"{split} {len(dataset):,}" for split, dataset in encoded.items()))
        train_metrics: dict[str, float] = {}
        if training_args.do_train and model_args.num_models > 1:
            train_metrics = train_members(trainer, model_args, splits["train"], encoded)
        elif training_args.do_train:
            train_metrics = train(trainer)
        metrics = score_splits(trainer, splits, encoded, write=True)
        report(parsed, trainer, splits, encoded, train_metrics, metrics)
        publish(trainer, data_args)
        trainer.accelerator.wait_for_everyone()
    return trainer, metrics


def run_evaluation(
    model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments
) -> dict[str, dict]:
    """Evaluate a model on all the labelled documents that there are, unless the settings say on which.

    Returns:
        The metrics of each split.

    Raises:
        ValueError: If there is no model, the settings ask for training, or documents have no labels.
    """
    if model_args.model_name_or_path is None:
        raise ValueError("there is no model to evaluate; name it first: sgm-hf evaluate MODEL --test_file test.csv")
    if training_args.do_train:
        raise ValueError("--do_train true: evaluating trains nothing; sgm-hf train does.")
    if not (training_args.do_eval or training_args.do_predict):
        training_args.do_eval = training_args.do_predict = True
    parsed = (model_args, data_args, training_args)
    prepare(*parsed)
    with one_run_in(training_args):
        trainer, splits, encoded = build_trainer(parsed)
        unlabelled = [split for split, dataset in splits.items() if "labels" not in dataset.column_names]
        if unlabelled:
            raise ValueError(
                f"the {unlabelled[0]} documents have no labels to compare with; label them with sgm-hf predict "
                f"{model_args.model_name_or_path} FILE, or name their column with --labels_column."
            )
        metrics = score_splits(trainer, splits, encoded, write=True)
        report(parsed, trainer, splits, encoded, {}, metrics)
        publish(trainer, data_args)
        trainer.accelerator.wait_for_everyone()
        trainer.accelerator.end_training()
    return metrics
