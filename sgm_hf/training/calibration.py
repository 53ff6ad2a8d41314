"""
Probabilities that come true, fitted on documents that no part of the model was trained on.

1. Of one score: `fit_platt`, `fit_temperature` (two numbers for `combined_scores`), `fit_isotonic` and `fit_curve`
   (points of a curve for it).
2. Of two sources: `fit_two_sources` (three numbers for `combined_scores`).
3. Of hypotheses: `fit_hypothesis_weights` (two numbers for `reweighted_log_probs`).
4. `cross_validated` and `choose_rule` judge such fits, and the thresholds of `thresholds.py`, on the same documents.

Shapes: N documents, L labels, K hypotheses per document of n ids. All sums are float64, over blocks of documents, and
nothing is drawn at random but the folds, from a seed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sgm_hf.modeling.label_sets_sgm import MARGINAL_CLIP

LEXICAL_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
TEMPERATURES = (0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
# What the weights of hypotheses are to serve: the right set, the probability of labels, their micro-F1.
CRITERIA = ("exact_match", "likelihood", "nll", "micro_f1")
# Numbers of a block: its arrays of float64 take a hundred MiB together.
_MAX_CELLS = 2**20
# Log-odds are kept within this, as in `combined_scores`.
_MAX_LOG_ODDS = 80.0
# True labels that a curve of calibration takes at least.
LEAST_TRUE = 50
# A score that does not rise with the truth still has to rank the labels.
_LEAST_SLOPE = 1e-3


class CalibrationFit(NamedTuple):
    """Fitted numbers, and the mean negative log-likelihood of a label (in nats) before and after.

    Attributes:
        values: What `combined_scores` takes as `calibration`, or `interpolated_scores` as `points`.
        nll_before: Of the scores as they were, on the documents of the fit.
        nll_after: Of the calibrated ones, on the same documents.
    """

    values: list
    nll_before: float
    nll_after: float


def log_odds(scores: np.ndarray) -> np.ndarray:
    """The log-odds of probabilities, float64 and finite: those of 0 and 1 are -80 and 37."""
    scores = np.asarray(scores, dtype=np.float64).clip(np.exp(-_MAX_LOG_ODDS), 1 - 2.0**-53)
    return np.log(scores) - np.log1p(-scores)


def probabilities(values: np.ndarray) -> np.ndarray:
    """The inverse of `log_odds`, without overflow."""
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1, small) / (1 + small)


def fit_platt(scores: np.ndarray, references: np.ndarray) -> CalibrationFit:
    """Slope and intercept that calibrate the log-odds of scores, by maximum likelihood (Platt 1999).

    Newton's method, and targets a little inside 0 and 1, so that separable scores have a finite fit too (Lin, Lin and
    Weng 2007, "A note on Platt's probabilistic outputs", section 2 and algorithm 1).

    Args:
        scores: Of held-out documents, in [0, 1], (N, L).
        references: True labels, bool, (N, L).

    Returns:
        `values` are [slope, intercept], the slope above 0.

    Raises:
        TypeError: If `references` is not boolean or a matrix no array.
        ValueError: If the shapes differ, there is no cell, or a score is outside [0, 1].
    """
    _check(references, scores=scores)
    weights = fit_logistic(lambda rows: log_odds(scores[rows]).reshape(1, -1), 1, references)
    return _one_source(scores, references, weights)


def fit_temperature(scores: np.ndarray, references: np.ndarray) -> CalibrationFit:
    """The temperature by which the log-odds of scores are divided (Guo et al. 2017, section 4.2), as Platt's numbers.

    Args:
        scores: Of held-out documents, in [0, 1], (N, L).
        references: True labels, bool, (N, L).

    Returns:
        `values` are [1 / temperature, 0].

    Raises:
        TypeError: As in `fit_platt`.
        ValueError: As in `fit_platt`.
    """
    _check(references, scores=scores)
    features = lambda rows: log_odds(scores[rows]).reshape(1, -1)  # noqa: E731
    return _one_source(scores, references, fit_logistic(features, 1, references, has_intercept=False))


def fit_two_sources(
    marginals: np.ndarray, lexical_logits: np.ndarray, references: np.ndarray, l2: float = 1.0
) -> CalibrationFit:
    """Weights of the log-odds of both sources: logistic regression with three numbers.

    Args:
        marginals: Probability of each label under the hypotheses, (N, L).
        lexical_logits: Log-odds of each label given the words, (N, L).
        references: True labels, bool, (N, L).
        l2: Half of this times the squared weights is added to the summed loss; the intercept is free.

    Returns:
        `values` are [a, b, c] for `combined_scores`; a and b at least 0, and not both: where one source would get less
        than nothing it gets nothing. `nll_before` is that of the mean of both probabilities.

    Raises:
        TypeError: As in `fit_platt`.
        ValueError: As in `fit_platt`, or if a log-odds is not a number.
    """
    _check(references, marginals=marginals)
    if lexical_logits.shape != references.shape or np.isnan(lexical_logits).any():
        raise ValueError(
            f"lexical_logits has the shape {lexical_logits.shape}; give a number for each of the {references.shape} "
            "cells, NaN for none."
        )

    def both(rows: slice) -> np.ndarray:
        clipped = marginals[rows].astype(np.float64).clip(MARGINAL_CLIP, 1 - MARGINAL_CLIP)
        lexical = lexical_logits[rows].astype(np.float64).clip(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)
        return np.stack([log_odds(clipped).ravel(), lexical.ravel()])

    tried = [fit_logistic(both, 2, references, l2)]
    if tried[0][:2].min() < 0:  # then the best of those that are not negative has one source only
        tried = []
        for source in (0, 1):

            def one(rows: slice, source: int = source) -> np.ndarray:
                return both(rows)[[source]]

            alone = fit_logistic(one, 1, references, l2)
            tried.append(np.insert(np.append(max(alone[0], _LEAST_SLOPE), alone[1:]), 1 - source, 0.0))
    before, after = 0.0, np.zeros(len(tried))
    for rows in _blocks(references):
        values, truth = both(rows), references[rows].ravel()
        mean = (marginals[rows].ravel() + probabilities(values[1])) / 2
        before += _summed_nll(log_odds(mean), truth)
        after += [_summed_nll(weights[:2] @ values + weights[2], truth) for weights in tried]
    best = int(after.argmin())
    return CalibrationFit(
        [float(weight) for weight in tried[best]], before / references.size, float(after[best]) / references.size
    )


def fit_isotonic(scores: np.ndarray, references: np.ndarray, max_points: int = 64) -> CalibrationFit:
    """A rising curve from scores to probabilities, by isotonic regression (Zadrozny and Elkan 2002).

    The pool adjacent violators algorithm gives steps. The curve runs straight between the middles of the steps, and
    on to scores of 0 and 1, so that no two scores that differ become the same and labels keep their ranks.

    Args:
        scores: Of held-out documents, in [0, 1], (N, L).
        references: True labels, bool, (N, L).
        max_points: Most points of the curve; neighbouring steps with the fewest true labels are joined until it has
            no more.

    Returns:
        `values` are [score, probability] of each point.

    Raises:
        TypeError: As in `fit_platt`.
        ValueError: As in `fit_platt`, or if `max_points` is less than 3.
    """
    _check(references, scores=scores)
    if max_points < 3:
        raise ValueError(f"max_points is {max_points}; the two ends and a step between them take 3.")
    every = np.sort(scores, axis=None)
    sizes, hits = pool_adjacent_violators(every, np.sort(scores[references]))
    sizes, hits = _join_steps(sizes, hits, max_points - 2)
    starts = np.cumsum(sizes) - sizes
    middles = np.add.reduceat(every, starts, dtype=np.float64) / sizes
    # Laplace's rule keeps a step without a true label above 0, and one of true labels only below 1.
    levels = (hits + (hits.sum() + 1) / (len(every) + 2)) / (sizes + 1)
    rises = levels > np.r_[0.0, np.maximum.accumulate(levels)[:-1]]
    middles, levels = middles[rises], levels[rises]
    inner = [[float(m), float(level)] for m, level in zip(middles, levels, strict=True) if 0 < m < 1]
    first = levels[0] if middles[0] <= 0 else levels[0] / 2
    last = levels[-1] if middles[-1] >= 1 else (1 + levels[-1]) / 2
    points = [[0.0, float(first)], *inner, [1.0, float(last)]]
    return _curve_fit(scores, references, points)


def fit_curve(
    scores: np.ndarray, references: np.ndarray, least_score: float = 1e-3, max_points: int = 32
) -> CalibrationFit:
    """The curve of [`fit_isotonic`] for scores from `least_score` on, and a straight line from 0 to its beginning.

    Most labels of a document score near 0, and steps would make one probability of all these. Below the curve, scores
    keep their proportions.

    Args:
        scores: Of held-out documents, in [0, 1], (N, L).
        references: True labels, bool, (N, L).
        least_score: Where the curve begins.
        max_points: As of `fit_isotonic`.

    Returns:
        `values` are [score, probability] of each point; or Platt's two numbers where fewer than `LEAST_TRUE` true
        labels are on the curve, which is too few for one.

    Raises:
        TypeError: As in `fit_platt`.
        ValueError: As in `fit_platt`.
    """
    _check(references, scores=scores)
    is_on = scores >= least_score
    if references[is_on].sum() < LEAST_TRUE:
        return fit_platt(scores, references)
    curve = fit_isotonic(scores[is_on][:, None], references[is_on][:, None], max_points).values
    values = [[0.0, 0.0], *(point for point in curve if point[0] >= least_score)]
    return _curve_fit(scores, references, values)


def pool_adjacent_violators(every: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The steps of the rising function of the scores that is nearest to the truth (Ayer et al. 1955).

    Args:
        every: All scores, ascending, (M).
        true: Those of them that are of true labels, ascending.

    Returns:
        Number of scores in each step, and of the true ones, (S) int64; equal scores are in one step, and the share of
        true ones rises from step to step.
    """
    values, counts = np.unique(true, return_counts=True)
    below, upto = np.searchsorted(every, values), np.searchsorted(every, values, side="right")
    # Between the values of true scores lie runs of others, each a step of its own to begin with.
    edges = np.append(np.stack([below, upto], axis=1).ravel(), len(every))
    sizes, hits = np.diff(edges, prepend=0), np.zeros(len(edges), dtype=np.int64)
    hits[1::2] = counts
    stack: list[tuple[int, int]] = []
    for size, num_true in zip(sizes.tolist(), hits.tolist(), strict=True):
        if size == 0:
            continue
        while stack and stack[-1][1] * size >= num_true * stack[-1][0]:  # in integers, without rounding
            last_size, last_true = stack.pop()
            size, num_true = size + last_size, num_true + last_true
        stack.append((size, num_true))
    steps = np.array(stack, dtype=np.int64)
    return steps[:, 0], steps[:, 1]


def _join_steps(sizes: np.ndarray, hits: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many steps, of about as many true labels each."""
    if len(sizes) <= most:
        return sizes, hits
    part = np.minimum((np.cumsum(hits) - hits) * most // max(1, hits.sum()), most - 1)
    starts = np.flatnonzero(np.r_[True, np.diff(part) > 0])
    return np.add.reduceat(sizes, starts), np.add.reduceat(hits, starts)


class HypothesisWeights(NamedTuple):
    """How hypotheses are weighted, and what that reached on the documents of the fit.

    Attributes:
        lexical_weight: What a label's lexical log-odds count beside the log-probability of the decoder.
        temperature: What the sum is divided by.
        value: Of the criterion, the higher the better.
        value_before: The same at weight 0 and temperature 1.
    """

    lexical_weight: float
    temperature: float
    value: float
    value_before: float


def fit_hypothesis_weights(
    hypotheses: np.ndarray,
    log_probs: np.ndarray,
    lexical_logits: np.ndarray,
    references: np.ndarray,
    criterion: str = "exact_match",
    lexical_weights: Sequence[float] = LEXICAL_WEIGHTS,
    temperatures: Sequence[float] = TEMPERATURES,
) -> HypothesisWeights:
    """The weight and the temperature of `reweighted_log_probs` that serve a criterion best, tried one by one.

    Args:
        hypotheses: Label sequences of held-out documents, (N, K, n) integers; L and above are no labels.
        log_probs: Their log-probabilities, (N, K); -inf for those not to count.
        lexical_logits: Log-odds of each label given the words, (N, L).
        references: True labels, bool, (N, L).
        criterion: `"exact_match"`, the share of documents whose most probable set is right; `"likelihood"`, the mean
            log-probability of the true set among the hypotheses, where it is one; `"nll"`, minus the mean negative
            log-likelihood of a label under the mean of both sources; `"micro_f1"` of that mean, at its best threshold.
        lexical_weights: To try.
        temperatures: To try.

    Returns:
        The best pair; of pairs alike the one with the least lexical weight, then the temperature nearest to 1.

    Raises:
        TypeError: If `references` is not boolean.
        ValueError: If the shapes do not fit, there is no such criterion or nothing to try, or `"likelihood"` finds no
            true set among the hypotheses.
    """
    _check(references)
    if criterion not in CRITERIA:
        raise ValueError(f"criterion is {criterion!r}; choose one of {', '.join(CRITERIA)}.")
    if hypotheses.shape[:2] != log_probs.shape or hypotheses.ndim != 3 or not log_probs.size:
        raise ValueError(f"hypotheses have the shape {hypotheses.shape}, log_probs {log_probs.shape}; give (N, K, n).")
    if len(hypotheses) != len(references) or lexical_logits.shape != references.shape:
        raise ValueError(
            f"there are hypotheses of {len(hypotheses)} documents, lexical_logits {lexical_logits.shape} and "
            f"references {references.shape}; give the same documents and labels."
        )
    pairs = [(float(weight), float(t)) for weight in lexical_weights for t in temperatures]
    if not pairs or min(t for _, t in pairs) <= 0 or min(weight for weight, _ in pairs) < 0:
        raise ValueError(f"the pairs to try are {pairs}; give weights of at least 0 and temperatures above 0.")
    pairs = sorted({*pairs, (0.0, 1.0)}, key=lambda pair: (pair[0], abs(np.log(pair[1])), pair[1]))
    values = _values_of_pairs(hypotheses, log_probs, lexical_logits, references, criterion, pairs)
    offered = [i for i, (weight, t) in enumerate(pairs) if weight in lexical_weights and t in temperatures]
    best = max(values[i] for i in offered)
    # Sums of other orders differ by rounding: a pair has to be better by more than that.
    chosen = next(i for i in offered if values[i] >= best - 1e-9 * max(1.0, abs(best)))
    return HypothesisWeights(*pairs[chosen], values[chosen], values[0])


def _values_of_pairs(
    hypotheses: np.ndarray,
    log_probs: np.ndarray,
    lexical_logits: np.ndarray,
    references: np.ndarray,
    criterion: str,
    pairs: list[tuple[float, float]],
) -> list[float]:
    """The criterion of each pair of weight and temperature."""
    totals = [np.zeros(())] * len(pairs)
    num_labels = references.shape[1]
    for rows in _blocks(references, (num_labels + 3) * hypotheses.shape[1]):
        ids = hypotheses[rows].clip(max=num_labels)
        contains = np.zeros((*ids.shape[:2], num_labels + 1), dtype=bool)
        np.put_along_axis(contains, ids, True, axis=2)
        contains = contains[..., :-1]  # (b, K, L)
        lexical = lexical_logits[rows].astype(np.float64).clip(-_MAX_LOG_ODDS, _MAX_LOG_ODDS)  # (b, L)
        sums = np.matmul(contains.astype(np.float64), lexical[..., None])[..., 0]  # (b, K)
        is_true = (contains == references[rows, None]).all(axis=2)  # (b, K)
        words = probabilities(lexical)  # (b, L)
        # (b, K, K), one hypothesis after the other: all at once would take K times the memory.
        same = np.stack([(contains == one[:, None]).all(axis=2) for one in contains.swapaxes(0, 1)], axis=2)
        for i, (weight, temperature) in enumerate(pairs):
            weighted = (log_probs[rows].astype(np.float64) + weight * sums) / temperature  # (b, K)
            top = weighted.max(axis=1, keepdims=True)
            probs = np.exp(weighted - np.where(np.isneginf(top), 0.0, top))
            probs /= np.maximum(probs.sum(axis=1, keepdims=True), 1e-300)  # (b, K), zeros where none counts
            if criterion == "exact_match":
                totals[i] = totals[i] + _num_right(probs, weighted, same, is_true)
            elif criterion == "likelihood":
                found = (probs * is_true).sum(axis=1)
                found = found[(is_true & ~np.isneginf(weighted)).any(axis=1)]
                totals[i] = totals[i] + [np.log(found.clip(min=1e-300)).sum(), len(found)]
            else:
                mean = (np.matmul(probs[:, None], contains)[:, 0] + words) / 2  # (b, L)
                totals[i] = totals[i] + _label_sums(mean, references[rows], criterion)
    return [_criterion_value(total, references, criterion) for total in totals]


def _num_right(probs: np.ndarray, weighted: np.ndarray, same: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    """The number of documents whose most probable set, its orders added up, is the true one."""
    total = np.matmul(same, probs[..., None])[..., 0]  # (b, K)
    # Rounding must not decide between the orders of a set, nor between sets alike: then the most probable order does.
    is_best = total >= total.max(axis=1, keepdims=True) * (1 - 1e-12)
    best = np.where(is_best, weighted, -np.inf).argmax(axis=1)[:, None]
    counts = ~np.isneginf(weighted).all(axis=1)
    return np.array((np.take_along_axis(is_true, best, axis=1)[:, 0] & counts).sum())


def _label_sums(mean: np.ndarray, truth: np.ndarray, criterion: str) -> np.ndarray:
    """What the criterion needs of the scores of a block: a sum, or numbers of scores, and true ones, in 4,097 bins."""
    if criterion == "nll":
        return np.array(_summed_nll(log_odds(mean), truth))
    bins = (mean * 4096).astype(np.int64)
    return np.stack([np.bincount(found.ravel(), minlength=4097) for found in (bins, bins[truth])])


def _criterion_value(total: np.ndarray, references: np.ndarray, criterion: str) -> float:
    """The criterion from its sums over all documents."""
    if criterion == "exact_match":
        return float(total / len(references))
    if criterion == "nll":
        return -float(total / references.size)
    if criterion == "likelihood":
        if total.shape != (2,) or total[1] == 0:
            raise ValueError(
                "no true set is among the hypotheses, so their likelihood cannot be compared; give more hypotheses, "
                "or choose another criterion."
            )
        return float(total[0] / total[1])
    selected, hits = total[:, ::-1].cumsum(axis=1)
    return float((2 * hits / np.maximum(1, selected + references.sum())).max())


Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


def cross_validated(
    rule: Rule, num_documents: int, num_folds: int = 5, seed: int = 0, copy_of: np.ndarray | None = None
) -> np.ndarray:
    """What a fitted rule predicts for documents that it was not fitted on, each of them once.

    Args:
        rule: Fits on the documents of its first argument (their places, ascending) and returns the prediction for
            each of those of the second, e.g. label sets (n, L).
        num_documents: N.
        num_folds: Parts, of which each is predicted from the others; no more than documents.
        seed: Of the parts.
        copy_of: Where documents appear more than once, a number for each that copies of it share, (N): they come into
            the same part, or a rule would be judged on what it was fitted to.

    Returns:
        The predictions, in the order of the documents.

    Raises:
        ValueError: If there are fewer than two documents or folds.
    """
    if min(num_documents, num_folds) < 2:
        raise ValueError(
            f"{num_documents} documents in {num_folds} folds: a rule is judged with two of each at least."
        )
    own = np.arange(num_documents) if copy_of is None else copy_of  # (N)
    order = np.random.default_rng(seed).permutation(np.unique(own))
    parts = np.array_split(order, min(num_folds, len(order)))
    folds = [np.flatnonzero(np.isin(own, part)) for part in parts]
    predictions = [rule(np.setdiff1d(np.arange(num_documents), fold), fold) for fold in folds]
    return np.concatenate(predictions)[np.argsort(np.concatenate(folds))]


def choose_rule(
    rules: Mapping[str, Rule],
    value: Callable[[np.ndarray], float],
    num_documents: int,
    num_folds: int = 5,
    seed: int = 0,
    copy_of: np.ndarray | None = None,
) -> tuple[str, dict[str, float]]:
    """The rule whose cross-validated predictions are best.

    Args:
        rules: By name, the simplest first: of rules alike the first is chosen.
        value: Of the predictions of all documents, the higher the better.
        num_documents: N.
        num_folds: As in `cross_validated`; all rules see the same parts.
        seed: Of the parts.
        copy_of: As in `cross_validated`.

    Returns:
        Its name, and the value of each.

    Raises:
        ValueError: As in `cross_validated`, or if there is no rule.
    """
    if not rules:
        raise ValueError("there is no rule to choose from; give at least one.")
    values = {
        name: float(value(cross_validated(rule, num_documents, num_folds, seed, copy_of)))
        for name, rule in rules.items()
    }
    return max(values, key=lambda name: values[name]), values


def _curve_fit(scores: np.ndarray, references: np.ndarray, points: list[list[float]]) -> CalibrationFit:
    """The fit of a curve through points, with its likelihoods."""
    curve = np.array(points)
    before = after = 0.0
    for rows in _blocks(references):
        before += _summed_nll(log_odds(scores[rows]), references[rows])
        after += _summed_nll(log_odds(np.interp(scores[rows], curve[:, 0], curve[:, 1])), references[rows])
    return CalibrationFit(points, before / references.size, after / references.size)


def _one_source(scores: np.ndarray, references: np.ndarray, weights: np.ndarray) -> CalibrationFit:
    """The fit of a slope and perhaps an intercept, with its likelihoods."""
    slope, intercept = float(max(weights[0], _LEAST_SLOPE)), float(weights[1]) if len(weights) > 1 else 0.0
    if slope > weights[0] and len(weights) > 1:
        share = (references.sum() + 1) / (references.size + 2)
        intercept = float(np.log(share) - np.log1p(-share))
    before = after = 0.0
    for rows in _blocks(references):
        values, truth = log_odds(scores[rows]), references[rows]
        before += _summed_nll(values, truth)
        after += _summed_nll(slope * values + intercept, truth)
    return CalibrationFit([slope, intercept], before / references.size, after / references.size)


def fit_logistic(
    features: Callable[[slice], np.ndarray],
    num_features: int,
    references: np.ndarray,
    l2: float = 0.0,
    has_intercept: bool = True,
) -> np.ndarray:
    """Logistic regression on Platt's targets: weights of the features `(D, cells)` of rows, then the intercept."""
    positives = int(references.sum())
    high, low = (positives + 1) / (positives + 2), 1 / (references.size - positives + 2)
    penalty = np.array([l2] * num_features + [0.0] * has_intercept)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, hessian = 0.5 * penalty @ weights**2, penalty * weights, np.diag(penalty + 1e-10)
        for rows in _blocks(references):
            x = features(rows)
            x = np.concatenate([x, np.ones((1, x.shape[1]))]) if has_intercept else x
            target = np.where(references[rows].ravel(), high, low)
            logits = weights @ x
            probs = probabilities(logits)
            value += float(np.sum(np.logaddexp(0, logits) - target * logits))
            gradient = gradient + x @ (probs - target)
            hessian = hessian + (x * (probs * (1 - probs))) @ x.T
        return value, gradient, hessian

    # From no slope and the share of true labels, where the curvature is greatest.
    weights = np.zeros(len(penalty))
    if has_intercept:
        weights[-1] = np.log((positives + 1) / (references.size - positives + 1))
    value, gradient, hessian = loss(weights)
    for _ in range(100):
        direction = np.linalg.solve(hessian, gradient)
        expected = float(gradient @ direction)
        if expected <= 1e-12 * (1 + abs(value)):
            break
        length = 1.0
        while length > 1e-10:  # the loss is convex, so halving ends
            tried = weights - length * direction
            new = loss(tried)
            if new[0] <= value - 1e-4 * length * expected:
                break
            length /= 2
        else:
            break
        weights, (value, gradient, hessian) = tried, new
    return weights


def _summed_nll(logits: np.ndarray, truth: np.ndarray) -> float:
    """The negative log-likelihood of the truth, in nats."""
    return float(np.sum(np.logaddexp(0, np.where(truth, -logits, logits))))


def _blocks(matrix: np.ndarray, cells_per_row: int | None = None) -> Iterator[slice]:
    """Rows of a matrix, block after block of bounded size."""
    step = max(1, _MAX_CELLS // max(1, cells_per_row or matrix[0].size))
    return (slice(start, start + step) for start in range(0, len(matrix), step))


def _check(references: np.ndarray, **scores: np.ndarray) -> None:
    """Refuses what is no matrix of truth and matrices of scores."""
    if not isinstance(references, np.ndarray) or references.dtype != np.bool_:
        found = getattr(references, "dtype", type(references).__name__)
        raise TypeError(f"references must be an array of bool, got {found}: turn 0/1 into bool with .astype(bool).")
    if references.ndim != 2 or references.size == 0:
        raise ValueError(
            f"references have the shape {references.shape}; give (documents, labels), one of each at least."
        )
    for name, matrix in scores.items():
        if matrix.shape != references.shape:
            raise ValueError(f"references have the shape {references.shape}, {name} {matrix.shape}; give the same.")
        # Rounding moves a ratio of sums so far. Not `(matrix < …).any()`, which NaN would pass.
        if not ((matrix >= -1e-5) & (matrix <= 1 + 1e-5)).all():
            raise ValueError(
                f"{name} must lie in [0, 1], but they span {matrix.min()} to {matrix.max()}: give probabilities."
            )
