"""The decoder: generates labels one by one (Yang et al. 2018, eq. 7-10).

1. `SGMLabelFeedback` is g(y_{t-1}): what the decoder is told about the label before (eq. 7, 11-14).
2. `SGMDecoderState` is what it remembers between two steps.
3. `SGMDecoder.step` makes one step; `SGMDecoder.label_logits` is where a label gets its score and where the label mask
   is applied.

To add a recurrent cell, write a module like `SGMLSTMCell`, enter it in `CELLS`, and name it in `SGMConfig.cell`.

Shapes: B documents, L labels, n decoder steps, R decoder rows (B times the beams or samples of a document, which are
adjacent), T' encoder states, H_d decoder size, E label embedding size.
"""

from typing import Any, cast

import torch
from torch import nn
from transformers import Cache

from .attention_sgm import ATTENTIONS, SGMLabelAttention, at_least_float32
from .configuration_sgm import SGMConfig
from .cpu_sgm import SGMDropout
from .encoders_sgm import SGMEncoder, SGMEncoderOutput
from .label_texts_sgm import mixed_rows, rows_like


class SGMLabelFeedback(nn.Module):
    """g(y_{t-1}): the vector that tells the decoder about the label before (eq. 7, 11-14)."""

    def __init__(self, config: SGMConfig):
        super().__init__()
        self.kind = config.label_feedback
        self.mixture_lambda = config.mixture_lambda
        self.sigmoid_gate = config.gate_activation == "sigmoid"
        self.num_labels = config.num_labels
        size = cast(int, config.label_embedding_size)  # None only before the configuration is complete
        # Labels, then eos, bos and padding.
        self.embed_labels = nn.Embedding(config.num_labels + 3, size)
        if self.kind == "global_embedding":
            # The paper writes L x L; only embedding x embedding fits eq. 12-13.
            self.gate_label = nn.Linear(size, size, bias=False)  # W_1
            self.gate_average = nn.Linear(size, size, bias=False)  # W_2

    @property
    def uses_distribution(self) -> bool:
        """Whether the whole distribution y_{t-1} is fed back, not the label alone."""
        return self.kind != "previous_label"

    def add_labels(self, count: int, shares: torch.Tensor | None = None) -> None:
        """Gives `count` more labels shares (count, L) of the embeddings of those there are; equal ones by default."""
        weight = self.embed_labels.weight  # (L + 3, E)
        labels, others = weight[: self.num_labels], weight[self.num_labels :]  # (L, E), (3, E)
        added = mixed_rows(labels, count, shares)  # (count, E)
        self.embed_labels.weight = _parameter_like(weight, [labels, added, others])  # (L + count + 3, E)
        self.num_labels += count
        self.embed_labels.num_embeddings += count

    def set_label_vectors(self, vectors: torch.Tensor) -> None:
        """Gives the labels' embeddings the direction of vectors (L, ...) and their own usual length."""
        weight = self.embed_labels.weight[: self.num_labels]  # (L, E)
        weight.copy_(rows_like(vectors, weight))  # (L, E)

    def label_embeddings(self, device: torch.device) -> torch.Tensor:
        """The embeddings of the labels, (L, E), on the device where the model runs."""
        weight = self.embed_labels.weight  # (L + 3, E)
        if weight.is_meta:  # offloaded: accelerate fetches it when the module is called
            weight = self.embed_labels(torch.arange(weight.shape[0], device=device))  # (L + 3, E)
        return weight[: self.num_labels]  # (L, E)

    def average(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The average label embedding ē (eq. 11), (R, E), of probabilities (R, L + 1)."""
        embeddings = self.label_embeddings(probabilities.device)  # (L, E)
        return probabilities[:, : self.num_labels].to(embeddings.dtype) @ embeddings  # (R, E), eq. 11

    def forward(self, label_ids: torch.Tensor, average: torch.Tensor | None) -> torch.Tensor:
        """Embeds the step before.

        Args:
            label_ids: Its labels (or bos), (R) int64.
            average: Its ē, (R, E); `None` at the first step, where y_0 is bos with certainty and so ē = e.

        Returns:
            g(y_{t-1}), (R, E).
        """
        label = self.embed_labels(label_ids)  # (R, E)
        if not self.uses_distribution or average is None and self.kind == "fixed_mixture":
            return label
        average = label if average is None else average  # (R, E)
        if self.kind == "fixed_mixture":
            return (1 - self.mixture_lambda) * label + self.mixture_lambda * average  # (R, E), eq. 14
        gate = self.gate_label(label) + self.gate_average(average)  # (R, E), eq. 13
        gate = gate.sigmoid() if self.sigmoid_gate else gate  # (R, E)
        return (1 - gate) * label + gate * average  # (R, E), eq. 12


class SGMDecoderState(Cache):
    """What the decoder remembers between two steps, in the place where Transformers keeps key-value caches.

    Args:
        documents: Tensors (B, ...) kept once per document: the attention's memory, the log-odds of the labels, which
            labels are attended to.
        rows: Tensors (R, ...) that follow their beam: the cells' states, the last context, ē_{t-1}, the labels masked
            so far.
    """

    def __init__(self, documents: dict[str, torch.Tensor], rows: dict[str, torch.Tensor]):
        super().__init__(layers=[])
        self.documents = documents
        self.rows = rows
        self.num_steps = 0

    @property
    def num_rows(self) -> int:
        """R."""
        return next(iter(self.rows.values())).shape[0]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of decoder steps made."""
        return self.num_steps

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row r takes over what row `beam_idx[r]` remembers; `beam_idx` has the shape (R)."""
        self.rows = {name: tensor.index_select(0, beam_idx) for name, tensor in self.rows.items()}

    def keep_documents(self, documents: torch.Tensor) -> None:
        """Forgets all documents but those at the places `documents` (D); rows stay as they are."""
        self.documents = {name: tensor.index_select(0, documents) for name, tensor in self.documents.items()}


class SGMSourceDropout(nn.Dropout):
    """Leaves out, in training, one of a decoder's two sources of logits for a share of the documents.

    So that each learns to do without the other, as words have most to say and would be all that is listened to.
    """

    def __init__(self, own: float, lexical: float):
        super().__init__(own + lexical)
        self.own, self.lexical = own, lexical

    def forward(self, documents: torch.Tensor) -> torch.Tensor:
        """Draws for documents (B, ...) whether their own and their lexical logits count, 1 or 0, (2, B, 1)."""
        draw = documents.new_ones(len(documents), 1)  # (B, 1)
        if not self.training or not self.p:
            return torch.stack([draw, draw])  # (2, B, 1)
        draw = torch.rand_like(draw)  # (B, 1)
        return torch.stack([draw >= self.own, draw < 1 - self.lexical]).to(draw.dtype)  # (2, B, 1)


class SGMLexicalScorer(nn.Module):
    """What the lexical branch's log-odds z add to the logits of a step: a z_l + b to a label's, c log Σ exp z to eos'.

    The sum runs over the labels that may still come: eos is as likely as all of them are not. Each of the first steps
    has an own a, b and c, since a document's first label is another question than whether there is a third; the last
    ones are of all further steps.
    """

    num_steps = 8
    # Log-odds beyond say no more: e^10 to 1.
    largest = 10.0

    def __init__(self, config: SGMConfig):
        super().__init__()
        self.label_scale = nn.Parameter(torch.ones(self.num_steps))  # a
        self.label_bias = nn.Parameter(torch.zeros(self.num_steps))  # b
        self.eos_scale = nn.Parameter(torch.zeros(self.num_steps))  # c
        self.source_dropout = SGMSourceDropout(config.lexical_logit_dropout, config.lexical_dropout)

    def memory(self, lexical_logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is kept of each document: z (B, L), and which documents' own logits count, (B, 1)."""
        own_count, lexical_count = self.source_dropout(lexical_logits).unbind()  # (B, 1), (B, 1)
        z = lexical_logits.clamp(-self.largest, self.largest) * lexical_count  # (B, L)
        return {"lexical_logits": z, "own_logits_count": own_count}

    def forward(self, own_logits: torch.Tensor, state: SGMDecoderState) -> torch.Tensor:
        """Adds both sources.

        Args:
            own_logits: The decoder's, (R, L + 1).
            state: Of before the step is counted, with this step's mask.

        Returns:
            (R, L + 1).
        """
        step = min(state.num_steps, self.num_steps - 1)
        z, counts = state.documents["lexical_logits"], state.documents["own_logits_count"]  # (B, L), (B, 1)
        rows_per_document = len(own_logits) // max(len(z), 1)
        z, counts = (tensor.repeat_interleave(rows_per_document, dim=0) for tensor in (z, counts))  # (R, L), (R, 1)
        missing = z  # (R, L)
        if "masked" in state.rows:
            missing = z.masked_fill(state.rows["masked"][:, :-1], -self.largest)  # (R, L)
        eos = self.eos_scale[step] * missing.logsumexp(dim=-1, keepdim=True)  # (R, 1)
        labels = self.label_scale[step] * z + self.label_bias[step]  # (R, L)
        return own_logits * counts + torch.cat([labels, eos], dim=-1)  # (R, L + 1)


class SGMLSTMCell(nn.LSTMCell):
    """An LSTM cell: takes inputs and a tuple of its states, and returns the tuple of its next states."""

    # Each tensor is (R, H_d); the first one is what the layer above sees. Those called "hidden" start within tanh.
    state_names = ("hidden", "cell")


class SGMGRUCell(nn.GRUCell):
    """A gated recurrent unit, in the same form: its only state is what the layer above sees."""

    state_names = ("hidden",)

    def forward(  # type: ignore[override]
        self, inputs: torch.Tensor, states: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor]:
        """One step of inputs (R, size) and the state (R, H_d)."""
        return (super().forward(inputs, *states),)  # (R, H_d)


# The kinds of `SGMConfig.cell`.
CELLS: dict[str, Any] = {"lstm": SGMLSTMCell, "gru": SGMGRUCell}


class SGMLabelDecoder(nn.Module):
    """What model and search ask of a decoder, however it is made."""

    attends_to_states: bool  # whether its steps return attention weights over the encoder's states

    def add_labels(self, count: int, shares: torch.Tensor | None = None) -> None:
        """Adds `count` labels after those it has; see [`~SGMDecoder.add_labels`]."""
        raise NotImplementedError

    def set_label_vectors(self, vectors: torch.Tensor) -> None:
        """Gives the labels' rows the direction of vectors (L, ...); see [`~SGMDecoder.set_label_vectors`]."""
        raise NotImplementedError

    def start(self, encoded: SGMEncoderOutput, num_rows: int, num_left_out: int = 0) -> SGMDecoderState:
        """The state before the first step; see [`~SGMDecoder.start`]."""
        raise NotImplementedError

    def step(
        self, label_ids: torch.Tensor, state: SGMDecoderState
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
        """One step; see [`~SGMDecoder.step`]."""
        raise NotImplementedError

    def forward(
        self, decoder_input_ids: torch.Tensor, state: SGMDecoderState, output_hidden_states: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None, tuple[torch.Tensor, ...] | None]:
        """Steps over known labels (teacher forcing), or over the one label that `generate()` has just chosen.

        Args:
            decoder_input_ids: bos, then labels, (R, n) int64.
            state: Updated in place.
            output_hidden_states: Whether to return the hidden states.

        Returns:
            Logits (R, n, L + 1); attention weights (R, n, T') or `None`; the hidden states that
            [`~SGMDecoder.step`] describes, (R, n, E) and (R, n, H_d), or `None`.
        """
        steps = [self.step(label_ids, state) for label_ids in decoder_input_ids.unbind(dim=1)]
        logits, weights, hidden = zip(*steps, strict=True)
        attention = None if weights[0] is None else torch.stack(weights, dim=1)  # (R, n, T')
        hidden_states = None
        if output_hidden_states:
            hidden_states = tuple(torch.stack(layer, dim=1) for layer in zip(*hidden, strict=True))  # (R, n, ...)
        return torch.stack(logits, dim=1), attention, hidden_states  # (R, n, L + 1), ...


class SGMDecoder(SGMLabelDecoder):
    """Generates labels one by one (eq. 7-10)."""

    def __init__(self, config: SGMConfig, encoder: SGMEncoder):
        super().__init__()
        hidden_size = config.decoder_hidden_size
        self.num_labels = config.num_labels
        self.num_layers = config.decoder_layers
        self.label_mask = config.label_mask
        self.feedback = SGMLabelFeedback(config)
        self.attention = ATTENTIONS[config.attention](config, encoder)
        self.attends_to_states = self.attention.over_states
        self.label_attention = SGMLabelAttention(config) if config.label_attention else None
        # Of all that is attended to.
        context_size = self.attention.context_size
        if self.label_attention is not None:
            context_size += self.label_attention.context_size
        cell_class = CELLS[config.cell]
        self.state_names = cell_class.state_names
        self.context_is_current = config.context_input == "current"
        for name in self.state_names:
            setattr(self, f"initial_{name}", nn.Linear(encoder.summary_size, config.decoder_layers * hidden_size))
        input_size = cast(int, config.label_embedding_size) + context_size
        sizes = [input_size] + [hidden_size] * (config.decoder_layers - 1)
        self.cells = nn.ModuleList(cell_class(size, hidden_size) for size in sizes)
        self.state_projection = nn.Linear(hidden_size, hidden_size)  # W_d
        self.has_context = context_size > 0
        if self.has_context:
            self.context_projection = nn.Linear(context_size, hidden_size, bias=False)  # V_d
        self.output = nn.Linear(hidden_size, config.num_labels + 1)  # W_o: labels and eos
        self.dropout = SGMDropout(config.dropout)
        self.lexical = SGMLexicalScorer(config) if config.lexical_in_decoder else None

    def set_label_vectors(self, vectors: torch.Tensor) -> None:
        """Gives embeddings and output weights of the labels the direction of their vectors.

        Args:
            vectors: (L, any size); where one is zero, what the label has stays.
        """
        self.feedback.set_label_vectors(vectors)
        weight = self.output.weight[: self.num_labels]  # (L, H_d)
        weight.copy_(rows_like(vectors, weight))  # (L, H_d)

    def add_labels(self, count: int, shares: torch.Tensor | None = None) -> None:
        """Adds labels whose embeddings and output weights are mixed from those there are.

        Args:
            count: Labels to add.
            shares: Of each label that there is, (count, L); equal ones by default.
        """
        for name in ("weight", "bias"):
            rows = getattr(self.output, name)  # (L + 1, ...)
            labels, eos = rows.split([self.num_labels, 1])  # (L, ...), (1, ...)
            added = mixed_rows(labels, count, shares)  # (count, ...)
            setattr(self.output, name, _parameter_like(rows, [labels, added, eos]))  # (L + count + 1, ...)
        self.output.out_features += count
        self.num_labels += count
        self.feedback.add_labels(count, shares)

    def start(self, encoded: SGMEncoderOutput, num_rows: int, num_left_out: int = 0) -> SGMDecoderState:
        """The state before the first step: s_0 from the encoder's summary through a learned projection.

        Args:
            encoded: What the encoder returned for B documents.
            num_rows: R, a multiple of B: how many sequences are decoded in parallel.
            num_left_out: How many of the last labels get no probability.

        Returns:
            A state of R rows, R / B equal ones per document.

        Raises:
            ValueError: If the decoder needs the log-odds of the labels, and there are none.
        """
        summary = encoded.summary  # (B, S)
        assert summary is not None  # of every encoder
        rows_per_document = num_rows // max(summary.shape[0], 1)
        rows: dict[str, torch.Tensor] = {}
        for name in self.state_names:
            first = getattr(self, f"initial_{name}")(summary)  # (B, layers * H_d)
            first = torch.tanh(first) if name == "hidden" else first  # (B, layers * H_d)
            layers = first.repeat_interleave(rows_per_document, dim=0).chunk(self.num_layers, dim=-1)  # (R, H_d) each
            rows |= {f"{name}_{layer}": state for layer, state in enumerate(layers)}
        if self.label_mask or num_left_out:
            masked = summary.new_zeros(num_rows, self.num_labels + 1, dtype=torch.bool)  # (R, L + 1)
            masked[:, self.num_labels - num_left_out : self.num_labels] = True
            rows["masked"] = masked
        documents = self.attention.memory(encoded)
        if self.label_attention is not None:
            is_label = torch.arange(self.num_labels, device=summary.device) < self.num_labels - num_left_out  # (L)
            documents["is_label"] = is_label.expand(summary.shape[0], -1)  # (B, L)
        if self.lexical is not None:
            if encoded.lexical_logits is None:
                raise ValueError(
                    "The decoder needs lexical_logits (config.lexical_in_decoder), which encoder_outputs lacks; "
                    "give what model.encode() returned."
                )
            documents |= self.lexical.memory(encoded.lexical_logits)
        return SGMDecoderState(documents, rows)

    def step(
        self, label_ids: torch.Tensor, state: SGMDecoderState
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
        """One step: feed the label before, attend, score the next label. Updates `state`.

        Args:
            label_ids: Labels of the step before, bos at the first, (R) int64.
            state: What the steps before left.

        Returns:
            Logits o_t + I_t (R, L + 1); attention weights (R, T') or `None`; hidden states: g(y_{t-1}) (R, E), then
            that of each layer, (R, H_d); the last is s_t.
        """
        rows, weights = state.rows, None
        feedback = self.feedback(label_ids, rows.get("average"))  # (R, E)
        if self.context_is_current or "context" not in rows:
            # c_t of Yang et al. (2019), eq. 3, queried by s_{t-1}; or else c_0.
            before = rows[f"hidden_{self.num_layers - 1}"]  # (R, H_d)
            rows["context"], weights = self._attend(before, state)  # (R, H), (R, T')
        inputs = torch.cat([feedback, rows["context"]], dim=-1)  # (R, E + H)
        hidden_states = [feedback]
        for layer, cell in enumerate(self.cells):
            names = [f"{name}_{layer}" for name in self.state_names]
            states = cell(self.dropout(inputs), tuple(rows[name] for name in names))  # (R, H_d) each, eq. 7
            rows.update(zip(names, states, strict=True))
            inputs = states[0]  # (R, H_d)
            hidden_states.append(inputs)

        if not self.context_is_current:
            rows["context"], weights = self._attend(inputs, state)  # (R, H), (R, T')
        logits = self.label_logits(inputs, label_ids, state)  # (R, L + 1)
        if self.feedback.uses_distribution:
            rows["average"] = self.feedback.average(logits.softmax(dim=-1))  # (R, E)
        state.num_steps += 1
        return logits, weights, hidden_states

    def _attend(self, query: torch.Tensor, state: SGMDecoderState) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The context (R, H) and the weights (R, T') of a decoder state (R, H_d)."""
        memory = (state.documents[name] for name in self.attention.memory_names)
        context, weights = self.attention(query, *memory)  # (R, H), (R, T')
        if self.label_attention is not None:
            embeddings = self.feedback.label_embeddings(query.device)  # (L, E)
            of_labels = self.label_attention(query, embeddings, state.documents["is_label"])  # (R, E)
            context = torch.cat([context, of_labels], dim=-1)  # (R, H + E)
        return context, weights

    def label_logits(self, hidden: torch.Tensor, label_ids: torch.Tensor, state: SGMDecoderState) -> torch.Tensor:
        """The score of every label at this step, and the label mask.

        Args:
            hidden: s_t, (R, H_d).
            label_ids: Labels of the step before, which are masked from now on, (R) int64.
            state: Has c_t in its rows.

        Returns:
            o_t + I_t (eq. 8-10), (R, L + 1); -inf for masked labels.
        """
        features = self.state_projection(hidden)  # (R, H_d)
        if self.has_context:
            features = features + self.context_projection(state.rows["context"])  # (R, H_d)
        logits = at_least_float32(self.output(self.dropout(torch.tanh(features))))  # (R, L + 1), eq. 8
        if self.label_mask:
            columns = torch.arange(self.num_labels + 1, device=label_ids.device)  # (L + 1)
            is_produced = (label_ids[:, None] == columns) & (columns < self.num_labels)  # (R, L + 1), never eos
            state.rows["masked"] = state.rows["masked"] | is_produced  # (R, L + 1)
        if self.lexical is not None:
            logits = self.lexical(logits, state)  # (R, L + 1)
        if "masked" in state.rows:
            logits = logits.masked_fill(state.rows["masked"], float("-inf"))  # (R, L + 1), eq. 9-10
        return logits


def _parameter_like(parameter: torch.Tensor, rows: list[torch.Tensor]) -> nn.Parameter:
    """A parameter of these rows, frozen if the other one is."""
    return nn.Parameter(torch.cat(rows), requires_grad=parameter.requires_grad)
