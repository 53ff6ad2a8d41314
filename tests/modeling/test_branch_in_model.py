"""The lexical branch in the model: what encoder and branch read, both sources in the decoder and in `generate()`."""

import itertools

import pytest
import torch
from tiny_models import NUM_LABELS, build_model, shake
from transformers import GenerationConfig

from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.modeling.lexical_sgm import SGMLexicalBranch
from sgm_hf.training.sampling import without_dropout

EOS = NUM_LABELS
SIZES = range(NUM_LABELS + 1)
SEQUENCES = [list(order) for size in SIZES for order in itertools.permutations(range(NUM_LABELS), size)]


def build(**settings) -> SGMForMultiLabelGeneration:
    """A tiny model whose branch has weights for all words and a few bigrams."""
    model = build_model(**{"lexical_branch": True, "lexical_bigrams": 4, "vocab_size": 40} | settings)
    branch = SGMLexicalBranch(40, model.config.num_labels, 4)
    generator = torch.Generator().manual_seed(1)
    branch.scale = torch.rand(44, generator=generator) + 0.5
    branch.weight = torch.randn(44, model.config.num_labels, generator=generator)
    branch.bias = torch.randn(model.config.num_labels, generator=generator) - 0.5
    branch.bigrams = torch.tensor([5 * 40 + 6, 6 * 40 + 7, 9 * 40 + 2, 12 * 40 + 12])
    model.set_lexical_branch(branch, "some documents")
    return shake(model)


@pytest.fixture
def texts() -> dict[str, torch.Tensor]:
    input_ids = torch.randint(1, 40, (5, 9), generator=torch.Generator().manual_seed(2))
    input_ids[0, 5:], input_ids[3, 1:] = 0, 0
    input_ids[1, :3] = torch.tensor([5, 6, 7])
    return {"input_ids": input_ids, "attention_mask": input_ids.ne(0).long()}


def targets(labels: list[int], count: int) -> torch.Tensor:
    return torch.tensor([[*labels, EOS]]).expand(count, -1)


def exact(model, texts) -> torch.Tensor:
    """log p of every label sequence by teacher forcing, (B, sequences)."""
    columns = []
    for labels in SEQUENCES:
        logits = model(**texts, labels=targets(labels, len(texts["input_ids"]))).logits
        steps = logits.log_softmax(-1).gather(-1, targets(labels, len(logits))[..., None]).squeeze(-1)
        columns.append(steps.sum(dim=1))
    return torch.stack(columns, dim=1)


def as_ids(row: torch.Tensor) -> list[int]:
    return [label for label in row.tolist() if label < NUM_LABELS]


def test_the_encoder_reads_the_beginning_and_the_branch_all(texts):
    model = build(encoder_max_length=4)
    encoded = model.encode(**texts)
    short = {name: tensor[:, :4] for name, tensor in texts.items()}
    assert torch.equal(encoded.last_hidden_state, model.encoder(**short).last_hidden_state)
    assert torch.equal(encoded.lexical_logits, model.lexical(**texts))
    changed = {**texts, "input_ids": texts["input_ids"].clone()}
    changed["input_ids"][1, 8] = (changed["input_ids"][1, 8] + 1) % 39 + 1
    other = model.encode(**changed)
    assert torch.equal(other.last_hidden_state, encoded.last_hidden_state)
    assert not torch.equal(other.lexical_logits[1], encoded.lexical_logits[1])
    assert torch.equal(other.lexical_logits[[0, 2, 3, 4]], encoded.lexical_logits[[0, 2, 3, 4]])


def test_a_branch_beside_the_decoder_does_not_run_for_logits_that_it_has_no_say_in(texts, monkeypatch):
    model = build()
    labels, vectors = targets([2, 0], 5), model.get_input_embeddings()(texts["input_ids"])
    expected = model(encoder_outputs=model.encode(**texts), labels=labels).loss
    monkeypatch.setattr(model.lexical, "forward", lambda *inputs: pytest.fail("the branch ran"))
    assert torch.equal(model(**texts, labels=labels).loss, expected)
    embedded = {"inputs_embeds": vectors, "attention_mask": texts["attention_mask"]}  # it reads no vectors
    torch.testing.assert_close(model(**embedded, labels=labels).loss, expected)


@pytest.mark.parametrize("in_decoder", [False, True])
def test_padding_and_batch_mates_change_nothing(texts, in_decoder):
    model = build(lexical_in_decoder=in_decoder)
    options = {"return_dict_in_generate": True, "output_label_scores": True, "lexical_weight": 0.7}
    together = model.generate(**texts, **options)
    for row in range(5):
        length = int(texts["attention_mask"][row].sum())
        alone = model.generate(input_ids=texts["input_ids"][row : row + 1, :length], **options)
        assert as_ids(alone.sequences[0]) == as_ids(together.sequences[row])
        torch.testing.assert_close(alone.label_scores[0], together.label_scores[row], rtol=1e-4, atol=1e-6)


def test_a_step_adds_both_sources_as_the_docstring_says(texts):
    model = build(lexical_in_decoder=True, label_feedback="previous_label")
    scorer, z = model.decoder.lexical, model.lexical(**texts).clamp(-10, 10)
    labels = targets([2, 0], 5)
    both = model(**texts, labels=labels).logits  # (B, 3, L + 1)
    a, b, c = (parameter.detach().clone() for parameter in (scorer.label_scale, scorer.label_bias, scorer.eos_scale))
    for parameter in scorer.parameters():
        parameter.data.zero_()
    own = model(**texts, labels=labels).logits
    for document, step in itertools.product(range(5), range(3)):
        missing = [z[document, label].exp() for label in range(NUM_LABELS) if label not in [2, 0][:step]]
        produced = [torch.tensor(-10.0).exp() for label in [2, 0][:step]]
        eos = c[step] * torch.stack(missing + produced).sum().log()
        torch.testing.assert_close(both[document, step, EOS], own[document, step, EOS] + eos, rtol=1e-4, atol=1e-4)
        for label in range(NUM_LABELS):
            expected = own[document, step, label] + a[step] * z[document, label] + b[step]
            torch.testing.assert_close(both[document, step, label], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("feedback", ["previous_label", "global_embedding"])
def test_beams_greedy_search_and_teacher_forcing_see_one_distribution(texts, feedback):
    model = build(lexical_in_decoder=True, label_feedback=feedback)
    log_probs = exact(model, texts)  # (B, sequences)
    torch.testing.assert_close(log_probs.logsumexp(dim=1), torch.zeros(5), atol=1e-4, rtol=0)
    output = model.generate(**texts, num_beams=16, return_dict_in_generate=True)
    best = log_probs.max(dim=1)
    assert [as_ids(row) for row in output.sequences] == [SEQUENCES[place] for place in best.indices]
    torch.testing.assert_close(output.sequences_scores, best.values, rtol=1e-4, atol=1e-4)
    greedy = model.generate(**texts, num_beams=1)
    steps = model(**texts, decoder_input_ids=greedy[:, :-1]).logits.argmax(dim=-1)
    is_generated = greedy[:, 1:] <= EOS
    assert torch.equal(steps[is_generated], greedy[:, 1:][is_generated])


@pytest.mark.parametrize("in_decoder", [False, True])
def test_reweighted_beams_are_those_of_an_exhaustive_search(texts, in_decoder):
    model = build(lexical_in_decoder=in_decoder)
    weight, temperature, share = 0.8, 1.7, 0.7
    z = model.lexical(**texts)  # (B, L)
    sums = torch.stack([z[:, labels].sum(dim=1) for labels in SEQUENCES], dim=1)  # (B, sequences)
    weighed = (exact(model, texts) + weight * sums) / temperature
    probs = weighed.softmax(dim=1)
    sets = [frozenset(labels) for labels in SEQUENCES]
    has = torch.tensor([[label in labels for label in range(NUM_LABELS)] for labels in sets]).float()
    output = model.generate(
        **texts,
        num_beams=16,
        lexical_weight=weight,
        hypothesis_temperature=temperature,
        lexical_share=share,
        return_dict_in_generate=True,
        output_label_scores=True,
    )
    torch.testing.assert_close(
        output.label_scores, (1 - share) * probs @ has + share * z.sigmoid(), rtol=1e-4, atol=1e-5
    )
    for document in range(5):
        total = {one: probs[document][[other == one for other in sets]].sum() for one in set(sets)}
        assert frozenset(as_ids(output.sequences[document])) == max(total, key=total.get)


def test_every_label_has_a_probability_and_those_decided_have_0_and_1(texts):
    model = build(num_labels=6)
    options = {"return_dict_in_generate": True, "output_label_scores": True, "num_beams": 2}
    scores = model.generate(**texts, **options).label_scores
    assert ((scores > 0) & (scores < 1)).all()
    decided = model.generate(**texts, **options, required_labels=[4], forbidden_labels=[1]).label_scores
    assert (decided[:, 4] == 1).all() and (decided[:, 1] == 0).all()
    assert ((decided[:, [0, 2, 3, 5]] > 0) & (decided[:, [0, 2, 3, 5]] < 1)).all()
    model.add_labels(["new"])
    assert (model.generate(**texts, **options).label_scores[:, 6] == 0).all()


def test_calibration_changes_scores_in_their_order_alone(texts):
    model = build()
    options = {"return_dict_in_generate": True, "output_label_scores": True}
    plain = model.generate(**texts, **options).label_scores
    calibrated = model.generate(**texts, **options, label_calibration=[0.5, -1.0]).label_scores
    torch.testing.assert_close(calibrated, (0.5 * plain.logit() - 1).sigmoid())
    assert torch.equal(calibrated.argsort(dim=1), plain.argsort(dim=1))


@pytest.mark.parametrize("in_decoder", [False, True])
def test_what_is_saved_answers_the_same_bit_for_bit(texts, tmp_path, in_decoder):
    model = build(lexical_in_decoder=in_decoder, encoder_max_length=6)
    settings = {"lexical_weight": 0.5, "hypothesis_temperature": 1.5, "label_calibration": [0.9, 0.1]}
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    assert loaded.config.lexical_data == "some documents" and loaded.config.lexical_bigrams == 4
    assert not any(name.startswith("lexical") for name, _ in loaded.named_parameters())
    options = {"return_dict_in_generate": True, "output_label_scores": True}
    expected, found = (one.generate(**texts, **options) for one in (model, loaded))
    assert torch.equal(found.label_scores, expected.label_scores)
    assert torch.equal(found.sequences, expected.sequences)
    assert GenerationConfig.from_pretrained(tmp_path).lexical_weight == 0.5


def test_in_training_one_source_is_left_out_for_a_share_of_the_documents():
    model = build(lexical_in_decoder=True, lexical_logit_dropout=0.2, lexical_dropout=0.5).train()
    torch.manual_seed(0)
    z = torch.ones(1000, NUM_LABELS)
    memory = model.decoder.lexical.memory(z)
    has_own, has_lexical = memory["own_logits_count"][:, 0] == 1, (memory["lexical_logits"] == 1).all(dim=1)
    assert (has_own | has_lexical).all() and ((memory["lexical_logits"] == 0).all(dim=1) | has_lexical).all()
    assert 150 < (~has_own).sum() < 250 and 450 < (~has_lexical).sum() < 550
    with without_dropout(model):
        assert model.decoder.lexical.memory(z)["own_logits_count"].eq(1).all()
    memory = model.eval().decoder.lexical.memory(z)
    assert memory["own_logits_count"].eq(1).all() and memory["lexical_logits"].eq(1).all()


def test_more_or_fewer_words_leave_the_branch_as_it_was(texts):
    model = build()
    before = model.lexical(**texts)
    model.resize_token_embeddings(50)
    assert torch.equal(model.lexical(**texts), before)
    unknown = {**texts, "input_ids": texts["input_ids"].clone()}
    unknown["input_ids"][2, 8] = 45  # a word without weight
    assert model.encode(**unknown).lexical_logits[2].isfinite().all()
    model.resize_token_embeddings(11)  # 12 12 is gone, 9 2 is not
    assert model.config.lexical_bigrams == len(model.lexical.bigrams) == 3
    assert model.lexical.bigrams.tolist() == [5 * 11 + 6, 6 * 11 + 7, 9 * 11 + 2]
    few = {name: tensor[:, :3] % 11 for name, tensor in texts.items()}
    few["attention_mask"] = few["input_ids"].ne(0).long()
    full = build()
    torch.testing.assert_close(model.lexical(**few), full.lexical(**few))


def test_misuse_is_refused(texts):
    plain, model = build_model(), build(lexical_in_decoder=True)
    with pytest.raises(ValueError, match="no lexical branch; leave it out"):
        plain.encode(**texts, lexical_logits=torch.zeros(5, NUM_LABELS))
    with pytest.raises(ValueError, match="lexical_weight is 0.5.*no lexical branch"):
        plain.generate(**texts, lexical_weight=0.5)
    with pytest.raises(ValueError, match="no lexical branch; make it with"):
        plain.set_lexical_branch(model.lexical)
    with pytest.raises(ValueError, match="is of 40 words and 3 labels, the model of 40 and 6"):
        build_model(lexical_branch=True, num_labels=6).set_lexical_branch(model.lexical)
    with pytest.raises(ValueError, match="give input_ids, or lexical_logits"):
        model.encode(inputs_embeds=torch.zeros(5, 9, 8))
    with pytest.raises(ValueError, match="give what model.encode"):
        model(encoder_outputs=model.encoder(**texts), labels=targets([0], 5))


def test_a_model_without_a_branch_takes_a_temperature(texts):
    model = build_model()
    options = {"return_dict_in_generate": True, "output_label_scores": True}
    plain, warm = (model.generate(**texts, **options, hypothesis_temperature=t) for t in (1.0, 3.0))
    assert torch.equal(plain.sequences, warm.sequences)
    assert torch.equal(plain.label_scores, model.generate(**texts, **options).label_scores)
    assert not torch.equal(plain.label_scores, warm.label_scores)


@pytest.mark.parametrize("in_decoder", [False, True])
def test_labels_that_were_added_and_not_trained_change_no_answer(texts, in_decoder):
    model = build(lexical_in_decoder=in_decoder)
    settings = model.generation_config
    settings.set_decoding, settings.label_threshold = "threshold", [0.2, 0.3, 0.4]
    options = {"return_dict_in_generate": True, "output_label_scores": True, "lexical_weight": 0.5}
    before = model.generate(**texts, **options)
    model.add_labels(["new", "newer"])
    after = model.generate(**texts, **options)
    assert [as_ids(row) for row in after.sequences] == [as_ids(row) for row in before.sequences]
    torch.testing.assert_close(after.label_scores[:, :NUM_LABELS], before.label_scores, rtol=1e-4, atol=1e-5)
    assert (after.label_scores[:, NUM_LABELS:] == 0).all() and (after.lexical_logits[:, NUM_LABELS:] == -10).all()
    assert settings.label_threshold == pytest.approx([0.2, 0.3, 0.4, 0.3, 0.3])
