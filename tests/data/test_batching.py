import time

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard

from sgm_hf.data.batching import (
    UNIT,
    LengthBucketBatchSampler,
    bucket_lengths,
    cut_batches,
    draw_repeats,
    repeat_shares,
    split_runs,
)


@pytest.fixture
def lengths():
    random = np.random.default_rng(0)
    return np.clip(random.lognormal(4.5, 0.7, size=2000).astype(int), 1, 400)


def padded_words(batches, lengths):
    return sum(len(batch) * lengths[batch].max() for batch in batches)


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_document_comes_exactly_once_per_epoch(lengths, shuffle):
    sampler = LengthBucketBatchSampler(lengths, 4000, 64, shuffle=shuffle)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert sorted(document for batch in sampler for document in batch) == list(range(len(lengths)))


@pytest.mark.parametrize("shuffle", [True, False])
def test_no_batch_exceeds_either_cap(lengths, shuffle):
    sampler = LengthBucketBatchSampler(lengths, 4000, 48, shuffle=shuffle)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for batch in sampler:
            assert len(batch) <= 48
            assert len(batch) * lengths[batch].max() <= 4000


def test_a_document_above_the_cap_is_a_batch_of_its_own():
    batches = list(LengthBucketBatchSampler([3, 500, 4, 3], max_tokens=10, max_documents=8))
    assert [1] in batches
    assert sorted(document for batch in batches for document in batch) == [0, 1, 2, 3]


def test_both_caps_may_be_reached_but_not_exceeded():
    assert cut_batches([2, 2, 3, 3, 3], max_tokens=9, max_documents=8) == [(0, 3), (3, 5)]
    assert cut_batches([2, 2, 3, 3, 3], max_tokens=8, max_documents=8) == [(0, 2), (2, 4), (4, 5)]
    assert cut_batches([1, 1, 1, 1], max_tokens=100, max_documents=2) == [(0, 2), (2, 4)]
    assert cut_batches([1, 9, 9], max_tokens=5, max_documents=2) == [(0, 1), (1, 2), (2, 3)]
    assert cut_batches([9, 9], max_tokens=5, max_documents=2) == [(0, 1), (1, 2)]
    assert cut_batches([], max_tokens=5, max_documents=2) == []


def test_buckets_end_where_the_growth_says():
    assert bucket_lengths([1, 2, 3, 5, 9, 12], growth=2).tolist() == [1, 2, 4, 8, 12, 12]
    assert bucket_lengths([0, 0], growth=2).tolist() == [1, 1]
    assert bucket_lengths([]).tolist() == []
    assert bucket_lengths([100]).tolist() == [100]
    # With 1.08, the default: 1, 2, ... 24, 25, 27, 29, 31, 33, 35, 37, 39, 42, 45, 48, 51, ...
    assert bucket_lengths([24, 26, 40, 49, 1000])[:4].tolist() == [24, 27, 42, 51]


def test_a_sampler_shuffles_from_seed_and_epoch_zero_unless_told_otherwise(lengths):
    default = list(LengthBucketBatchSampler(lengths, 4000, 64))
    assert default == list(LengthBucketBatchSampler(lengths, 4000, 64, seed=0, shuffle=True, multiple_of=1))
    sampler = LengthBucketBatchSampler(lengths, 4000, 64)
    sampler.set_epoch(0)
    assert default == list(sampler)
    assert sampler.batch_size is None and sampler.drop_last is False  # what accelerate reads


def test_seed_and_epoch_do_not_add_up(lengths):
    epochs = []
    for seed, epoch in ((0, 1), (1, 0)):
        sampler = LengthBucketBatchSampler(lengths, 4000, 64, seed=seed)
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    assert epochs[0] != epochs[1]


def test_an_epoch_is_reproducible_from_seed_and_number(lengths):
    first, second = (LengthBucketBatchSampler(lengths, 4000, 64, seed=5) for _ in range(2))
    list(first)  # what was drawn before does not matter
    first.set_epoch(2)
    second.set_epoch(2)
    assert list(first) == list(second)


def test_epochs_and_seeds_differ_in_batches_and_in_their_order(lengths):
    sampler = LengthBucketBatchSampler(lengths, 4000, 64)
    other_seed = list(LengthBucketBatchSampler(lengths, 4000, 64, seed=1))
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    for one, other in ((epochs[0], epochs[1]), (epochs[0], other_seed)):
        same = {frozenset(batch) for batch in one} & {frozenset(batch) for batch in other}
        assert len(same) < 0.1 * len(one)
        assert [len(batch) for batch in one] != [len(batch) for batch in other]


def test_every_epoch_has_as_many_batches_as_len_says(lengths):
    sampler = LengthBucketBatchSampler(lengths, 4000, 64)
    for epoch in range(5):
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)


def test_padding_is_far_below_that_of_random_batches(lengths):
    batches = list(LengthBucketBatchSampler(lengths, 64 * 400, 64))
    shuffled = np.random.default_rng(1).permutation(len(lengths))
    random_batches = np.split(shuffled, range(64, len(lengths), 64))
    words = lengths.sum()
    padding = padded_words(batches, lengths) / words - 1
    assert padding < 0.1
    assert padding < 0.1 * (padded_words(random_batches, lengths) / words - 1)


def test_unshuffled_batches_come_longest_first(lengths):
    longest = [lengths[batch].max() for batch in LengthBucketBatchSampler(lengths, 4000, 64, shuffle=False)]
    assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_share_the_documents_evenly_and_completely(lengths, processes):
    shards = [
        BatchSamplerShard(
            LengthBucketBatchSampler(lengths, 4000, 64, multiple_of=processes),
            num_processes=processes,
            process_index=process,
            even_batches=False,
        )
        for process in range(processes)
    ]
    shares = [list(shard) for shard in shards]
    assert len({len(share) for share in shares}) == 1
    assert sorted(document for share in shares for batch in share for document in batch) == list(range(len(lengths)))


def test_more_processes_than_documents_repeat_documents():
    sampler = LengthBucketBatchSampler([2, 3, 4], 100, 8, multiple_of=4)
    assert len(sampler) == 4
    assert {document for batch in sampler for document in batch} == {0, 1, 2}


def test_splitting_runs_keeps_every_document():
    runs = split_runs(cut_batches([1] * 10, max_tokens=100, max_documents=4), multiple_of=4)
    assert len(runs) == 4
    assert [position for first, last in runs for position in range(first, last)] == list(range(10))


def split_one_by_one(runs, multiple_of):
    """What `split_runs` promises, step by step: the first of the largest runs is halved as often as needed."""
    runs = list(runs)
    while len(runs) % multiple_of:
        sizes = [last - first for first, last in runs]
        largest = sizes.index(max(sizes))
        first, last = runs[largest]
        if last - first == 1:
            runs.append(runs[0])
        else:
            middle = (first + last) // 2
            runs[largest : largest + 1] = [(first, middle), (middle, last)]
    return runs


def test_the_largest_runs_are_halved_first_the_earlier_of_equal_ones():
    random = np.random.default_rng(0)
    for _ in range(300):
        ends = np.cumsum(random.integers(1, 6, size=random.integers(1, 9))).tolist()
        runs = list(zip([0, *ends], ends, strict=False))
        multiple_of = int(random.integers(1, 30))
        assert split_runs(runs, multiple_of) == split_one_by_one(runs, multiple_of)
    assert split_runs([], 3) == []


def test_splitting_many_runs_is_fast():
    runs = [(i, i + 3) for i in range(0, 300_000, 3)]
    start = time.process_time()
    split = split_runs(runs, multiple_of=60_001)
    assert time.process_time() - start < 10  # a search for the largest in each of 20,002 steps takes half an hour
    assert len(split) == 120_002
    assert split[0] == (0, 1) and split[-1] == (299_997, 300_000)


def test_bucket_ends_lie_little_above_the_lengths(lengths):
    ends = bucket_lengths(lengths, growth=1.1)
    assert (ends >= lengths).all()
    assert (ends <= np.maximum(lengths * 1.1, lengths + 1)).all()
    assert ends.max() == lengths.max()
    assert (np.diff(ends[np.argsort(lengths, kind="stable")]) >= 0).all()


def test_caps_below_one_and_empty_data_are_refused_by_name():
    with pytest.raises(ValueError, match="max_tokens is 0"):
        LengthBucketBatchSampler([1], 0, 1)
    with pytest.raises(ValueError, match="max_documents is -1"):
        LengthBucketBatchSampler([1], 1, -1)
    with pytest.raises(ValueError, match="no document"):
        LengthBucketBatchSampler([], 1, 1)
    with pytest.raises(ValueError, match="multiple_of is 0; it must be at least 1"):
        LengthBucketBatchSampler([1], 1, 1, multiple_of=0)
    assert list(LengthBucketBatchSampler([1], 1, 1)) == [[0]]


def draw_factors(count, seed=0):
    random = np.random.default_rng(seed)
    return np.where(random.random(count) < 0.3, 1 + 4 * random.random(count), 1.0)


def epochs_of(sampler, count):
    for epoch in range(count):
        sampler.set_epoch(epoch)
        yield list(sampler)


def copies_of(batches, count):
    return np.bincount([document for batch in batches for document in batch], minlength=count)


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_epoch_repeats_documents_by_their_factor_rounded_up_or_down(lengths, shuffle):
    factors = draw_factors(len(lengths))
    sampler = LengthBucketBatchSampler(lengths, 4000, 64, shuffle=shuffle, repeat_factors=factors)
    shares = repeat_shares(factors) / UNIT
    assert (shares >= factors - 1e-9).all() and shares.sum() - factors.sum() < 1
    for batches in epochs_of(sampler, 3):
        copies = copies_of(batches, len(lengths))
        assert copies.sum() == np.ceil(factors.sum())
        assert ((copies == np.floor(shares)) | (copies == np.ceil(shares))).all()


def test_over_many_epochs_each_document_comes_as_often_as_its_factor_says():
    lengths, epochs = np.random.default_rng(0).integers(1, 60, size=40), 3000
    factors = draw_factors(40)
    sampler = LengthBucketBatchSampler(lengths, 300, 8, repeat_factors=factors)
    copies = np.stack([copies_of(batches, 40) for batches in epochs_of(sampler, epochs)])
    shares = repeat_shares(factors) / UNIT
    fraction = shares % 1
    error = np.sqrt(fraction * (1 - fraction) / epochs)
    assert (np.abs(copies.mean(axis=0) - shares) <= 4 * error + 1e-9).all()


def test_which_documents_of_equal_length_are_rounded_up_is_nearly_independent():
    factors = draw_factors(60)
    sampler = LengthBucketBatchSampler([9] * 60, 300, 8, repeat_factors=factors)
    copies = np.stack([copies_of(batches, 60) for batches in epochs_of(sampler, 1000)])
    fraction = repeat_shares(factors) / UNIT % 1
    correlations = np.corrcoef(copies[:, (fraction > 0.1) & (fraction < 0.9)].T)
    assert np.abs(correlations - np.eye(len(correlations))).max() < 0.3


@pytest.mark.parametrize("processes", [1, 3])
def test_batches_with_repeats_obey_both_caps_and_are_equally_many_in_each_epoch(lengths, processes):
    sampler = LengthBucketBatchSampler(
        lengths, 2000, 24, multiple_of=processes, repeat_factors=draw_factors(len(lengths))
    )
    assert len(sampler) % processes == 0
    for batches in epochs_of(sampler, 30):
        assert len(batches) == len(sampler)
        assert all(0 < len(batch) <= 24 and len(batch) * lengths[batch].max() <= 2000 for batch in batches)


def test_caps_hold_for_few_documents_of_very_different_lengths():
    random = np.random.default_rng(1)
    for trial in range(60):
        lengths = random.integers(1, 100, size=random.integers(1, 9))
        factors = 1 + 3 * random.random(len(lengths))
        sampler = LengthBucketBatchSampler(lengths, 120, 4, seed=trial, repeat_factors=factors)
        for batches in epochs_of(sampler, 20):
            assert len(batches) == len(sampler)
            for batch in batches:
                assert len(batch) == 1 or (len(batch) <= 4 and len(batch) * lengths[batch].max() <= 120)


def test_factors_of_one_are_the_batches_without_factors(lengths):
    plain = LengthBucketBatchSampler(lengths, 4000, 64, seed=3)
    ones = LengthBucketBatchSampler(lengths, 4000, 64, seed=3, repeat_factors=np.ones(len(lengths)))
    assert list(epochs_of(plain, 3)) == list(epochs_of(ones, 3))


def test_repeats_depend_on_seed_and_epoch_and_not_on_the_batches(lengths):
    factors = draw_factors(len(lengths))

    def copies(max_tokens, max_documents, seed, epoch):
        sampler = LengthBucketBatchSampler(lengths, max_tokens, max_documents, seed, repeat_factors=factors)
        list(sampler)  # what was drawn before does not matter
        sampler.set_epoch(epoch)
        return copies_of(sampler, len(lengths)).tolist()

    assert copies(4000, 64, 5, 2) == copies(900, 10, 5, 2)
    assert len({str(copies(4000, 64, *place)) for place in ((5, 2), (5, 3), (6, 2), (2, 5))}) == 4


def test_copies_of_a_document_are_spread_over_the_batches_of_its_length():
    factors = np.ones(1000)
    factors[0] = 20
    sampler = LengthBucketBatchSampler([7] * 1000, 10_000, 50, repeat_factors=factors)
    assert sum(0 in batch for batch in sampler) > 10


def test_systematic_sampling_by_hand():
    shares = np.array([1.5, 1.25, 2.25]) * UNIT
    draw = [draw_repeats(shares.astype(np.int64), np.array([2, 0, 1]), int(start * UNIT)) for start in (0.0, 0.3, 0.9)]
    # The ends are 2.25, 3.75 and 5.
    assert [list(documents) for documents in draw] == [[0, 1, 1, 2, 2], [0, 0, 1, 2, 2], [0, 1, 2, 2, 2]]


@pytest.mark.parametrize("factors", [[1.0, 0.5], [1.0, float("nan")], [float("inf"), 1.0]])
def test_factors_below_one_are_refused(factors):
    with pytest.raises(ValueError, match="repeat_factors must be finite numbers from 1 on"):
        LengthBucketBatchSampler([3, 4], 10, 2, repeat_factors=factors)


def test_the_repeats_of_many_documents_are_drawn_fast():
    random = np.random.default_rng(0)
    lengths, factors = random.integers(1, 500, size=400_000), 1 + random.pareto(2, size=400_000)
    start = time.process_time()
    sampler = LengthBucketBatchSampler(lengths, 16_384, 64, repeat_factors=factors)
    assert sum(map(len, sampler)) == np.ceil(factors.sum())
    assert time.process_time() - start < 10
