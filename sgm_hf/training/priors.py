"""Label frequencies other than those of the training documents, and what a calibration makes of them.

A model learns how frequent labels are where it is trained. Where texts of a label stay alike but labels become more or
less frequent ("prior shift", Saerens, Latinne and Decaestecker 2002), its scores are wrong by a known amount: the odds
of each label change by the ratio of its new odds to its old ones.

Shapes: N training documents, O labels of all of them together, L labels, M documents of a calibration.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from sgm_hf.training.calibration import log_odds
from sgm_hf.training.imbalance import label_occurrences, read_numbers_by_label

# Shares that are asked for are met to this; a share of .001 of a million documents, which is the error of 30 of them.
_TOLERANCE = 3e-5


class PriorShift(NamedTuple):
    """How training documents have to count for their labels to be as frequent as those of other documents.

    Attributes:
        set_log_weights: A document counts exp(sum over its labels), up to a constant, (L) float64.
        log_odds: What the log-odds of each label change by, (L) float64.
    """

    set_log_weights: np.ndarray
    log_odds: np.ndarray

    def weights(self, references: np.ndarray) -> np.ndarray:
        """What documents count, of mean 1, (M); `references` are their true labels, bool, (M, L)."""
        log_weights = references @ self.set_log_weights
        weights = np.exp(log_weights - log_weights.max(initial=0.0))
        return weights / weights.mean()


def read_label_frequencies(given: Mapping[str, float] | str | None) -> dict[str, float] | None:
    """Check label frequencies, and read a file of them.

    Args:
        given: The share of documents that has each label, above 0 and below 1: by label name, or a JSON file of these.

    Returns:
        The shares by label name; None for none.

    Raises:
        FileNotFoundError: If there is no such JSON file.
        TypeError: If it is no mapping.
        ValueError: If the file is not JSON or has a label twice, or a share is not a number above 0 and below 1.
    """
    if given is None:
        return None
    frequencies = read_numbers_by_label(given, "label_frequencies", "expected shares of documents by label name")
    for name, share in frequencies.items():
        if not 0 < share < 1:
            raise ValueError(
                f"label_frequencies: the share of {name!r} is {share:g}; expected a share of the documents, above 0 "
                "and below 1."
            )
    return frequencies or None


def fit_prior_shift(dataset: Any, names: Sequence[str], frequencies: Mapping[str, float]) -> PriorShift:
    """The weights of training documents that are nearest to equal and give labels the frequencies asked for.

    Nearest by relative entropy, which makes the weight of a document a product over its labels (Deming and Stephan
    1940, "raking"; here by L-BFGS on the dual). Labels that are not asked for go with those that they appear with.

    Args:
        dataset: Encoded training documents.
        names: Of the labels, by id.
        frequencies: The share of documents that has each label, by name.

    Raises:
        ValueError: If a name is no label, no training document has a label, or labels that always appear together are
            to have different shares.
    """
    ids = {name: label_id for label_id, name in enumerate(names)}
    unknown = [name for name in frequencies if name not in ids]
    if unknown:
        raise ValueError(
            f"label_frequencies has {unknown[0]!r}, which is none of the {len(names)} labels of the training "
            f"documents (a further {len(unknown) - 1} are not); give their names as they are written there."
        )
    documents, labels = label_occurrences(dataset, "label_frequencies")  # (O), (O)
    is_own = labels < len(names)  # a file may have labels that the model has not
    documents, labels = documents[is_own], labels[is_own]
    counts = np.bincount(labels, minlength=len(names))  # (L)
    asked = np.array([ids[name] for name in frequencies], dtype=np.int64)
    missing = [names[label_id] for label_id in asked if counts[label_id] in (0, len(dataset))]
    if missing:
        raise ValueError(
            f"label_frequencies asks for {frequencies[missing[0]]:g} of {missing[0]!r}, which no or every training "
            "document has; leave it out, or add documents."
        )
    target = np.array([frequencies[names[label_id]] for label_id in asked])
    set_log_weights = np.zeros(len(names))  # (L)
    set_log_weights[asked] = _rake(documents, labels, len(dataset), len(names), asked, target)
    log_weights = np.bincount(documents, set_log_weights[labels], minlength=len(dataset))  # (N)
    weights = np.exp(log_weights - log_weights.max())
    shares = np.bincount(labels, weights[documents], minlength=len(names)) / weights.sum()  # (L)
    worst = int(np.abs(shares[asked] - target).argmax())
    if abs(shares[asked[worst]] - target[worst]) > max(_TOLERANCE, 0.01 * target[worst]):
        raise ValueError(
            f"label_frequencies: no weights of the training documents give all these shares; "
            f"{names[asked[worst]]!r} gets {shares[asked[worst]]:.4f}, not {target[worst]:.4f}. Labels that always "
            "appear together can have one share only; leave one of them out."
        )
    has_odds = (counts > 0) & (counts < len(dataset))  # (L)
    shift = np.zeros(len(names))  # (L)
    shift[has_odds] = log_odds(shares[has_odds]) - log_odds(counts[has_odds] / len(dataset))
    return PriorShift(set_log_weights, shift)


def resampled_rows(weights: np.ndarray) -> np.ndarray:
    """Row numbers, as many as weights, each in proportion to its weight (systematic sampling), ascending."""
    places = (np.arange(len(weights)) + 0.5) * weights.sum() / len(weights)
    return np.searchsorted(np.cumsum(weights), places).clip(max=len(weights) - 1)


def _rake(
    documents: np.ndarray,
    labels: np.ndarray,
    num_documents: int,
    num_labels: int,
    asked: np.ndarray,
    target: np.ndarray,
) -> np.ndarray:
    """The log-weight of each label asked for: where log(sum of the documents' weights) - target @ it is least."""
    rows, columns = torch.from_numpy(documents), torch.from_numpy(labels)  # (O), (O)
    places, goal = torch.from_numpy(asked), torch.from_numpy(target)
    values = torch.zeros(len(asked), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [values], max_iter=500, tolerance_grad=_TOLERANCE / 10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        spread = torch.zeros(num_labels, dtype=torch.float64).index_put((places,), values)  # (L)
        log_weights = torch.zeros(num_documents, dtype=torch.float64).index_add(0, rows, spread[columns])  # (N)
        value = log_weights.logsumexp(0) - goal @ values
        value.backward()
        return value

    optimizer.step(loss)
    return values.detach().numpy()
