"""What the page needs of a model and of files."""

import json
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline
from transformers.utils import logging as transformers_logging

from sgm_hf.data.documents import iterate_documents
from sgm_hf.data.layout import Layout
from sgm_hf.data.lines import read_lines
from sgm_hf.modeling import MultiLabelGenerationPipeline
from sgm_hf.programs.models import load_checkpoint
from sgm_hf.tables import write_csv

THRESHOLD = "threshold"  # the set decoding for which the page has a slider
# Characters of a text that are read for each word that the model reads: the tokenizer takes seconds per megabyte.
CHARACTERS_PER_WORD = 1000

Prediction = list[dict[str, Any]]


@dataclass
class Document:
    """A text and the id of its prediction."""

    id: str
    text: str


@dataclass
class Predictor:
    """A pipeline that several threads may use."""

    classifier: MultiLabelGenerationPipeline
    # Neither tokenizer nor model can be used by two threads at a time.
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def has_label_thresholds(self) -> bool:
        """Whether the model has a threshold per label, which the page does not change."""
        return isinstance(getattr(self.classifier.model.generation_config, "label_threshold", None), list)

    def predict(
        self,
        texts: list[str],
        num_beams: int,
        set_decoding: str,
        threshold: float,
        return_attention: bool = False,
        top_k: int | str = "generated",
    ) -> tuple[list[Prediction], list[str]]:
        """Predict texts.

        Args:
            texts: The texts.
            num_beams: Beam width.
            set_decoding: "best_sequence", "threshold" or "expected_f1".
            threshold: Score from which "threshold" takes a label, unless the model has a threshold per label.
            return_attention: Whether each label comes with its attention, if the model has any.
            top_k: The number of labels, those of highest score, or "generated" for the label set.

        Returns:
            The labels of each text, and the pipeline's warnings.
        """
        takes_threshold = set_decoding == THRESHOLD and not self.has_label_thresholds
        longest = CHARACTERS_PER_WORD * self.classifier.tokenizer.model_max_length
        with self.lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            predictions: Any = self.classifier(
                [text[:longest] for text in texts],
                num_beams=int(num_beams),
                set_decoding=set_decoding,
                label_threshold=float(threshold) if takes_threshold else None,
                return_attention=return_attention and self.classifier.model.attends_to_words,
                top_k=top_k,
            )
        return predictions, [str(warning.message) for warning in caught if warning.category is UserWarning]


def load_predictor(model: str) -> Predictor:
    """Load a model and its tokenizer, on the GPU if there is one.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If it reads images.
    """
    transformers_logging.disable_progress_bar()
    loaded, tokenizer = load_checkpoint(model)
    if loaded.encoder.main_input_name != "input_ids":
        raise ValueError(f"{model} reads images, but the page takes texts; label images with sgm-hf predict.")
    device = 0 if torch.cuda.is_available() else "cpu"
    return Predictor(pipeline("multi-label-generation", model=loaded, tokenizer=tokenizer, device=device))


def read_documents(path: Path, text_column: str = "text") -> list[Document]:
    """Read a file of texts: .txt with one text per line (blank lines are skipped), or what `load_files` reads.

    Args:
        path: The file.
        text_column: Column of the texts; not used for .txt.

    Returns:
        The documents, named by their id in the file, or else by file name and line.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or has no text.
    """
    if path.suffix.lower() != ".txt":
        documents = iterate_documents(path, Layout(text_column or "text"), labels="ignored")
        return [Document(document.id, document.text) for document in documents]
    lines = name_lines(read_lines(path), path.name)
    if not lines:
        raise ValueError(f"{path.name} has no text; expected one text per line.")
    return lines


def name_lines(lines: Iterable[tuple[int, str]], name: str) -> list[Document]:
    """One document per line that is not blank, named `name:number`."""
    return [Document(f"{name}:{number}", line.strip()) for number, line in lines if line.strip()]


def write_predictions(documents: Sequence[Document], predictions: Sequence[Prediction], folder: Path) -> list[str]:
    """Write `predictions.jsonl` and `predictions.csv` (id, text, labels in generated order, their scores).

    Returns:
        The paths of both files.
    """
    records = [
        {
            "id": document.id,
            "text": document.text,
            "labels": [entry["label"] for entry in prediction],
            "scores": [round(entry["score"], 6) for entry in prediction],
        }
        for document, prediction in zip(documents, predictions, strict=True)
    ]
    jsonl, table = folder / "predictions.jsonl", folder / "predictions.csv"
    with jsonl.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    joined = ({name: "|".join(map(str, record[name])) for name in ("labels", "scores")} for record in records)
    rows = [record | cells for record, cells in zip(records, joined, strict=True)]
    write_csv(rows, table, ["id", "text", "labels", "scores"])
    return [str(jsonl), str(table)]
