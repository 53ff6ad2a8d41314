"""From records of images and labels to pixel values and label ids, for encoders of images."""

from collections.abc import Sequence
from typing import Any

from datasets import Array3D, Dataset, Features, List, Value

from sgm_hf.data.labels import encode_label_sets, label_sets_of
from sgm_hf.modeling.inputs_sgm import pixel_values_of


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
        ValueError: If there is no image, a document has a label twice, or a label is unknown and that is an error.
    """
    if "image" not in dataset.column_names or not len(dataset):
        raise ValueError(f"The data set has {len(dataset)} rows of {dataset.column_names}; expected some of 'image'.")
    shape = pixel_values_of(dataset[:1]["image"], image_processor)[0].shape
    features = {"pixel_values": Array3D(shape, "float32"), "length": Value("int64"), "index": Value("int64")}
    encoded = dataset.map(
        _encode_batch,
        batched=True,
        batch_size=64,
        with_indices=True,
        remove_columns=dataset.column_names,
        features=Features(features),
        num_proc=num_proc,
        fn_kwargs={"image_processor": image_processor},
        desc="Encoding",
    )
    if "labels" in dataset.column_names:
        names = dataset["id"] if "id" in dataset.column_names else [f"number {row}" for row in range(len(dataset))]
        unknown_labels = "error" if training else unknown_labels
        label_ids, _ = encode_label_sets(label_sets_of(dataset), label_names, unknown_labels, names)
        encoded = encoded.add_column("labels", label_ids, feature=List(Value("int64")))
    return encoded.with_format("numpy", columns=["pixel_values"], output_all_columns=True)


def _encode_batch(batch: dict[str, list[Any]], indices: list[int], image_processor: Any) -> dict[str, Any]:
    """Encode one batch of `datasets.map`."""
    pixel_values = pixel_values_of(batch["image"], image_processor)
    return {"pixel_values": pixel_values, "length": [1] * len(indices), "index": indices}
