"""The model family: everything that travels to the Hub beside the weights."""

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
