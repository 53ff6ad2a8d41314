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

    The extension says what a file is: `.csv`, `.tsv` (both with a header), `.jsonl` or `.json` (JSON Lines: an object
    a line), each also with `.gz`; `.parquet`. Text files are UTF-8. Labels are a list of strings, or one string of
    names with a separator between them; in Parquet also the `List(ClassLabel)` that `datasets` writes. A name loses
    the blanks around it and is brought to Unicode's form NFC, so that what reads the same is the same label. A
    document may have no label. A test file may lack the labels column: it can be predicted, not evaluated. An empty
    text is an error in the training file only.

    Args:
        train_file: Training documents. Their labels are the labels of the data set, in alphabetical order.
        validation_file: Documents to select the model on.
        test_file: Documents to test or predict.
        text_column: Column of the text.
        labels_column: Column of the labels.
        label_separator: What stands between two labels where the labels are one string.
        delimiter: What stands between two cells; default: a comma in `.csv`, a tab in `.tsv`. In this and
            in `label_separator`, a backslash and a t mean a tab.
        id_column: Column of the documents' ids; without it a document is called after its line, as "train.csv:17".
        label_names: All labels, in place of the training file's; needed if there are labels and no training file. They
            are kept as they are given.
        unknown_labels: What to do with any other label in the validation or test file: "error", or "count", which
            keeps it in the additional column `unknown_labels`, to be counted as missed.

    Returns:
        The splits "train", "validation" and "test", as far as given. Features: `id` and `text` (string), `labels`
        (`List(ClassLabel)`; absent if the file has no labels column), and in the last two splits, if they have labels
        and `unknown_labels` is "count", `unknown_labels` (list of strings).

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
    documents = {split: _read_documents(path, layout, split) for split, path in paths.items()}
    names = _label_names(documents, label_names)
    return DatasetDict(
        {
            split: _to_dataset(part, names, unknown_labels if split != "train" else "error")
            for split, part in documents.items()
        }
    )


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
            encode_labels(labels, label2id, f"{file} {place}", unknown_labels)
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


# --- from the records of a file to documents -------------------------------------------------------------------------


def _read_documents(path: Path, layout: _Layout, split: str) -> _Documents:
    """Read and check one file."""
    columns, records = _open_records(path, layout)
    _check_column(path, columns, layout.text_column, "--text_column")
    _check_distinct(path, columns, layout.id_column)
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
    for place, record in records:
        text = _text(path, place, record, layout.text_column)
        if split == "train" and not text.strip():
            _fault(path, place, f"the text ({layout.text_column!r}) is empty. Remove the document, or give it a text.")
        documents.places.append(place)
        documents.ids.append(_document_id(path, place, record, layout.id_column))
        documents.texts.append(text)
        if documents.labels is not None:
            documents.labels.append(_labels(path, place, record, layout))
            if isinstance(record[layout.labels_column], str):
                joined_labels.append(record[layout.labels_column])
        elif layout.labels_column in record:
            _fault(path, place, f"has {layout.labels_column!r}, but the first record has not: give it to all or none.")
    if not documents.ids:
        _no_documents(path)
    _check_separator(path, [cell for cell in joined_labels if cell.strip()], layout.label_separator)
    return documents


def _text(path: Path, place: int, record: Mapping[str, Any], column: str) -> str:
    text = record.get(column)
    if not isinstance(text, str):
        _fault(path, place, f"expected a text in {column!r}, got {_found(record, column)}.")
    return text


def _document_id(path: Path, place: int, record: Mapping[str, Any], column: str) -> str:
    if column not in record:
        return f"{path.name}:{place}"
    if not isinstance(record[column], str | int):
        _fault(path, place, f"expected a text or an integer in {column!r}, got {_found(record, column)}.")
    return str(record[column])


def _labels(path: Path, place: int, record: Mapping[str, Any], layout: _Layout) -> list[str]:
    """The label names of one record, in their order."""
    value = record.get(layout.labels_column)
    if isinstance(value, str):
        return [_label_name(name) for name in value.split(layout.label_separator) if name.strip()]
    if not isinstance(value, list):
        _fault(
            path,
            place,
            f"expected the labels in {layout.labels_column!r} as a list of texts, or as one text with "
            f"{layout.label_separator!r} between two labels, got {_found(record, layout.labels_column)}.",
        )
    for name in value:
        if not isinstance(name, str) or not name.strip():
            _fault(
                path,
                place,
                f"expected a list of label names in {layout.labels_column!r}, but {_shortened(name)} is none.",
            )
    return [_label_name(name) for name in value]


def _label_name(text: str) -> str:
    """The label that a text names: what reads the same, with blanks around it or in another Unicode form, is one."""
    return unicodedata.normalize("NFC", text.strip())


def _check_separator(path: Path, cells: Sequence[str], separator: str) -> None:
    """Raise or warn if the labels of a file, given as strings, seem to be joined in another way than by `separator`.

    The sign is that no cell contains the separator while most contain another. It is an error if splitting by the
    other leaves fewer labels, since parts that return in several cells are labels; else these may be names with a
    comma.
    """
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
    return _jsonl_records(path)


def _extension(path: Path) -> str:
    name = path.name.lower()
    extension = Path(name.removesuffix(".gz")).suffix
    if extension not in _EXTENSIONS or (extension == ".parquet" and name.endswith(".gz")):
        raise ValueError(
            f"{path} has an extension that says nothing of its format: expected {', '.join(_EXTENSIONS)}, "
            "or one of these but Parquet followed by .gz. Rename or convert the file."
        )
    return extension


def _csv_records(path: Path, layout: _Layout) -> tuple[list[str], _Records]:
    delimiter = layout.delimiter or ("\t" if _extension(path) == ".tsv" else ",")
    rows = _csv_rows(path, delimiter)
    _, header = next(rows, (1, None))
    if header is None:
        _no_documents(path)
    _check_delimiter(path, header, (layout.text_column, layout.labels_column))

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


def _check_delimiter(path: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise if the header is a single cell that another delimiter would split into the columns wanted."""
    for rival in _RIVAL_SEPARATORS:
        if len(header) == 1 and rival in header[0] and set(wanted) & set(header[0].split(rival)):
            _fault(path, 1, f"the header is one cell, {header[0]!r}. Set --delimiter {rival!r}.")


def _jsonl_records(path: Path) -> tuple[list[str], _Records]:
    records = read_json_lines(path)
    first = next(records, None)
    if first is None:
        _no_documents(path)
    return list(first[1]), chain([first], records)


def _parquet_records(path: Path, layout: _Layout) -> tuple[list[str], _Records]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a complete Parquet file ({error}). Write or copy it anew.") from error
    columns = file.schema_arrow.names
    wanted = [name for name in (layout.text_column, layout.labels_column, layout.id_column) if name in columns]

    def records() -> _Records:
        """Yield the rows."""
        names = _class_names(path, file.schema_arrow, layout.labels_column)
        for row, record in enumerate(_parquet_rows(path, file, wanted), start=1):
            if names and isinstance(record[layout.labels_column], list):
                record[layout.labels_column] = _names_of_ids(path, row, record[layout.labels_column], names)
            yield row, record

    return columns, records()


def _parquet_rows(path: Path, file: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, a batch of the file at a time."""
    row = 0
    try:
        for batch in file.iter_batches(batch_size=1000, columns=columns):
            for record in batch.to_pylist():
                row += 1
                yield record
    except (pa.ArrowException, OSError, OverflowError, ValueError) as error:
        _fault(path, row + 1, f"cannot be read ({error}). Write or copy the file anew.", error)


def _class_names(path: Path, schema: pa.Schema, labels_column: str) -> list[str] | None:
    """The names of the label ids, if `datasets` wrote the file with labels of the type `List(ClassLabel)`."""
    if labels_column not in schema.names or b"huggingface" not in (schema.metadata or {}):
        return None
    try:
        features = Features.from_arrow_schema(pa.schema([schema.field(labels_column)], schema.metadata))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: the note of `datasets` on its columns cannot be read ({error!r}). Write the file anew."
        ) from error
    feature = getattr(features[labels_column], "feature", None)
    return feature.names if isinstance(feature, ClassLabel) else None


def _names_of_ids(path: Path, row: int, ids: list[int | None], names: Sequence[str]) -> list[str]:
    for label in ids:
        if label is None or not 0 <= label < len(names):
            _fault(
                path, row, f"expected label ids from 0 to {len(names) - 1}, but {label} is none. Correct the labels."
            )
    return [names[label] for label in ids if label is not None]


# --- errors ----------------------------------------------------------------------------------------------------------


def _check_column(path: Path, columns: Sequence[str], wanted: str, option: str) -> None:
    """Raise unless the file has the column `wanted`, which `option` names, exactly once."""
    if wanted not in columns:
        raise ValueError(
            f"{path} has no column {wanted!r}; its columns are {_quoted(columns)}. Name the column with {option}; a "
            "CSV file must name its columns in its first line and use the delimiter given by --delimiter."
        )
    _check_distinct(path, columns, wanted)


def _check_distinct(path: Path, columns: Sequence[str], wanted: str) -> None:
    """Raise if the file has the column `wanted` more than once."""
    if columns.count(wanted) > 1:
        raise ValueError(f"{path} has {columns.count(wanted)} columns {wanted!r}. Rename or remove all but one.")


def _no_documents(path: Path) -> NoReturn:
    raise ValueError(f"{path} holds no documents: expected at least one, in CSV after the header.")


def _unit(path: Path) -> str:
    return "row" if _extension(path) == ".parquet" else "line"


def _fault(path: Path, place: int, message: str, cause: Exception | None = None) -> NoReturn:
    raise ValueError(f"{path}, {_unit(path)} {place}: {message}") from cause


def _found(record: Mapping[str, Any], column: str) -> str:
    """What a record has in place of the value wanted."""
    if column not in record:
        return f"nothing (the record has {_quoted(list(record))})"
    return f"{type(record[column]).__name__} {_shortened(record[column])}"


def _quoted(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - _SHOWN_COLUMNS} more" if len(columns) > _SHOWN_COLUMNS else ""
    return (", ".join(_shortened(column) for column in columns[:_SHOWN_COLUMNS]) or "none") + more


def _shortened(value: object, length: int = 60) -> str:
    text = _REPR.repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
