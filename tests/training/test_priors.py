"""Label frequencies other than in training: the weights are those of raking, and scores change by the right odds."""

import json

import numpy as np
import pytest
from datasets import Dataset

from sgm_hf.training.priors import fit_prior_shift, read_label_frequencies, resampled_rows

NAMES = ["a", "b", "c"]


def make_dataset(label_sets: list[list[int]]) -> Dataset:
    return Dataset.from_dict({"labels": label_sets})


def random_sets(count: int = 500, seed: int = 0) -> tuple[list[list[int]], np.ndarray]:
    """Label sets with dependent labels, as lists and as (N, L) bool."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, 3)) < [0.5, 0.2, 0.1]
    truth[:, 2] |= truth[:, 1] & (rng.random(count) < 0.5)
    return [np.flatnonzero(row).tolist() for row in truth], truth


def test_one_label_gets_the_weights_of_textbooks():
    sets = [[0]] * 20 + [[]] * 80
    shift = fit_prior_shift(make_dataset(sets), NAMES[:1], {"a": 0.5})
    weights = shift.weights(np.array([[True], [False]]))
    np.testing.assert_allclose(weights[0] / weights[1], 4.0, rtol=1e-3)  # (.5 / .2) / (.5 / .8)
    np.testing.assert_allclose(shift.log_odds, np.log(4.0), atol=1e-3)


def test_weighted_documents_have_the_frequencies_asked_for_and_others_follow():
    sets, truth = random_sets()
    shift = fit_prior_shift(make_dataset(sets), NAMES, {"a": 0.3, "b": 0.5})
    weights = shift.weights(truth)
    shares = weights @ truth / len(truth)
    np.testing.assert_allclose(shares[:2], [0.3, 0.5], atol=1e-3)
    assert shift.set_log_weights[2] == 0 and shares[2] > truth[:, 2].mean()  # c goes with b
    expected = np.log(shares / (1 - shares)) - np.log(truth.mean(axis=0) / (1 - truth.mean(axis=0)))
    np.testing.assert_allclose(shift.log_odds, expected, atol=1e-6)


def test_frequencies_as_they_are_change_nothing():
    sets, truth = random_sets()
    shift = fit_prior_shift(make_dataset(sets), NAMES, dict(zip(NAMES, truth.mean(axis=0), strict=True)))
    np.testing.assert_allclose(shift.weights(truth), 1.0, atol=1e-3)
    np.testing.assert_allclose(shift.log_odds, 0.0, atol=1e-3)


def test_weights_equal_iterative_proportional_fitting():
    sets, truth = random_sets()
    target = np.array([0.3, 0.5, 0.2])
    weights = np.ones(len(truth))
    for _ in range(500):  # the textbook's loop: scale the documents with and without each label in turn
        for label in range(3):
            share = weights @ truth[:, label] / weights.sum()
            weights *= np.where(truth[:, label], target[label] / share, (1 - target[label]) / (1 - share))
    shift = fit_prior_shift(make_dataset(sets), NAMES, dict(zip(NAMES, target, strict=True)))
    np.testing.assert_allclose(shift.weights(truth), weights / weights.mean(), rtol=2e-3)


def test_resampled_rows_appear_in_proportion_to_their_weights():
    weights = np.array([0.5, 1.5, 0.0, 2.0, 1.0])
    counts = np.bincount(resampled_rows(weights), minlength=5)
    assert counts.sum() == 5 and (np.abs(counts - weights) < 1).all() and counts[2] == 0
    np.testing.assert_array_equal(resampled_rows(np.ones(7)), np.arange(7))


def test_frequencies_are_read_from_a_file(tmp_path):
    path = tmp_path / "shares.json"
    path.write_text(json.dumps({"a": 0.25}))
    assert read_label_frequencies(str(path)) == {"a": 0.25} and read_label_frequencies(None) is None
    for bad, message in (({"a": 0}, "above 0"), ({"a": 1.0}, "below 1"), ({"a": "x"}, "expected a finite number")):
        with pytest.raises(ValueError, match=message):
            read_label_frequencies(bad)
    with pytest.raises(FileNotFoundError, match="label_frequencies is .*no such file"):
        read_label_frequencies("missing.json")


def test_what_no_weights_can_give_is_refused():
    together = make_dataset([[0, 1]] * 10 + [[2]] * 30)
    with pytest.raises(ValueError, match="'d', which is none of the 3 labels"):
        fit_prior_shift(together, NAMES, {"d": 0.5})
    with pytest.raises(ValueError, match="always appear together can have one share only"):
        fit_prior_shift(together, NAMES, {"a": 0.5, "b": 0.2})
    with pytest.raises(ValueError, match="asks for 0.5 of 'c', which no or every"):
        fit_prior_shift(make_dataset([[0], [1]]), NAMES, {"c": 0.5})
