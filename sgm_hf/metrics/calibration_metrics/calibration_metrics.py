"""`sgm_hf.metrics.compute_score_metrics` as a module of the `evaluate` library: evaluate.load(<this folder>)."""

# evaluate parses the imports below itself and knows only one module per line.
import datasets
import evaluate

from sgm_hf.metrics.calibration import compute_score_metrics
from sgm_hf.metrics.multilabel import multi_hot_matrix, score_matrix

_DESCRIPTION = """
Whether the label scores of multi-label classification are probabilities: expected calibration error over the pooled
scores of all labels, negative log-likelihood per document, Brier score, and the errors that were given no probability.
"""

_INPUTS = """
Args:
    predictions (`list` of `list` of `float`): Score of each label of each document, from 0 to 1.
    references (`list` of `list` of `int`): True labels of each document as a multi-hot row: 0 or 1 per label.
    minimum (`float`, default 0.01): Lowest score that enters the calibration error.
    num_bins (`int`, default 15): Bins of equal width of the calibration error.

Returns:
    A dictionary of floats: ece (NaN where no score reaches the minimum), nll (nats per document), brier (mean over
    documents and labels), certain_errors (labels per document that were given a probability of at most 1e-12).

Examples:
    >>> metric = evaluate.load("sgm_hf/metrics/calibration_metrics")
    >>> results = metric.compute(references=[[1, 0], [0, 1]], predictions=[[0.75, 0.0], [0.25, 1.0]])
    >>> round(results["brier"], 5)
    0.03125
"""

_CITATION = """
@inproceedings{guo2017calibration,
    title={On Calibration of Modern Neural Networks},
    author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
    booktitle={Proceedings of the 34th International Conference on Machine Learning},
    year={2017}
}
"""


class CalibrationMetrics(evaluate.Metric):
    """Calibration of label scores over multi-hot rows."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": datasets.List(datasets.Value("int32")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/1706.04599"],
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[int]],
        minimum: float = 0.01,
        num_bins: int = 15,
    ) -> dict[str, float]:
        truth = multi_hot_matrix("references", references)
        scores = score_matrix("predictions", predictions, truth.shape[1])
        return compute_score_metrics(truth, scores, minimum, num_bins)
