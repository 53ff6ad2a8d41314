"""Our beam search against Transformers' own, which `output_scores=True` asks for."""

import itertools

import pytest
import torch
from tiny_models import build_model
from transformers import GenerationConfig

from sgm_hf.modeling import beam_search_sgm, generation_sgm
from sgm_hf.modeling.beam_search_sgm import can_improve
from sgm_hf.modeling.decoder_sgm import SGMDecoderState
from sgm_hf.modeling.label_sets_sgm import label_sets_from_sequences

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


# ---- fillers: beams for which no sequence exists ----


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [-30.0, -5.0, -1.0, 0.0, 2.0, 5.0, 30.0])
@pytest.mark.parametrize("others", [{}, {"output_scores": True}], ids=["ours", "transformers"])
def test_no_length_penalty_lets_a_filler_into_the_results(others, length_penalty, early_stopping):
    model, texts = build_model(num_labels=2), make_texts()
    sets = [[], [0], [1], [0, 1], [1, 0]]
    expected = []
    for labels in sets:
        target = torch.tensor([[*labels, 2]]).expand(12, -1)
        with torch.no_grad():
            log_probs = model(**texts, labels=target).logits.log_softmax(-1).gather(-1, target[..., None]).sum((1, 2))
        expected.append(log_probs / len(target[0]) ** length_penalty)
    expected = torch.stack(expected, dim=1).sort(dim=1, descending=True).values
    settings = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    output = generate(model, texts, num_beams=8, num_return_sequences=8, **settings, **others)
    scores = output.sequences_scores.view(12, 8)
    torch.testing.assert_close(scores[:, :5], expected, rtol=1e-4, atol=1e-6)
    assert scores[:, 5:].isneginf().all()
    sequences = output.sequences.view(12, 8, -1)
    assert (sequences[:, 5:, 1:] == model.config.pad_label_id).all()
    assert all(len({tuple(row) for row in rows[:5]}) == 5 for rows in sequences.tolist())


@pytest.mark.parametrize("length_penalty", [-3.0, 3.0])
def test_beam_sampling_returns_no_filler_either(length_penalty):
    model, texts = build_model(num_labels=2), make_texts()
    torch.manual_seed(0)
    output = generate(
        model, texts, num_beams=8, num_return_sequences=8, do_sample=True, length_penalty=length_penalty, top_k=0
    )
    for rows in output.sequences.view(12, 8, -1).tolist():
        real = [tuple(row) for row in rows if set(row[1:]) != {model.config.pad_label_id}]
        assert len(set(real)) == len(real) <= 5
    assert (output.sequences_scores.isneginf() | (output.sequences_scores > -1e6)).all()


# ---- several ids that end a sequence ----


@pytest.mark.parametrize("num_beams", [2, 3, 6])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("ends", [[NUM_LABELS], [2, NUM_LABELS], [NUM_LABELS, 0, 4, 5]], ids=str)
def test_a_list_of_ids_ends_a_sequence_as_in_transformers_search(ends, length_penalty, num_beams):
    model, texts = make_model(), make_texts()
    settings = {"num_beams": num_beams, "num_return_sequences": num_beams, "length_penalty": length_penalty}
    ours = generate(model, texts, eos_token_id=ends, **settings)
    assert_same(ours, generate(model, texts, eos_token_id=ends, **settings, output_scores=True))
    padding = model.config.pad_label_id
    for row in ours.sequences.tolist():
        assert all(after == padding for label, after in itertools.pairwise(row) if label in ends)


# ---- required labels: beams in banks ----


def textbook_banks(model, text, width, limits, length_penalty):
    """Dynamic beam allocation over one text, written plainly: the best `width` sequences with all required labels."""
    hierarchy, required = limits.get("label_hierarchy", {}), set(limits["required_labels"])
    while not required >= (above := {hierarchy[label] for label in required if label in hierarchy}):
        required |= above
    most, eos = limits.get("max_labels", NUM_LABELS), NUM_LABELS

    def next_labels(labels):
        ids = torch.tensor([[model.config.bos_label_id, *labels]])
        with torch.no_grad():
            log_probs = model(**text, decoder_input_ids=ids).logits[0, -1].log_softmax(-1).tolist()
        missing = required - set(labels)
        for label in range(NUM_LABELS):
            places = most - len(labels) - (0 if label in missing else len(missing))
            if label not in labels and places > 0 and hierarchy.get(label, label) in {*labels, label}:
                yield label, log_probs[label]
        if not missing:
            yield eos, log_probs[eos]

    def bank(labels):
        return len(required & set(labels))

    running, finished, step = [([], 0.0)], [], 0
    while running:
        step += 1
        candidates = []
        for labels, score in running:
            nexts = sorted(((label, score + p) for label, p in next_labels(labels)), key=lambda item: -item[1])
            nexts = nexts[: 2 * width] + [item for item in nexts[2 * width :] if item[0] in required]
            candidates += [([*labels, label], total) for label, total in nexts]
        banks = {size: [] for size in range(len(required), -1, -1)}
        for labels, score in sorted(candidates, key=lambda item: -item[1]):
            banks[bank(labels)].append((labels, score))
        best_complete = banks[len(required)][:width]
        finished += [(labels[:-1], s / step**length_penalty) for labels, s in best_complete if labels[-1] == eos]
        finished = sorted(finished, key=lambda item: -item[1])[:width]
        turns = itertools.zip_longest(*([c for c in kept if c[0][-1] != eos] for kept in banks.values()))
        running = [candidate for turn in turns for candidate in turn if candidate is not None][:width]
        best = max((score for _, score in running), default=-float("inf")) / step**length_penalty
        if len(finished) == width and best <= finished[-1][1]:
            break
    return finished


REQUIREMENTS = [
    {"required_labels": [3]},
    {"required_labels": [3, 5]},
    {"required_labels": [6, 2, 0], "max_labels": 4},
    {"required_labels": [4], "label_hierarchy": {4: 6, 6: 1}},
    {"required_labels": [4, 0], "label_hierarchy": {4: 6, 0: 1}, "max_labels": 5},
]


@pytest.mark.parametrize("limits", REQUIREMENTS, ids=str)
@pytest.mark.parametrize(("width", "length_penalty"), [(2, 0.0), (3, 1.0), (5, 0.0), (9, -0.5)])
def test_required_labels_are_searched_by_banks_as_in_a_textbook(limits, width, length_penalty):
    model, texts = make_model(seed=width), make_texts(4)
    settings = {"num_beams": width, "num_return_sequences": width, "length_penalty": length_penalty}
    output = generate(model, texts, **settings, **limits)
    for row in range(4):
        text = {name: value[row : row + 1] for name, value in texts.items()}
        expected = textbook_banks(model, text, width, limits, length_penalty)
        got = slice(row * width, row * width + len(expected))
        found = label_sets_from_sequences(output.sequences[got], NUM_LABELS)
        assert found == [labels for labels, _ in expected]
        scores = torch.tensor([score for _, score in expected])
        torch.testing.assert_close(output.sequences_scores[got], scores, rtol=1e-4, atol=1e-5)


def test_a_search_without_required_labels_does_not_use_banks(monkeypatch):
    monkeypatch.setattr(beam_search_sgm, "banked_continuations", None)  # calling it would fail
    generate(make_model(), make_texts(), num_beams=3, max_labels=2, label_hierarchy={0: 1})


def test_a_rank_in_a_bank_is_the_number_of_better_ones_in_it():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 5, (30, 12), generator=generator).float()
    values[values == 4] = -float("inf")
    banks = torch.randint(0, 3, (30, 12), generator=generator)
    for row, (scores, places) in enumerate(zip(values.tolist(), banks.tolist(), strict=True)):
        expected = [
            sum(
                places[other] == places[i] and (scores[other] > scores[i] or scores[other] == scores[i] and other < i)
                for other in range(12)
            )
            for i in range(12)
        ]
        assert beam_search_sgm.rank_in_bank(values, banks)[row].tolist() == expected


def draw_documents(num_documents: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of twelve words, two for each label, and their labels by frequency; the last label is one in a hundred."""
    ids = torch.zeros(num_documents, 12, dtype=torch.long)
    labels = torch.full((num_documents, 5), -100)
    for row in range(num_documents):
        count = int(torch.randint(1, 4, (), generator=generator))
        chosen = sorted(torch.multinomial(1 / torch.arange(1.0, 20.0), count, generator=generator).tolist())
        chosen += [19] if row % 100 == 99 else []
        coins = torch.randint(0, 2, (12,), generator=generator).tolist()
        ids[row] = torch.tensor([2 + 2 * chosen[i % len(chosen)] + coin for i, coin in enumerate(coins)])
        labels[row, : len(chosen) + 1] = torch.tensor([*chosen, 20])
    return ids, labels


def test_a_rare_required_label_brings_few_others_from_a_trained_model():
    generator = torch.Generator().manual_seed(0)
    sizes = dict.fromkeys(("embedding_size", "encoder_hidden_size", "decoder_hidden_size", "attention_size"), 24)
    model = build_model(vocab_size=42, num_labels=20, **sizes, initializer_range=0.1, dropout=0.0).train()
    ids, labels = draw_documents(1000, generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        rows = torch.randint(0, 1000, (64,), generator=generator)
        optimizer.zero_grad()
        model(input_ids=ids[rows], labels=labels[rows]).loss.backward()
        optimizer.step()
    model.eval()

    texts, gold = draw_documents(60, generator)
    texts = {"input_ids": texts}
    free = label_sets_from_sequences(generate(model, texts).sequences, 20)
    assert sum(set(found) == set(row) - {20, -100} for found, row in zip(free, gold.tolist(), strict=True)) > 50

    def most_added(required, **settings):
        found = label_sets_from_sequences(generate(model, texts, required_labels=required, **settings).sequences, 20)
        assert all(set(required) <= set(labels) for labels in found)
        return max(len(set(labels) - set(required) - set(before)) for labels, before in zip(found, free, strict=True))

    assert most_added([19]) <= 2
    assert most_added([17, 18, 19]) <= 2
    assert most_added([19], num_beams=2) <= 2
    assert most_added([19], output_scores=True) > 4  # without banks
