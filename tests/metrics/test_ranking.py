"""Properties of the ranking metrics, with scikit-learn and an average over all orders of equal scores as oracles."""

import math
import tracemalloc
import warnings
from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    coverage_error,
    label_ranking_average_precision_score,
    label_ranking_loss,
    ndcg_score,
)

from sgm_hf.metrics import compute_ranking_metrics, ranking
from sgm_hf.metrics.ranking import RANKING_LOSSES, RANKING_METRICS


def scored_labels(seed: int, most_labels: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of a random size, density and type; some documents and labels empty, some full, many ties."""
    generator = np.random.default_rng(seed)
    shape = generator.integers(1, 30), generator.integers(2, most_labels)
    references = generator.random(shape) < generator.random()
    references[generator.random(shape[0]) < 0.2] = False
    references[generator.random(shape[0]) < 0.2] = True
    references[:, generator.random(shape[1]) < 0.2] = False
    scores = generator.normal(size=shape) if seed % 5 == 0 else generator.random(shape)
    if seed % 2:
        scores = scores.round(1) * (generator.random(shape) < 0.5)  # mostly 0, as those of a beam
    return references, scores.astype(np.float32 if seed % 3 else np.float64)


@pytest.fixture(params=[2**21, 20])
def block(request, monkeypatch):
    """With all rows in one block, and with few rows a block."""
    monkeypatch.setattr(ranking, "_PAIRS_PER_BLOCK", request.param)


@pytest.mark.usefixtures("block")
def test_they_are_those_of_scikit_learn():
    for seed in range(120):
        references, scores = scored_labels(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of labels without documents
            expected = {
                **{f"ndcg_at_{k}": ndcg_score(references, scores, k=k) for k in (1, 3, 5)},
                "lrap": label_ranking_average_precision_score(references, scores),
                "coverage_error": coverage_error(references, scores),
                "ranking_loss": label_ranking_loss(references, scores),
                "micro_ap": average_precision_score(references, scores, average="micro"),
                "macro_ap": average_precision_score(references, scores, average="macro"),
            }
        metrics = compute_ranking_metrics(references, scores)
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9), seed


@pytest.mark.usefixtures("block")
def test_precision_at_k_and_r_precision_are_means_over_all_orders_of_equal_labels():
    for seed in range(12):
        references, scores = scored_labels(seed, most_labels=6)
        num_labels = references.shape[1]
        precision, r_precision = {k: [] for k in (1, 2, 7)}, []
        for order in permutations(range(num_labels)):
            order = np.array(order)
            ranked = order[np.argsort(-scores[:, order], axis=1, kind="stable")]
            found = np.take_along_axis(references, ranked, axis=1)
            for k, values in precision.items():
                values.append(found[:, :k].sum() / k / len(references))
            sizes = references.sum(axis=1)
            r_precision.append(np.mean([row[:r].sum() / r for row, r in zip(found, sizes, strict=True) if r]))
        metrics = compute_ranking_metrics(references, scores, k=(1, 2, 7))
        for k, values in precision.items():
            assert metrics[f"precision_at_{k}"] == pytest.approx(np.mean(values))
        assert metrics["r_precision"] == pytest.approx(np.mean(r_precision), nan_ok=True)


def test_worked_out_by_hand():
    # Ranks of the true labels: 1 and 3; then 2 and 3, of which equal scores share the places 2 to 4.
    references = np.array([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=bool)
    scores = np.array([[0.9, 0.5, 0.4, 0.1], [0.9, 0.2, 0.2, 0.2]])
    metrics = compute_ranking_metrics(references, scores, k=(2,))
    assert metrics["precision_at_2"] == pytest.approx((1 / 2 + 2 * (1 / 3) / 2) / 2)
    assert metrics["r_precision"] == metrics["precision_at_2"]
    assert metrics["lrap"] == pytest.approx(((1 + 2 / 3) / 2 + 2 / 4) / 2)
    assert metrics["coverage_error"] == (3 + 4) / 2
    assert metrics["ranking_loss"] == pytest.approx((1 / 4 + 4 / 4) / 2)


def test_documents_without_labels_count_as_documented():
    empty = compute_ranking_metrics(np.zeros((2, 3), dtype=bool), np.full((2, 3), 0.5))
    assert (empty["lrap"], math.isnan(empty["r_precision"])) == (1.0, True)
    assert all(value == 0 for name, value in empty.items() if name not in ("lrap", "r_precision"))
    references, scores = np.array([[True, False], [False, False]]), np.array([[0.9, 0.1], [0.9, 0.1]])
    metrics = compute_ranking_metrics(references, scores)
    assert (metrics["precision_at_1"], metrics["r_precision"], metrics["lrap"]) == (0.5, 1.0, 1.0)


def test_they_depend_on_the_order_of_the_scores_alone():
    references, scores = scored_labels(10)
    expected = compute_ranking_metrics(references, scores)
    assert compute_ranking_metrics(references[::-1, ::-1], scores[::-1, ::-1]) == pytest.approx(expected)
    assert compute_ranking_metrics(references, np.exp(3 * scores) - 7) == pytest.approx(expected)


def test_the_names_are_those_that_the_trainer_announces():
    references, scores = scored_labels(4)
    metrics = compute_ranking_metrics(references, scores)
    assert tuple(metrics) == RANKING_METRICS and set(RANKING_LOSSES) < set(RANKING_METRICS)
    assert all(type(value) is float for value in metrics.values())
    perfect = compute_ranking_metrics(references, references.astype(float))
    assert all(perfect[name] <= metrics[name] for name in RANKING_LOSSES)


def test_many_documents_need_little_memory_in_addition():
    generator = np.random.default_rng(0)
    references = np.zeros((200_000, 103), dtype=bool)
    references[np.arange(200_000), generator.integers(103, size=200_000)] = True
    scores = generator.random(references.shape, dtype=np.float32)  # 82 MB
    tracemalloc.start()
    metrics = compute_ranking_metrics(references, scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
    assert metrics["coverage_error"] == pytest.approx(52, rel=0.02)  # of one label at random, the mean of 1 to 103


@pytest.mark.parametrize(
    ("scores", "k", "error", "message"),
    [
        (np.array([[np.nan, 0.0]]), (1,), ValueError, "NaN or infinite"),
        (np.array([[np.inf, 0.0]]), (1,), ValueError, "NaN or infinite"),
        (np.array([[1, 0]]), (1,), TypeError, "label_scores must be floating point, got int64"),
        (np.array([[0.5]]), (1,), ValueError, r"\(1, 2\), label_scores \(1, 1\)"),
        (np.array([[0.5, 0.5]]), (1, 0), ValueError, r"k is \(1, 0\); give numbers of labels from 1 on"),
    ],
)
def test_wrong_scores_and_cutoffs_are_refused(scores, k, error, message):
    with pytest.raises(error, match=message):
        compute_ranking_metrics(np.array([[True, False]]), scores, k)
