"""A tiny task and tiny models for the tests of this folder."""

import copy
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration
from sgm_hf.training.lora import add_lora

sys.path.append(str(Path(__file__).parents[1] / "modeling"))
from tiny_encoders import TEXT_ENCODERS  # noqa: E402

NUM_LABELS = 4
NUM_WORDS = 30


class Clock:
    """A clock that each look at it moves on."""

    def __init__(self, seconds: float):
        self.now, self.seconds = 0.0, seconds

    def monotonic(self) -> float:
        self.now += self.seconds
        return self.now


def make_documents(count: int, seed: int = 0) -> Dataset:
    """Encoded documents in which the words 2i+2 and 2i+3 stand for label i; the words from 10 on mean nothing."""
    random = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        chosen = np.flatnonzero(random.random(NUM_LABELS) < 0.4)
        words = [int(2 * label + 2 + random.integers(2)) for label in chosen for _ in range(2)]
        words += random.integers(10, NUM_WORDS, size=random.integers(1, 20)).tolist()
        texts.append(random.permutation(words).tolist())
        labels.append(random.permutation(chosen).tolist())
    columns = {"input_ids": texts, "labels": labels, "length": [len(text) for text in texts]}
    return Dataset.from_dict({**columns, "index": list(range(count))})


def make_model(seed: int = 0, **settings) -> SGMForMultiLabelGeneration:
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": NUM_WORDS,
        "embedding_size": 12,
        "encoder_hidden_size": 10,
        "encoder_layers": 1,
        "decoder_hidden_size": 14,
        "attention_size": 8,
        "num_labels": NUM_LABELS,
        "dropout": 0.1,
    }
    return SGMForMultiLabelGeneration(SGMConfig(**(sizes | settings)))


def make_pretrained_model(with_adapters: bool = False, seed: int = 0) -> SGMForMultiLabelGeneration:
    """A model around a tiny BERT without dropout; its adapters, of which the seed is, have an effect."""
    torch.manual_seed(0)
    encoder = copy.deepcopy(TEXT_ENCODERS["bert"])
    sizes = {"decoder_hidden_size": 14, "attention_size": 8, "num_labels": NUM_LABELS, "dropout": 0.0}
    model = SGMForMultiLabelGeneration(SGMConfig(encoder="pretrained", encoder_config=encoder, **sizes))
    if with_adapters:
        add_lora(model, rank=2)
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def make_decided_model() -> SGMForMultiLabelGeneration:
    """An untrained model with random but strong preferences, so that its label sets differ between texts."""
    model = make_model(initializer_range=2.0)
    with torch.no_grad():
        model.decoder.output.weight.mul_(6.0)
    return model
