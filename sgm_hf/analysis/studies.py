"""What the papers' studies measure, computed from saved predictions.

All label matrices here are bool, of shape (N, L). Where frequent and rare labels are told apart, the columns go from
the most to the least frequent label of the training split: the order of the label ids of a model trained with
`label_order` "frequency" or "shuffled".
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgm_hf.data.labels import label_matrix
from sgm_hf.data.lines import read_json_lines
from sgm_hf.metrics import compute_metrics


def read_predictions(
    path: str | Path, label_names: Sequence[str], set_decoding: str = "best_sequence"
) -> tuple[np.ndarray, np.ndarray]:
    """Read true and predicted labels, (N, L) each, from the predictions of `sgm-hf train`.

    Args:
        path: A `predictions_<split>.jsonl` with gold labels.
        label_names: Names of the L labels, in the order of the columns.
        set_decoding: Which of its label sets to read: "labels", those that the run was set to, or "best_sequence",
            "threshold" or "expected_f1".

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line is not JSON, has no gold labels, or has a label that is not among the names.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the predictions {path} do not exist; run sgm-hf train with --do_predict true first.")
    columns = {name: column for column, name in enumerate(label_names)}
    gold, predicted = [], []
    for number, record in read_json_lines(path):
        try:
            gold.append([columns[label] for label in record["gold"]])
            predicted.append([columns[label] for label in record[set_decoding]])
        except KeyError as error:
            raise ValueError(
                f"{path}, line {number}: {error.args[0]!r} is missing: it is either a field the line lacks or a label "
                "that the model does not have."
            ) from error
    return label_matrix(gold, len(columns)), label_matrix(predicted, len(columns))


def without_top_labels(references: np.ndarray, predictions: np.ndarray, num_removed: Sequence[int]) -> list[float]:
    """Micro-F1 on the labels that remain without the k most frequent ones (Seq2Set, Figure 1).

    Args:
        references: True labels (N, L).
        predictions: Predicted labels (N, L).
        num_removed: The values of k; a micro-F1 is returned for each.

    Raises:
        ValueError: If a k is not in [0, L).
    """
    num_labels = references.shape[1]
    for k in num_removed:
        if not 0 <= k < num_labels:
            raise ValueError(
                f"{k} of {num_labels} labels cannot be left out; give numbers from 0 to {num_labels - 1}."
            )
    return [compute_metrics(references[:, k:], predictions[:, k:])["micro_f1"] for k in num_removed]


def by_frequency(references: np.ndarray, predictions: np.ndarray, share: float = 0.1) -> dict[str, float]:
    """Micro-F1 on the most and on the least frequent labels (Seq2Set, Figure 2).

    Args:
        references: True labels (N, L).
        predictions: Predicted labels (N, L).
        share: Share of the L labels (rounded, at least one) that is frequent, and that is rare; in the paper 0.1.

    Returns:
        `high` and `low`: the micro-F1 on the frequent and on the rare labels.

    Raises:
        ValueError: If `share` is not in (0, 0.5].
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"share is {share}; it must be above 0 and at most 0.5.")
    count = max(1, round(share * references.shape[1]))
    groups = {"high": slice(None, count), "low": slice(-count, None)}
    return {
        name: compute_metrics(references[:, columns], predictions[:, columns])["micro_f1"]
        for name, columns in groups.items()
    }


def degradation(metric: str, ordered: float, shuffled: float) -> float:
    """How much worse a metric becomes by shuffled label orders, relative to its value `ordered` (Seq2Set, Table 2).

    Metrics whose name ends in "_loss" are worse when they are larger, all others when they are smaller.

    Raises:
        ValueError: If `ordered` is 0.
    """
    if ordered == 0:
        raise ValueError(f"{metric} is 0 before shuffling: there is no relative change.")
    change = (shuffled - ordered) / ordered
    return change if metric.endswith("_loss") else -change


def label_correlations(labels: np.ndarray) -> np.ndarray:
    """The phi coefficient of each two labels: the correlation of having them (SGM, section 3.6.5).

    Args:
        labels: True or predicted labels (N, L).

    Returns:
        (L, L) in [-1, 1]; NaN for a label that no document has, or every one.
    """
    counts = labels.sum(axis=0, dtype=np.float64)  # (L)
    both = labels.T.astype(np.float64) @ labels  # (L, L), documents with both
    spread = counts * (len(labels) - counts)
    spread[spread == 0] = np.nan
    # n11 n - n1 n2 over the root of n1 (n - n1) n2 (n - n2).
    return (both * len(labels) - np.outer(counts, counts)) / np.sqrt(np.outer(spread, spread))


def clustered_order(correlations: np.ndarray) -> list[int]:
    """An order of the labels that puts correlated ones side by side, as a clustered heat map needs it.

    Average linkage: the two groups of labels with the greatest mean correlation are joined, again and again, each
    turned so that the labels that meet are the most alike. For tens of labels: its time grows with their cube.

    Args:
        correlations: (L, L), without NaN.
    """
    groups = [[label] for label in range(len(correlations))]
    while len(groups) > 1:
        pairs = [(a, b) for a in range(len(groups)) for b in range(a + 1, len(groups))]
        a, b = max(pairs, key=lambda pair: correlations[np.ix_(groups[pair[0]], groups[pair[1]])].mean())
        second = groups.pop(b)
        first = groups.pop(a)
        turned = [(one, two) for one in (first, first[::-1]) for two in (second, second[::-1])]
        first, second = max(turned, key=lambda ends: correlations[ends[0][-1], ends[1][0]])
        groups.insert(a, first + second)
    return groups[0]
