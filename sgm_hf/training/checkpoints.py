"""Files of a training folder: complete checkpoints, and writes that a kill cannot halve."""

import json
import os
import re
from pathlib import Path

CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write a file so that it holds either its old or its new content, never a part.

    Args:
        path: The file.
        text: Its new content.
    """
    temporary = Path(f"{path}.part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def is_complete(checkpoint: str | Path) -> bool:
    """Whether a checkpoint was written to its end: its `trainer_state.json`, written last, can be read."""
    try:
        json.loads(Path(checkpoint, "trainer_state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True


def last_complete_checkpoint(output_dir: str | Path) -> str:
    """The complete checkpoint of the most updates in a training folder; one cut short by a kill is passed over.

    Args:
        output_dir: The training's folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)]
    complete = [path for path in folders if is_complete(path)]
    if not complete:
        raise FileNotFoundError(
            f"{output_dir} holds no complete checkpoint to resume from ({len(folders)} incomplete); "
            "start anew in an empty output_dir."
        )
    return str(max(complete, key=lambda path: int(path.name.split("-")[1])))
