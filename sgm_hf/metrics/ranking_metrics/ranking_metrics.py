"""`sgm_hf.metrics.compute_ranking_metrics` as a module of the `evaluate` library: evaluate.load(<this folder>)."""

# evaluate parses the imports below itself and knows only one module per line.
import datasets
import evaluate

from sgm_hf.metrics.multilabel import multi_hot_matrix, score_matrix
from sgm_hf.metrics.ranking import compute_ranking_metrics

_DESCRIPTION = """
How well label scores rank the labels of multi-label classification: P@k, nDCG@k, R-precision, label ranking average
precision, coverage error, ranking loss, and micro and macro average precision. Equal scores count as in scikit-learn.
"""

_INPUTS = """
Args:
    predictions (`list` of `list` of `float`): Score of each label of each document, higher for what is more likely.
    references (`list` of `list` of `int`): True labels of each document as a multi-hot row: 0 or 1 per label.
    k (`list` of `int`, default [1, 3, 5]): Cutoffs of P@k and nDCG@k.

Returns:
    A dictionary of floats: precision_at_k and ndcg_at_k for each k, r_precision (NaN where no document has labels),
    lrap, coverage_error, ranking_loss, micro_ap, macro_ap.

Examples:
    >>> metric = evaluate.load("sgm_hf/metrics/ranking_metrics")
    >>> results = metric.compute(references=[[1, 0, 0], [0, 1, 1]], predictions=[[0.7, 0.2, 0.1], [0.5, 0.9, 0.3]])
    >>> results["precision_at_1"], round(results["lrap"], 4)
    (1.0, 0.9167)
"""

_CITATION = """
@inproceedings{tsoumakas2010mining,
    title={Mining Multi-label Data},
    author={Tsoumakas, Grigorios and Katakis, Ioannis and Vlahavas, Ioannis},
    booktitle={Data Mining and Knowledge Discovery Handbook},
    year={2010}
}
"""


class RankingMetrics(evaluate.Metric):
    """Metrics of the ranking of labels by their scores, over multi-hot rows."""

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
            reference_urls=["https://scikit-learn.org/stable/modules/model_evaluation.html"],
        )

    def _compute(
        self, predictions: list[list[float]], references: list[list[int]], k: tuple[int, ...] = (1, 3, 5)
    ) -> dict[str, float]:
        truth = multi_hot_matrix("references", references)
        return compute_ranking_metrics(truth, score_matrix("predictions", predictions, truth.shape[1]), k)
