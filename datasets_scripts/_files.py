"""Finding and reading source files, plain or packed, with errors that name the file."""

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
