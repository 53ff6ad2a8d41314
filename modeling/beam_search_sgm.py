"""
Beam search for the SGM family: what Transformers' beam search finds, in less time.

A document starts as one row, not as `num_beams` equal ones; it leaves the batch when its hypotheses are final; and
nothing is done in Python per document. Scores, length penalty, early stopping and the order of the results are those
of `GenerationMixin`.

Shapes: D documents still in the batch of B, K beams, k rows a document (1 at the first step, then up to K), C
candidates a document (at most 2K), L labels, t labels generated so far.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig, LogitsProcessorList

if TYPE_CHECKING:
    from .modeling_sgm import SGMDecoder, SGMDecoderState

# The batch is made smaller once at most this share of its documents is open: copying what stays is not free.
OPEN_SHARE = 0.75


@dataclass
class FinishedHypotheses:
    """
    The best finished label sequences of each document, best first.

    Args:
        sequences (`torch.LongTensor` of shape `(B, K, max_length)`): bos, labels, eos, padding.
        scores (`torch.FloatTensor` of shape `(B, K)`): log p(y|x) over its length to the power of the length penalty;
            -inf where there is no hypothesis, whose sequence then has no meaning.
        padding (`int`): What follows eos.
    """

    sequences: torch.Tensor
    scores: torch.Tensor
    padding: int

    def add(self, documents: torch.Tensor, sequences: torch.Tensor, scores: torch.Tensor) -> None:
        """
        Keeps the best of what there is and what is new.

        Args:
            documents (`torch.LongTensor` of shape `(D,)`): Whose hypotheses the new ones are.
            sequences (`torch.LongTensor` of shape `(D, C, t + 1)`): bos and the labels of the new ones.
            scores (`torch.FloatTensor` of shape `(D, C)`): -inf for those not to count.
        """
        num_beams = self.scores.shape[1]
        old_sequences, old_scores = self.sequences[documents], self.scores[documents]  # (D, K, max_length), (D, K)
        new_sequences = old_sequences.new_full((*scores.shape, old_sequences.shape[2]), self.padding)
        new_sequences[..., : sequences.shape[2]] = sequences  # (D, C, max_length)
        best, places = torch.cat([old_scores, scores], dim=1).topk(num_beams, dim=1)  # (D, K)
        merged = torch.cat([old_sequences, new_sequences], dim=1)  # (D, K + C, max_length)
        self.sequences[documents] = merged.take_along_dim(places[..., None], dim=1)
        self.scores[documents] = best


def beam_search(
    decoder: "SGMDecoder",
    state: "SGMDecoderState",
    constraints: LogitsProcessorList,
    config: GenerationConfig,
    eos_label_id: int,
) -> FinishedHypotheses:
    """
    The `config.num_beams` best label sequences of each document (Yang et al. 2018, §3.3).

    Args:
        decoder ([`SGMDecoder`]): Makes the steps.
        state ([`SGMDecoderState`]): The state before the first step, one row a document; used up.
        constraints (`LogitsProcessorList`): [`LabelConstraints`], or empty.
        config (`GenerationConfig`): `num_beams`, `max_length` (bos included), `length_penalty`, `early_stopping`, and
            the ids of bos and padding.
        eos_label_id (`int`): Ends a sequence.

    Returns:
        [`FinishedHypotheses`]
    """
    num_documents, num_beams, device = state.mask.shape[0], config.num_beams, state.mask.device
    documents = torch.arange(num_documents, device=device)  # (D)
    is_open = torch.ones(num_documents, dtype=torch.bool, device=device)  # (D)
    sequences = torch.full((num_documents, 1, 1), config.decoder_start_token_id, device=device)  # (D, k, t)
    scores = torch.zeros(num_documents, 1, device=device)  # (D, k)
    finished = FinishedHypotheses(
        torch.full((num_documents, num_beams, config.max_length), config.pad_token_id, device=device),
        torch.full((num_documents, num_beams), float("-inf"), device=device),
        config.pad_token_id,
    )
    for length in range(1, config.max_length):
        logits, _, _ = decoder.step(sequences[..., -1].flatten(), state)  # (D * k, L + 1)
        # In single precision for any model, like Transformers' search.
        log_probs = constraints(sequences.flatten(0, 1), logits.float().log_softmax(dim=-1))  # (D * k, L + 1)
        totals = (scores.flatten()[:, None] + log_probs).view(len(documents), -1)  # (D, k * (L + 1))
        values, cells = totals.topk(min(2 * num_beams, totals.shape[1]), dim=1)  # (D, C)
        parents, labels = cells // logits.shape[1], cells % logits.shape[1]  # (D, C)
        candidates = torch.cat([sequences.take_along_dim(parents[..., None], dim=1), labels[..., None]], dim=2)

        is_last = length == config.max_length - 1
        ends = labels == eos_label_id if not is_last else torch.ones_like(labels, dtype=torch.bool)  # (D, C)
        # Only the first K may finish; the others are there so that K may go on.
        final = values[:, :num_beams].masked_fill(~ends[:, :num_beams] | ~is_open[:, None], float("-inf"))  # (D, K)
        finished.add(documents, candidates[:, :num_beams], final / length**config.length_penalty)
        if is_last:
            break

        running = values.masked_fill(ends, float("-inf"))  # (D, C)
        scores, kept = running.topk(min(num_beams, running.shape[1]), dim=1)  # (D, k)
        is_open = is_open & can_improve(scores[:, 0], finished.scores[documents], length, config)  # (D)
        num_open = int(is_open.sum())
        if num_open == 0:
            break
        rows = torch.arange(len(documents), device=device)[:, None] * sequences.shape[1] + parents  # (D, C)
        rows = rows.gather(1, kept)  # (D, k)
        sequences = candidates.take_along_dim(kept[..., None], dim=1)  # (D, k, t + 1)
        if num_open <= OPEN_SHARE * len(documents):
            staying = is_open.nonzero().flatten()  # (D)
            state.keep_documents(staying)
            documents, is_open, rows, sequences, scores = (
                tensor[staying] for tensor in (documents, is_open, rows, sequences, scores)
            )
        state.reorder_cache(rows.flatten())
    return finished


def can_improve(
    best_running: torch.Tensor, finished_scores: torch.Tensor, length: int, config: GenerationConfig
) -> torch.Tensor:
    """
    Whether an open hypothesis may still enter a document's finished ones, by the rules of `early_stopping`.

    Args:
        best_running (`torch.FloatTensor` of shape `(D,)`): log p of each document's best open hypothesis.
        finished_scores (`torch.FloatTensor` of shape `(D, K)`): Its finished ones.
        length (`int`): Labels generated so far, eos included.
        config (`GenerationConfig`): `early_stopping`, `length_penalty`, `max_length`.

    Returns:
        `torch.BoolTensor` of shape `(D,)`.
    """
    if config.early_stopping == "never" and config.length_penalty > 0:
        length = config.max_length - 1
    worst = finished_scores.min(dim=1).values  # (D)
    better = best_running / length**config.length_penalty > worst  # (D)
    return better & (worst == float("-inf")) if config.early_stopping is True else better
