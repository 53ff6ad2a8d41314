"""Run by test_distributed.py in each of two processes: train, predict, and let the first one save what came out."""

import itertools
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate.utils import gather_object
from tiny_training import NUM_LABELS, make_decided_model, make_documents, make_model, make_pretrained_model
from two_processes_branch import train_with_branch
from two_processes_vectors import gather_vectors

from sgm_hf.training import SamplingArguments, SelfCriticalTrainer, SGMTrainer, SGMTrainingArguments


class EnumeratingTrainer(SelfCriticalTrainer):
    """Takes every sequence of one or two labels in place of samples, so that processes need not draw alike."""

    def _sample(self, texts, encoder_outputs):
        _, greedy = super()._sample(texts, encoder_outputs)
        pairs = torch.tensor([[*pair, NUM_LABELS] for pair in itertools.permutations(range(NUM_LABELS), 2)])
        return pairs.expand(len(texts["input_ids"]), -1, -1), greedy


def train_self_critically(folder: str, accumulation: int) -> dict[str, torch.Tensor]:
    """The weights after one epoch of reinforcement learning."""
    arguments = SamplingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulation,
        likelihood_weight=0.5,
        optim="sgd",
        learning_rate=0.1,
        eval_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = EnumeratingTrainer(make_model(dropout=0.0), arguments, train_dataset=make_documents(37))
    trainer.train()
    return trainer.model.state_dict()


def train_in_mixed_precision(folder: str) -> torch.Tensor:
    """Each process' weights, in rows, after reinforcement learning with samples, bf16 and gradient accumulation."""
    arguments = SamplingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_samples=2,
        learning_rate=0.01,
        bf16=True,
        eval_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SelfCriticalTrainer(make_model(), arguments, train_dataset=make_documents(37))
    trainer.train()
    return gathered_weights(trainer)


class DivergingTrainer(SGMTrainer):
    """The last process' fifth loss is infinite; its gradient is not, so that only that process sees it."""

    batches = 0

    def compute_loss(self, *positional, **keywords):
        self.batches += 1
        loss = super().compute_loss(*positional, **keywords)
        last = self.args.process_index == self.args.world_size - 1
        return loss + float("inf") if last and self.batches == 5 else loss


def diverge(folder: str) -> list[str]:
    """What each process says when one's loss is not finite."""
    settings = {"per_device_train_batch_size": 4, "eval_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    trainer = DivergingTrainer(make_model(), SGMTrainingArguments(folder, **settings), make_documents(60))
    try:
        trainer.train()
    except FloatingPointError as error:
        return gather_object([str(error)])
    return gather_object(["no error"])


def gathered_weights(trainer: SGMTrainer) -> torch.Tensor:
    """Each process' weights, in rows."""
    weights = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    return trainer.accelerator.gather(weights[None])


def train_for_rare_labels(folder: str, accumulation: int) -> dict[str, torch.Tensor]:
    """The weights after two epochs with label weights, repeated documents and the focal loss."""
    arguments = SGMTrainingArguments(
        output_dir=folder,
        num_train_epochs=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulation,
        label_weights="balanced",
        repeat_factor_threshold=0.6,
        focal_gamma=1.0,
        optim="sgd",
        learning_rate=0.1,
        eval_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SGMTrainer(make_model(dropout=0.0), arguments, make_documents(37))
    trainer.train()
    assert trainer.trained_documents > 2 * 40
    return trainer.model.state_dict()


def train_around_encoders(folder: str, accumulation: int) -> dict[str, torch.Tensor]:
    """The weights of models around a pre-trained encoder after an epoch: of all, of the decoder, of adapters."""
    parts = {"all": make_pretrained_model(), "frozen": make_pretrained_model()}
    parts["frozen"].freeze_encoder()
    if find_spec("peft") is not None:
        parts["adapters"] = make_pretrained_model(with_adapters=True)
    weights = {}
    for part, model in parts.items():
        arguments = SGMTrainingArguments(
            output_dir=f"{folder}/{part}",
            num_train_epochs=1,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=accumulation,
            optim="sgd",
            learning_rate=0.1,
            eval_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = SGMTrainer(model, arguments, make_documents(37))
        trainer.train()
        weights |= {f"{part}: {name}": tensor for name, tensor in trainer.model.state_dict().items()}
    return weights


def train_and_predict(folder: str, accumulation: int) -> dict:
    """Train a model for two epochs, and predict with another one."""
    arguments = SGMTrainingArguments(
        output_dir=folder,
        num_train_epochs=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=0.1,
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SGMTrainer(
        make_model(dropout=0.0), arguments, make_documents(37), make_documents(11, seed=1), make_documents(9, seed=2)
    )
    trainer.train()
    output = SGMTrainer(make_decided_model(), arguments, eval_dataset=make_documents(11)).predict(make_documents(11))
    return {
        "processes": arguments.world_size,
        "weights": trainer.model.state_dict(),
        "weights_of_all": gathered_weights(trainer),
        "mixed_precision_weights_of_all": train_in_mixed_precision(f"{folder}/mixed_precision"),
        "rare_label_weights": train_for_rare_labels(f"{folder}/rare_labels", accumulation),
        "encoder_weights": train_around_encoders(f"{folder}/encoders", accumulation),
        "self_critical_weights": train_self_critically(f"{folder}/self_critical", accumulation),
        "best_sequences": output.predictions.best_sequences,
        "label_scores": torch.from_numpy(output.predictions.label_scores),
        "micro_f1": float(output.metrics["test_micro_f1"]),
        "loss": trainer.evaluate()["eval_loss"],
    }


if __name__ == "__main__":
    result = train_and_predict(sys.argv[1], accumulation=1)
    result["divergence"] = diverge(f"{sys.argv[1]}/divergence")
    result["branch"] = train_with_branch(f"{sys.argv[1]}/branch")
    result["vectors"] = gather_vectors()
    if torch.distributed.get_rank() == 0:
        torch.save(result, Path(sys.argv[1], "result.pt"))
    # A process that exits with the group still up can be aborted by the group's threads.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
