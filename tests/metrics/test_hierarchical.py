"""Hierarchical precision, recall and F1 against sets of names, and against the flat ones."""

import numpy as np
import pytest

from sgm_hf.metrics import compute_hierarchical_metrics, compute_metrics
from sgm_hf.metrics.hierarchical import add_ancestor_columns


def ancestors_of(label, parents):
    return {label} if parents[label] < 0 else {label} | ancestors_of(parents[label], parents)


def random_forest(random, num_labels):
    """Parents in no order of depth."""
    places = random.permutation(num_labels)
    parents = np.full(num_labels, -1)
    for place in range(num_labels // 4, num_labels):
        parents[places[place]] = places[random.integers(place)]
    return parents


@pytest.mark.parametrize("seed", range(5))
def test_they_are_those_of_sets_with_their_ancestors(seed):
    random = np.random.default_rng(seed)
    parents = random_forest(random, 20)
    references, predictions = random.random((2, 30, 20)) < 0.1

    def closed(row):
        return set().union(*(ancestors_of(label, parents) for label in np.flatnonzero(row)))

    pairs = [(closed(true), closed(found)) for true, found in zip(references, predictions, strict=True)]
    hits = sum(len(true & found) for true, found in pairs)
    precision = hits / sum(len(found) for _, found in pairs)
    recall = hits / sum(len(true) for true, _ in pairs)
    metrics = compute_hierarchical_metrics(references, predictions, parents)
    assert metrics["hierarchical_precision"] == pytest.approx(precision)
    assert metrics["hierarchical_recall"] == pytest.approx(recall)
    assert metrics["hierarchical_f1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_they_are_the_flat_ones_without_a_hierarchy_and_for_complete_sets():
    random = np.random.default_rng(0)
    references, predictions = random.random((2, 30, 20)) < 0.2

    def agree(references, predictions, parents):
        flat = compute_metrics(references, predictions)
        metrics = compute_hierarchical_metrics(references, predictions, parents)
        assert list(metrics.values()) == [flat[f"micro_{name}"] for name in ("precision", "recall", "f1")]

    agree(references, predictions, np.full(20, -1))
    parents = random_forest(random, 20)
    agree(add_ancestor_columns(references, parents), add_ancestor_columns(predictions, parents), parents)


def test_a_wrong_label_shares_the_ancestors_of_the_true_one():
    """F (below C, below B) taken for G (below E, below C): B and C are among the four of G and the three of F."""
    columns = {name: place for place, name in enumerate("BCEFG")}
    parents = np.array([-1, columns["B"], columns["C"], columns["C"], columns["E"]])
    references, predictions = np.zeros((2, 1, 5), dtype=bool)
    references[0, columns["F"]] = predictions[0, columns["G"]] = True
    metrics = compute_hierarchical_metrics(references, predictions, parents)
    assert (metrics["hierarchical_precision"], metrics["hierarchical_recall"]) == (2 / 4, 2 / 3)


def test_the_matrices_given_stay_as_they_are():
    matrix = np.array([[False, True]])
    assert add_ancestor_columns(matrix, np.array([-1, 0])).all()
    assert matrix.tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("parents", "message"),
    [([1, 0], "cycle"), ([0, -1], "cycle"), ([-1], r"shape \(1,\)"), ([-1, 2], "from 0 to 1, or -1"), ([-2, 0], "-1")],
)
def test_parents_that_are_no_forest_are_refused(parents, message):
    matrix = np.ones((1, 2), dtype=bool)
    with pytest.raises(ValueError, match=message):
        compute_hierarchical_metrics(matrix, matrix, np.array(parents))
