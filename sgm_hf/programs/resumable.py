"""An output file that grows window by window: a kill at any point loses one window at most, and repeats none.

Beside the output lies a record, `OUTPUT.progress.json`: how many documents and bytes of the output are final, and what
they were made with. Whatever lies behind these bytes was half-written by a kill, and is cut off before going on.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sgm_hf.training.checkpoints import write_text_atomically

READ_BYTES = 2**20


@dataclass
class Progress:
    """How far an output is.

    Args:
        made_with: Model and settings, as plain values by name.
        documents: Documents that are in the output.
        size: Bytes of the output that are final.
        output_hash: Hash of these bytes.
        input_hash: Hash of the documents that they were made from.
        counts: What else is counted over all documents, by name.
    """

    made_with: dict[str, Any]
    documents: int
    size: int
    output_hash: str
    input_hash: str
    counts: dict[str, int]


def record_of(output: Path) -> Path:
    """The file that says how far an output is."""
    return output.with_name(f"{output.name}.progress.json")


def new_digest() -> hashlib.blake2b:
    """The hash that outputs and inputs are compared by."""
    return hashlib.blake2b(digest_size=16)


def begin(output: Path, made_with: dict[str, Any], overwrite: bool) -> Progress:
    """The progress of an output that may go on; of a new one, and of one to be overwritten, none.

    Args:
        output: The file.
        made_with: What its documents will be made with.
        overwrite: Whether to begin anew.

    Raises:
        FileExistsError: If there is a file of another origin, or one made with something else.
        ValueError: If the record is damaged, or the output was changed after it was written.
    """
    made_with = json.loads(json.dumps(made_with))  # as it comes back from the record
    nothing = new_digest().hexdigest()
    new = Progress(made_with, 0, 0, nothing, nothing, {})
    if overwrite or not output.exists():
        return new
    remedy = "give --overwrite to begin anew, or another --output"
    if not record_of(output).exists():
        raise FileExistsError(f"{output} exists, but {record_of(output).name} is not beside it; {remedy}.")
    try:
        progress = Progress(**json.loads(record_of(output).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{record_of(output)} is damaged ({error}); {remedy}.") from error
    old = progress.made_with
    changed = [name for name in [*old, *(made_with.keys() - old)] if old.get(name) != made_with.get(name)]
    if changed:
        shown = ", ".join(f"{name}: {old.get(name)} → {made_with.get(name)}" for name in changed)
        raise FileExistsError(
            f"{output} has {progress.documents:,} documents that were labelled with another model or other settings "
            f"({shown}); go on with these, {remedy}."
        )
    if hash_of_file(output, progress.size) != progress.output_hash:
        raise ValueError(f"{output} was changed after it was written; {remedy}.")
    return progress


def hash_of_file(path: Path, size: int) -> str:
    """The hash of the first bytes of a file."""
    digest = new_digest()
    with open(path, "rb") as file:
        while block := file.read(min(READ_BYTES, size)):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


@contextmanager
def alone_with(output: Path) -> Iterator[None]:
    """Keep other processes from writing to a file; the operating system frees it when this process dies.

    Raises:
        FileExistsError: If another process is writing to it.
    """
    target = output.resolve()  # whatever name it goes by
    path = target.with_name(f"{target.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise FileExistsError(
            f"{output} is being written by another process; wait until that has ended, or give another --output."
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: filelock takes no lock on a file that is gone
        lock.release()


class ResumableFile:
    """The open output, to which windows of documents are appended.

    Args:
        path: The file.
        progress: How far it is; kept up to date here and in the record.

    Examples:
        >>> with ResumableFile(path, begin(path, made_with, overwrite=False)) as output:
        ...     output.append(lines, 2048, input_hash)
    """

    def __init__(self, path: Path, progress: Progress):
        self.path, self.progress = path, progress
        self.digest = new_digest()

    def __enter__(self) -> "ResumableFile":
        # The record first: a kill between the two leaves a record of nothing, which the next run takes as such.
        self._keep()
        self.file = open(self.path, "a+b")  # noqa: SIM115 (closed in __exit__)
        self.file.truncate(self.progress.size)
        self.file.seek(0)
        while block := self.file.read(READ_BYTES):
            self.digest.update(block)
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def append(self, lines: bytes, documents: int, input_hash: str, **counts: int) -> None:
        """Write a window so that it is wholly in the output, or not at all.

        Args:
            lines: The window as it stands in the file.
            documents: Their number.
            input_hash: Hash of all documents up to its end.
            **counts: Of this window, added to those of the record.
        """
        self.file.write(lines)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.digest.update(lines)
        progress = self.progress
        progress.documents += documents
        progress.size += len(lines)
        progress.output_hash, progress.input_hash = self.digest.hexdigest(), input_hash
        progress.counts = {name: progress.counts.get(name, 0) + count for name, count in counts.items()}
        self._keep()

    def _keep(self) -> None:
        """Write the record."""
        write_text_atomically(record_of(self.path), json.dumps(asdict(self.progress), indent=2) + "\n")
