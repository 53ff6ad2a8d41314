"""From the cells of a record to its label names, in each of the forms in which labels are written."""

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from .labels import check_label_names
from .layout import Layout
from .records import RIVAL_SEPARATORS, Records, shortened

# What a cell says of its label, as text in lower case.
_TRUTH = dict.fromkeys(("1", "1.0", "1.", "true", "yes"), True) | dict.fromkeys(
    ("0", "0.0", "0.", "false", "no"), False
)
_ZEROS_AND_ONES = re.compile(r"[\[(][01,.\s]+[\])]")


def label_name(text: str) -> str:
    """The label that a text names: what reads the same, with blanks around it or in another Unicode form, is one."""
    return unicodedata.normalize("NFC", text.strip())


class LabelReader:
    """Reads the labels of the records of one file.

    Args:
        records: The file.
        layout: How its labels are written.
        columns: The column of the labels, or those of one label each.

    Attributes:
        names: All labels, where columns, a list of names or the classes of `datasets` tell them before any document.
    """

    def __init__(self, records: Records, layout: Layout, columns: Sequence[str]) -> None:
        self.records, self.layout, self.columns = records, layout, columns
        self.is_one_each = layout.labels_columns is not None
        multi_hot_names = cast("tuple[str, ...] | None", layout.multi_hot_names)  # Layout has read a file of names
        given: Sequence[str] | None = multi_hot_names or records.class_names.get(layout.labels_column)
        given = columns if self.is_one_each else given
        self.names = [label_name(name) for name in given] if given else None
        if self.names:
            check_label_names(self.names)  # names that files cannot tell apart
        # Cells of joined labels and how often they occur, until one has the separator.
        self._unseparated: Counter[str] | None = Counter()
        self._num_repeating, self._first_repeating = 0, ""

    def read(self, number: int, record: Mapping[str, Any]) -> list[str]:
        """The label names of one record in their order, each once."""
        if self.is_one_each:
            values = [self._cell(number, record, column) for column in self.columns]
            return self._chosen(number, values, self.columns)
        value = self._cell(number, record, self.layout.labels_column)
        if _is_empty(value):
            return []
        if self.layout.multi_hot_names is not None:
            labels = self._multi_hot(number, record, value)
        elif self.layout.labels_column in self.records.class_names:
            labels = self._classes(number, record, value)
        else:
            labels = self._joined(value) if isinstance(value, str) else self._listed(number, record, value)
        distinct = list(dict.fromkeys(labels))
        if len(distinct) < len(labels):
            if not self._num_repeating:
                (label, count), *_ = Counter(labels).most_common(1)
                self._first_repeating = f"{label!r} is there {count} times in {self.records.unit} {number}"
            self._num_repeating += 1
        return distinct

    def finish(self) -> None:
        """Warn of labels named twice; raise or warn if no joined labels have the separator while most have another."""
        if self._num_repeating:
            warnings.warn(
                f"{self.records.name}: {self._num_repeating} document(s) name a label more than once, which counts as "
                f"once; first: {self._first_repeating}.",
                stacklevel=2,
            )
        if self._unseparated:
            _check_separator(self.records.name, self._unseparated, self.layout.label_separator)

    def _cell(self, number: int, record: Mapping[str, Any], column: str) -> Any:
        """The value of a column, which the record must have; None for one that is null."""
        if column not in record:
            self.records.unexpected(number, record, column, self._expected(column))
        return record[column]

    def _expected(self, column: str) -> str:
        if self.is_one_each:
            return f"0 or 1 (or true, false, yes, no, or nothing) in {column!r}"
        if self.layout.multi_hot_names is not None:
            return f"a list of {len(self.names or ())} numbers 0 or 1 in {column!r}"
        separator = self.layout.label_separator
        return f"the labels in {column!r} as a list of texts, or as one text with {separator!r} between two labels"

    def _chosen(self, number: int, values: Sequence[Any], columns: Sequence[str]) -> list[str]:
        """The labels whose cells say yes."""
        labels = []
        for name, column, value in zip(self.names or (), columns, values, strict=True):
            if _is_empty(value):
                continue
            is_label = _truth(value)
            classes = self.records.class_names.get(column, ())
            if type(value) is int and 0 <= value < len(classes) and _truth(classes[value]) is not None:
                is_label = _truth(classes[value])  # of ["yes", "no"], 0 is yes
            if is_label is None:
                self.records.fault(
                    number,
                    f"expected {self._expected(column)}, got {type(value).__name__} {shortened(value)}. Correct the "
                    "cell, or name only columns of labels with --labels_columns.",
                )
            if is_label:
                labels.append(name)
        return labels

    def _multi_hot(self, number: int, record: Mapping[str, Any], value: Any) -> list[str]:
        """The labels at whose places a list has a one."""
        column = self.layout.labels_column
        numbers = re.split(r"[\s,]+", value.strip(" \t\n[](),")) if isinstance(value, str) else value
        if not isinstance(numbers, list) or len(numbers) != len(self.names or ()):
            count = f" of {len(numbers)}" if isinstance(numbers, list) else ""
            self.records.fault(
                number,
                f"expected {self._expected(column)}, one for each of --multi_hot_names, got "
                f"{type(value).__name__}{count} {shortened(value)}.",
            )
        chosen = [_truth(item) for item in numbers]
        if None in chosen:
            wrong = shortened(numbers[chosen.index(None)])
            self.records.fault(number, f"expected {self._expected(column)}, but {wrong} is neither.")
        return [name for name, is_label in zip(self.names or (), chosen, strict=True) if is_label]

    def _classes(self, number: int, record: Mapping[str, Any], value: Any) -> list[str]:
        """The labels of one id of `ClassLabel`, or of a list of them."""
        names = self.records.class_names[self.layout.labels_column]
        ids = value if isinstance(value, list) else [value]
        for i in ids:
            if i is None or not 0 <= i < len(names):
                expected = f"expected label ids from 0 to {len(names) - 1}"
                self.records.fault(number, f"{expected}, but {i} is not one. Correct the labels.")
        return [label_name(names[i]) for i in ids]

    def _joined(self, value: str) -> list[str]:
        """The labels of one text with separators."""
        separator = self.layout.label_separator
        if separator in value:
            self._unseparated = None
        elif self._unseparated is not None:
            self._unseparated[value] += 1
        return [label_name(name) for name in value.split(separator) if name.strip()]

    def _listed(self, number: int, record: Mapping[str, Any], value: Any) -> list[str]:
        """The labels of a list of names."""
        column = self.layout.labels_column
        if not isinstance(value, list):
            self.records.unexpected(number, record, column, self._expected(column))
        for name in value:
            if not isinstance(name, str) or not name.strip():
                remedy = ""
                if len(value) > 1 and all(type(item) in (int, float, bool) and item in (0, 1) for item in value):
                    remedy = " If the list has a number for each label, name the labels with --multi_hot_names."
                self.records.fault(
                    number, f"expected a list of label names in {column!r}, but {shortened(name)} is not one.{remedy}"
                )
        return [label_name(name) for name in value]


def _is_empty(value: Any) -> bool:
    """Whether a cell says nothing."""
    return value is None or (isinstance(value, str) and not value.strip())


def _truth(value: Any) -> bool | None:
    """What a value of 0 or 1 says; None if it is something else."""
    if isinstance(value, str):
        return _TRUTH.get(value.strip().lower())
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    return None


def _check_separator(file: str, cells: Counter[str], separator: str) -> None:
    """Raise or warn if most of the cells, none of which has the separator, have another."""
    first = next(iter(cells))
    if all(cell.startswith("[") and cell.endswith("]") for cell in cells):
        if all(_ZEROS_AND_ONES.fullmatch(cell) for cell in cells):
            raise ValueError(
                f"{file}: the labels are lists of 0 and 1, e.g. {shortened(first)}. Name their labels with "
                "--multi_hot_names."
            )
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
