"""Images as documents: read from a user's files, and turned into pixel values and label ids."""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Array3D, Dataset, DatasetDict, Features, Image, List, Value, concatenate_datasets
from datasets.fingerprint import get_temporary_cache_files_directory

from sgm_hf.data.documents import Source
from sgm_hf.data.files import read_sources
from sgm_hf.data.labels import encode_label_sets, label_sets_of
from sgm_hf.data.layout import ImageLayout
from sgm_hf.modeling.inputs_sgm import pixel_values_of


def load_images(
    train_file: Source | None = None,
    validation_file: Source | None = None,
    test_file: Source | None = None,
    image_column: str = "image",
    *,
    label_names: Sequence[str] | None = None,
    unknown_labels: str = "error",
    **layout: Any,
) -> DatasetDict:
    """Read a user's own images into a data set, as `load_files` reads texts.

    Args:
        train_file: Training documents: a file or DataFrame with the paths of images, relative to the folder of the
            file; or a Parquet file or data set that has the images themselves (`datasets.Image`).
        validation_file: Documents to select the model on.
        test_file: Documents to test or predict.
        image_column: Column of the images, or of their paths.
        label_names: See `load_files`.
        unknown_labels: See `load_files`.
        **layout: What else `Layout` takes: columns and forms of the labels.

    Returns:
        The splits that were given, with the columns `id`, `image` (`datasets.Image`, opened on access) and, if there
        are labels, `labels`.

    Raises:
        FileNotFoundError: If a file or an image does not exist.
        ValueError: As `load_files`.
    """
    given = {"train": train_file, "validation": validation_file, "test": test_file}
    listed, pictures = {}, {}
    for split, source in given.items():
        if source is not None:
            listed[split], pictures[split] = without_pictures(source, image_column)
    options = {**layout, "text_column": image_column}
    splits = read_sources(listed, ImageLayout(**options), label_names, unknown_labels)
    for split, dataset in splits.items():
        rest = dataset.remove_columns("text")
        if pictures[split] is None:
            paths = existing_paths(dataset["text"][:], dataset["id"][:], given[split])
            opened = Dataset(pa.table({"image": paths}), fingerprint=uuid.uuid4().hex).cast_column("image", Image())
        else:
            opened = pictures[split]
        splits[split] = concatenate_datasets([rest, opened], axis=1)
    return splits


def without_pictures(source: Source, image_column: str) -> tuple[Source, Dataset | None]:
    """What there is to read of a source beside its images, with a number for each image, and the images.

    Returns:
        The source as it is and None, if it has paths of images, or no such column.
    """
    if isinstance(source, str | os.PathLike) and str(source).lower().endswith(".parquet"):
        try:
            schema = pq.read_schema(source)
        except (pa.ArrowException, OSError, ValueError):
            return source, None  # what reads it says why it cannot
        index = schema.get_field_index(image_column)
        if index >= 0 and not pa.types.is_string(schema.types[index]):
            source = Dataset.from_parquet(str(source)).cast_column(image_column, Image())
    if not isinstance(source, Dataset) or not isinstance(source.features.get(image_column), Image):
        return source, None
    pictures = source.select_columns(image_column)
    if image_column != "image":  # datasets refuses to rename a column to its own name
        pictures = pictures.rename_column(image_column, "image")
    numbers = list(map(str, range(len(source))))
    return source.remove_columns(image_column).add_column(image_column, numbers), pictures


def existing_paths(paths: Sequence[str], ids: Sequence[str], source: Source | None) -> list[str]:
    """The paths of images from here, of those that a source has.

    Raises:
        FileNotFoundError: If there is no file at one of them.
    """
    folder = Path(source).absolute().parent if isinstance(source, str | os.PathLike) else Path.cwd()
    found = [os.path.join(folder, path) for path in paths]
    missing = [row for row, path in enumerate(found) if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(found)} images do not exist, first that of document {ids[missing[0]]}: "
            f"{paths[missing[0]]!r}. Paths are relative to {folder}; correct them, or name their column with "
            "--image_column."
        )
    return found


def encode_images(
    dataset: Dataset,
    image_processor: Any,
    label_names: Sequence[str],
    training: bool = False,
    unknown_labels: str = "error",
    num_proc: int | None = None,
) -> Dataset:
    """Turn images into pixel values and label names into the model's label ids, as `encode_dataset` does with texts.

    Args:
        dataset: Columns `image` (`datasets.Image`, or arrays), optionally `id` (for messages) and `labels`.
        image_processor: The model's image processor, whose images all come out in one size.
        label_names: The L label names in the model's order.
        training: Whether the data is to train on.
        unknown_labels: As of `encode_dataset`.
        num_proc: Processes that prepare images; default this one.

    Returns:
        A data set of as many rows, in the same order: `pixel_values` (channels, height, width), `length` (1), `index`
        and, where the data has labels, `labels`.

    Raises:
        ValueError: If there is no image, one cannot be read (names its document), a document has a label twice, or a
            label is unknown and that is an error.
    """
    if "image" not in dataset.column_names or not len(dataset):
        raise ValueError(f"The data set has {len(dataset)} rows of {dataset.column_names}; expected some of 'image'.")
    names = dataset["id"][:] if "id" in dataset.column_names else [f"number {row}" for row in range(len(dataset))]
    pictures = dataset.select_columns("image")
    if isinstance(dataset.features["image"], Image):
        pictures = pictures.cast_column("image", Image(decode=False))  # opened below, where errors can be named
    shape = _encode_batch(pictures[:1], [0], image_processor, names)["pixel_values"][0].shape
    features = {"pixel_values": Array3D(shape, "float32"), "length": Value("int64"), "index": Value("int64")}
    encoded = pictures.map(
        _encode_batch,
        batched=True,
        batch_size=64,
        with_indices=True,
        remove_columns="image",
        features=Features(features),
        num_proc=num_proc,
        fn_kwargs={"image_processor": image_processor, "names": names},
        # Of a data set in memory the result would be there, too.
        cache_file_name=None if pictures.cache_files else _temporary_file(),
        desc="Encoding",
    )
    if "labels" in dataset.column_names:
        unknown_labels = "error" if training else unknown_labels
        label_ids, _ = encode_label_sets(label_sets_of(dataset), label_names, unknown_labels, names)
        encoded = encoded.add_column("labels", label_ids, feature=List(Value("int64")))
    return encoded.with_format("numpy", columns=["pixel_values"], output_all_columns=True)


def read_pixels(image: Any, image_processor: Any, name: str) -> np.ndarray:
    """The pixel values of one image, (channels, height, width) float32.

    Args:
        image: As `datasets.Image` stores it, or as the pipeline takes it.
        image_processor: The model's image processor.
        name: What errors call it.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        opened = Image().decode_example(image) if isinstance(image, dict) else image
        return pixel_values_of([opened], image_processor)[0]
    except Exception as error:  # of whatever kind: a broken file can raise SyntaxError
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{name} cannot be read: {reason}; replace or remove it.") from error


def _temporary_file() -> str:
    """A file that `datasets` removes at the end of the process."""
    return os.path.join(get_temporary_cache_files_directory(), f"images-{uuid.uuid4().hex}.arrow")


def _encode_batch(
    batch: dict[str, list[Any]], indices: list[int], image_processor: Any, names: Sequence[str]
) -> dict[str, Any]:
    """Encode one batch of `datasets.map`."""
    pixel_values = []
    for row, image in zip(indices, batch["image"], strict=True):
        path = f" ({image['path']})" if isinstance(image, dict) and image.get("path") else ""
        pixel_values.append(read_pixels(image, image_processor, f"the image of document {names[row]}{path}"))
    return {"pixel_values": pixel_values, "length": [1] * len(indices), "index": indices}
