"""`sgm_hf.metrics.compute_metrics` as a module of the `evaluate` library: evaluate.load(<this folder>)."""

# evaluate parses the imports below itself and knows only one module per line.
import datasets
import evaluate

from sgm_hf.metrics.multilabel import compute_metrics, multi_hot_matrix

_DESCRIPTION = """
Metrics of multi-label classification in one pass: micro and macro precision, recall and F1 (both definitions of
macro-F1 in use), samples-F1, Hamming loss and subset zero-one loss.
"""

_INPUTS = """
Args:
    predictions (`list` of `list` of `int`): Predicted labels of each document as a multi-hot row: 0 or 1 per label.
    references (`list` of `list` of `int`): True labels, likewise. Multi-hot rows are what the `multilabel`
        configurations of evaluate's own f1, precision and recall take.

Returns:
    A dictionary of floats: micro_precision, micro_recall, micro_f1, macro_precision, macro_recall, macro_f1 (the mean
    of the labels' F1), macro_f1_of_means (the harmonic mean of macro_precision and macro_recall), samples_f1,
    hamming_loss, zero_one_loss.

Examples:
    >>> metric = evaluate.load("sgm_hf/metrics/multilabel_metrics")
    >>> results = metric.compute(references=[[1, 1, 0], [0, 0, 1]], predictions=[[1, 0, 0], [0, 0, 1]])
    >>> round(results["micro_f1"], 2)
    0.8
"""

_CITATION = """
@article{opitz2019macro,
    title={Macro F1 and Macro F1},
    author={Opitz, Juri and Burst, Sebastian},
    journal={arXiv preprint arXiv:1911.03347},
    year={2019}
}
"""


class MultilabelMetrics(evaluate.Metric):
    """Metrics of multi-label classification over multi-hot rows."""

    def _info(self) -> evaluate.MetricInfo:
        multi_hot = datasets.List(datasets.Value("int32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": multi_hot, "references": multi_hot}),
            reference_urls=["https://arxiv.org/abs/1911.03347"],
        )

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        return compute_metrics(
            multi_hot_matrix("references", references), multi_hot_matrix("predictions", predictions)
        )
