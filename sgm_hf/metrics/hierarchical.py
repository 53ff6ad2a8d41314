"""Hierarchical precision, recall and F1 (Kiritchenko, Matwin, Nock and Famili 2006, section 3).

"Learning and Evaluation in the Presence of Class Hierarchies: Application to Text Categorization", Canadian AI 2006.
A wrong label near the true one shares ancestors with it, and so costs less than one from another branch.
"""

import numpy as np

from sgm_hf.metrics.multilabel import check_matrices, precision_recall_f1

HIERARCHICAL_METRICS = ("hierarchical_precision", "hierarchical_recall", "hierarchical_f1")


def compute_hierarchical_metrics(
    references: np.ndarray, predictions: np.ndarray, parents: np.ndarray
) -> dict[str, float]:
    """Compare predicted label sets with the true ones, both completed by the ancestors of their labels.

    Args:
        references: True labels, bool, shape (N, L).
        predictions: Predicted labels, bool, shape (N, L).
        parents: The column of each label's parent, -1 where there is none, integer, shape (L). A root above all
            labels, which every document would have, is no label and has no column.

    Returns:
        `hierarchical_precision`, `hierarchical_recall` and `hierarchical_f1`, from the counts summed over all
        documents and labels. Without any parent they are `micro_precision`, `micro_recall` and `micro_f1`.

    Raises:
        TypeError: If a matrix is not a boolean numpy array.
        ValueError: If the shapes differ, or `parents` is not a forest over the columns.
    """
    check_matrices(references, "predictions", predictions, "b", "bool")
    references, predictions = (add_ancestor_columns(matrix, parents) for matrix in (references, predictions))
    values = precision_recall_f1((references & predictions).sum(), predictions.sum(), references.sum())
    return {name: float(value) for name, value in zip(HIERARCHICAL_METRICS, values, strict=True)}


def add_ancestor_columns(matrix: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """A copy of label sets in which each set has the ancestors of its labels.

    Args:
        matrix: Bool, shape (N, L).
        parents: The column of each label's parent, -1 where there is none, integer, shape (L).

    Raises:
        ValueError: If there is not one parent for each column, one is no column, or labels are above each other in a
            circle.
    """
    num_labels = matrix.shape[1]
    if np.shape(parents) != (num_labels,) or not ((-1 <= parents) & (parents < num_labels)).all():
        raise ValueError(
            f"parents has the shape {np.shape(parents)}, but the matrices have {num_labels} columns: give the number "
            f"of the parent's column for each, from 0 to {num_labels - 1}, or -1."
        )
    closed = matrix.copy()
    rows, labels = matrix.nonzero()
    for _ in range(num_labels):  # all sets climb one level at a time
        above = parents[labels]
        rows, labels = rows[above >= 0], above[above >= 0]
        if not len(labels):
            return closed
        closed[rows, labels] = True
    raise ValueError("parents has a cycle: a label is among its own ancestors; expected a forest.")
