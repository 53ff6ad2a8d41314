"""The model once more, from the equations of the papers in NumPy, one document and one step at a time."""

import numpy as np
import torch
from torch import nn


def encode(model, input_ids: list[int]) -> np.ndarray:
    """States of one text without padding, (T', H_e)."""
    config, encoder = model.config, model.encoder
    if config.encoder != "hierarchical":
        return word_states(config, encoder, input_ids)
    ends = sentence_ends(input_ids, config.sentence_length, config.sentence_end_ids)
    return sentences(encoder.sentences, word_states(config, encoder.words, input_ids)[ends])


def word_states(config, encoder, input_ids: list[int]) -> np.ndarray:
    """States h of the words of one text, (T, H_e), by PyTorch's own layers."""
    both, cell = config.encoder_bidirectional, config.encoder_cell
    options = {"num_layers": config.encoder_layers, "bidirectional": both, "batch_first": True}
    size = config.encoder_hidden_size if both else 2 * config.encoder_hidden_size
    rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](config.embedding_size, size, **options).double()
    for number, layer in enumerate(encoder.layers):
        for direction, ending in (("forward", ""), ("backward", "_reverse"))[: 1 + both]:
            for name, parameter in getattr(layer, f"{direction}_{cell}").named_parameters():
                getattr(rnn, name.replace("_l0", f"_l{number}{ending}")).data.copy_(parameter)
    with torch.no_grad():
        states = rnn(encoder.embed_tokens.weight[input_ids][None].double())[0][0].numpy()
    return self_attended(encoder, states) if config.encoder == "self_attentive" else states


def self_attended(encoder, states: np.ndarray) -> np.ndarray:
    """h_i + Σ_j α_ij V h_j, where α_i is the softmax of (Q h_i)(K h_j) / √H (Vaswani et al. 2017, eq. 1)."""
    layers = (encoder.self_attention.query, encoder.self_attention.key, encoder.self_attention.value)
    q, k, v = (layer.weight.detach().double().numpy() for layer in layers)
    rows = []
    for own in states:
        alpha = softmax(np.array([(q @ own) @ (k @ other) / np.sqrt(len(own)) for other in states]))
        rows.append(own + sum(a * (v @ other) for a, other in zip(alpha, states, strict=True)))
    return np.array(rows)


def sentence_ends(input_ids: list[int], length: int, end_ids: list[int] | None) -> list[int]:
    """The places of the last words of sentences; the text's last word is one (Lin et al. 2018, §6.3)."""
    ends = range(length - 1, len(input_ids), length)
    if end_ids is not None:
        ends = [place for place, word in enumerate(input_ids) if word in end_ids]
    return sorted({*ends, len(input_ids) - 1})


def sentences(lstm: nn.LSTM, states: np.ndarray) -> np.ndarray:
    """The states of an LSTM over those of the last words of sentences, (T', H)."""
    w = {name: value.detach().double().numpy() for name, value in lstm.named_parameters()}
    h = c = np.zeros(states.shape[1])
    rows = []
    for state in states:
        gates = w["weight_ih_l0"] @ state + w["bias_ih_l0"] + w["weight_hh_l0"] @ h + w["bias_hh_l0"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        rows.append(h)
    return np.array(rows)


def semantic_units(convolution: nn.Module, states: np.ndarray) -> np.ndarray:
    """Dilated convolutions over the states of one text, by loops over places and taps (Lin et al. 2018, §4.1)."""
    for level in convolution.levels:
        weight, bias = (value.detach().double().numpy() for value in (level.weight, level.bias))
        (kernel_size,), (dilation,) = level.kernel_size, level.dilation
        units = []
        for place in range(len(states)):
            total, first = bias.copy(), place - dilation * (kernel_size - 1) // 2
            for tap in range(kernel_size):
                read = first + tap * dilation
                if 0 <= read < len(states):
                    total += weight[:, :, tap] @ states[read]
            units.append(selu(total))
        states = np.array(units)
    return states


def selu(x: np.ndarray) -> np.ndarray:
    return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1))


def bilinear(query: np.ndarray, matrix: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Context and weights (Lin et al. 2018, eq. 4-6)."""
    alpha = softmax(np.array([query @ matrix @ h for h in states]))
    return sum(a * h for a, h in zip(alpha, states, strict=True)), alpha


def two_levels(
    kind: str, w: dict[str, np.ndarray], s: np.ndarray, h: np.ndarray, g: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """What a kind of attention makes of a decoder state s, words h and units g (Lin et al. 2018, §4.2)."""
    if kind in ("bilinear", "semantic"):
        return bilinear(s, w["attention.key.weight"], h if kind == "bilinear" else g)
    of_units, _ = bilinear(s, w["attention.unit_key.weight"], g)
    if kind == "additive":
        of_words, alpha = bilinear(s, w["attention.word_key.weight"], h)
        return of_units + of_words, alpha
    guided = np.tanh(w["attention.combine.weight"] @ np.concatenate([s, of_units]) + w["attention.combine.bias"])
    of_words, alpha = bilinear(guided, w["attention.word_key.weight"], h)
    return guided + of_words, alpha  # eq. 7


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


class Reference:
    """The decoder of one document.

    Args:
        model: The model whose weights it takes.
        states: h, (T, H_e).
    """

    def __init__(self, model, states: np.ndarray):
        self.config = model.config
        self.weights = {name: value.double().numpy() for name, value in model.decoder.state_dict().items()}
        self.states = states
        self.units = None
        if self.config.encoder == "semantic_units":
            self.units = semantic_units(model.encoder.convolution, states)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.weights[f"{name}.weight"] @ x + self.weights.get(f"{name}.bias", 0.0)

    def attend(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """c_t and α_t (eq. 4-6), and beside c_t what the labels give."""
        if self.config.attention == "none":
            return self.attend_to_labels(s), np.zeros(0)
        if self.config.attention != "word":
            context, alpha = two_levels(self.config.attention, self.weights, s, self.states, self.units)
            return np.concatenate([context, self.attend_to_labels(s)]), alpha
        energy = [
            (
                self.weights["attention.energy.weight"][0]
                * np.tanh(self.linear("attention.query", s) + self.linear("attention.key", h))
            ).sum()
            for h in self.states
        ]
        alpha = softmax(np.array(energy))
        return np.concatenate([alpha @ self.states, self.attend_to_labels(s)]), alpha

    def attend_to_labels(self, s: np.ndarray) -> np.ndarray:
        """Σ_i β_i e_i, where β is the softmax of e_i W s (SGM-MLC); nothing in other systems."""
        if not self.config.label_attention:
            return np.zeros(0)
        e = self.weights["feedback.embed_labels.weight"][: self.config.num_labels]
        return softmax(e @ self.linear("label_attention.query", s)) @ e

    def cell(self, layer: int, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One LSTM or GRU cell; a GRU leaves c as it is."""
        w = {name: self.weights[f"cells.{layer}.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        if self.config.cell == "gru":  # as the documentation of nn.GRUCell has it
            of_x, of_h = (np.split(w[f"weight_{k}h"] @ v + w[f"bias_{k}h"], 3) for k, v in (("i", x), ("h", h)))
            r, z = sigmoid(of_x[0] + of_h[0]), sigmoid(of_x[1] + of_h[1])
            return (1 - z) * np.tanh(of_x[2] + r * of_h[2]) + z * h, c
        i, f, g, o = np.split(w["weight_ih"] @ x + w["bias_ih"] + w["weight_hh"] @ h + w["bias_hh"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    def feedback(self, label: int, y: np.ndarray | None) -> np.ndarray:
        """g(y_{t-1}) (eq. 11-14); y is None at the first step, where bos is certain."""
        config, embeddings = self.config, self.weights["feedback.embed_labels.weight"]
        e = embeddings[label]
        e_bar = e if y is None else y[: config.num_labels] @ embeddings[: config.num_labels]  # eq. 11
        if config.label_feedback == "previous_label":
            return e
        if config.label_feedback == "fixed_mixture":
            return (1 - config.mixture_lambda) * e + config.mixture_lambda * e_bar  # eq. 14
        gate = self.linear("feedback.gate_label", e) + self.linear("feedback.gate_average", e_bar)  # eq. 13
        gate = sigmoid(gate) if config.gate_activation == "sigmoid" else gate
        return (1 - gate) * e + gate * e_bar  # eq. 12

    def logits(self, decoder_input_ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """o_t + I_t of each step, (n, L + 1), and α_t, (n, T) (eq. 7-10)."""
        config, half, y = self.config, self.states.shape[1] // 2, None
        final = np.concatenate([self.states[-1, :half], self.states[0, half:]])
        if config.encoder == "hierarchical" or not config.encoder_bidirectional:
            final = self.states[-1]
        h = np.split(np.tanh(self.linear("initial_hidden", final)), config.decoder_layers)
        c = np.split(self.linear("initial_cell", final), config.decoder_layers) if config.cell == "lstm" else h[:]
        has_attention = config.attention != "none" or config.label_attention
        context = self.attend(h[-1])[0] if has_attention else np.zeros(0)
        is_current = config.context_input == "current"
        rows, weights = [], []
        for step, label in enumerate(decoder_input_ids):
            if has_attention and is_current:
                context, alpha = self.attend(h[-1])  # c_t by s_{t-1}: Yang et al. (2019), eq. 3
            x = np.concatenate([self.feedback(label, y), context])
            for layer in range(config.decoder_layers):
                h[layer], c[layer] = self.cell(layer, x, h[layer], c[layer])  # eq. 7
                x = h[layer]
            features = self.linear("state_projection", x)
            if has_attention:
                if not is_current:
                    context, alpha = self.attend(x)
                features = features + self.linear("context_projection", context)
                weights.append(alpha)
            o = self.linear("output", np.tanh(features))  # eq. 8
            if config.label_mask:
                o[[i for i in decoder_input_ids[: step + 1] if i < config.num_labels]] = -np.inf  # eq. 9-10
            y = softmax(o)
            rows.append(o)
        return np.array(rows), np.array(weights)
