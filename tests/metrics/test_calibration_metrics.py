"""The `evaluate` module says what `compute_score_metrics` says."""

import socket

import numpy as np
import pytest

from sgm_hf.metrics import compute_score_metrics, load_metric


@pytest.fixture
def metric(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the metric must load without a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return load_metric("calibration", cache_dir=str(tmp_path))


def test_the_evaluate_module_equals_compute_score_metrics(metric):
    generator = np.random.default_rng(0)
    for _ in range(3):
        references, scores = generator.random((30, 7)) < 0.3, generator.random((30, 7))
        assert metric.compute(references=references, predictions=scores) == compute_score_metrics(references, scores)
        rows = {"references": references.astype(int).tolist(), "predictions": scores.tolist()}
        expected = compute_score_metrics(references, scores, minimum=0.2, num_bins=4)
        assert metric.compute(**rows, minimum=0.2, num_bins=4) == expected


def test_the_example_in_its_documentation_is_true(metric):
    results = metric.compute(references=[[1, 0], [0, 1]], predictions=[[0.75, 0.0], [0.25, 1.0]])
    assert round(results["brier"], 5) == 0.03125
    assert all(name in metric.inputs_description for name in results)


def test_rows_of_another_length_are_refused(metric):
    with pytest.raises(ValueError, match="2 scores for each document, one per label, but row 1 has 1"):
        metric.compute(references=[[1, 0], [0, 1]], predictions=[[0.75, 0.0], [0.25]])
    with pytest.raises(ValueError, match="references must be multi-hot"):
        metric.compute(references=[[1, 3]], predictions=[[0.75, 0.0]])


def test_a_metric_that_is_not_ours_is_refused():
    with pytest.raises(ValueError, match="no metric 'f1'; give one of 'multilabel', 'calibration', 'ranking'"):
        load_metric("f1")
