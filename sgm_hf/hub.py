"""The model card: what a repository on the Hub says of a model, for readers and (its metadata) for the Hub."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS

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
# A line of metadata has one value: that of the set decoding which the pipeline uses.
UNNAMED_DATA = "unnamed data"

CITATION = """```bibtex
@inproceedings{yang2018sgm,
  title = {{SGM}: Sequence Generation Model for Multi-Label Classification},
  author = {Yang, Pengcheng and Sun, Xu and Li, Wei and Ma, Shuming and Wu, Wei and Wang, Houfeng},
  booktitle = {Proceedings of the 27th International Conference on Computational Linguistics},
  pages = {3915--3926},
  year = {2018}
}
```"""


@dataclass
class CardFacts:
    """What a model card tells.

    Args:
        name: Name of the model.
        repository: Its repository on the Hub, or the folder to load it from.
        labels: Names of the labels in the order of their ids.
        data: Counts of the training data, by what is counted.
        settings: Model, generation and training settings: a table each, by title.
        versions: Version of each package.
        results: Metrics of each split; those of a set decoding begin with its name.
        max_words: Words after which texts are cut.
        trainer: Name of the trainer's class; None if this model was only evaluated.
        dataset_names: Titles of the data sets, for readers.
        dataset_ids: Their names on the Hub.
        dataset_configs: Their configurations.
        language: ISO 639 codes.
        license: The model's licence, as the Hub names it.
        tags: Further tags.
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
    trainer: str | None = None
    dataset_names: Sequence[str] = ()
    dataset_ids: Sequence[str] = ()
    dataset_configs: Sequence[str] = ()
    language: Sequence[str] = ()
    license: str | None = None
    tags: Sequence[str] = field(default_factory=tuple)
    base_model: str | None = None


def make_model_card(facts: CardFacts) -> ModelCard:
    """Write a model card.

    Args:
        facts: What it tells.

    Returns:
        The card, with metadata and text.
    """
    sections = (
        _introduction(facts),
        _use(facts),
        _labels(facts),
        _training_data(facts),
        _results(facts),
        _settings(facts),
        _limits(facts),
        f"## Citation\n\n{CITATION}",
    )
    metadata = card_metadata(facts).to_yaml()
    return ModelCard(f"---\n{metadata}\n---\n\n" + "\n\n".join(sections) + "\n")


def card_metadata(facts: CardFacts) -> ModelCardData:
    """The card's metadata, with the results in the Hub's model-index form.

    Args:
        facts: What the card tells.
    """
    results = [result for split in facts.results for result in eval_results(facts, split)]
    return ModelCardData(
        language=list(facts.language) or None,
        license=facts.license,
        library_name="transformers",
        # The Hub has no task for label sets; the pipeline's own name is in the text.
        pipeline_tag="text-classification",
        tags=[*TAGS, *facts.tags],
        datasets=list(facts.dataset_ids) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        base_model=facts.base_model,
        model_name=facts.name,
        eval_results=results or None,
    )


def eval_results(facts: CardFacts, split: str) -> list[EvalResult]:
    """The results of one split as the Hub's records.

    Args:
        facts: What the card tells.
        split: One of its splits.
    """
    name = ", ".join(facts.dataset_names) or UNNAMED_DATA
    identifier = facts.dataset_ids[0] if facts.dataset_ids else re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return [
        EvalResult(
            task_type="text-classification",
            task_name="Multi-label text classification",
            dataset_type=identifier or "unnamed-data",
            dataset_name=name,
            dataset_config=facts.dataset_configs[0] if facts.dataset_configs else None,
            dataset_split=split,
            metric_type=kind,
            metric_name=title,
            metric_value=round(float(facts.results[split][metric]), 4),
        )
        for metric, kind, title in METRICS
        if metric in facts.results[split]
    ]


def _introduction(facts: CardFacts) -> str:
    """What the model is."""
    data = f" on {', '.join(facts.dataset_names)}" if facts.dataset_names else ""
    start = f", starting from `{facts.base_model}`" if facts.base_model else ""
    training = f" It was trained{data} with the `{facts.trainer}` of sgm_hf{start}." if facts.trainer else ""
    return (
        f"# {facts.name}\n\n"
        f"This model reads a text and generates its set of labels one by one, so that each of the {len(facts.labels)} "
        f"labels is chosen in the light of those before it (SGM, Yang et al. 2018).{training}"
    )


def _use(facts: CardFacts) -> str:
    """How to load and use the model."""
    return f"""## Use

With the package sgm_hf:

```python
import sgm_hf
from transformers import pipeline

classifier = pipeline("multi-label-generation", model="{facts.repository}")
classifier("A text.")  # [{{"label": ..., "score": ...}}, ...]: the labels in the order they were generated
classifier(["One text.", "Another."], max_labels=2, return_attention=True)
```

Without it the repository runs its own code, which needs torch and transformers {facts.versions["transformers"]}. Read
the code first, then trust it:

```python
classifier = pipeline("multi-label-generation", model="{facts.repository}", trust_remote_code=True)
```

`AutoModel` and `AutoTokenizer` load it too. `handler.py` serves it on an Inference Endpoint."""


def _labels(facts: CardFacts) -> str:
    """All labels."""
    return f"## Labels\n\n{len(facts.labels)} labels: " + ", ".join(_code(label) for label in facts.labels) + "."


def _training_data(facts: CardFacts) -> str:
    """What the model learnt from."""
    lines = ["## Training data", ""]
    if facts.dataset_names or facts.dataset_ids:
        links = [f"[{name}](https://huggingface.co/datasets/{name})" for name in facts.dataset_ids]
        lines += [", ".join([*facts.dataset_names, *links]) + ".", ""]
    return (
        "\n".join(lines + _table(("count", "value"), facts.data.items()))
        if facts.data
        else "\n".join([*lines, "Not recorded."])
    )


def _results(facts: CardFacts) -> str:
    """The metrics of every split, a column a set decoding."""
    lines = ["## Results"]
    for split, metrics in facts.results.items():
        rows = [
            (title, *(_number(metrics.get(f"{decoding}_{name}")) for decoding in SET_DECODINGS))
            for name, _, title in METRICS
            if f"{SET_DECODINGS[0]}_{name}" in metrics
        ]
        if rows:
            lines += ["", f"On the {split} split:", "", *_table(("metric", *map(_code, SET_DECODINGS)), rows)]
    if len(lines) == 1:
        return "## Results\n\nNot evaluated."
    chosen = facts.settings.get("Generation", {}).get("set_decoding", SET_DECODINGS[0])
    lines += [
        "",
        "`best_sequence` takes the most probable sequence of labels, `threshold` all labels whose score reaches the "
        "threshold (for the micro-F1 of a corpus), `expected_f1` the set of greatest expected F1 of each text. The "
        f"pipeline uses `{chosen}` unless told otherwise.",
    ]
    return "\n".join(lines)


def _settings(facts: CardFacts) -> str:
    """Model, generation, training and versions as tables."""
    lines = ["## Settings"]
    for title, values in {**facts.settings, "Versions": facts.versions}.items():
        given = [(_code(name), _code(_number(value))) for name, value in values.items() if value is not None]
        if given:
            lines += [
                "",
                f"### {title}",
                "",
                *_table(("setting" if title != "Versions" else "package", "value"), given),
            ]
    return "\n".join(lines)


def _limits(facts: CardFacts) -> str:
    """What the model cannot do."""
    cut = f" Texts are cut after {facts.max_words:,} words." if facts.max_words else ""
    return f"""## Limits

- It knows the labels above and no others, and the words of its training data; other words are all alike to it.{cut}
- The score of a label is the share of the beam's probability that lies on label sequences with it. It is 1 where all
  of them have the label, and it is not calibrated.
- It learnt from its training data alone. On texts of another kind, time or language, results will be worse than above;
  what is wrong or one-sided in the labels of the data, it repeats."""


def _code(text: Any) -> str:
    """A text as code in Markdown, where HTML in it is shown and not run."""
    shown = str(text).replace("\n", " ")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def _number(value: Any) -> str:
    """A value for a table: floats with at most four significant digits."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(titles: Sequence[str], rows: Any) -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return lines + ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
