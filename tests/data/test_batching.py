import time

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard

from sgm_hf.data.batching import LengthBucketBatchSampler, bucket_lengths, cut_batches, split_runs


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
