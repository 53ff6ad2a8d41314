import numpy as np
import pytest
import torch
from datasets import concatenate_datasets
from tiny_training import NUM_LABELS, make_decided_model, make_documents

from sgm_hf.training.machine import bf16_fault
from sgm_hf.training.prediction import LabelPredictions, generate_predictions


def test_predictions_come_in_the_order_of_the_data_whatever_the_batches():
    model, data = make_decided_model(), make_documents(40)
    alone = generate_predictions(model, data, max_documents=1)
    for caps in ({"max_tokens": 60}, {"max_documents": 7}, {}):
        together = generate_predictions(model, data, **caps)
        assert together.best_sequences == alone.best_sequences
        np.testing.assert_allclose(together.label_scores, alone.label_scores, atol=1e-5)
    assert len({tuple(labels) for labels in alone.best_sequences}) > 3


def test_predictions_follow_their_documents_when_the_data_is_reordered():
    model, data = make_decided_model(), make_documents(20)
    order = np.random.default_rng(0).permutation(20)
    before, after = generate_predictions(model, data), generate_predictions(model, data.select(order))
    assert after.best_sequences == [before.best_sequences[row] for row in order]


def test_a_document_without_words_gets_the_empty_set_and_changes_no_other():
    model, data = make_decided_model(), make_documents(10)
    empty = data.select([0]).map(lambda document: {"input_ids": [], "length": 0})
    with_empty = generate_predictions(
        model, concatenate_datasets([data.select(range(4)), empty, data.select(range(4, 10))])
    )
    without = generate_predictions(model, data)
    assert with_empty.best_sequences[4] == []
    assert (with_empty.label_scores[4] == 0).all()
    assert with_empty.best_sequences[:4] + with_empty.best_sequences[5:] == without.best_sequences
    only_empty = generate_predictions(model, empty)
    assert only_empty.best_sequences == [[]]


def test_generation_does_not_touch_random_state_or_mode():
    model, data = make_decided_model().train(), make_documents(5)
    before = torch.get_rng_state()
    generate_predictions(model, data)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_threshold_takes_the_labels_that_reach_the_threshold_best_first():
    scores = np.array([[0.2, 0.9, 0.5, 0.6], [0.1, 0.2, 0.3, 0.0]], dtype=np.float32)
    predictions = LabelPredictions([[0], [1, 2]], scores)
    assert predictions.label_sets("threshold", threshold=0.5) == [[1, 3, 2], []]
    assert predictions.label_sets("threshold", threshold=0.5, min_labels=1, max_labels=2) == [[1, 3], [2]]
    assert predictions.label_sets("best_sequence") == [[0], [1, 2]]


def test_an_unknown_set_decoding_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'best'.*best_sequence, threshold"):
        LabelPredictions([[]], np.zeros((1, NUM_LABELS), dtype=np.float32)).label_sets("best")


def test_bfloat16_scores_lie_near_those_of_float32():
    model, data = make_decided_model(), make_documents(10)
    exact, rounded = generate_predictions(model, data), generate_predictions(model, data, bf16=True)
    # Where an LSTM does not run under autocast, both are of float32.
    assert np.array_equal(exact.label_scores, rounded.label_scores) == (bf16_fault("cpu") is not None)
    assert np.abs(exact.label_scores - rounded.label_scores).mean() < 0.05
