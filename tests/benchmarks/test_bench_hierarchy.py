import json

import bench_hierarchy
import pytest


def test_flat_and_hierarchical_metrics_and_violations_are_those_of_the_predicted_sets(tmp_path):
    records = [
        {"gold": ["a", "b"], "labels": ["a", "b"]},
        {"gold": ["a", "b"], "labels": ["b"]},  # lacks a
        {"gold": ["a"], "labels": ["a", "c"]},
    ]
    path = tmp_path / "predictions.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    metrics = bench_hierarchy.measure(path, ["a", "b", "c"], {"b": "a", "c": "a"})
    assert metrics["micro_f1"] == pytest.approx(2 * 4 / (5 + 5))
    assert metrics["hierarchical_f1"] == pytest.approx(2 * 5 / (6 + 5), abs=1e-4)
    assert metrics["violations"] == pytest.approx(1 / 3, abs=1e-4)
