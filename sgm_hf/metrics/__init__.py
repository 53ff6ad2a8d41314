"""Metrics of multi-label classification, in numpy and as a module of the `evaluate` library."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .multilabel import compute_metrics, fit_threshold, label_report

if TYPE_CHECKING:
    from evaluate import EvaluationModule

__all__ = ["compute_metrics", "fit_threshold", "label_report", "load_metric"]


def load_metric(**load_arguments: Any) -> "EvaluationModule":
    """Load `compute_metrics` as a module of the `evaluate` library, without a network.

    Its `compute(references=..., predictions=...)` takes multi-hot rows, as `evaluate.load("f1", "multilabel")` does,
    and returns the dictionary of `compute_metrics`. `load_arguments` are those of `evaluate.load`, e.g. `cache_dir`.
    """
    import evaluate  # here, because it takes seconds to import and compute_metrics does not need it

    return evaluate.load(str(Path(__file__).with_name("multilabel_metrics")), **load_arguments)
