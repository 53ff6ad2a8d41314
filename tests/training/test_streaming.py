from collections import Counter
from pathlib import Path

import pytest
import torch
from datasets import Dataset, IterableDataset
from test_trainer import StopAt, assert_equal_weights, weights
from tiny_training import NUM_LABELS, make_documents, make_model

from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.training import SamplingArguments, SelfCriticalTrainer, SGMTrainer, streaming
from sgm_hf.training.streaming import StreamedBatches, is_stream


class Stream(torch.utils.data.IterableDataset):
    """Documents one after the other, without their lengths and numbers; counts how often it is read."""

    def __init__(self, documents, start=0):
        self.documents, self.start, self.passes = documents, start, 0

    def __iter__(self):
        self.passes += 1
        for row in range(self.start, len(self.documents)):
            yield {name: self.documents[row][name] for name in ("input_ids", "labels")}


def batches_of(stream, count, **settings):
    """The first batches of a stream, as lists of texts."""
    caps = {"max_tokens": 80, "max_documents": 5, "seed": 3} | settings
    batches = iter(StreamedBatches(stream, lambda documents: documents, **caps))
    return [[tuple(document["input_ids"]) for document in next(batches)] for _ in range(count)]


def count_documents(batches):
    return Counter(document for batch in batches for document in batch)


@pytest.mark.parametrize("window", [1, 3, 50])
def test_a_pass_has_each_document_once_in_batches_under_both_caps(monkeypatch, window):
    monkeypatch.setattr(streaming, "WINDOW_BATCHES", window)
    documents = make_documents(43)
    batches, passes = iter(StreamedBatches(Stream(documents), list, 80, 5, seed=3)), [[], []]
    for seen in passes:
        while sum(map(len, seen)) < 43:
            batch = [tuple(document["input_ids"]) for document in next(batches)]
            assert len(batch) <= 5 and len(batch) * max(map(len, batch)) <= 80
            seen.append(batch)
        assert count_documents(seen) == Counter(map(tuple, documents["input_ids"]))
    assert window == 1 or passes[0] != passes[1]  # another order


def test_the_batches_of_a_window_hold_documents_of_similar_length_in_random_order():
    longest = [max(map(len, batch)) for batch in batches_of(Stream(make_documents(200)), 30, max_tokens=10**6)]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)
    spread = [max(map(len, b)) - min(map(len, b)) for b in batches_of(Stream(make_documents(200)), 40)]
    assert sum(spread) / len(spread) < 2


@pytest.mark.parametrize(("processes", "per_update"), [(2, 1), (3, 2)])
def test_processes_share_the_batches_of_a_pass_and_have_equally_many(processes, per_update):
    documents, shares = make_documents(41), []
    for process in range(processes):
        batches = StreamedBatches(Stream(documents), list, 80, 5, 3, process, processes, per_update)
        stream, share = iter(batches), []
        while batches.dataset.passes < 2:
            share.append([tuple(document["input_ids"]) for document in next(stream)])
        shares.append(share[:-1])  # the last one is of the second pass
    assert {len(share) for share in shares} == {len(shares[0])}
    assert len(shares[0]) % per_update == 0
    assert count_documents(sum(shares, [])) == Counter(map(tuple, documents["input_ids"]))


def test_shuffled_targets_are_drawn_again_in_each_pass():
    documents = make_documents(30)
    collate = MultiLabelCollator(0, NUM_LABELS, "shuffled", 5)
    batches, targets = iter(StreamedBatches(Stream(documents), collate, 10**6, 100, seed=0)), []
    for _ in range(2):
        batch = next(batches)
        rows = zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)
        targets.append({tuple(text): tuple(labels) for text, labels in rows})
    assert targets[0].keys() == targets[1].keys() and targets[0] != targets[1]


@pytest.mark.parametrize("kind", ["datasets", "torch"])
def test_a_stream_trains_and_the_loss_falls(arguments, kind):
    documents = make_documents(40)
    stream = documents.to_iterable_dataset() if kind == "datasets" else Stream(documents)
    assert is_stream(stream) and not is_stream(documents)
    by_steps = {"eval_strategy": "steps", "save_strategy": "steps"}
    settings = arguments(max_steps=30, learning_rate=0.05, logging_steps=30, eval_steps=15, save_steps=15, **by_steps)
    trainer = SGMTrainer(make_model(dropout=0.0), settings, stream, documents)
    before = trainer.evaluate()["eval_loss"]
    metrics = trainer.train().metrics
    assert trainer.state.global_step == 30
    assert trainer.evaluate()["eval_loss"] < 0.8 * before
    assert metrics["train_documents_per_second"] > 0
    assert 30 * 4 < trainer.trained_documents <= 30 * 8
    trainer.create_model_card()
    assert "a stream" in Path(settings.output_dir, "README.md").read_text()


@pytest.mark.parametrize(("kind", "update"), [("datasets", 11), ("torch", 3)])
def test_a_resumed_stream_goes_on_with_the_batches_that_come_next(arguments, kind, update):
    documents = make_documents(40)  # five batches: update 11 is in the third pass

    def make_trainer(folder, callbacks=None):
        stream = documents.to_iterable_dataset().shuffle(seed=1, buffer_size=7)
        options = {"max_steps": 14, "eval_strategy": "no", "gradient_accumulation_steps": 1}
        return SGMTrainer(
            make_model(label_order="shuffled"),
            arguments(folder, **options),
            stream if kind == "datasets" else Stream(documents),
            callbacks=callbacks,
        )

    whole = make_trainer("whole")
    whole.train()
    make_trainer("run", [StopAt(update)]).train()
    resumed = make_trainer("run")
    torch.rand(17)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 14 and resumed.resumptions[0]["update"] == update
    assert_equal_weights(weights(whole.model), weights(resumed.model))


def test_a_stream_of_other_documents_is_not_resumed(arguments):
    documents, options = make_documents(40), {"max_steps": 6, "eval_strategy": "no"}
    SGMTrainer(make_model(), arguments(**options), Stream(documents), callbacks=[StopAt(3)]).train()
    other = SGMTrainer(make_model(), arguments(**options), Stream(documents, start=1))
    with pytest.raises(ValueError, match="training data: a stream, hash of its first 40 documents"):
        other.train(resume_from_checkpoint=True)


def test_accumulated_batches_of_a_stream_equal_one_big_batch(arguments):
    documents = make_documents(16)
    options = {"max_steps": 1, "eval_strategy": "no", "save_strategy": "no", "optim": "sgd", "learning_rate": 0.5}
    models = []
    for size, accumulation in ((16, 1), (3, 6)):
        settings = arguments(per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, **options)
        trainer = SGMTrainer(make_model(dropout=0.0), settings, Stream(documents))
        trainer.train()
        assert trainer.trained_documents == 16
        models.append(trainer.model.state_dict())
    for name, weight in models[0].items():
        torch.testing.assert_close(weight, models[1][name], atol=1e-6, rtol=1e-4)


def test_workers_read_the_shards_of_a_stream(arguments):
    stream = make_documents(40).to_iterable_dataset(num_shards=2)
    settings = arguments(max_steps=7, dataloader_num_workers=2, eval_strategy="no", save_strategy="no")
    trainer = SGMTrainer(make_model(), settings, stream)
    trainer.train()
    assert trainer.state.global_step == 7


def test_a_stream_trains_on_samples(arguments, tmp_path):
    settings = SamplingArguments(str(tmp_path / "rl"), max_steps=3, eval_strategy="no", disable_tqdm=True)
    trainer = SelfCriticalTrainer(make_model(), settings, train_dataset=Stream(make_documents(20)))
    trainer.train()
    assert trainer.state.global_step == 3


def test_what_a_stream_cannot_do_is_refused_with_the_remedy(arguments):
    stream = Stream(make_documents(8))
    with pytest.raises(ValueError, match="max_steps"):
        SGMTrainer(make_model(), arguments(eval_strategy="no"), stream)
    with pytest.raises(ValueError, match="eval_dataset is an IterableDataset.*Dataset.from_list"):
        SGMTrainer(make_model(), arguments(), eval_dataset=stream)
    with pytest.raises(ValueError, match="halve_from_epoch is 2, but .*IterableDataset"):
        settings = arguments(max_steps=2, halve_from_epoch=2, eval_strategy="no")
        SGMTrainer(make_model(), settings, stream).train()
    settings = arguments(max_steps=2, eval_strategy="no")
    with pytest.raises(ValueError, match="gave no document"):
        SGMTrainer(make_model(), settings, Stream(make_documents(8), start=8)).train()
    raw = IterableDataset.from_generator(lambda: iter([{"text": "a"}]))
    with pytest.raises(ValueError, match="gave documents of index, text; .*encode_dataset"):
        SGMTrainer(make_model(), settings, raw).train()
    assert isinstance(Dataset.from_list(list(stream)), Dataset)
