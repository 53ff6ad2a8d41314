"""Metrics of multi-label classification.

`multilabel` holds the maths, in numpy. `multilabel_metrics/` is the same as a module of the `evaluate` library.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .multilabel import compute_metrics, fit_threshold, label_report

if TYPE_CHECKING:
    from evaluate import EvaluationModule

__all__ = ["compute_metrics", "fit_threshold", "label_report", "load_metric"]


def load_metric(**load_arguments: Any) -> "EvaluationModule":
    """Load `compute_metrics` as a module of the `evaluate` library, from this package and without a network.

    Its inputs are multi-hot rows, as those of `evaluate.load("f1", "multilabel")`.

    Args:
        **load_arguments: Passed on to `evaluate.load`, e.g. `cache_dir`, `keep_in_memory`, `num_process`.

    Returns:
        The metric. Its `compute(references=..., predictions=...)` returns the dictionary of `compute_metrics`.
    """
    import evaluate  # here, because it takes seconds to import and compute_metrics does not need it

    return evaluate.load(str(Path(__file__).with_name("multilabel_metrics")), **load_arguments)
