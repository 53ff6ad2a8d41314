"""The results of a run: metrics and predictions of its splits, summary, attention maps, model card."""

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from huggingface_hub import DatasetCard

from sgm_hf.analysis.attention import attention_page, label_attention, plot_attention
from sgm_hf.data.labels import label_sets_of
from sgm_hf.data.lines import read_json_lines
from sgm_hf.datasets_scripts import CORPORA
from sgm_hf.datasets_scripts.convert import CARDS
from sgm_hf.metrics import calibration_bins
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.programs.settings import DataArguments, ModelArguments
from sgm_hf.training import LabelPredictions, SGMTrainer, SGMTrainingArguments
from sgm_hf.training.checkpoints import write_text_atomically
from sgm_hf.training.summary import (
    TRAINING_FIELDS,
    describe_generation,
    describe_machine,
    describe_model,
    describe_training,
    epoch_history,
    package_versions,
    summary_text,
    write_summary,
)

logger = logging.getLogger(__name__)

Arguments = tuple[ModelArguments, DataArguments, SGMTrainingArguments]


def score_splits(
    trainer: SGMTrainer, raw: dict[str, Dataset], encoded: dict[str, Dataset], write: bool
) -> dict[str, dict]:
    """Evaluate the validation split (--do_eval) and predict the test split (--do_predict), else the validation split.

    Args:
        trainer: Has the model.
        raw: The splits as loaded.
        encoded: The splits as encoded.
        write: Whether to write the reliability diagram `reliability_<split>.png` and `.svg`, where matplotlib is
            installed, and `predictions_<split>.jsonl`, where --do_predict asks for it.

    Returns:
        The metrics of each split, without a prefix.
    """
    wanted = {"validation": trainer.args.do_eval, "test": False}
    wanted["test" if "test" in encoded else "validation"] |= trainer.args.do_predict
    names = [trainer.model.config.id2label[label] for label in range(trainer.model.config.num_labels)]
    metrics = {}
    for split in (split for split in wanted if wanted[split] and split in encoded):
        output = trainer.predict(encoded[split], metric_key_prefix=split)
        metrics[split] = {name.removeprefix(f"{split}_"): value for name, value in output.metrics.items()}
        if write and trainer.is_world_process_zero():
            draw_reliability(output.references, output.predictions, split, trainer.args.output_dir)
        if write and trainer.args.do_predict and trainer.is_world_process_zero():
            path = Path(trainer.args.output_dir, f"predictions_{split}.jsonl")
            decodings = {decoding: trainer.label_sets(output.predictions, decoding) for decoding in SET_DECODINGS}
            write_predictions(path, raw[split], output.label_sets, decodings, output.predictions.label_scores, names)
            logger.info("predictions written to %s", path)
    return metrics


def write_predictions(
    path: Path,
    dataset: Dataset,
    label_sets: Sequence[Sequence[int]],
    decodings: Mapping[str, Sequence[Sequence[int]]],
    scores: np.ndarray,
    names: Sequence[str],
) -> None:
    """Write one JSON line per document: id, chosen labels with their scores, gold labels, those of each decoding.

    Args:
        path: The file.
        dataset: The N documents as they were before encoding.
        label_sets: Chosen label ids of each document.
        decodings: Those of each set decoding.
        scores: Of the L labels, (N, L).
        names: Label names by id.
    """
    gold = label_sets_of(dataset) if "labels" in dataset.column_names else None
    ids = dataset["id"] if "id" in dataset.column_names else range(len(dataset))
    lines = []
    for row, document in enumerate(ids):
        labels = label_sets[row]
        record = {
            "id": document,
            "labels": [names[label] for label in labels],
            "scores": [round(float(scores[row, label]), 6) for label in labels],
            **({"gold": gold[row]} if gold is not None else {}),
            **{decoding: [names[label] for label in sets[row]] for decoding, sets in decodings.items()},
        }
        lines.append(json.dumps(record, ensure_ascii=False))
    write_text_atomically(path, "\n".join(lines) + "\n")


def draw_reliability(
    references: np.ndarray | None, predictions: LabelPredictions, split: str, output_dir: str | Path
) -> None:
    """Draw into `reliability_<split>` how far label scores are probabilities; not without labels, or matplotlib."""
    if references is None or find_spec("matplotlib") is None:
        return
    from sgm_hf.analysis.figures import plot_reliability  # needs matplotlib

    bins = calibration_bins(references, predictions.label_scores_of(references.shape[1]))
    if any(row["count"] for row in bins):
        plot_reliability(bins, Path(output_dir, f"reliability_{split}"), f"Label scores, {split} split")


def draw_attention(trainer: SGMTrainer, splits: dict[str, Dataset], data_args: DataArguments) -> None:
    """Draw the attention of the first predicted documents into `attention_<split>`: `1.html`, `1.png`, `1.svg`, …

    Args:
        trainer: The trainer that wrote the predictions.
        splits: The splits as loaded.
        data_args: Number of documents, and length at which they were cut.
    """
    split = "test" if "test" in splits else "validation"
    output_dir = Path(trainer.args.output_dir)
    folder = output_dir / f"attention_{split}"
    folder.mkdir(exist_ok=True)
    count = min(data_args.attention_figures, len(splits[split]))
    records = islice(read_json_lines(output_dir / f"predictions_{split}.jsonl"), count)
    for number, (text, (_, record)) in enumerate(zip(splits[split]["text"][:count], records, strict=True), start=1):
        label_ids = [trainer.model.config.label2id[label] for label in record["labels"]]
        attention = label_attention(trainer.model, trainer.processing_class, text, label_ids, data_args.max_length)
        entries = zip(record["labels"], record["scores"], attention, strict=True)
        prediction = [{"label": label, "score": score, "attention": words} for label, score, words in entries]
        title = f"Document {record['id']}"
        if "gold" in record:
            title += f", true labels: {', '.join(record['gold']) or 'none'}"
        write_text_atomically(folder / f"{number}.html", attention_page(text, prediction, title))
        if any(attention):
            plot_attention(prediction, folder / str(number), title)
    logger.info("attention of %d documents drawn into %s", count, folder)


def summarise(
    arguments: Arguments,
    trainer: SGMTrainer,
    splits: dict[str, Dataset],
    train_metrics: dict[str, float],
    metrics: dict[str, dict],
) -> dict[str, Any]:
    """What `summary.json` has: data, model, settings, training, machine, versions, metrics and history of a run."""
    model_args, data_args, training_args = arguments
    given = {**vars(model_args), **vars(data_args)}
    trained = training_args.to_dict() if training_args.do_train else {}
    return {
        "data": {
            "name": data_args.dataset_name or data_args.train_file or data_args.test_file or data_args.validation_file,
            **{f"{split}_documents": len(dataset) for split, dataset in splits.items()},
        },
        "model": describe_model(trainer.model),
        "generation": describe_generation(trainer.model),
        "settings": {name: value for name, value in given.items() if value is not None}
        | {"precision": training_args.precision}
        | {name: value for name, value in trained.items() if name in TRAINING_FIELDS},
        "training": describe_training(trainer.state, train_metrics, trainer.resumptions),
        "machine": describe_machine(),
        "versions": package_versions(),
        "metrics": metrics,
        "history": epoch_history(trainer.state.log_history),
    }


def report(
    arguments: Arguments,
    trainer: SGMTrainer,
    splits: dict[str, Dataset],
    encoded: dict[str, Dataset],
    train_metrics: dict[str, float],
    metrics: dict[str, dict],
    before: dict[str, dict] | None = None,
) -> None:
    """On the main process, write results and summary, draw the attention if asked, and print the summary.

    The files are `all_results.json` (flat, as Transformers' examples write it), `summary.json` and `summary.txt`.

    Args:
        arguments: The settings.
        trainer: The trainer, which has trained and predicted.
        splits: The splits as loaded.
        encoded: The splits as encoded.
        train_metrics: The metrics of the training.
        metrics: The metrics of each split.
        before: Those of the checkpoint that training continued from, if they were measured.
    """
    if not trainer.is_world_process_zero():
        return
    summary = summarise(arguments, trainer, encoded, train_metrics, metrics)
    if before is not None:
        summary["metrics_before"] = before
        metrics = {f"before_{split}": values for split, values in before.items()} | metrics
    flat = dict(train_metrics)
    for split, values in metrics.items():
        flat |= {f"{split}_{name}": value for name, value in values.items()}
    output_dir, data_args = Path(trainer.args.output_dir), arguments[1]
    write_text_atomically(output_dir / "all_results.json", json.dumps(flat, indent=2) + "\n")
    write_summary(summary, output_dir)
    if data_args.attention_figures:
        draw_attention(trainer, splits, data_args)
    print(summary_text(summary))


def say_what_comes_next(output_dir: str) -> None:
    """Print the command that labels texts with the model of a finished training."""
    print(f"\nThe model is in {output_dir}. Label new texts with it:")
    print(f"  sgm-hf predict {shlex.quote(output_dir)} new.csv")


def publish(trainer: SGMTrainer, data_args: DataArguments) -> None:
    """Write the model card of a trained model; with --push_to_hub send it, the model and the results to the Hub.

    The card names a corpus by its title, a data set by its name, and the user's files by the name of the first.
    """
    if not (trainer.args.push_to_hub or trainer.args.do_train):
        return
    if data_args.dataset_name is None:
        file = data_args.train_file or data_args.test_file or data_args.validation_file
        data: dict[str, Any] = {"dataset": Path(str(file)).stem}
    elif data_args.dataset_name not in CORPORA:
        name = data_args.dataset_name
        data = {"dataset": Path(name).name, "dataset_args": data_args.dataset_config}
        data["dataset_tags"] = None if Path(name).exists() else name  # its name on the Hub
    else:
        card = DatasetCard.load(CARDS / f"{data_args.dataset_name}.md").data
        data = {"dataset": card.pretty_name, "language": card.language, "dataset_args": data_args.dataset_config}
    if trainer.args.push_to_hub:
        trainer.push_to_hub(**data)
    else:
        trainer.create_model_card(**data)
