"""CSV, TSV, JSON Lines and Parquet files as records: a name for each column, read one by one.

Every fault is reported with its file and line (in Parquet: row), counted from 1.
"""

import csv
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features

from .lines import read_json_lines, read_lines

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
    """The records of a file.

    Args:
        name: What errors call the file.
        unit: What the records are counted in: "line" or "row".
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

    def check_column(self, wanted: str, option: str | None = None) -> None:
        """Raise if the column `wanted` is there twice, or missing although an option names it."""
        if wanted not in self.columns and option is not None:
            raise ValueError(
                f"{self.name} has no column {wanted!r}; its columns are {quoted(self.columns)}. Name the column with "
                f"{option}; a CSV file must name its columns in its first line and use the delimiter given by "
                "--delimiter."
            )
        if self.columns.count(wanted) > 1:
            raise ValueError(
                f"{self.name} has {self.columns.count(wanted)} columns {wanted!r}. Rename or remove all but one."
            )


def open_records(path: Path, delimiter: str | None, wanted: Sequence[str]) -> Records:
    """Open a file, and read of it what names its columns.

    Args:
        path: The file; its extension says its format.
        delimiter: Character between two cells of a CSV file; default: by the extension.
        wanted: Columns that show that a CSV file has another delimiter, where they are parts of its only cell.

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
        return _csv_records(path, delimiter or ("\t" if extension == ".tsv" else ","), wanted)
    return _json_records(path)


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


# --- JSON Lines ------------------------------------------------------------------------------------------------------


def _json_records(path: Path) -> Records:
    """The records of a JSON Lines file."""
    records = read_json_lines(path)
    first = next(records, None)
    if first is None:
        no_documents(str(path))
    return Records(str(path), "line", list(first[1]), lambda columns: chain([first], records))


# --- CSV -------------------------------------------------------------------------------------------------------------


def _csv_records(path: Path, delimiter: str, wanted: Sequence[str]) -> Records:
    """The header and the records of a CSV file."""
    rows = _csv_rows(path, delimiter)
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
    for rival in RIVAL_SEPARATORS:
        if len(header) == 1 and rival in header[0] and set(wanted) & set(header[0].split(rival)):
            records.fault(1, f"the header is one cell, {header[0]!r}. Set --delimiter {rival!r}.")
    return records


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not blank, each with the line in which it starts."""
    if len(delimiter) != 1:
        raise ValueError(f"The delimiter must be one character, got {delimiter!r}. Set --delimiter.")
    lines = (line for _, line in read_lines(path, keep_ends=True))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(_MAX_CSV_CELL)
    try:
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(
                    f"{path}, line {line}: not valid CSV from here on ({error}). Double the quotes inside a quoted "
                    "cell and close it, or set --delimiter."
                ) from error
            if cells:
                yield line, cells
    finally:
        csv.field_size_limit(limit)


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
    """The names of label ids by column, if `datasets` wrote the file with columns of the type `List(ClassLabel)`."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    try:
        features = Features.from_arrow_schema(schema)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: the note of `datasets` on its columns cannot be read ({error!r}). Write the file again."
        ) from error
    items = {column: getattr(feature, "feature", None) for column, feature in features.items()}
    return {column: item.names for column, item in items.items() if isinstance(item, ClassLabel)}
