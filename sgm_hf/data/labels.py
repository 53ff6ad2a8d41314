"""Label names, model label ids and target sequences.

A model's labels are in one order; a label's position in it is its id (`config.id2label`). Names are compared exactly
as they are: any text is a name.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset

from sgm_hf.data.hierarchy import label_depths
from sgm_hf.data.lines import read_json_object

LABEL_ORDERS = ("frequency", "alphabetical", "shuffled", "given", "hierarchical")
UNKNOWN_LABELS = ("error", "count")


def check_label_names(names: Sequence[str]) -> None:
    """Check that a list of label names can be used.

    Raises:
        ValueError: If it is empty, holds an empty name, or one twice.
    """
    if len(names) == 0:
        raise ValueError("There are no label names: at least one document needs a label, or give the label names.")
    for name, count in Counter(names).items():
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{name!r} is not a label name: expected a text that is not empty.")
        if count > 1:
            raise ValueError(f"The label name {name!r} is listed {count} times: list each name once.")


def order_label_names(
    label_sets: Iterable[Iterable[str]],
    names: Sequence[str],
    order: str,
    parents: Mapping[str, str] | None = None,
) -> list[str]:
    """Put the label names into the order of the model's label ids.

    Args:
        label_sets: Label names of each training document.
        names: All label names, each once. A name that no training document has is kept.
        order: "frequency" (most frequent in training first, equally frequent ones by name; SGM paper, section 2.1),
            "alphabetical" (by character codes), "shuffled" (as "frequency"; what is shuffled are the documents' target
            sequences), "given" (as in `names`), or "hierarchical" (from general to specific: labels with fewer
            ancestors first, of as many as with "frequency").
        parents: The parent of each label that has one, for "hierarchical"; see `parents_of_labels`.

    Returns:
        The names, each once. The position of a name is its model label id.

    Raises:
        ValueError: If there is no such order, the names are invalid (see `check_label_names`), a label set holds a
            label that is not in `names`, or "hierarchical" is asked for without `parents`.

    Warns:
        UserWarning: If there is one name only.
    """
    _check_choice("label order", order, LABEL_ORDERS)
    check_label_names(names)
    counts = Counter(label for labels in label_sets for label in labels)
    unlisted = sorted(set(counts) - set(names))
    if unlisted:
        raise ValueError(
            f"The label {unlisted[0]!r} occurs in the training data, but not among {_summary(names)}: "
            "add it to the label names, or correct the data."
        )
    if len(names) == 1:
        warnings.warn(
            f"There is only one label, {names[0]!r}: a model can only learn which documents have it and which have "
            "none. If the data has more labels, check the label column and its separator (--label_separator).",
            stacklevel=2,
        )
    if order == "given":
        return list(names)
    if order == "alphabetical":
        return sorted(names)
    depths: dict[str, int] = {}
    if order == "hierarchical":
        if parents is None:
            raise ValueError("The label order hierarchical needs the labels' parents: give --label_hierarchy FILE.")
        depths = label_depths(parents)
    return sorted(names, key=lambda name: (depths.get(name, 0), -counts[name], name))


def read_label_texts(path: str | Path, names: Sequence[str]) -> dict[str, str]:
    """Read the texts of labels, such as descriptions, from a file.

    Args:
        path: A JSON file of one object, the texts by the labels' names; plain or `.gz`. It may have other labels, too.
        names: The labels whose texts are wanted.

    Returns:
        The texts of those of the names that have one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such object, a text is empty, or none is of a label that is wanted.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file of label texts {path}; correct its path.")
    texts = read_json_object(Path(path))
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{path}: the text of {name!r} is {text!r}; expected a text that is not empty.")
    found = {name: texts[name] for name in names if name in texts}
    if not found:
        raise ValueError(f"{path} has no text of a label of the data: expected some of {_summary(names)}.")
    return found


def encode_labels(
    labels: Sequence[str], label2id: Mapping[str, int], where: str, unknown_labels: str = "error"
) -> tuple[list[int], list[str]]:
    """Turn one document's label names into label ids.

    Args:
        labels: The document's label names, each once.
        label2id: Model label id of each known name.
        where: What to call the document in an error, e.g. "document 17" or "train.csv, line 18".
        unknown_labels: Whether a label that is not in `label2id` is an "error" or returned for an evaluation to
            "count" it as missed.

    Returns:
        The ids of the known labels, and the names of the unknown ones, both in the order of `labels`.

    Raises:
        ValueError: If a label occurs twice, or an unknown one occurs and `unknown_labels` is "error".
    """
    _check_choice("unknown_labels", unknown_labels, UNKNOWN_LABELS)
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            raise ValueError(f"{where}: the label {label!r} occurs twice, expected it once. Remove the second.")
        seen.add(label)
        if label not in label2id and unknown_labels == "error":
            raise ValueError(
                f"{where}: unknown label {label!r}, expected one of {_summary(list(label2id))}. Correct it, add it to "
                "the training data, or count it as missed in the evaluation with --unknown_labels count."
            )
    known = [label2id[label] for label in labels if label in label2id]
    return known, [label for label in labels if label not in label2id]


def encode_label_sets(
    label_sets: Sequence[Sequence[str]],
    label_names: Sequence[str],
    unknown_labels: str = "error",
    document_ids: Sequence[str] | None = None,
) -> tuple[list[list[int]], list[str]]:
    """Turn the label names of many documents into label ids.

    Args:
        label_sets: Label names of each document, N in number.
        label_names: The model's L label names in the order of their ids.
        unknown_labels: "error", or "count" to give each of the U labels that the model does not know an id of L or
            above, which no prediction can reach.
        document_ids: Names of the documents for errors, N in number; default "number 0", "number 1", …

    Returns:
        The ids of each document, unknown ones last, and the U unknown names, sorted: id L + i is the i-th of them.

    Raises:
        ValueError: If a document has a label twice, or an unknown one and `unknown_labels` is "error".
    """
    check_label_names(label_names)
    label2id = {name: i for i, name in enumerate(label_names)}
    if document_ids is None:
        document_ids = [f"number {i}" for i in range(len(label_sets))]
    encoded = [
        encode_labels(labels, label2id, f"document {document}", unknown_labels)
        for document, labels in zip(document_ids, label_sets, strict=True)
    ]
    unknown_names = sorted({name for _, unknown in encoded for name in unknown})
    unknown2id = {name: len(label2id) + i for i, name in enumerate(unknown_names)}
    return [known + [unknown2id[name] for name in unknown] for known, unknown in encoded], unknown_names


def target_sequence(label_ids: Sequence[int], order: str, generator: np.random.Generator | None = None) -> list[int]:
    """Put one document's label ids into the order in which the decoder learns to produce them.

    Args:
        label_ids: Model label ids in the order of the data.
        order: "frequency", "alphabetical" and "hierarchical" sort them (the ids are in that order), "given" keeps
            their order, "shuffled" permutes them.
        generator: Source of the permutation; needed for "shuffled" only.

    Returns:
        The same ids, without `eos`.

    Raises:
        ValueError: If there is no such order, or it is "shuffled" and there is no generator.
    """
    _check_choice("label order", order, LABEL_ORDERS)
    if order == "given":
        return list(label_ids)
    if order != "shuffled":
        return sorted(label_ids)
    if generator is None:
        raise ValueError('The order "shuffled" needs a generator: np.random.default_rng((seed, epoch, document)).')
    return [label_ids[i] for i in generator.permutation(len(label_ids))]


def label_sets_of(dataset: Dataset) -> list[list[str]]:
    """Read the label names of each document from a data set.

    Args:
        dataset: Has the column `labels` of type `List(ClassLabel)`, and optionally `unknown_labels`, labels without
            an id (see `load_files`).

    Returns:
        Label names of each document, in the order of the data, unknown ones last.

    Raises:
        ValueError: If the data set has no column `labels`, it is of another type, or holds an invalid label id.
    """
    if "labels" not in dataset.column_names:
        raise ValueError(
            f"The data set has no column 'labels', only {', '.join(dataset.column_names)}: "
            "without true labels it can be predicted, but neither trained on nor evaluated."
        )
    names = getattr(getattr(dataset.features["labels"], "feature", None), "names", None)
    if names is None:
        raise ValueError(
            f"The column 'labels' is of type {dataset.features['labels']}: expected List(ClassLabel(names=[…])). "
            "Cast it, or read the file with load_files."
        )
    id2name = dict(enumerate(names))
    label_sets = []
    for row, ids in enumerate(dataset["labels"]):
        try:
            label_sets.append([id2name[i] for i in ids])
        except (KeyError, TypeError) as error:  # names[-1] would be the last label
            raise ValueError(
                f"document number {row}: labels are {ids}, expected a list of ids from 0 to {len(names) - 1}. "
                "Correct them; a document without a label has an empty list."
            ) from error
    if "unknown_labels" in dataset.column_names:
        for labels, unknown in zip(label_sets, dataset["unknown_labels"], strict=True):
            labels.extend(unknown)
    return label_sets


def label_matrix(label_id_sets: Sequence[Sequence[int]], num_columns: int) -> np.ndarray:
    """Lay out the label ids of N documents, all below `num_columns`, as a boolean matrix (N, num_columns)."""
    matrix = np.zeros((len(label_id_sets), num_columns), dtype=bool)
    rows = np.repeat(np.arange(len(label_id_sets)), [len(ids) for ids in label_id_sets])
    columns = np.fromiter((i for ids in label_id_sets for i in ids), dtype=np.int64, count=len(rows))
    matrix[rows, columns] = True
    return matrix


def label_counts(label_id_sets: Iterable[Sequence[int]], num_labels: int) -> np.ndarray:
    """The number of documents that have each label, (L) int64; ids from `num_labels` on are left out."""
    return np.bincount(np.fromiter((i for ids in label_id_sets for i in ids), dtype=np.int64), minlength=num_labels)[
        :num_labels
    ]


def reference_matrix(
    label_sets: Sequence[Sequence[str]],
    label_names: Sequence[str],
    unknown_labels: str = "error",
    document_ids: Sequence[str] | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Lay out the true labels of documents as the matrix that the metrics take; arguments as of `encode_label_sets`.

    Returns:
        The boolean matrix (N, L + U), and the names of its last U columns, of labels that the model does not know.

    Raises:
        ValueError: If a document has a label twice, or an unknown one and `unknown_labels` is "error".
    """
    id_sets, unknown_names = encode_label_sets(label_sets, label_names, unknown_labels, document_ids)
    return label_matrix(id_sets, len(label_names) + len(unknown_names)), unknown_names


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, got {value!r}.")


def _summary(names: Sequence[str]) -> str:
    """The number of labels and the first few, for an error message."""
    shown = ", ".join(repr(name) for name in names[:5])
    return f"the {len(names)} known labels ({shown}{', …' if len(names) > 5 else ''})"
