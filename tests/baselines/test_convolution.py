"""The convolutional networks, against plain transcriptions on small sizes."""

import numpy as np
import pytest
import torch
from torch import nn

from sgm_hf.baselines.convolution import (
    CNNConfig,
    CNNForMultiLabelClassification,
    CNNRNNConfig,
    CNNRNNForMultiLabelGeneration,
    dynamic_max_pool,
)

TEXTS = [[3, 4, 5, 6, 7, 8, 9], [9, 3], [5], [4, 4, 6, 8, 3]]


def make_cnn(**settings) -> CNNForMultiLabelClassification:
    torch.manual_seed(0)
    sizes = {"vocab_size": 12, "embedding_size": 5, "widths": [2, 4], "feature_maps": 3, "num_labels": 4}
    model = CNNForMultiLabelClassification(CNNConfig(**(sizes | settings))).eval()
    for parameter in model.parameters():  # biases are 0 at first, which would hide what they do
        nn.init.normal_(parameter)
    return model


def make_cnn_rnn() -> CNNRNNForMultiLabelGeneration:
    torch.manual_seed(0)
    sizes = {"vocab_size": 12, "embedding_size": 5, "widths": [2, 4], "feature_maps": 3, "num_labels": 4}
    config = CNNRNNConfig(**sizes, attention="none", text_size=6, decoder_hidden_size=7, dropout=0.2)
    return CNNRNNForMultiLabelGeneration(config).eval()


def pad(texts: list[list[int]], width: int) -> dict[str, torch.Tensor]:
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    return {"input_ids": ids, "attention_mask": ids.ne(0).long()}


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def features_of(text: list[int], convolution: nn.Module) -> np.ndarray:
    """Pooled features of one text, word by word: every window, the greatest value of every chunk."""
    embeddings = array(convolution.embed_tokens.weight)
    found = []
    for layer in convolution.convolutions:
        weight, bias = array(layer.weight), array(layer.bias)  # (maps, size, width), (maps)
        width = weight.shape[2]
        words = [embeddings[word] for word in text]
        words += [np.zeros(embeddings.shape[1])] * max(0, width - len(words))
        for row in range(len(weight)):
            windows = []
            for first in range(len(words) - width + 1):
                value = bias[row] + sum(weight[row, :, place] @ words[first + place] for place in range(width))
                windows.append(max(0.0, value))
            for chunk in range(convolution.num_chunks):
                first = chunk * len(windows) // convolution.num_chunks
                end = int(np.ceil((chunk + 1) * len(windows) / convolution.num_chunks))
                found.append(max(windows[first:end]))
    return np.array(found)


def linear(layer: nn.Module, values: np.ndarray) -> np.ndarray:
    return array(layer.weight) @ values + (0 if layer.bias is None else array(layer.bias))


@pytest.mark.parametrize("settings", [{}, {"num_chunks": 3, "bottleneck_size": 6}], ids=["cnn", "xml_cnn"])
def test_logits_equal_a_plain_transcription(settings):
    model = make_cnn(**settings)
    with torch.no_grad():
        logits = model(**pad(TEXTS, 9)).logits
    for text, row in zip(TEXTS, logits, strict=True):
        features = features_of(text, model.convolution)
        assert len(features) == model.convolution.output_size == 6 * settings.get("num_chunks", 1)
        if model.bottleneck is not None:
            features = np.maximum(0, linear(model.bottleneck, features))
        np.testing.assert_allclose(array(row), linear(model.output, features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_chunks", [1, 2, 3, 5])
def test_pooling_of_each_document_equals_torchs_adaptive_pooling_of_it_alone(num_chunks):
    windows = torch.randn(4, 3, 11, generator=torch.Generator().manual_seed(1))
    counts = torch.tensor([11, 7, 3, 1])
    pooled = dynamic_max_pool(windows, counts, num_chunks)
    for row, count in enumerate(counts.tolist()):
        alone = nn.AdaptiveMaxPool1d(num_chunks)(windows[row, :, :count])
        torch.testing.assert_close(pooled[row], alone, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{}, {"num_chunks": 3, "bottleneck_size": 6}], ids=["cnn", "xml_cnn"])
def test_padding_never_changes_a_score(settings):
    model = make_cnn(**settings)
    with torch.no_grad():
        together = model(**pad(TEXTS, 13)).logits
        for row, text in enumerate(TEXTS):
            alone = model(**pad([text], len(text))).logits[0]
            torch.testing.assert_close(together[row], alone, rtol=1e-5, atol=1e-6)


def test_what_stands_at_padding_never_changes_a_score():
    model = make_cnn()
    inputs = pad(TEXTS, 9)
    with torch.no_grad():
        expected = model(**inputs).logits
        inputs["input_ids"][inputs["attention_mask"] == 0] = 7
        torch.testing.assert_close(model(**inputs).logits, expected, rtol=0, atol=0)


def test_the_loss_is_the_mean_binary_cross_entropy():
    model = make_cnn()
    labels = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]]).float()
    with torch.no_grad():
        output = model(**pad(TEXTS, 7), labels=labels)
    p = 1 / (1 + np.exp(-array(output.logits)))
    expected = -np.mean(np.where(labels.numpy() == 1, np.log(p), np.log(1 - p)))
    assert output.loss.item() == pytest.approx(expected, rel=1e-4)


def test_all_that_is_trained_has_a_gradient():
    for model, labels in (
        (make_cnn(num_chunks=2, bottleneck_size=3, dropout=0.0).train(), torch.ones(4, 4)),
        (make_cnn_rnn().train(), torch.tensor([[0, 2, 4], [1, 4, -100], [4, -100, -100], [3, 1, 4]])),
    ):
        model(**pad(TEXTS, 7), labels=labels).loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def lstm_step(cell: nn.LSTMCell, inputs: np.ndarray, hidden: np.ndarray, memory: np.ndarray) -> tuple:
    """One step of an LSTM by its equations; PyTorch orders the gates input, forget, candidate, output."""
    gates = array(cell.weight_ih) @ inputs + array(cell.bias_ih) + array(cell.weight_hh) @ hidden + array(cell.bias_hh)
    i, f, g, o = np.split(gates, 4)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(memory), memory


def test_cnn_rnns_steps_equal_a_plain_transcription():
    model = make_cnn_rnn()
    sequence = [2, 0, 4]  # two labels, eos
    decoder, eos, bos = model.decoder, model.config.eos_label_id, model.config.bos_label_id
    assert (eos, bos) == (4, 5)
    with torch.no_grad():
        found = model(**pad(TEXTS, 9), labels=torch.tensor([sequence] * len(TEXTS))).logits
    for row, text in enumerate(TEXTS):
        vector = np.tanh(linear(model.encoder.text, features_of(text, model.encoder.convolution)))
        hidden = np.tanh(linear(decoder.initial_hidden, vector))
        memory = linear(decoder.initial_cell, vector)
        for step, label in enumerate([bos, *sequence[:-1]]):
            embedding = array(decoder.feedback.embed_labels.weight)[label]
            hidden, memory = lstm_step(decoder.cells[0], embedding, hidden, memory)
            logits = linear(decoder.output, np.tanh(linear(decoder.state_projection, hidden)))
            logits[sequence[:step]] = -np.inf  # a label comes once
            np.testing.assert_allclose(array(found[row, step]), logits, rtol=1e-4, atol=1e-5)


def test_cnn_rnns_padding_never_changes_what_is_generated():
    model = make_cnn_rnn()
    options = {"return_dict_in_generate": True, "output_label_scores": True}
    together = model.generate(**pad(TEXTS, 12), **options)
    for row, text in enumerate(TEXTS):
        alone = model.generate(**pad([text], len(text)), **options)
        torch.testing.assert_close(together.label_scores[row], alone.label_scores[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [make_cnn, make_cnn_rnn])
def test_a_saved_network_is_the_same_and_takes_no_code_along(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert "auto_map" not in (tmp_path / "config.json").read_text()
    again = type(model).from_pretrained(tmp_path)
    weights = again.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
    ours = ("widths", "feature_maps", "embedding_size", "num_labels", "id2label", "pad_token_id", "dropout")
    assert all(getattr(again.config, name) == getattr(model.config, name) for name in ours)
