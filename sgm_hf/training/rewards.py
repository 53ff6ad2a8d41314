"""Rewards of label sets for reinforcement learning: functions of sets, so the order of generation never matters."""

from collections.abc import Callable

import torch

Reward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def f1_reward(predicted: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    """F1 of a set against the true one; 1 where both are empty (Yang et al. 2019, eq. 8).

    Args:
        predicted: Which labels each set has, (..., L) bool.
        gold: Which labels are true, (..., L) bool.

    Returns:
        (...) float, in [0, 1].
    """
    common = (predicted & gold).sum(dim=-1)  # (...)
    total = predicted.sum(dim=-1) + gold.sum(dim=-1)  # (...)
    return torch.where(total > 0, 2 * common / total.clamp(min=1), 1.0)


def hamming_reward(predicted: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    """Hamming accuracy: the share of the L labels that are decided correctly; arguments as of `f1_reward`."""
    return (predicted == gold).float().mean(dim=-1)


def f1_and_hamming_reward(predicted: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    """The mean of F1 and Hamming accuracy; arguments as of `f1_reward`."""
    return (f1_reward(predicted, gold) + hamming_reward(predicted, gold)) / 2


def cost_reward(
    predicted: torch.Tensor, gold: torch.Tensor, false_positive: float = 1.0, false_negative: float = 1.0
) -> torch.Tensor:
    """Minus the cost of a set's wrong and missing labels, at most 0; arguments and shape as of `f1_reward`."""
    too_many = (predicted & ~gold).sum(dim=-1)  # (...)
    too_few = (gold & ~predicted).sum(dim=-1)  # (...)
    return -(false_positive * too_many + false_negative * too_few)


REWARDS: dict[str, Reward] = {
    "f1": f1_reward,
    "hamming": hamming_reward,
    "f1_and_hamming": f1_and_hamming_reward,
    "cost": cost_reward,
}


def checked_reward(reward: Reward, predicted: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    """The rewards (B, S) of sets (B, S, L) bool with the true labels (B, 1, L) bool.

    Raises:
        ValueError: If the function returns another shape or a number that is not finite.
    """
    rewards = torch.as_tensor(reward(predicted, gold.expand_as(predicted)))
    name = getattr(reward, "__name__", repr(reward))
    if rewards.shape != predicted.shape[:-1]:
        raise ValueError(
            f"the reward {name} returned the shape {tuple(rewards.shape)} for sets of the shape "
            f"{tuple(predicted.shape)}; it must return one number per set, {tuple(predicted.shape[:-1])}."
        )
    if not rewards.isfinite().all():
        raise ValueError(f"the reward {name} returned a number that is not finite; every set needs a finite reward.")
    return rewards.float()
