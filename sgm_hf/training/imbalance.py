"""What a training does for rare labels: weights of labels in the loss, and documents that come more than once."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sgm_hf.data.lines import object_of_distinct_keys
from sgm_hf.training.streaming import is_stream

WEIGHTINGS = ("none", "balanced", "effective_number")
BLOCK = 10_000


def read_label_weights(given: Mapping[str, float] | str | None) -> dict[str, float] | str:
    """Check how labels are to be weighted, and read a file of weights.

    Args:
        given: One of `WEIGHTINGS`, weights by label name, or a JSON file of these; None is "none".

    Returns:
        The name of the weighting, or the weights by label name.

    Raises:
        FileNotFoundError: If there is no such JSON file.
        TypeError: If weights are no mapping.
        ValueError: If it is no weighting, the file is not JSON or has a label twice, or a weight is not a finite
            number from 0 on.
    """
    expected = f"expected {', '.join(WEIGHTINGS)}, or weights by label name: a mapping, or a .json file of one"
    if given is None or (isinstance(given, str) and given in WEIGHTINGS):
        return given or "none"
    weights = read_numbers_by_label(given, "label_weights", expected)
    for name, weight in weights.items():
        if weight < 0:
            raise ValueError(f"label_weights: the weight of {name!r} is {weight:g}; expected a number from 0 on.")
    return weights


def read_numbers_by_label(given: Mapping[str, float] | str, setting: str, expected: str) -> dict[str, float]:
    """A finite number for each label name, given so or in a JSON file.

    Args:
        given: The numbers, or the path of the file, which ends in ".json".
        setting: What they are given for, for the errors.
        expected: What is expected there, for the errors.

    Raises:
        FileNotFoundError: If there is no such JSON file.
        TypeError: If they are no mapping.
        ValueError: If the file is not JSON or has a label twice, or there is something else than finite numbers.
    """
    numbers: Any = given
    if isinstance(given, str):
        if not given.endswith(".json"):
            raise ValueError(f"{setting} is {given!r}; {expected}.")
        if not Path(given).is_file():
            raise FileNotFoundError(f"{setting} is {given!r}, but there is no such file; {expected}.")
        try:
            text = Path(given).read_text(encoding="utf-8-sig")
            numbers = json.loads(text, object_pairs_hook=object_of_distinct_keys)
        except (RecursionError, ValueError) as error:
            raise ValueError(f"{setting}: {given} cannot be read ({error}); {expected}.") from error
    if not isinstance(numbers, Mapping):
        raise TypeError(f"{setting}: {given!r:.100} is no mapping but a {type(numbers).__name__}; {expected}.")
    for name, number in numbers.items():
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not is_number or not math.isfinite(number):
            raise ValueError(f"{setting}: {name!r} has {number!r}; expected a finite number.")
    return {name: float(number) for name, number in numbers.items()}


def label_occurrences(dataset: Any, setting: str) -> tuple[np.ndarray, np.ndarray]:
    """The document number and the label id of each label of encoded documents, (O) int64 each.

    Args:
        dataset: The documents.
        setting: What they are needed for, for the error.

    Raises:
        ValueError: If the documents are a stream.
    """
    if is_stream(dataset):
        raise ValueError(
            f"{setting} needs to know how frequent the labels are, but train_dataset is an IterableDataset, whose "
            "documents are not counted; leave it out, or give label_weights by label name."
        )
    counts, labels = [], []
    for block in dataset.select_columns("labels").with_format("arrow").iter(batch_size=BLOCK):
        lists = block["labels"].combine_chunks()
        counts.append(np.asarray(lists.value_lengths(), dtype=np.int64))
        labels.append(np.asarray(lists.flatten(), dtype=np.int64))
    return np.repeat(np.arange(len(dataset)), np.concatenate(counts)), np.concatenate(labels)


def document_repeat_factors(dataset: Any, threshold: float) -> np.ndarray:
    """How often each document comes in an epoch on average (Gupta et al. 2019, "LVIS", repeat factor sampling).

    A label that a share f of the documents has gets the factor max(1, √(threshold / f)), and a document that of its
    rarest label.

    Args:
        dataset: Encoded training documents.
        threshold: The share of documents below which a label is rare.

    Returns:
        A factor of at least 1 for each document, (N) float64.

    Raises:
        ValueError: If the documents are a stream.
    """
    documents, labels = label_occurrences(dataset, "repeat_factor_threshold")
    shares = np.bincount(labels) / len(dataset)  # (L)
    factors = np.ones(len(dataset))  # (N)
    np.maximum.at(factors, documents, np.sqrt(threshold / shares[labels]))
    return factors


def balanced_weights(counts: np.ndarray, weighting: str, beta: float) -> np.ndarray:
    """Weights that make rare labels count more, of mean 1 over all targets.

    Args:
        counts: How often each label is a target, (L).
        weighting: "balanced": inverse to the count n; "effective_number": inverse to the effective number of documents
            (1 - β^n) / (1 - β) (Cui et al. 2019, "Class-Balanced Loss", section 4): n for β near 1, 1 for β = 0.
        beta: β, from 0 to below 1.

    Returns:
        The weights, (L) float64; 1 where a label never is a target.
    """
    weights = np.ones(len(counts))  # (L)
    is_target = counts > 0  # (L)
    n = counts[is_target]
    if n.size:
        raw = 1 / n
        if weighting == "effective_number":
            # expm1, because 1 - β^n loses its digits where β is near 1
            raw = (beta - 1) / np.expm1(n * (math.log(beta) if beta else -math.inf))
        weights[is_target] = raw * (n.sum() / (raw @ n))
    return weights


def make_label_weights(
    weighting: Mapping[str, float] | str,
    names: Sequence[str],
    dataset: Any,
    beta: float,
    repeat_factors: np.ndarray | None = None,
) -> torch.Tensor:
    """The factors on the losses of the targets, in the order of the label ids.

    Args:
        weighting: "balanced", "effective_number", or weights by label name.
        names: The L labels.
        dataset: The encoded training documents, whose labels are counted unless there are weights by name.
        beta: Of "effective_number".
        repeat_factors: How often each document comes in an epoch on average, (N); once by default.

    Returns:
        (L + 1) float32; 1 for a label that has no weight, and for eos.

    Raises:
        ValueError: If there is no such weighting or label, or labels are to be counted in a stream.
    """
    # eos ends every document: by its frequency it would hardly count, and sets would be of any size.
    weights = np.ones(len(names) + 1)  # (L + 1)
    if isinstance(weighting, str):
        if weighting not in WEIGHTINGS:  # of a trial of a search, which sets what it likes
            raise ValueError(f"label_weights is {weighting!r}; expected one of {', '.join(WEIGHTINGS)}.")
        documents, labels = label_occurrences(dataset, f"label_weights {weighting}")
        factors = None if repeat_factors is None else repeat_factors[documents]
        weights[:-1] = balanced_weights(np.bincount(labels, factors, minlength=len(names)), weighting, beta)
        return torch.tensor(weights, dtype=torch.float32)
    ids = {name: label for label, name in enumerate(names)}
    for name, weight in weighting.items():
        if name not in ids:
            raise ValueError(
                f"label_weights has {name!r}, which is none of the {len(names)} labels of the training "
                f"({', '.join(map(repr, names[:5]))}{', …' if len(names) > 5 else ''}); correct or remove it. A label "
                "without an entry has the weight 1."
            )
        weights[ids[name]] = weight
    return torch.tensor(weights, dtype=torch.float32)
