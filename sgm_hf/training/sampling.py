"""Training on label sequences that the model samples: self-critical reinforcement learning and an order-free loss.

Shapes: B documents, S samples per document, n steps, L labels (column L is eos).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from sgm_hf.data.collation import IGNORED
from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.modeling.generation_sgm import default_generation_config
from sgm_hf.training.arguments import SGMTrainingArguments
from sgm_hf.training.rewards import REWARDS, Reward, checked_reward
from sgm_hf.training.trainer import SGMTrainer


@dataclass
class SamplingArguments(SGMTrainingArguments):
    """The settings of `SelfCriticalTrainer` and `OrderFreeTrainer`, on top of those of `SGMTrainer`.

    Args:
        learning_rate: Of Adam (Yang et al. 2019).
        num_samples: Label sequences sampled per document.
        temperature: Logits are divided by this when sampling, and when the samples are scored.
        dropout_in_sampling: Whether dropout stays on; without it, what is scored is exactly what was sampled.
        likelihood_weight: Weight of the gold sequence's likelihood loss, which is added.
        reward: Name of a reward: "f1", "hamming", "f1_and_hamming" or "cost". `SelfCriticalTrainer` only.
        baseline: "greedy" (the reward of the greedy sequence) or "leave_one_out" (the mean reward of the document's
            other samples; at least two samples). `SelfCriticalTrainer` only.
        entropy_weight: Weight of the entropy bonus of each step. `SelfCriticalTrainer` only.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of Adam."})
    num_samples: int = field(default=1, metadata={"help": "Label sequences sampled per document."})
    temperature: float = field(default=1.0, metadata={"help": "Divides the logits of sampling."})
    dropout_in_sampling: bool = field(default=False, metadata={"help": "Keep dropout on."})
    likelihood_weight: float = field(default=0.0, metadata={"help": "Weight of the gold sequence's likelihood loss."})
    reward: str = field(default="f1", metadata={"help": f"One of {', '.join(REWARDS)}."})
    baseline: str = field(default="greedy", metadata={"help": "greedy or leave_one_out."})
    entropy_weight: float = field(default=0.0, metadata={"help": "Weight of the entropy bonus."})

    def __post_init__(self) -> None:
        """Check our settings (ValueError)."""
        if self.num_samples < 1:
            raise ValueError(f"num_samples is {self.num_samples}; at least one sequence per document must be sampled.")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0.")
        if self.reward not in REWARDS:
            raise ValueError(f"reward is {self.reward!r}; choose one of {', '.join(REWARDS)}.")
        if self.baseline not in ("greedy", "leave_one_out"):
            raise ValueError(f"baseline is {self.baseline!r}; choose greedy or leave_one_out.")
        for name, off in (("label_loss", "cross_entropy"), ("label_weights", "none"), ("focal_gamma", 0.0)):
            if getattr(self, name) not in (off, None):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r:.100}, but the loss of a training on samples has no such "
                    "setting; leave it out. repeat_factor_threshold works here too."
                )
        if self.baseline == "leave_one_out" and self.num_samples < 2:
            raise ValueError("baseline leave_one_out needs num_samples of 2 or more: it is the mean of the others.")
        super().__post_init__()


@dataclass
class Samples:
    """Sampled label sequences of a batch, and what the model says of each of their steps.

    Args:
        targets: The sequences, (B, S, n) int64: label ids, eos, then -100.
        log_probs: Log-probabilities of each step, (B, S, n, L + 1), -inf for masked labels.
        gold: The true labels, (B, 1, L) bool.
        greedy: The labels of the greedy sequence, (B, 1, L) bool, or None where none was asked for.
    """

    targets: torch.Tensor
    log_probs: torch.Tensor
    gold: torch.Tensor
    greedy: torch.Tensor | None

    @property
    def sets(self) -> torch.Tensor:
        """The labels of each sampled sequence, (B, S, L) bool."""
        return label_sets(self.targets, self.gold.shape[-1])

    def sequence_log_probs(self) -> torch.Tensor:
        """log p of each sequence up to and with eos, (B, S)."""
        labels = self.targets.clamp(min=0)  # (B, S, n)
        return self.sum_steps(self.log_probs.gather(-1, labels[..., None]).squeeze(-1))  # (B, S)

    def sum_steps(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of the values (B, S, n) of each sequence's steps up to and with eos, (B, S)."""
        return values.masked_fill(self.targets == IGNORED, 0.0).sum(dim=-1)  # (B, S)


def label_sets(targets: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Which labels sequences hold: (..., n) int64 label ids, eos and -100 to (..., L) bool."""
    columns = torch.arange(num_labels, device=targets.device)  # (L)
    return (targets[..., None] == columns).any(dim=-2)  # (..., L)


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Turn a model's dropout off within the block; it stays in training mode otherwise."""
    active = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.training]
    for module in active:
        module.training = False
    try:
        yield
    finally:
        for module in active:
            module.training = True


@contextmanager
def plain_generation_config(model: SGMForMultiLabelGeneration) -> Iterator[None]:
    """Have a model generate without the constraints, filters and penalties of its generation config in the block."""
    own = model.generation_config
    model.generation_config = default_generation_config(model.config)
    try:
        yield
    finally:
        model.generation_config = own


class SamplingTrainer(SGMTrainer):
    """What the two trainers share: sampling, scoring the samples, and averaging over documents.

    A loss is the mean over the documents of an update, on all processes. Subclasses give each sample's loss.

    Args:
        model: The model, usually trained with `SGMTrainer` before.
        args: The settings, `SamplingArguments` (TypeError).
        **keywords: As of `SGMTrainer`.
    """

    args: SamplingArguments
    model: SGMForMultiLabelGeneration
    needs_greedy = False

    def __init__(self, model: nn.Module, args: SamplingArguments, **keywords: Any):
        if not isinstance(args, SamplingArguments):
            raise TypeError(f"{type(self).__name__} takes SamplingArguments, got {type(args).__name__}.")
        super().__init__(model, args, **keywords)

    def sample_losses(self, samples: Samples) -> torch.Tensor:
        """The loss of each sampled sequence, (B, S)."""
        raise NotImplementedError

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Sample, score, and sum the documents' losses.

        Args:
            model: The model, wrapped or not.
            inputs: `input_ids`, `attention_mask` (B, T), `labels` (B, n).
            return_outputs: Whether to return the samples in addition.
            num_items_in_batch: Documents of all batches of this update, on all processes.

        Returns:
            The loss, or the loss and the `Samples`.
        """
        with nullcontext() if self.args.dropout_in_sampling else without_dropout(self.model):
            samples, gold_log_probs = self._sample_and_score(model, inputs)
        losses = self.sample_losses(samples).mean(dim=1)  # (B)
        if gold_log_probs is not None:
            losses = losses - self.args.likelihood_weight * gold_log_probs  # (B)
        loss = losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)
        loss = self.scale_to_processes(loss, num_items_in_batch)
        return (loss, samples) if return_outputs else loss

    def _sample_and_score(
        self, model: nn.Module, inputs: dict[str, torch.Tensor]
    ) -> tuple[Samples, torch.Tensor | None]:
        """The samples with their log-probabilities, and log p of the gold sequences, (B), if it has a weight."""
        texts = {name: tensor for name, tensor in self.with_lexical_logits(inputs).items() if name != "labels"}
        gold_targets = inputs["labels"]  # (B, n)
        encoder_outputs = self._encode_once(model, texts)
        sampled, greedy = self._sample(texts, encoder_outputs)  # (B, S, n)
        rows = [*sampled.unbind(dim=1), *([gold_targets] if self.args.likelihood_weight else [])]
        targets = pad_steps(rows)  # (B, S or S + 1, n)
        decoder_input_ids = self.model.prepare_decoder_input_ids_from_labels(targets.flatten(0, 1))
        source = texts if encoder_outputs is None else {**texts, "encoder_outputs": encoder_outputs}
        logits = model(**source, decoder_input_ids=decoder_input_ids, use_cache=False)["logits"]
        logits = logits.view(*targets.shape, -1)  # (B, S or S + 1, n, L + 1)

        num_samples = sampled.shape[1]
        samples = Samples(
            targets[:, :num_samples],
            (logits[:, :num_samples] / self.args.temperature).log_softmax(dim=-1),
            label_sets(gold_targets, self.model.config.num_labels)[:, None],
            greedy,
        )
        if not self.args.likelihood_weight:
            return samples, None
        gold = Samples(targets[:, num_samples:], logits[:, num_samples:].log_softmax(dim=-1), samples.gold, None)
        return samples, gold.sequence_log_probs().squeeze(1)  # (B)

    def _encode_once(self, model: nn.Module, texts: dict[str, Any]) -> BaseModelOutput | None:
        """What the encoder returns, for both sampling and scoring, or None where that must be made twice."""
        # Sharing is exact without dropout; a wrapper must see the forward pass whose gradients it gathers.
        if model is not self.model or self.args.dropout_in_sampling or self.is_fsdp_enabled:
            return None
        with self.accelerator.autocast():
            return self._encode(texts)

    def _encode(self, texts: dict[str, Any]) -> BaseModelOutput:
        """What the encoder returns; a lexical branch beside the decoder has no say in sequences, and does not run."""
        return self.model.encode(**texts, run_lexical_branch=self.model.config.lexical_in_decoder)

    @torch.no_grad()
    def _sample(
        self, texts: dict[str, Any], encoder_outputs: BaseModelOutput | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Sampled target sequences (B, S, n), and the labels of the greedy one (B, 1, L) where it is needed."""
        with self.accelerator.autocast():
            source: dict[str, Any] = texts  # all that FSDP can use: only the whole model has its weights
            if not self.is_fsdp_enabled:
                encoded = self._encode(texts) if encoder_outputs is None else encoder_outputs
                mask = {name: tensor for name, tensor in texts.items() if name == "attention_mask"}  # images have none
                source = {"encoder_outputs": encoded, **mask}
            settings = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": self.args.temperature}
            # From the model's own distribution, which is what is scored: a constraint or filter of the generation
            # config would shift the gradient.
            with plain_generation_config(self.model):
                sampled = self._decode(source, num_return_sequences=self.args.num_samples, **settings)  # (B * S, n)
            sampled = sampled.unflatten(0, (-1, self.args.num_samples))  # (B, S, n)
            if not self.needs_greedy:
                return sampled, None
            # It obeys the generation config, as predictions do: a baseline that does not look at the sample leaves the
            # gradient's expectation as it is.
            greedy = self._decode(source, do_sample=False)  # (B, n)
        return sampled, label_sets(greedy, self.model.config.num_labels)[:, None]

    def _decode(self, source: dict[str, Any], **settings: Any) -> torch.Tensor:
        """The target sequences that `generate` finds without beams, (R, n)."""
        sequences = self.model.generate(**source, num_beams=1, set_decoding="best_sequence", **settings)
        targets = sequences[:, 1:]  # (R, n), without bos
        return targets.masked_fill(targets == self.model.config.pad_label_id, IGNORED)

    def count_items(self, batches: list, device: torch.device) -> torch.Tensor | int | None:
        """The number of documents of an update, on all processes."""
        count = torch.tensor(sum(len(batch["labels"]) for batch in batches), device=device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            count = self.accelerator.gather(count).sum()
        return count


def pad_steps(rows: list[torch.Tensor]) -> torch.Tensor:
    """Stack sequences (B, n) of different lengths n to (B, rows, longest n), filled with -100."""
    width = max(row.shape[1] for row in rows)
    padded = [nn.functional.pad(row, (0, width - row.shape[1]), value=IGNORED) for row in rows]
    return torch.stack(padded, dim=1)


class SelfCriticalTrainer(SamplingTrainer):
    """Reinforcement learning of label sets: the gradient −(r(yˢ) − r(yᵍ)) ∇ log p(yˢ) (Yang et al. 2019, eq. 7).

    Args:
        model: The model, usually trained with `SGMTrainer` before.
        args: The settings.
        reward: A function of predicted and true sets, (B, S, L) bool each, to finite rewards (B, S); default that of
            `args.reward`.
        **keywords: As of `SGMTrainer`.
    """

    def __init__(self, model: nn.Module, args: SamplingArguments, reward: Reward | None = None, **keywords: Any):
        super().__init__(model, args, **keywords)
        self.reward = reward if reward is not None else REWARDS[args.reward]
        self.needs_greedy = args.baseline == "greedy"
        self._rewards: list[torch.Tensor] = []

    def sample_losses(self, samples: Samples) -> torch.Tensor:
        """Advantage times log-probability of each sample, and the entropy bonus; (B, S)."""
        rewards = checked_reward(self.reward, samples.sets, samples.gold)  # (B, S)
        self._rewards.append(rewards.mean())
        if samples.greedy is not None:
            baseline = checked_reward(self.reward, samples.greedy, samples.gold)  # (B, 1)
        else:
            baseline = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)  # (B, S)
        losses = -(rewards - baseline) * samples.sequence_log_probs()  # (B, S), eq. 7
        if self.args.entropy_weight:
            losses = losses - self.args.entropy_weight * entropy(samples)
        return losses

    def log(self, logs: dict[str, float], *arguments: Any, **keywords: Any) -> None:
        """Add the mean reward of the samples since the last log."""
        if "loss" in logs and self._rewards:
            logs["reward"] = torch.stack(self._rewards).mean().item()
            self._rewards.clear()
        super().log(logs, *arguments, **keywords)


def entropy(samples: Samples) -> torch.Tensor:
    """The sum of the entropies (nats) of each sequence's steps, (B, S)."""
    log_probs = samples.log_probs.masked_fill(samples.log_probs.isneginf(), 0.0)  # (B, S, n, L + 1)
    return samples.sum_steps(-(samples.log_probs.exp() * log_probs).sum(dim=-1))  # (B, S)


class OrderFreeTrainer(SamplingTrainer):
    """Supervised learning without an order: at each step of a sampled sequence, any true label still missing is right.

    Optimal completion distillation (Sabour et al. 2019), for sets as Tsai and Lee (2020) use it: the target of a step
    is spread evenly over the true labels that the sequence does not have yet, and is eos when it has them all.
    """

    def sample_losses(self, samples: Samples) -> torch.Tensor:
        """The cross-entropy (nats) between that target and the model, summed over each sample's steps; (B, S)."""
        target = completion_targets(samples.targets, samples.gold)  # (B, S, n, L + 1)
        log_probs = samples.log_probs.masked_fill(target == 0, 0.0)  # (B, S, n, L + 1)
        return samples.sum_steps(-(target * log_probs).sum(dim=-1))  # (B, S)


def completion_targets(targets: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    """The best next labels of each prefix of sampled sequences, as a distribution.

    Args:
        targets: Sampled sequences, (B, S, n) int64: label ids, eos, then -100.
        gold: The true labels, (B, 1, L) bool.

    Returns:
        (B, S, n, L + 1) float, each step summing to 1.
    """
    columns = torch.arange(gold.shape[-1], device=targets.device)  # (L)
    chosen = targets[..., None] == columns  # (B, S, n, L)
    produced = chosen.cumsum(dim=2) - chosen.long() > 0  # (B, S, n, L), before each step
    missing = (gold[:, :, None] & ~produced).float()  # (B, S, n, L)
    count = missing.sum(dim=-1, keepdim=True)  # (B, S, n, 1)
    return torch.cat([missing / count.clamp(min=1), (count == 0).float()], dim=-1)  # (B, S, n, L + 1)
