"""The variants of the model, each as what it changes in the configuration of a tiny one."""

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "SGM": {},
    "context of the same step": {"context_input": "current"},
    "context of the same step, global embedding": {
        "context_input": "current",
        "label_feedback": "global_embedding",
        "decoder_layers": 2,
    },
    "GRU": {"encoder_cell": "gru", "cell": "gru", "encoder_layers": 2, "decoder_layers": 2},
    "self-attention": {"encoder": "self_attentive"},
    "self-attention, GRU in one direction": {
        "encoder": "self_attentive",
        "encoder_bidirectional": False,
        "encoder_cell": "gru",
        "encoder_layers": 2,
    },
    "label attention": {"label_attention": True},
    "label attention alone": {"attention": "none", "label_attention": True},
    "SGM-MLC": {"encoder": "self_attentive", "encoder_cell": "gru", "cell": "gru", "label_attention": True},
    "SGM-MLC, context of the same step, global embedding": {
        "encoder": "self_attentive",
        "label_attention": True,
        "context_input": "current",
        "label_feedback": "global_embedding",
        "label_embedding_size": 5,
    },
    "bilinear attention": {"attention": "bilinear", "context_input": "current"},
    "semantic units": {"encoder": "semantic_units", "attention": "semantic", "context_input": "current"},
    "semantic units and words, added": {"encoder": "semantic_units", "attention": "additive", "unit_kernel_size": 2},
    "semantic units, then words": {"encoder": "semantic_units", "attention": "hybrid", "context_input": "current"},
    "sentences of two words": {"encoder": "hierarchical", "sentence_length": 2, "attention": "bilinear"},
    "sentences with ends": {"encoder": "hierarchical", "sentence_end_ids": [*range(3, 40, 3)]},
}
