"""Images as documents: prepared, collated, trained on and predicted."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List
from PIL import Image as PillowImage
from transformers import ViTConfig, ViTImageProcessorPil

from sgm_hf import (
    SGMConfig,
    SGMForMultiLabelGeneration,
    SGMTrainer,
    SGMTrainingArguments,
    encode_images,
    load_images,
)
from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.training.fingerprint import hash_dataset

sys.path.append(str(Path(__file__).parents[1] / "modeling"))
from tiny_encoders import VIT  # noqa: E402

COLOURS = ("red", "green", "blue")


def make_images(count, seed=0):
    """Pictures of the colours that their labels name."""
    random = np.random.default_rng(seed)
    chosen = random.random((count, 3)) < 0.5
    pictures = [PillowImage.fromarray(np.full((10, 14, 3), 255 * row, dtype=np.uint8)) for row in chosen]
    columns = {"image": pictures, "labels": [np.flatnonzero(row).tolist() for row in chosen]}
    features = Features({"image": Image(), "labels": List(ClassLabel(names=list(COLOURS)))})
    return Dataset.from_dict(columns, features)


@pytest.fixture(scope="module")
def processor():
    return ViTImageProcessorPil(size={"height": 8, "width": 8})


@pytest.fixture(scope="module")
def encoded(processor):
    return encode_images(make_images(48), processor, COLOURS, training=True)


def test_pixel_values_are_those_of_the_processor(processor, encoded):
    images = make_images(48)
    batch = MultiLabelCollator(None, 3)(encoded.__getitems__([5, 0, 7]))
    expected = processor(images=[images[row]["image"] for row in (5, 0, 7)], return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], expected) and batch["pixel_values"].dtype == torch.float32
    assert batch.keys() == {"pixel_values", "labels"}
    assert batch["labels"][0].tolist()[: len(images[5]["labels"]) + 1] == [*images[5]["labels"], 3]


def test_a_changed_picture_changes_the_hash_of_the_data(processor, encoded):
    images = make_images(48)
    changed = images.select(range(47)).to_list() + [{**images[47], "image": images[0]["image"].rotate(90)}]
    changed[-1]["image"] = PillowImage.new("RGB", (10, 14), (9, 9, 9))
    other = encode_images(Dataset.from_list(changed, features=images.features), processor, COLOURS)
    assert hash_dataset(encoded) == hash_dataset(encode_images(images, processor, COLOURS))
    assert hash_dataset(other) != hash_dataset(encoded)


def test_it_trains_evaluates_saves_and_predicts(processor, encoded, tmp_path):
    torch.manual_seed(0)
    config = SGMConfig(
        encoder="pretrained", encoder_config=ViTConfig.from_dict(VIT.to_dict()), id2label=dict(enumerate(COLOURS)),
        embedding_size=8, decoder_hidden_size=16, dropout=0.0,
    )  # fmt: skip
    arguments = SGMTrainingArguments(
        str(tmp_path), num_train_epochs=15, learning_rate=0.01, per_device_train_batch_size=16, disable_tqdm=True,
        eval_strategy="epoch", save_strategy="epoch", save_total_limit=1, load_best_model_at_end=True,
    )  # fmt: skip
    trainer = SGMTrainer(
        SGMForMultiLabelGeneration(config), arguments, train_dataset=encoded, eval_dataset=encoded.select(range(16)),
        processing_class=processor,
    )  # fmt: skip
    trainer.train()
    trainer.save_model()
    # The model of the best epoch, which is not the last one: with all of its weights, also those of the encoder.
    losses = {record["step"]: record["eval_loss"] for record in trainer.state.log_history if "eval_loss" in record}
    found = trainer.evaluate()
    assert found["eval_micro_f1"] > 0.9 and trainer.state.best_global_step < max(losses)
    assert found["eval_loss"] == pytest.approx(losses[trainer.state.best_global_step])
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    test = make_images(8, seed=1)
    inputs = ViTImageProcessorPil.from_pretrained(tmp_path)(images=list(test["image"]), return_tensors="pt")
    predicted = loaded.generate(**inputs)
    assert (
        torch.equal(predicted, trainer.model.eval().generate(**inputs)) and len({*map(tuple, predicted.tolist())}) > 3
    )
    assert torch.equal(loaded.generate(inputs["pixel_values"]), predicted)


def test_a_broken_image_is_named(processor, tmp_path):
    paths = [str(tmp_path / f"{row}.png") for row in range(2)]
    PillowImage.new("RGB", (10, 14)).save(paths[0])
    Path(paths[1]).write_bytes(Path(paths[0]).read_bytes()[:40])
    images = Dataset.from_dict({"id": ["one", "two"], "image": paths}).cast_column("image", Image())
    with pytest.raises(ValueError, match=r"image of document two \(.*1.png\) cannot be read"):
        encode_images(images, processor, COLOURS)


def test_pixel_values_of_images_in_memory_are_in_a_file(encoded):
    assert encoded.cache_files and len(encoded) == 48


def test_data_without_images_are_refused(processor):
    with pytest.raises(ValueError, match="expected some of 'image'"):
        encode_images(Dataset.from_dict({"text": ["a"], "labels": [[0]]}), processor, COLOURS)
    with pytest.raises(ValueError, match="encode_images"):
        SGMTrainer(None, None, train_dataset=Dataset.from_dict({"image": [1]}))


def test_a_table_of_paths_and_a_data_set_of_images_are_read_alike(tmp_path):
    images = make_images(3)
    paths = [str(tmp_path / f"{row}.png") for row in range(3)]
    for image, path in zip(images["image"], paths, strict=True):
        image.save(path)
    names = [[COLOURS[label] for label in labels] for labels in images["labels"]]
    table = pd.DataFrame({"photo": paths, "topics": ["|".join(row) for row in names]})
    read = load_images(table, image_column="photo", labels_column="topics", label_names=COLOURS)["train"]
    given = load_images(test_file=images, label_names=COLOURS)["test"]
    assert set(read.column_names) == set(given.column_names) == {"id", "image", "labels"}
    for loaded in (read, given):
        assert loaded["labels"][:] == images["labels"][:]
        assert all(
            np.array_equal(*map(np.asarray, pair)) for pair in zip(loaded["image"], images["image"], strict=True)
        )
