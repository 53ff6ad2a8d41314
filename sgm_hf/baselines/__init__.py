"""What models are compared with: other classifiers, each behind `fit`, `predict_scores`, `save` and `load`."""

from sgm_hf.baselines.base import BASELINES, Baseline, Documents
from sgm_hf.baselines.decisions import Decision, fit_decision

__all__ = ["BASELINES", "Baseline", "Decision", "Documents", "fit_decision"]
