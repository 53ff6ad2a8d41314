"""A pipeline with random weights and labels of any name, for the tests of the page."""

from collections.abc import Sequence

import torch

from sgm_hf.modeling import MultiLabelGenerationPipeline, SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer

WORDS = "cocoa coffee oil gold rose fell price week of the in"
TEXTS = [
    "Cocoa rose.",
    "the price of coffee and cocoa fell in the week of gold , oil and the price of the oil",
    "oil rose in the week in which the price of gold fell",
    "coffee fell , the oil price rose",
]


def build_pipeline(
    names: Sequence[str] = ("cocoa", "coffee", "oil", "gold"), **settings
) -> MultiLabelGenerationPipeline:
    """A pipeline with clear preferences that differ from text to text; the first label is always among them."""
    tokenizer = SGMTokenizer.train_from_texts([WORDS, ", ."], model_max_length=100)
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(tokenizer),
        "embedding_size": 8,
        "encoder_hidden_size": 6,
        "encoder_layers": 1,
        "decoder_hidden_size": 10,
        "id2label": dict(enumerate(names)),
        "initializer_range": 1.0,
    }
    model = SGMForMultiLabelGeneration(SGMConfig(**(sizes | settings)))
    with torch.no_grad():
        model.decoder.output.weight.mul_(3.0)
        model.decoder.output.bias[0] = 30.0
        model.decoder.output.bias[len(names)] = 1.0  # eos
    return MultiLabelGenerationPipeline(model=model, tokenizer=tokenizer, device="cpu")
