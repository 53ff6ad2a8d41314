#!/usr/bin/env python
"""Speed of self-critical training compared with training by likelihood.

    python benchmarks/bench_seq2set.py --size aapd --data_dir data/aapd --model_name_or_path runs/aapd_sgm_ge

An update of `self_critical` is that of the Seq2Set paper: one sampled and the greedy sequence per text, without
dropout; `five_samples` uses five samples and no greedy sequence. All arms train on the same batches of similar length.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import bench_training
import decoding
import harness
import torch

from sgm_hf import SamplingArguments, SelfCriticalTrainer, SGMTrainer, SGMTrainingArguments

TRAININGS: dict[str, dict[str, Any]] = {
    "likelihood": {},
    "self_critical": {"num_samples": 1, "baseline": "greedy"},
    "five_samples": {"num_samples": 5, "baseline": "leave_one_out"},
}
ARMS = tuple(f"{training}_{variant}" for variant in ("fp32", "bf16") for training in TRAININGS)


def make_arm(arguments: Any) -> Callable[[], dict[str, Any]]:
    """The function that does one repetition of an arm and returns its number of documents."""
    training, _, variant = arguments.arm.rpartition("_")
    harness.prepare(arguments)
    texts = harness.make_texts(arguments.size, bench_training.POOL * arguments.documents, arguments.data_dir)
    batches = bench_training.make_batches(arguments, texts, alike=True)
    num_documents = sum(len(batch["labels"]) for batch in batches)
    likelihood = training == "likelihood"
    trainer_class, arguments_class = (
        (SGMTrainer, SGMTrainingArguments) if likelihood else (SelfCriticalTrainer, SamplingArguments)
    )
    settings = {"bf16": variant == "bf16", "eval_strategy": "no", "use_cpu": arguments.device == "cpu"}
    output_dir = tempfile.mkdtemp()  # nothing is written to it
    model = decoding.load_model(arguments)
    trainer = trainer_class(model, arguments_class(output_dir, **settings, **TRAININGS[training]))
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-5, fused=True)

    def repeat() -> dict[str, Any]:
        for batch in batches:
            with trainer.accelerator.autocast():
                loss = trainer.compute_loss(model, batch)
            bench_training.update(model, optimizer, loss, max_norm=8.0)
        return {"documents": num_documents, "fell_back": trainer.args.bf16 != (variant == "bf16")}

    return repeat


def main() -> None:
    """Run the arms in turns, keep the results, and print them."""
    description, value = __doc__.splitlines()[0], harness.documents_per_second
    harness.run(__file__, description, ARMS, make_arm, "self-critical training", value, documents=256, repetitions=3)


if __name__ == "__main__":
    main()
