"""The documents of a file, read one by one: id, text, label names and place.

The memory that a file takes does not grow with the number of its documents.
"""

import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .records import RIVAL_SEPARATORS, Records, no_documents, open_records, quoted, shortened

_TYPED_TAB = ("\\t", "\t")  # a shell passes a backslash and a t on as they are
LABEL_READING = ("required", "if_present", "ignored")


@dataclass(frozen=True)
class Layout:
    """How to find text and labels in a file.

    Args:
        text_column: Column of the text.
        labels_column: Column of the labels.
        label_separator: Text between two labels where the labels are one string.
        delimiter: Character between two cells; default: a comma in `.csv`, a tab in `.tsv`. In this and in
            `label_separator`, a backslash and a t mean a tab.
        id_column: Column of the documents' ids; without it they are file name and line, as "train.csv:17".
    """

    text_column: str = "text"
    labels_column: str = "labels"
    label_separator: str = "|"
    delimiter: str | None = None
    id_column: str = "id"

    def __post_init__(self) -> None:
        if not self.label_separator:
            raise ValueError(
                "The label separator is empty: give the text between two labels, e.g. --label_separator '|'."
            )
        object.__setattr__(self, "label_separator", self.label_separator.replace(*_TYPED_TAB))
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", self.delimiter.replace(*_TYPED_TAB))


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
    path: str | Path, layout: Layout | None = None, *, labels: str = "if_present"
) -> Iterator[Document]:
    """Read the documents of a file one by one.

    The file is opened and its columns are checked at the call; the documents are read while iterating.

    Args:
        path: A file of a format that `load_files` reads.
        layout: Where text and labels are.
        labels: "required", "if_present" (with a warning if the file has none) or "ignored", which does not read them.

    Returns:
        An iterator over the documents in the order of the file, at least one.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not what the layout says. The message names the file, and the line if it has one.
    """
    layout, path = layout or Layout(), Path(path)
    if labels not in LABEL_READING:
        raise ValueError(f"labels must be one of {', '.join(LABEL_READING)}, got {labels!r}.")
    records = open_records(path, layout.delimiter, (layout.text_column, layout.labels_column))
    records.check_column(layout.text_column, "--text_column")
    records.check_column(layout.id_column)
    reader = None
    if labels == "required" or (labels == "if_present" and layout.labels_column in records.columns):
        records.check_column(layout.labels_column, "--labels_column")
        reader = _LabelReader(records, layout)
    elif labels == "if_present":
        warnings.warn(
            f"{path} has no column {layout.labels_column!r} (columns: {quoted(records.columns)}): its documents can "
            "be predicted, but not evaluated. If another column holds the labels, name it with --labels_column.",
            stacklevel=2,
        )
    return _documents(records, layout, path.name, reader, refuse_labels=labels == "if_present")


def _documents(
    records: Records, layout: Layout, file_name: str, reader: "_LabelReader | None", refuse_labels: bool
) -> Iterator[Document]:
    """Yield the documents; labels are refused where the file began without."""
    used = (layout.text_column, layout.labels_column, layout.id_column)
    place = f"{records.name}, {records.unit}"
    number = 0
    for number, record in records.read([column for column in records.columns if column in used]):
        text = record.get(layout.text_column)
        if not isinstance(text, str):
            records.unexpected(number, record, layout.text_column, f"a text in {layout.text_column!r}")
        name = record[layout.id_column] if layout.id_column in record else f"{file_name}:{number}"
        if not isinstance(name, (str, int)):
            records.unexpected(number, record, layout.id_column, f"a text or an integer in {layout.id_column!r}")
        if reader is None and refuse_labels and layout.labels_column in record:
            records.fault(
                number, f"has {layout.labels_column!r}, but the first record has not: give it to all or none."
            )
        yield Document(str(name), text, reader and reader.read(number, record), f"{place} {number}")
    if not number:
        no_documents(records.name)
    if reader is not None:
        reader.finish()


def label_name(text: str) -> str:
    """The label that a text names: what reads the same, with blanks around it or in another Unicode form, is one."""
    return unicodedata.normalize("NFC", text.strip())


@dataclass
class _LabelReader:
    """Reads the labels of the records of one file."""

    records: Records
    layout: Layout
    # Cells of joined labels and how often they occur, until one has the separator.
    unseparated: Counter[str] | None = field(default_factory=Counter)

    def read(self, number: int, record: Mapping[str, Any]) -> list[str]:
        """The label names of one record, in their order."""
        column, separator = self.layout.labels_column, self.layout.label_separator
        value = record.get(column)
        if isinstance(value, str):
            if separator in value:
                self.unseparated = None
            elif self.unseparated is not None and value.strip():
                self.unseparated[value] += 1
            return [label_name(name) for name in value.split(separator) if name.strip()]
        if not isinstance(value, list):
            expected = (
                f"the labels in {column!r} as a list of texts, or as one text with {separator!r} between two labels"
            )
            self.records.unexpected(number, record, column, expected)
        if (names := self.records.class_names.get(column)) is not None:
            for i in value:
                if i is None or not 0 <= i < len(names):
                    expected = f"expected label ids from 0 to {len(names) - 1}"
                    self.records.fault(number, f"{expected}, but {i} is not one. Correct the labels.")
            return [label_name(names[i]) for i in value]
        for name in value:
            if not isinstance(name, str) or not name.strip():
                self.records.fault(
                    number, f"expected a list of label names in {column!r}, but {shortened(name)} is not one."
                )
        return [label_name(name) for name in value]

    def finish(self) -> None:
        """Raise or warn if no cell of joined labels has the separator while most have another."""
        if self.unseparated:
            _check_separator(self.records.name, self.unseparated, self.layout.label_separator)


def _check_separator(file: str, cells: Counter[str], separator: str) -> None:
    """Raise or warn if most of the cells, none of which has the separator, have another."""
    first = next(iter(cells))
    if all(cell.startswith("[") and cell.endswith("]") for cell in cells):
        raise ValueError(
            f"{file}: the labels are lists written as text, e.g. {first!r}. Join the names with {separator!r}, or "
            "write the documents as JSON Lines, where labels can be lists."
        )
    for rival in RIVAL_SEPARATORS:
        having = {cell: count for cell, count in cells.items() if rival in cell}
        if sum(having.values()) <= cells.total() / 2:
            continue
        parts = {part.strip() for cell in cells for part in cell.split(rival)}
        shown = next(iter(having))
        message = (
            f"{file}: no labels cell contains the separator {separator!r}, but {sum(having.values())} of "
            f"{cells.total()} contain {rival!r}; {shown!r} is read as one label. If these are several, set "
            f"--label_separator {rival!r}; if this is one name, write the documents as JSON Lines with lists of "
            "labels."
        )
        # Parts that return in several cells are labels; else these may be names with a comma.
        if len(parts) < len(cells):
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)
