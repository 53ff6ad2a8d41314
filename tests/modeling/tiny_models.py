import torch

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration

NUM_LABELS = 3


def build_model(seed: int = 0, **settings) -> SGMForMultiLabelGeneration:
    """A tiny model in evaluation mode whose output weights are large enough for clear preferences."""
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 40,
        "embedding_size": 8,
        "encoder_hidden_size": 6,
        "decoder_hidden_size": 10,
        "attention_size": 7,
        "num_labels": NUM_LABELS,
        "initializer_range": 1.0,
    }
    model = SGMForMultiLabelGeneration(SGMConfig(**(sizes | settings))).eval()
    with torch.no_grad():
        model.decoder.output.weight.mul_(4.0)
    return model


@torch.no_grad()
def shake(model):
    """Moves all parameters of a model: biases start at 0 or 1, the padding word at 0, and could hide a fault."""
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype), alpha=0.3)
    return model
