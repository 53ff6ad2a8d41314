"""
From label sequences to label sets.

1. `label_sets_from_sequences` and its inverse.
2. `hypothesis_log_probs`, `label_scores_from_hypotheses`: from the label sequences found to a probability per label.
3. From these to a set: `select_labels` for the micro-F1 of a corpus, `expected_f1_label_sets` for the F1 of each
   document.

Shapes: B documents, K hypotheses per document (beams or samples), R = B * K rows, L labels, n generated steps.
"""

import warnings
from collections.abc import Sequence
from itertools import islice

import torch
from torch.nn import functional as F

from .configuration_sgm import SGMConfig

# What they maximise: the probability of the whole set, micro-F1 of a corpus, expected F1 of each document.
SET_DECODINGS = ("best_sequence", "threshold", "expected_f1")
# Older checkpoints and settings say "max_f1".
FORMER_SET_DECODINGS = {"max_f1": "threshold"}


def checked_set_decoding(name: str | None) -> str:
    """The set decoding of that name.

    Args:
        name: One of `SET_DECODINGS`, or a former name, of which it warns.

    Returns:
        `str`: One of `SET_DECODINGS`; `"best_sequence"` where none is set.

    Raises:
        ValueError: If there is no such set decoding.
    """
    if name in FORMER_SET_DECODINGS:
        new = FORMER_SET_DECODINGS[name]
        warnings.warn(f"set_decoding={name!r} is now called {new!r}.", FutureWarning, stacklevel=2)
        return new
    if name not in (None, *SET_DECODINGS):
        raise ValueError(f"set_decoding is {name!r}; choose one of {', '.join(SET_DECODINGS)}.")
    return name or "best_sequence"


def label_sets_from_sequences(sequences: torch.Tensor, num_labels: int) -> list[list[int]]:
    """The labels of generated sequences, without bos, eos and padding.

    Args:
        sequences: What `generate()` returned, (R, n) int64.
        num_labels: L.

    Returns:
        Label ids in generated order, each once.
    """
    return [list(dict.fromkeys(i for i in row if i < num_labels)) for row in sequences.tolist()]


def sequences_from_label_sets(label_sets: list[list[int]], config: SGMConfig, device: torch.device) -> torch.Tensor:
    """The inverse of [`label_sets_from_sequences`].

    Args:
        label_sets: Label ids in order.
        config: Gives the decoder ids.
        device: Where the result goes.

    Returns:
        (B, n): bos, labels, eos, padding.
    """
    width = max(len(labels) for labels in label_sets)
    rows = [
        [config.bos_label_id, *labels, config.eos_label_id] + [config.pad_label_id] * (width - len(labels))
        for labels in label_sets
    ]
    return torch.tensor(rows, dtype=torch.long, device=device)


def select_labels(
    label_scores: torch.Tensor,
    threshold: float | Sequence[float],
    min_labels: int = 0,
    max_labels: int | None = None,
) -> list[list[int]]:
    """All labels that reach the threshold.

    With the threshold fitted on held-out documents these sets maximise the micro-F1 of a corpus; at 0.5 they minimise
    the expected Hamming loss. Neither is the set of greatest expected F1 of one document.

    Args:
        label_scores: Probability of each label, (B, L).
        threshold: One for all labels or one per label, in (0, 1]. For exact scores and one threshold the best one is
            half of the micro-F1 that it reaches.
        min_labels: Take at least this many, those nearest to their threshold.
        max_labels: Take at most this many, those farthest above it; certain labels first.

    Returns:
        Label ids by descending score, ties by id.

    Raises:
        TypeError: If a threshold is not a number.
        ValueError: If a threshold is outside (0, 1], or there is neither one nor L of them.
    """
    thresholds = checked_thresholds(threshold, label_scores.shape[1]).to(label_scores)  # (L)
    scores, by_score = label_scores.sort(dim=1, descending=True, stable=True)  # (B, L), (B, L)
    margins = scores - thresholds[by_score]  # (B, L)
    # A label of all hypotheses is never left out, one of none never taken, whatever their thresholds.
    margins = margins.masked_fill(scores >= 1, float("inf")).masked_fill(scores <= 0, float("-inf"))  # (B, L)
    places = margins.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # (B, L)
    counts = (scores >= thresholds[by_score]).sum(dim=1).clamp(min=min_labels, max=max_labels)  # (B)
    labels = iter(by_score[places < counts[:, None]].tolist())
    return [list(islice(labels, count)) for count in counts.clamp(max=label_scores.shape[1]).tolist()]


def checked_thresholds(threshold: float | Sequence[float] | None, num_labels: int) -> torch.Tensor:
    """The label threshold, after checks.

    Args:
        threshold: One for all labels or one per label.
        num_labels: L.

    Returns:
        (L).

    Raises:
        TypeError: If it is not a number or several.
        ValueError: If one is outside (0, 1], or there is neither one nor L of them.
    """
    try:
        thresholds = torch.as_tensor(threshold, dtype=torch.double)  # () or (L)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"label_threshold is {threshold!r:.80}; set_decoding='threshold' needs a number in (0, 1], or one per "
            "label."
        ) from error
    if thresholds.shape not in ((), (num_labels,)):
        raise ValueError(
            f"label_threshold has the shape {tuple(thresholds.shape)}; give one number, or one for each of the "
            f"{num_labels} labels."
        )
    outside = thresholds[~((thresholds > 0) & (thresholds <= 1))]
    if len(outside):
        raise ValueError(f"label_threshold must lie in (0, 1], got {outside[0].item()}.")
    return thresholds.expand(num_labels)


def hypothesis_log_probs(
    sequences: torch.Tensor, scores: torch.Tensor, length_penalty: float, pad_label_id: int
) -> torch.Tensor:
    """The log-probability of each beam hypothesis, from its score under a length penalty.

    Args:
        sequences: bos, labels, eos, padding, (R, n + 1) int64.
        scores: Sum of log-probabilities over length to the power of the penalty, (R).
        length_penalty: That power.
        pad_label_id: Decoder padding.

    Returns:
        (R): In nats.
    """
    num_generated = (sequences[:, 1:] != pad_label_id).sum(dim=1)  # (R)
    return scores * num_generated.clamp(min=1).to(scores.dtype) ** length_penalty


def label_scores_from_hypotheses(sequences: torch.Tensor, log_probs: torch.Tensor, num_labels: int) -> torch.Tensor:
    """The probability that each label is in the set: that of the hypotheses with the label over that of all.

    Args:
        sequences: Hypotheses, (B, K, n) int64.
        log_probs: Their log-probabilities, (B, K); -inf for those not to count. Samples count alike: give zeros, and
            the score is the share of samples with the label.
        num_labels: L.

    Returns:
        (B, L): In [0, 1], float32 or wider; exactly 1 for a label that every hypothesis has, 0 for all labels where no
        hypothesis counts.
    """
    contains = torch.zeros(*sequences.shape[:2], num_labels + 3, dtype=torch.bool, device=sequences.device)
    contains = contains.scatter_(2, sequences, True)[..., :num_labels]  # (B, K, L)
    contains = F.pad(contains, (0, 1), value=True)  # (B, K, L + 1), the last is in all: the total
    summed = _sum_where(relative_probs(log_probs), contains)  # (B, L + 1)
    total = summed[:, -1:]  # (B, 1)
    return summed[:, :-1] / total.where(total > 0, 1.0)  # (B, L)


def expected_f1_label_sets(
    sequences: torch.Tensor,
    log_probs: torch.Tensor,
    num_labels: int,
    min_labels: int = 0,
    max_labels: int | None = None,
    num_ancestors: torch.Tensor | None = None,
) -> list[list[int]]:
    """The set of greatest expected F1 of each document, its hypotheses taken as a distribution over sets.

    Exact over all sets: the General F-measure Maximizer of Waegeman et al. 2014 (JMLR 15). F1 of k labels against a
    set of s labels is the sum of 2 / (s + k) over the labels in both, so the best k labels are those of the greatest
    expectation of it. The F1 of two empty sets is 1. Exact too within constraints that all hypotheses obey: a label
    that is in each of them never fails to raise F1, and an ancestor gains no less than its descendants.

    Args:
        sequences: Hypotheses, (B, K, n) int64; permutations of one set add up.
        log_probs: Their log-probabilities, up to a constant for each document, (B, K); -inf for those not to count,
            zeros for samples.
        num_labels: L.
        min_labels: Fewest labels of a set.
        max_labels: Most labels of a set.
        num_ancestors: Of each label, in a hierarchy, (L) int64.

    Returns:
        Label ids, the one that gains most first, an ancestor before its descendants; none where no hypothesis counts.
    """
    weights, counts = relative_probs(log_probs), ~log_probs.isneginf()  # (B, K), (B, K)
    found, contains = _labels_found(sequences, counts, num_labels, num_ancestors)  # (B, M), (B, K, M)
    sizes, num_found = contains.sum(dim=2), (found < num_labels).sum(dim=1)  # (B, K), (B)
    fewest = num_found.clamp(max=min_labels)  # (B)
    most = num_found.clamp(max=num_labels if max_labels is None else max_labels)  # (B)
    best = (weights * (sizes == 0)).sum(dim=1).where(fewest == 0, -1.0)  # (B), of the empty set
    best_size, chosen = torch.zeros_like(num_found), found  # (B), (B, M)
    for size in range(1, found.shape[1] + 1):
        gains = _sum_where(2 * weights / (sizes + size), contains)  # (B, M)
        ranked, order = gains.sort(dim=1, descending=True, stable=True)  # (B, M), (B, M)
        value = ranked[:, :size].sum(dim=1)  # (B)
        # A larger set has to be better by more than rounding, which may differ from batch to batch.
        is_better = (value > best * (1 + 1e-6)) & (size >= fewest) & (size <= most)  # (B)
        best, best_size = value.where(is_better, best), best_size.masked_fill(is_better, size)  # (B), (B)
        chosen = found.gather(1, order).where(is_better[:, None], chosen)  # (B, M)
    return [row[:size] for row, size in zip(chosen.tolist(), best_size.tolist(), strict=True)]


def relative_probs(log_probs: torch.Tensor) -> torch.Tensor:
    """The probability of each hypothesis relative to its document's best, so that small ones do not underflow.

    Args:
        log_probs: -inf for those not to count, (B, K).

    Returns:
        (B, K): In [0, 1], float32 or wider; 0 for those not to count.
    """
    log_probs = log_probs.to(torch.promote_types(log_probs.dtype, torch.float32))
    best = log_probs.max(dim=1, keepdim=True).values  # (B, 1)
    return (log_probs - best.clamp(min=torch.finfo(best.dtype).min)).exp()  # (B, K), 0 where all are -inf


def _sum_where(weights: torch.Tensor, contains: torch.Tensor) -> torch.Tensor:
    """The sum of the weights `(B, K)` of the hypotheses that contain each label, `(B, K, M)`; shape `(B, M)`."""
    # One after the other, for each label in the same order: since rounding is monotone, a label of the same hypotheses
    # then has the same sum to the last bit, and one of more hypotheses never a smaller one.
    total = weights.new_zeros(contains.shape[0], contains.shape[2])  # (B, M)
    for hypothesis in range(weights.shape[1]):
        total = total + weights[:, hypothesis, None].where(contains[:, hypothesis], 0.0)  # (B, M)
    return total


def _labels_found(
    sequences: torch.Tensor, counts: torch.Tensor, num_labels: int, num_ancestors: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The M labels of the hypotheses that count, `(B, M)`, L for none; and which has which, `(B, K, M)`."""
    labels = sequences.where((sequences < num_labels) & counts[..., None], num_labels)  # (B, K, n)
    found = labels.flatten(1).sort(dim=1).values  # (B, K * n)
    is_repeated = F.pad(found[:, 1:] == found[:, :-1], (1, 0))  # (B, K * n)
    found = found.masked_fill(is_repeated, num_labels).sort(dim=1).values  # (B, K * n)
    width = max((found < num_labels).sum(dim=1).tolist(), default=0)
    found = found[:, : max(1, width)].contiguous()  # (B, M)
    places = torch.searchsorted(found, labels.flatten(1)).view_as(labels)  # (B, K, n)
    contains = torch.zeros(*counts.shape, found.shape[1] + 1, dtype=torch.bool, device=found.device)  # (B, K, M + 1)
    contains = contains.scatter_(2, places, True)[..., :-1] & (found < num_labels)[:, None]  # (B, K, M)
    if num_ancestors is None:
        return found, contains  # (B, M), (B, K, M)
    # Where two labels gain the same, an ancestor has to come before its descendant.
    depth = F.pad(num_ancestors.to(found.device), (0, 1), value=num_labels)  # (L + 1), L for none
    order = depth[found].argsort(dim=1, stable=True)  # (B, M)
    return found.gather(1, order), contains.take_along_dim(order[:, None], dim=2)  # (B, M), (B, K, M)


__all__ = ["label_sets_from_sequences", "select_labels"]
