"""The documents of a file, read one by one: id, text, label names and place.

The memory that a file takes does not grow with the number of its documents.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
from datasets import Dataset

from .label_cells import LabelReader
from .layout import Layout
from .records import Records, dataset_records, frame_records, no_documents, open_records, quoted

LABEL_READING = ("required", "if_present", "ignored")
Source: TypeAlias = str | Path | pd.DataFrame | Dataset


class Document(NamedTuple):
    """A document of a file.

    Args:
        id: Its id in the file, or else file name and line.
        text: Its text, which may be empty.
        labels: Its label names in their order; None if the file has no labels, or they are not read.
        place: What errors call it: "train.csv, line 17".
    """

    id: str
    text: str
    labels: list[str] | None
    place: str


def iterate_documents(
    source: Source, layout: Layout | None = None, *, labels: str = "if_present"
) -> Iterator[Document]:
    """Read documents one by one.

    The file is opened and its columns are checked at the call; the documents are read while iterating.

    Args:
        source: A file of a format that `load_files` reads, a DataFrame or a data set.
        layout: Where text and labels are.
        labels: "required", "if_present" (with a warning if there are none) or "ignored", which does not read them.

    Returns:
        An iterator over the documents in their order, at least one.

    Raises:
        FileNotFoundError: If the file does not exist.
        TypeError: If the source is something else.
        ValueError: If the file is not what the layout says. The message names the file, and the line if it has one.
    """
    return open_documents(source, layout or Layout(), labels, "data")[0]


def open_documents(
    source: Source, layout: Layout, labels: str, name: str
) -> tuple[Iterator[Document], list[str] | None]:
    """Open what `iterate_documents` reads.

    Args:
        source: The file, DataFrame or data set.
        layout: Where text and labels are.
        labels: As for `iterate_documents`.
        name: What to call a DataFrame or data set, in errors and in ids.

    Returns:
        The documents, and the names of all labels where columns or types tell them.
    """
    if labels not in LABEL_READING:
        raise ValueError(f"labels must be one of {', '.join(LABEL_READING)}, got {labels!r}.")
    if isinstance(source, pd.DataFrame):
        records, prefix = frame_records(source, f"the DataFrame {name!r}"), name
    elif isinstance(source, Dataset):
        records, prefix = dataset_records(source, f"the data set {name!r}"), name
    elif not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"expected a file, a pandas DataFrame or a datasets.Dataset, got {type(source).__name__}. Of several "
            "splits, give each as an argument of its own."
        )
    else:
        path = Path(source)
        records, prefix = open_records(path, layout.delimiter, layout.names_of_columns(), layout.encoding), path.name
    text_columns = layout.text_columns(records)
    records.check_column(layout.id_column)
    label_columns = [] if labels == "ignored" else layout.label_columns(records, labels == "required")
    reader = LabelReader(records, layout, label_columns) if label_columns else None
    if reader is None and labels == "if_present":
        wanted = layout.labels_columns or layout.labels_column
        warnings.warn(
            f"{records.name} has no column {wanted!r} (columns: {quoted(records.columns)}): its documents can be "
            "predicted, but not evaluated. If another column holds the labels, name it with --labels_column.",
            stacklevel=3,
        )
    refuses = reader is None and labels == "if_present" and layout.labels_columns is None
    names = None if reader is None else reader.names
    return _documents(records, layout, prefix, text_columns, reader, layout.labels_column if refuses else None), names


def _documents(
    records: Records,
    layout: Layout,
    prefix: str,
    text_columns: Sequence[str],
    reader: LabelReader | None,
    refused: str | None,
) -> Iterator[Document]:
    """Yield the documents.

    Args:
        records: What they are read from.
        layout: Where id and labels are.
        prefix: What stands before the number in the id of a document that has none.
        text_columns: The columns of the text.
        reader: Reads the labels; None leaves them out.
        refused: A column that the first record did not have, and therefore none may have.
    """
    used = {*text_columns, layout.id_column, *(reader.columns if reader is not None else ())}
    number = None
    for number, record in records.read([column for column in records.columns if column in used]):
        name = record[layout.id_column] if layout.id_column in record else f"{prefix}:{number}"
        if not isinstance(name, (str, int)):
            records.unexpected(number, record, layout.id_column, f"a text or an integer in {layout.id_column!r}")
        if refused in record:
            records.fault(number, f"has {refused!r}, but the first record has not: give it to all or none.")
        text = _text(records, number, record, text_columns, layout.text_separator)
        names = None if reader is None else reader.read(number, record)
        yield Document(str(name), text, names, f"{records.name}, {records.unit} {number}")
    if number is None:
        no_documents(records.name)
    if reader is not None:
        reader.finish()


def _text(records: Records, number: int, record: Mapping[str, Any], columns: Sequence[str], separator: str) -> str:
    """The text of one record: of several columns those that are not empty, joined."""
    texts = []
    for column in columns:
        text = record.get(column)
        if not isinstance(text, str) and not (text is None and column in record and len(columns) > 1):
            records.unexpected(number, record, column, f"a text in {column!r}")
        texts.append(text or "")
    return texts[0] if len(texts) == 1 else separator.join(text for text in texts if text.strip())
