"""SGM+GE written plainly from its paper, as the baseline of the benchmarks and an oracle of the tests.

Everything is done in the obvious way: `nn.LSTM` over padded or packed texts, encoder states repeated over beams, a
Python list of hypotheses per document. Nothing of the package is used but the weights that `copy_weights` copies.
Equations: Yang et al. 2018.

Shapes: B documents, T words, n decoder steps, R rows (documents times beams), L labels, H_e encoder state size,
H_d decoder size, A attention size, E label embedding size.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class TextbookSGM(nn.Module):
    """SGM with global embedding (paper, section 2).

    Args:
        config: An `SGMConfig`, for its sizes.
        packed: Whether the encoder reads packed sequences. Otherwise its backward direction starts in the padding,
            so that the states of a text depend on the length of its batch.
    """

    def __init__(self, config, packed: bool):
        super().__init__()
        self.num_labels, self.packed = config.num_labels, packed
        self.bos, self.eos = config.bos_label_id, config.eos_label_id
        hidden, encoder_size = config.decoder_hidden_size, 2 * config.encoder_hidden_size
        label_size, attention_size = config.label_embedding_size, config.attention_size
        self.embed_words = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.lstm = nn.LSTM(
            config.embedding_size,
            config.encoder_hidden_size,
            num_layers=config.encoder_layers,
            bidirectional=True,
            batch_first=True,
            dropout=config.dropout if config.encoder_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.num_layers = config.decoder_layers
        self.initial_hidden = nn.Linear(encoder_size, self.num_layers * hidden)
        self.initial_cell = nn.Linear(encoder_size, self.num_layers * hidden)
        self.w_a = nn.Linear(hidden, attention_size)
        self.u_a = nn.Linear(encoder_size, attention_size, bias=False)
        self.v_a = nn.Linear(attention_size, 1, bias=False)
        self.embed_labels = nn.Embedding(config.num_labels + 3, label_size)
        self.w_1 = nn.Linear(label_size, label_size, bias=False)
        self.w_2 = nn.Linear(label_size, label_size, bias=False)
        sizes = [label_size + encoder_size] + [hidden] * (self.num_layers - 1)
        self.cells = nn.ModuleList(nn.LSTMCell(size, hidden) for size in sizes)
        self.w_d = nn.Linear(hidden, hidden)
        self.v_d = nn.Linear(encoder_size, hidden, bias=False)
        self.w_o = nn.Linear(hidden, config.num_labels + 1)

    def encode(self, input_ids: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encoder states (B, T, H_e), their mask (B, T), s_0 and its cell states, (B, layers * H_d) each (eq. 2-3)."""
        words = self.dropout(self.embed_words(input_ids))  # (B, T, embedding_size)
        if self.packed:
            words = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, (last, _) = self.lstm(words)  # (B, T, H_e), (layers * 2, B, H_e / 2)
        if self.packed:
            states, _ = pad_packed_sequence(states, batch_first=True)  # (B, T, H_e)
        mask = torch.arange(states.shape[1]) < lengths[:, None]  # (B, T)
        if self.packed:
            final = torch.cat([last[-2], last[-1]], dim=-1)  # (B, H_e)
        else:
            rows, half = torch.arange(len(lengths)), states.shape[-1] // 2
            final = torch.cat([states[rows, lengths - 1, :half], states[:, 0, half:]], dim=-1)  # (B, H_e)
        return states, mask, torch.tanh(self.initial_hidden(final)), self.initial_cell(final)

    def attend(self, hidden, states, keys, mask) -> torch.Tensor:
        """The context c_t (R, H_e) of decoder states (R, H_d) over encoder states (R, T, H_e) (eq. 4-6)."""
        energy = self.v_a(torch.tanh(self.w_a(hidden)[:, None] + keys)).squeeze(-1)  # (R, T)
        weights = energy.masked_fill(~mask, float("-inf")).softmax(dim=-1)  # (R, T)
        return (weights[..., None] * states).sum(dim=1)  # (R, H_e)

    def feed_back(self, labels: torch.Tensor, probabilities: torch.Tensor | None) -> torch.Tensor:
        """g(y_{t-1}) (R, E) of the labels (R,) and the distribution (R, L + 1) of the step before (eq. 11-13)."""
        label = self.embed_labels(labels)  # (R, E)
        average = label  # (R, E)
        if probabilities is not None:
            average = probabilities[:, : self.num_labels] @ self.embed_labels.weight[: self.num_labels]  # (R, E)
        gate = self.w_1(label) + self.w_2(average)  # (R, E)
        return (1 - gate) * label + gate * average  # (R, E)

    def step(self, labels, probabilities, hidden, cell, context, produced, states, keys, mask):
        """One decoder step (eq. 7-10): log-probabilities (R, L + 1) and the new hidden, cell and context.

        `hidden` and `cell` are those of all layers, (R, layers * H_d).
        """
        inputs = torch.cat([self.feed_back(labels, probabilities), context], dim=-1)  # (R, E + H_e)
        new_hidden, new_cell = [], []
        for lstm_cell, *memory in zip(
            self.cells, hidden.chunk(self.num_layers, dim=-1), cell.chunk(self.num_layers, dim=-1), strict=True
        ):
            inputs, memory = lstm_cell(self.dropout(inputs), tuple(memory))  # (R, H_d)
            new_hidden.append(inputs)
            new_cell.append(memory)
        context = self.attend(inputs, states, keys, mask)  # (R, H_e)
        features = torch.tanh(self.w_d(inputs) + self.v_d(context))  # (R, H_d)
        logits = self.w_o(self.dropout(features)).masked_fill(produced, float("-inf"))  # (R, L + 1)
        return logits.log_softmax(dim=-1), torch.cat(new_hidden, dim=-1), torch.cat(new_cell, dim=-1), context

    def forward(self, input_ids: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy (nats) of the label sequences (B, n), -100 where they have ended (section 2.2)."""
        states, mask, hidden, cell = self.encode(input_ids, lengths)
        keys = self.u_a(states)  # (B, T, A)
        context = self.attend(hidden.chunk(self.num_layers, dim=-1)[-1], states, keys, mask)  # (B, H_e)
        produced = torch.zeros(len(labels), self.num_labels + 1, dtype=torch.bool)  # (B, L + 1)
        previous, probabilities = torch.full((len(labels),), self.bos), None
        losses = []
        for target in labels.unbind(dim=1):
            log_probs, hidden, cell, context = self.step(
                previous, probabilities, hidden, cell, context, produced, states, keys, mask
            )
            losses.append(nn.functional.nll_loss(log_probs, target, ignore_index=-100, reduction="sum"))
            previous, probabilities = target.clamp(min=0), log_probs.exp()
            is_label = (target >= 0) & (target < self.num_labels)  # (B)
            produced = produced.clone()
            produced[is_label, target[is_label]] = True
        return torch.stack(losses).sum() / (labels != -100).sum()

    @torch.no_grad()
    def beam_search(self, input_ids: torch.Tensor, lengths: torch.Tensor, num_beams: int) -> list[list[int]]:
        """The best label sequence of each document by log p(y|x), found by beam search (section 3.3)."""
        states, mask, hidden, cell = self.encode(input_ids, lengths)
        states, mask, hidden, cell = (
            tensor.repeat_interleave(num_beams, dim=0) for tensor in (states, mask, hidden, cell)
        )
        keys = self.u_a(states)  # (R, T, A)
        context = self.attend(hidden.chunk(self.num_layers, dim=-1)[-1], states, keys, mask)  # (R, H_e)
        num_rows, width = len(hidden), self.num_labels + 1
        produced = torch.zeros(num_rows, width, dtype=torch.bool)  # (R, L + 1)
        previous, probabilities = torch.full((num_rows,), self.bos), None
        scores = torch.full((len(lengths), num_beams), float("-inf"))  # (B, beams)
        scores[:, 0] = 0.0
        sequences: list[list[int]] = [[] for _ in range(num_rows)]
        finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(len(lengths))]
        for _ in range(width):
            log_probs, hidden, cell, context = self.step(
                previous, probabilities, hidden, cell, context, produced, states, keys, mask
            )
            totals = (scores.view(-1, 1) + log_probs).view(len(lengths), -1)  # (B, beams * (L + 1))
            best, chosen = totals.topk(2 * num_beams, dim=1)  # (B, 2 * beams)
            sources, labels, scores, sequences = self._advance(best, chosen, sequences, finished, num_beams)
            hidden, cell, context, produced = (t[sources] for t in (hidden, cell, context, produced))
            previous, probabilities = labels, log_probs.exp()[sources]
            produced = produced.clone()
            produced[torch.arange(num_rows), labels] = True
            # A document is finished when no open hypothesis can exceed the worst one kept.
            if all(
                len(done) >= num_beams and min(score for score, _ in done) >= row.max()
                for done, row in zip(finished, scores, strict=True)
            ):
                break
        return [max(done, key=lambda pair: pair[0])[1] for done in finished]

    def _advance(self, best, chosen, sequences, finished, num_beams):
        """Divide the candidates of each document into finished hypotheses and the next beams."""
        sources, labels, scores, kept = [], [], [], []
        for document, (values, cells) in enumerate(zip(best.tolist(), chosen.tolist(), strict=True)):
            rows = []
            for rank, (value, cell) in enumerate(zip(values, cells, strict=True)):
                beam, label = divmod(cell, self.num_labels + 1)
                source = document * num_beams + beam
                if label == self.eos:
                    if rank < num_beams and value > float("-inf"):
                        finished[document].append((value, sequences[source]))
                        finished[document].sort(key=lambda pair: -pair[0])
                        del finished[document][num_beams:]
                elif len(rows) < num_beams:
                    rows.append((source, label, value))
            for source, label, value in rows:
                sources.append(source)
                labels.append(label)
                scores.append(value)
                kept.append([*sequences[source], label])
        scores = torch.tensor(scores).view(-1, num_beams)
        return torch.tensor(sources), torch.tensor(labels), scores, kept


@torch.no_grad()
def copy_weights(model, textbook: TextbookSGM) -> None:
    """Give the textbook model the weights of an `SGMForMultiLabelGeneration` with attention and global embedding."""
    encoder, decoder = model.encoder, model.decoder
    textbook.embed_words.weight.copy_(encoder.embed_tokens.weight)
    for number, layer in enumerate(encoder.layers):
        for suffix, lstm in (("", layer.forward_lstm), ("_reverse", layer.backward_lstm)):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(textbook.lstm, f"{name}_l{number}{suffix}").copy_(getattr(lstm, f"{name}_l0"))
    pairs = {
        textbook.initial_hidden: decoder.initial_hidden,
        textbook.initial_cell: decoder.initial_cell,
        textbook.w_a: decoder.attention.query,
        textbook.u_a: decoder.attention.key,
        textbook.v_a: decoder.attention.energy,
        textbook.embed_labels: decoder.feedback.embed_labels,
        textbook.w_1: decoder.feedback.gate_label,
        textbook.w_2: decoder.feedback.gate_average,
        **dict(zip(textbook.cells, decoder.cells, strict=True)),
        textbook.w_d: decoder.state_projection,
        textbook.v_d: decoder.context_projection,
        textbook.w_o: decoder.output,
    }
    for theirs, ours in pairs.items():
        theirs.load_state_dict(ours.state_dict())
