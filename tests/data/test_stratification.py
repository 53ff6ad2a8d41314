"""Stratified splits: exact sizes, each label's share in both parts, no label lost to training."""

from collections import Counter

import numpy as np
import pytest

from sgm_hf.data.stratification import stratified_rows


def label_sets(documents, labels, seed=0):
    """Label ids as in real corpora: a few labels are frequent, most are rare, some documents have none."""
    generator = np.random.default_rng(seed)
    shares = 1 / np.arange(1, labels + 1)
    drawn = generator.choice(labels, (documents, 4), p=shares / shares.sum())
    return [list(dict.fromkeys(row[: generator.integers(0, 5)].tolist())) for row in drawn]


def counts_of(sets):
    return Counter(label for labels in sets for label in labels)


@pytest.mark.parametrize("count", [0, 1, 37, 500, 963, 1000])
def test_the_part_has_exactly_the_size_and_each_row_once(count):
    rows = stratified_rows(label_sets(1000, 30), count, seed=0)
    assert len(rows) == count and rows == sorted(set(rows)) and set(rows) <= set(range(1000))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_label_has_its_share_far_better_than_at_random(seed):
    sets = label_sets(3000, 60, seed)
    total, chosen = counts_of(sets), counts_of(sets[row] for row in stratified_rows(sets, 600, seed))
    random = counts_of(sets[row] for row in np.random.default_rng(seed).permutation(3000)[:600])
    off, off_at_random = (
        np.mean([abs(part[label] - 0.2 * number) for label, number in total.items()]) for part in (chosen, random)
    )
    assert off < 1 and off < off_at_random / 2.5, (off, off_at_random)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_label_is_lost_to_the_rest_where_random_loses_many(seed):
    sets = label_sets(500, 500, seed)
    total = counts_of(sets)
    part = counts_of(sets[row] for row in stratified_rows(sets, 50, seed))
    assert not [label for label in total if part[label] == total[label]]
    random = counts_of(sets[row] for row in np.random.default_rng(seed).permutation(500)[:50])
    assert len([label for label in total if random[label] == total[label]]) > 3


def test_labels_are_divided_as_the_library_for_it_does():
    stratifiers = pytest.importorskip("iterstrat.ml_stratifiers")
    sets = label_sets(2000, 40)
    matrix = np.zeros((2000, 40), dtype=int)
    for row, labels in enumerate(sets):
        matrix[row, labels] = 1
    splitter = stratifiers.MultilabelStratifiedShuffleSplit(n_splits=1, test_size=0.25, random_state=0)
    _, theirs = next(splitter.split(matrix, matrix))
    ours = stratified_rows(sets, 500, seed=0)
    wanted = 0.25 * matrix.sum(axis=0)
    errors = [np.abs(matrix[rows].sum(axis=0) - wanted).mean() for rows in (ours, theirs)]
    assert errors[0] <= errors[1] + 0.5, errors


def test_the_seed_chooses_and_repeats():
    sets = label_sets(300, 10)
    rows = [stratified_rows(sets, 60, seed) for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


def test_documents_without_any_label_are_divided_by_their_number():
    sets = [[0]] * 50 + [[]] * 50
    assert sum(row < 50 for row in stratified_rows(sets, 20, seed=0)) == 10
    assert len(stratified_rows([[]] * 10, 3, seed=0)) == 3 and stratified_rows([], 0, seed=0) == []


def test_more_documents_than_there_are_cannot_be_chosen():
    with pytest.raises(ValueError, match="4 documents cannot be chosen among 3"):
        stratified_rows([[0], [1], []], 4, seed=0)
