"""Files of a training folder: complete checkpoints, writes that a kill cannot halve, and one training at a time."""

import json
import logging
import os
import re
import shutil
import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

logger = logging.getLogger(__name__)

CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# What a checkpoint's fingerprint and the sizes of its files are kept in.
RECORD = "checkpoint.json"
STATE = "trainer_state.json"
# Pushing leaves out what begins with "_", as Transformers does.
LOCK = "_lock"
SAVING = "_saving-"
LEFTOVERS = (f"{SAVING}*", ".saving-*", "_*.part")
# What a checkpoint of an older version, which has no list, must hold; other names: FSDP's, several processes'.
NEEDED = (
    (STATE,),
    ("model.safetensors", "model.safetensors.index.json", "pytorch_model_fsdp*"),
    ("optimizer.pt", "optimizer.bin", "optimizer_*"),
    ("scheduler.pt",),
    ("rng_state.pth", "rng_state_*.pth"),
)


# ---- files ----


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write a file so that it holds either its old or its new content, never a part, also if several processes do."""
    temporary = Path(path).with_name(f"_{Path(path).name}.{os.getpid()}.part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def leftovers(output_dir: str | Path) -> list[Path]:
    """What a kill left half-written in a training folder: temporary files, and checkpoints that were only begun."""
    found = [path for pattern in LEFTOVERS for path in Path(output_dir).glob(pattern)]
    return sorted(found + [path for path in checkpoints_in(output_dir) if was_begun_only(path)])


def is_unused(output_dir: str | Path) -> bool:
    """Whether a folder holds nothing, or only what a kill left before the first complete checkpoint."""
    ignored = {*leftovers(output_dir), Path(output_dir, LOCK)}
    return not Path(output_dir).is_dir() or all(path in ignored for path in Path(output_dir).iterdir())


def remove_leftovers(output_dir: str | Path) -> None:
    """Remove the `leftovers` of a training folder; no other process may be training there."""
    for path in leftovers(output_dir):
        logger.warning("%s is removed: a kill left it half-written.", path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def alone_in(output_dir: str | Path) -> Iterator[None]:
    """Keep other processes from training in a folder; the operating system frees it when this process dies.

    Within one process it can be entered again. The folder is made, and removed if nothing was written to it.

    Raises:
        FileExistsError: If another process is in it.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    lock = FileLock(path.absolute(), timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        owner = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        raise FileExistsError(
            f"the output folder {folder} is in use by {owner or 'another process'}; wait until that has ended, or "
            "choose another output_dir."
        ) from error
    try:
        if lock.lock_counter == 1:
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        outermost = lock.lock_counter == 1
        if outermost:
            path.unlink(missing_ok=True)  # while it is held: filelock takes no lock on a file that is gone
        lock.release()
        if outermost:
            with suppress(OSError):  # there is something in it
                folder.rmdir()


# ---- checkpoints ----


def checkpoints_in(output_dir: str | Path) -> list[Path]:
    """The checkpoint folders of a training folder, complete or not, by their updates in descending order."""
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)]
    return sorted(filter(Path.is_dir, folders), key=lambda path: int(path.name.split("-")[1]), reverse=True)


def begin_checkpoint(checkpoint: str | Path) -> None:
    """Mark a checkpoint as begun, so that it counts as incomplete until `finish_checkpoint`."""
    Path(checkpoint).mkdir(parents=True, exist_ok=True)
    write_text_atomically(Path(checkpoint, RECORD), "{}\n")


def finish_checkpoint(checkpoint: str | Path, record: dict[str, Any]) -> None:
    """Write a checkpoint's record, with the sizes of the files that are there.

    Args:
        checkpoint: The folder. Only its `trainer_state.json` may still change, and must be written last.
        record: What else to keep.
    """
    folder = Path(checkpoint)
    names = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (RECORD, STATE))
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in names}
    write_text_atomically(folder / RECORD, json.dumps(record | {"files": files}, indent=2) + "\n")


def read_record(checkpoint: str | Path) -> dict[str, Any] | None:
    """A checkpoint's record, or None where it has none: then an older version wrote it.

    Raises:
        ValueError: If it cannot be read.
    """
    path = Path(checkpoint, RECORD)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def was_begun_only(checkpoint: str | Path) -> bool:
    """Whether a kill came while a checkpoint was written."""
    with suppress(ValueError):
        return read_record(checkpoint) == {}
    return False


def fault_of(checkpoint: str | Path) -> str | None:
    """Why training cannot be resumed from a checkpoint, or None if every file it needs is there and readable."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        return "it is not a folder"
    try:
        record = read_record(folder)
    except ValueError as error:
        return f"{RECORD} cannot be read ({error})"
    if record == {}:
        return "it was cut off while it was written"
    needed = NEEDED if record is None else ((STATE,), *((name,) for name in record["files"]))
    for names in needed:
        if not any(next(folder.glob(name), None) for name in names):
            return f"{names[0]} is missing"
    for name, size in (record or {"files": {}})["files"].items():
        found = (folder / name).stat().st_size
        if found != size:
            return f"{name} has {found:,} bytes, not {size:,}"
    faults = (fault_of_file(path) for path in sorted(folder.rglob("*")) if path.is_file())
    return next((fault for fault in faults if fault is not None), None)


def fault_of_file(path: Path) -> str | None:
    """Why a file of a checkpoint cannot be read, or None; of safetensors only the header is read."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                pass
        elif path.suffix in (".pt", ".pth", ".bin"):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
                if damaged is not None:
                    return f"{path.name} is damaged (checksum of {damaged})"
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        return f"{path.name} cannot be read ({error})"
    return None


def is_complete(checkpoint: str | Path) -> bool:
    """Whether training can be resumed from a checkpoint: every file it needs is there and readable."""
    return fault_of(checkpoint) is None


def has_complete_checkpoint(output_dir: str | Path) -> bool:
    """Whether a training folder holds a checkpoint to resume from."""
    return any(map(is_complete, checkpoints_in(output_dir)))


def last_complete_checkpoint(output_dir: str | Path) -> str:
    """The newest complete checkpoint of a training folder; each newer one is named in a warning with its fault.

    Raises:
        FileNotFoundError: If there is none.
    """
    faults = []
    for checkpoint in checkpoints_in(output_dir):
        fault = fault_of(checkpoint)
        if fault is None:
            return str(checkpoint)
        faults.append(f"{checkpoint.name}: {fault}")
        logger.warning("%s is skipped: %s.", checkpoint, fault)
    raise FileNotFoundError(
        f"{output_dir} holds no complete checkpoint to resume from ({len(faults)} incomplete"
        f"{''.join('; ' + fault for fault in faults)}); start again in an empty output_dir."
    )


def chosen_checkpoint(resume_from_checkpoint: str | bool | None) -> str | bool:
    """What `resume_from_checkpoint` means, in Python or as text ("true", "no", …): no, the newest one, or a folder."""
    if isinstance(resume_from_checkpoint, str):
        words = {"true": True, "yes": True, "false": False, "no": False, "none": False, "": False}
        return words.get(resume_from_checkpoint.lower(), resume_from_checkpoint)
    return bool(resume_from_checkpoint)


def find_checkpoint(resume_from_checkpoint: str | bool | None, output_dir: str | Path) -> str | None:
    """The complete checkpoint that training is to be resumed from, or None if it is to start from the beginning.

    Raises:
        FileNotFoundError: If there is no such checkpoint, or no complete one.
        ValueError: If the one named is not complete.
    """
    chosen = chosen_checkpoint(resume_from_checkpoint)
    if not isinstance(chosen, str):
        return last_complete_checkpoint(output_dir) if chosen else None
    if not Path(chosen).exists():
        raise FileNotFoundError(f"the checkpoint {chosen} to resume from does not exist; name one, or give true.")
    fault = fault_of(chosen)
    if fault is not None:
        raise ValueError(
            f"{chosen} is not a complete checkpoint to resume from: {fault}; name another one, or give true."
        )
    return chosen
