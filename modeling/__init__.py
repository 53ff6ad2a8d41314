"""The model family: everything that travels to the Hub beside the weights.

Each name is loaded when it is first used: `import sgm_hf` registers the configuration while Transformers is still
importing itself, so that this package must not import the model.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_sgm import SGMConfig
    from .constraints_sgm import LabelConstraints
    from .label_sets_sgm import label_sets_from_sequences, select_labels
    from .modeling_sgm import SGMForMultiLabelGeneration, SGMPreTrainedModel
    from .pipeline_sgm import MultiLabelGenerationPipeline
    from .tokenization_sgm import SGMTokenizer

__all__ = [
    "LabelConstraints",
    "MultiLabelGenerationPipeline",
    "SGMConfig",
    "SGMForMultiLabelGeneration",
    "SGMPreTrainedModel",
    "SGMTokenizer",
    "label_sets_from_sequences",
    "select_labels",
]

_MODULE_OF = {
    "LabelConstraints": "constraints_sgm",
    "MultiLabelGenerationPipeline": "pipeline_sgm",
    "SGMConfig": "configuration_sgm",
    "SGMForMultiLabelGeneration": "modeling_sgm",
    "SGMPreTrainedModel": "modeling_sgm",
    "SGMTokenizer": "tokenization_sgm",
    "label_sets_from_sequences": "label_sets_sgm",
    "select_labels": "label_sets_sgm",
}


def __getattr__(name: str) -> Any:
    """Load a name at its first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_MODULE_OF)}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value  # the next use finds it at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
