"""Multi-label text classification by sequence generation (SGM) on Hugging Face libraries.

Importing this package makes SGM models known to Transformers (`AutoModel`, `AutoTokenizer`,
`pipeline("multi-label-generation")`) and loads neither torch nor Transformers: every public name is loaded when it is
first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sgm_hf._registration import register_with_transformers

if TYPE_CHECKING:
    from sgm_hf.data.encoding import encode_dataset
    from sgm_hf.data.files import load_files
    from sgm_hf.data.labels import label_sets_of, order_label_names
    from sgm_hf.datasets_scripts import load as load_corpus
    from sgm_hf.metrics import compute_metrics, fit_threshold
    from sgm_hf.modeling.configuration_sgm import SGMConfig
    from sgm_hf.modeling.modeling_sgm import SGMForMultiLabelGeneration
    from sgm_hf.modeling.pipeline_sgm import MultiLabelGenerationPipeline
    from sgm_hf.modeling.tokenization_sgm import SGMTokenizer
    from sgm_hf.training import (
        OrderFreeTrainer,
        SamplingArguments,
        SelfCriticalTrainer,
        SGMTrainer,
        SGMTrainingArguments,
    )

__all__ = [
    "MultiLabelGenerationPipeline",
    "OrderFreeTrainer",
    "SGMConfig",
    "SGMForMultiLabelGeneration",
    "SGMTokenizer",
    "SGMTrainer",
    "SGMTrainingArguments",
    "SamplingArguments",
    "SelfCriticalTrainer",
    "compute_metrics",
    "encode_dataset",
    "fit_threshold",
    "label_sets_of",
    "load_corpus",
    "load_files",
    "order_label_names",
]

# Public name -> the module it is in and its name there.
_PUBLIC = {
    "MultiLabelGenerationPipeline": ("sgm_hf.modeling.pipeline_sgm", "MultiLabelGenerationPipeline"),
    "OrderFreeTrainer": ("sgm_hf.training", "OrderFreeTrainer"),
    "SGMConfig": ("sgm_hf.modeling.configuration_sgm", "SGMConfig"),
    "SGMForMultiLabelGeneration": ("sgm_hf.modeling.modeling_sgm", "SGMForMultiLabelGeneration"),
    "SGMTokenizer": ("sgm_hf.modeling.tokenization_sgm", "SGMTokenizer"),
    "SGMTrainer": ("sgm_hf.training", "SGMTrainer"),
    "SGMTrainingArguments": ("sgm_hf.training", "SGMTrainingArguments"),
    "SamplingArguments": ("sgm_hf.training", "SamplingArguments"),
    "SelfCriticalTrainer": ("sgm_hf.training", "SelfCriticalTrainer"),
    "compute_metrics": ("sgm_hf.metrics", "compute_metrics"),
    "encode_dataset": ("sgm_hf.data.encoding", "encode_dataset"),
    "fit_threshold": ("sgm_hf.metrics", "fit_threshold"),
    "label_sets_of": ("sgm_hf.data.labels", "label_sets_of"),
    "load_corpus": ("sgm_hf.datasets_scripts", "load"),
    "load_files": ("sgm_hf.data.files", "load_files"),
    "order_label_names": ("sgm_hf.data.labels", "order_label_names"),
}


def __getattr__(name: str) -> Any:
    """Load a public name at its first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    module, name_there = _PUBLIC[name]
    value = getattr(importlib.import_module(module), name_there)
    globals()[name] = value  # the next use finds it at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


register_with_transformers()
