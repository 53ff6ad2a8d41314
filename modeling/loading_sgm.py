"""Checks on a checkpoint that is being loaded: safetensors, undamaged, and the weights its configuration describes."""

import contextlib
import hashlib
import re
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

SHA256 = re.compile(r"[0-9a-f]{64}")
# As safetensors names them. Whole numbers would be cast without a word, eight bits need a scale that we do not have.
WEIGHT_TYPES = ("BF16", "F16", "F32", "F64")
# Buffers of the lexical branch that are whole numbers, not weights: pairs of words, and where what is stored for its
# nearest neighbors begins and belongs; with their types.
INDICES = {
    "lexical.bigrams": "I64",
    "lexical.neighbors.starts": "I64",
    "lexical.neighbors.documents": "I32",
    "lexical.neighbors.label_starts": "I64",
    "lexical.neighbors.labels": "I32",
}
TRAIN_ANEW = "or give ignore_mismatched_sizes=True to train these anew"


def refuse_pickles(use_safetensors: bool | None) -> None:
    """Refuses to look for weights in pickle format.

    Raises:
        ValueError: If `use_safetensors` is `False`.
    """
    if use_safetensors is False:
        raise ValueError(
            "use_safetensors is False, but weights in pickle format may run code when they are read; expected "
            "model.safetensors. Convert weights that you trust: model.load_state_dict(torch.load(file, "
            "weights_only=True)), then model.save_pretrained(folder)."
        )


def check_names(checkpoint: Any, missing: set[str], unexpected: set[str]) -> None:
    """Refuses a checkpoint that lacks weights, which Transformers would initialise, or has some of another model.

    Args:
        checkpoint: Its name, for the error.
        missing: Weights of the model that the checkpoint does not have.
        unexpected: Weights of the checkpoint that the model does not have.

    Raises:
        ValueError: If there is one of either.
    """
    if missing or unexpected:
        raise ValueError(
            f"The weights of {checkpoint} are not those that its configuration describes: {_some(missing)} missing, "
            f"{_some(unexpected)} not expected. Take config.json and weights from the same checkpoint, {TRAIN_ANEW}."
        )


def _some(names: set[str]) -> str:
    """How many names there are, and the first of them."""
    shown = ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} ({shown})" if names else "none"


def unusable_weights(files: Iterable[str], names: Set[str]) -> dict[str, str]:
    """Finds stored weights that are not numbers of a floating-point type, or not finite.

    Args:
        files: In safetensors format.
        names: The weights to look at.

    Returns:
        What is wrong, by the name of the weight.
    """
    faults: dict[str, str] = {}
    for file in files:
        with safe_open(file, framework="pt") as weights:
            for name in names & weights.keys():
                stored_type, weight = weights.get_slice(name).get_dtype(), weights.get_tensor(name)
                if name in INDICES:
                    fault = index_fault(name, stored_type, weight)
                    faults |= {} if fault is None else {name: fault}
                elif stored_type not in WEIGHT_TYPES:
                    faults[name] = f"of type {stored_type}, expected one of {', '.join(WEIGHT_TYPES)}"
                # Lowest and highest are NaN where any value is; they take no copy of the weight.
                elif weight.numel() and not all(bound.isfinite() for bound in torch.aminmax(weight)):
                    faults[name] = "not finite (it holds NaN or inf), as after a training that diverged"
    return faults


def index_fault(name: str, stored_type: str, numbers: torch.Tensor) -> str | None:
    """What is wrong with whole numbers of the lexical branch, none of which is negative; None if nothing is.

    Args:
        name: One of `INDICES`.
        stored_type: As safetensors calls it.
        numbers: (any number).
    """
    expected = INDICES[name]
    if stored_type != expected:
        return f"of type {stored_type}, expected {expected}"
    if numbers.numel() and int(numbers.min()) < 0:
        return "negative at some place, expected numbers from 0 on"
    steps = numbers.diff()
    if (name.endswith("starts") and (steps < 0).any()) or (name.endswith("bigrams") and (steps <= 0).any()):
        return "not in ascending order"
    return None


def check_values(checkpoint: Any, faults: dict[str, str]) -> None:
    """Refuses weights with which no prediction means anything.

    Args:
        checkpoint: Its name, for the error.
        faults: Result of [`unusable_weights`].

    Raises:
        ValueError: If there is one.
    """
    if faults:
        name = min(faults)
        raise ValueError(
            f"{len(faults)} weights of {checkpoint} cannot be used; {name} is {faults[name]}. Take an earlier "
            f"checkpoint, {TRAIN_ANEW}."
        )


def check_hashes(checkpoint: Any, files: Iterable[str]) -> None:
    """Compares weights that came from the Hub with their SHA-256, under which the cache keeps them.

    Nothing else does: a byte that changed on its way would be a wrong weight and no error. A file is hashed once after
    it was fetched: what passed has an empty file beside it that is not older.

    Args:
        checkpoint: Name of the repository, for the error.
        files: The files of its weights; those of a folder have no hashes and are not checked.

    Raises:
        OSError: If a file has another hash.
    """
    for file in (Path(file).resolve() for file in files):
        passed = file.with_name(f"{file.name}.passed")
        if not SHA256.fullmatch(file.name) or (passed.exists() and passed.stat().st_mtime >= file.stat().st_mtime):
            continue
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != file.name:
            passed.unlink(missing_ok=True)
            raise OSError(
                f"The weights of {checkpoint} are damaged: their SHA-256 is {digest}, expected {file.name}. Fetch "
                "them again with force_download=True."
            )
        with contextlib.suppress(OSError):  # a cache that cannot be written to
            passed.touch()


__all__ = ["check_hashes", "check_names", "check_values", "refuse_pickles", "unusable_weights"]
