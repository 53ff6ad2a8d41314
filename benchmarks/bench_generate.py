#!/usr/bin/env python
"""Decoding speed: ours against a textbook beam search with the same weights and against matrix multiplication.

    python benchmarks/bench_generate.py --size aapd --data_dir data/aapd --model_name_or_path runs/aapd_sgm_ge

A repetition decodes the same documents in every arm. Ours sorts them by length and restores their order; the textbook
keeps their order. The number of documents that get the same labels from both is also printed, and how much longer the
arms with a lexical branch take than `ours_fp32`, which has none: `--arms ours_fp32 branch_beside
branch_decoder branch_neighbors`.
"""

from collections.abc import Callable
from typing import Any

import branch
import harness
import torch
from decoding import load_model, load_textbook

from sgm_hf.data.batching import LengthBucketBatchSampler
from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.training.prediction import generate_predictions

ARMS = (
    *("textbook_unpacked", "textbook_packed", "ours_fp32", "ours_tf32", "ours_bf16"),
    *("limit_fp32", "limit_tf32", "limit_bf16", "branch_beside", "branch_decoder", "branch_neighbors"),
)
TEXTBOOK_BATCH = 64
MAX_DOCUMENTS, MAX_TOKENS = 256, 32768


def make_arm(arguments: Any) -> Callable[[], dict[str, Any]]:
    """The function that does one repetition of an arm and returns the label sequences."""
    kind, variant = harness.prepare(arguments)
    texts = harness.make_texts(arguments.size, arguments.documents, arguments.data_dir)
    if kind == "textbook":
        batch_size = arguments.batch_size or TEXTBOOK_BATCH
        textbook = load_textbook(arguments, packed=variant == "packed")
        collate = MultiLabelCollator(textbook.embed_words.padding_idx, textbook.num_labels)

        def repeat() -> dict[str, Any]:
            sequences = []
            for first in range(0, len(texts), batch_size):
                rows = texts[first : first + batch_size]["input_ids"]
                batch = collate([{"input_ids": row} for row in rows])
                lengths = batch["attention_mask"].sum(dim=1)
                sequences += textbook.beam_search(batch["input_ids"], lengths, arguments.num_beams)
            return {"documents": len(texts), "sequences": sequences}

        return repeat

    model = load_model(arguments, **branch.VARIANTS.get(variant, {}))
    if kind == "branch":
        if variant == "neighbors":  # of one vocabulary with the texts
            stored = harness.make_texts(arguments.size, branch.STORED, arguments.data_dir)
            texts = stored.select(range(len(texts)))
        fitted = branch.make_fit(texts, model.config).branch()
        if variant == "neighbors":
            fitted.neighbors = branch.neighbor_store(stored, model.config)
        model.set_lexical_branch(fitted)
        model.generation_config.update(**branch.GENERATION)
    max_documents = arguments.batch_size or MAX_DOCUMENTS
    max_tokens = MAX_TOKENS * max_documents // MAX_DOCUMENTS
    bf16 = harness.uses_bf16(variant, arguments.device)
    fell_back = bf16 != (variant == "bf16")
    if kind in ("ours", "branch"):

        def repeat() -> dict[str, Any]:
            predictions = generate_predictions(
                model, texts, max_tokens, max_documents, bf16=bf16, num_beams=arguments.num_beams
            )
            return {"documents": len(texts), "sequences": predictions.best_sequences, "fell_back": fell_back}

        return repeat

    dtype = torch.bfloat16 if bf16 else torch.float32
    # One step per label, and one for eos.
    steps = 1 + round(sum(map(len, texts["labels"])) / len(texts))
    products = []
    for rows in LengthBucketBatchSampler(texts["length"], max_tokens, max_documents, shuffle=False):
        num_words = max(texts[row]["length"] for row in rows)
        shape = (len(rows), num_words, steps, len(rows) * arguments.num_beams)
        products += harness.forward_multiplications(model.config, *shape)

    def repeat() -> dict[str, Any]:
        harness.multiply(products, dtype)
        return {"documents": len(texts), "flops": harness.flops(products), "fell_back": fell_back}

    return repeat


def main() -> None:
    """Run the arms in turns, keep the results, and print them."""
    description, value = __doc__.splitlines()[0], harness.documents_per_second
    results = harness.run(
        __file__, description, ARMS, make_arm, "beam {num_beams}", value, documents=512, repetitions=5
    )
    expected = results.get("textbook_packed", [{}])[-1].get("sequences")
    for arm in (arm for arm in results if arm.startswith("ours") and expected is not None):
        found = results[arm][-1]["sequences"]
        same = sum(mine == theirs for mine, theirs in zip(found, expected, strict=True))
        print(f"{arm}: the packed textbook's labels for {same} of {len(expected)} documents")
    harness.show_times(results, "branch", "ours_fp32")


if __name__ == "__main__":
    main()
