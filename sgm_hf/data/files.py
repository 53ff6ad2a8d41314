"""A user's own documents: CSV, TSV, JSON Lines and Parquet files with a text column and a labels column.

Every fault is reported with its file and line (in Parquet: row), counted from 1.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from .documents import Layout, iterate_documents, label_name
from .labels import check_label_names, encode_labels


@dataclass
class _Documents:
    """The documents of one file, column by column. `labels` is None if the file has no labels column."""

    path: Path
    places: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[list[str]] | None = None


def load_files(
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    test_file: str | Path | None = None,
    text_column: str = "text",
    labels_column: str = "labels",
    label_separator: str = "|",
    *,
    delimiter: str | None = None,
    id_column: str = "id",
    label_names: Sequence[str] | None = None,
    unknown_labels: str = "error",
) -> DatasetDict:
    """Read a user's own files into a data set.

    The extension gives the format: `.csv`, `.tsv` (both with a header), `.jsonl` or `.json` (JSON Lines), each also
    with `.gz`; `.parquet`. Text files are UTF-8. Labels are a list of strings, or one string of names with a separator
    between them; in Parquet also the `List(ClassLabel)` that `datasets` writes. Names are stripped and normalized
    (Unicode's NFC). A document may have no label. A test file without the labels column can be predicted, but not
    evaluated. An empty text is an error in the training file only.

    Args:
        train_file: Training documents. Their labels, in alphabetical order, are the labels of the data set.
        validation_file: Documents to select the model on.
        test_file: Documents to test or predict.
        text_column: Column of the text.
        labels_column: Column of the labels.
        label_separator: Text between two labels where the labels are one string.
        delimiter: Character between two cells; default: a comma in `.csv`, a tab in `.tsv`. In this and in
            `label_separator`, a backslash and a t mean a tab.
        id_column: Column of the documents' ids; without it they are file name and line, as "train.csv:17".
        label_names: All labels, in place of the training file's; needed if there are labels and no training file.
        unknown_labels: What to do with any other label in the validation or test file: "error", or "count", which
            keeps it in the additional column `unknown_labels` (list of strings), to be counted as missed.

    Returns:
        The splits "train", "validation" and "test", as far as given, with the columns `id` and `text` (string) and,
        if the file has labels, `labels` (`List(ClassLabel)`).

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If no file is given, or a file is not what is described above.
    """
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    paths = {split: Path(file) for split, file in files.items() if file is not None}
    if not paths:
        raise ValueError("No file given: give at least one of --train_file, --validation_file and --test_file.")
    layout = Layout(text_column, labels_column, label_separator, delimiter, id_column)
    read = {split: _read_documents(path, layout, split) for split, path in paths.items()}
    names = _label_names(read, label_names)
    unknown = {split: unknown_labels if split != "train" else "error" for split in read}
    return DatasetDict({split: _to_dataset(part, names, unknown[split]) for split, part in read.items()})


def _read_documents(path: Path, layout: Layout, split: str) -> _Documents:
    """Read and check one file."""
    documents = _Documents(path)
    for document in iterate_documents(path, layout, labels="if_present" if split == "test" else "required"):
        if split == "train" and not document.text.strip():
            raise ValueError(
                f"{document.place}: the text ({layout.text_column!r}) is empty. Remove the document, or give it a "
                "text."
            )
        documents.places.append(document.place)
        documents.ids.append(document.id)
        documents.texts.append(document.text)
        if document.labels is not None:
            documents.labels = documents.labels or []
            documents.labels.append(document.labels)
    return documents


def _label_names(documents: Mapping[str, _Documents], given: Sequence[str] | None) -> list[str]:
    """All label names: the given ones, else those of the training file. Empty if there is no file with labels."""
    if given is not None:
        check_label_names(given)
        check_label_names([label_name(name) for name in given])  # names that files cannot tell apart
        return list(given)
    labelled = [part for part in documents.values() if part.labels is not None]
    if labelled and "train" not in documents:
        raise ValueError(
            f"{labelled[0].path} has labels, but there is no training file that says which labels exist: give "
            "train_file, or label_names (those of a trained model are list(model.config.label2id))."
        )
    if not labelled:
        return []
    training_labels = documents["train"].labels or []
    names = sorted({label for labels in training_labels for label in labels})
    if not names:
        raise ValueError(f"{documents['train'].path}: no document has a label, so that there is nothing to learn.")
    return names


def _to_dataset(documents: _Documents, names: Sequence[str], unknown_labels: str) -> Dataset:
    """Turn the documents of a file into a data set, their labels into ids."""
    columns: dict[str, list] = {"id": documents.ids, "text": documents.texts}
    features: dict[str, Any] = {"id": Value("string"), "text": Value("string")}
    if documents.labels is not None:
        label2id = {label_name(name): i for i, name in enumerate(names)}
        encoded = [
            encode_labels(labels, label2id, place, unknown_labels)
            for place, labels in zip(documents.places, documents.labels, strict=True)
        ]
        columns["labels"] = [known for known, _ in encoded]
        features["labels"] = List(ClassLabel(names=list(names)))
        if unknown_labels == "count":
            columns["unknown_labels"] = [unknown for _, unknown in encoded]
            features["unknown_labels"] = List(Value("string"))
    # Not Dataset.from_dict: to name the data it pickles it, which took four times its size in memory.
    table = pa.Table.from_pydict(columns, schema=Features(features).arrow_schema)
    return Dataset(table, fingerprint=uuid.uuid4().hex)
