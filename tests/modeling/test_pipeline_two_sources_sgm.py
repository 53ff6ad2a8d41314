"""The pipeline of a model with a lexical branch: every label has a probability, and the encoder may cut the text."""

import warnings

import pytest
import torch
from test_pipeline_sgm import NAMES, TEXTS, build_pipeline
from tiny_models import give_branch

CALIBRATED = {"lexical_weight": 0.8, "hypothesis_temperature": 1.5, "label_calibration": [1.2, -0.3]}
BRANCH = {"lexical_branch": True, "lexical_bigrams": 20, "lexical_in_decoder": True}


def build(generation=CALIBRATED, **settings):
    pipe = build_pipeline(**BRANCH | settings)
    give_branch(pipe.model, **generation)
    return pipe


@pytest.mark.parametrize("num_beams", [1, 2, 5])
@pytest.mark.parametrize("generation", [{}, CALIBRATED, {**CALIBRATED, "label_calibration": [0.7, 1.1, 0.2]}], ids=str)
def test_all_labels_are_ranked_by_a_probability_that_is_never_0_and_never_1(generation, num_beams):
    pipe = build(generation)
    for text, prediction in zip(TEXTS, pipe(TEXTS, top_k=None, num_beams=num_beams), strict=True):
        scores = [entry["score"] for entry in prediction]
        assert sorted(entry["label"] for entry in prediction) == sorted(NAMES)
        assert scores == sorted(scores, reverse=True) and 0 < min(scores) and max(scores) < 1
        encoded = pipe.tokenizer([text], return_tensors="pt")
        options = {"return_dict_in_generate": True, "output_label_scores": True, "num_beams": num_beams}
        expected = pipe.model.generate(**encoded, **options).label_scores[0]
        by_name = {entry["label"]: entry["score"] for entry in prediction}
        assert [by_name[name] for name in NAMES] == pytest.approx(expected.tolist(), abs=1e-6)


def test_without_a_branch_narrow_beams_leave_labels_at_0_and_with_it_not():
    options = {"top_k": None, "num_beams": 2, "max_labels": 1}
    plain, both = (pipe(TEXTS, **options) for pipe in (build_pipeline(), build()))
    scores, others = ([entry["score"] for answer in answers for entry in answer] for answers in (plain, both))
    assert 0 in scores and 0 not in others


def test_labels_that_constraints_decide_have_0_and_1():
    pipe = build()
    answer = pipe(TEXTS[1], top_k=None, required_labels=["gold"], forbidden_labels=["cocoa"])
    scores = {entry["label"]: entry["score"] for entry in answer}
    assert (scores["gold"], scores["cocoa"]) == (1, 0)


def test_a_text_of_unknown_words_rests_on_its_length_alone():
    pipe = build()
    with pytest.warns(UserWarning, match="unknown words only, so its labels rest on its length alone"):
        answers = pipe(["zzz yyy xxx", "aaa bbb ccc"], top_k=None)
    assert answers[0] == answers[1]


def test_a_text_whose_words_come_after_the_cut_of_the_encoder_is_no_text_of_unknown_words():
    pipe = build(encoder_max_length=3)
    texts = ["zzz yyy xxx gold", "zzz yyy xxx cocoa"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = pipe(texts, top_k=None)
    assert answers[0] != answers[1]


@pytest.mark.parametrize("top_k", ["generated", None, 2])
def test_a_text_without_words_has_no_labels(top_k):
    with pytest.warns(UserWarning, match="Input 1 has no word"):
        answers = build()([TEXTS[0], " \n"], top_k=top_k)
    assert answers[0] and answers[1] == []


def test_words_that_the_encoder_does_not_read_have_no_attention():
    pipe = build(encoder_max_length=4)
    answers = pipe(TEXTS, return_attention=True, batch_size=3)
    assert any(answers)
    for text, answer in zip(TEXTS, answers, strict=True):
        words = [text[start:end] for start, end in pipe.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]]
        for entry in answer:
            assert [word["word"] for word in entry["attention"]] == words[:4]
            assert sum(word["weight"] for word in entry["attention"]) == pytest.approx(1, abs=1e-5)


def test_arguments_of_a_call_override_what_was_calibrated():
    pipe = build()
    plain = build({})
    given = pipe(TEXTS, top_k=None, lexical_weight=0.0, hypothesis_temperature=1.0, label_calibration=[])
    assert given == plain(TEXTS, top_k=None) != pipe(TEXTS, top_k=None)


def test_a_model_in_bfloat16_keeps_every_label_between_0_and_1():
    pipe = build()
    pipe.model.to(torch.bfloat16)
    scores = [entry["score"] for answer in pipe(TEXTS, top_k=None) for entry in answer]
    assert 0 < min(scores) and max(scores) < 1
