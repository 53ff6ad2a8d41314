"""Our model against the textbook's, which is written plainly from the paper, with the same weights."""

import pytest
import torch
from textbook import TextbookSGM, copy_weights

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration, label_sets_from_sequences

NUM_LABELS = 8


def make_models(**settings) -> tuple[SGMForMultiLabelGeneration, TextbookSGM]:
    torch.manual_seed(0)
    config = SGMConfig(
        vocab_size=50,
        embedding_size=12,
        encoder_hidden_size=10,
        encoder_layers=2,
        decoder_hidden_size=14,
        attention_size=9,
        label_feedback="global_embedding",
        num_labels=NUM_LABELS,
        initializer_range=1.0,
        **settings,
    )
    model = SGMForMultiLabelGeneration(config).eval()
    with torch.no_grad():
        model.decoder.output.weight.mul_(4.0)
    textbook = TextbookSGM(config, packed=True).eval()
    copy_weights(model, textbook)
    return model, textbook


def make_texts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([17, 3, 11, 1, 9, 17, 6, 2])
    mask = torch.arange(17) < lengths[:, None]
    input_ids = torch.randint(4, 50, (8, 17), generator=generator).masked_fill(~mask, 0)
    labels = torch.full((8, 5), -100)
    for row in range(8):
        count = row % 5
        labels[row, :count] = torch.randperm(NUM_LABELS, generator=generator)[:count]
        labels[row, count] = NUM_LABELS
    return input_ids, lengths, labels


@pytest.mark.parametrize("decoder_layers", [1, 2])
def test_losses_and_gradients_agree(decoder_layers):
    model, textbook = make_models(decoder_layers=decoder_layers)
    input_ids, lengths, labels = make_texts()
    loss = model(input_ids=input_ids, labels=labels).loss
    expected = textbook(input_ids, lengths, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    for ours, theirs in (
        (model.encoder.embed_tokens, textbook.embed_words),
        (model.decoder.attention.query, textbook.w_a),
        (model.decoder.attention.energy, textbook.v_a),
        (model.decoder.feedback.gate_average, textbook.w_2),
        (model.decoder.output, textbook.w_o),
    ):
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_beams", [2, 5])
@pytest.mark.parametrize("decoder_layers", [1, 2])
def test_beam_searches_agree(decoder_layers, num_beams):
    model, textbook = make_models(decoder_layers=decoder_layers)
    input_ids, lengths, _ = make_texts()
    sequences = model.generate(input_ids, num_beams=num_beams, set_decoding="best_sequence")
    assert label_sets_from_sequences(sequences, NUM_LABELS) == textbook.beam_search(input_ids, lengths, num_beams)
