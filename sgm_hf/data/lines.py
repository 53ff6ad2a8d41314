"""Text files, plain or gzip, and JSON Lines files, read line by line; errors name file and line, counted from 1."""

import codecs
import gzip
import json
import reprlib
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MARKS_OF_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BLANKS = " \t\r\n"  # between the parts of a JSON file
_EXPECTED_ITEM = 'Expected a list of objects, e.g. [{"text": "…", "labels": ["…", "…"]}].'
_EXPECTED = 'Expected one object per line, e.g. {"text": "…", "labels": ["…", "…"]}.'


def read_lines(path: Path, keep_ends: bool = False, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    r"""Yield number and text of each line of a text file, which may be compressed (`.gz`).

    Only "\n" ends a line: other separators that Unicode knows are part of the text, and a byte order mark is not.

    Args:
        path: The file.
        keep_ends: Whether lines keep their ends. Without them, a carriage return within a line is an error.
        encoding: Encoding of the file, in which an end of line is one byte.

    Raises:
        ValueError: If a line is not in the encoding, or a gzip file is empty, truncated or damaged.
    """
    number, is_gzip = 0, path.suffix.lower() == ".gz"
    try:
        if is_gzip and path.stat().st_size == 0:
            raise EOFError("it is empty")  # gzip takes it for an archive of nothing
        with (gzip.open if is_gzip else open)(path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                text = line.decode("utf-8-sig" if number == 1 and encoding == "utf-8" else encoding)
                if not keep_ends and "\r" in (text := text.rstrip("\r\n")):
                    # An end of line of old Macs: several documents would be read as one.
                    raise ValueError(
                        f"{path}, line {number}: a carriage return within the line. Convert the ends of lines to \\n."
                    )
                yield number, text
    except UnicodeDecodeError as error:
        remedy = "Save the file as UTF-8, or name its encoding with --encoding, e.g. cp1252"
        if line.startswith(_MARKS_OF_UTF_16) and number == 1:
            remedy = "It begins as a UTF-16 file does: convert it with iconv -f utf-16 -t utf-8 OLD > NEW"
        raise ValueError(f"{path}, line {number}: not {encoding.upper()} ({error}). {remedy}.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}, line {number + 1}: the gzip stream breaks off or is damaged ({error}). Copy the file again."
        ) from error


def read_json_lines(
    path: Path, encoding: str = "utf-8", expected: str = _EXPECTED
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and object of each line of a JSON Lines file that is not blank.

    Args:
        path: The file, plain or `.gz`.
        encoding: Its encoding.
        expected: What a line should be, as a sentence for errors.

    Raises:
        ValueError: If a line cannot be read, is not a JSON object, gives a key twice or holds half a surrogate pair.
    """
    decoder = json.JSONDecoder(object_pairs_hook=object_of_distinct_keys)
    for number, line in read_lines(path, True, encoding):
        if not line.strip():
            continue
        try:
            record = decoder.decode(line.strip())
            if "\\u" in line:
                json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but not text
        except (RecursionError, ValueError) as error:
            # The place in a JSON error counts lines from the start of this line, which would confuse.
            what = f"{error.msg} at character {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise ValueError(f"{path}, line {number}: {_json_fault(error, what)}. {expected}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}: a JSON {type(record).__name__}. {expected}")
        yield number, record


def starts_json_list(path: Path, encoding: str = "utf-8") -> bool:
    """Whether the first character of a file that is not blank begins a JSON list."""
    first = next((line for _, line in read_lines(path, True, encoding) if line.strip()), "")
    return first.lstrip(_BLANKS).startswith("[")


def read_json_list(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number, counted from 1, and object of each item of a JSON file that is one list.

    The text of the file is read into memory as a whole, the objects one by one.

    Args:
        path: The file, plain or `.gz`.
        encoding: Its encoding.

    Raises:
        ValueError: If the file is not such a list, an object gives a key twice or holds half a surrogate pair.
    """
    text = "".join(line for _, line in read_lines(path, True, encoding))
    has_escapes = "\\u" in text
    decoder = json.JSONDecoder(object_pairs_hook=object_of_distinct_keys)
    place, number, sign = _after_blanks(text, text.index("[") + 1), 0, ","
    if text[place : place + 1] == "]":
        return
    while sign == ",":
        number += 1
        try:
            item, place = decoder.raw_decode(text, place)
            if has_escapes:
                json.dumps(item, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but not text
            place = _after_blanks(text, place)
            sign = text[place : place + 1]
            if sign not in (",", "]"):
                raise json.JSONDecodeError("a comma or the end of the list is missing", text, place)
            place = _after_blanks(text, place + 1)
            if sign == "]" and place < len(text):
                raise json.JSONDecodeError("something follows the list", text, place)
        except (RecursionError, ValueError) as error:
            what, where = str(error), f"item {number}"
            if isinstance(error, json.JSONDecodeError):
                what, where = f"{error.msg} at character {error.colno}", f"line {error.lineno}"
            raise ValueError(f"{path}, {where}: {_json_fault(error, what)}. {_EXPECTED_ITEM}") from error
        if not isinstance(item, dict):
            raise ValueError(f"{path}, item {number}: a JSON {type(item).__name__}. {_EXPECTED_ITEM}")
        yield number, item


def _after_blanks(text: str, place: int) -> int:
    """The first place from a given one on that is not blank, or the end."""
    while place < len(text) and text[place] in _BLANKS:
        place += 1
    return place


def _json_fault(error: Exception, what: str) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else f"not valid JSON ({what})"


def read_json_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file, plain or `.gz`, that is one object, such as `{"name": "text"}`.

    Raises:
        ValueError: If it is something else, or gives a key twice.
    """
    text = "".join(line for _, line in read_lines(path, keep_ends=True))
    try:
        content = json.loads(text, object_pairs_hook=object_of_distinct_keys)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path}: {_json_fault(error, str(error))}; correct the file.") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path}: a JSON {type(content).__name__}, expected one object, such as {{"name": "value"}}.')
    return content


def object_of_distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object; of a key given twice, only one of the values would be read."""
    record = dict(pairs)
    if len(record) < len(pairs):
        ((key, count),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {reprlib.repr(key)} is given {count} times")
    return record
