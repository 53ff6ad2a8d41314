"""Finding and reading source files, plain or gzip, with errors that name the file and the line."""

import gzip
import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def find_file(folder: Path, name: str) -> Path | None:
    """Find `name` or `name.gz` in a folder.

    Args:
        folder: where to look; subfolders are not searched.
        name: file name without `.gz`.

    Returns:
        The plain file if it is there, else the gzip file, else None.
    """
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    return None


def source_fingerprint(paths: Iterable[Path]) -> str:
    """Summarise path, size and modification time of files, so that a cache can tell when one of them changed.

    Args:
        paths: existing files, in any order.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        status = path.stat()
        digest.update(f"{path.resolve()}\n{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


# RuntimeError: a zip member is encrypted or packed by an unknown method.
_DAMAGE = (EOFError, OSError, RuntimeError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn the decompressors' errors for a damaged file into a ValueError that names the file.

    Args:
        path: the file being read.

    Raises:
        ValueError: the file is truncated, not of its format, a gzip file of no bytes, or packed in an unknown way.
    """
    try:
        if path.suffix == ".gz" and path.stat().st_size == 0:
            raise EOFError("it is empty")  # gzip takes it for an archive of nothing
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.filename:  # missing or locked; damage has no name, as a place below 0
            raise
        raise ValueError(
            f"{path} is truncated or damaged ({error}), expected a complete {path.suffix} file; fetch it again"
        ) from error


def read_bytes(path: Path) -> bytes:
    """Read a whole file, decompressing `.gz`.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        ValueError: the gzip file is empty, truncated or damaged.
    """
    with naming_damage(path):
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Read a UTF-8 text file line by line, decompressing `.gz`.

    Only "\n" ends a line: other separators that Unicode knows are part of the text.

    Args:
        path: the file.

    Yields:
        The line number, from 1, and the line without its end.

    Raises:
        ValueError: a line is not UTF-8 or holds a carriage return, or the gzip file is empty, truncated or damaged.
    """
    opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    with naming_damage(path), opened as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: byte {error.object[error.start]:#04x} is not UTF-8; "
                    "convert the file to UTF-8 or fetch it again"
                ) from error
            if "\r" in text:  # an end of line of old Macs: several documents would be read as one
                raise ValueError(
                    f"{path}, line {number}: a carriage return within the line; convert the ends of lines to \\n, or "
                    "fetch the file again"
                )
            yield number, text
