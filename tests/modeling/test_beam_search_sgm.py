"""Our beam search against Transformers' own, which `output_scores=True` asks for."""

import itertools

import pytest
import torch
from tiny_models import build_model
from transformers import GenerationConfig

from sgm_hf.modeling import generation_sgm
from sgm_hf.modeling.beam_search_sgm import can_improve
from sgm_hf.modeling.modeling_sgm import SGMDecoderState

NUM_LABELS = 7


def make_model(**settings):
    return build_model(num_labels=NUM_LABELS, **settings)


def make_texts(num_documents: int = 12, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 15, (num_documents,), generator=generator)
    ids = torch.randint(3, 40, (num_documents, int(lengths.max())), generator=generator)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return {"input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask.long()}


def generate(model, texts, **settings):
    return model.generate(**texts, return_dict_in_generate=True, output_label_scores=True, **settings)


def assert_same(ours, theirs):
    assert torch.equal(ours.sequences, theirs.sequences)
    torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.label_scores, theirs.label_scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("num_beams", "length_penalty", "early_stopping"),
    list(itertools.product((2, 3, 5, 9), (0.0, 1.0, -0.5), (False, True, "never"))),
)
def test_it_finds_what_transformers_search_finds(num_beams, length_penalty, early_stopping):
    model, texts = make_model(seed=num_beams), make_texts()
    settings = {"num_beams": num_beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
    ours = generate(model, texts, **settings, num_return_sequences=num_beams)
    assert "scores" not in ours
    assert_same(ours, generate(model, texts, **settings, num_return_sequences=num_beams, output_scores=True))


@pytest.mark.parametrize("length_penalty", [-1.5, -0.5, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("length", [1, 3, 6])
def test_whether_a_hypothesis_can_improve_is_what_every_length_to_come_says(length, length_penalty):
    worst = torch.linspace(-9.0, -0.05, 180)[:, None]
    running = torch.full((180,), -2.0)
    settings = {"length_penalty": length_penalty, "max_length": 8, "num_beams": 2}
    config = GenerationConfig(early_stopping="never", **settings)
    # What is open ends with its label number length or a later one, up to the last of seven; log p only falls.
    best = max(-2.0 / later**length_penalty for later in range(length, 8))
    finished = torch.cat([worst, torch.zeros_like(worst)], dim=1)
    assert torch.equal(can_improve(running, finished, length, config), best > worst[:, 0])
    config = GenerationConfig(early_stopping=False, **settings)
    assert torch.equal(can_improve(running, finished, length, config), -2.0 / length**length_penalty > worst[:, 0])
    config = GenerationConfig(early_stopping=True, **settings)
    assert not can_improve(running, finished, length, config).any()
    finished[::2, 0] = float("-inf")  # a place is free
    assert torch.equal(can_improve(running, finished, length, config), finished[:, 0].isneginf())


@pytest.mark.parametrize("length_penalty", [-2.0, -1.0, 1.0])
def test_a_search_that_never_stops_early_finds_the_best_of_all_sequences(length_penalty):
    model, texts = build_model(num_labels=3), make_texts()
    settings = {"num_beams": 16, "length_penalty": length_penalty, "early_stopping": "never"}  # of 16 sequences
    output = generate(model, texts, **settings)
    every = [list(labels) for size in range(4) for labels in itertools.permutations(range(3), size)]
    for row in range(12):
        text = {name: values[row : row + 1] for name, values in texts.items()}
        scores = []
        for labels in every:
            loss = model(**text, labels=torch.tensor([[*labels, 3]]), num_items_in_batch=1).loss
            scores.append(-loss.item() / (len(labels) + 1) ** length_penalty)
        assert output.sequences_scores[row].item() == pytest.approx(max(scores), rel=1e-5)
        best = every[scores.index(max(scores))]
        assert [label for label in output.sequences[row, 1:].tolist() if label < 3] == best


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 4},
        {"max_new_tokens": 1},
        {"min_labels": 2, "max_labels": 4},
        {"allowed_labels": [0, 2, 3, 6], "forbidden_labels": [6]},
        {"label_hierarchy": {0: 1, 1: 2, 4: 2}},
        {"num_return_sequences": 3},
        {"set_decoding": "threshold", "label_threshold": 0.4},
    ],
    ids=str,
)
def test_it_obeys_what_transformers_search_obeys(settings):
    model, texts = make_model(), make_texts()
    ours = generate(model, texts, num_beams=4, **settings)
    theirs = generate(model, texts, num_beams=4, output_scores=True, **settings)
    assert torch.equal(ours.sequences, theirs.sequences)
    torch.testing.assert_close(ours.label_scores, theirs.label_scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", ["word", "none"])
@pytest.mark.parametrize("label_feedback", ["previous_label", "global_embedding", "fixed_mixture"])
def test_it_decodes_every_system(attention, label_feedback):
    model, texts = make_model(attention=attention, label_feedback=label_feedback, decoder_layers=2), make_texts()
    assert_same(generate(model, texts, num_beams=5), generate(model, texts, num_beams=5, output_scores=True))


def test_a_beam_wider_than_there_are_sequences_returns_them_all_and_blanks():
    model, texts = build_model(num_labels=2), make_texts()
    output = generate(model, texts, num_beams=8, num_return_sequences=8)
    scores = output.sequences_scores.view(12, 8)
    torch.testing.assert_close(scores[:, :5].exp().sum(dim=1), torch.ones(12))  # {}, a, b, ab, ba
    assert scores[:, 5:].isneginf().all()
    assert (output.sequences.view(12, 8, -1)[:, 5:, 1:] == model.config.pad_label_id).all()


def test_documents_start_as_one_row_and_leave_when_they_are_finished(monkeypatch):
    model, texts, rows, documents = make_model(), make_texts(40), [], []
    step, keep = model.decoder.step, SGMDecoderState.keep_documents
    monkeypatch.setattr(model.decoder, "step", lambda ids, state: rows.append(len(ids)) or step(ids, state))
    monkeypatch.setattr(
        SGMDecoderState, "keep_documents", lambda state, kept: documents.append(len(kept)) or keep(state, kept)
    )
    generate(model, texts, num_beams=3)
    assert rows[:2] == [40, 120]
    assert documents and documents == sorted(documents, reverse=True)
    assert set(rows[1:]) == {120, *(3 * count for count in documents)}


@pytest.mark.parametrize("settings", [{"do_sample": True}, {"repetition_penalty": 1.1}, {"max_time": 60.0}], ids=str)
def test_what_it_cannot_do_is_left_to_transformers(monkeypatch, settings):
    monkeypatch.setattr(generation_sgm, "beam_search", None)  # calling it would fail
    model, texts = make_model(), make_texts()
    torch.manual_seed(0)
    assert generate(model, texts, num_beams=3, **settings).sequences.shape[0] == 12
