"""The attention over the words."""

import torch
from tiny_models import build_model

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
