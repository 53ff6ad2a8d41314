"""What a user says of his data: which columns hold texts and labels, and how they are written."""

import codecs
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import ClassVar

from .labels import check_label_names
from .lines import read_lines
from .records import Records

_TYPED = (("\\t", "\t"), ("\\n", "\n"))  # a shell passes a backslash and a t on as they are


@dataclass(frozen=True)
class Layout:
    r"""How to find texts and labels in a file, a DataFrame or a data set.

    Several columns are a sequence of names, or one string with commas between them.

    Args:
        text_column: Column of the text, or several whose texts are joined (those that are empty are left out).
        labels_column: Column of the labels: a list of names, names with a separator between them, with
            `multi_hot_names` a list of 0 and 1; null is no label.
        label_separator: Text between two labels where the labels are one string.
        delimiter: Character between two cells; default: a comma in `.csv`, a tab in `.tsv`. In this and in both
            separators, a backslash and a t mean a tab.
        id_column: Column of the documents' ids; without it they are file name and line, as "train.csv:17".
        labels_columns: In place of `labels_column`, the columns of one label each. The column's name is the label's;
            its cells are 0 or 1, true or false, yes or no, or empty. "topic_*" means the columns that begin so, "*"
            all but those of text and id.
        multi_hot_names: Label names where the labels are a list of 0 and 1 with a number for each of them; a path: a
            file with one name per line.
        text_separator: Text between the texts of several columns.
        encoding: Encoding of text files.

    Raises:
        ValueError: If a separator is empty, an encoding unknown, or label names are invalid.
    """

    text_option: ClassVar[str] = "--text_column"  # that names the column, for errors

    text_column: str | Sequence[str] = "text"
    labels_column: str = "labels"
    label_separator: str = "|"
    delimiter: str | None = None
    id_column: str = "id"
    labels_columns: str | Sequence[str] | None = None
    multi_hot_names: str | Path | Sequence[str] | None = None
    text_separator: str = "\n"
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if not self.label_separator:
            raise ValueError(
                "The label separator is empty: give the text between two labels, e.g. --label_separator '|'."
            )
        for name in ("label_separator", "delimiter", "text_separator"):
            for typed, meant in _TYPED:
                if (value := getattr(self, name)) is not None:
                    object.__setattr__(self, name, value.replace(typed, meant))
        if self.multi_hot_names is not None:
            if self.labels_columns is not None:
                raise ValueError(
                    "--labels_columns and --multi_hot_names: give the first for a column per label, the second for "
                    "one column of lists of 0 and 1."
                )
            names = _names(self.multi_hot_names)
            check_label_names(names)
            object.__setattr__(self, "multi_hot_names", tuple(names))
        object.__setattr__(self, "encoding", _checked_encoding(self.encoding))

    def text_columns(self, records: Records) -> list[str]:
        """The columns of the text.

        Raises:
            ValueError: If one is missing or there twice.
        """
        return _matching(records, self.text_column, self.text_option)

    def label_columns(self, records: Records, is_required: bool) -> list[str]:
        """The column of the labels, or those of one label each; none if there is none and need not be.

        Raises:
            ValueError: If one is missing that must be there, or one is there twice.
        """
        if self.labels_columns is not None:
            not_meant = {*self.text_columns(records), self.id_column}
            return _matching(records, self.labels_columns, "--labels_columns", not_meant, is_required)
        option = "--labels_column (where each label has a column of its own, name them with --labels_columns)"
        return _matching(records, [self.labels_column], option, is_required=is_required)

    def names_of_columns(self) -> set[str]:
        """All column names that the layout may mean, to recognize them in a header."""
        given = (self.text_column, self.labels_column, self.labels_columns or ())
        return {name for part in given for name in [part, *_parts(part)] if isinstance(name, str)}


class ImageLayout(Layout):
    """A layout whose texts are the paths of images."""

    text_option = "--image_column"


def _parts(given: str | Sequence[str]) -> list[str]:
    """The names in a string with commas between them, or in a sequence."""
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)


def _matching(
    records: Records,
    given: str | Sequence[str],
    option: str,
    not_meant: Collection[str] = (),
    is_required: bool = True,
) -> list[str]:
    """The columns that a setting names, each once.

    Args:
        records: What has the columns.
        given: Their names or patterns.
        option: The setting, for errors.
        not_meant: Columns that a pattern does not mean.
        is_required: Whether they must be there; else all may be missing, but not some.
    """
    found = {}
    for name in [given] if given in records.columns else _parts(given):
        found[name] = [name] if name in records.columns else []
        if not found[name] and "*" in name:
            found[name] = [c for c in records.columns if fnmatchcase(c, name) and c not in not_meant]
    if not is_required and not any(found.values()):
        return []
    for name, columns in found.items():
        if not columns:
            records.no_column(name, option)
        for column in columns:
            records.check_column(column)
    return list(dict.fromkeys(chain.from_iterable(found.values())))


def _names(given: str | Path | Sequence[str]) -> list[str]:
    """Label names: given, or read from a file with one per line."""
    if not isinstance(given, str | Path):
        return list(given)
    if Path(given).is_file():
        return [line.strip() for _, line in read_lines(Path(given)) if line.strip()]
    if isinstance(given, Path) or "," not in given:
        raise FileNotFoundError(
            f"{given} does not exist: expected a file with one label name per line, or the names with commas between "
            "them. Correct --multi_hot_names."
        )
    return _parts(given)


def _checked_encoding(encoding: str) -> str:
    """The usual name of an encoding, in which lines can be found byte by byte."""
    try:
        name = codecs.lookup(encoding).name.removesuffix("-sig")  # a byte order mark is left out in any case
        end = "\n".encode(name)
    except (LookupError, UnicodeError, TypeError) as error:
        raise ValueError(f"--encoding {encoding!r} is no encoding: give one such as utf-8 or cp1252.") from error
    if end != b"\n":
        raise ValueError(
            f"--encoding {encoding}: files of two or four bytes a character are not read. Convert the file, e.g. with "
            f"iconv -f {encoding} -t utf-8 OLD > NEW."
        )
    return name
