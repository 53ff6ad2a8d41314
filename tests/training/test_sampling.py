import itertools
import time
from collections import Counter
from types import SimpleNamespace

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


@pytest.mark.parametrize(
    ("baseline", "generation"),
    [
        ("greedy", {}),
        ("leave_one_out", {}),
        # What a generation config says to predictions does not shift the samples away from what is scored.
        ("greedy", {"max_labels": 1}),
        ("leave_one_out", {"max_labels": 1}),
        ("leave_one_out", {"min_p": 0.3}),
        ("leave_one_out", {"label_hierarchy": {"LABEL_1": "LABEL_0"}, "repetition_penalty": 3.0}),
        ("leave_one_out", {"forbidden_labels": [2], "epsilon_cutoff": 0.2, "max_new_tokens": 2}),
    ],
)
def test_the_sampled_gradient_is_the_exact_one_within_its_standard_error(tmp_path, baseline, generation):
    batch, model = make_batch([0, 1, 2]), make_decided_model()
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    config = model.generation_config
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
    assert model.generation_config is config and all(getattr(config, name) == generation[name] for name in generation)


def test_the_greedy_baseline_obeys_the_generation_config_as_predictions_do(tmp_path):
    batch, model = make_batch(range(8)), make_decided_model()
    model.generation_config.max_labels = 1
    trainer = make_trainer(tmp_path, model=model)
    _, samples = trainer.compute_loss(model, batch, return_outputs=True)
    assert samples.greedy.sum(dim=-1).max() == 1
    assert samples.sets.sum(dim=-1).max() > 1


def test_what_is_scored_is_what_was_sampled(tmp_path):
    batch, model = make_batch([0, 1, 2, 3]), make_decided_model()
    trainer = make_trainer(tmp_path, model=model, num_samples=5)
    assert trainer._encode_once(model, {name: batch[name] for name in ("input_ids", "attention_mask")}) is not None
    _, samples = trainer.compute_loss(model, batch, return_outputs=True)
    scores = samples.sequence_log_probs()
    model.eval()
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


def test_dropout_is_off_in_the_loss_unless_asked_for_and_nowhere_else(tmp_path):
    batch, model = make_batch([0, 1, 2]), make_model(dropout=0.5)
    for stays_on in (True, False):
        # With likelihood in the loss, which does not depend on what is drawn but for dropout.
        trainer = make_trainer(
            tmp_path,
            model=model,
            dropout_in_sampling=stays_on,
            likelihood_weight=1.0,
            reward=lambda sets, gold: 0 * sets[..., 0],
        )
        losses = {trainer.compute_loss(model.train(), batch).item() for _ in range(5)}
        assert len(losses) == (5 if stays_on else 1)
        assert all(module.p == 0.5 and module.training for module in (model.encoder.dropout, model.decoder.dropout))
    trainer.train()
    assert model.encoder.dropout.p == model.decoder.dropout.p == model.config.dropout == 0.5
    model.train()
    assert model(**batch).loss.item() != model(**batch).loss.item()


def test_dropout_is_as_before_after_an_error(tmp_path):
    model = make_model(dropout=0.5).train()
    trainer = make_trainer(tmp_path, model=model, reward=lambda sets, gold: sets)
    trainer._decode = lambda *arguments, **settings: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.compute_loss(model, make_batch([0]))
    assert model.decoder.dropout.training and model.encoder.dropout.training


# ---- one-line faults that each of these holds ----


def test_encoder_states_are_shared_only_without_dropout(tmp_path):
    texts = {name: make_batch([0, 1])[name] for name in ("input_ids", "attention_mask")}
    for stays_on in (True, False):
        trainer = make_trainer(tmp_path, dropout_in_sampling=stays_on)
        assert (trainer._encode_once(trainer.model, texts) is None) == stays_on


def test_the_entropy_bonus_lowers_the_loss_by_its_weight_times_the_entropy(tmp_path):
    batch, model = make_batch([0, 1, 2]), make_decided_model()
    losses = {}
    for weight in (0.0, 0.5):
        trainer = make_trainer(tmp_path, model=model, entropy_weight=weight, num_samples=3)
        torch.manual_seed(0)
        losses[weight], samples = trainer.compute_loss(model, batch, return_outputs=True)
    by_hand = []
    for targets, log_probs in zip(samples.targets.flatten(0, 1), samples.log_probs.flatten(0, 1), strict=True):
        steps = torch.distributions.Categorical(logits=log_probs[targets != -100])
        by_hand.append(steps.entropy().sum().item())
    expected = 0.5 * sum(by_hand) / len(by_hand)
    assert expected > 0.05
    assert losses[0.0].item() - losses[0.5].item() == pytest.approx(expected, rel=1e-4)


def test_leave_one_out_is_the_mean_of_the_other_samples(tmp_path):
    batch, model = make_batch([0, 1, 2, 3]), make_model(initializer_range=1.0)
    trainer = make_trainer(tmp_path, model=model, baseline="leave_one_out", num_samples=4)
    torch.manual_seed(1)
    loss, samples = trainer.compute_loss(model, batch, return_outputs=True)
    rewards = f1_reward(samples.sets, samples.gold.expand_as(samples.sets)).tolist()
    scores = samples.sequence_log_probs().tolist()
    terms = [
        -(row[i] - sum(row[:i] + row[i + 1 :]) / 3) * scores[document][i]
        for document, row in enumerate(rewards)
        for i in range(4)
    ]
    assert max(map(abs, terms)) > 0.1
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_every_one_of_more_than_fifty_labels_can_be_sampled(tmp_path):
    # Transformers samples among the best fifty where nothing is said.
    model = make_model(num_labels=60, initializer_range=1e-3)
    torch.nn.init.zeros_(model.decoder.output.weight)
    model.decoder.output.bias.data = torch.linspace(0, 0.1, 61)  # of equals, the best fifty would be all
    trainer = make_trainer(tmp_path, model=model, num_samples=1000)
    torch.manual_seed(0)
    _, samples = trainer.compute_loss(model, make_batch([0]), return_outputs=True)
    first_labels = set(samples.targets[0, :, 0].tolist())
    assert len(first_labels) == 61  # eos among them


def test_the_likelihood_term_is_free_of_the_temperature(tmp_path):
    batch, model = make_batch([0, 1, 2]), make_decided_model()
    nothing = {"reward": lambda sets, gold: torch.zeros(sets.shape[:-1])}
    losses = [
        make_trainer(tmp_path, model=model, temperature=temperature, likelihood_weight=1.0, **nothing)
        .compute_loss(model, batch)
        .item()
        for temperature in (0.25, 1.0, 4.0)
    ]
    expected = model.eval()(**batch, num_items_in_batch=3).loss.item()
    assert losses == pytest.approx([expected] * 3, rel=1e-4)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_a_loss_is_a_mean_over_the_documents_of_an_update_whatever_the_batches(tmp_path, accumulation):
    # The gold sequence in place of samples: the loss then depends on no draw.
    class GoldTrainer(SelfCriticalTrainer):
        def _sample(self, texts, encoder_outputs):
            return EVERY_TARGET.expand(len(texts["input_ids"]), -1, -1), None

    model = make_decided_model()
    trainer = make_trainer(
        tmp_path,
        trainer=GoldTrainer,
        model=model,
        baseline="leave_one_out",
        num_samples=2,
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=0.1,
        num_train_epochs=1,
        logging_steps=1,
        max_grad_norm=0.0,
    )
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer.train()
    after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(start)
    loss = trainer.compute_loss(model, make_batch(range(8)))  # the mean over the eight documents
    loss.backward()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert trainer.state.global_step == 1
    assert logged == pytest.approx([loss.item()], rel=1e-3)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(after[name], start[name] - 0.1 * parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_reward_logged_is_the_mean_since_the_last_log(tmp_path):
    values = iter([1.0, 3.0, 5.0, 7.0])

    def reward(predicted, gold):
        return torch.full(predicted.shape[:-1], next(values))

    settings = {"baseline": "leave_one_out", "num_samples": 2, "num_train_epochs": 1, "logging_steps": 1}
    trainer = make_trainer(tmp_path, reward=reward, per_device_train_batch_size=2, **settings)
    trainer.train()
    assert [entry["reward"] for entry in trainer.state.log_history if "reward" in entry] == [1.0, 3.0, 5.0, 7.0]


@pytest.mark.parametrize(("processes", "averaged", "counted"), [(2, True, 12), (2, False, 5), (1, True, 5)])
def test_the_documents_of_an_update_are_counted_where_the_model_is_on_all_processes(processes, averaged, counted):
    trainer = SimpleNamespace(
        args=SimpleNamespace(average_tokens_across_devices=averaged, world_size=processes),
        accelerator=SimpleNamespace(gather=lambda count: torch.stack([count, count + 2])),
    )
    batches = [{"labels": torch.zeros(2, 4)}, {"labels": torch.zeros(3, 6)}]
    count = SelfCriticalTrainer.count_items(trainer, batches, torch.device("cpu"))
    assert count == counted
    trainer.accelerator.gather = lambda count: count.expand(2)
    assert SelfCriticalTrainer.count_items(trainer, batches, torch.device("meta")).is_meta


def test_a_log_with_its_time_of_start_tells_the_speed(tmp_path):
    trainer = make_trainer(tmp_path, include_num_input_tokens_seen="all")
    trainer._initial_num_input_tokens_seen = 0  # as train() sets it
    trainer.log({"train_loss": 1.0}, start_time=time.time() - 1)
    assert 1 <= trainer.state.log_history[-1]["train_runtime"] < 60


def test_likelihood_is_mixed_in_with_its_weight(tmp_path):
    batch, model = make_batch([0, 1, 2]), make_decided_model()
    losses = []
    for weight in (0.0, 0.25):
        torch.manual_seed(0)
        losses.append(make_trainer(tmp_path, model=model, likelihood_weight=weight).compute_loss(model, batch).item())
    likelihood = model.eval()(**batch, num_items_in_batch=3).loss.item()
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


def test_the_settings_of_sampling_default_to_plain_self_critical_training(tmp_path):
    args = SamplingArguments(output_dir=str(tmp_path))
    assert (args.learning_rate, args.num_samples, args.temperature) == (1e-5, 1, 1.0)
    assert (args.reward, args.baseline) == ("f1", "greedy")
    assert (args.dropout_in_sampling, args.likelihood_weight, args.entropy_weight) == (False, 0.0, 0.0)
    two = SamplingArguments(output_dir=str(tmp_path), baseline="leave_one_out", num_samples=2, temperature=0.01)
    assert (two.baseline, two.num_samples, two.temperature) == ("leave_one_out", 2, 0.01)


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


def test_samples_are_drawn_from_all_that_the_encoder_returns_for_a_document(tmp_path):
    model = make_model(lexical_branch=True, lexical_in_decoder=True)
    trainer, batch = make_trainer(tmp_path, model=model), make_batch([0, 1, 2])
    log_odds = torch.full((3, NUM_LABELS), -9.0)
    log_odds[:, 2] = 9.0
    log_odds.requires_grad_()
    encode = trainer.model.encode

    def with_bias(*inputs, **named_inputs):
        encoded = encode(*inputs, **named_inputs)
        encoded.lexical_logits = log_odds
        return encoded

    trainer.model.encode = with_bias
    loss, samples = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert samples.targets.tolist() == [[[2, NUM_LABELS]]] * 3
    loss.backward()
    assert log_odds.grad is not None


def test_samples_of_an_ensemble_train_all_its_members(tmp_path):
    members = [make_model(), make_model(encoder_hidden_size=5)]
    model = type(members[0]).from_members(members).train()
    trainer, batch = make_trainer(tmp_path, model=model), make_batch([0, 1, 2])
    trainer.compute_loss(trainer.model, batch).backward()
    for part in (model.encoder, model.decoder):
        for member in part.members:
            assert any(p.grad is not None and p.grad.ne(0).any() for p in member.parameters())
