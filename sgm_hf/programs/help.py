"""What --help of the programs that train says: options in groups, each with what holds where it is not given."""

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Literal, get_args, get_origin

from sgm_hf.programs.checks import NOT_OF_OUR_TRAINER
from sgm_hf.programs.settings import (
    WORD_OPTIONS,
    DataArguments,
    GenerationOptions,
    ModelArguments,
)
from sgm_hf.training import SGMTrainingArguments

FURTHER = "Further options of Transformers' Trainer"
# In the order in which they are shown. An option that is named nowhere here comes last in the group of its class.
GROUPS: dict[str, tuple[str, ...]] = {
    "Data": (
        *("train_file", "validation_file", "test_file", "text_column", "labels_column", "label_separator"),
        *("labels_columns", "multi_hot_names", "id_column", "delimiter", "encoding", "text_separator"),
        "image_column",
        *("label_hierarchy", "add_ancestors"),
    ),
    "Splits": (
        *("validation_split_size", "threshold_split_size", "split_seed", "split_method"),
        *("max_train_samples", "max_eval_samples", "max_predict_samples", "max_train_words"),
    ),
    "Words": (*WORD_OPTIONS, "max_length", "initial_vectors"),
    "Model": ("preset", "num_models"),
    "Continuing a model": ("model_name_or_path", "add_labels", "label_texts", "freeze_encoder"),
    "Generation": (),
    "Fine-tuning": (),
    "Training": (
        "grid",
        *("num_train_epochs", "learning_rate", "per_device_train_batch_size", "max_tokens_per_batch", "precision"),
        *("seed", "lr_scheduler_type", "halve_from_epoch", "warmup_steps", "max_steps", "weight_decay"),
        *("max_grad_norm", "clip_grad_value", "label_smoothing_factor", "label_loss", "gradient_accumulation_steps"),
    ),
    "Rare labels": ("label_weights", "effective_number_beta", "repeat_factor_threshold", "focal_gamma"),
    "Evaluation": (
        *("eval_strategy", "eval_steps", "metric_for_best_model", "greater_is_better", "early_stopping_patience"),
        *("generation_num_beams", "per_device_eval_batch_size", "max_tokens_per_eval_batch"),
    ),
    "Checkpoints": (
        *("resume_from_checkpoint", "save_strategy", "save_steps", "save_total_limit", "load_best_model_at_end"),
    ),
    "Hub": ("push_to_hub", "hub_model_id", "hub_private_repo", "hub_token", "hub_strategy"),
    "The run": (
        *("output_dir", "do_train", "do_eval", "do_predict", "attention_figures", "num_threads", "use_cpu"),
        *("logging_steps", "disable_tqdm", "report_to"),
    ),
    FURTHER: ("bf16", "ddp_broadcast_buffers", "logging_first_step", "restore_callback_states_from_checkpoint"),
}
# Said of options that are described otherwise where they are declared: for another reader, or without the default.
TEXTS = {
    "output_dir": "Folder of the results. Default: runs/NAME, where NAME is the training file's or the corpus'.",
    "do_train": "Train. Default, where none of the three is given: all three, as far as there is data.",
    "do_eval": "Evaluate the validation documents. Default: as --do_train.",
    "do_predict": "Predict the test documents, else the validation documents. Default: as --do_train.",
    "label_order": "Order of a document's labels in training. Default: frequency, the most frequent first; with "
    "--label_hierarchy hierarchical, ancestors first.",
    "seed": "Seed of the initial weights, the order of the batches and dropout.",
    "num_train_epochs": "Passes over the training documents; 0: as many as suit their number, as with --preset.",
    "max_steps": "Stop after this many updates. Default: after --num_train_epochs.",
    "gradient_accumulation_steps": "Batches whose gradients are added up for one update.",
    "weight_decay": "Weight decay of AdamW.",
    "warmup_steps": "Updates (below 1: a part of all) in which the learning rate rises from 0.",
    "label_smoothing_factor": "Share of a target's probability that the loss spreads over the labels still allowed.",
    "eval_steps": "Updates between two evaluations, with --eval_strategy steps. Default: as --logging_steps.",
    "save_steps": "Updates between two checkpoints, with --save_strategy steps.",
    "use_cpu": "Do not use a GPU. Default: false, and true where there is none.",
    "push_to_hub": "Send model, card and results to the Hub.",
    "hub_model_id": "Repository on the Hub. Default: your user name and the name of --output_dir.",
    "hub_private_repo": "Make a private repository. Default: what your organisation does, else public.",
    "hub_token": "Token of the Hub. Default: that of hf auth login.",
}
# Groups that do not matter where nothing is trained.
OF_TRAINING = ("Words", "Model", "Continuing a model", "Training", "Rare labels", "Checkpoints", "Hub")
# Of Transformers' Trainer, but without effect here or a former name.
NOT_SHOWN = {*NOT_OF_OUR_TRAINER, "logging_nan_inf_filter", "use_cache", "local_rank"}
NOT_SHOWN |= {"gradient_checkpointing", "gradient_checkpointing_kwargs"}


def group_of(name: str, settings_class: type) -> str:
    """The title under which an option is shown."""
    if settings_class is DataArguments:
        default = "Data"
    elif settings_class is ModelArguments:
        default = "Generation" if name in GenerationOptions.__dataclass_fields__ else "Model"
    elif name not in SGMTrainingArguments.__dataclass_fields__:
        default = "Fine-tuning"
    else:
        default = "Training" if name in SGMTrainingArguments.__annotations__ else FURTHER
    return next((title for title, names in GROUPS.items() if name in names), default)


def value_name(option: Field) -> str:
    """What stands for the value of an option."""
    if "choices" in option.metadata:
        return "|".join(map(str, option.metadata["choices"]))
    kinds = get_args(option.type) or (option.type,)
    for kind in kinds:
        if get_origin(kind) is Literal:
            return "|".join(map(str, get_args(kind)))
    if bool in kinds:
        return "true|false"
    if option.name.endswith("_file") or option.name in ("label_hierarchy", "label_texts"):
        return "FILE"
    if option.name.endswith("_dir"):
        return "FOLDER"
    if list[int] in kinds:
        return "NUMBER ..."
    return "NUMBER" if int in kinds or float in kinds else "VALUE"


def option_text(option: Field, texts: Mapping[str, str] = TEXTS) -> str:
    """What an option does, and what holds where it is not given; in the spelling of argparse, which doubles %."""
    text = texts.get(option.name) or " ".join(option.metadata.get("help", "").split())
    default = option.default if option.default_factory is MISSING else option.default_factory()
    if default in (None, "", []) or "default" in text.lower():
        return text
    if isinstance(default, bool | float):
        default = str(default).lower() if isinstance(default, bool) else f"{default:g}"
    return f"{text.removesuffix('.')}. Default: {default}."


def grouped(classes: Sequence[type], left_out: Collection[str]) -> Iterator[tuple[str, list[Field]]]:
    """The options that are shown, by the title of their group, without the groups that are left out."""
    groups: dict[str, list[Field]] = {title: [] for title in GROUPS}
    for settings_class in classes:
        for option in fields(settings_class):
            if option.name not in NOT_SHOWN:
                groups[group_of(option.name, settings_class)].append(option)
    for title, names in GROUPS.items():
        # In the order of the table, where the table names them.
        groups[title].sort(key=lambda option: names.index(option.name) if option.name in names else len(names))
    return ((title, options) for title, options in groups.items() if options and title not in left_out)


def help_text(
    usage: str,
    description: str | None,
    classes: Sequence[type],
    left_out: Collection[str] = (),
    texts: Mapping[str, str] = TEXTS,
) -> str:
    """What --help says.

    Args:
        usage: How the command is called.
        description: What is said first.
        classes: Those of the settings.
        left_out: Titles of groups that are not shown.
        texts: Said of options that are described otherwise where they are declared.
    """
    parser = argparse.ArgumentParser(
        usage=usage,
        description=description,
        epilog="--help_all shows all options, those of Transformers' Trainer among them."
        if FURTHER in left_out
        else None,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30),
        add_help=False,
    )
    for title, options in grouped(classes, left_out):
        group = parser.add_argument_group(title)
        for option in options:
            group.add_argument(f"--{option.name}", metavar=value_name(option), help=option_text(option, texts))
    return parser.format_help()
