"""Tests of datasets_scripts/coco.py, on files in the published format with images of our own."""

import gzip
import json

import datasets
import numpy as np
import pytest
from PIL import Image

from sgm_hf.datasets_scripts import convert, load
from sgm_hf.datasets_scripts.coco import CATEGORIES, LABEL_NAMES, read_images

IMAGES = [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 25, "file_name": "000000000025.jpg"}]
IMAGES = [{"license": 3, "height": 4, "width": 6, **image} for image in IMAGES]
SECTIONS = [{"id": number, "name": name, "supercategory": "any"} for number, name in CATEGORIES.items()]


def annotation(image_id, category_id, **fields):
    """An object in an image; crowds have run lengths for an outline."""
    outline = {"segmentation": [[1.5, 2.0, 3.25]], "area": 12.5, "bbox": [0, 0, 2, 2], "iscrowd": 0, "id": 1}
    return {**outline, "image_id": image_id, "category_id": category_id, **fields}


ANNOTATIONS = [
    annotation(9, 51),
    annotation(9, 1, iscrowd=1, segmentation={"counts": [3, 4], "size": [4, 6]}),
    annotation(9, 51),
]
CAPTIONS = [
    {"image_id": 25, "id": 1, "caption": "A giraffe\n stands. "},
    {"image_id": 9, "id": 2, "caption": "Bowls of food."},
    {"image_id": 9, "id": 3, "caption": "Someone eats."},
]


def instances(**sections):
    """The object of instances_*.json in the published order, with the categories last."""
    content = {"info": {"year": 2017}, "licenses": [{"id": 3, "name": "x"}], "images": IMAGES}
    return {**content, "annotations": ANNOTATIONS, "categories": SECTIONS, **sections}


def captions(**sections):
    """The object of captions_*.json."""
    return {"info": {"year": 2017}, "images": IMAGES, "licenses": [], "annotations": CAPTIONS, **sections}


@pytest.fixture
def folder(write, tmp_path):
    """The training and validation annotations of 2017 where the archive puts them, and the training images."""
    for part in ("train2017", "val2017"):
        write(f"annotations/instances_{part}.json", json.dumps(instances()))
        write(f"annotations/captions_{part}.json", json.dumps(captions()))
    (tmp_path / "data" / "train2017").mkdir()
    for number, image in enumerate(IMAGES):
        pixels = np.full((4, 6, 3), 100 * (number + 1), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "train2017" / image["file_name"], quality=95)
    return tmp_path / "data"


def test_an_image_has_its_captions_and_the_categories_of_its_objects(folder, cache):
    corpus = load("coco", data_dir=folder, cache_dir=cache)
    assert list(corpus) == ["train", "validation"]
    assert corpus["train"].features["labels"].feature.names == list(LABEL_NAMES)
    assert list(corpus["train"]) == [
        {"id": "9", "text": "Bowls of food.\nSomeone eats.", "labels": [45, 0]},
        {"id": "25", "text": "A giraffe stands.", "labels": []},
    ]
    assert corpus["train"].features["labels"].feature.int2str([45, 0]) == ["bowl", "person"]


def test_images_decode_and_take_the_place_of_the_text(folder, cache):
    corpus = load("coco", "images_2017", folder, cache_dir=cache)
    assert list(corpus) == ["train"]  # the folder val2017 is not there
    assert corpus["train"].column_names == ["id", "image", "labels"]
    assert corpus["train"]["labels"][:] == [[45, 0], []]
    for row, value in zip(corpus["train"], (100, 200), strict=True):
        pixels = np.asarray(row["image"])
        assert pixels.shape == (4, 6, 3) and abs(pixels.astype(int) - value).max() <= 3
    stream = load("coco", "images_2017", folder, "train", streaming=True)
    assert [np.asarray(row["image"]).mean() for row in stream] == [
        np.asarray(row["image"]).mean() for row in corpus["train"]
    ]


def test_converted_images_carry_their_bytes(folder, tmp_path, cache):
    convert.convert("coco", tmp_path / "out", "images_2017", folder)
    before = [np.asarray(row["image"]) for row in load("coco", "images_2017", folder, "train", cache_dir=cache)]
    for image in IMAGES:
        (folder / "train2017" / image["file_name"]).unlink()
    converted = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(cache))
    assert isinstance(converted.features["image"], datasets.Image)
    assert all((np.asarray(row["image"]) == old).all() for row, old in zip(converted, before, strict=True))
    assert converted["labels"][:] == [[45, 0], []]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| train | 2 | 118,287 | 2 of 80 | 1.00 | – |" in card


def test_converted_captions_give_the_same_with_plain_datasets(folder, tmp_path, cache):
    convert.convert("coco", tmp_path / "out", data_dir=folder)
    converted = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(cache))
    corpus = load("coco", data_dir=folder, cache_dir=cache)
    for split in ("train", "validation"):
        assert converted[split].features == corpus[split].features
        assert converted[split][:] == corpus[split][:]
    assert "| train | 2 | 118,287 | 2 of 80 | 1.00 | 4.0 |" in (tmp_path / "out" / "README.md").read_text()


def test_streaming_and_gzip_and_files_in_the_folder_itself_give_the_same(folder, cache):
    corpus = load("coco", data_dir=folder, cache_dir=cache)
    for path in list((folder / "annotations").iterdir()):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    (folder / "annotations").rmdir()
    stream = load("coco", data_dir=folder, streaming=True)
    packed = load("coco", data_dir=folder, cache_dir=cache)
    for split in corpus:
        assert list(stream[split]) == list(packed[split]) == list(corpus[split])


def test_another_number_of_images_than_the_published_one_is_a_warning(folder, cache, caplog):
    load("coco", data_dir=folder, cache_dir=cache)
    assert "the train split has 2 documents, the complete published files have 118,287" in caplog.text


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"images": []}, "has no image"),
        ({"images": [{"id": 9}]}, "images, item 1: file_name is None, expected a text"),
        ({"images": [{"id": "9", "file_name": "a"}]}, "images, item 1: id is 9, expected a whole number"),
        ({"images": [{"id": True, "file_name": "a"}]}, "images, item 1: id is True, expected a whole number"),
        ({"images": [{"id": 9, "file_name": "../a"}]}, r"images, item 1: file_name is '\.\./a', expected a name"),
        ({"images": [*IMAGES, IMAGES[0]]}, "images, item 3: the image 9 appears twice"),
        ({"images": [7]}, "images, item 1: a JSON int, expected an object"),
        ({"images": IMAGES[1:]}, "annotates the image 9, but its section images lacks it"),
        ({"annotations": []}, "has no annotation"),
        ({"annotations": [*ANNOTATIONS, annotation(9, 12)]}, "annotations, item 4: unknown category_id 12"),
        ({"annotations": [annotation(None, 1)]}, "annotations, item 1: image_id is None"),
        ({"categories": []}, "categories: category 1 is None, expected 'person'"),
        (
            {"categories": [*SECTIONS[:-1], {**SECTIONS[-1], "name": "x"}]},
            ".*category 90 is 'x', expected 'toothbrush'",
        ),
        (
            {"categories": [*SECTIONS, {"id": 91, "name": "hat"}]},
            ".*category 91 is 'hat', expected no such one",
        ),
    ],
)
def test_faulty_instances_are_named_with_file_and_item(folder, write, cache, sections, message):
    write("annotations/instances_train2017.json", json.dumps(instances(**sections)))
    with pytest.raises(ValueError, match=rf"instances_train2017\.json,? {message}"):
        load("coco", data_dir=folder, cache_dir=cache)
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"annotations": CAPTIONS[1:]}, "the image 25 of .*instances_train2017.json has no caption"),
        ({"annotations": [{"image_id": 9, "caption": " "}]}, "annotations, item 1: caption is ' ', expected a text"),
        ({"annotations": [{"image_id": 9, "caption": "\ud800"}]}, "annotations, item 1: caption is '.*ud800'"),
        ({"annotations": [*CAPTIONS, {"image_id": 7, "caption": "x"}]}, "annotates the image 7, but"),
    ],
)
def test_faulty_captions_are_named_with_file_and_item(folder, write, cache, sections, message):
    write("annotations/captions_train2017.json", json.dumps(captions(**sections)))
    with pytest.raises(ValueError, match=rf"captions_train2017\.json.*{message}"):
        list(load("coco", data_dir=folder, split="train", streaming=True, cache_dir=cache))


def test_malformed_json_is_named_with_its_line(folder, write, cache):
    text = json.dumps(instances(), indent=1)
    write("annotations/instances_train2017.json", text.replace('"iscrowd": 1', '"iscrowd" 1'))
    before = text[: text.index('"iscrowd": 1')]
    line = 1 + before[: before.rindex("\n  {")].count("\n") + 1  # where the object begins
    with pytest.raises(ValueError, match=rf"instances_train2017\.json, line {line}, annotations, item 2: not valid"):
        load("coco", data_dir=folder, cache_dir=cache)


def test_missing_files_and_images_are_named(folder, cache):
    (folder / "train2017" / IMAGES[1]["file_name"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"000000000025\.jpg does not exist, .*unpack train2017\.zip again"):
        load("coco", "images_2017", folder, cache_dir=cache)
    with pytest.raises(
        FileNotFoundError, match=r"lacks the folders of images train2014, val2014.*https://cocodataset"
    ):
        load("coco", "images_2014", folder, cache_dir=cache)
    (folder / "annotations" / "captions_train2017.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks captions_train2017\.json .*annotations_trainval2017\.zip"):
        load("coco", data_dir=folder, cache_dir=cache)


def test_the_order_of_sections_does_not_matter(folder, tmp_path):
    path = tmp_path / "instances.json"
    expected = read_images(folder / "annotations" / "instances_train2017.json")
    path.write_text(json.dumps(dict(reversed(instances().items()))))
    assert read_images(path) == expected == {9: ("000000000009.jpg", ["bowl", "person"]), 25: ("000000000025.jpg", [])}


def test_there_are_80_categories_with_ids_up_to_90():
    assert len(CATEGORIES) == len(set(LABEL_NAMES)) == 80
    assert (min(CATEGORIES), max(CATEGORIES)) == (1, 90) and list(CATEGORIES) == sorted(CATEGORIES)
