import itertools
from collections import Counter

import pytest
import torch
from test_trainer import StopAt
from tiny_training import NUM_LABELS, make_decided_model, make_documents, make_model

from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.training import SGMTrainer, SGMTrainingArguments
from sgm_hf.training.rewards import f1_reward
from sgm_hf.training.sampling import (
    OrderFreeTrainer,
    SamplingArguments,
    SelfCriticalTrainer,
    completion_targets,
    label_sets,
    pad_steps,
)

EVERY_SEQUENCE = [
    torch.tensor([*labels, NUM_LABELS])
    for size in range(NUM_LABELS + 1)
    for labels in itertools.permutations(range(NUM_LABELS), size)
]
# (1, sequences, n)
EVERY_TARGET = torch.nn.utils.rnn.pad_sequence(EVERY_SEQUENCE, batch_first=True, padding_value=-100)[None]


def make_trainer(tmp_path, trainer=SelfCriticalTrainer, model=None, reward=None, **settings):
    options = {"use_cpu": True, "disable_tqdm": True, "eval_strategy": "no", **settings}
    arguments = SamplingArguments(output_dir=str(tmp_path), **options)
    keywords = {} if reward is None else {"reward": reward}
    return trainer(model or make_decided_model(), arguments, train_dataset=make_documents(8), **keywords)


def make_batch(rows: list[int]) -> dict[str, torch.Tensor]:
    documents = make_documents(8)
    return MultiLabelCollator(0, NUM_LABELS)([documents[row] for row in rows])


def sample_everything(trainer) -> None:
    """Let the trainer's sampler return every label sequence once for each document."""
    draw = trainer._sample

    def enumerate_sequences(texts, encoder_outputs):
        _, greedy = draw(texts, encoder_outputs)
        return EVERY_TARGET.expand(len(texts["input_ids"]), -1, -1), greedy

    trainer._sample = enumerate_sequences


def exact_gradients(trainer, batch) -> dict[str, torch.Tensor]:
    """The gradient of minus the expected reward, by summing over all label sequences."""
    sample_everything(trainer)
    _, samples = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    probabilities = samples.sequence_log_probs().exp()  # (B, sequences)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(len(probabilities)))
    expected_reward = (probabilities * f1_reward(samples.sets, samples.gold.expand_as(samples.sets))).sum(dim=1)
    (-expected_reward.mean()).backward()
    return take_gradients(trainer.model)


def take_gradients(model) -> dict[str, torch.Tensor]:
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return gradients


@pytest.mark.parametrize("settings", [{}, {"baseline": "leave_one_out", "num_samples": 2}], ids=["greedy", "others"])
def test_equation_7_is_the_gradient_of_the_expected_reward_when_sequences_are_enumerated(tmp_path, settings):
    batch, model = make_batch([0, 1, 2]), make_decided_model()
    exact = exact_gradients(make_trainer(tmp_path, model=model), batch)
    trainer = make_trainer(tmp_path, model=model, **settings)
    sample_everything(trainer)
    _, samples = trainer.compute_loss(model, batch, return_outputs=True)
    probabilities = samples.sequence_log_probs().exp().detach()
    if settings:
        # Of two independent samples, the other one's expected reward is the baseline.
        rewards = f1_reward(samples.sets, samples.gold.expand_as(samples.sets))
        advantage = rewards - (probabilities * rewards).sum(dim=1, keepdim=True)
        losses = -advantage * samples.sequence_log_probs()
    else:
        losses = trainer.sample_losses(samples)
    (probabilities * losses).sum(dim=1).mean().backward()
    for name, gradient in take_gradients(model).items():
        torch.testing.assert_close(gradient, exact[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("baseline", ["greedy", "leave_one_out"])
def test_the_sampled_gradient_is_the_exact_one_within_its_standard_error(tmp_path, baseline):
    batch, model = make_batch([0, 1, 2]), make_decided_model()
    exact = exact_gradients(make_trainer(tmp_path, model=model), batch)["decoder.output.bias"]
    trainer = make_trainer(tmp_path, model=model, baseline=baseline, num_samples=100)
    torch.manual_seed(0)
    estimates = []
    for _ in range(40):
        trainer.compute_loss(model, batch).backward()
        estimates.append(take_gradients(model)["decoder.output.bias"])
    estimates = torch.stack(estimates)
    error = estimates.std(dim=0) / len(estimates) ** 0.5
    assert error.max() < 0.02
    assert ((estimates.mean(dim=0) - exact).abs() < 4 * error + 1e-6).all()


def test_what_is_scored_is_what_was_sampled(tmp_path):
    batch, model = make_batch([0, 1, 2, 3]), make_decided_model()
    trainer = make_trainer(tmp_path, model=model, num_samples=5)
    assert trainer._encode_once(model, {name: batch[name] for name in ("input_ids", "attention_mask")}) is not None
    _, samples = trainer.compute_loss(model, batch, return_outputs=True)
    scores = samples.sequence_log_probs()
    assert scores.isfinite().all()
    for row, sample in itertools.product(range(4), range(5)):
        targets = samples.targets[row, sample]
        targets = targets[targets != -100]
        assert targets[-1] == NUM_LABELS and len(set(targets.tolist())) == len(targets)
        text = {name: batch[name][row : row + 1] for name in ("input_ids", "attention_mask")}
        loss = model(**text, labels=targets[None], num_items_in_batch=1).loss
        assert scores[row, sample].item() == pytest.approx(-loss.item(), rel=1e-4, abs=1e-5)


def test_samples_follow_the_models_probabilities_at_each_temperature(tmp_path):
    batch, model = make_batch([1]), make_model(initializer_range=1.0)
    for temperature in (0.5, 1.0, 2.0):
        trainer = make_trainer(tmp_path, model=model, num_samples=4000, temperature=temperature)
        torch.manual_seed(0)
        _, samples = trainer.compute_loss(model, batch, return_outputs=True)
        rows = [tuple(row) for row in samples.targets[0].tolist()]
        drawn = Counter(rows)
        for row, score in zip(rows, samples.sequence_log_probs()[0].exp().tolist(), strict=True):
            error = (score * (1 - score) / 4000) ** 0.5
            assert drawn[row] / 4000 == pytest.approx(score, abs=4.5 * error + 1e-3)


def test_dropout_is_off_unless_asked_for(tmp_path):
    model = make_model(dropout=0.5)
    make_trainer(tmp_path, model=model, dropout_in_sampling=True)
    assert model.encoder.dropout.p == 0.5
    make_trainer(tmp_path, model=model)
    assert model.encoder.dropout.p == model.decoder.dropout.p == 0.0
    assert model.config.dropout == 0.5


def test_likelihood_is_mixed_in_with_its_weight(tmp_path):
    batch, model = make_batch([0, 1, 2]), make_decided_model()
    losses = []
    for weight in (0.0, 0.25):
        torch.manual_seed(0)
        losses.append(make_trainer(tmp_path, model=model, likelihood_weight=weight).compute_loss(model, batch).item())
    likelihood = model(**batch, num_items_in_batch=3).loss.item()
    assert losses[1] - losses[0] == pytest.approx(0.25 * likelihood, rel=1e-4)


def test_the_first_step_after_adding_a_label_samples_it_and_scores_it(tmp_path):
    model = make_model(num_labels=NUM_LABELS - 1, dropout=0.0)
    model.add_labels(["new"])
    trainer, seen = make_trainer(tmp_path, model=model, num_samples=50, max_steps=1), []
    losses = trainer.sample_losses
    trainer.sample_losses = lambda samples: seen.append(samples) or losses(samples)
    trainer.train()
    new = NUM_LABELS - 1
    assert (seen[0].targets == new).any()
    assert seen[0].log_probs[:, :, 0, new].isfinite().all()
    assert seen[0].sequence_log_probs().isfinite().all()


def test_targets_of_completion_by_hand():
    gold = label_sets(torch.tensor([[0, 2, 4]]), NUM_LABELS)[:, None]  # {0, 2}
    targets = torch.tensor([[[2, 1, 0, 4, -100], [4, -100, -100, -100, -100]]])
    target = completion_targets(targets, gold)
    half = [0.5, 0, 0.5, 0, 0]
    assert target[0, 0, :4].tolist() == [half, [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert target[0, 1, 0].tolist() == half
    assert torch.equal(target.sum(dim=-1), torch.ones(1, 2, 5))


def test_sequences_of_different_lengths_are_stacked():
    rows = pad_steps([torch.tensor([[1, 4]]), torch.tensor([[0, 1, 4]])])
    assert rows.tolist() == [[[1, 4, -100], [0, 1, 4]]]


@pytest.mark.parametrize("trainer", [SelfCriticalTrainer, OrderFreeTrainer])
def test_a_half_trained_model_gets_better_although_orders_are_shuffled(tmp_path, trainer):
    model = make_model(dropout=0.0, label_order="shuffled")
    train, validation = make_documents(256), make_documents(100, seed=1)
    common = {"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 16, "eval_strategy": "no"}
    before = SGMTrainingArguments(str(tmp_path / "a"), num_train_epochs=3, learning_rate=1e-2, **common)
    likelihood = SGMTrainer(model, before, train, validation)
    likelihood.train()
    start = likelihood.evaluate()["eval_micro_f1"]
    settings = SamplingArguments(
        str(tmp_path / "b"), num_train_epochs=6, learning_rate=3e-3, num_samples=5, baseline="leave_one_out", **common
    )
    sampling = trainer(model, settings, train_dataset=train, eval_dataset=validation)
    sampling.train()
    end = sampling.evaluate()["eval_micro_f1"]
    assert start < 0.9
    assert end > start + 0.3 * (1 - start)
    if trainer is SelfCriticalTrainer:
        rewards = [entry["reward"] for entry in sampling.state.log_history if "reward" in entry]
        assert rewards[-1] > rewards[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"reward": "accuracy"}, "reward is 'accuracy'; choose one of f1, hamming"),
        ({"baseline": "critic"}, "baseline is 'critic'"),
        ({"baseline": "leave_one_out"}, "needs num_samples of 2 or more"),
    ],
)
def test_bad_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingArguments(output_dir=str(tmp_path), **settings)


def test_other_arguments_and_bad_rewards_are_refused(tmp_path):
    with pytest.raises(TypeError, match="SelfCriticalTrainer takes SamplingArguments, got SGMTrainingArguments"):
        SelfCriticalTrainer(make_model(), SGMTrainingArguments(str(tmp_path), eval_strategy="no"))
    trainer = make_trainer(tmp_path, reward=lambda predicted, gold: torch.full(predicted.shape[:-1], float("inf")))
    with pytest.raises(ValueError, match="not finite"):
        trainer.train()


def test_resuming_gives_the_same_weights_as_never_stopping(tmp_path):
    settings = {"num_train_epochs": 3, "num_samples": 2, "learning_rate": 1e-2, "per_device_train_batch_size": 3}
    settings |= {"save_strategy": "epoch"}
    whole = make_trainer(tmp_path / "whole", model=make_model(), **settings)
    whole.train()
    interrupted = make_trainer(tmp_path / "resumed", model=make_model(), **settings)
    interrupted.add_callback(StopAt(4))
    interrupted.train()
    assert interrupted.state.global_step == 4 < whole.state.global_step
    resumed = make_trainer(tmp_path / "resumed", model=make_model(), **settings)
    torch.manual_seed(99)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
