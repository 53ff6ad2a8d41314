"""The model card: what a repository on the Hub says about a model, for readers and (its metadata) for the Hub."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.tables import markdown_table, span

TEMPLATE = Path(__file__).with_name("model_card_template.md")
TAGS = ("sgm", "multi-label-classification", "sequence-generation")

# Metric of ours, its identifier on the Hub, and its title.
METRICS = (
    ("micro_f1", "f1", "Micro F1"),
    ("micro_precision", "precision", "Micro precision"),
    ("micro_recall", "recall", "Micro recall"),
    ("macro_f1", "f1", "Macro F1"),
    ("samples_f1", "f1", "Samples F1"),
    ("hamming_loss", "hamming_loss", "Hamming loss"),
    ("zero_one_loss", "zero_one_loss", "0/1 loss"),
)
# Those of the label scores, which no set decoding changes.
SCORE_METRICS = (
    ("ece", "expected_calibration_error", "Expected calibration error"),
    ("nll", "negative_log_likelihood", "Negative log-likelihood, nats per text"),
    ("brier", "brier_score", "Brier score"),
    ("certain_errors", "certain_errors", "Certain errors per text"),
)

# What label sets are made for, by objective.
OBJECTIVES = {
    "micro_f1": "the micro-F1 of a corpus: each decision on a label counts alike",
    "macro_f1": "the macro-F1 of a corpus: each label counts alike, however rare",
    "exact_match": "the share of texts whose whole set is right (lowest 0/1 loss)",
    "hamming": "the fewest wrong decisions on labels (lowest Hamming loss)",
    "expected_f1": "the F1 of each text",
}


@dataclass
class CardFacts:
    """What a model card says.

    Args:
        name: Name of the model.
        repository: Its repository on the Hub, or the folder to load it from.
        labels: Names of the labels in the order of their ids.
        data: Counts of the training data.
        settings: Model, generation and training settings: a table each, by title.
        versions: Version of each package.
        results: Metrics of each split; those of a set decoding begin with its name.
        max_words: Words after which texts are cut.
        images: Whether the model reads images, and not texts.
        trainer: Name of the trainer's class; None if this model was only evaluated.
        dataset_names: Titles of the data sets, for readers.
        dataset_ids: Their names on the Hub.
        dataset_configs: Their configurations.
        language: ISO 639 codes.
        license: The model's licence, as the Hub names it.
        tags: Tags in addition to `TAGS`.
        base_model: The model that training started from.
    """

    name: str
    repository: str
    labels: Sequence[str]
    data: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    results: Mapping[str, Mapping[str, float]]
    max_words: int | None = None
    images: bool = False
    trainer: str | None = None
    dataset_names: Sequence[str] = ()
    dataset_ids: Sequence[str] = ()
    dataset_configs: Sequence[str] = ()
    language: Sequence[str] = ()
    license: str | None = None
    tags: Sequence[str] = field(default_factory=tuple)
    base_model: str | None = None


def make_model_card(facts: CardFacts) -> ModelCard:
    """Fill in the template of the model card, text and metadata."""
    item = "image" if facts.images else "text"
    results = {
        split: [
            (title, *(_number(metrics.get(f"{decoding}_{name}")) for decoding in SET_DECODINGS))
            for name, _, title in METRICS
            if f"{SET_DECODINGS[0]}_{name}" in metrics
        ]
        for split, metrics in facts.results.items()
    }
    score_results = {
        split: [
            (title.replace("text", item), _number(metrics[name]))
            for name, _, title in SCORE_METRICS
            if name in metrics
        ]
        for split, metrics in facts.results.items()
    }
    settings = {
        title: [(_code(name), _code(_number(value))) for name, value in values.items() if value is not None]
        for title, values in {**facts.settings, "Versions": facts.versions}.items()
    }
    return ModelCard.from_template(
        card_metadata(facts),
        template_path=str(TEMPLATE),
        facts=facts,
        results={split: rows for split, rows in results.items() if rows},
        score_results=score_results,
        settings={title: rows for title, rows in settings.items() if rows},
        model=facts.settings.get("Model", {}),
        generation=facts.settings.get("Generation", {}),
        objectives={name: purpose.replace("text", item) for name, purpose in OBJECTIVES.items()},
        decodings=[_code(decoding) for decoding in SET_DECODINGS],
        code=_code,
        table=markdown_table,
        item=item,
    )


def card_metadata(facts: CardFacts) -> ModelCardData:
    """The card's metadata, with the results in the Hub's model-index form."""
    item = "image" if facts.images else "text"
    name = ", ".join(facts.dataset_names) or "unnamed data"
    identifier = facts.dataset_ids[0] if facts.dataset_ids else re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    results = [
        EvalResult(
            task_type=f"{item}-classification",
            task_name=f"Multi-label {item} classification",
            dataset_type=identifier or "unnamed-data",
            dataset_name=name,
            dataset_config=facts.dataset_configs[0] if facts.dataset_configs else None,
            dataset_split=split,
            metric_type=kind,
            metric_name=title.replace("text", item),
            # Without the name of a set decoding: that of the decoding which the pipeline uses.
            metric_value=round(float(metrics[metric]), 4),
        )
        for split, metrics in facts.results.items()
        for metric, kind, title in (*METRICS, *SCORE_METRICS)
        if math.isfinite(metrics.get(metric, math.nan))
    ]
    return ModelCardData(
        language=list(facts.language) or None,
        license=facts.license,
        library_name="transformers",
        # The Hub has no task for label sets; the pipeline's own name is in the text.
        pipeline_tag=f"{item}-classification",
        tags=[*TAGS, *facts.tags],
        datasets=list(facts.dataset_ids) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        base_model=facts.base_model,
        model_name=facts.name,
        eval_results=results or None,
    )


def _code(text: Any) -> str:
    """A text as code in Markdown, where HTML in it is shown and not run."""
    shown = str(text).replace("\n", " ")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def _number(value: Any) -> str:
    """A value for a table: floats with at most four significant digits, many of them as a span."""
    if value is None:
        return "–"
    if isinstance(value, list | tuple) and value and all(isinstance(one, float) for one in value):
        return span(value) if len(value) > 5 else ", ".join(map(_number, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
