"""Metrics of multi-label classification, in numpy and as modules of the `evaluate` library."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .calibration import calibration_bins, compute_score_metrics, expected_calibration_error
from .hierarchical import compute_hierarchical_metrics
from .multilabel import (
    compute_metrics,
    f1_by_frequency,
    fit_threshold,
    frequency_bands,
    label_report,
    mean_position_deviation,
    metrics_by_set_size,
)
from .ranking import compute_ranking_metrics

if TYPE_CHECKING:
    from evaluate import EvaluationModule

__all__ = [
    "calibration_bins",
    "compute_hierarchical_metrics",
    "compute_metrics",
    "compute_ranking_metrics",
    "compute_score_metrics",
    "expected_calibration_error",
    "f1_by_frequency",
    "fit_threshold",
    "frequency_bands",
    "label_report",
    "load_metric",
    "mean_position_deviation",
    "metrics_by_set_size",
]

# Folders of modules of the `evaluate` library, without "_metrics".
MODULES = ("multilabel", "calibration", "ranking")


def load_metric(name: str = "multilabel", **load_arguments: Any) -> "EvaluationModule":
    """Load our metrics as a module of the `evaluate` library, without a network.

    Args:
        name: "multilabel" for `compute_metrics`: its `compute(references=..., predictions=...)` takes multi-hot rows,
            as `evaluate.load("f1", "multilabel")` does. "calibration" for `compute_score_metrics` and
            "ranking" for `compute_ranking_metrics`: there the predictions are rows of label scores. Each returns the
            dictionary of its function.
        **load_arguments: Those of `evaluate.load`, e.g. `cache_dir`.

    Raises:
        ValueError: If there is no such module.
    """
    import evaluate  # here, because it takes seconds to import and the functions do not need it

    if name not in MODULES:
        raise ValueError(f"there is no metric {name!r}; give one of {', '.join(map(repr, MODULES))}.")
    return evaluate.load(str(Path(__file__).with_name(f"{name}_metrics")), **load_arguments)
