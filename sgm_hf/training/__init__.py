"""Training SGM models and evaluating them by generation."""

from sgm_hf.training.arguments import SGMTrainingArguments
from sgm_hf.training.prediction import LabelPredictions, generate_predictions
from sgm_hf.training.trainer import SGMPredictionOutput, SGMTrainer

__all__ = ["LabelPredictions", "SGMPredictionOutput", "SGMTrainer", "SGMTrainingArguments", "generate_predictions"]
