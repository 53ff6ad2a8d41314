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
    """Find `name`, else `name.gz`, in a folder itself; None if neither is there."""
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    return None


def source_fingerprint(paths: Iterable[Path]) -> str:
    """Hash path, size and modification time of files, in any order, so that a cache can tell when one has changed."""
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        status = path.stat()
        digest.update(f"{path.resolve()}\n{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


# RuntimeError: a zip member is encrypted or packed by an unknown method.
_DAMAGE = (EOFError, OSError, RuntimeError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn the decompressors' errors for a damaged file into one that names the file.

    Raises:
        ValueError: If the file is truncated, not of its format, a gzip file of no bytes, or packed in an unknown way.
    """
    try:
        if path.suffix == ".gz" and path.stat().st_size == 0:
            raise EOFError("it is empty")  # gzip takes it for an archive of nothing
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.filename:  # missing or locked; damage has no file name
            raise
        raise ValueError(
            f"{path} is truncated or damaged ({error}), expected a complete {path.suffix} file; fetch it again"
        ) from error


def read_bytes(path: Path) -> bytes:
    """Read a whole file, decompressing `.gz`.

    Raises:
        ValueError: If the gzip file is empty, truncated or damaged.
    """
    with naming_damage(path):
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
