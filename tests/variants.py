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
}
