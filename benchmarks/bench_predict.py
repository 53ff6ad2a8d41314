#!/usr/bin/env python
"""Labelling a CSV file: `label_file`, from reading to writing, against the pipeline over a list of the same texts.

    python benchmarks/bench_predict.py --size aapd --data_dir data/aapd --model_name_or_path runs/aapd_sgm_ge

A repetition loads the model and labels all documents. Peak memory is that of the process with the file labelled.
"""

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from decoding import load_model

from sgm_hf import MultiLabelGenerationPipeline, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.datasets_scripts import load
from sgm_hf.programs import label_file

ARMS = ("pipeline_fp32", "ours_fp32", "ours_bf16")


def make_texts(arguments: Any) -> list[str]:
    """The first texts of a corpus, or drawn ones of the words w0, w1, …."""
    if arguments.data_dir is not None:
        return load(arguments.size, data_dir=arguments.data_dir)["train"]["text"][: arguments.documents]
    encoded = harness.make_texts(arguments.size, arguments.documents, None)
    return [" ".join(f"w{word}" for word in words) for words in encoded["input_ids"]]


def save_model(arguments: Any, folder: Path) -> Path:
    """The model that the command line names, or an untrained one that knows the words w0, w1, …."""
    if arguments.model_name_or_path is not None:
        return Path(arguments.model_name_or_path)
    model = load_model(arguments)
    words = [f"w{word}" for word in range(model.config.vocab_size - 2)]  # and <pad>, <unk>
    model.save_pretrained(folder)
    tokenizer = SGMTokenizer.train_from_texts(
        [" ".join(words)],
        vocab_size=model.config.vocab_size,
        mask_numbers=False,
        model_max_length=harness.SIZES[arguments.size].max_length,
    )
    tokenizer.save_pretrained(folder)
    return folder


def make_arm(arguments: Any) -> Callable[[], dict[str, Any]]:
    """The function that does one repetition of an arm and returns the label sets."""
    kind, variant = harness.prepare(arguments)
    folder = tempfile.TemporaryDirectory()
    texts, checkpoint = make_texts(arguments), save_model(arguments, Path(folder.name, "model"))
    file = Path(folder.name, "new.csv")
    with open(file, "w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([["text"], *([text] for text in texts)])
    sizes = {"num_beams": arguments.num_beams}
    if arguments.batch_size is not None:
        sizes["batch_size"] = arguments.batch_size

    def repeat() -> dict[str, Any]:
        if kind == "pipeline":
            model = SGMForMultiLabelGeneration.from_pretrained(checkpoint)
            tokenizer = SGMTokenizer.from_pretrained(checkpoint)
            classifier = MultiLabelGenerationPipeline(model=model, tokenizer=tokenizer, device=arguments.device)
            return {"documents": len(classifier(texts, **sizes))}
        output, precision = Path(folder.name, "labelled.jsonl"), {"device": arguments.device, "precision": variant}
        done = label_file(checkpoint, file, output, overwrite=True, top_k=5, **precision, **sizes)
        fell_back = harness.uses_bf16(variant, arguments.device) != (variant == "bf16")
        return {"documents": done.labelled_now, "fell_back": fell_back}

    return repeat


def main() -> None:
    """Run the arms in turns, keep the results, and print them."""
    benchmark, value = "labelling a file, beam {num_beams}", harness.documents_per_second
    harness.run(__file__, __doc__.splitlines()[0], ARMS, make_arm, benchmark, value, documents=1024, repetitions=3)


if __name__ == "__main__":
    main()
