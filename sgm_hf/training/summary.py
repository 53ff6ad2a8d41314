"""What a run did, for a person and for a program."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, TrainerState

from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.tables import span
from sgm_hf.training.checkpoints import write_text_atomically

PACKAGES = ("sgm_hf", "torch", "transformers", "datasets", "tokenizers", "accelerate")
GENERATION_FIELDS = ("num_beams", "set_decoding", "label_threshold", "max_labels")
# What only some models have: those with a hierarchy, that are calibrated, or have a lexical branch.
FITTED_FIELDS = (
    "label_hierarchy",
    "objective",
    "lexical_weight",
    "hypothesis_temperature",
    "label_calibration",
    "lexical_bias",
    "lexical_share",
)
# Fields that say nothing of a model with a pre-trained encoder.
OF_RECURRENT_ENCODER = ("embedding_size", "encoder_hidden_size", "encoder_layers", "word_dropout")
TRAINING_FIELDS = (
    "seed",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "encoder_learning_rate",
    "layerwise_lr_decay",
    "lr_scheduler_type",
    "halve_from_epoch",
    "warmup_steps",
    "weight_decay",
    "label_smoothing_factor",
    "label_loss",
    "label_weights",
    "effective_number_beta",
    "repeat_factor_threshold",
    "focal_gamma",
    "max_grad_norm",
    "clip_grad_value",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_tokens_per_batch",
    "bf16",
    "early_stopping_patience",
    # Of trainings on samples.
    "method",
    "num_samples",
    "temperature",
    "dropout_in_sampling",
    "likelihood_weight",
    "reward",
    "baseline",
    "entropy_weight",
)


def describe_model(model: PreTrainedModel) -> dict[str, Any]:
    """The number of labels, the fields of a model's configuration that are its own, and its number of parameters."""
    config = model.config
    fields = {name: getattr(config, name) for name in type(config).__annotations__ if hasattr(config, name)}
    if config.encoder_config is not None:
        fields = {name: value for name, value in fields.items() if name not in OF_RECURRENT_ENCODER}
        fields["encoder_config"] = describe_encoder(config.encoder_config)
    return {"labels": config.num_labels, **fields, "parameters": model.num_parameters()}


def describe_encoder(config: PreTrainedConfig) -> str:
    """Kind and size of a pre-trained encoder, and where it is from."""
    layers = getattr(config, "num_hidden_layers", None)
    size = f"{layers} layers of size {config.hidden_size}" if layers else f"states of size {config.hidden_size}"
    return f"{config.model_type}, {size}" + (f", from {config.name_or_path}" if config.name_or_path else "")


def describe_generation(model: PreTrainedModel) -> dict[str, Any]:
    """The generation settings that decide a model's label sets."""
    settings = {name: getattr(model.generation_config, name, None) for name in (*FITTED_FIELDS, *GENERATION_FIELDS)}
    curve = settings["label_calibration"]
    if curve and isinstance(curve[0], list | tuple):
        settings["label_calibration"] = f"curve of {len(curve)} points"
    if settings["label_hierarchy"]:
        settings["label_hierarchy"] = f"{len(settings['label_hierarchy'])} labels below another"
    if settings["lexical_bias"]:
        settings["lexical_bias"] = "of other label frequencies than in training"
    return {name: value for name, value in settings.items() if name in GENERATION_FIELDS or value is not None}


def describe_training(
    state: TrainerState, metrics: dict[str, float], resumptions: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Time, speed, length and best epoch of a training.

    Args:
        state: The trainer's state after it.
        metrics: What `SGMTrainer.train` measured, of a resumed training in this call only; empty if there was none.
        resumptions: From which updates on it was resumed, and with which settings changed.
    """
    if not metrics:
        return {}
    return {
        "seconds": metrics["train_runtime"],
        "evaluation_seconds": metrics["train_evaluation_seconds"],
        "documents_per_second": metrics["train_documents_per_second"],
        "updates": state.global_step,
        "epochs": state.epoch,
        "best_epoch": best_epoch(state),
        "best_metric": state.best_metric,
        "loss": metrics["train_loss"],
        **({"resumed": list(resumptions)} if resumptions else {}),
    }


def describe_machine() -> dict[str, Any]:
    """The processor, its logical cores, PyTorch's threads, the accelerator and the operating system."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def cpu_model() -> str:
    """The processor's name."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def package_versions() -> dict[str, str]:
    """The versions of this package and of those it rests on."""
    return {package: version(package) for package in PACKAGES}


def best_epoch(state: TrainerState) -> float | None:
    """The epoch of the best evaluation of a training, None where there was none."""
    history = epoch_history(state.log_history)
    return next((record["epoch"] for record in history if record["step"] == state.best_global_step), None)


def epoch_history(log_history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The evaluations of a training, each with the mean training loss of the updates since the one before.

    Args:
        log_history: `trainer.state.log_history`.

    Returns:
        For each evaluation: `epoch`, `step`, `loss` (None where none was logged) and its metrics.
    """
    history, logged, total, updates = [], 0, 0.0, 0
    for record in log_history:
        if "loss" in record:
            # A logged loss is the mean of the updates since the last log: of one after the first, then of 99.
            total += record["loss"] * (record["step"] - logged)
            updates += record["step"] - logged
            logged = record["step"]
        if any(name.startswith("eval_") for name in record):
            loss = total / updates if updates else None
            history.append({"epoch": record.get("epoch"), "step": record["step"], "loss": loss, **record})
            total, updates = 0.0, 0
    return history


def summary_text(summary: dict[str, Any]) -> str:
    """A run's summary as aligned lines for a person.

    Args:
        summary: Dictionaries of plain values by section; `history` is a list of evaluations, `metrics` and
            `metrics_before` are dictionaries of each split's metrics.
    """
    lines = []
    for section, values in summary.items():
        if not values:
            continue
        if section == "history":
            lines += ["", "history", *_history_lines(values)]
        elif section in ("metrics", "metrics_before"):
            for split, metrics in values.items():
                lines += ["", f"{section.replace('_', ' ')}, {split}", *_metrics_lines(metrics)]
        else:
            width = max((len(name) for name in values), default=0)
            lines += ["", section, *(f"  {name:<{width}}  {_shown(value)}" for name, value in values.items())]
    return "\n".join(lines[1:]) + "\n"


def _history_lines(history: Sequence[dict[str, Any]]) -> list[str]:
    """The evaluations of a training as a table."""
    metrics = [*(f"eval_{decoding}_micro_f1" for decoding in SET_DECODINGS), "eval_micro_f1"]
    columns = ("epoch", "step", "loss", "eval_loss", *metrics)
    titles = ("epoch", "step", "loss", "eval loss", *(f"{decoding} F1" for decoding in SET_DECODINGS), "chosen F1")
    rows = [titles, *([_shown(record.get(column)) for column in columns] for record in history)]
    return ["  " + "  ".join(f"{cell:>16}" for cell in row) for row in rows]


def _metrics_lines(metrics: dict[str, float]) -> list[str]:
    """One split's metrics: those of the set decodings in a column each, then all others, such as the scores'."""
    names = [name.removeprefix("best_sequence_") for name in metrics if name.startswith("best_sequence_")]
    lines = []
    if names:
        lines = ["  " + f"{'':<22}" + "".join(f"{decoding:>16}" for decoding in SET_DECODINGS)]
    for name in names:
        lines.append(
            f"  {name:<22}" + "".join(f"{_shown(metrics.get(f'{decoding}_{name}')):>16}" for decoding in SET_DECODINGS)
        )
    in_columns = {*names, *(f"{decoding}_{name}" for decoding in SET_DECODINGS for name in names)}
    rest = [f"  {name:<22}{_shown(value):>16}" for name, value in metrics.items() if name not in in_columns]
    return [*lines, "", *rest] if lines and rest else lines + rest


def _shown(value: Any) -> str:
    """A value as text: floats with at most five significant digits, many of them as a span, an end of line as \\n."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple) and value and all(isinstance(one, float) for one in value):
        return span(value) if len(value) > 5 else " ".join(map(_shown, value))
    if isinstance(value, str) and not value.isprintable():
        return repr(value)
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def write_summary(summary: dict[str, Any], output_dir: str | Path) -> None:
    """Write `summary.json` and `summary.txt` of a run, whose sections are those of `summary_text`."""
    write_text_atomically(Path(output_dir, "summary.json"), json.dumps(summary, indent=2, default=str) + "\n")
    write_text_atomically(Path(output_dir, "summary.txt"), summary_text(summary))
