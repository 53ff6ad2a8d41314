import itertools
import json
import logging
import math
import warnings

import pytest
import torch
from tiny_models import NUM_LABELS, build_model
from transformers import CompileConfig, GenerationConfig

from sgm_hf.modeling import (
    LabelConstraints,
    SGMConfig,
    SGMForMultiLabelGeneration,
    label_sets_from_sequences,
    select_labels,
)
from sgm_hf.modeling.generation_sgm import UNSUPPORTED_ARGUMENTS
from sgm_hf.modeling.label_sets_sgm import label_scores_from_hypotheses

ALL_SEQUENCES = [list(p) for size in range(NUM_LABELS + 1) for p in itertools.permutations(range(NUM_LABELS), size)]
SYSTEMS = list(itertools.product(("word", "none"), ("previous_label", "global_embedding", "fixed_mixture")))
HIERARCHY = {0: 1, 1: 2}


def sequence_log_probs(model, texts, sequences=ALL_SEQUENCES) -> torch.Tensor:
    """log p(y|x) of every label sequence by teacher forcing; (B, sequences)."""
    columns = []
    for labels in sequences:
        target = torch.tensor([[*labels, NUM_LABELS]]).expand(len(texts["input_ids"]), -1)
        with torch.no_grad():
            log_probs = model(**texts, labels=target).logits.log_softmax(-1)
        columns.append(log_probs.gather(-1, target[..., None]).squeeze(-1).sum(1))
    return torch.stack(columns, dim=1)


def textbook_beam_search(model, text, width, obeys=lambda labels: True):
    """Beam search over one text, written plainly: the best `width` finished sequences and their log-probabilities."""
    memory = {}

    def log_p_next(labels):
        if tuple(labels) not in memory:
            ids = torch.tensor([[model.config.bos_label_id, *labels]])
            with torch.no_grad():
                logits = model(**text, decoder_input_ids=ids).logits
            memory[tuple(labels)] = logits[0, -1].log_softmax(-1).tolist()
        return memory[tuple(labels)]

    running, finished = [([], 0.0)], []
    while running:
        candidates = [
            (labels, token, score + log_p_next(labels)[token])
            for labels, score in running
            for token in range(NUM_LABELS + 1)
            if log_p_next(labels)[token] > -math.inf
        ]
        candidates.sort(key=lambda candidate: -candidate[2])
        finished += [(labels, score) for labels, token, score in candidates[:width] if token == NUM_LABELS]
        finished = sorted(finished, key=lambda hypothesis: -hypothesis[1])[:width]
        running = [(labels + [t], score) for labels, t, score in candidates[: 2 * width] if t != NUM_LABELS][:width]
        if len(finished) == width and running and running[0][1] <= finished[-1][1]:
            break
    return finished


def test_a_model_saved_without_beams_searches_without_length_penalty(texts):
    model = build_model()
    penalised = model.generate(**texts, num_beams=3, output_scores=True, return_dict_in_generate=True)
    model.generation_config.num_beams, model.generation_config.length_penalty = 1, None
    again = model.generate(**texts, num_beams=3, output_scores=True, return_dict_in_generate=True)
    assert torch.equal(penalised.sequences, again.sequences)
    assert torch.equal(penalised.sequences_scores, again.sequences_scores)


def test_sequence_probabilities_sum_to_one(texts):
    torch.testing.assert_close(sequence_log_probs(build_model(), texts).exp().sum(1), torch.ones(4))


@pytest.mark.parametrize(("attention", "label_feedback"), SYSTEMS)
def test_a_beam_as_wide_as_the_space_equals_exhaustive_search(texts, attention, label_feedback):
    model = build_model(attention=attention, label_feedback=label_feedback)
    log_probs = sequence_log_probs(model, texts)
    best, order = log_probs.sort(dim=1, descending=True)
    width = len(ALL_SEQUENCES)
    output = model.generate(
        **texts,
        num_beams=width,
        num_return_sequences=width,
        return_dict_in_generate=True,
        output_label_scores=True,
    )
    torch.testing.assert_close(output.sequences_scores.view(4, width), best, rtol=1e-5, atol=1e-5)
    expected = [ALL_SEQUENCES[i] for row in order.tolist() for i in row]
    assert label_sets_from_sequences(output.sequences, NUM_LABELS) == expected
    for label in range(NUM_LABELS):
        having = [i for i, labels in enumerate(ALL_SEQUENCES) if label in labels]
        torch.testing.assert_close(output.label_scores[:, label], log_probs[:, having].exp().sum(1))


@pytest.mark.parametrize("width", range(2, len(ALL_SEQUENCES) + 4))
@pytest.mark.parametrize("label_feedback", ["previous_label", "global_embedding"])
def test_every_beam_width_equals_a_textbook_beam_search(texts, width, label_feedback):
    model = build_model(seed=width, label_feedback=label_feedback)
    output = model.generate(**texts, num_beams=width, num_return_sequences=width, return_dict_in_generate=True)
    sets = label_sets_from_sequences(output.sequences, NUM_LABELS)
    for row in range(4):
        text = {name: value[row : row + 1] for name, value in texts.items()}
        expected = textbook_beam_search(model, text, width)
        got_scores = output.sequences_scores[row * width : (row + 1) * width]
        count = len(expected)
        assert sets[row * width : row * width + count] == [labels for labels, _ in expected]
        torch.testing.assert_close(got_scores[:count], torch.tensor([s for _, s in expected]), rtol=1e-5, atol=1e-5)
        # Places for which no sequence exists are blank, never a repeated or unfinished hypothesis.
        assert torch.isneginf(got_scores[count:]).all()
        assert (output.sequences[row * width + count : (row + 1) * width, 1:] == model.config.pad_label_id).all()


@pytest.mark.parametrize("label_feedback", ["previous_label", "global_embedding"])
def test_greedy_search_takes_the_best_label_at_each_step_and_equals_a_beam_of_one(texts, label_feedback):
    model = build_model(label_feedback=label_feedback)
    got = label_sets_from_sequences(model.generate(**texts, num_beams=1), NUM_LABELS)
    for row in range(4):
        text, labels = {name: value[row : row + 1] for name, value in texts.items()}, []
        while True:
            ids = torch.tensor([[model.config.bos_label_id, *labels]])
            token = int(model(**text, decoder_input_ids=ids).logits[0, -1].argmax())
            if token == NUM_LABELS:
                break
            labels.append(token)
        assert got[row] == labels
        ((beam_labels, _),) = textbook_beam_search(model, text, 1)
        assert beam_labels == labels


MODES = {
    "greedy": {"num_beams": 1},
    "beam": {"num_beams": 4, "num_return_sequences": 4},
    "sampling": {"num_beams": 1, "do_sample": True, "num_return_sequences": 8},
    "top-k sampling": {"num_beams": 1, "do_sample": True, "top_k": 2, "temperature": 2.0},
    "beam sampling": {"num_beams": 4, "do_sample": True},
    "no cache": {"num_beams": 3, "use_cache": False},
    "length penalty": {"num_beams": 3, "length_penalty": 2.0},
    "threshold": {"num_beams": 4, "set_decoding": "threshold", "label_threshold": 0.2},
    "expected_f1": {"num_beams": 4, "set_decoding": "expected_f1"},
    "expected_f1 of samples": {"num_beams": 1, "do_sample": True, "num_return_sequences": 8}
    | {"set_decoding": "expected_f1"},
}


@pytest.mark.parametrize("mode", MODES)
def test_no_label_twice_under_every_decoding_mode(texts, mode):
    torch.manual_seed(0)
    for seed in range(5):
        for row in build_model(seed=seed, label_feedback="global_embedding").generate(**texts, **MODES[mode]).tolist():
            labels = [i for i in row if i < NUM_LABELS]
            assert len(labels) == len(set(labels))


CONSTRAINTS = [
    {"min_labels": 2},
    {"max_labels": 1},
    {"max_labels": 0},
    {"min_labels": 3, "max_labels": 3},
    {"allowed_labels": [1]},
    {"forbidden_labels": [0, 2], "min_labels": 1},
    {"required_labels": [2], "max_labels": 2},
    {"required_labels": [2], "max_labels": 1},
    {"label_hierarchy": HIERARCHY},
    {"label_hierarchy": HIERARCHY, "min_labels": 2, "max_labels": 2},
    {"label_hierarchy": {0: 2, 1: 2}, "required_labels": [0], "max_labels": 2},
    {"label_hierarchy": HIERARCHY, "forbidden_labels": [1], "min_labels": 1},
]


def obeys(labels, constraints) -> bool:
    """The constraints, read literally on a label sequence."""
    hierarchy = constraints.get("label_hierarchy", {})
    return (
        constraints.get("min_labels", 0) <= len(labels) <= constraints.get("max_labels", NUM_LABELS)
        and set(labels) <= set(constraints.get("allowed_labels", range(NUM_LABELS)))
        and not set(labels) & set(constraints.get("forbidden_labels", ()))
        and set(constraints.get("required_labels", ())) <= set(labels)
        and all(hierarchy[label] in labels[:i] for i, label in enumerate(labels) if label in hierarchy)
    )


@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_constraints_hold_under_every_decoding_mode(texts, mode, constraints):
    torch.manual_seed(0)
    model = build_model(seed=1)
    output = model.generate(**texts, **MODES[mode], **constraints, return_dict_in_generate=True)
    sequences = output.sequences
    if output.get("sequences_scores") is not None:
        sequences = sequences[~torch.isneginf(output.sequences_scores)]
    unordered = mode == "threshold" and "label_hierarchy" in constraints
    for labels in label_sets_from_sequences(sequences, NUM_LABELS):
        assert obeys(labels, constraints), (labels, unordered)


@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=str)
def test_a_wide_beam_under_constraints_equals_exhaustive_search(texts, constraints):
    model = build_model(seed=2)
    valid = [labels for labels in ALL_SEQUENCES if obeys(labels, constraints)]
    log_probs, order = sequence_log_probs(model, texts, valid).sort(dim=1, descending=True)
    width = len(ALL_SEQUENCES)
    output = model.generate(
        **texts, num_beams=width, num_return_sequences=width, return_dict_in_generate=True, **constraints
    )
    scores = output.sequences_scores.view(4, width)
    torch.testing.assert_close(scores[:, : len(valid)], log_probs, rtol=1e-5, atol=1e-5)
    assert torch.isneginf(scores[:, len(valid) :]).all()
    sets = label_sets_from_sequences(output.sequences.view(4, width, -1)[:, 0], NUM_LABELS)
    assert sets == [valid[i] for i in order[:, 0].tolist()]


@pytest.mark.parametrize("mode", ["greedy", "beam", "length penalty", "threshold", "expected_f1"])
def test_predictions_do_not_depend_on_batch_mates_padding_or_order(texts, mode):
    model = build_model(seed=3, label_feedback="global_embedding")
    settings = dict(MODES[mode], return_dict_in_generate=True, output_label_scores=True, num_return_sequences=1)
    together = model.generate(**texts, **settings)
    sets = label_sets_from_sequences(together.sequences, NUM_LABELS)
    order = torch.tensor([3, 1, 0, 2])
    permuted = model.generate(**{name: value[order] for name, value in texts.items()}, **settings)
    assert label_sets_from_sequences(permuted.sequences, NUM_LABELS) == [sets[i] for i in order.tolist()]
    for row in range(4):
        length = int(texts["attention_mask"][row].sum())
        alone = model.generate(texts["input_ids"][row : row + 1, :length], **settings)
        assert label_sets_from_sequences(alone.sequences, NUM_LABELS) == [sets[row]]
        torch.testing.assert_close(alone.label_scores[0], together.label_scores[row], rtol=1e-5, atol=1e-5)


def test_words_without_a_mask_give_the_same_as_with_it_however_they_are_passed(texts):
    model = build_model(seed=3, label_feedback="global_embedding")
    settings = {"num_beams": 4, "return_dict_in_generate": True, "output_label_scores": True}
    expected = model.generate(**texts, **settings)
    for output in (
        model.generate(texts["input_ids"], **settings),
        model.generate(input_ids=texts["input_ids"], **settings),
        model.generate(texts["input_ids"], attention_mask=texts["attention_mask"], **settings),
    ):
        assert torch.equal(output.sequences, expected.sequences)
        assert torch.equal(output.label_scores, expected.label_scores)


def test_encoder_states_are_kept_once_per_document_in_transformers_search_too(texts):
    model = build_model()
    output = model.generate(**texts, num_beams=6, return_dict_in_generate=True, output_scores=True)
    state = output.past_key_values
    assert {tensor.shape[0] for tensor in state.documents.values()} == {4}
    assert state.documents.keys() == {"keys", "values", "mask"}
    assert {tensor.shape[0] for tensor in state.rows.values()} == {4 * 6}


def test_length_penalty_does_not_change_label_scores_of_a_full_beam(texts):
    model = build_model()
    settings = {"num_beams": len(ALL_SEQUENCES), "return_dict_in_generate": True, "output_label_scores": True}
    plain = model.generate(**texts, **settings).label_scores
    penalised = model.generate(**texts, **settings, length_penalty=1.5).label_scores
    torch.testing.assert_close(plain, penalised, rtol=1e-4, atol=1e-5)


def test_scores_of_samples_are_their_share(texts):
    torch.manual_seed(0)
    model = build_model()
    output = model.generate(
        **texts,
        num_beams=1,
        do_sample=True,
        top_k=0,
        num_return_sequences=500,
        return_dict_in_generate=True,
        output_label_scores=True,
    )
    sets = label_sets_from_sequences(output.sequences, NUM_LABELS)
    assert output.label_scores[0, 1].item() == pytest.approx(sum(1 in labels for labels in sets[:500]) / 500)
    log_probs = sequence_log_probs(model, texts)
    having = [i for i, labels in enumerate(ALL_SEQUENCES) if 1 in labels]
    torch.testing.assert_close(output.label_scores[:, 1], log_probs[:, having].exp().sum(1), atol=0.09, rtol=0)


def test_defaults_live_in_the_generation_config_and_arguments_win(texts):
    model = build_model()
    model.generation_config.max_labels = 1
    model.generation_config.required_labels = [2]
    assert label_sets_from_sequences(model.generate(**texts), NUM_LABELS) == [[2]] * 4
    got = label_sets_from_sequences(model.generate(**texts, required_labels=[0]), NUM_LABELS)
    assert got == [[0]] * 4


def test_labels_can_be_named(texts):
    model = build_model(id2label={0: "a", 1: "b", 2: "c"}, num_labels=3)
    by_name = model.generate(**texts, required_labels=["b"], label_hierarchy={"b": "c"})
    assert torch.equal(by_name, model.generate(**texts, required_labels=[1], label_hierarchy={1: 2}))


def test_known_labels_can_be_given_as_a_prompt(texts):
    model = build_model()
    prompt = torch.tensor([[model.config.bos_label_id, 2]] * 4)
    for labels in label_sets_from_sequences(model.generate(**texts, decoder_input_ids=prompt), NUM_LABELS):
        assert labels[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_labels": 3, "allowed_labels": [0, 1]}, "min_labels=3 cannot be reached: 2 labels are allowed"),
        ({"min_labels": 2, "max_labels": 1}, "min_labels=2 cannot be reached"),
        ({"required_labels": [1], "forbidden_labels": [1]}, "required_labels asks for .*LABEL_1"),
        ({"required_labels": [0, 1], "max_labels": 1}, "more than max_labels=1"),
        ({"required_labels": [0], "label_hierarchy": {0: 1}, "forbidden_labels": [1]}, "LABEL_0"),
        ({"label_hierarchy": {0: 1, 1: 0}}, "cycle"),
        ({"label_hierarchy": {0: 1, 1: 2, 2: 1}}, "cycle"),
        ({"allowed_labels": ["sport"]}, "no label 'sport'"),
        ({"allowed_labels": [7]}, "no label 7"),
        ({"max_labels": -1}, "max_labels must not be negative"),
        ({"set_decoding": "best"}, "set_decoding is 'best'; choose one of"),
        ({"set_decoding": "threshold", "num_return_sequences": 2}, "num_return_sequences"),
        ({"set_decoding": "threshold", "label_threshold": 0.0}, "label_threshold"),
        ({"set_decoding": "threshold", "label_threshold": [0.5, 0.5]}, "one for each of the 3 labels"),
        ({"set_decoding": "expected_f1", "num_return_sequences": 2}, "'expected_f1' finds one set per text"),
        ({"label_threshold": 0.3}, "label_threshold has no effect under set_decoding='best_sequence'"),
        ({"label_threshold": 0.3, "set_decoding": "expected_f1"}, "no effect under set_decoding='expected_f1'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(texts, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model().generate(**texts, **arguments)


def test_a_misspelled_argument_is_refused(texts):
    with pytest.raises(ValueError, match="forbiden_labels"):
        build_model().generate(**texts, forbiden_labels=[1])


def test_the_former_name_of_a_set_decoding_means_the_same_and_warns(texts):
    model = build_model(seed=4)
    expected = model.generate(**texts, set_decoding="threshold", label_threshold=0.3)
    with pytest.warns(FutureWarning, match="'max_f1' is now called 'threshold'"):
        assert torch.equal(model.generate(**texts, set_decoding="max_f1", label_threshold=0.3), expected)


def test_a_checkpoint_with_the_former_name_loads_warns_once_and_is_saved_with_the_new_one(texts, tmp_path):
    model = build_model(seed=4)
    model.generation_config.update(set_decoding="max_f1", label_threshold=0.3)
    model.save_pretrained(tmp_path / "old")
    assert json.loads((tmp_path / "old" / "generation_config.json").read_text())["set_decoding"] == "max_f1"
    with pytest.warns(FutureWarning, match="'max_f1' is now called 'threshold'"):
        loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path / "old")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        got = loaded.generate(**texts)
    assert torch.equal(got, model.generate(**texts, set_decoding="threshold"))
    loaded.save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "generation_config.json").read_text())["set_decoding"] == "threshold"


def test_threshold_takes_the_labels_that_reach_the_threshold(texts):
    model = build_model(seed=4)
    output = model.generate(
        **texts,
        num_beams=16,
        set_decoding="threshold",
        label_threshold=0.3,
        return_dict_in_generate=True,
    )
    for labels, scores in zip(
        label_sets_from_sequences(output.sequences, NUM_LABELS), output.label_scores.tolist(), strict=True
    ):
        assert set(labels) == {i for i, score in enumerate(scores) if score >= 0.3}
        assert labels == sorted(labels, key=lambda i: -scores[i])
    assert output.get("sequences_scores") is None


def f1(predicted, gold):
    """F1 of two sets; 1 where both are empty."""
    total = len(predicted) + len(gold)
    return 2 * len(set(predicted) & set(gold)) / total if total else 1.0


@pytest.mark.parametrize("constraints", [{}, {"max_labels": 1}, {"min_labels": 1}, {"label_hierarchy": HIERARCHY}])
def test_expected_f1_of_a_full_beam_is_the_best_under_the_models_own_distribution(texts, constraints):
    for seed in range(6):
        model = build_model(seed=seed)
        valid = [labels for labels in ALL_SEQUENCES if obeys(labels, constraints)]
        probs = sequence_log_probs(model, texts, valid).exp()
        settings = {"num_beams": len(ALL_SEQUENCES), "set_decoding": "expected_f1", **constraints}
        for row, chosen in enumerate(label_sets_from_sequences(model.generate(**texts, **settings), NUM_LABELS)):
            pairs = list(zip(probs[row].tolist(), valid, strict=True))
            best = max(sum(p * f1(labels, gold) for p, gold in pairs) for labels in valid)
            assert sum(p * f1(chosen, gold) for p, gold in pairs) == pytest.approx(best, rel=1e-4)
            assert obeys(chosen, constraints)


def test_expected_f1_of_one_hypothesis_is_its_set(texts):
    model = build_model(seed=4)
    sets = [
        list(map(sorted, label_sets_from_sequences(model.generate(**texts, num_beams=1, **settings), NUM_LABELS)))
        for settings in ({}, {"set_decoding": "expected_f1"})
    ]
    assert sets[0] == sets[1]


def test_one_set_a_text_is_made_of_all_samples(texts):
    settings = {"num_beams": 1, "do_sample": True, "num_return_sequences": 20, "return_dict_in_generate": True}
    for decoding in ("threshold", "expected_f1"):
        output = seeded(build_model(seed=4), **texts, **settings, set_decoding=decoding)
        assert output.sequences.shape[0] == 4
        assert output.hypotheses.shape[:2] == output.hypothesis_log_probs.shape == (4, 20)
        assert (output.hypothesis_log_probs == 0).all()


def test_hypotheses_come_with_their_log_probabilities(texts):
    model = build_model(seed=4)
    width = len(ALL_SEQUENCES)
    for penalty in (0.0, 1.5):
        output = model.generate(
            **texts,
            num_beams=width,
            length_penalty=penalty,
            return_dict_in_generate=True,
            output_label_scores=True,
        )
        expected = sequence_log_probs(model, texts)
        for row in range(4):
            places = [ALL_SEQUENCES.index(s) for s in label_sets_from_sequences(output.hypotheses[row], NUM_LABELS)]
            torch.testing.assert_close(output.hypothesis_log_probs[row], expected[row, places], rtol=1e-4, atol=1e-5)


def test_a_required_label_reaches_a_threshold_of_one(texts):
    for seed in range(20):
        model = build_model(seed=seed)
        for width in (2, 3, 7, 16):
            output = model.generate(
                **texts,
                num_beams=width,
                required_labels=[1],
                set_decoding="threshold",
                label_threshold=1.0,
                return_dict_in_generate=True,
            )
            assert (output.label_scores <= 1.0).all() and (output.label_scores[:, 1] == 1.0).all()
            assert all(1 in labels for labels in label_sets_from_sequences(output.sequences, NUM_LABELS))


def test_a_threshold_for_each_label_is_kept_in_the_generation_config(texts, tmp_path):
    model = build_model(seed=4)
    model.generation_config.update(set_decoding="threshold", label_threshold=[0.9, 0.05, 0.4])
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    output = loaded.generate(**texts, num_beams=16, return_dict_in_generate=True)
    thresholds = loaded.generation_config.label_threshold
    assert thresholds == [0.9, 0.05, 0.4]
    for labels, scores in zip(
        label_sets_from_sequences(output.sequences, NUM_LABELS), output.label_scores.tolist(), strict=True
    ):
        assert set(labels) == {i for i, score in enumerate(scores) if score >= thresholds[i]}


def test_a_hierarchy_of_ids_is_the_same_after_saving_and_loading(texts, tmp_path):
    model = build_model(seed=4)
    model.generation_config.label_hierarchy = {1: 2, 0: 1}
    expected = model.generate(**texts, required_labels=[0])
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.generate(**texts, required_labels=[0]), expected)
    assert expected[:, 1:4].tolist() == [[2, 1, 0]] * len(expected)


def test_a_threshold_in_the_generation_config_does_no_harm_under_other_decodings(texts):
    model = build_model(seed=4)
    model.generation_config.label_threshold = 0.3
    for decoding in ("best_sequence", "expected_f1"):
        assert model.generate(**texts, set_decoding=decoding).shape[0] == 4


def test_selected_labels_respect_count_limits():
    scores = torch.tensor([[0.9, 0.2, 0.6], [0.1, 0.05, 0.0]])
    assert select_labels(scores, 0.5) == [[0, 2], []]
    assert select_labels(scores, 0.5, min_labels=1) == [[0, 2], [0]]
    assert select_labels(scores, 0.01, max_labels=1) == [[0], [0]]


def test_a_label_in_every_hypothesis_scores_exactly_one():
    sequences = torch.tensor([[[4, 0, 1, 3], [4, 1, 3, 5], [4, 5, 5, 5]]])
    scores = label_scores_from_hypotheses(sequences, torch.tensor([[-0.3, -2.7, -math.inf]]), NUM_LABELS)
    assert scores[0, 1].item() == 1.0
    assert scores[0, 2].item() == 0.0
    assert scores[0, 0].item() == pytest.approx(math.exp(-0.3) / (math.exp(-0.3) + math.exp(-2.7)))


def test_constraints_that_allow_everything_are_trivial():
    config = SGMConfig(num_labels=3)
    assert LabelConstraints(config).is_trivial
    assert not LabelConstraints(config, max_labels=2).is_trivial


SEARCHES = {
    "greedy search": {"num_beams": 1},
    "sampling": {"num_beams": 1, "do_sample": True},
    "beam search": {"num_beams": 3},
    "beam sampling": {"num_beams": 3, "do_sample": True},
}


@pytest.mark.parametrize("mode", SEARCHES)
@pytest.mark.parametrize("feedback", ["previous_label", "global_embedding"])
def test_every_mode_generates_the_same_from_states_embeddings_and_without_memory(texts, mode, feedback):
    model = build_model(num_labels=6, label_feedback=feedback)
    mask = texts["attention_mask"]
    expected = seeded(model, **texts, **SEARCHES[mode])
    embeddings = model.get_input_embeddings()(texts["input_ids"])
    for others in (
        {**texts, "use_cache": False},
        {**texts, "encoder_outputs": model.get_encoder()(**texts)},
        {"attention_mask": mask, "encoder_outputs": model.get_encoder()(**texts)},
        {"attention_mask": mask, "inputs_embeds": embeddings},
        {**texts, "return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True},
    ):
        got = seeded(model, **others, **SEARCHES[mode])
        assert torch.equal(got if isinstance(got, torch.Tensor) else got.sequences, expected)


def seeded(model, **options):
    torch.manual_seed(0)
    return model.generate(**options)


@pytest.mark.parametrize("mode", SEARCHES)
def test_every_mode_returns_what_is_asked_for(texts, mode):
    model = build_model(num_labels=6, decoder_layers=2)
    names = ("output_scores", "output_logits", "output_attentions", "output_hidden_states", "return_dict_in_generate")
    output = seeded(model, **texts, **SEARCHES[mode], **dict.fromkeys(names, True))
    rows = 4 * SEARCHES[mode]["num_beams"]
    assert [states.shape for states in output.encoder_hidden_states] == [(4, 9, 8), (4, 9, 12), (4, 9, 12)]
    assert (
        len(output.scores) == len(output.logits) == len(output.decoder_hidden_states) == len(output.cross_attentions)
    )
    for scores, logits, states, (weights,) in zip(
        output.scores, output.logits, output.decoder_hidden_states, output.cross_attentions, strict=True
    ):
        assert scores.shape == logits.shape == (rows, 7)
        assert [layer.shape for layer in states] == [(rows, 1, 8), (rows, 1, 10), (rows, 1, 10)]
        assert weights.shape == (rows, 1, 9)


@pytest.mark.parametrize("mode", SEARCHES)
def test_the_scores_of_the_labels_add_up_to_that_of_the_sequence(texts, mode):
    model = build_model(num_labels=6)
    output = seeded(model, **texts, **SEARCHES[mode], output_scores=True, return_dict_in_generate=True)
    beams = output.get("beam_indices")
    scores = model.compute_transition_scores(output.sequences, output.scores, beams, normalize_logits=beams is None)
    steps = model(**texts, decoder_input_ids=output.sequences[:, :-1]).logits.log_softmax(dim=-1)
    is_padding = output.sequences[:, 1:] == model.config.pad_label_id
    targets = output.sequences[:, 1:, None].masked_fill(is_padding[..., None], 0)
    expected = steps.gather(-1, targets).squeeze(-1).masked_fill(is_padding, 0.0)
    if mode == "beam sampling":  # is scored as processed for sampling: the sum of the sequence is what counts
        torch.testing.assert_close(scores.sum(dim=1), output.sequences_scores)
    else:
        torch.testing.assert_close(scores, expected[:, : scores.shape[1]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", SEARCHES)
def test_generation_goes_on_from_labels_already_chosen(texts, mode):
    model = build_model(num_labels=6)
    chosen = torch.tensor([[model.config.bos_label_id, 2]] * 4)
    sequences = seeded(model, **texts, decoder_input_ids=chosen, **SEARCHES[mode])
    assert torch.equal(sequences[:, :2], chosen)
    assert not (sequences[:, 2:] == 2).any()
    assert torch.equal(sequences, seeded(model, **texts, decoder_input_ids=chosen, use_cache=False, **SEARCHES[mode]))


def test_generation_goes_on_from_the_state_it_returned(texts):
    model = build_model(num_labels=6, label_feedback="global_embedding")
    options = {"num_beams": 1, "min_labels": 2}
    first = model.generate(**texts, **options, max_new_tokens=2, return_dict_in_generate=True)
    model_inputs = model.prepare_inputs_for_generation(first.sequences, past_key_values=first.past_key_values)
    assert torch.equal(model_inputs["decoder_input_ids"], first.sequences[:, 2:])
    third = model(**model_inputs).logits[:, -1]
    torch.testing.assert_close(third, model(**texts, decoder_input_ids=first.sequences).logits[:, -1])


@pytest.mark.parametrize("option", [{"max_new_tokens": 2}, {"min_new_tokens": 2}, {"output_attentions": True}])
def test_no_argument_of_generate_warns_of_a_default(texts, option, caplog):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        build_model(num_labels=6).generate(**texts, num_beams=1, return_dict_in_generate=True, **option)
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records


# ---- sequences that are cut ----


@pytest.mark.parametrize("others", [{}, {"output_scores": True}], ids=["ours", "transformers"])
@pytest.mark.parametrize("num_steps", [1, 2, 3])
@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=str)
def test_constraints_hold_before_the_cut_as_in_exhaustive_search(texts, constraints, num_steps, others):
    model = build_model(seed=2)
    whole = [labels for labels in ALL_SEQUENCES if obeys(labels, constraints)]
    ended = [labels for labels in whole if len(labels) < num_steps]
    cut = [labels for labels in whole if len(labels) == num_steps]
    settings = {"num_beams": 16, "num_return_sequences": 16, "return_dict_in_generate": True, **others}
    for limit in ({"max_new_tokens": num_steps}, {"max_length": num_steps + 1}):
        if not ended and not cut:
            with pytest.raises(ValueError, match="do not fit: sequences are cut at"):
                model.generate(**texts, **settings, **constraints, **limit)
            continue
        expected = [sequence_log_probs(model, texts, ended)] if ended else []
        for labels in cut:
            target = torch.tensor([labels]).expand(4, -1)
            with torch.no_grad():
                log_probs = model(**texts, labels=target).logits.log_softmax(-1)
            expected.append(log_probs.gather(-1, target[..., None]).sum((1, 2))[:, None])
        expected, order = torch.cat(expected, dim=1).sort(dim=1, descending=True)
        output = model.generate(**texts, **settings, **constraints, **limit)
        scores = output.sequences_scores.view(4, 16)
        torch.testing.assert_close(scores[:, : len(ended + cut)], expected, rtol=1e-5, atol=1e-5)
        assert scores[:, len(ended + cut) :].isneginf().all()
        best = label_sets_from_sequences(output.sequences.view(4, 16, -1)[:, 0], NUM_LABELS)
        assert best == [(ended + cut)[i] for i in order[:, 0].tolist()]


@pytest.mark.parametrize("mode", ["greedy", "sampling"])
@pytest.mark.parametrize("constraints", [{"required_labels": [1, 2]}, {"min_labels": 2}], ids=str)
def test_greedy_search_and_sampling_meet_the_constraints_before_the_cut(texts, constraints, mode):
    for seed in range(5):
        torch.manual_seed(seed)
        sequences = build_model(seed=seed).generate(**texts, **MODES[mode], **constraints, max_new_tokens=2)
        assert all(obeys(labels, constraints) for labels in label_sets_from_sequences(sequences, NUM_LABELS))


@pytest.mark.parametrize("constraints", [{"min_labels": 2}, {"max_labels": 1}, {"required_labels": [0, 2]}], ids=str)
@pytest.mark.parametrize("mode", ["greedy", "beam", "sampling", "no cache"])
def test_without_the_label_mask_repeated_labels_count_once(texts, mode, constraints):
    settings, repeats = dict(MODES[mode], max_new_tokens=4), 0
    for seed in range(6):
        torch.manual_seed(seed)
        model = build_model(seed=seed, label_mask=False)
        for row in model.generate(**texts, **settings, **constraints).tolist():
            labels = [i for i in row if i < NUM_LABELS]
            repeats += len(labels) > len(set(labels))
            assert obeys(list(dict.fromkeys(labels)), constraints)
    assert repeats > 0


# ---- Transformers' arguments ----

NOTHING = {}
REFERENCES = {  # what each argument must amount to
    "suppress_tokens": ({"suppress_tokens": [2]}, {"forbidden_labels": [2]}),
    "bad_words_ids": ({"bad_words_ids": [[2], [4]]}, {"forbidden_labels": [2, 4]}),
    "sequence_bias": ({"sequence_bias": [[[2], -1e9]]}, {"forbidden_labels": [2]}),
    "prefix_allowed_tokens_fn": (
        {"prefix_allowed_tokens_fn": lambda document, ids: [1, 3, 5, 6]},
        {"allowed_labels": [1, 3, 5]},
    ),
    "forced_bos_token_id": ({"forced_bos_token_id": 2}, {"decoder_input_ids": torch.tensor([[7, 2]] * 4)}),
    "min_new_tokens": ({"min_new_tokens": 2}, {"min_labels": 2}),
    "min_length": ({"min_length": 3}, {"min_labels": 2}),
    "forced_eos_token_id": ({"forced_eos_token_id": 6, "max_new_tokens": 3}, {"max_labels": 2}),
    "begin_suppress_tokens": ({"begin_suppress_tokens": [6]}, {"min_labels": 1}),
    "exponential_decay_length_penalty": ({"exponential_decay_length_penalty": (0, 1e6)}, {"max_labels": 1}),
    "repetition_penalty": ({"repetition_penalty": 1.5}, NOTHING),  # no label is repeated
    "no_repeat_ngram_size": ({"no_repeat_ngram_size": 1}, NOTHING),
    "renormalize_logits": ({"renormalize_logits": True}, NOTHING),
    "remove_invalid_values": ({"remove_invalid_values": True}, NOTHING),
    "use_cache": ({"use_cache": False}, NOTHING),
    "max_time": ({"max_time": 600.0}, NOTHING),
    "disable_compile": ({"disable_compile": True}, NOTHING),
    "bos_token_id": ({"bos_token_id": 3}, NOTHING),
    "neutral values": ({"encoder_repetition_penalty": 1.0, "guidance_scale": 1.0, "num_beam_groups": 1}, NOTHING),
}


# These change the scores by which beams compete.
WITHOUT_BEAMS = ("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty")


@pytest.mark.parametrize(
    ("argument", "num_beams"),
    [(name, num_beams) for name in REFERENCES for num_beams in (1, 4) if num_beams == 1 or name not in WITHOUT_BEAMS],
)
def test_an_argument_of_transformers_does_what_it_says(texts, argument, num_beams):
    model = build_model(num_labels=6, seed=3)
    given, expected = REFERENCES[argument]
    got = model.generate(**texts, num_beams=num_beams, **given)
    want = model.generate(**texts, num_beams=num_beams, **expected)
    assert label_sets_from_sequences(got, 6) == label_sets_from_sequences(want, 6)


SAMPLERS = {
    "temperature": 1e-4,
    "top_k": 1,
    "top_p": 1e-4,
    "min_p": 1.0,
    "top_h": 1e-3,
    "epsilon_cutoff": 0.999,
}


@pytest.mark.parametrize("argument", SAMPLERS)
def test_a_sampler_at_its_narrowest_is_greedy_search(texts, argument):
    model = build_model(num_labels=6, seed=3)
    sampled = seeded(model, **texts, num_beams=1, do_sample=True, **{argument: SAMPLERS[argument]})
    assert torch.equal(sampled, model.generate(**texts, num_beams=1))


@pytest.mark.parametrize("argument", [{"typical_p": 0.5}, {"eta_cutoff": 0.2}], ids=str)
def test_a_sampler_leaves_out_labels_and_no_others_come_in(texts, argument):
    model = build_model(num_labels=6, seed=3)
    settings = {"num_beams": 1, "do_sample": True, "num_return_sequences": 200}
    free = {tuple(row) for row in label_sets_from_sequences(seeded(model, **texts, **settings), 6)}
    kept = {tuple(row) for row in label_sets_from_sequences(seeded(model, **texts, **settings, **argument), 6)}
    assert 1 < len(kept) < len(free)


def test_labels_are_streamed_as_they_are_chosen(texts):
    class Streamer:
        def __init__(self):
            self.ids, self.has_ended = [], False

        def put(self, value):
            self.ids += value.flatten().tolist()

        def end(self):
            self.has_ended = True

    streamer, model = Streamer(), build_model()
    sequences = model.generate(texts["input_ids"][:1], num_beams=1, streamer=streamer)
    assert streamer.ids == sequences[0].tolist()
    assert streamer.has_ended


UNSUPPORTED = {
    "encoder_repetition_penalty": 1.5,
    "encoder_no_repeat_ngram_size": 2,
    "watermarking_config": {"bias": 2.0},
    "assistant_model": object(),
    "assistant_early_exit": 1,
    "is_assistant": True,
    "prompt_lookup_num_tokens": 2,
    "use_mtp": True,
    "speculation_type": "dflash",
    "num_beam_groups": 2,
    "diversity_penalty": 0.5,
    "penalty_alpha": 0.5,
    "dola_layers": "low",
    "low_memory": True,
    "constraints": [object()],
    "force_words_ids": [[2]],
    "cache_implementation": "static",
    "cache_config": {"backend": "quanto"},
    "max_cache_len": 8,
    "prefill_chunk_size": 2,
    "compile_config": CompileConfig(),
    "stop_strings": ["LABEL_1"],
    "token_healing": True,
    "guidance_scale": 1.5,
    "negative_prompt_ids": torch.tensor([[0]]),
    "negative_prompt_attention_mask": torch.tensor([[0]]),
    "custom_generate": "transformers-community/group-beam-search",
    "labels": torch.tensor([[0]]),
    "return_dict": True,
}


def test_every_unsupported_argument_is_tried():
    assert set(UNSUPPORTED) == set(UNSUPPORTED_ARGUMENTS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 3, "do_sample": True}], ids=str
)
@pytest.mark.parametrize("argument", UNSUPPORTED)
def test_an_argument_that_cannot_work_is_refused_by_its_name(texts, argument, settings):
    with pytest.raises(ValueError, match=rf"generate\(\) does not support {argument}: (\S+ ){{3}}.*Leave it out\."):
        build_model().generate(**texts, **settings, **{argument: UNSUPPORTED[argument]})


def test_a_generation_config_that_is_given_counts_before_the_models_own_and_stays_as_it_is(texts):
    model = build_model(num_labels=6, seed=3)
    settings = {"num_beams": 1, "max_new_tokens": 4, "required_labels": [5], "max_labels": 3}
    given = GenerationConfig(**settings)
    before = given.to_dict()
    expected = model.generate(**texts, **settings)
    assert torch.equal(model.generate(**texts, generation_config=given), expected)
    assert not torch.equal(model.generate(**texts), expected)
    assert given.to_dict() == before
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    assert torch.equal(model.generate(**texts), expected)


def test_padding_is_found_by_its_id_where_no_mask_is_given(texts):
    model, input_ids = build_model(), texts["input_ids"]
    assert (input_ids == 0).any()
    for mode in ("greedy", "beam"):
        expected = model.generate(**texts, **MODES[mode])
        assert torch.equal(model.generate(input_ids, **MODES[mode]), expected)
        assert torch.equal(model.generate(input_ids=input_ids, **MODES[mode]), expected)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_scores_and_hypotheses_are_returned_only_where_they_are_asked_for(texts, num_beams):
    output = build_model().generate(**texts, num_beams=num_beams, return_dict_in_generate=True)
    for name in ("label_scores", "hypotheses", "hypothesis_log_probs"):
        assert getattr(output, name) is None


def test_an_unsupported_setting_of_the_generation_config_is_refused_too(texts):
    model = build_model()
    model.generation_config.encoder_no_repeat_ngram_size = 2
    with pytest.raises(ValueError, match="encoder_no_repeat_ngram_size"):
        model.generate(**texts)


@pytest.mark.parametrize("argument", ["past_key_values", "streamer"])
def test_what_beams_cannot_have_is_refused_with_them(texts, argument):
    model = build_model()
    state = model(**texts, decoder_input_ids=torch.full((4, 1), 4)).past_key_values
    values = {"past_key_values": state, "streamer": object()}
    with pytest.raises(ValueError, match=f"does not support {argument} with num_beams=3"):
        model.generate(**texts, num_beams=3, **{argument: values[argument]})


def test_greedy_search_goes_on_from_a_state_as_if_it_had_not_stopped(texts):
    model = build_model(num_labels=6, seed=3)
    first = model.generate(**texts, num_beams=1, max_new_tokens=1, return_dict_in_generate=True)
    rest = model.generate(
        **texts, num_beams=1, past_key_values=first.past_key_values, decoder_input_ids=first.sequences
    )
    assert torch.equal(rest, model.generate(**texts, num_beams=1))


@pytest.mark.parametrize(
    "ids",
    [
        {"pad_token_id": 0},
        {"decoder_start_token_id": 2},
        {"decoder_start_token_id": [4, 4, 4, 4]},
        {"eos_token_id": 1},
        {"eos_token_id": [1]},
        {"eos_token_id": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_other_ids_than_the_decoders_are_refused(texts, ids, num_beams):
    with pytest.raises(ValueError, match="are not this model's: 4, 5, and 3 or a list that has it"):
        build_model().generate(**texts, num_beams=num_beams, **ids)


@pytest.mark.parametrize("constraints", [{"min_labels": 1}, {"required_labels": [0]}], ids=str)
def test_labels_that_end_a_sequence_do_not_go_with_needed_ones(texts, constraints):
    with pytest.raises(ValueError, match=r"lets the labels \[1\] end a sequence before"):
        build_model().generate(**texts, eos_token_id=[1, 3], **constraints)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_new_tokens": 4}, "min_new_tokens=4 .* asks for 4 labels, but a set has 3 at most"),
        ({"min_length": 4, "max_labels": 2}, "min_length=4 asks for 3 labels, but a set has 2 at most"),
        ({"min_new_tokens": 2, "allowed_labels": [1]}, "asks for 2 labels, but a set has 1 at most"),
    ],
)
@pytest.mark.parametrize("mode", SEARCHES)
def test_more_labels_than_there_can_be_are_refused(texts, mode, settings, message):
    with pytest.raises(ValueError, match=message):
        build_model().generate(**texts, **SEARCHES[mode], **settings)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"required_labels": [2], "suppress_tokens": [2]},
        {"min_labels": 2, "max_new_tokens": 2, "forced_eos_token_id": 3},
        {"required_labels": [0, 1, 2], "max_time": 0.0},
    ],
    ids=str,
)
def test_another_argument_cannot_break_the_constraints_unseen(texts, settings, num_beams):
    with pytest.raises(ValueError, match=r"No label set within the constraints was found|do not fit"):
        build_model().generate(**texts, num_beams=num_beams, **settings)


# ---- no texts, and texts without words ----


@pytest.mark.parametrize("mode", MODES)
def test_no_texts_give_no_rows(mode):
    model = build_model()
    settings = {name: value for name, value in MODES[mode].items() if name != "num_return_sequences"}
    for source in (
        {"input_ids": torch.empty(0, 5, dtype=torch.long)},
        {"inputs": torch.empty(0, 0, dtype=torch.long)},
        {"inputs_embeds": torch.empty(0, 5, 8)},
        {"encoder_outputs": (torch.empty(0, 5, 12),)},
    ):
        assert model.generate(**source, **settings).shape == (0, 1)
        output = model.generate(**source, **settings, return_dict_in_generate=True, output_label_scores=True)
        assert output.sequences.shape == (0, 1)
        assert output.label_scores.shape == (0, NUM_LABELS)
        assert label_sets_from_sequences(output.sequences, NUM_LABELS) == []


@pytest.mark.parametrize("mode", ["greedy", "beam"])
def test_texts_without_words_are_decoded_alike_at_every_width(mode):
    model = build_model()
    expected = model.generate(torch.zeros(2, 0, dtype=torch.long), **MODES[mode])
    assert torch.equal(expected, model.generate(torch.zeros(2, 7, dtype=torch.long), **MODES[mode]))
