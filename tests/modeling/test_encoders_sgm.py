"""What the encoder makes of texts."""

import numpy as np
import pytest
import torch
from reference import encode, semantic_units
from tiny_models import build_model, shake
from torch import nn

from sgm_hf.modeling.encoders_sgm import LAYERS, reversal_index, select_states

GOLD = torch.tensor([[2, 0, 3], [1, 3, -100], [3, -100, -100], [0, 2, 3]])
UNITS = {"encoder": "semantic_units", "attention": "semantic"}
SENTENCES = {"encoder": "hierarchical", "sentence_length": 4}
ENDS = {"encoder": "hierarchical", "sentence_end_ids": [5, 18, 19, 22]}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_bidirectional_layer_equals_packed_sequences(cell):
    torch.manual_seed(0)
    layer = LAYERS[cell](5, 8, is_bidirectional=True)
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


@pytest.mark.parametrize("settings", [{}, UNITS, SENTENCES, ENDS], ids=str)
def test_the_padding_word_is_never_read(texts, settings):
    model = shake(build_model(**settings))
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


def words_of(texts, row: int) -> list[int]:
    return texts["input_ids"][row, : texts["attention_mask"][row].sum()].tolist()


@pytest.mark.parametrize(
    ("kernel_size", "dilations"), [(3, [1, 2, 3]), (2, [1, 2, 3]), (5, [2]), (1, [1, 1]), (4, [7, 1])]
)
def test_semantic_units_equal_dilated_convolutions_in_plain_loops(texts, kernel_size, dilations):
    model = shake(build_model(**UNITS, unit_kernel_size=kernel_size, unit_dilations=dilations)).double()
    with torch.no_grad():
        encoded = model.encoder(**texts)
    assert encoded.units.shape == encoded.last_hidden_state.shape
    for row in range(4):  # of 9, 4, 1 and 6 words: less than the receptive field of 13
        words = words_of(texts, row)
        expected = semantic_units(model.encoder.convolution, encode(model, words))
        np.testing.assert_allclose(encoded.units[row, : len(words)].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_no_level_of_the_convolution_reads_padding(texts):
    model = shake(build_model(**UNITS))
    mask = texts["attention_mask"].bool()
    states = torch.randn(4, 9, model.encoder.output_size)
    spoiled = states.masked_fill(~mask[..., None], float("nan"))
    units, expected = (model.encoder.convolution(each, mask) for each in (spoiled, states))
    assert torch.equal(units[mask], expected[mask])
    alone = model.encoder.convolution(states[1:2, :4], mask[1:2, :4])
    torch.testing.assert_close(alone[0], expected[1, :4])


def test_units_are_made_of_states_alone_too(texts):
    model = shake(build_model(encoder="semantic_units", attention="hybrid"))
    encoded = model.encoder(**texts)
    got = model(encoder_outputs=(encoded.last_hidden_state,), attention_mask=texts["attention_mask"], labels=GOLD)
    assert torch.equal(got.logits, model(**texts, labels=GOLD).logits)


@pytest.mark.parametrize(
    "settings", [{"sentence_length": n} for n in (1, 2, 4, 20)] + [{"sentence_end_ids": [5, 18, 19, 22, 30]}], ids=str
)
def test_sentences_equal_an_lstm_over_the_states_of_their_last_words_in_plain_loops(texts, settings):
    model = shake(build_model(encoder="hierarchical", encoder_layers=2, **settings)).double()
    with torch.no_grad():
        encoded = model.encoder(**texts)
    counts = []
    for row in range(4):
        expected = encode(model, words_of(texts, row))
        counts.append(len(expected))
        got = encoded.last_hidden_state[row, : len(expected)].numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(encoded.summary[row].numpy(), expected[-1], rtol=1e-9, atol=1e-12)
    assert encoded.mask.sum(dim=1).tolist() == counts and encoded.mask.shape[1] == max(counts)
    if "sentence_length" in settings:
        assert counts == [-(-length // settings["sentence_length"]) for length in (9, 4, 1, 6)]
    assert not model.attends_to_words


def test_sentences_of_embeddings_need_a_length(texts):
    embeddings = build_model(**SENTENCES).get_input_embeddings()(texts["input_ids"])
    inputs = {"inputs_embeds": embeddings, "attention_mask": texts["attention_mask"], "labels": GOLD}
    model = build_model(**SENTENCES)
    assert torch.equal(model(**inputs).logits, model(**texts, labels=GOLD).logits)
    with pytest.raises(ValueError, match="sentence_end_ids.*give input_ids"):
        build_model(encoder="hierarchical", sentence_end_ids=[5])(**inputs)


def test_words_of_a_hierarchical_encoder_are_resized():
    model = build_model(**SENTENCES)
    model.resize_token_embeddings(43)
    assert model.get_input_embeddings().weight.shape == (43, 8) and model.config.vocab_size == 43


def test_states_are_selected_in_their_order():
    states = torch.arange(6.0).view(2, 3, 1)
    chosen, exists = select_states(states, torch.tensor([[True, False, True], [False, True, False]]))
    assert chosen[exists].flatten().tolist() == [0, 2, 4]
    assert exists.tolist() == [[True, True], [True, False]]
    nothing, exists = select_states(states, torch.zeros(2, 3, dtype=torch.bool))
    assert nothing.shape == (2, 0, 1) and exists.shape == (2, 0)
