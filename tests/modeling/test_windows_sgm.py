"""Where windows begin, and from which of them a token's state comes."""

import pytest
import torch

from sgm_hf.modeling.windows_sgm import make_windows

CASES = [(8, 2, 1, 1), (8, 0, 1, 1), (5, 3, 0, 1), (4, 1, 0, 0), (7, 4, 1, 0), (3, 0, 1, 1), (2, 1, 0, 0)]


def planned(size, overlap, before, after, lengths=range(30)):
    lengths = torch.tensor([length for length in lengths if length == 0 or length >= before + after + 1])
    return lengths, make_windows(lengths, int(lengths.max()), size, overlap, before, after)


def by_hand(length, size, overlap, before, after):
    """The places of each window of one text, as a loop."""
    own = list(range(before, length - after)) if length else []
    front, back = list(range(before)), list(range(length - after, length))
    room, windows, start = size - before - after, [], 0
    while True:
        windows.append(front + own[start : start + room] + back if length else [])
        if start + room >= len(own):
            return windows
        start += room - overlap


@pytest.mark.parametrize("case", CASES, ids=str)
def test_windows_are_those_that_a_loop_cuts(case):
    lengths, windows = planned(*case)
    found = [places[mask].tolist() for places, mask in zip(windows.places, windows.mask, strict=True)]
    assert found == [window for length in lengths.tolist() for window in by_hand(length, *case)]
    assert windows.mask.shape[1] == case[0] and (windows.mask.sum(dim=1) <= case[0]).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_was_cut_and_merged_is_what_there_was(case):
    lengths, windows = planned(*case)
    tokens = torch.arange(1, lengths.max() + 1).expand(len(lengths), -1) + 100 * torch.arange(len(lengths))[:, None]
    merged = windows.merge(windows.cut(tokens)[..., None].float()).squeeze(-1)
    is_token = torch.arange(tokens.shape[1]) < lengths[:, None]
    assert torch.equal(merged[is_token], tokens[is_token].float())


def test_each_half_of_an_overlap_comes_from_the_window_that_saw_more_around_it():
    windows = make_windows(torch.tensor([18]), 18, size=10, overlap=4, before=1, after=1)  # 16 tokens, 8 at once
    assert windows.rows.tolist() == [0, 0, 0]
    window = (windows.sources[0] // 10).tolist()
    assert window == [0, *[0] * 6, *[1] * 4, *[2] * 6, 2]  # those of 4, 5 | 6, 7 and 8, 9 | 10, 11 are read twice


def test_a_text_has_the_same_windows_whatever_its_batch_mates_are():
    alone = make_windows(torch.tensor([17]), 17, 8, 2, 1, 1)
    together = make_windows(torch.tensor([29, 17, 3]), 29, 8, 2, 1, 1)
    own = together.rows == 1
    assert torch.equal(together.places[own], alone.places) and torch.equal(together.mask[own], alone.mask)
    first = int(own.nonzero()[0]) * 8
    assert torch.equal(together.sources[1, :17] - first, alone.sources[0])
