"""Tiny, randomly initialised encoders of Transformers."""

from transformers import (
    BertConfig,
    DebertaV2Config,
    ModernBertConfig,
    PreTrainedConfig,
    RobertaConfig,
    T5Config,
    ViTConfig,
)

VOCAB_SIZE = 40
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
WORDS = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": 24}
TEXT_ENCODERS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SIZES, **WORDS, **NO_DROPOUT, initializer_range=0.3),
    "roberta": RobertaConfig(**SIZES, **WORDS, **NO_DROPOUT, pad_token_id=1, initializer_range=0.3),
    "deberta": DebertaV2Config(
        **SIZES,
        **WORDS,
        **NO_DROPOUT,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        initializer_range=0.3,
    ),
    "modernbert": ModernBertConfig(
        **SIZES,
        **WORDS,
        pad_token_id=0,
        bos_token_id=2,
        cls_token_id=2,
        eos_token_id=3,
        sep_token_id=3,
        local_attention=8,
        initializer_range=0.3,
    ),
    "t5": T5Config(vocab_size=VOCAB_SIZE, d_model=12, d_kv=6, d_ff=16, num_layers=2, num_heads=2, dropout_rate=0.0),
}
VIT = ViTConfig(**SIZES, **NO_DROPOUT, image_size=8, patch_size=4, num_channels=3, initializer_range=0.3)
