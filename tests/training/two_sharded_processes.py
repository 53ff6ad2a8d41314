"""Run by test_distributed.py in each of two processes: the model spread over both (FSDP 2) against a whole one."""

import sys
from pathlib import Path

import torch
from tiny_training import make_documents, make_model
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from two_processes import EnumeratingTrainer

from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.training import SamplingArguments


def loss_and_gradients(model: torch.nn.Module, batch: dict[str, torch.Tensor], folder: str, sharded: bool) -> dict:
    """What one step of self-critical training computes."""
    arguments = SamplingArguments(folder, eval_strategy="no", use_cpu=True)
    trainer = EnumeratingTrainer(model, arguments)
    # accelerate sets this where there are GPUs; to processes of a CPU it gives DDP whatever is asked for.
    trainer.is_fsdp_enabled = sharded
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    if sharded:
        gradients = {name: gradient.full_tensor() for name, gradient in gradients.items()}
    return {"loss": loss.detach(), **gradients}


def main(folder: str) -> None:
    """Compute both, and let the first process save them."""
    torch.distributed.init_process_group("gloo")
    documents = make_documents(8)
    whole, spread = make_model(dropout=0.0), make_model(dropout=0.0)
    batch = MultiLabelCollator(whole.config.pad_token_id, whole.config.num_labels)([documents[i] for i in range(8)])
    fully_shard(spread, mesh=torch.distributed.init_device_mesh("cpu", (2,)))
    register_fsdp_forward_method(spread, "generate")
    sharded = [tuple(parameter.to_local().shape) for parameter in spread.parameters()]
    result = {
        "whole": loss_and_gradients(whole, batch, folder, sharded=False),
        "spread": loss_and_gradients(spread, batch, folder, sharded=True),
        "whole_size": sum(parameter.numel() for parameter in whole.parameters()),
        "local_size": sum(torch.Size(shape).numel() for shape in sharded),
    }
    if torch.distributed.get_rank() == 0:
        torch.save(result, Path(folder, "result.pt"))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
