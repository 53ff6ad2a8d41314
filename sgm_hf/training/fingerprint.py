"""What a training rests on, in a few lines: a training is only resumed where these are still the same."""

import hashlib
import json
from collections.abc import Iterable
from itertools import islice, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from sgm_hf.training.streaming import is_stream, start_pass

# Settings that a resumed training follows from its next update on; the summary records the change.
CHANGEABLE = (
    *("learning_rate", "num_train_epochs", "max_steps", "load_best_model_at_end"),
    *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start"),
)
# Settings that decide where, how fast and how visibly a training runs, not what comes out.
FREE_KINDS = ("do_", "log_", "logging_", "hub_", "push_", "save_", "dataloader_", "trackio_", "ddp_")
FREE = (
    *("output_dir", "resume_from_checkpoint", "restore_callback_states_from_checkpoint", "ignore_data_skip"),
    *("disable_tqdm", "report_to", "run_name", "project", "debug", "local_rank", "use_cpu", "skip_memory_metrics"),
    *("include_num_input_tokens_seen", "enable_jit_checkpoint", "pretrain_config"),
    *("per_device_eval_batch_size", "max_tokens_per_eval_batch", "eval_accumulation_steps"),
    "precision",  # what it came to is in bf16 and fp16
)
# Fields of configurations that say nothing about the training; the labels are listed on their own.
DESCRIPTIVE = (
    *("id2label", "label2id", "num_untrained_labels", "transformers_version", "_name_or_path", "architectures"),
    *("auto_map", "dtype", "torch_dtype", "_from_model_config", "_commit_hash"),
)
# Schedules whose rates depend on the number of updates of the whole training.
ENDLESS_SCHEDULES = ("constant", "constant_with_warmup", "inverse_sqrt")
# What checkpoints were trained with that are older than these settings.
BEFORE = {
    **{"label_loss": "cross_entropy", "label_weights": "none", "repeat_factor_threshold": None, "focal_gamma": 0.0},
    "clip_grad_value": None,
}
BEFORE |= {"encoder_learning_rate": None, "layerwise_lr_decay": 1.0}
COLUMNS = ("input_ids", "labels", "length", "index", "token_type_ids", "pixel_values")
BLOCK = 10_000
IMAGE_BLOCK = 100  # of 600 kB each
STREAM_DOCUMENTS = 1_000


def hash_dataset(dataset: Dataset) -> str:
    """A hash of encoded documents in their order, in hexadecimal; it takes two seconds for 400,000."""
    digest = hashlib.blake2b(digest_size=16)
    columns = [name for name in COLUMNS if name in dataset.column_names]
    table = dataset.select_columns(columns).with_format("arrow")
    for block in table.iter(batch_size=IMAGE_BLOCK if "pixel_values" in columns else BLOCK):
        for name in columns:
            values = block[name].combine_chunks()
            values = values.storage if isinstance(values, pa.ExtensionArray) else values
            while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
                digest.update(np.asarray(values.value_lengths(), dtype=np.int64).data)
                values = values.flatten()
            kind = np.float32 if pa.types.is_floating(values.type) else np.int64
            digest.update(np.asarray(values, dtype=kind).data)
    return digest.hexdigest()


def describe_dataset(dataset: Any) -> str:
    """The number of documents and a hash of them; of a stream, which has no end to hash up to, of its first ones."""
    if not is_stream(dataset):
        return f"{len(dataset):,} documents, hash {hash_dataset(dataset)}"
    start_pass(dataset, 0)
    first = Dataset.from_list(list(islice(dataset, STREAM_DOCUMENTS)))
    return f"a stream, hash of its first {len(first):,} documents {hash_dataset(first)}"


def describe_vocabulary(tokenizer: PreTrainedTokenizerBase | None) -> str | None:
    """The number of words of a tokenizer and a hash of the words with their ids."""
    if tokenizer is None or not hasattr(tokenizer, "get_vocab"):  # of images there are no words
        return None
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=16)
    return f"{len(words):,} words, hash {digest.hexdigest()}"


def make_fingerprint(
    model: PreTrainedModel,
    args: TrainingArguments,
    datasets: dict[str, Dataset | None],
    tokenizer: PreTrainedTokenizerBase | None,
    trainer: str,
) -> dict[str, Any]:
    """Everything that a resumed training must have in common with the one that wrote its checkpoint.

    Args:
        model: The model.
        args: The settings.
        datasets: The encoded documents of each split.
        tokenizer: Its words are compared with those of the checkpoint.
        trainer: Name of the trainer's class.

    Returns:
        Plain values, as they come back from a JSON file.
    """
    config = model.config
    generation = model.generation_config.to_dict() if model.can_generate() else {}
    if datasets.get("threshold") is not None:
        generation.pop("label_threshold", None)  # fitted in training
    settings = {name: value for name, value in args.to_dict().items() if not is_free(name)}
    fingerprint = {
        "trainer": trainer,
        "processes": args.world_size,
        "trained parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "labels": [config.id2label[label] for label in range(config.num_labels)],
        "vocabulary": describe_vocabulary(tokenizer),
        "data": {name: describe_dataset(dataset) for name, dataset in datasets.items() if dataset is not None},
        "model": {name: value for name, value in config.to_dict().items() if name not in DESCRIPTIVE},
        "generation": {name: value for name, value in generation.items() if name not in DESCRIPTIVE},
        "settings": settings,
    }
    return json.loads(json.dumps(fingerprint, default=str))


def is_free(setting: str) -> bool:
    """Whether a setting may change on resume because the training's outcome does not depend on it."""
    return setting in FREE or setting.startswith(FREE_KINDS)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Why a training cannot resume from the checkpoint of another, as lines of "name: old → new"."""
    found = []
    for name in ("trainer", "processes", "vocabulary", "trained parameters"):
        if old[name] != new[name] and None not in (old[name], new[name]):
            found.append(f"{name}: {old[name]} → {new[name]}")
    found += label_differences(old["labels"], new["labels"])
    for split in sorted(old["data"].keys() | new["data"].keys()):
        before, after = old["data"].get(split, "none"), new["data"].get(split, "none")
        if before != after:
            found.append(f"{split} data: {before} → {after}")
    for section in ("model", "generation", "settings"):
        before = {**BEFORE, **old[section]} if section == "settings" else old[section]
        # A field that only one of them has is of another version of a library.
        for name in sorted(before.keys() & new[section].keys() - set(CHANGEABLE)):
            if before[name] != new[section][name]:
                found.append(f"{name}: {changed_value(before[name], new[section][name])}")
    return found + schedule_differences(old["settings"], new["settings"])


def changed_value(old: Any, new: Any) -> str:
    """The old and the new value of a setting; of two dictionaries, which may be long, the first entry that differs."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return f"{old!s:.200} → {new!s:.200}"
    moved = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return f"{len(moved)} entries differ, first {moved[0]!r}: {old.get(moved[0])} → {new.get(moved[0])}"


def label_differences(old: Iterable[str], new: Iterable[str]) -> list[str]:
    """The first label that differs, and how many do."""
    pairs = list(zip_longest(old, new))
    moved = [(label, before, after) for label, (before, after) in enumerate(pairs) if before != after]
    if not moved:
        return []
    label, before, after = moved[0]
    return [f"labels: {len(moved)} of {len(pairs)} differ, first label {label}: {before!r} → {after!r}"]


def schedule_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The length of a training, where it has changed and decides the learning rates of all updates."""
    fixed = new["halve_from_epoch"] is not None or new["lr_scheduler_type"] in ENDLESS_SCHEDULES
    if fixed and not 0 < new["warmup_steps"] < 1:
        return []
    changed = (name for name in ("num_train_epochs", "max_steps") if old[name] != new[name])
    return [
        f"{name}: {old[name]} → {new[name]}, on which the learning rates of the updates already made depend"
        for name in changed
    ]


def changed_settings(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list[Any]]:
    """The settings that may change and did, each with its old and new value."""
    before, after = old["settings"], new["settings"]
    return {name: [before[name], after[name]] for name in CHANGEABLE if before.get(name) != after.get(name)}
