"""
From label sequences to label sets.

1. `label_sets_from_sequences` and its inverse.
2. `hypothesis_log_probs`, `label_scores_from_hypotheses`: from the label sequences found to a probability per label.
3. A second source, the log-odds of the words: `reweighted_log_probs` gives it a say in the hypotheses,
   `combined_scores` in the probabilities, which `constrained_scores` then fits to the constraints.
4. From these to a set: `best_hypotheses` for the probability that the set is right, `select_labels` for the micro-F1
   of a corpus, `expected_f1_label_sets` and `expected_f1_sets_from_scores` for the F1 of each document.

Shapes: B documents, K hypotheses per document (beams or samples), R = B * K rows, L labels, n generated steps.
"""

import warnings
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch.nn import functional as F

from .configuration_sgm import SGMConfig

# What they maximise: the probability of the whole set, micro-F1 of a corpus, expected F1 of each document.
SET_DECODINGS = ("best_sequence", "threshold", "expected_f1")
# Older checkpoints and settings say "max_f1".
FORMER_SET_DECODINGS = {"max_f1": "threshold"}
# A marginal of 0 or 1 has infinite log-odds, though a wider beam might find the label, or a set without it.
MARGINAL_CLIP = 0.001
# float32 holds sigmoid(-80) as a normal number.
_MAX_LOG_ODDS = 80.0
# Labels less probable than this play no part in the expected F1 of independent labels.
_LEAST_PROB = 0.001
# Numbers held at once while expected F1 is computed.
_MAX_CELLS = 2**22


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


def reweighted_log_probs(
    log_probs: torch.Tensor,
    hypotheses: torch.Tensor,
    lexical_logits: torch.Tensor,
    lexical_weight: float = 0.0,
    temperature: float = 1.0,
) -> torch.Tensor:
    """What hypotheses weigh when the words have a say: (log p + weight * sum of their labels' log-odds) / temperature.

    Args:
        log_probs: Of the hypotheses, (B, K); -inf for those not to count, which stay so.
        hypotheses: Label sequences, (B, K, n) int64; a label that is repeated counts once.
        lexical_logits: Log-odds of each label given the words, (B, L).
        lexical_weight: Weight of these beside the decoder, at least 0.
        temperature: Above 1 it makes hypotheses more alike, below 1 less.

    Returns:
        (B, K): Up to a constant for each document; `log_probs` itself for a weight of 0 and a temperature of 1.

    Raises:
        ValueError: If the weight is negative, the temperature not positive, or one not finite.
    """
    if not (0 <= lexical_weight < float("inf") and 0 < temperature < float("inf")):
        raise ValueError(
            f"lexical_weight is {lexical_weight} and hypothesis_temperature {temperature}; give a finite weight of at "
            "least 0, and a finite temperature above 0."
        )
    if lexical_weight == 0 and temperature == 1:
        return log_probs  # (B, K), bit for bit
    log_probs = log_probs.to(torch.promote_types(log_probs.dtype, torch.float32))  # (B, K)
    weighted = log_probs
    if lexical_weight > 0:
        labels = _sorted_sets(hypotheses, lexical_logits.shape[1])  # (B, K, n), L for none
        log_odds = F.pad(lexical_logits.to(log_probs).clamp(-_MAX_LOG_ODDS, _MAX_LOG_ODDS), (0, 1))  # (B, L + 1)
        sums = log_odds.gather(1, labels.flatten(1)).view(labels.shape).sum(dim=2)  # (B, K)
        weighted = log_probs + lexical_weight * sums  # (B, K)
    return weighted / temperature  # (B, K)


def best_hypotheses(hypotheses: torch.Tensor, log_probs: torch.Tensor, num_labels: int) -> torch.Tensor:
    """The hypothesis of each document whose set is the most probable, permutations of one set added up.

    A model of shuffled label orders spreads the probability of a set over its orders, so the most probable sequence
    need not have the most probable set.

    Args:
        hypotheses: Label sequences, (B, K, n) int64.
        log_probs: Their log-probabilities, up to a constant for each document, (B, K); -inf for those not to count.
        num_labels: L.

    Returns:
        (B) int64: Places among the K. Of the orders of that set the most probable; of sets alike the one with the most
        probable order; then the first.
    """
    sets, weights = _sorted_sets(hypotheses, num_labels), relative_probs(log_probs)  # (B, K, n), (B, K)
    total = torch.zeros_like(weights)  # (B, K), of the set of each
    # One after the other, for each hypothesis in the same order: the orders of a set get the same sum to the last bit.
    for place in range(weights.shape[1]):
        is_same = (sets == sets[:, place, None]).all(dim=2)  # (B, K)
        total = total + weights[:, place, None].where(is_same, 0.0)  # (B, K)
    is_best = (total == total.max(dim=1, keepdim=True).values) & ~log_probs.isneginf()  # (B, K)
    return log_probs.masked_fill(~is_best, float("-inf")).argmax(dim=1)  # (B)


def combined_scores(
    marginals: torch.Tensor,
    lexical_logits: torch.Tensor,
    calibration: Sequence[Any] = (),
    lexical_share: float = 0.5,
) -> torch.Tensor:
    """The probability of each label from two sources: the hypotheses, which know sets, and the words, which know all.

    Args:
        marginals: From hypotheses, (B, L); exactly 0 for most labels, as few sets are found.
        lexical_logits: Log-odds of each label given the words, (B, L).
        calibration: Empty for the mean of both probabilities; (slope, intercept) of the log-odds of the mean (Platt
            1999); (a, b, c) for sigmoid(a * log-odds of the marginal + b * lexical log-odds + c), the marginal clipped
            to [.001, .999]; or the points of a curve from the mean to probabilities ([`interpolated_scores`]).
        lexical_share: Weight of the words' probability in the mean, from 0 to 1; above 0, since the other is often 0.

    Returns:
        (B, L): Above 0 and below 1, float32 or wider, and never falling when a source rises.

    Raises:
        ValueError: If the calibration has another length, a negative slope, or a number that is not finite, or the
            share is none.
    """
    if not 0 < lexical_share <= 1:
        raise ValueError(f"lexical_share is {lexical_share}; give a number above 0 and at most 1.")
    if len(calibration) and isinstance(calibration[0], Sequence):
        mean = combined_scores(marginals, lexical_logits, lexical_share=lexical_share)  # (B, L)
        return interpolated_scores(mean, calibration)  # (B, L)
    dtype = torch.promote_types(torch.promote_types(marginals.dtype, lexical_logits.dtype), torch.float32)
    # Rounding moves a ratio of sums past 1. Within these bounds no probability is 0, even where denormals are flushed.
    marginals = marginals.to(dtype).clamp(0, 1)  # (B, L)
    log_odds = lexical_logits.to(dtype).clamp(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)  # (B, L)
    values = [float(value) for value in calibration]
    is_usable = all(abs(value) < float("inf") for value in values) and min(values[:-1], default=0.0) >= 0
    if len(values) not in (0, 2, 3) or not is_usable:
        raise ValueError(
            f"the calibration is {values}; give nothing, (slope, intercept) or (a, b, c), finite and the slopes not "
            "negative."
        )
    if len(values) == 3:
        clipped = marginals.clamp(MARGINAL_CLIP, 1 - MARGINAL_CLIP).logit()  # (B, L)
        return _free_probs(values[0] * clipped + values[1] * log_odds + values[2])  # (B, L)
    mean = (1 - lexical_share) * marginals + lexical_share * log_odds.sigmoid()  # (B, L)
    mean = mean.clamp(max=_below_one(dtype))  # (B, L)
    return _free_probs(values[0] * mean.logit() + values[1]) if values else mean  # (B, L)


def interpolated_scores(scores: torch.Tensor, points: Sequence[Sequence[float]]) -> torch.Tensor:
    """Scores calibrated by a curve, that of `fit_isotonic`.

    Args:
        scores: (B, L), in [0, 1].
        points: (score, probability) of each of its ends and bends, both not falling.

    Returns:
        (B, L): Above 0 and below 1, float32 or wider.

    Raises:
        ValueError: If there are fewer than two points, or they fall.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # (B, L)
    curve = torch.tensor(points, dtype=scores.dtype, device=scores.device)  # (P, 2)
    if curve.dim() != 2 or curve.shape[0] < 2 or curve.shape[1] != 2 or not (curve.diff(dim=0) >= 0).all():
        raise ValueError(f"the curve of the scores has the points {points!r:.80}; give two or more rising pairs.")
    x, y = curve.T.contiguous()  # (P), (P)
    after = torch.searchsorted(x, scores.contiguous()).clamp(1, len(x) - 1)  # (B, L)
    width = (x[after] - x[after - 1]).clamp(min=torch.finfo(scores.dtype).tiny)  # (B, L)
    share = ((scores - x[after - 1]) / width).clamp(0, 1)  # (B, L)
    found = y[after - 1] + share * (y[after] - y[after - 1])  # (B, L)
    return found.clamp(torch.finfo(scores.dtype).tiny, _below_one(scores.dtype))  # (B, L)


def constrained_scores(
    scores: torch.Tensor,
    required: torch.Tensor | None = None,
    allowed: torch.Tensor | None = None,
    parents: torch.Tensor | None = None,
    num_ancestors: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores that say what the constraints decide: 1 for required labels, 0 for others than the allowed.

    Args:
        scores: Probability of each label, (B, L).
        required: Ids of labels that every set has, with their ancestors, (m) int64.
        allowed: Which labels a set may have, (L) bool; of a label's ancestors all, if it.
        parents: The parent of each label, L for none, (L) int64.
        num_ancestors: Of each label, (L) int64; needed with `parents`.

    Returns:
        (B, L): An ancestor's score is never below that of its descendants, since each of their sets has it.
    """
    scores = scores.clone()  # (B, L)
    if allowed is not None:
        scores = scores.masked_fill(~allowed.to(scores.device), 0.0)  # (B, L)
    if required is not None:
        scores[:, required.to(scores.device)] = 1.0
    if parents is None or num_ancestors is None:
        return scores  # (B, L)
    parents, num_ancestors = parents.to(scores.device), num_ancestors.to(scores.device)  # (L), (L)
    by_depth = num_ancestors.argsort(stable=True)  # (L)
    _, counts = num_ancestors[by_depth].unique_consecutive(return_counts=True)  # (D + 1), (D + 1)
    for labels in reversed(by_depth.split(counts.tolist())[1:]):  # the deepest first; the roots have no parent
        above = parents[labels].expand(len(scores), -1)  # (B, m)
        scores.scatter_reduce_(1, above, scores[:, labels], "amax")  # (B, L)
    return scores  # (B, L)


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


def expected_f1_sets_from_scores(
    scores: torch.Tensor,
    min_labels: int = 0,
    max_labels: int | None = None,
    num_ancestors: torch.Tensor | None = None,
) -> list[list[int]]:
    """The set of greatest expected F1 of each document, its labels taken as independent of each other.

    The best k labels are then the k most probable (Lewis 1995, "Evaluating and optimizing autonomous text
    classification systems"). The expected F1 of each k is exact, by the dynamic programme of Ye et al. 2012
    ("Optimizing F-measure: a tale of two approaches", section 3.1). Labels with a score of at most .001 are left out,
    but for those that `min_labels` asks for. The F1 of two empty sets is 1.

    Args:
        scores: Calibrated probability of each label, (B, L); 1 for a label of every set, 0 for one of none.
        min_labels: Fewest labels of a set.
        max_labels: Most labels of a set.
        num_ancestors: Of each label, in a hierarchy whose ancestors score no less than their descendants, (L) int64.

    Returns:
        Label ids by descending score; of equal scores an ancestor first, then by id.
    """
    probs = scores.detach().to("cpu", torch.double)  # (B, L)
    columns = torch.arange(probs.shape[1])  # (L)
    if num_ancestors is not None:
        columns = num_ancestors.cpu().argsort(stable=True)  # (L)
    probs, order = probs[:, columns].sort(dim=1, descending=True, stable=True)  # (B, L), (B, L)
    probs = probs.masked_fill((probs <= _LEAST_PROB) & (torch.arange(probs.shape[1]) >= min_labels), 0.0)  # (B, L)
    num_found = (probs > 0).sum(dim=1)  # (B)
    most = num_found.clamp(max=probs.shape[1] if max_labels is None else max_labels)  # (B)
    fewest = (probs >= 1).sum(dim=1).clamp(min=min_labels).minimum(most)  # (B), with all that are certain
    # No set of k labels is better than 2 m / (k + m), m the expected number of true ones (by Jensen's inequality), and
    # some set of j labels is no worse than 2 m_j / (2 j + m - m_j): larger sets than these leave need no look.
    sums = probs.cumsum(dim=1)  # (B, L)
    mean = sums[:, -1:]  # (B, 1)
    sizes = torch.arange(1, probs.shape[1] + 1)  # (L)
    reached = 2 * sums / (2 * sizes + mean - sums)  # (B, L)
    reached = reached.masked_fill(sizes < fewest[:, None], 0.0).amax(dim=1).clamp(min=1e-30)  # (B)
    bound = (mean[:, 0] * (2 / reached - 1)).clamp(0, probs.shape[1]).ceil().long() + 1  # (B)
    most_looked = torch.minimum(most, bound.maximum(fewest))  # (B)
    chosen_sizes: list[int] = []
    widest, largest = int(num_found.max()) if len(probs) else 0, int(most_looked.max()) if len(probs) else 0
    step = max(1, _MAX_CELLS // max(1, largest * (largest + 1), widest))
    for start in range(0, len(probs), step):
        rows = slice(start, start + step)
        f1 = _expected_f1_of_sizes(probs[rows, :widest], largest)  # (b, K + 1)
        sizes = torch.arange(f1.shape[1])  # (K + 1)
        f1 = f1.masked_fill((sizes < fewest[rows, None]) | (sizes > most_looked[rows, None]), -1.0)  # (b, K + 1)
        # A larger set has to be better by more than rounding, which may differ from batch to batch.
        is_best = f1 >= f1.amax(dim=1, keepdim=True) * (1 - 1e-9)  # (b, K + 1)
        chosen_sizes += is_best.int().argmax(dim=1).tolist()  # the first
    return [row[:size] for row, size in zip(columns[order].tolist(), chosen_sizes, strict=True)]


def _expected_f1_of_sizes(probs: torch.Tensor, largest: int) -> torch.Tensor:
    """Expected F1 of the first 0 to K labels of `(B, M)` independent ones, descending; shape `(B, K + 1)`.

    With a true labels among the first k and b among the rest, F1 is 2 a / (k + a + b). The expectation over b of
    1 / (i + b), for each i, follows from that of one label fewer in the rest; that over a from one fewer of the first.
    """
    num_labels = probs.shape[1]
    inverse = 1 / torch.arange(1, num_labels + largest + 1, dtype=probs.dtype).expand(len(probs), -1)  # (B, M + K)
    of_size = {}  # k -> expectation of 1 / (k + a + b) over b, for a of 0 to k
    for size in range(num_labels, 0, -1):
        if size <= largest:
            of_size[size] = inverse[:, size - 1 : 2 * size].clone()  # (B, k + 1)
        prob = probs[:, size - 1, None]  # (B, 1), the label that now joins the rest
        inverse = prob * inverse[:, 1:] + (1 - prob) * inverse[:, :-1]  # (B, M + K - 1) and so on
    hits = F.pad(torch.ones_like(probs[:, :1]), (0, largest))  # (B, K + 1), the distribution of a
    values = [(1 - probs).prod(dim=1)]  # (B), of the empty set
    for size in range(1, largest + 1):
        prob = probs[:, size - 1, None]  # (B, 1)
        hits = (1 - prob) * hits + prob * F.pad(hits[:, :-1], (1, 0))  # (B, K + 1)
        counts = torch.arange(size + 1, dtype=probs.dtype)  # (k + 1)
        values.append((2 * counts * hits[:, : size + 1] * of_size[size]).sum(dim=1))  # (B)
    return torch.stack(values, dim=1)  # (B, K + 1)


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


def _below_one(dtype: torch.dtype) -> float:
    """The largest number below 1 that the type has: 1 is for labels of every set."""
    return 1 - torch.finfo(dtype).eps / 2


def _free_probs(log_odds: torch.Tensor) -> torch.Tensor:
    """The probabilities of log-odds `(B, L)`, above 0 and below 1; shape `(B, L)`."""
    return log_odds.clamp(-_MAX_LOG_ODDS, _MAX_LOG_ODDS).sigmoid().clamp(max=_below_one(log_odds.dtype))  # (B, L)


def _sorted_sets(sequences: torch.Tensor, num_labels: int) -> torch.Tensor:
    """The labels of each hypothesis `(B, K, n)`, ascending and each once, then L as often as needed; same shape."""
    labels = sequences.clamp(max=num_labels).sort(dim=2).values  # (B, K, n)
    is_repeated = F.pad(labels[..., 1:] == labels[..., :-1], (1, 0))  # (B, K, n)
    return labels.masked_fill(is_repeated, num_labels).sort(dim=2).values  # (B, K, n)


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
