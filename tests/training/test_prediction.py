import numpy as np
import pytest
import torch
from datasets import concatenate_datasets
from tiny_training import NUM_LABELS, make_decided_model, make_documents, make_model

from sgm_hf.modeling import LabelConstraints, SGMConfig, label_sets_from_sequences
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.training import prediction, progress
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
    assert after.expected_f1_sets == [before.expected_f1_sets[row] for row in order]


def test_a_document_without_words_gets_the_empty_set_and_changes_no_other():
    model, data = make_decided_model(), make_documents(10)
    empty = data.select([0]).map(lambda document: {"input_ids": [], "length": 0})
    with_empty = generate_predictions(
        model, concatenate_datasets([data.select(range(4)), empty, data.select(range(4, 10))])
    )
    without = generate_predictions(model, data)
    assert with_empty.best_sequences[4] == []
    assert with_empty.expected_f1_sets[4] == []
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


def test_predictions_show_how_far_they_are_only_if_asked(monkeypatch, capfd):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    model, data = make_decided_model(), make_documents(5)
    predictions = generate_predictions(model, data)
    assert predictions.label_scores.dtype == np.float32
    assert capfd.readouterr().err == ""
    generate_predictions(model, data, show_lines=True, description="Searching")
    assert capfd.readouterr().err.startswith("Searching: 5 of 5 documents")


def test_threshold_takes_the_labels_that_reach_the_threshold_best_first():
    scores = np.array([[0.2, 0.9, 0.5, 0.6], [0.1, 0.2, 0.3, 0.0]], dtype=np.float32)
    predictions = LabelPredictions([[0], [1, 2]], scores, [[3], []])
    free = LabelConstraints(SGMConfig(num_labels=4))
    one_or_two = LabelConstraints(SGMConfig(num_labels=4), min_labels=1, max_labels=2)
    assert predictions.label_sets("threshold", free, 0.5) == [[1, 3, 2], []]
    assert predictions.label_sets("threshold", one_or_two, 0.5) == [[1, 3], [2]]
    assert predictions.label_sets("threshold", free, [0.1, 0.95, 0.1, 0.7]) == [[2, 0], [2, 0]]
    assert predictions.label_sets("best_sequence", free) == [[0], [1, 2]]
    assert predictions.label_sets("expected_f1", free) == [[3], []]


def test_the_sets_of_many_documents_are_those_of_each_alone(monkeypatch):
    scores = np.random.default_rng(0).random((10, 4), dtype=np.float32)
    constraints = LabelConstraints(SGMConfig(num_labels=4), max_labels=2)
    alone = [LabelPredictions([[]], row[None], [[]]).label_sets("threshold", constraints)[0] for row in scores]
    monkeypatch.setattr(prediction, "DOCUMENTS_PER_SORT", 3)
    assert LabelPredictions([[]] * 10, scores, [[]] * 10).label_sets("threshold", constraints) == alone


def test_predictions_hold_the_sets_of_each_decoding_whatever_the_models_own():
    model, data = make_decided_model(), make_documents(30)
    expected = generate_predictions(model, data)
    assert expected.best_sequences != expected.expected_f1_sets
    model.generation_config.set_decoding = "threshold"
    model.generation_config.label_threshold = 0.01
    predictions = generate_predictions(model, data)
    assert predictions.best_sequences == expected.best_sequences
    assert predictions.expected_f1_sets == expected.expected_f1_sets
    with pytest.raises(ValueError, match="set_decoding='threshold' is given"):
        generate_predictions(model, data, set_decoding="threshold")


@pytest.mark.parametrize(
    "arguments", [{"num_beams": 1}, {"num_beams": 4, "min_labels": 1, "max_labels": 1}, {"required_labels": [2]}]
)
def test_predictions_under_arguments_of_generate_are_what_it_returns(arguments):
    model, data = make_model().eval(), make_documents(20)  # undecided: more labels would be better
    predictions = generate_predictions(model, data, **arguments)
    got = {
        decoding: predictions.label_sets(decoding, model.label_constraints(**arguments), 0.4)
        for decoding in SET_DECODINGS
    }
    assert got == {decoding: generated_sets(model, data, set_decoding=decoding, **arguments) for decoding in got}


def generated_sets(model, data, **arguments):
    """What `generate()` returns for each document alone."""
    if arguments["set_decoding"] == "threshold":
        arguments["label_threshold"] = 0.4
    rows = [model.generate(torch.tensor([ids]), **arguments) for ids in data["input_ids"]]
    return [label_sets_from_sequences(row, NUM_LABELS)[0] for row in rows]


def test_an_unknown_set_decoding_is_refused_with_the_known_ones():
    predictions = LabelPredictions([[]], np.zeros((1, NUM_LABELS), dtype=np.float32), [[]])
    with pytest.raises(ValueError, match="'best'.*best_sequence, threshold, expected_f1"):
        predictions.label_sets("best", LabelConstraints(SGMConfig(num_labels=NUM_LABELS)))


def test_bfloat16_scores_lie_near_those_of_float32():
    model, data = make_decided_model(), make_documents(10)
    exact, rounded = generate_predictions(model, data), generate_predictions(model, data, bf16=True)
    # Where an LSTM does not run under autocast, both are of float32.
    assert np.array_equal(exact.label_scores, rounded.label_scores) == (bf16_fault("cpu") is not None)
    assert np.abs(exact.label_scores - rounded.label_scores).mean() < 0.05
