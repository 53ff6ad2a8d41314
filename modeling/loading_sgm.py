"""Checks on a checkpoint that is being loaded: safetensors, undamaged, and of the shapes its configuration says."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

SHA256 = re.compile(r"[0-9a-f]{64}")


def refuse_pickles(use_safetensors: bool | None) -> None:
    """
    Refuses to look for weights in pickle format.

    Args:
        use_safetensors (`bool`, *optional*): What the user asked for.

    Raises:
        ValueError: When it is `False`.
    """
    if use_safetensors is False:
        raise ValueError(
            "use_safetensors is False, but weights in pickle format may run code when they are read; expected "
            "model.safetensors. Convert weights that you trust: model.load_state_dict(torch.load(file, "
            "weights_only=True)), then model.save_pretrained(folder)."
        )


def check_shapes(checkpoint: Any, mismatched: set[tuple[str, Any, Any]]) -> None:
    """
    Refuses weights that do not fit the model.

    Args:
        checkpoint (`str` or `os.PathLike`): Its name, for the error.
        mismatched (`set[tuple]`): Name, stored shape and expected shape of each weight that does not fit.

    Raises:
        RuntimeError: When there is one.
    """
    if mismatched:
        name, stored, expected = min(mismatched)
        raise RuntimeError(
            f"{len(mismatched)} weights of {checkpoint} do not fit its configuration; {name}: stored {tuple(stored)}, "
            f"expected {tuple(expected)}. Take config.json and weights from the same checkpoint, or give "
            "ignore_mismatched_sizes=True to train these anew."
        )


def check_hashes(checkpoint: Any, cache_dir: Any = None, revision: str | None = None, subfolder: str = "") -> None:
    """
    Compares weights that came from the Hub with their SHA-256, under which the cache keeps them.

    Nothing else does: a byte that changed on its way or on the disk would be a wrong weight and no error.

    Args:
        checkpoint (`str` or `os.PathLike`): Name of the repository; a folder has no hashes and is not checked.
        cache_dir (`str` or `os.PathLike`, *optional*): The cache, if not the usual one.
        revision (`str`, *optional*): Branch, tag or commit.
        subfolder (`str`, *optional*, defaults to `""`): Folder in the repository.

    Raises:
        OSError: When a file has another hash.
    """
    if checkpoint is None or os.path.exists(checkpoint):
        return

    def cached(name: str) -> Path | None:
        path = try_to_load_from_cache(str(checkpoint), f"{subfolder}/{name}".lstrip("/"), cache_dir, revision)
        return Path(path).resolve() if isinstance(path, str) else None

    names = {SAFE_WEIGHTS_NAME}
    index = cached(SAFE_WEIGHTS_INDEX_NAME)
    if index is not None:
        names |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    for file in filter(None, map(cached, names)):
        if SHA256.fullmatch(file.name):
            with open(file, "rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            if digest != file.name:
                raise OSError(
                    f"The weights of {checkpoint} are damaged: their SHA-256 is {digest}, expected {file.name}. Fetch "
                    "them again with force_download=True."
                )


__all__ = ["check_hashes", "check_shapes", "refuse_pickles"]
