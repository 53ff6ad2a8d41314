"""Label hierarchies: which label lies below which; read from files, and completed in training documents.

A hierarchy gives each label its parent, or None where no label is above it. It is a forest: no label has two parents.
"""

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from datasets import ClassLabel, Dataset, List

from sgm_hf.data.lines import read_json_object, read_lines

Label = TypeVar("Label", bound=Hashable)

# What the published file of RCV1-V2 has above its topics. Neither is a label.
_ROOTS = ("Root", "None")
_LINE = re.compile(r"\s*parent:\s+(\S.*?)\s+child:\s+(\S.*?)(?:\s+child-description:.*)?\s*")


def read_label_hierarchy(path: str | Path) -> dict[str, str | None]:
    """Read a label hierarchy from a file.

    Args:
        path: Lines "parent: C15 child: C151", as rcv1.topics.hier has them, where "Root" stands for no label; or a
            `.json` file of one object that gives each label its parent, or null. Either may be compressed (`.gz`).

    Returns:
        The parent of each label, None of those at the top, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, a label has two parents, or labels are above each other in a circle.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of a label hierarchy {path}; correct its path.")
    is_json = path.name.removesuffix(".gz").lower().endswith(".json")
    parents: dict[str, str | None] = {}
    for where, child, parent in json_pairs(path) if is_json else line_pairs(path):
        known = parents.setdefault(child, parent)
        if known != parent:
            raise ValueError(
                f"{where}: the label {child!r} is below {parent!r}, but further up in the file below {known!r}; a "
                "label has one parent: leave one of them out."
            )
    if not parents:
        raise ValueError(f"{path} names no label; expected lines 'parent: P child: C', or a JSON object.")
    parents |= dict.fromkeys(parent for parent in parents.values() if parent is not None and parent not in parents)
    try:
        label_depths(parents)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return parents


def line_pairs(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yield the place, child and parent of each line "parent: P child: C"; None for "Root", which is no child.

    Raises:
        ValueError: If a line is not of that form.
    """
    for number, line in read_lines(path):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(
                f"{path}, line {number}: got {line[:80]!r}, expected 'parent: P child: C'; correct the line, or fetch "
                "the file again."
            )
        parent, child = found.groups()
        if child not in _ROOTS:
            yield f"{path}, line {number}", child, None if parent in _ROOTS else parent


def json_pairs(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yield the place, child and parent of each entry of a JSON object.

    Raises:
        ValueError: If the file is no JSON object of names and names or null, or has a label twice.
    """
    for child, parent in read_json_object(path).items():
        if parent is not None and not isinstance(parent, str):
            raise ValueError(f"{path}: the parent of {child!r} is {parent!r}; expected the name of a label, or null.")
        yield str(path), child, parent


def label_depths(parents: Mapping[str, str | None]) -> dict[str, int]:
    """How many labels are above each label, in linear time.

    Args:
        parents: The parent of each label; of those at the top None, or none at all.

    Raises:
        ValueError: If labels are above each other in a circle.
    """
    depths: dict[str, int] = {}
    for first in parents:
        path: dict[str, None] = {}  # from the label up to one that is known, or to the top
        label: str | None = first
        while label is not None and label not in depths:
            if label in path:
                circle = [*path][[*path].index(label) :] + [label]
                raise ValueError(
                    f"the label hierarchy has a cycle, {' below '.join(map(repr, circle))}; leave one of them out."
                )
            path[label] = None
            label = parents.get(label)
        known = -1 if label is None else depths[label]
        depths |= {below: known + steps for steps, below in enumerate(reversed(path), 1)}
    return depths


def parents_of_labels(hierarchy: Mapping[str, str | None], names: Sequence[str]) -> dict[str, str]:
    """The part of a hierarchy that a model with these labels needs.

    Args:
        hierarchy: The parent of each label, None of those at the top; it may have more labels.
        names: The labels.

    Returns:
        The parent of each of the names that has one.

    Raises:
        ValueError: If the hierarchy lacks one of the names, or one has a parent that is not among them.
    """
    known = set(names)
    for name in names:
        if name not in hierarchy:
            raise ValueError(
                f"the label {name!r} is not in the label hierarchy, which has {len(hierarchy)}; add it with its "
                "parent, or at the top (with null in JSON, below Root else)."
            )
        if hierarchy[name] is not None and hierarchy[name] not in known:
            raise ValueError(
                f"the label {name!r} is below {hierarchy[name]!r}, which no document of the training data has; "
                "--add_ancestors true gives training documents the labels above theirs."
            )
    return {name: parent for name in names if (parent := hierarchy[name]) is not None}


def with_ancestors(labels: Sequence[Label], parents: Mapping[Label, Label | None]) -> list[Label]:
    """The labels, each once, and behind them the ancestors that they lack.

    Args:
        labels: Labels of one document.
        parents: Without a cycle.

    Examples:
        >>> with_ancestors(["C151", "GSPO"], {"C151": "C15", "C15": "CCAT", "GSPO": "GCAT"})
        ['C151', 'GSPO', 'C15', 'CCAT', 'GCAT']
    """
    closed = dict.fromkeys(labels)
    for label in labels:
        above = parents.get(label)
        while above is not None:
            closed.setdefault(above)
            above = parents.get(above)
    return list(closed)


def add_ancestors(dataset: Dataset, hierarchy: Mapping[str, str | None]) -> tuple[Dataset, int, int]:
    """Give each document the ancestors of its labels.

    Args:
        dataset: With a column `labels` of `List(ClassLabel)`.
        hierarchy: The parent of each label, None of those at the top.

    Returns:
        The data set, whose label names have those ancestors behind them that they lacked; how many documents got
        labels; how many labels these got in all.

    Raises:
        ValueError: If a label of the data is not in the hierarchy.
    """
    names = dataset.features["labels"].feature.names
    all_names = with_ancestors(names, hierarchy)
    ids = {name: label for label, name in enumerate(all_names)}
    parents = {ids[child]: ids[parent] for child, parent in parents_of_labels(hierarchy, all_names).items()}
    label_sets = dataset["labels"][:]
    closed = [with_ancestors(labels, parents) for labels in label_sets]
    added = [len(after) - len(before) for before, after in zip(label_sets, closed, strict=True)]
    completed = dataset.remove_columns("labels").add_column(
        "labels", closed, feature=List(ClassLabel(names=all_names))
    )
    return completed, sum(map(bool, added)), sum(added)
