"""Low-rank adapters for a pre-trained encoder (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models").

`peft` puts them into the encoder. What is saved is the model with the adapters added to its weights, which loads and
predicts without `peft`; a checkpoint that is to be resumed from has the weights apart, in a file beside it.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.modeling.adapters_sgm import adapted_modules

FILE = "adapters.safetensors"


def add_lora(
    model: SGMForMultiLabelGeneration,
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
) -> None:
    """Puts adapters into a pre-trained encoder, of which nothing else is trained from now on.

    Args:
        model: Its decoder is trained as before.
        rank: r, the inner size of each adapter.
        alpha: α; what an adapter adds is scaled by α / r. Default: 2 r.
        dropout: Dropout before each adapter.
        target_modules: Names of the encoder's linear layers that get one, or all of them.

    Raises:
        ModuleNotFoundError: If `peft` is not installed.
        ValueError: If the encoder is not a pre-trained one, or has adapters already.
    """
    if find_spec("peft") is None:
        raise ModuleNotFoundError("LoRA needs peft: pip install 'sgm_hf[lora]'")
    if model.config.encoder != "pretrained":
        raise ValueError(
            f"LoRA is for a pre-trained encoder, but config.encoder is {model.config.encoder!r}; train all of it."
        )
    if adapted_modules(model):
        raise ValueError("The model's encoder has adapters already; train these.")
    from peft import LoraConfig, inject_adapter_in_model

    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    # For type checkers: peft divides by r, so that any number serves as alpha.
    scale = cast(int, 2 * rank if alpha is None else alpha)
    config = LoraConfig(r=rank, lora_alpha=scale, lora_dropout=dropout, target_modules=targets)
    inject_adapter_in_model(config, cast(nn.Module, model.encoder.model))


def save_adapters(model: nn.Module, folder: str | Path, state_dict: dict[str, torch.Tensor] | None = None) -> None:
    """Writes adapters, and the weights that they are added to, beside a checkpoint; nothing if there are none.

    Args:
        model: With or without adapters.
        folder: Of the checkpoint.
        state_dict: Its weights, if these are not at hand in `model`, as of one that is sharded.
    """
    prefixes = tuple(f"{name}." for name in adapted_modules(model))
    if prefixes:
        weights = model.state_dict() if state_dict is None else state_dict
        own = {name: weight.contiguous() for name, weight in weights.items() if name.startswith(prefixes)}
        save_file(own, Path(folder, FILE))


def load_adapters(model: nn.Module, folder: str | Path) -> None:
    """Reads what [`save_adapters`] wrote; nothing if neither model nor checkpoint has adapters.

    Raises:
        ValueError: If only one of them has, or they do not fit each other.
    """
    file, prefixes = Path(folder, FILE), tuple(f"{name}." for name in adapted_modules(model))
    if file.exists() != bool(prefixes):
        with_adapters, without = ("checkpoint", "model") if file.exists() else ("model", "checkpoint")
        raise ValueError(
            f"The {with_adapters} of {folder} has LoRA adapters and the {without} has none; resume with the settings "
            "that the checkpoint was trained with."
        )
    if not prefixes:
        return
    weights: dict[str, Any] = load_file(file)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items() if name.startswith(prefixes)}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if found != expected:
        raise ValueError(f"{file} has adapters of other layers or another rank than the model; give these settings.")
    # Of a model that is spread over processes (FSDP), each takes its part.
    set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True, strict=False))
