import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from sgm_hf.analysis import studies

NAMES = ["sport", "politics", "music", "rare"]


@pytest.fixture
def matrices():
    random = np.random.default_rng(0)
    return random.random((50, 12)) < 0.3, random.random((50, 12)) < 0.3


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_predictions_are_read_into_the_columns_of_the_names(tmp_path):
    records = [
        {"id": 1, "best_sequence": ["music", "sport"], "threshold": ["rare"], "gold": ["sport"]},
        {"id": 2, "best_sequence": [], "threshold": [], "gold": ["rare", "politics"]},
    ]
    path = write_lines(tmp_path / "p.jsonl", records)
    references, predictions = studies.read_predictions(path, NAMES)
    assert references.tolist() == [[True, False, False, False], [False, True, False, True]]
    assert predictions.tolist() == [[True, False, True, False], [False, False, False, False]]
    _, predictions = studies.read_predictions(path, NAMES, "threshold")
    assert predictions.tolist() == [[False, False, False, True], [False, False, False, False]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"best_sequence": [], "gold": []}\n{"best"', "line 2: not valid JSON"),
        ('{"best_sequence": ["sport"]}\n', "line 1: 'gold' is missing"),
        ('{"best_sequence": ["chess"], "gold": []}\n', "line 1: 'chess' is missing"),
    ],
)
def test_faulty_predictions_name_the_line(tmp_path, content, message):
    path = tmp_path / "predictions.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        studies.read_predictions(path, NAMES)
    with pytest.raises(FileNotFoundError, match="--do_predict"):
        studies.read_predictions(tmp_path / "none.jsonl", NAMES)


def test_the_rest_is_scored_without_the_most_frequent_labels(matrices):
    references, predictions = matrices
    expected = [f1_score(references[:, k:], predictions[:, k:], average="micro") for k in (0, 3, 10)]
    assert studies.without_top_labels(references, predictions, [0, 3, 10]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="12 of 12 labels"):
        studies.without_top_labels(references, predictions, [12])


def test_frequent_and_rare_labels_are_the_first_and_the_last(matrices):
    references, predictions = matrices
    found = studies.by_frequency(references, predictions, share=0.25)
    assert found["high"] == pytest.approx(f1_score(references[:, :3], predictions[:, :3], average="micro"))
    assert found["low"] == pytest.approx(f1_score(references[:, 9:], predictions[:, 9:], average="micro"))
    one_each = studies.by_frequency(references, predictions, share=0.01)
    assert one_each["low"] == pytest.approx(f1_score(references[:, 11], predictions[:, 11]))
    with pytest.raises(ValueError, match=r"share is 0\.6"):
        studies.by_frequency(references, predictions, share=0.6)


def test_degradation_is_positive_where_shuffling_harms():
    # Table 2 of the paper, Seq2Set: 0/1 loss from 0.314 to 0.318, F1 from 0.879 to 0.876.
    assert studies.degradation("zero_one_loss", 0.314, 0.318) == pytest.approx(0.0127, abs=1e-4)
    assert studies.degradation("micro_f1", 0.879, 0.876) == pytest.approx(0.0034, abs=1e-4)
    assert studies.degradation("micro_f1", 0.8, 0.9) < 0
    with pytest.raises(ValueError, match="is 0 before"):
        studies.degradation("hamming_loss", 0.0, 0.1)


def test_correlations_of_labels_are_those_of_numpy(matrices):
    labels = matrices[0].copy()
    labels[:, 3], labels[:, 7] = False, True
    found = studies.label_correlations(labels)
    varying = [label for label in range(12) if label not in (3, 7)]
    expected = np.corrcoef(labels[:, varying].T.astype(float))
    assert found[np.ix_(varying, varying)] == pytest.approx(expected)
    assert np.isnan(found[[3, 7]]).all() and np.isnan(found[:, [3, 7]]).all()


def test_clustering_puts_correlated_labels_side_by_side():
    # Labels 0, 3, 5 go together, and 1, 4; 2 is alone.
    groups = np.array([0, 1, 2, 0, 1, 0])
    correlations = np.where(groups[:, None] == groups, 0.6, -0.1)
    order = studies.clustered_order(correlations)
    assert sorted(order) == list(range(6))
    assert len([a for a, b in zip(order, order[1:], strict=False) if groups[a] != groups[b]]) == 2
    # The most correlated of two groups meet: 1 with 2.
    chain = np.array([[1, 0.9, 0.2, 0.1], [0.9, 1, 0.5, 0.2], [0.2, 0.5, 1, 0.8], [0.1, 0.2, 0.8, 1]])
    assert studies.clustered_order(chain) in ([0, 1, 2, 3], [3, 2, 1, 0])
    assert studies.clustered_order(np.ones((1, 1))) == [0]
