import numpy as np

from sgm_hf.programs import results
from sgm_hf.training.prediction import LabelPredictions

SCORES = np.array([[0.9, 0.2], [0.4, 0.0]], dtype=np.float32)
PREDICTIONS = LabelPredictions([[0], [0]], SCORES, [[0], [0]])


def test_the_diagram_of_a_split_has_all_its_labels_also_those_that_the_model_does_not_know(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("sgm_hf.analysis.figures.plot_reliability", lambda bins, *rest: drawn.append(bins))
    truth = np.array([[True, False, True], [False, False, False]])
    results.draw_reliability(truth, PREDICTIONS, "test", tmp_path)
    filled = [(row["count"], row["share_true"]) for row in drawn[0] if row["count"]]
    assert filled == [(1, 0.0), (1, 0.0), (1, 1.0)]


def test_a_diagram_is_written_where_there_are_labels_and_matplotlib(tmp_path, monkeypatch):
    truth = np.array([[True, False], [False, False]])
    results.draw_reliability(None, PREDICTIONS, "test", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(results, "find_spec", lambda name: None)
        results.draw_reliability(truth, PREDICTIONS, "test", tmp_path)
    assert list(tmp_path.iterdir()) == []
    results.draw_reliability(truth, PREDICTIONS, "test", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reliability_test.png", "reliability_test.svg"]
