"""Reading a large JSON file piece by piece: an object whose members are long lists, such as those of COCO."""

import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from sgm_hf.data.lines import object_of_distinct_keys

from ._files import naming_damage

_BLANKS = re.compile(r"[ \t\r\n]*")


def read_sections(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Yield the items of the lists in a JSON object, one by one: key of the list, number from 1, and item.

    Other members of the object are checked and left out. No more than one item and a piece of the file is in memory.

    Args:
        path: The file, plain or `.gz`.

    Raises:
        ValueError: If the file is damaged, no JSON object, or gives a key twice.
    """
    try:
        with (
            naming_damage(path),
            (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream,
            io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text,
        ):
            yield from _sections(_Window(path, text))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); fetch the file again") from error


def _sections(window: "_Window") -> Iterator[tuple[str, int, Any]]:
    """Yield the items of the file that a window shows."""
    keys: set[str] = set()
    window.take("{")
    sign = window.take("}") if window.sign() == "}" else ","
    while sign == ",":
        window.where = f"key {len(keys) + 1}"
        key = window.value()
        if not isinstance(key, str) or key in keys:
            raise window.fault(f"got the key {str(key)[:40]!r}, expected a name that was not given before")
        keys.add(key)
        window.where = key
        window.take(":")
        if window.sign() != "[":
            window.value()
        else:
            window.take("[")
            number, after = 0, window.take("]") if window.sign() == "]" else ","
            while after == ",":
                number += 1
                window.where = f"{key}, item {number}"
                yield key, number, window.value()
                after = window.take(",]")
        sign = window.take(",}")
    window.where = "end"
    if window.sign():
        raise window.fault("something follows the object")


class _Window:
    """The piece of a file that is read, and the place in it.

    Args:
        path: The file, for errors.
        stream: Its text.
    """

    PIECE = 2**20  # characters that are read at once
    LIMIT = 2**26  # characters of one value; more than any of the published files has

    def __init__(self, path: Path, stream: TextIO) -> None:
        self.path = path
        self.where = "start"
        self._stream = stream
        self._text = ""
        self._place = 0
        self._line = 1  # of the beginning of the text
        self._decoder = json.JSONDecoder(object_pairs_hook=object_of_distinct_keys)

    def fault(self, what: str) -> ValueError:
        """The error for this place of the file."""
        line = self._line + self._text.count("\n", 0, self._place)
        return ValueError(f"{self.path}, line {line}, {self.where}: {what}; fetch the file again")

    def sign(self) -> str:
        """The next character that is not blank, which is not passed; empty at the end of the file."""
        while True:
            match = _BLANKS.match(self._text, self._place)
            self._place = match.end() if match else self._place
            if self._place < len(self._text) or not self._read_on():
                return self._text[self._place : self._place + 1]

    def take(self, expected: str) -> str:
        """Pass the next character that is not blank, one of those expected.

        Raises:
            ValueError: If it is another one, or the file ends.
        """
        sign = self.sign()
        if not sign or sign not in expected:
            found = repr(sign) if sign else "the end of the file"
            raise self.fault(f"not valid JSON (got {found}, expected {' or '.join(expected)})")
        self._place += 1
        return sign

    def value(self) -> Any:
        """Read the next value.

        Raises:
            ValueError: If it is not valid JSON, or longer than any value of the published files.
        """
        self.sign()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                # The value may only be cut off by the end of the piece.
                if len(self._text) - self._place > self.LIMIT or not self._read_on():
                    raise self.fault(f"not valid JSON ({error.msg})") from error
            except (RecursionError, ValueError) as error:
                what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
                raise self.fault(f"not valid JSON ({what})") from error
            else:
                length = end - self._place
                # A number that ends with the piece may go on behind it.
                if end < len(self._text) or not self._read_on():
                    self._place += length
                    return value

    def _read_on(self) -> bool:
        """Read another piece and drop what is passed; False at the end of the file."""
        # At least as long as what is kept, so that a long value needs few tries.
        piece = self._stream.read(max(self.PIECE, len(self._text) - self._place))
        self._line += self._text.count("\n", 0, self._place)
        self._text, self._place = self._text[self._place :] + piece, 0
        return bool(piece)
