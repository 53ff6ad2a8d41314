"""What models are compared with: other classifiers, each behind `fit`, `predict_scores`, `save` and `load`."""

from sgm_hf.baselines.base import BASELINES, Baseline, Documents

__all__ = ["BASELINES", "Baseline", "Documents"]
