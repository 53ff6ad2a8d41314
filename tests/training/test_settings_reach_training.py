"""From the settings to what a training does: batches, targets, learning rates and times of real trainings."""

import types

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_training import NUM_LABELS, make_documents, make_model
from transformers import TrainerCallback

from sgm_hf.training import SGMTrainer, trainer

NUM_DOCUMENTS = 20


def make_equal_documents() -> Dataset:
    """Documents of two words with all labels each; a document's first word tells which it is."""
    rows = range(NUM_DOCUMENTS)
    labels = [list(range(NUM_LABELS))] * NUM_DOCUMENTS
    columns = {"input_ids": [[row + 2, 1] for row in rows], "labels": labels, "length": [2] * NUM_DOCUMENTS}
    return Dataset.from_dict({**columns, "index": list(rows)})


class RecordingTrainer(SGMTrainer):
    """Keeps the documents and targets of each batch, its words with padding, and the random state it met."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.batches, self.padded_words, self.random_states = [], [], []

    def compute_loss(self, model, inputs, **keywords):
        documents = (inputs["input_ids"][:, 0] - 2).tolist()
        self.batches.append(list(zip(documents, map(tuple, inputs["labels"].tolist()), strict=True)))
        self.padded_words.append(inputs["input_ids"].numel())
        self.random_states.append(torch.get_rng_state())
        return super().compute_loss(model, inputs, **keywords)

    def epoch_batches(self, epoch: int) -> list[list[int]]:
        """The documents of each batch of an epoch, in order."""
        return [[document for document, _ in batch] for batch in self.batches[epoch * 5 : epoch * 5 + 5]]

    def epoch_targets(self, epoch: int) -> dict[int, tuple[int, ...]]:
        """The target of each document in an epoch."""
        return dict(pair for batch in self.batches[epoch * 5 : epoch * 5 + 5] for pair in batch)


class RecordLearningRates(TrainerCallback):
    def __init__(self):
        self.rates = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **keywords):
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.fixture
def record(arguments):
    """Trains two epochs of five batches with shuffled targets and keeps what was seen."""

    def train(**settings) -> RecordingTrainer:
        given = arguments(per_device_train_batch_size=4, eval_strategy="no", save_strategy="no", **settings)
        recording = RecordingTrainer(make_model(label_order="shuffled"), given, make_equal_documents())
        recording.train()
        assert len(recording.batches) == 10
        return recording

    return train


def test_each_epoch_has_other_batches_and_other_targets(record):
    seen = record()
    batches, targets = ([get(epoch) for epoch in (0, 1)] for get in (seen.epoch_batches, seen.epoch_targets))
    for epoch in (0, 1):
        assert sorted(document for batch in batches[epoch] for document in batch) == list(range(NUM_DOCUMENTS))
    assert batches[0] != batches[1]
    assert sum(targets[0][document] != targets[1][document] for document in range(NUM_DOCUMENTS)) > NUM_DOCUMENTS / 2


def test_documents_with_the_same_labels_get_different_permutations(record):
    assert len(set(record().epoch_targets(0).values())) > 5


def test_the_seed_decides_batches_and_targets(record):
    one, same, other = record(), record(), record(seed=8)
    assert one.batches == same.batches
    assert one.epoch_batches(0) != other.epoch_batches(0)
    assert one.epoch_targets(0) != other.epoch_targets(0)
    assert not torch.equal(one.random_states[0], other.random_states[0])


def test_the_data_seed_changes_the_batches_and_neither_targets_nor_dropout(record):
    one, other = record(data_seed=1), record(data_seed=2)
    assert one.epoch_batches(0) != other.epoch_batches(0)
    assert one.epoch_targets(0) == other.epoch_targets(0)
    assert torch.equal(one.random_states[0], other.random_states[0])
    assert record(data_seed=0).epoch_batches(0) != record(data_seed=7).epoch_batches(0) == record().epoch_batches(0)


@pytest.mark.parametrize(
    ("settings", "documents", "words"),
    [
        ({"per_device_train_batch_size": 3}, 3, 3 * 28),
        ({"per_device_train_batch_size": 40, "max_tokens_per_batch": 60}, 40, 60),
    ],
)
def test_the_caps_of_training_batches_hold(arguments, settings, documents, words):
    given = arguments(num_train_epochs=1, eval_strategy="no", save_strategy="no", **settings)
    recording = RecordingTrainer(make_model(), given, make_documents(40))
    recording.train()
    sizes = [len(batch) for batch in recording.batches]
    assert sum(sizes) == 40
    assert max(sizes) <= documents and max(recording.padded_words) <= words
    assert max(sizes) == documents or max(recording.padded_words) > words / 2


def test_the_rate_is_halved_after_warm_up_also_where_the_last_update_of_an_epoch_has_fewer_batches(arguments):
    recorded = RecordLearningRates()
    given = arguments(
        num_train_epochs=4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=0.08,
        warmup_steps=2,
        halve_from_epoch=2,
        eval_strategy="no",
        save_strategy="no",
        logging_steps=1,
    )
    training = SGMTrainer(make_model(), given, make_equal_documents(), callbacks=[recorded])
    training.train()
    # Five batches per epoch make two updates of two and one of one.
    expected = [0.0, 0.04, 0.08] + [0.08] * 3 + [0.04] * 3 + [0.02] * 3
    assert recorded.rates == pytest.approx(expected)
    logged = {record["step"]: record["learning_rate"] for record in training.state.log_history if "loss" in record}
    assert logged == pytest.approx({step + 1: rate for step, rate in enumerate(expected)})


class RecordGradients(TrainerCallback):
    def __init__(self):
        self.updates = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **keywords):
        self.updates.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_elements_of_the_gradient_are_clipped_after_its_norm_was_taken(arguments, precision):
    """Lin et al. 2018, section 5.2."""
    runs, size = [], 2e-3
    for clipping in ({"max_grad_norm": 0.0}, {"clip_grad_value": size}):
        recorded = RecordGradients()
        batches = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
        batches |= {"max_steps": 2, "eval_strategy": "no", "save_strategy": "no", "logging_steps": 1}
        given = arguments(precision=precision, **batches, **clipping)
        training = SGMTrainer(make_model(), given, make_documents(16), callbacks=[recorded])
        training.train()
        runs.append((recorded.updates, [line["grad_norm"] for line in training.state.log_history if "loss" in line]))
    (whole, whole_norms), (clipped, clipped_norms) = runs
    assert len(whole) == len(clipped) == 2
    for name, gradient in whole[0].items():
        assert torch.equal(clipped[0][name], gradient.clamp(-size, size)), name
    cut = [gradient.abs() > size for gradient in whole[0].values()]
    assert any(part.any() for part in cut) and not all(part.all() for part in cut)
    assert all(gradient.abs().max() <= size for gradient in clipped[1].values())
    assert clipped_norms[0] == whole_norms[0] > 0


def test_without_halving_the_schedule_is_the_one_named(arguments):
    recorded = RecordLearningRates()
    given = arguments(lr_scheduler_type="linear", learning_rate=0.1, eval_strategy="no", save_strategy="no")
    SGMTrainer(make_model(), given, make_documents(16), callbacks=[recorded]).train()
    assert recorded.rates == pytest.approx(np.linspace(0.1, 0.0, len(recorded.rates) + 1)[:-1])


def test_the_time_of_evaluation_is_that_of_this_training_alone(arguments, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(trainer, "time", types.SimpleNamespace(perf_counter=lambda: float(next(clock))))
    training = SGMTrainer(
        make_model(),
        arguments(save_strategy="no", load_best_model_at_end=False),
        make_documents(16),
        make_documents(8, seed=1),
        make_documents(6, seed=2),
    )
    for _ in range(2):
        metrics = training.train().metrics
        # Each of the two evaluations reads the clock at its start and end, and generation once at either end between.
        assert metrics["train_evaluation_seconds"] == 2 * 3.0
    evaluated = training.evaluate()
    assert (evaluated["eval_runtime"], evaluated["eval_documents_per_second"]) == (1.0, 8.0)
    assert training.evaluation_seconds == 2 * 3.0  # an evaluation after the training is not of it


def test_documents_per_second_are_counted_without_evaluation(arguments):
    training = SGMTrainer(make_model(), arguments(eval_strategy="no"), make_documents(8))
    training.evaluation_seconds, training.trained_documents = 6.0, 80
    metrics = {"train_runtime": 10.0, "train_samples_per_second": 8.0}
    training._add_speed(metrics)
    assert metrics == {
        "train_runtime": 10.0,
        "train_evaluation_seconds": 6.0,
        "train_documents_per_second": 20.0,
    }
