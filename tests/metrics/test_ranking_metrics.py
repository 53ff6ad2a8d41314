"""The `evaluate` module says what `compute_ranking_metrics` says."""

import numpy as np
import pytest

from sgm_hf.metrics import compute_ranking_metrics, load_metric


@pytest.fixture
def metric(tmp_path):
    return load_metric("ranking", cache_dir=str(tmp_path))


def test_the_evaluate_module_equals_compute_ranking_metrics(metric):
    generator = np.random.default_rng(0)
    references, scores = generator.random((30, 7)) < 0.3, generator.random((30, 7))
    assert metric.compute(references=references, predictions=scores) == compute_ranking_metrics(references, scores)
    rows = {"references": references.astype(int).tolist(), "predictions": scores.tolist()}
    assert metric.compute(**rows, k=[2]) == compute_ranking_metrics(references, scores, (2,))


def test_the_example_in_its_documentation_is_true(metric):
    results = metric.compute(references=[[1, 0, 0], [0, 1, 1]], predictions=[[0.7, 0.2, 0.1], [0.5, 0.9, 0.3]])
    assert (results["precision_at_1"], round(results["lrap"], 4)) == (1.0, 0.9167)
    assert all(name.replace("_1", "_k") in metric.inputs_description for name in results if name[-1] not in "35")


def test_rows_of_another_length_are_refused(metric):
    with pytest.raises(ValueError, match="2 scores for each document, one per label, but row 1 has 1"):
        metric.compute(references=[[1, 0], [0, 1]], predictions=[[0.75, 0.0], [0.25]])
