"""Training SGM models and evaluating them by generation."""

from sgm_hf.training.arguments import SGMTrainingArguments
from sgm_hf.training.machine import prepare_cpu
from sgm_hf.training.prediction import LabelPredictions, generate_predictions
from sgm_hf.training.sampling import OrderFreeTrainer, SamplingArguments, SelfCriticalTrainer
from sgm_hf.training.trainer import SGMPredictionOutput, SGMTrainer
from sgm_hf.training.vectors import ppmi_vectors, set_word_vectors, vectors_from_file

__all__ = [
    "LabelPredictions",
    "OrderFreeTrainer",
    "SGMPredictionOutput",
    "SGMTrainer",
    "SGMTrainingArguments",
    "SamplingArguments",
    "SelfCriticalTrainer",
    "generate_predictions",
    "ppmi_vectors",
    "prepare_cpu",
    "set_word_vectors",
    "vectors_from_file",
]
