import torch
from transformers import BertConfig, BertTokenizer

from sgm_hf.modeling import MultiLabelGenerationPipeline, SGMConfig, SGMForMultiLabelGeneration
from sgm_hf.modeling.lexical_sgm import SGMLexicalBranch

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


def build_bert_pipeline() -> MultiLabelGenerationPipeline:
    """A pipeline around a tiny random BERT, whose tokenizer puts [CLS] and [SEP] around a text."""
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] cocoa coffee gold rose fell price week of the in ##s , .".split()
    tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(words)})
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    encoder = BertConfig(vocab_size=len(words), max_position_embeddings=12, initializer_range=1.0, **sizes)
    around = {"encoder": "pretrained", "encoder_config": encoder, "encoder_special_tokens": [1, 1]}
    torch.manual_seed(0)
    model = SGMForMultiLabelGeneration(
        SGMConfig(**around, decoder_hidden_size=10, num_labels=NUM_LABELS, initializer_range=1.0)
    )
    return MultiLabelGenerationPipeline(model=model, tokenizer=tokenizer, device="cpu")


@torch.no_grad()
def shake(model):
    """Moves all parameters of a model: biases start at 0 or 1, the padding word at 0, and could hide a fault."""
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype), alpha=0.3)
    return model


def give_branch(model, seed: int = 1, **generation):
    """Gives a model that has place for a lexical branch one of random weights, and entries of a generation config."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    branch = SGMLexicalBranch(config.vocab_size, config.num_labels, config.lexical_bigrams)
    num_features = len(branch.scale)
    branch.scale = torch.rand(num_features, generator=generator) + 0.5
    branch.weight = 2 * torch.randn(num_features, config.num_labels, generator=generator)
    branch.bias = torch.randn(config.num_labels, generator=generator) - 1.0
    pairs = torch.randperm(config.vocab_size**2, generator=generator)[: config.lexical_bigrams]
    branch.bigrams = pairs.sort().values
    model.set_lexical_branch(branch, "some documents")
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    return model
