"""The model family: everything that travels to the Hub beside the weights."""

from .configuration_sgm import SGMConfig
from .generation_sgm import LabelConstraints, label_sets_from_sequences, select_labels
from .modeling_sgm import SGMForMultiLabelGeneration, SGMPreTrainedModel
from .tokenization_sgm import SGMTokenizer

__all__ = [
    "LabelConstraints",
    "SGMConfig",
    "SGMForMultiLabelGeneration",
    "SGMPreTrainedModel",
    "SGMTokenizer",
    "label_sets_from_sequences",
    "select_labels",
]
