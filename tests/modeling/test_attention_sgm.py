"""The attention over the words."""

import numpy as np
import pytest
import torch
from reference import Reference, encode, two_levels
from tiny_models import build_model, shake

GOLD = torch.tensor([[2, 0, 3], [1, 3, -100], [3, -100, -100], [0, 2, 3]])


def test_attention_equals_equations_4_to_6(texts):
    model = build_model()
    encoded = model.encoder(**texts)
    states, attention = encoded.last_hidden_state, model.decoder.attention
    query, memory = torch.randn(4, 10), attention.memory(encoded)
    assert tuple(memory) == attention.memory_names
    context, weights = attention(query, *memory.values())
    for row in range(4):
        h = states[row, : texts["attention_mask"][row].sum()]
        energy = torch.tanh(attention.query(query[row]) + h @ attention.key.weight.T) @ attention.energy.weight[0]
        torch.testing.assert_close(weights[row, : len(h)], energy.softmax(0))
        torch.testing.assert_close(context[row], energy.softmax(0) @ h)
    assert (weights[texts["attention_mask"] == 0] == 0).all()


def test_attention_weights_are_distributions_over_words(texts):
    output = build_model()(**texts, labels=GOLD, output_attentions=True, output_hidden_states=True)
    (weights,) = output.cross_attentions
    assert weights.shape == (4, 3, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 3))


def test_a_text_without_words_looks_at_nothing(texts):
    texts["attention_mask"][1] = 0
    output = build_model()(**texts, labels=GOLD, output_attentions=True)
    sums = output.cross_attentions[0].sum(dim=-1)
    assert not sums[1].any()
    torch.testing.assert_close(sums[[0, 2, 3]], torch.ones(3, 3))


@pytest.mark.parametrize("kind", ["bilinear", "semantic", "additive", "hybrid"])
def test_attention_to_semantic_units_and_words_equals_the_equations_in_numpy(texts, kind):
    encoder = "recurrent" if kind == "bilinear" else "semantic_units"
    model = shake(build_model(encoder=encoder, attention=kind)).double()
    attention, lengths = model.decoder.attention, texts["attention_mask"].sum(dim=1).tolist()
    with torch.no_grad():
        encoded = model.encoder(**texts)
        memory = attention.memory(encoded)
        assert {*memory} == {*attention.memory_names}
        query = torch.randn(8, 10, dtype=torch.float64)  # two rows a document
        context, weights = attention(query, *(memory[name] for name in attention.memory_names))
    w = {f"attention.{name}": value.numpy() for name, value in attention.state_dict().items()}
    for row, length in enumerate(length for length in lengths for _ in range(2)):
        h = encoded.last_hidden_state[row // 2, :length].numpy()
        g = None if kind == "bilinear" else encoded.units[row // 2, :length].numpy()
        expected, alpha = two_levels(kind, w, query[row].numpy(), h, g)
        np.testing.assert_allclose(context[row].numpy(), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(weights[row, :length].numpy(), alpha, rtol=1e-9, atol=1e-12)
        assert not weights[row, length:].any()
    assert model.attends_to_words == (kind != "semantic")


@pytest.mark.parametrize("kind", ["semantic", "additive", "hybrid"])
@pytest.mark.parametrize("encoder", ["recurrent", "hierarchical"])
def test_units_that_no_encoder_makes_are_refused(kind, encoder):
    with pytest.raises(ValueError, match=f"attention='{kind}' looks at semantic units, which encoder='{encoder}'"):
        build_model(encoder=encoder, attention=kind)


@pytest.mark.parametrize("context_input", ["current", "previous"])
@pytest.mark.parametrize("kind", ["bilinear", "semantic", "additive", "hybrid"])
def test_each_step_equals_the_equations_with_the_state_before_it_or_its_own(texts, kind, context_input):
    settings = {"encoder": "recurrent" if kind == "bilinear" else "semantic_units", "attention": kind}
    model = shake(build_model(**settings, context_input=context_input, decoder_layers=2)).double()
    bos = model.config.bos_label_id
    rows = [[bos, 2, 0], [bos, 1, 2], [bos, 0, 1], [bos, 2, 1]]
    with torch.no_grad():
        output = model(**texts, decoder_input_ids=torch.tensor(rows), output_attentions=True)
    for row, decoder_input_ids in enumerate(rows):
        words = texts["input_ids"][row, : texts["attention_mask"][row].sum()].tolist()
        expected, alpha = Reference(model, encode(model, words)).logits(decoder_input_ids)
        np.testing.assert_allclose(output.logits[row].numpy(), expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            output.cross_attentions[0][row, :, : len(words)].numpy(), alpha, rtol=1e-9, atol=1e-9
        )
