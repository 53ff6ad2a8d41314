"""What the encoder makes of texts."""

import pytest
import torch
from tiny_models import build_model, shake
from torch import nn

from sgm_hf.modeling.encoders_sgm import LAYERS, reversal_index

GOLD = torch.tensor([[2, 0, 3], [1, 3, -100], [3, -100, -100], [0, 2, 3]])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_bidirectional_layer_equals_packed_sequences(cell):
    torch.manual_seed(0)
    layer = LAYERS[cell](5, 4)
    oracle = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](5, 4, batch_first=True, bidirectional=True)
    for direction, ending in (("forward", ""), ("backward", "_reverse")):
        for name, parameter in getattr(layer, f"{direction}_{cell}").named_parameters():
            getattr(oracle, name + ending).data.copy_(parameter)
    lengths, inputs = torch.tensor([7, 3, 1, 5]), torch.randn(4, 7, 5)
    packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(oracle(packed)[0], batch_first=True)
    states = layer(inputs, reversal_index(lengths, 7))
    is_word = torch.arange(7) < lengths[:, None]
    torch.testing.assert_close(states[is_word], expected[is_word], rtol=1e-6, atol=1e-6)


def test_reversal_is_its_own_inverse_and_leaves_padding_in_place():
    index = reversal_index(torch.tensor([3, 1, 4]), 4)
    assert index.tolist() == [2, 1, 0, 3, 4, 5, 6, 7, 11, 10, 9, 8]
    assert torch.equal(index[index], torch.arange(12))


def test_the_padding_word_is_never_read(texts):
    model = shake(build_model())
    changed = dict(texts, input_ids=texts["input_ids"] + 17 * (1 - texts["attention_mask"]))
    assert torch.equal(model(**texts, labels=GOLD).logits, model(**changed, labels=GOLD).logits)


def test_embeddings_in_place_of_words_give_the_same_logits(texts):
    model = build_model()
    embeddings = model.get_input_embeddings()(texts["input_ids"])
    got = model(inputs_embeds=embeddings, attention_mask=texts["attention_mask"], labels=GOLD).logits
    assert torch.equal(got, model(**texts, labels=GOLD).logits)


def test_without_a_mask_what_is_not_the_padding_word_is_a_word(texts):
    model = build_model(pad_token_id=7)
    input_ids = texts["input_ids"].masked_fill(texts["input_ids"] == 7, 8)
    padded = input_ids.masked_fill(texts["attention_mask"] == 0, 7)
    expected = model(input_ids=padded, attention_mask=texts["attention_mask"], labels=GOLD).logits
    assert torch.equal(model(input_ids=padded, labels=GOLD).logits, expected)
    embeddings = model.get_input_embeddings()(padded)
    every = torch.ones_like(padded)
    expected = model(input_ids=padded, attention_mask=every, labels=GOLD).logits
    assert torch.equal(model(inputs_embeds=embeddings, labels=GOLD).logits, expected)


def test_words_and_embeddings_at_once_are_refused(texts):
    model = build_model()
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        model(**texts, inputs_embeds=model.get_input_embeddings()(texts["input_ids"]), labels=GOLD)


def test_a_hole_in_the_attention_mask_is_refused():
    with pytest.raises(ValueError, match="padding on the right"):
        build_model()(input_ids=torch.tensor([[4, 5, 6]]), attention_mask=torch.tensor([[1, 0, 1]]), labels=GOLD[:1])
