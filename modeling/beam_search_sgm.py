"""
Beam search for the SGM family: what Transformers' beam search finds, in less time.

A document starts as one row, not as `num_beams` equal ones; it leaves the batch when its hypotheses are final; and
nothing is done in Python per document. Scores, length penalty, early stopping and the order of the results are those
of `GenerationMixin`. Where labels are required, the beams are kept in banks, which Transformers' search does not have.

Shapes: D documents still in the batch of B, K beams, k rows per document (1 at the first step, then up to K), C
candidates per document, L labels, m required labels, t labels generated so far.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import GenerationConfig, LogitsProcessorList

from .constraints_sgm import produced_labels
from .decoder_sgm import SGMDecoderState, SGMLabelDecoder

# The batch is made smaller once at most this share of its documents is open: copying what stays is not free.
OPEN_SHARE = 0.75


@dataclass
class FinishedHypotheses:
    """The best finished label sequences of each document, best first.

    Args:
        sequences: bos, labels, eos, padding, (B, K, t) int64; as long as the longest so far.
        scores: log p(y|x) over its length to the power of the length penalty, (B, K); -inf where there is no
            hypothesis, whose sequence then has no meaning.
        padding: What follows eos.
    """

    sequences: torch.Tensor
    scores: torch.Tensor
    padding: int

    def add(self, documents: torch.Tensor, sequences: torch.Tensor, scores: torch.Tensor) -> None:
        """Keeps the best of what there is and what is new.

        Args:
            documents: Whose hypotheses the new ones are, (D) int64.
            sequences: bos and the labels of the new ones, which are longer than all before, (D, C, t + 1) int64.
            scores: -inf for those not to count, (D, C).
        """
        num_beams = self.scores.shape[1]
        added = sequences.shape[2] - self.sequences.shape[2]
        self.sequences = F.pad(self.sequences, (0, added), value=self.padding)  # (B, K, t + 1)
        best, places = torch.cat([self.scores[documents], scores], dim=1).topk(num_beams, dim=1)  # (D, K)
        merged = torch.cat([self.sequences[documents], sequences], dim=1)  # (D, K + C, t + 1)
        self.sequences[documents] = merged.take_along_dim(places[..., None], dim=1)
        self.scores[documents] = best


def beam_search(
    decoder: SGMLabelDecoder,
    state: SGMDecoderState,
    constraints: LogitsProcessorList,
    config: GenerationConfig,
    eos_ids: torch.Tensor,
    required: torch.Tensor,
) -> FinishedHypotheses:
    """The `config.num_beams` best label sequences of each document (Yang et al. 2018, §3.3).

    Args:
        decoder: Makes the steps.
        state: The state before the first step, one row per document; used up.
        constraints: [`LabelConstraints`], or empty.
        config: `num_beams`, `max_length` (bos included), `length_penalty`, `early_stopping`, and the ids of bos and
            padding.
        eos_ids: What ends a sequence, (E) int64.
        required: Labels that `constraints` require, (m) int64; with any, the beams are kept in banks
            ([`banked_continuations`]).
    """
    num_documents, num_beams, device = state.num_rows, config.num_beams, eos_ids.device
    documents = torch.arange(num_documents, device=device)  # (D)
    is_open = torch.ones(num_documents, dtype=torch.bool, device=device)  # (D)
    sequences = torch.full((num_documents, 1, 1), config.decoder_start_token_id, device=device)  # (D, k, t)
    scores = torch.zeros(num_documents, 1, device=device)  # (D, k)
    finished = FinishedHypotheses(
        torch.full((num_documents, num_beams, 1), config.pad_token_id, device=device),
        torch.full((num_documents, num_beams), float("-inf"), device=device),
        config.pad_token_id,
    )
    for length in range(1, config.max_length):
        logits, _, _ = decoder.step(sequences[..., -1].flatten(), state)  # (D * k, L + 1)
        # In single precision for any model, like Transformers' search.
        log_probs = constraints(sequences.flatten(0, 1), logits.float().log_softmax(dim=-1))  # (D * k, L + 1)
        totals = (scores.flatten()[:, None] + log_probs).view(*scores.shape, -1)  # (D, k, L + 1)
        is_last = length == config.max_length - 1
        if len(required) == 0:
            final, running = continuations(totals, num_beams, eos_ids, is_last)
        else:
            final, running = banked_continuations(totals, num_beams, eos_ids, is_last, sequences, required)
        values = final.values.masked_fill(~is_open[:, None], float("-inf"))  # (D, K)
        finished.add(documents, final.extend(sequences), values / length**config.length_penalty)
        if is_last:
            break

        is_open = is_open & can_improve(running.values[:, 0], finished.scores[documents], length, config)  # (D)
        num_open = int(is_open.sum())
        if num_open == 0:
            break
        rows = torch.arange(len(documents), device=device)[:, None] * sequences.shape[1] + running.parents  # (D, k)
        sequences, scores = running.extend(sequences), running.values  # (D, k, t + 1), (D, k)
        if num_open <= OPEN_SHARE * len(documents):
            staying = is_open.nonzero().flatten()  # (D)
            state.keep_documents(staying)
            documents, is_open, rows, sequences, scores = (
                tensor[staying] for tensor in (documents, is_open, rows, sequences, scores)
            )
        state.reorder_cache(rows.flatten())
    return finished


@dataclass
class Continuations:
    """Hypotheses with one more label, best first.

    Args:
        values: Their log p(y|x), (D, C); -inf for those that do not exist.
        parents: Which row of the document each one continues, (D, C) int64.
        labels: Its new label, (D, C) int64.
    """

    values: torch.Tensor
    parents: torch.Tensor
    labels: torch.Tensor

    def keep(self, values: torch.Tensor, count: int) -> "Continuations":
        """The `count` best by other `values` `(D, C)`, which they take over."""
        values, kept = values.topk(min(count, values.shape[1]), dim=1)  # (D, count)
        return Continuations(values, self.parents.gather(1, kept), self.labels.gather(1, kept))

    def extend(self, sequences: torch.Tensor) -> torch.Tensor:
        """The label sequences: `(D, k, t)` to `(D, C, t + 1)`."""
        before = sequences.take_along_dim(self.parents[..., None], dim=1)  # (D, C, t)
        return torch.cat([before, self.labels[..., None]], dim=2)  # (D, C, t + 1)


def continuations(
    totals: torch.Tensor, num_beams: int, eos_ids: torch.Tensor, is_last: bool
) -> tuple[Continuations, Continuations]:
    """The continuations that end and those that go on: of the best ones of a document.

    Args:
        totals: log p(y|x) of each row with each next label, (D, k, L + 1).
        num_beams: K.
        eos_ids: What ends a sequence, (E) int64.
        is_last: Whether all end, because sequences are cut here.

    Returns:
        At most K each, -inf for those that do not end or go on.
    """
    # Only the first K may end; the others are there so that K may go on.
    num_candidates = min(max(2, 1 + len(eos_ids)) * num_beams, totals[0].numel())
    values, cells = totals.flatten(1).topk(num_candidates, dim=1)  # (D, C)
    candidates = Continuations(values, cells // totals.shape[2], cells % totals.shape[2])
    ends = torch.isin(candidates.labels, eos_ids) | is_last  # (D, C)
    first = slice(num_beams)
    final = Continuations(
        values[:, first].masked_fill(~ends[:, first], float("-inf")),
        candidates.parents[:, first],
        candidates.labels[:, first],
    )
    return final, candidates.keep(values.masked_fill(ends, float("-inf")), num_beams)


def banked_continuations(
    totals: torch.Tensor,
    num_beams: int,
    eos_ids: torch.Tensor,
    is_last: bool,
    sequences: torch.Tensor,
    required: torch.Tensor,
) -> tuple[Continuations, Continuations]:
    """As [`continuations`], with beams in banks by how many required labels they have.

    Without banks, beams walk on through frequent labels until the required ones are cheap (Post and Vilar 2018,
    "dynamic beam allocation").

    Candidates are the best continuations of every row, and the row with each required label. Those of a bank compete
    with one another. The banks take turns at the K places, the fullest first; one that has no candidate left passes
    its turns on. Only sequences with all required labels end, and they compete with those of their bank.

    Args:
        sequences: The rows, (D, k, t) int64.
        required: Label ids, (m) int64.

    Returns:
        At most K each, -inf for those that do not end or go on.
    """
    num_documents, num_rows, num_columns = totals.shape
    num_required = len(required)
    per_row = min(max(2, 1 + len(eos_ids)) * num_beams, num_columns)
    labels = torch.cat([totals.topk(per_row, dim=2).indices, required.expand(num_documents, num_rows, -1)], dim=2)
    labels, _ = labels.sort(dim=2)  # (D, k, c)
    is_repeated = F.pad(labels[..., 1:] == labels[..., :-1], (1, 0))  # (D, k, c)
    values = totals.gather(2, labels).masked_fill(is_repeated, float("-inf"))  # (D, k, c)

    has = produced_labels(sequences.flatten(0, 1), num_columns - 1)[:, required]  # (D * k, m)
    num_held = has.sum(dim=1).view(num_documents, num_rows, 1)  # (D, k, 1)
    lacks = totals.new_zeros(len(has), num_columns, dtype=torch.bool)  # (D * k, L + 1)
    lacks[:, required] = ~has
    banks = num_held + lacks.view_as(totals).gather(2, labels)  # (D, k, c)

    parents = torch.arange(num_rows, device=totals.device)[:, None].expand_as(labels)  # (D, k, c)
    candidates = Continuations(values.flatten(1), parents.flatten(1), labels.flatten(1))  # (D, C)
    banks = banks.flatten(1)  # (D, C)
    ends = torch.isin(candidates.labels, eos_ids) | is_last  # (D, C)
    may_end = ends & (banks == num_required) & (rank_in_bank(candidates.values, banks) < num_beams)  # (D, C)
    final = candidates.keep(candidates.values.masked_fill(~may_end, float("-inf")), num_beams)

    running = candidates.values.masked_fill(ends, float("-inf"))  # (D, C)
    turn = rank_in_bank(running, banks) * (num_required + 1) + num_required - banks  # (D, C)
    turn = turn.masked_fill(running.isneginf(), torch.iinfo(turn.dtype).max)  # (D, C)
    has_place = torch.zeros_like(ends).scatter_(
        1, turn.topk(min(num_beams, turn.shape[1]), dim=1, largest=False).indices, True
    )  # (D, C)
    return final, candidates.keep(running.masked_fill(~has_place, float("-inf")), num_beams)


def rank_in_bank(values: torch.Tensor, banks: torch.Tensor) -> torch.Tensor:
    """How many candidates of the same bank are better.

    Args:
        values: Their scores, (D, C).
        banks: Their banks, (D, C) int64.

    Returns:
        (D, C): From 0; in a tie the one that comes first is better.
    """
    order = values.argsort(dim=1, descending=True, stable=True)  # (D, C)
    order = order.gather(1, banks.gather(1, order).argsort(dim=1, stable=True))  # (D, C), bank by bank, best first
    ordered = banks.gather(1, order)  # (D, C)
    place = torch.arange(values.shape[1], device=values.device).expand_as(order)  # (D, C)
    is_first = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)  # (D, C)
    first = place.where(is_first, 0).cummax(dim=1).values  # (D, C), where the bank starts
    return torch.empty_like(order).scatter_(1, order, place - first)  # (D, C)


def can_improve(
    best_running: torch.Tensor, finished_scores: torch.Tensor, length: int, config: GenerationConfig
) -> torch.Tensor:
    """Whether an open hypothesis may still enter a document's finished ones, by the rules of `early_stopping`.

    Args:
        best_running: log p of each document's best open hypothesis, (D).
        finished_scores: Its finished ones, (D, K).
        length: Labels generated so far, eos included.
        config: `early_stopping`, `length_penalty`, `max_length`.

    Returns:
        (D).
    """
    if config.early_stopping == "never" and config.length_penalty > 0:
        length = config.max_length - 1
    worst = finished_scores.min(dim=1).values  # (D)
    better = best_running / length**config.length_penalty > worst  # (D)
    return better & (worst == float("-inf")) if config.early_stopping is True else better
