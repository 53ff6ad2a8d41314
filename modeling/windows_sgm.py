"""Overlapping windows: how an encoder of limited length reads a text of any length.

A text is its tokens between those that the tokenizer puts around it ([CLS] and [SEP]). Window k holds the tokens from
k * step on, step = size - overlap, between the same tokens around. A token's state is taken from one window: where two
overlap, the earlier one has the first half of the overlap and the later one the rest, so that each state saw words on
both sides. All follows from the text's own length, whatever the other texts of the batch are.

Shapes: B documents, T tokens, W tokens of the longest window, N windows of all documents together.
"""

from dataclasses import dataclass

import torch


@dataclass
class Windows:
    """Where the windows of a batch begin and where each token's state is found.

    Args:
        rows: The document of each window, (N) int64.
        places: The place in its document of each token of a window, (N, W) int64; 0 for padding.
        mask: True for the tokens of a window, (N, W) bool.
        sources: Where the state of each token of the documents lies among the N * W of the windows, (B, T) int64; 0
            for padding.
    """

    rows: torch.Tensor
    places: torch.Tensor
    mask: torch.Tensor
    sources: torch.Tensor

    def cut(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens (B, T, ...) of each window, (N, W, ...); 0 for padding."""
        pieces = tokens[self.rows[:, None], self.places]  # (N, W, ...)
        return pieces.masked_fill(~self.mask.view(*self.mask.shape, *[1] * (tokens.dim() - 2)), 0)  # (N, W, ...)

    def merge(self, states: torch.Tensor) -> torch.Tensor:
        """The state of each token of the documents, (B, T, H), of those of the windows, (N, W, H)."""
        return states.flatten(0, 1)[self.sources]  # (B, T, H)


def make_windows(lengths: torch.Tensor, num_tokens: int, size: int, overlap: int, before: int, after: int) -> Windows:
    """Plans the windows of a batch.

    Args:
        lengths: Tokens of each document, those around it included, (B) int64.
        num_tokens: T.
        size: Most tokens of a window, those around it included.
        overlap: Tokens that a window has in common with the one before it.
        before: Tokens that the tokenizer puts before each text.
        after: And after it.
    """
    room = size - before - after
    step = room - overlap
    own = (lengths - before - after).clamp(min=0)  # (B)
    counts = 1 + ((own - room).clamp(min=0) + step - 1) // step  # (B)
    rows = torch.repeat_interleave(counts)  # (N)
    first = counts.cumsum(0) - counts  # (B), the first window of each document
    starts = (torch.arange(len(rows), device=rows.device) - first[rows]) * step  # (N)

    held = (own[rows] - starts).clamp(max=room)  # (N), tokens between those around
    held = torch.where(own[rows] > 0, held + before + after, lengths[rows])  # (N)
    place = torch.arange(min(size, num_tokens), device=rows.device)  # (W)
    mask = place < held[:, None]  # (N, W)
    places = torch.where(place < before, place, starts[:, None] + place)  # (N, W)
    from_end = held[:, None] - place  # (N, W), 1 for the last token
    places = torch.where(from_end <= after, lengths[rows][:, None] - from_end, places)  # (N, W)

    token = torch.arange(num_tokens, device=rows.device)  # (T)
    window = torch.div(token - before - overlap // 2, step, rounding_mode="floor")  # (T)
    window = torch.minimum(window.clamp(min=0), (counts - 1)[:, None])  # (B, T)
    sources = (first[:, None] + window) * len(place) + token - window * step  # (B, T)
    is_token = token < lengths[:, None]  # (B, T)
    return Windows(rows, places.masked_fill(~mask, 0), mask, sources.masked_fill(~is_token, 0))


__all__ = ["Windows", "make_windows"]
