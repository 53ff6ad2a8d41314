#!/usr/bin/env python
"""Training speed: ours against a textbook model and against matrix multiplication.

    python benchmarks/bench_training.py --size aapd --data_dir data/aapd

A repetition trains on the same documents in every arm, the textbook model in random batches, ours in batches of
similar length; both do the forward and backward pass, the clipping and the update of Adam. How much longer the arms
with a lexical branch take than `ours_fp32`, which has none, is also printed:
`--arms ours_fp32 branch_beside branch_decoder branch_neighbors`.
"""

from collections.abc import Callable
from typing import Any

import branch
import harness
import numpy as np
import torch
from datasets import Dataset
from textbook import TextbookSGM

from sgm_hf import SGMConfig, SGMForMultiLabelGeneration
from sgm_hf.data.batching import LengthBucketBatchSampler
from sgm_hf.data.collation import MultiLabelCollator

ARMS = (
    *("textbook_unpacked", "textbook_packed", "ours_fp32", "ours_tf32", "ours_bf16"),
    *("limit_fp32", "limit_tf32", "limit_bf16", "branch_beside", "branch_decoder", "branch_neighbors"),
)
# Batches come from a pool of this many times the documents of a repetition, so that their lengths are as similar as
# in training on a whole corpus.
POOL = 16


def make_batches(arguments: Any, config: SGMConfig, texts: Dataset, alike: bool) -> list[dict[str, torch.Tensor]]:
    """The batches of a repetition: of documents of similar length (`alike`), or of the same documents at random."""
    settings = harness.read_settings(arguments.size)
    collate = MultiLabelCollator(config.pad_token_id, config.num_labels, keep_index=config.lexical_in_decoder)
    batch_size = arguments.batch_size or settings["per_device_train_batch_size"]
    max_tokens = settings["max_tokens_per_batch"] * batch_size // settings["per_device_train_batch_size"]
    sampler = LengthBucketBatchSampler(texts["length"], max_tokens, batch_size)
    lengths = np.asarray(texts["length"])
    by_length = sorted(sampler, key=lambda rows: int(lengths[rows].max()))
    count = max(1, arguments.documents // batch_size)
    # The batch in the middle of each of `count` equal parts represents its part.
    chosen = [by_length[int((part + 0.5) * len(by_length) / count)] for part in range(count)]
    if not alike:
        rows = np.random.default_rng(0).permutation(np.concatenate(chosen)).tolist()
        chosen = [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    return [collate([texts[row] for row in rows]) for rows in chosen]


def make_arm(arguments: Any) -> Callable[[], dict[str, Any]]:
    """The function that does one repetition of an arm and returns its number of documents."""
    kind, variant = harness.prepare(arguments)
    config = harness.model_config(arguments.size, **branch.VARIANTS.get(variant, {}))
    texts = harness.make_texts(arguments.size, POOL * arguments.documents, arguments.data_dir)
    batches = make_batches(arguments, config, texts, alike=kind != "textbook")
    num_documents = sum(len(batch["labels"]) for batch in batches)
    bf16 = harness.uses_bf16(variant, arguments.device)
    fell_back = bf16 != (variant == "bf16")
    dtype = torch.bfloat16 if bf16 else torch.float32
    if kind == "limit":
        products = [shapes for batch in batches for shapes in batch_multiplications(config, batch)]

        def repeat() -> dict[str, Any]:
            harness.multiply(products, dtype)
            return {"documents": num_documents, "flops": harness.flops(products), "fell_back": fell_back}

        return repeat

    model = TextbookSGM(config, variant == "packed") if kind == "textbook" else SGMForMultiLabelGeneration(config)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3, fused=True if kind != "textbook" else None)
    fit = branch.make_fit(texts, config) if kind == "branch" else None
    if fit is not None:
        if variant == "neighbors":
            branch.add_neighbors(fit, texts, config)
        model.set_lexical_branch(fit.branch())

    def repeat() -> dict[str, Any]:
        for batch in batches:
            with torch.autocast(arguments.device, dtype=torch.bfloat16, enabled=bf16):
                if kind == "textbook":
                    loss = model(batch["input_ids"], batch["attention_mask"].sum(dim=1), batch["labels"])
                elif config.lexical_in_decoder:
                    # As the trainer does: training sees what a branch says that was fitted without the document.
                    inputs = {name: tensor for name, tensor in batch.items() if name != "index"}
                    words = inputs["input_ids"], inputs["attention_mask"]
                    log_odds = fit.out_of_fold_log_odds(*words, batch["index"])
                    loss = model(**inputs, lexical_logits=log_odds, use_cache=False).loss
                else:
                    loss = model(**batch, use_cache=False).loss
            update(model, optimizer, loss, max_norm=10.0)
        return {"documents": num_documents, "fell_back": fell_back}

    return repeat


def update(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor, max_norm: float) -> None:
    """The rest of an update after its loss: backward pass, clipping, the optimizer's step."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    optimizer.zero_grad()


def batch_multiplications(config: Any, batch: dict[str, torch.Tensor]) -> list[tuple[int, int, int, int]]:
    """The matrix products of one update: forward pass and backward pass."""
    (num_documents, num_words), num_steps = batch["input_ids"].shape, batch["labels"].shape[1]
    forward = harness.forward_multiplications(config, num_documents, num_words, num_steps, num_documents)
    return forward + harness.backward_multiplications(forward)


def main() -> None:
    """Run the arms in turns, keep the results, and print them."""
    description, value = __doc__.splitlines()[0], harness.documents_per_second
    results = harness.run(__file__, description, ARMS, make_arm, "training", value, documents=256, repetitions=5)
    harness.show_times(results, "branch", "ours_fp32")


if __name__ == "__main__":
    main()
