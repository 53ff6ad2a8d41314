"""Run by test_distributed.py in each of two processes: models spread over both (FSDP 2) against whole ones."""

import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from tiny_training import NUM_LABELS, make_documents, make_model, make_pretrained_model
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from two_processes import EnumeratingTrainer

from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.modeling.adapters_sgm import merged_weights
from sgm_hf.training import SamplingArguments
from sgm_hf.training.lora import load_adapters, save_adapters


def loss_and_gradients(model: torch.nn.Module, batch: dict[str, torch.Tensor], folder: str, sharded: bool) -> dict:
    """What one step of self-critical training computes."""
    arguments = SamplingArguments(folder, eval_strategy="no", use_cpu=True)
    trainer = EnumeratingTrainer(model, arguments)
    # accelerate sets this where there are GPUs; to processes of a CPU it gives DDP whatever is asked for.
    trainer.is_fsdp_enabled = sharded
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    parameters = model.named_parameters()
    gradients = {name: parameter.grad for name, parameter in parameters if parameter.requires_grad}
    if sharded:
        gradients = {name: gradient.full_tensor() for name, gradient in gradients.items()}
    return {"loss": loss.detach(), **gradients}


def spread_over_processes(model: SGMForMultiLabelGeneration) -> SGMForMultiLabelGeneration:
    """The model, each process with a part of every weight."""
    fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (2,)))
    register_fsdp_forward_method(model, "generate")
    return model


def compare(make: Callable[[], SGMForMultiLabelGeneration], folder: str) -> dict:
    """One step of a whole model and of one that is spread, and how much of it a process has."""
    documents = make_documents(8)
    whole, spread = make(), spread_over_processes(make())
    batch = MultiLabelCollator(whole.config.pad_token_id, NUM_LABELS)([documents[i] for i in range(8)])
    return {
        "whole": loss_and_gradients(whole, batch, folder, sharded=False),
        "spread": loss_and_gradients(spread, batch, folder, sharded=True),
        "whole_size": sum(parameter.numel() for parameter in whole.parameters()),
        "local_size": sum(parameter.to_local().numel() for parameter in spread.parameters()),
    }


def save_and_load(folder: str) -> dict[str, dict[str, torch.Tensor]]:
    """Save a spread model with adapters as the trainer does, and load these into another."""
    whole = make_pretrained_model(with_adapters=True)
    spread = spread_over_processes(make_pretrained_model(with_adapters=True))
    weights = get_model_state_dict(spread, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if torch.distributed.get_rank() == 0:
        spread.save_pretrained(folder, state_dict=weights)
        save_adapters(spread, folder, weights)
    torch.distributed.barrier()
    other = spread_over_processes(make_pretrained_model(with_adapters=True, seed=1))
    load_adapters(other, folder)
    return {
        "whole": whole.state_dict(),
        "loaded": {name: tensor.full_tensor() for name, tensor in other.state_dict().items()},
        "merged": merged_weights(whole, whole.state_dict()),
    }


def main(folder: str) -> None:
    """Compute all, and let the first process save it."""
    torch.distributed.init_process_group("gloo")
    makers = {"recurrent": partial(make_model, dropout=0.0), "bert": partial(make_pretrained_model, False)}
    if find_spec("peft") is not None:
        makers["adapters"] = partial(make_pretrained_model, True)
    result = {name: compare(make, folder) for name, make in makers.items()}
    if "adapters" in makers:
        result["saved"] = save_and_load(folder)
    if torch.distributed.get_rank() == 0:
        torch.save(result, Path(folder, "result.pt"))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
