"""Low-rank adapters in an encoder, as `peft` puts them there, and how they become part of its weights."""

from typing import Any

import torch
from torch import nn

ADAPTER = "default"  # peft's name of the only one


def adapted_modules(model: nn.Module) -> dict[str, Any]:
    """The layers of a model that have an adapter, by name; known by what they can do, since peft may be absent."""
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "base_layer") and hasattr(module, "lora_A")
    }


def merged_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's weights with what its adapters add, under the names that the model has without adapters.

    Args:
        model: With adapters (W + s B A; Hu et al. 2021, eq. 3).
        weights: Its `state_dict`, which need not be at hand in `model`.

    Raises:
        ValueError: If a layer is not a linear map.
    """
    merged = dict(weights)
    for name, module in adapted_modules(model).items():
        own = {key.removeprefix(f"{name}."): merged.pop(key) for key in weights if key.startswith(f"{name}.")}
        down, up = own.get(f"lora_A.{ADAPTER}.weight"), own.get(f"lora_B.{ADAPTER}.weight")  # A (r, in), B (out, r)
        if down is None or up is None:
            raise ValueError(f"{name} has an adapter that is not of a linear map; give only linear layers adapters.")
        weight = own["base_layer.weight"]  # W (out, in)
        added = module.scaling[ADAPTER] * (up.float() @ down.float())  # (out, in)
        added = added.T if module.fan_in_fan_out else added  # of GPT-2's maps, (in, out)
        merged[f"{name}.weight"] = (weight.float() + added).to(weight.dtype)
        if "base_layer.bias" in own:
            merged[f"{name}.bias"] = own["base_layer.bias"]
    return merged


__all__ = ["adapted_modules", "merged_weights"]
