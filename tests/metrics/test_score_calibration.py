"""Properties of the metrics of label scores, with scikit-learn and plain loops as oracles."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from sgm_hf.metrics import calibration, calibration_bins, compute_score_metrics, expected_calibration_error


@st.composite
def scored_labels(draw):
    """Labels and scores of a random size, some of them 0, 1, equal, or on an edge of a bin."""
    shape = draw(st.integers(1, 12)), draw(st.integers(1, 7))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    references = generator.random(shape) < generator.random()
    scores = generator.random(shape) ** draw(st.sampled_from([0.5, 1, 4]))
    if draw(st.booleans()):
        scores = np.round(scores * 15) / 15
    return references, scores.astype(draw(st.sampled_from([np.float32, np.float64])))


@pytest.fixture(params=[2**21, 3])
def pairs_per_block(request, monkeypatch):
    """With all rows in one block, and with one row a block."""
    monkeypatch.setattr(calibration, "_PAIRS_PER_BLOCK", request.param)


@settings(max_examples=150, deadline=None)
@given(scored_labels(), st.integers(1, 20))
def test_bins_are_those_of_a_plain_loop(data, num_bins):
    references, scores = data
    scores = scores.astype(np.float64)
    members: list[list[tuple[float, bool]]] = [[] for _ in range(num_bins)]
    edges = np.linspace(0, 1, num_bins + 1)
    for score, truth in zip(scores.ravel(), references.ravel(), strict=True):
        if score >= 0.01:
            members[next(m for m in range(num_bins) if score <= edges[m + 1])].append((score, truth))
    total, error = sum(map(len, members)), 0.0
    rows = calibration_bins(references, scores, num_bins=num_bins)
    for row, member in zip(rows, members, strict=True):
        assert row["count"] == len(member)
        if member:
            mean, share = np.mean([score for score, _ in member]), np.mean([truth for _, truth in member])
            assert (row["mean_score"], row["share_true"]) == pytest.approx((mean, share))
            assert row["lower"] <= row["mean_score"] <= row["upper"] + 1e-12
            error += len(member) / total * abs(mean - share)
        else:
            assert math.isnan(row["mean_score"]) and math.isnan(row["share_true"])
    assert expected_calibration_error(rows) == pytest.approx(error if total else math.nan, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(scored_labels())
def test_bins_are_those_of_scikit_learn(data):
    references, scores = data
    rows = [row for row in calibration_bins(references, scores, minimum=0.0) if row["count"]]
    shares, means = calibration_curve(references.ravel(), scores.ravel().astype(np.float64), n_bins=15)
    assert [row["share_true"] for row in rows] == pytest.approx(shares)
    assert [row["mean_score"] for row in rows] == pytest.approx(means)


@settings(max_examples=100, deadline=None)
@given(scored_labels())
def test_nll_and_brier_are_those_of_scikit_learn(data):
    references, scores = data
    scores = scores.astype(np.float64)
    clipped = scores.clip(1e-12, 1 - 1e-12)
    losses = [
        log_loss(references[:, label], clipped[:, label], labels=[False, True]) for label in range(references.shape[1])
    ]
    metrics = compute_score_metrics(references, scores)
    assert metrics["nll"] == pytest.approx(sum(losses), rel=1e-4, abs=1e-9)
    assert metrics["brier"] == pytest.approx(brier_score_loss(references.ravel(), scores.ravel()))


@settings(max_examples=30, deadline=None)
@given(scored_labels())
def test_metrics_depend_on_no_order_of_documents_or_labels(data):
    references, scores = data
    expected = compute_score_metrics(references, scores)
    shuffled = compute_score_metrics(references[::-1, ::-1], scores[::-1, ::-1])
    assert shuffled == pytest.approx(expected, nan_ok=True)


def test_blocks_change_nothing(pairs_per_block):
    generator = np.random.default_rng(0)
    references, scores = generator.random((50, 4)) < 0.3, generator.random((50, 4)).astype(np.float32)
    probability = np.where(references, scores, 1 - scores.astype(np.float64))
    metrics = compute_score_metrics(references, scores)
    assert metrics["nll"] == pytest.approx(-np.log(probability).sum() / 50)
    assert metrics["brier"] == pytest.approx(((1 - probability) ** 2).mean())
    assert sum(row["count"] for row in calibration_bins(references, scores)) == (scores >= 0.01).sum()


def test_labels_drawn_with_the_probability_of_their_score_are_calibrated():
    generator = np.random.default_rng(0)
    scores = generator.random((20_000, 10))
    references = generator.random(scores.shape) < scores
    assert compute_score_metrics(references, scores)["ece"] < 0.005
    sharpened = scores**3 / (scores**3 + (1 - scores) ** 3)
    assert compute_score_metrics(references, sharpened)["ece"] > 0.1
    assert compute_score_metrics(references, sharpened)["nll"] > compute_score_metrics(references, scores)["nll"]


def test_a_score_of_zero_for_a_true_label_is_counted_and_costs_a_known_price():
    references = np.array([[True, False], [True, False]])
    scores = np.array([[0.0, 1.0], [0.5, 0.0]], dtype=np.float32)
    metrics = compute_score_metrics(references, scores)
    assert metrics["certain_errors"] == 1.0
    assert metrics["nll"] == pytest.approx((2 * 12 * math.log(10) + math.log(2)) / 2)


def test_scores_of_zero_and_one_have_the_hamming_loss_as_brier_score():
    generator = np.random.default_rng(1)
    references, predictions = generator.random((40, 6)) < 0.4, generator.random((40, 6)) < 0.4
    metrics = compute_score_metrics(references, predictions.astype(np.float32))
    assert metrics["brier"] == pytest.approx((references != predictions).mean())
    assert metrics["certain_errors"] == pytest.approx((references != predictions).sum() / 40)


def test_a_score_that_rounding_moved_out_of_range_counts_as_the_limit():
    metrics = compute_score_metrics(np.array([[True, False]]), np.array([[1.000001, -1e-7]]))
    assert metrics == {"ece": 0.0, "nll": 0.0, "brier": 0.0, "certain_errors": 0.0}


def test_where_no_score_reaches_the_minimum_the_error_is_not_a_number():
    metrics = compute_score_metrics(np.array([[True]]), np.array([[0.005]]))
    assert math.isnan(metrics["ece"]) and metrics["nll"] == pytest.approx(-math.log(0.005))
    assert compute_score_metrics(np.array([[True]]), np.array([[0.005]]), minimum=0.0)["ece"] == pytest.approx(0.995)


def test_many_documents_need_little_memory_in_addition():
    references = np.zeros((200_000, 103), dtype=bool)
    scores = np.full(references.shape, 0.25, dtype=np.float32)  # 82 MB; in float64 at once 165
    tracemalloc.start()
    metrics = compute_score_metrics(references, scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
    assert metrics["brier"] == 0.0625 and metrics["ece"] == 0.25


@pytest.mark.parametrize(
    ("scores", "keywords", "error", "message"),
    [
        (np.array([[2.0, -1.0]]), {}, ValueError, "span -1.0 to 2.0: give probabilities"),
        (np.array([[np.nan, 0.0]]), {}, ValueError, "span nan to nan"),
        (np.array([[1, 0]]), {}, TypeError, "label_scores must be floating point, got int64"),
        (np.array([[0.5]]), {}, ValueError, r"\(1, 2\), label_scores \(1, 1\)"),
        (np.array([[0.5, 0.5]]), {"minimum": 1.5}, ValueError, "minimum is 1.5; give the lowest score"),
        (np.array([[0.5, 0.5]]), {"num_bins": 0}, ValueError, "num_bins is 0; give at least 1"),
    ],
)
def test_wrong_scores_and_settings_are_refused(scores, keywords, error, message):
    with pytest.raises(error, match=message):
        compute_score_metrics(np.array([[True, False]]), scores, **keywords)
