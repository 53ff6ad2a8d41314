#!/usr/bin/env python
"""Latency: one text at a time, ours against a textbook beam search with the same weights.

    python benchmarks/bench_latency.py --size aapd --data_dir data/aapd --model_name_or_path runs/aapd_sgm_ge

A repetition decodes one text many times; its value is the median time of a call.
"""

import operator
import statistics
import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np
import torch
from decoding import load_model, load_textbook

ARMS = ("textbook_unpacked", "textbook_packed", "ours_fp32", "ours_bf16")
NUM_WORDS = 160
NUM_CALLS = 40


def make_text(arguments: Any) -> torch.Tensor:
    """The start of the first document with at least `NUM_WORDS` words, (1, NUM_WORDS)."""
    texts = harness.make_texts(arguments.size, arguments.documents, arguments.data_dir)
    first = int(np.argmax(np.asarray(texts["length"]) >= NUM_WORDS))
    return torch.tensor([texts[first]["input_ids"][:NUM_WORDS]])


def make_arm(arguments: Any) -> Callable[[], dict[str, Any]]:
    """The function that does one repetition of an arm and returns the median milliseconds of a call."""
    kind, variant = harness.prepare(arguments)
    text = make_text(arguments)
    if kind == "textbook":
        textbook, lengths = load_textbook(arguments, packed=variant == "packed"), torch.tensor([NUM_WORDS])

        def call() -> Any:
            return textbook.beam_search(text, lengths, arguments.num_beams)

    else:
        model, bf16 = load_model(arguments), variant == "bf16"
        if bf16:
            model = model.to(torch.bfloat16)

        def call() -> Any:
            return model.generate(text, num_beams=arguments.num_beams, set_decoding="best_sequence")

    def repeat() -> dict[str, Any]:
        times = []
        for _ in range(NUM_CALLS):
            start = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - start))
        return {"milliseconds": statistics.median(times)}

    return repeat


def main() -> None:
    """Run the arms in turns, keep the results, and print them."""
    benchmark = f"one text of {NUM_WORDS} words, beam {{num_beams}}"
    description = __doc__.splitlines()[0]
    value = operator.itemgetter("milliseconds")
    harness.run(__file__, description, ARMS, make_arm, benchmark, value, "ms", documents=64, repetitions=9)


if __name__ == "__main__":
    main()
