"""A user's own documents: CSV, TSV, JSON Lines and Parquet files with a text column and a labels column.

Every fault is reported with its file and line (in Parquet: row), counted from 1.
"""

import csv
import reprlib
import unicodedata
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from .labels import check_label_names, encode_labels
from .lines import read_json_lines, read_lines

# A record of a file, with its line or row. All three formats are read as a list of columns and an iterator of these.
_Records = Iterator[tuple[int, Mapping[str, Any]]]

_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
_TYPED_TAB = ("\\t", "\t")  # a shell passes a backslash and a t on as they are
_RIVAL_SEPARATORS = (",", ";", "|", "\t")
_SHOWN_COLUMNS = 20
# repr() for errors: a value that is huge or deeply nested has a short one too.
_REPR = reprlib.Repr()
_REPR.maxstring = 60
# The longest cell that the csv module may read. Its default, 131,072 characters, is less than a book.
_MAX_CSV_CELL = 2**31 - 1


@dataclass(frozen=True)
class _Layout:
    """How to find text and labels in a file; the fields are arguments of `load_files`."""

    text_column: str
    labels_column: str
    id_column: str
    label_separator: str
    delimiter: str | None


@dataclass
class _Documents:
    """The documents of one file, column by column. `labels` is None if the file has no labels column."""

    path: Path
    places: list[int] = field(default_factory=list)
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
    if not label_separator:
        raise ValueError("The label separator is empty: give the text between two labels, e.g. --label_separator '|'.")
    separators = label_separator.replace(*_TYPED_TAB), delimiter and delimiter.replace(*_TYPED_TAB)
    layout = _Layout(text_column, labels_column, id_column, *separators)
    read = {split: _read_documents(path, layout, split) for split, path in paths.items()}
    names = _label_names(read, label_names)
    unknown = {split: unknown_labels if split != "train" else "error" for split in read}
    return DatasetDict({split: _to_dataset(part, names, unknown[split]) for split, part in read.items()})


def _label_names(documents: Mapping[str, _Documents], given: Sequence[str] | None) -> list[str]:
    """All label names: the given ones, else those of the training file. Empty if there is no file with labels."""
    if given is not None:
        check_label_names(given)
        check_label_names([_label_name(name) for name in given])  # names that files cannot tell apart
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
        label2id = {_label_name(name): i for i, name in enumerate(names)}
        file = f"{documents.path}, {_unit(documents.path)}"
        encoded = [
            encode_labels(labels, label2id, f"{file} {number}", unknown_labels)
            for number, labels in zip(documents.places, documents.labels, strict=True)
        ]
        columns["labels"] = [known for known, _ in encoded]
        features["labels"] = List(ClassLabel(names=list(names)))
        if unknown_labels == "count":
            columns["unknown_labels"] = [unknown for _, unknown in encoded]
            features["unknown_labels"] = List(Value("string"))
    # Not Dataset.from_dict: to name the data it pickles it, which took four times its size in memory.
    table = pa.Table.from_pydict(columns, schema=Features(features).arrow_schema)
    return Dataset(table, fingerprint=uuid.uuid4().hex)


# --- from the records of a file to documents -------------------------------------------------------------------------


def _read_documents(path: Path, layout: _Layout, split: str) -> _Documents:
    """Read and check one file."""
    columns, records = _open_records(path, layout)
    _check_column(path, columns, layout.text_column, "--text_column")
    _check_column(path, columns, layout.id_column)
    documents = _Documents(path)
    if layout.labels_column in columns or split != "test":
        _check_column(path, columns, layout.labels_column, "--labels_column")
        documents.labels = []
    else:
        warnings.warn(
            f"{path} has no column {layout.labels_column!r} (columns: {_quoted(columns)}): its documents can be "
            "predicted, but not evaluated. If another column holds the labels, name it with --labels_column.",
            stacklevel=3,
        )
    joined_labels = []
    for number, record in records:
        text = record.get(layout.text_column)
        if not isinstance(text, str):
            _unexpected(path, number, record, layout.text_column, f"a text in {layout.text_column!r}")
        if split == "train" and not text.strip():
            _fault(
                path, number, f"the text ({layout.text_column!r}) is empty. Remove the document, or give it a text."
            )
        name = record[layout.id_column] if layout.id_column in record else f"{path.name}:{number}"
        if not isinstance(name, (str, int)):
            _unexpected(path, number, record, layout.id_column, f"a text or an integer in {layout.id_column!r}")
        documents.places.append(number)
        documents.ids.append(str(name))
        documents.texts.append(text)
        if documents.labels is not None:
            documents.labels.append(_labels(path, number, record, layout))
            if isinstance(record[layout.labels_column], str):
                joined_labels.append(record[layout.labels_column])
        elif layout.labels_column in record:
            _fault(
                path, number, f"has {layout.labels_column!r}, but the first record has not: give it to all or none."
            )
    if not documents.ids:
        _no_documents(path)
    _check_separator(path, [cell for cell in joined_labels if cell.strip()], layout.label_separator)
    return documents


def _labels(path: Path, number: int, record: Mapping[str, Any], layout: _Layout) -> list[str]:
    """The label names of one record, in their order."""
    column, separator = layout.labels_column, layout.label_separator
    value = record.get(column)
    if isinstance(value, str):
        return [_label_name(name) for name in value.split(separator) if name.strip()]
    if not isinstance(value, list):
        expected = f"the labels in {column!r} as a list of texts, or as one text with {separator!r} between two labels"
        _unexpected(path, number, record, column, expected)
    for name in value:
        if not isinstance(name, str) or not name.strip():
            _fault(path, number, f"expected a list of label names in {column!r}, but {_shortened(name)} is not one.")
    return [_label_name(name) for name in value]


def _label_name(text: str) -> str:
    """The label that a text names: what reads the same, with blanks around it or in another Unicode form, is one."""
    return unicodedata.normalize("NFC", text.strip())


def _check_separator(path: Path, cells: Sequence[str], separator: str) -> None:
    """Raise or warn if no cell of joined labels contains the separator while most contain another."""
    if not cells or any(separator in cell for cell in cells):
        return
    if all(cell.startswith("[") and cell.endswith("]") for cell in cells):
        raise ValueError(
            f"{path}: the labels are lists written as text, e.g. {cells[0]!r}. Join the names with {separator!r}, or "
            "write the documents as JSON Lines, where labels can be lists."
        )
    for rival in _RIVAL_SEPARATORS:
        having = [cell for cell in cells if rival in cell]
        if len(having) <= len(cells) / 2:
            continue
        parts = {part.strip() for cell in cells for part in cell.split(rival)}
        message = (
            f"{path}: no labels cell contains the separator {separator!r}, but {len(having)} of {len(cells)} contain "
            f"{rival!r}; {having[0]!r} is read as one label. If these are several, set --label_separator {rival!r}; "
            "if this is one name, write the documents as JSON Lines with lists of labels."
        )
        # Parts that return in several cells are labels; else these may be names with a comma.
        if len(parts) < len(set(cells)):
            raise ValueError(message)
        warnings.warn(message, stacklevel=4)


# --- from a file to records ------------------------------------------------------------------------------------------


def _open_records(path: Path, layout: _Layout) -> tuple[list[str], _Records]:
    """The columns of a file and its records."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a file of documents. Check the name and the folder.")
    if not path.is_file():
        raise ValueError(f"{path} is not a file: expected a file of documents, not a folder.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: expected a file of documents.")
    extension = _extension(path)
    if extension == ".parquet":
        return _parquet_records(path, layout)
    if extension in (".csv", ".tsv"):
        return _csv_records(path, layout)
    records = read_json_lines(path)
    first = next(records, None)
    if first is None:
        _no_documents(path)
    return list(first[1]), chain([first], records)


def _extension(path: Path) -> str:
    """The extension, without `.gz`, that tells the format of a file."""
    name = path.name.lower()
    extension = Path(name.removesuffix(".gz")).suffix
    if extension not in _EXTENSIONS or (extension == ".parquet" and name.endswith(".gz")):
        raise ValueError(
            f"{path} has an extension that does not tell its format: expected {', '.join(_EXTENSIONS)}, or one of "
            "these except .parquet followed by .gz. Rename or convert the file."
        )
    return extension


def _csv_records(path: Path, layout: _Layout) -> tuple[list[str], _Records]:
    """The header and the records of a CSV file."""
    rows = _csv_rows(path, layout.delimiter or ("\t" if _extension(path) == ".tsv" else ","))
    _, header = next(rows, (1, None))
    if header is None:
        _no_documents(path)
    for rival in _RIVAL_SEPARATORS:
        wanted = {layout.text_column, layout.labels_column}
        if len(header) == 1 and rival in header[0] and wanted & set(header[0].split(rival)):
            _fault(path, 1, f"the header is one cell, {header[0]!r}. Set --delimiter {rival!r}.")

    def records() -> _Records:
        """Yield the rows one by one."""
        for line, cells in rows:
            if len(cells) != len(header):
                _fault(
                    path,
                    line,
                    f"{len(cells)} cells, but the header has {len(header)}. Put a cell that contains the delimiter "
                    "between double quotes, or set --delimiter.",
                )
            yield line, dict(zip(header, cells, strict=True))

    return header, records()


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
                _fault(
                    path,
                    line,
                    f"not valid CSV from here on ({error}). Double the quotes inside a quoted cell and close it, or "
                    "set --delimiter.",
                    error,
                )
            if cells:
                yield line, cells
    finally:
        csv.field_size_limit(limit)


def _parquet_records(path: Path, layout: _Layout) -> tuple[list[str], _Records]:
    """The columns and the rows of a Parquet file; of `List(ClassLabel)` labels the names."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a complete Parquet file ({error}). Write or copy it again.") from error
    columns, labels_column = file.schema_arrow.names, layout.labels_column
    wanted = [name for name in (layout.text_column, labels_column, layout.id_column) if name in columns]

    def records() -> _Records:
        """Yield the rows one by one."""
        names = _class_names(path, file.schema_arrow, labels_column)
        for row, record in _parquet_rows(path, file, wanted):
            if names and isinstance(ids := record[labels_column], list):
                for i in ids:
                    if i is None or not 0 <= i < len(names):
                        expected = f"expected label ids from 0 to {len(names) - 1}"
                        _fault(path, row, f"{expected}, but {i} is not one. Correct the labels.")
                record[labels_column] = [names[i] for i in ids]
            yield row, record

    return columns, records()


def _parquet_rows(path: Path, file: pq.ParquetFile, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet file, read a thousand at a time."""
    row = 0
    try:
        for batch in file.iter_batches(batch_size=1000, columns=columns):
            for record in batch.to_pylist():
                row += 1
                yield row, record
    except (pa.ArrowException, OSError, OverflowError, ValueError) as error:
        _fault(path, row + 1, f"cannot be read ({error}). Write or copy the file again.", error)


def _class_names(path: Path, schema: pa.Schema, labels_column: str) -> list[str] | None:
    """The names of the label ids, if `datasets` wrote the file with labels of the type `List(ClassLabel)`."""
    if labels_column not in schema.names or b"huggingface" not in (schema.metadata or {}):
        return None
    try:
        features = Features.from_arrow_schema(pa.schema([schema.field(labels_column)], schema.metadata))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: the note of `datasets` on its columns cannot be read ({error!r}). Write the file again."
        ) from error
    feature = getattr(features[labels_column], "feature", None)
    return feature.names if isinstance(feature, ClassLabel) else None


# --- errors ----------------------------------------------------------------------------------------------------------


def _check_column(path: Path, columns: Sequence[str], wanted: str, option: str | None = None) -> None:
    """Raise if the file has the column `wanted` twice, or lacks it although an option names it."""
    if wanted not in columns and option is not None:
        raise ValueError(
            f"{path} has no column {wanted!r}; its columns are {_quoted(columns)}. Name the column with {option}; a "
            "CSV file must name its columns in its first line and use the delimiter given by --delimiter."
        )
    if columns.count(wanted) > 1:
        raise ValueError(f"{path} has {columns.count(wanted)} columns {wanted!r}. Rename or remove all but one.")


def _no_documents(path: Path) -> NoReturn:
    raise ValueError(f"{path} holds no documents: expected at least one, in CSV after the header.")


def _fault(path: Path, number: int, message: str, cause: Exception | None = None) -> NoReturn:
    raise ValueError(f"{path}, {_unit(path)} {number}: {message}") from cause


def _unexpected(path: Path, number: int, record: Mapping[str, Any], column: str, expected: str) -> NoReturn:
    found = f"nothing (the record has {_quoted(list(record))})"
    if column in record:
        found = f"{type(record[column]).__name__} {_shortened(record[column])}"
    _fault(path, number, f"expected {expected}, got {found}.")


def _unit(path: Path) -> str:
    return "row" if _extension(path) == ".parquet" else "line"


def _quoted(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - _SHOWN_COLUMNS} more" if len(columns) > _SHOWN_COLUMNS else ""
    return (", ".join(_shortened(column) for column in columns[:_SHOWN_COLUMNS]) or "none") + more


def _shortened(value: object, length: int = 60) -> str:
    text = _REPR.repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
