"""Learning rates of the encoder: one of its own, and lower ones towards its first layer.

A layer's rate is `layerwise_lr_decay` times that of the layer above (discriminative fine-tuning, Howard and Ruder
2018, "Universal Language Model Fine-tuning for Text Classification", §3.2, who divide by 2.6).
"""

import re

import torch
from torch import nn

# What FSDP and activation checkpointing put into the names of parameters.
WRAPPERS = re.compile(r"(^|\.)(module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)(?=\.)")


def encoder_rates(model: nn.Module, learning_rate: float, layerwise_decay: float = 1.0) -> dict[str, float]:
    """The learning rate of each parameter of a model's encoder.

    Args:
        model: The model, wrapped or not.
        learning_rate: Of the last layer and what is behind it.
        layerwise_decay: Factor from each layer to the one before; what is before the first counts as one more.

    Returns:
        By the parameter's name in `model`.
    """
    names = {WRAPPERS.sub("", name).lstrip("."): name for name, _ in model.named_parameters()}
    own = {name.removeprefix("encoder."): full for name, full in names.items() if name.startswith("encoder.")}
    layers = [found for name in own if (found := re.match(r"(.*?)\.(\d+)\.", name))]
    if not layers:
        return dict.fromkeys(own.values(), learning_rate)
    prefix = f"{layers[0][1]}."
    count = 1 + max(int(found[2]) for found in layers if f"{found[1]}." == prefix)
    rates, is_below = {}, True
    for name, full in own.items():  # in the order in which the model has them
        inside = re.match(r"\d+", name.removeprefix(prefix)) if name.startswith(prefix) else None
        is_below &= inside is None
        depth = count - 1 - int(inside[0]) if inside else count if is_below else 0
        rates[full] = learning_rate * layerwise_decay**depth
    return rates


def split_groups(optimizer: torch.optim.Optimizer, rates: dict[int, float]) -> None:
    """Gives parameters of a new optimizer rates of their own, in groups behind those of the others.

    Args:
        optimizer: Before its first update.
        rates: Learning rate of a parameter by its `id`.
    """
    groups = []
    for group in optimizer.param_groups:
        by_rate: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_rate.setdefault(rates.get(id(parameter), group["lr"]), []).append(parameter)
        groups += [{**group, "params": own, "lr": rate} for rate, own in by_rate.items()]
    decoder = [group for group in groups if not any(id(one) in rates for one in group["params"])]
    encoder = [group for group in groups if any(id(one) in rates for one in group["params"])]
    optimizer.param_groups[:] = decoder + encoder  # the rate that is logged is that of the first group
