"""
From label sequences to label sets.

1. `label_sets_from_sequences` and its inverse.
2. `hypothesis_log_probs`, `label_scores_from_hypotheses`: from the label sequences found to a probability per label.
3. `select_labels`: from label scores to the set that is best for the micro-F1 of a corpus.

Shapes: B documents, K hypotheses a document (beams or samples), R = B * K rows, L labels, n generated steps.
"""

import warnings

import torch
from torch.nn import functional as F

from .configuration_sgm import SGMConfig

# Named after what they maximise: the probability of the whole set, micro-F1 of a corpus.
SET_DECODINGS = ("best_sequence", "threshold")
# Older checkpoints and settings say "max_f1".
FORMER_SET_DECODINGS = {"max_f1": "threshold"}


def checked_set_decoding(name: str | None) -> str:
    """
    The set decoding of that name.

    Args:
        name (`str`, *optional*): One of `SET_DECODINGS`, or a former name, of which it warns.

    Returns:
        `str`: One of `SET_DECODINGS`; `"best_sequence"` where none is set.

    Raises:
        ValueError: When there is no such set decoding.
    """
    if name in FORMER_SET_DECODINGS:
        new = FORMER_SET_DECODINGS[name]
        warnings.warn(f"set_decoding={name!r} is now called {new!r}.", FutureWarning, stacklevel=2)
        return new
    if name not in (None, *SET_DECODINGS):
        raise ValueError(f"set_decoding is {name!r}; choose one of {', '.join(SET_DECODINGS)}.")
    return name or "best_sequence"


def label_sets_from_sequences(sequences: torch.Tensor, num_labels: int) -> list[list[int]]:
    """
    The labels of generated sequences, without bos, eos and padding.

    Args:
        sequences (`torch.LongTensor` of shape `(R, n)`): What `generate()` returned.
        num_labels (`int`): L.

    Returns:
        `list[list[int]]`: Label ids in generated order, each once.
    """
    return [list(dict.fromkeys(i for i in row if i < num_labels)) for row in sequences.tolist()]


def sequences_from_label_sets(label_sets: list[list[int]], config: SGMConfig, device: torch.device) -> torch.Tensor:
    """
    The inverse of [`label_sets_from_sequences`].

    Args:
        label_sets (`list[list[int]]`): Label ids in order.
        config ([`SGMConfig`]): Gives the decoder ids.
        device (`torch.device`): Where the result goes.

    Returns:
        `torch.LongTensor` of shape `(B, n)`: bos, labels, eos, padding.
    """
    width = max(len(labels) for labels in label_sets)
    rows = [
        [config.bos_label_id, *labels, config.eos_label_id] + [config.pad_label_id] * (width - len(labels))
        for labels in label_sets
    ]
    return torch.tensor(rows, dtype=torch.long, device=device)


def select_labels(
    label_scores: torch.Tensor, threshold: float, min_labels: int = 0, max_labels: int | None = None
) -> list[list[int]]:
    """
    All labels that reach a threshold.

    With the threshold fitted on held-out documents these sets maximise the micro-F1 of a corpus; at 0.5 they minimise
    the expected Hamming loss. Neither is the set of greatest expected F1 of one document.

    Args:
        label_scores (`torch.FloatTensor` of shape `(B, L)`): Probability of each label.
        threshold (`float`): In (0, 1]; for exact scores the best one is half of the micro-F1 that it reaches.
        min_labels (`int`, *optional*, defaults to 0): Take at least this many, the best ones.
        max_labels (`int`, *optional*): Take at most this many.

    Returns:
        `list[list[int]]`: Label ids by descending score, ties by id.

    Raises:
        ValueError: When the threshold is outside (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"label_threshold must lie in (0, 1], got {threshold}.")
    ranked, order = label_scores.sort(dim=1, descending=True, stable=True)  # (B, L), (B, L)
    counts = (ranked >= threshold).sum(dim=1).clamp(min=min_labels, max=max_labels)  # (B)
    return [row[:count] for row, count in zip(order.tolist(), counts.tolist(), strict=True)]


def hypothesis_log_probs(
    sequences: torch.Tensor, scores: torch.Tensor, length_penalty: float, pad_label_id: int
) -> torch.Tensor:
    """
    The log-probability of each beam hypothesis, from its score under a length penalty.

    Args:
        sequences (`torch.LongTensor` of shape `(R, n + 1)`): bos, labels, eos, padding.
        scores (`torch.FloatTensor` of shape `(R,)`): Sum of log-probabilities over length to the power of the penalty.
        length_penalty (`float`): That power.
        pad_label_id (`int`): Decoder padding.

    Returns:
        `torch.FloatTensor` of shape `(R,)`: In nats.
    """
    num_generated = (sequences[:, 1:] != pad_label_id).sum(dim=1)  # (R)
    return scores * num_generated.clamp(min=1).to(scores.dtype) ** length_penalty


def label_scores_from_hypotheses(sequences: torch.Tensor, log_probs: torch.Tensor, num_labels: int) -> torch.Tensor:
    """
    The probability that each label is in the set: that of the hypotheses with the label over that of all.

    Args:
        sequences (`torch.LongTensor` of shape `(B, K, n)`): Hypotheses.
        log_probs (`torch.FloatTensor` of shape `(B, K)`): Their log-probabilities; -inf for those not to count.
            Samples count alike: give zeros, and the score is the share of samples with the label.
        num_labels (`int`): L.

    Returns:
        `torch.FloatTensor` of shape `(B, L)`: In [0, 1]; exactly 1 for a label that every hypothesis has.
    """
    weights = (log_probs - log_probs.max(dim=1, keepdim=True).values).exp()  # (B, K)
    contains = torch.zeros(*sequences.shape[:2], num_labels + 3, device=sequences.device)  # (B, K, L + 3)
    contains = contains.scatter_(2, sequences, 1.0)[..., :num_labels]  # (B, K, L)
    # The total is summed as one more column, in the same order, so that a label in all hypotheses scores exactly 1.
    contains = F.pad(contains, (0, 1), value=1.0)  # (B, K, L + 1)
    summed = (weights[..., None] * contains).sum(dim=1)  # (B, L + 1)
    return summed[:, :-1] / summed[:, -1:]  # (B, L)


__all__ = ["label_sets_from_sequences", "select_labels"]
