"""The `evaluate` module says what `compute_metrics` says."""

import socket

import numpy as np
import pytest

from sgm_hf.metrics import compute_metrics, load_metric


@pytest.fixture
def metric(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the metric must load without a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return load_metric(cache_dir=str(tmp_path))


def random_sets(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.random((30, 7)) < 0.3, generator.random((30, 7)) < 0.3


def test_the_evaluate_module_equals_compute_metrics(metric):
    for seed in range(5):
        references, predictions = random_sets(seed)
        expected = compute_metrics(references, predictions)
        assert metric.compute(references=references, predictions=predictions) == expected
        rows = {"references": references.astype(int).tolist(), "predictions": predictions.astype(int).tolist()}
        assert metric.compute(**rows) == expected


def test_batches_add_up_to_the_whole(metric):
    references, predictions = random_sets(0)
    for start in range(0, 30, 8):
        metric.add_batch(references=references[start : start + 8], predictions=predictions[start : start + 8])
    assert metric.compute() == compute_metrics(references, predictions)


def test_its_inputs_are_those_of_the_multilabel_configurations_of_evaluate(metric):
    assert {name: repr(feature) for name, feature in metric.features.items()} == {
        "predictions": "List(Value('int32'))",
        "references": "List(Value('int32'))",
    }


def test_the_example_in_its_documentation_is_true(metric):
    results = metric.compute(references=[[1, 1, 0], [0, 0, 1]], predictions=[[1, 0, 0], [0, 0, 1]])
    assert round(results["micro_f1"], 2) == 0.8
    assert all(name in metric.inputs_description for name in results)


@pytest.mark.parametrize("rows", [[[0, 2], [1, 0]], [[0, 1, 3], [2]]])
def test_label_ids_in_place_of_multi_hot_rows_are_refused(metric, rows):
    with pytest.raises(ValueError, match="references must be multi-hot.*row"):
        metric.compute(references=rows, predictions=rows)
