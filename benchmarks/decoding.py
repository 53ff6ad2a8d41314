"""The models that the benchmarks of decoding compare: ours and the textbook model, with the same weights."""

import argparse
from typing import Any

import harness
import torch
from textbook import TextbookSGM, copy_weights

from sgm_hf import SGMForMultiLabelGeneration


def load_model(arguments: argparse.Namespace, **settings: Any) -> SGMForMultiLabelGeneration:
    """The trained model that the command line names, or one whose label sets are as large as those of the corpus.

    Args:
        arguments: The command line.
        **settings: Of the configuration; those of a lexical branch give a trained model one without weights.
    """
    if arguments.model_name_or_path is not None:
        options = {"ignore_mismatched_sizes": True} if settings else {}
        model = SGMForMultiLabelGeneration.from_pretrained(arguments.model_name_or_path, **settings, **options)
        return model.eval().to(arguments.device)
    torch.manual_seed(0)
    size, config = harness.SIZES[arguments.size], harness.model_config(arguments.size, **settings)
    model = SGMForMultiLabelGeneration(config).eval()
    with torch.no_grad():
        # The labels of an untrained model are almost equally likely: with this bias, a set ends after `mean_labels`.
        model.decoder.output.bias[config.eos_label_id] = torch.tensor(config.num_labels / size.mean_labels).log()
    return model


def load_textbook(arguments: argparse.Namespace, packed: bool) -> TextbookSGM:
    """The textbook model with the weights of `load_model`."""
    model = load_model(arguments)
    textbook = TextbookSGM(model.config, packed).eval()
    copy_weights(model, textbook)
    return textbook
