"""Text files, plain or gzip, and JSON Lines files, read line by line; errors name file and line, counted from 1."""

import gzip
import json
import reprlib
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_EXPECTED = 'Expected one object per line, e.g. {"text": "…", "labels": ["…", "…"]}.'


def read_lines(path: Path, keep_ends: bool = False) -> Iterator[tuple[int, str]]:
    r"""Yield number and text of each line of a UTF-8 file, which may be compressed (`.gz`).

    Only "\n" ends a line: other separators that Unicode knows are part of the text, and a byte order mark is not.

    Args:
        path: The file.
        keep_ends: Whether lines keep their ends. Without them, a carriage return within a line is an error.

    Raises:
        ValueError: If a line is not UTF-8, or a gzip file is empty, truncated or damaged.
    """
    number, is_gzip = 0, path.suffix.lower() == ".gz"
    try:
        if is_gzip and path.stat().st_size == 0:
            raise EOFError("it is empty")  # gzip takes it for an archive of nothing
        with (gzip.open if is_gzip else open)(path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if not keep_ends and "\r" in (text := text.rstrip("\r\n")):
                    # An end of line of old Macs: several documents would be read as one.
                    raise ValueError(
                        f"{path}, line {number}: a carriage return within the line. Convert the ends of lines to \\n."
                    )
                yield number, text
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error}). Save the file as UTF-8.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}, line {number + 1}: the gzip stream breaks off or is damaged ({error}). Copy the file again."
        ) from error


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and object of each line of a JSON Lines file that is not blank.

    Args:
        path: The file, plain or `.gz`.

    Raises:
        ValueError: If a line cannot be read, is not a JSON object, gives a key twice or holds half a surrogate pair.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_object_of_distinct_keys)
    for number, line in read_lines(path, keep_ends=True):
        if not line.strip():
            continue
        try:
            record = decoder.decode(line.strip())
            if "\\u" in line:
                json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but not text
        except (RecursionError, ValueError) as error:
            # The place in a JSON error counts lines from the start of this line, which would confuse.
            what = f"{error.msg} at character {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            fault = "nested too deeply" if isinstance(error, RecursionError) else f"not valid JSON ({what})"
            raise ValueError(f"{path}, line {number}: {fault}. {_EXPECTED}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}: a JSON {type(record).__name__}. {_EXPECTED}")
        yield number, record


def _object_of_distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object; of a key given twice, only one of the values would be read."""
    record = dict(pairs)
    if len(record) < len(pairs):
        ((key, count),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {reprlib.repr(key)} is given {count} times")
    return record
