"""A user's own documents: files, DataFrames and data sets, each with columns of text and labels.

Every fault is reported with its file and line, see `sgm_hf.data.records`.
"""

import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from .documents import Source, open_documents
from .label_cells import label_name
from .labels import check_label_names, encode_labels
from .layout import Layout


@dataclass
class _Documents:
    """The documents of one file, column by column. `labels` is None if the file has no labels.

    `label_names` are all labels, if columns or types tell them before any document.
    """

    name: str
    label_names: list[str] | None = None
    places: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[list[str]] | None = None


def load_files(
    train_file: Source | None = None,
    validation_file: Source | None = None,
    test_file: Source | None = None,
    text_column: str | Sequence[str] = "text",
    labels_column: str = "labels",
    label_separator: str = "|",
    *,
    delimiter: str | None = None,
    id_column: str = "id",
    labels_columns: str | Sequence[str] | None = None,
    multi_hot_names: str | Path | Sequence[str] | None = None,
    text_separator: str = "\n",
    encoding: str = "utf-8",
    label_names: Sequence[str] | None = None,
    unknown_labels: str = "error",
) -> DatasetDict:
    """Read a user's own documents into a data set.

    The extension gives a file's format: `.csv`, `.tsv` (both with a header), `.jsonl` or `.json` (JSON Lines, or in
    `.json` one list of objects), each also with `.gz`; `.parquet`. In place of a file, a pandas DataFrame or a
    `datasets.Dataset` is read. `Layout` explains the columns and the forms of labels, among them one column of names,
    a column for each label, lists of 0 and 1, and `ClassLabel`. Names are stripped and normalized (Unicode's NFC). A
    document may have no label; a label that it names twice counts as once, with a warning. A test file without labels
    can be predicted, but not evaluated. An empty text is an error in the training file only.

    Args:
        train_file: Training documents. The labels of the data set are those of its columns, of `multi_hot_names` or of
            its `ClassLabel`, in that order, or else the labels that occur in it, in alphabetical order.
        validation_file: Documents to select the model on.
        test_file: Documents to test or predict.
        text_column: As the further arguments without a text of their own: see `Layout`.
        labels_column: See `Layout`.
        label_separator: See `Layout`.
        delimiter: See `Layout`.
        id_column: See `Layout`.
        labels_columns: See `Layout`.
        multi_hot_names: See `Layout`.
        text_separator: See `Layout`.
        encoding: See `Layout`.
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
    sources = {split: file for split, file in files.items() if file is not None}
    layout = Layout(
        text_column,
        labels_column,
        label_separator,
        delimiter,
        id_column,
        labels_columns,
        multi_hot_names,
        text_separator,
        encoding,
    )
    return read_sources(sources, layout, label_names, unknown_labels)


def read_sources(
    sources: Mapping[str, Source], layout: Layout, label_names: Sequence[str] | None, unknown_labels: str
) -> DatasetDict:
    """Read the sources of some of the splits "train", "validation" and "test"; arguments as of `load_files`."""
    if not sources:
        raise ValueError("No file given: give at least one of --train_file, --validation_file and --test_file.")
    read = {split: _read_documents(source, layout, split) for split, source in sources.items()}
    names = _label_names(read, label_names)
    if layout.labels_columns is not None:
        for part in read.values():
            _warn_of_missing_columns(part, names)
    unknown = {split: unknown_labels if split != "train" else "error" for split in read}
    return DatasetDict({split: _to_dataset(part, names, unknown[split]) for split, part in read.items()})


def _read_documents(source: Source, layout: Layout, split: str) -> _Documents:
    """Read and check one file."""
    reading = "if_present" if split == "test" else "required"
    opened, label_names = open_documents(source, layout, reading, split)
    documents = _Documents(str(source) if isinstance(source, str | Path) else split, label_names)
    for document in opened:
        if split == "train" and not document.text.strip():
            raise ValueError(
                f"{document.place}: the text ({layout.text_column!r}) is empty. Remove the document, or give it a "
                "text."
            )
        documents.places.append(document.place)
        documents.ids.append(document.id)
        documents.texts.append(document.text)
        if document.labels is not None:
            documents.labels = [] if documents.labels is None else documents.labels
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
            f"{labelled[0].name} has labels, but there is no training file that says which labels exist: give "
            "train_file, or label_names (those of a trained model are list(model.config.label2id))."
        )
    if not labelled:
        return []
    train = documents["train"]
    names = sorted({label for labels in train.labels or [] for label in labels})
    if not names:
        raise ValueError(f"{train.name}: no document has a label, so that there is nothing to learn.")
    return train.label_names or names


def _warn_of_missing_columns(documents: _Documents, names: Sequence[str]) -> None:
    """Warn of labels without a column of their own, which no document can have."""
    if documents.label_names is None:
        return
    missing = sorted({label_name(name) for name in names} - set(documents.label_names))
    if missing:
        warnings.warn(
            f"{documents.name} has no column for {len(missing)} of the {len(names)} labels (first: {missing[0]!r}): "
            "its documents are read as not having them. Add the columns, or name them with --labels_columns.",
            stacklevel=3,
        )


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
