"""Complete the settings, and refuse those that cannot work before anything is read or written."""

import logging
from importlib.util import find_spec
from pathlib import Path

from sgm_hf.datasets_scripts import CORPORA
from sgm_hf.modeling.label_sets_sgm import FORMER_SET_DECODINGS
from sgm_hf.programs.presets import PRESETS
from sgm_hf.programs.settings import FILE_OPTIONS, WORD_OPTIONS, DataArguments, ModelArguments, is_given
from sgm_hf.training import SGMTrainingArguments
from sgm_hf.training.checkpoints import is_unused

logger = logging.getLogger(__name__)

AT_LEAST_ONE = (
    *("num_beams", "num_models", "max_labels", "max_train_samples", "max_eval_samples", "max_predict_samples"),
    *("vocab_size", "min_frequency", "max_length", "max_train_words", "num_threads", "lora_rank"),
)
# Sizes of the recurrent encoder.
ENCODER_SIZES = ("encoder_hidden_size", "encoder_layers")
# Options of Transformers' Trainer that SGMTrainer does not use.
NOT_OF_OUR_TRAINER = (
    *("train_sampling_strategy", "length_column_name", "remove_unused_columns", "label_names"),
    *("dataloader_drop_last", "dataloader_persistent_workers", "dataloader_multiprocessing_context"),
    *("dataloader_in_order",),
    *("prediction_loss_only", "eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object"),
    *("include_for_metrics", "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval"),
)


def complete_settings(
    model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments
) -> None:
    """Choose what to do, and on which data, where the settings do not say.

    Without any --do_… option, all is done that there is data for; without any data and any checkpoint, the generated
    corpus is taken, which needs no download.

    Raises:
        ValueError: If a checkpoint is given with a training file, but not what to do with them.
    """
    is_checkpoint = model_args.model_name_or_path is not None
    if not (training_args.do_train or training_args.do_eval or training_args.do_predict):
        if is_checkpoint and data_args.train_file is not None:
            raise ValueError(
                "--train_file with --model_name_or_path: give --do_train true to continue the model's training, or "
                "--do_eval true to evaluate the model on a part of that file."
            )
        training_args.do_train = not is_checkpoint
        training_args.do_eval = training_args.do_predict = True
    if not training_args.do_train:
        training_args.eval_strategy = training_args.save_strategy = "no"
        training_args.load_best_model_at_end = False
    given = (data_args.dataset_name, data_args.train_file, data_args.validation_file, data_args.test_file)
    if not any(given) and not is_checkpoint:
        data_args.dataset_name = "generated"


def check_settings(model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments) -> None:
    """Refuse settings that cannot work, and warn of those that have no effect.

    Raises:
        ValueError: If data or model is missing or given twice, or a setting is out of its range.
        FileExistsError: If the output folder is in use.
        FileNotFoundError: If there is no file of word vectors of the name given.
    """
    check_source(data_args)
    if not training_args.do_train and model_args.model_name_or_path is None:
        raise ValueError("there is nothing to evaluate: give --model_name_or_path, or --do_train.")
    if training_args.do_train and data_args.dataset_name is None and data_args.train_file is None:
        raise ValueError("--do_train needs --train_file or --dataset_name.")
    check_encoder(model_args)
    check_evaluation_data(data_args, training_args)
    check_ranges(model_args, data_args)
    check_hierarchy(model_args, data_args)
    if model_args.label_texts is not None and not Path(model_args.label_texts).is_file():
        raise FileNotFoundError(f"--label_texts {model_args.label_texts}: there is no such file; correct its path.")
    if model_args.model_name_or_path is None:
        check_label_threshold(model_args, model_args.set_decoding)
    check_attention_figures(data_args, training_args)
    trains_checkpoint = training_args.do_train and model_args.model_name_or_path is not None
    vectors = model_args.initial_vectors
    if model_args.model_name_or_path is None and vectors not in ("ppmi", "none") and not Path(vectors).is_file():
        raise FileNotFoundError(f"--initial_vectors {vectors}: there is no such file; give one, ppmi or none.")
    for name in ("add_labels", "freeze_encoder"):
        is_of_encoder = name == "freeze_encoder" and model_args.encoder_name_or_path is not None
        if getattr(model_args, name) and not trains_checkpoint and not is_of_encoder:
            raise ValueError(f"--{name} is for continuing a model's training: give --model_name_or_path, --do_train.")
    output_dir, is_resumed = training_args.output_dir, training_args.resume_from_checkpoint
    if training_args.do_train and not is_resumed and not is_unused(Path(output_dir)):
        raise FileExistsError(
            f"the output folder {output_dir} is not empty; choose another --output_dir, or resume the training "
            "in it with --resume_from_checkpoint true."
        )
    if model_args.num_models > 1 and (model_args.model_name_or_path is not None or not training_args.do_train):
        raise ValueError(
            f"--num_models is {model_args.num_models}, but only new models are trained several times; leave out "
            "--num_models, or --model_name_or_path."
        )
    warn_of_idle_options(model_args, data_args, training_args)


def check_source(data_args: DataArguments) -> None:
    """Refuse documents from nowhere, or from two places.

    Raises:
        ValueError: If they are.
    """
    files = (data_args.train_file, data_args.validation_file, data_args.test_file)
    if (data_args.dataset_name is None) == (not any(files)):
        raise ValueError(
            f"give either --dataset_name ({', '.join(CORPORA)}; a data set of the Hub; a folder) or --train_file, "
            "--validation_file, --test_file."
        )


def check_encoder(model_args: ModelArguments) -> None:
    """Refuse a pre-trained encoder where there is none or another one, and settings of what it trains that clash.

    Raises:
        ValueError: If there is something to refuse.
    """
    is_named = model_args.encoder_name_or_path is not None
    if model_args.encoder == "pretrained" and not is_named and model_args.model_name_or_path is None:
        raise ValueError("--encoder pretrained needs --encoder_name_or_path: which one it is.")
    if is_named and model_args.model_name_or_path is not None:
        raise ValueError(
            "--encoder_name_or_path is for a new model, but the model of --model_name_or_path has its encoder; give "
            "one of the two."
        )
    if is_named and model_args.encoder not in (None, "pretrained"):
        raise ValueError(
            f"--encoder_name_or_path is a pre-trained encoder, but --encoder is {model_args.encoder}; leave that out."
        )
    if model_args.lora_rank is not None and model_args.freeze_encoder:
        raise ValueError("--lora_rank trains a part of the encoder, --freeze_encoder none of it; give one of the two.")


def check_images(model_args: ModelArguments, data_args: DataArguments, images: bool) -> None:
    """Refuse what is done with texts only where the model reads images, and warn of options that have no effect.

    Raises:
        ValueError: If there is something to refuse.
    """
    settings = (model_args, data_args)
    if not images:
        if is_given("image_column", *settings):
            logger.warning("--image_column: no effect on a model that reads texts")
        return
    for name in ("lexical_branch", "label_texts", "max_train_words", "attention_figures"):
        if {**vars(model_args), **vars(data_args)}[name]:
            raise ValueError(f"--{name} is for texts, but the model reads images; leave it out.")
    names = ("text_column", "text_separator", "max_length", *WORD_OPTIONS)
    given = [f"--{name}" for name in names if is_given(name, *settings)]
    if given:
        logger.warning("%s: no effect on a model that reads images", ", ".join(given))


def check_evaluation_data(data_args: DataArguments, training_args: SGMTrainingArguments) -> None:
    """Refuse to evaluate a checkpoint on nothing, and warn where it is evaluated on a part of the training file.

    Raises:
        ValueError: If there would be nothing to evaluate.
    """
    if training_args.do_train or data_args.dataset_name is not None or data_args.validation_file is not None:
        return
    if data_args.train_file is None:
        if not training_args.do_predict:
            raise ValueError("--do_eval evaluates the validation documents: give --validation_file, or --do_predict.")
    elif training_args.do_eval or data_args.test_file is None:
        logger.warning(
            "no --validation_file: evaluated is the part of %s that --validation_split_size and --split_seed take; "
            "the model has seen these documents, unless it was trained with the same file and the same two settings",
            data_args.train_file,
        )


def check_ranges(model_args: ModelArguments, data_args: DataArguments) -> None:
    """Refuse numbers that training, saving or generating would refuse later.

    Raises:
        ValueError: If there is one.
    """
    given = {**vars(model_args), **vars(data_args)}
    for name in AT_LEAST_ONE:
        if given[name] is not None and given[name] < 1:
            raise ValueError(f"--{name} is {given[name]}; it must be at least 1, or left out.")
    threshold = model_args.label_threshold
    if threshold is not None and not 0.0 < threshold <= 1.0:
        raise ValueError(f"--label_threshold is {threshold}; it must be above 0 and at most 1.")
    if data_args.validation_split_size <= 0 or data_args.threshold_split_size < 0:
        raise ValueError(
            f"--validation_split_size is {data_args.validation_split_size} and --threshold_split_size "
            f"{data_args.threshold_split_size}; give a part below 1 or a number of documents."
        )


def check_hierarchy(model_args: ModelArguments, data_args: DataArguments) -> None:
    """Refuse to order or complete labels by a hierarchy that is not given.

    Raises:
        ValueError: If there is none.
        FileNotFoundError: If there is no such file.
    """
    file = data_args.label_hierarchy
    asked = ["--add_ancestors true"] if data_args.add_ancestors else []
    if model_args.label_order == "hierarchical" and model_args.model_name_or_path is None:
        asked.append("--label_order hierarchical")
    if asked and file is None:
        raise ValueError(f"{asked[0]} needs the labels' hierarchy: give --label_hierarchy FILE.")
    if file is not None and not Path(file).is_file():
        raise FileNotFoundError(f"--label_hierarchy {file}: there is no such file; correct its path.")


def check_label_threshold(model_args: ModelArguments, set_decoding: str | None) -> None:
    """Refuse a label threshold that no predicted label would depend on.

    Args:
        model_args: The model settings.
        set_decoding: How the label sets will be chosen; None means the default, "best_sequence".

    Raises:
        ValueError: If there is one.
    """
    if model_args.label_threshold is not None and set_decoding not in ("threshold", *FORMER_SET_DECODINGS):
        raise ValueError(
            f"--label_threshold {model_args.label_threshold} has no effect on the labels that --set_decoding "
            f"{set_decoding or 'best_sequence'} chooses; give --set_decoding threshold with it, or leave it out."
        )


def check_attention_figures(data_args: DataArguments, training_args: SGMTrainingArguments) -> None:
    """Refuse to draw what will not be there, before a long training.

    Raises:
        ValueError: If the number is negative, or nothing is predicted.
        ModuleNotFoundError: If matplotlib is not installed.
    """
    if data_args.attention_figures == 0:
        return
    if data_args.attention_figures < 0 or not training_args.do_predict:
        raise ValueError(
            f"--attention_figures is {data_args.attention_figures}: give a number from 0 on together with "
            "--do_predict true, since predicted documents are drawn."
        )
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError("--attention_figures needs matplotlib: pip install 'sgm_hf[figures]'")


def warn_of_idle_options(
    model_args: ModelArguments, data_args: DataArguments, training_args: SGMTrainingArguments
) -> None:
    """Log a warning for options that have no effect, but differ from their defaults and from the preset."""
    preset = PRESETS[model_args.preset or "none"]
    settings = (model_args, data_args, training_args)
    is_corpus, is_named = data_args.dataset_name in CORPORA, data_args.dataset_name is not None
    is_checkpoint, is_encoder = model_args.model_name_or_path is not None, model_args.encoder_name_or_path is not None
    chooses = model_args.set_decoding in ("threshold", *FORMER_SET_DECODINGS)
    feedback, is_fitted = model_args.label_feedback, training_args.do_train and data_args.threshold_split_size > 0
    weighting = training_args.label_weights
    sees_nothing = model_args.attention == "none" and not model_args.label_attention
    has_sentence_ends = model_args.encoder == "hierarchical" and model_args.sentence_end_ids is not None
    of_units, of_sentences = "without --encoder semantic_units", "without --encoder hierarchical"
    groups = (
        (
            is_corpus,
            (*FILE_OPTIONS, "image_column", "dataset_revision"),
            "with a named corpus, which has a format of its own",
        ),
        (is_named and not is_corpus, ("delimiter", "encoding"), "with --dataset_name, which `datasets` reads"),
        (not is_named, ("dataset_config", "dataset_revision", "data_dir"), "without --dataset_name"),
        (data_args.labels_columns is not None, ("labels_column", "label_separator"), "with --labels_columns"),
        (is_checkpoint, (*WORD_OPTIONS, "initial_vectors"), "with --model_name_or_path, whose words stay as they are"),
        (is_checkpoint and not model_args.add_labels, ("label_texts",), "on a checkpoint without --add_labels true"),
        (is_encoder, (*WORD_OPTIONS, "initial_vectors"), "with --encoder_name_or_path, which has its own words"),
        (is_encoder, ENCODER_SIZES, "with --encoder_name_or_path, which has its own sizes"),
        (model_args.lora_rank is None, ("lora_alpha", "lora_dropout"), "without --lora_rank"),
        (model_args.attention == "none", ("attention_size",), "with --attention none"),
        (sees_nothing, ("context_input",), "with --attention none, where there is no context"),
        (model_args.encoder != "semantic_units", ("unit_kernel_size", "unit_dilations"), of_units),
        (model_args.encoder != "hierarchical", ("sentence_length", "sentence_end_ids"), of_sentences),
        (has_sentence_ends, ("sentence_length",), "with --sentence_end_ids"),
        (feedback != "fixed_mixture", ("mixture_lambda",), "without --label_feedback fixed_mixture"),
        (feedback != "global_embedding", ("gate_activation",), "without --label_feedback global_embedding"),
        (not is_checkpoint and not chooses, ("threshold_split_size",), "on labels without --set_decoding threshold"),
        (is_fitted, ("label_threshold",), "with --threshold_split_size, on which the threshold is fitted"),
        (not training_args.do_train, ("resume_from_checkpoint",), "without --do_train true"),
        (not training_args.push_to_hub, ("hub_model_id", "hub_private_repo"), "without --push_to_hub true"),
        (weighting != "effective_number", ("effective_number_beta",), "without --label_weights effective_number"),
        (training_args.halve_from_epoch is not None, ("lr_scheduler_type",), "with --halve_from_epoch"),
        (True, NOT_OF_OUR_TRAINER, "here: SGMTrainer makes its batches and evaluates in its own way"),
    )
    for is_idle, names, reason in groups:
        given = [f"--{name}" for name in names if is_idle and is_given(name, *settings, preset=preset)]
        if given:
            logger.warning("%s: no effect %s", ", ".join(given), reason)
