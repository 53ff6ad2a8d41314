"""Files, DataFrames and data sets as records: a name for each column, read one by one.

Every fault is reported with its place: in a text file the line, in Parquet the row, in a JSON list the item, all
counted from 1; in a DataFrame and a data set the index, from 0, as one writes it there.
"""

import csv
import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features

from .lines import read_json_lines, read_json_list, read_lines, starts_json_list

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
RIVAL_SEPARATORS = (",", ";", "|", "\t")
_SHOWN_COLUMNS = 20
# repr() for errors: a value that is huge or deeply nested has a short one too.
_REPR = reprlib.Repr()
_REPR.maxstring = 60
# The longest cell that the csv module may read. Its default, 131,072 characters, is less than a book.
_MAX_CSV_CELL = 2**31 - 1


@dataclass
class Records:
    """The records of a file, a DataFrame or a data set.

    Args:
        name: What errors call it.
        unit: What the records are counted in: "line", "row", "item", "iloc" or "index".
        columns: The columns that there are, in JSON Lines those of the first record.
        read: Yields the number of each record's line or row and its values, at least those of the given columns.
        class_names: Of columns of label ids, their names.
    """

    name: str
    unit: str
    columns: list[str]
    read: Callable[[Sequence[str]], Iterator[tuple[int, Mapping[str, Any]]]]
    class_names: dict[str, list[str]] = field(default_factory=dict)

    def fault(self, number: int, message: str) -> NoReturn:
        """Raise a ValueError that names the file and the place."""
        raise ValueError(f"{self.name}, {self.unit} {number}: {message}")

    def unexpected(self, number: int, record: Mapping[str, Any], column: str, expected: str) -> NoReturn:
        """Raise a ValueError that says what a column was expected to hold, and what it holds."""
        found = f"nothing (the record has {quoted(list(record))})"
        if column in record:
            found = f"{type(record[column]).__name__} {shortened(record[column])}"
        self.fault(number, f"expected {expected}, got {found}.")

    def check_column(self, wanted: str) -> None:
        """Raise a ValueError if a column is there twice."""
        if self.columns.count(wanted) > 1:
            raise ValueError(
                f"{self.name} has {self.columns.count(wanted)} columns {wanted!r}. Rename or remove all but one."
            )

    def no_column(self, wanted: str, option: str) -> NoReturn:
        """Raise a ValueError that lists the columns that there are, and names the option that names them."""
        hint = ""
        if Path(self.name.lower().removesuffix(".gz")).suffix in (".csv", ".tsv"):
            hint = "; a CSV file must name its columns in its first line and use the delimiter given by --delimiter"
        raise ValueError(
            f"{self.name} has no column {wanted!r}; its columns are {quoted(self.columns)}. Name the column with "
            f"{option}{hint}."
        )


def open_records(path: Path, delimiter: str | None, wanted: Collection[str], encoding: str = "utf-8") -> Records:
    """Open a file, and read of it what names its columns.

    Args:
        path: The file; its extension says its format.
        delimiter: Character between two cells of a CSV file; default: by the extension.
        wanted: Names of columns that a CSV file may have as its only one.
        encoding: Encoding of a text file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a file of a known format, is empty, or cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a file of documents. Check the name and the folder.")
    if not path.is_file():
        raise ValueError(f"{path} is not a file: expected a file of documents, not a folder.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: expected a file of documents.")
    extension = extension_of(path)
    if extension == ".parquet":
        return _parquet_records(path)
    if extension in (".csv", ".tsv"):
        rows = _csv_rows(path, delimiter or ("\t" if extension == ".tsv" else ","), encoding)
        return _csv_records(path, rows, wanted)
    return _json_records(path, encoding)


def extension_of(path: Path) -> str:
    """The extension, without `.gz`, that tells the format of a file.

    Raises:
        ValueError: If it tells none.
    """
    name = path.name.lower()
    extension = Path(name.removesuffix(".gz")).suffix
    if extension not in EXTENSIONS or (extension == ".parquet" and name.endswith(".gz")):
        raise ValueError(
            f"{path} has an extension that does not tell its format: expected {', '.join(EXTENSIONS)}, or one of "
            "these except .parquet followed by .gz. Rename or convert the file."
        )
    return extension


def no_documents(name: str) -> NoReturn:
    """Raise a ValueError that says that a file holds no documents."""
    raise ValueError(f"{name} holds no documents: expected at least one, in CSV after the header.")


def quoted(columns: Sequence[str]) -> str:
    """The names of columns for an error, not more than fit in it."""
    more = f" and {len(columns) - _SHOWN_COLUMNS} more" if len(columns) > _SHOWN_COLUMNS else ""
    return (", ".join(shortened(column) for column in columns[:_SHOWN_COLUMNS]) or "none") + more


def shortened(value: object, length: int = 60) -> str:
    """A value for an error, cut to a length."""
    text = _REPR.repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


# --- JSON ------------------------------------------------------------------------------------------------------------


def _json_records(path: Path, encoding: str) -> Records:
    """The records of a JSON Lines file, or of a `.json` file that is one list, which is read as a whole."""
    is_list = extension_of(path) == ".json" and starts_json_list(path, encoding)
    records = (read_json_list if is_list else read_json_lines)(path, encoding)
    first = next(records, None)
    if first is None:
        no_documents(str(path))
    return Records(str(path), "item" if is_list else "line", list(first[1]), lambda columns: chain([first], records))


# --- CSV -------------------------------------------------------------------------------------------------------------


def _csv_records(path: Path, rows: Iterator[tuple[int, list[str]]], wanted: Collection[str]) -> Records:
    """The header and the records of a CSV file."""
    _, header = next(rows, (1, None))
    if header is None:
        no_documents(str(path))

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the rows one by one."""
        for line, cells in rows:
            if len(cells) != len(header):
                records.fault(
                    line,
                    f"{len(cells)} cells, but the header has {len(header)}. Put a cell that contains the delimiter "
                    "between double quotes, or set --delimiter.",
                )
            yield line, dict(zip(header, cells, strict=True))

    records = Records(str(path), "line", header, read)
    rival = max(RIVAL_SEPARATORS, key=header[0].count)
    if len(header) == 1 and header[0] not in wanted and rival in header[0]:
        records.fault(1, f"the header is one cell, {header[0]!r}. Set --delimiter {rival!r}.")
    return records


def _csv_rows(path: Path, delimiter: str, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not blank, each with the line in which it starts."""
    if len(delimiter) != 1:
        raise ValueError(f"The delimiter must be one character, got {delimiter!r}. Set --delimiter.")
    lines = (line for _, line in read_lines(path, True, encoding))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        # Set for each row, not around the loop: others read CSV files between two rows.
        limit = csv.field_size_limit(_MAX_CSV_CELL)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {line}: not valid CSV from here on ({error}). Double the quotes inside a quoted cell "
                "and close it, or set --delimiter."
            ) from error
        finally:
            csv.field_size_limit(limit)
        if cells:
            yield line, cells


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _parquet_records(path: Path) -> Records:
    """The columns and the rows of a Parquet file."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a complete Parquet file ({error}). Write or copy it again.") from error

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the rows, read a thousand at a time."""
        row = 0
        try:
            for batch in file.iter_batches(batch_size=1000, columns=list(columns)):
                for record in batch.to_pylist():
                    row += 1
                    yield row, record
        except (pa.ArrowException, OSError, OverflowError, ValueError) as error:
            raise ValueError(
                f"{path}, row {row + 1}: cannot be read ({error}). Write or copy the file again."
            ) from error

    return Records(str(path), "row", file.schema_arrow.names, read, _class_names(path, file.schema_arrow))


def _class_names(path: Path, schema: pa.Schema) -> dict[str, list[str]]:
    """The names of label ids by column, if `datasets` wrote the file with columns of `ClassLabel`."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    try:
        features = Features.from_arrow_schema(schema)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: the note of `datasets` on its columns cannot be read ({error!r}). Write the file again."
        ) from error
    return _names_of_classes(features)


def _names_of_classes(features: Features) -> dict[str, list[str]]:
    """The names of label ids by column, of columns of the types `ClassLabel` and `List(ClassLabel)`."""
    items = {column: getattr(feature, "feature", feature) for column, feature in features.items()}
    return {column: item.names for column, item in items.items() if isinstance(item, ClassLabel)}


# --- DataFrames and data sets ----------------------------------------------------------------------------------------


def frame_records(frame: pd.DataFrame, name: str) -> Records:
    """The rows of a DataFrame."""

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the rows, turned into Python's own values a thousand at a time."""
        places = [position for position, column in enumerate(frame.columns) if str(column) in columns]
        names = [str(frame.columns[position]) for position in places]
        for start in range(0, len(frame), 1000):
            part = frame.iloc[start : start + 1000]
            values = ([_plain(value) for value in part.iloc[:, position]] for position in places)
            for row, cells in enumerate(zip(*values, strict=True), start=start):
                yield row, dict(zip(names, cells, strict=True))

    return Records(name, "iloc", [str(column) for column in frame.columns], read)


def _plain(value: Any) -> Any:
    """A cell of a DataFrame as a text, number, list or None."""
    if isinstance(value, tuple | set | frozenset | np.ndarray):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, list):
        return value
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def dataset_records(dataset: Dataset, name: str) -> Records:
    """The rows of a data set."""

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the rows."""
        yield from enumerate(dataset.with_format(None).select_columns(list(columns)))

    return Records(name, "index", dataset.column_names, read, _names_of_classes(dataset.features))
