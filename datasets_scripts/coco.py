"""COCO: photographs with the kinds of objects in them, and captions (Lin et al. 2014)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from ._corpus import CorpusBuilder, CorpusConfig
from ._json_sections import read_sections

# Category ids of the annotations and their names; the labels are in this order.
CATEGORIES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck", 9: "boat",
    10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench", 16: "bird", 17: "cat",
    18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe",
    27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove", 41: "skateboard",
    42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass", 47: "cup", 48: "fork", 49: "knife",
    50: "spoon", 51: "bowl", 52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot",
    58: "hot dog", 59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard",
    77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator", 84: "book",
    85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}  # fmt: skip
LABEL_NAMES = tuple(CATEGORIES.values())
_DOCUMENTS = {"train2017": 118_287, "val2017": 5_000, "train2014": 82_783, "val2014": 40_504}


@dataclass(eq=False)
class COCOConfig(CorpusConfig):
    """A year's split, with captions or images.

    Args:
        image_folders: For each split the folder of its images; empty where captions are read.
    """

    image_folders: Mapping[str, str] = field(default_factory=dict)

    def existing_data_dir(self) -> Path:
        """The folder of the annotations: `annotations` in `data_dir`, as the archive has it, or `data_dir` itself."""
        folder = super().existing_data_dir()
        return folder / "annotations" if (folder / "annotations").is_dir() else folder

    def find_sources(self) -> dict[str, tuple[Path, ...]]:
        """Find the annotations and, if images are wanted, the folders of those that are there."""
        if not self.image_folders:
            return super().find_sources()
        annotations, folder = self.existing_data_dir(), Path(str(self.data_dir)).expanduser()
        found = {}
        for split, name in self.image_folders.items():
            if (folder / name).is_dir():
                files = self.require_files(annotations, self.split_files[split], f"the {split} split")
                found[split] = (*files, folder / name)
        if not found:
            raise self.missing(f"{folder} lacks the folders of images {', '.join(self.image_folders.values())}")
        return found


def _config(year: int, with_images: bool) -> COCOConfig:
    """The configuration of one year's split."""
    parts = {"train": f"train{year}", "validation": f"val{year}"}
    kinds = ("instances",) if with_images else ("instances", "captions")
    images = f", unpack {' and '.join(f'{part}.zip' for part in parts.values())}" if with_images else ""
    return COCOConfig(
        name=f"{'images' if with_images else 'captions'}_{year}",
        version="1.0.0",
        description=f"{'Images' if with_images else 'Captions'} of the training and validation images of {year}",
        split_files={split: tuple(f"{kind}_{part}.json" for kind in kinds) for split, part in parts.items()},
        expected_documents={split: _DOCUMENTS[part] for split, part in parts.items()},
        image_folders=parts if with_images else {},
        how_to_obtain=(
            f"COCO: fetch http://images.cocodataset.org/annotations/annotations_trainval{year}.zip (see "
            f"https://cocodataset.org/#download; annotations CC BY 4.0, images under Flickr's terms), unpack "
            f"{', '.join(f'{kind}_*{year}.json' for kind in kinds)}, plain or .gz{images} into one folder and pass "
            "it as data_dir"
        ),
    )


class COCO(CorpusBuilder):
    """Builder of COCO.

    A document is an image. Its labels are the categories of its object annotations, crowds included, in the order of
    their first annotation. An image without annotated object has no label.

    In configurations `captions_2017` and `captions_2014` its text is its captions, one per line, in the order of the
    source; in `images_2017` and `images_2014` the column `image`, a `datasets.Image`, takes the place of the text. The
    test images have no published annotations.
    """

    BUILDER_CONFIG_CLASS = COCOConfig
    DEFAULT_CONFIG_NAME = "captions_2017"
    BUILDER_CONFIGS = [_config(year, with_images) for with_images in (False, True) for year in (2017, 2014)]
    LABEL_NAMES = LABEL_NAMES
    DESCRIPTION = "Photographs with 80 kinds of objects in them, as images or by their captions."
    HOMEPAGE = "https://cocodataset.org"
    LICENSE = "Annotations: CC BY 4.0. Images: Flickr's terms of use; COCO does not own their copyright."
    CITATION = (
        "Tsung-Yi Lin, Michael Maire, Serge Belongie, James Hays, Pietro Perona, Deva Ramanan, Piotr Dollár, C. "
        "Lawrence Zitnick. Microsoft COCO: Common Objects in Context. ECCV 2014, pages 740-755."
    )
    config: COCOConfig

    def features(self) -> datasets.Features:
        """The columns, with an image or a text."""
        features = super().features()
        assert features is not None
        if not self.config.image_folders:
            return features
        return datasets.Features({"id": features["id"], "image": datasets.Image(), "labels": features["labels"]})

    def _generate_examples(self, split: str, files: tuple[Path, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
        instances_path, other = files
        images = read_images(instances_path)
        captions = {} if self.config.image_folders else read_captions(other)
        for number, (file_name, labels) in images.items():
            document: dict[str, Any] = {"id": str(number), "labels": labels}
            if self.config.image_folders:
                document["image"] = str(other / file_name)
                if not (other / file_name).is_file():
                    raise FileNotFoundError(
                        f"{other / file_name} does not exist, but {instances_path} names it; unpack {other.name}.zip "
                        "again"
                    )
            elif number in captions:
                document["text"] = "\n".join(captions[number])
            else:
                raise ValueError(f"{other}: the image {number} of {instances_path} has no caption; fetch both again")
            yield number, document


def read_images(path: Path) -> dict[int, tuple[str, list[str]]]:
    """Read instances_*.json, plain or `.gz`, piece by piece.

    Returns:
        For each image id, in the order of the file, the file name of the image and its labels.

    Raises:
        ValueError: If the file is damaged or not of the format, an annotation is of an image that the file does not
            have, or the categories are not those published.
    """
    names: dict[int, str] = {}
    labels: dict[int, dict[str, None]] = {}
    categories: dict[int, str] = {}
    for place, section, item in _items(path):
        if section == "images":
            number, name = _number(item, "id", place), _text(item, "file_name", place)
            if number in names:
                raise ValueError(f"{place}: the image {number} appears twice; fetch the file again")
            if Path(name).name != name:
                raise ValueError(f"{place}: file_name is {name[:60]!r}, expected a name without a folder")
            names[number] = name
        elif section == "annotations":
            category = _number(item, "category_id", place)
            if category not in CATEGORIES:
                raise ValueError(f"{place}: unknown category_id {category}, expected one of the 80 of COCO")
            labels.setdefault(_number(item, "image_id", place), {}).setdefault(CATEGORIES[category])
        elif section == "categories":
            categories[_number(item, "id", place)] = _text(item, "name", place)
    if categories != CATEGORIES:
        wrong = next(number for number in categories | CATEGORIES if categories.get(number) != CATEGORIES.get(number))
        expected = repr(CATEGORIES[wrong]) if wrong in CATEGORIES else "no such one"
        raise ValueError(
            f"{path}, categories: category {wrong} is {categories.get(wrong)!r}, expected {expected}; fetch the "
            "published file"
        )
    _check_images(labels, names, path)
    return {number: (name, list(labels.get(number, ()))) for number, name in names.items()}


def read_captions(path: Path) -> dict[int, list[str]]:
    """Read captions_*.json, plain or `.gz`, piece by piece: for each image id its captions, in the order of the file.

    Raises:
        ValueError: If the file is damaged or not of the format, or a caption is empty or of an image that the file
            does not have.
    """
    names: dict[int, str] = {}
    captions: dict[int, list[str]] = {}
    for place, section, item in _items(path):
        if section == "images":
            names[_number(item, "id", place)] = ""
        elif section == "annotations":
            # Line breaks separate captions.
            caption = " ".join(_text(item, "caption", place).split())
            captions.setdefault(_number(item, "image_id", place), []).append(caption)
    _check_images(captions, names, path)
    return captions


def _items(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield place, section and object of a COCO file, with progress."""
    for section, number, item in datasets.utils.tqdm(read_sections(path), desc=f"Reading {path.name}", unit=" items"):
        place = f"{path}, {section}, item {number}"
        if not isinstance(item, dict):
            raise ValueError(f"{place}: a JSON {type(item).__name__}, expected an object; fetch the file again")
        yield place, section, item


def _check_images(found: Mapping[int, Any], names: Mapping[int, str], path: Path) -> None:
    """Raise if there is no image or no annotation, or one is of an image that the file does not have."""
    if not names or not found:
        raise ValueError(f"{path} has no {'annotation' if names else 'image'}; fetch the file again")
    unknown = next((number for number in found if number not in names), None)
    if unknown is not None:
        raise ValueError(
            f"{path} annotates the image {unknown}, but its section images lacks it; fetch the file again"
        )


def _number(item: dict[str, Any], key: str, place: str) -> int:
    """The whole number under a key."""
    value = item.get(key)
    if type(value) is not int:
        raise ValueError(f"{place}: {key} is {str(value)[:60]}, expected a whole number; fetch the file again")
    return value


def _text(item: dict[str, Any], key: str, place: str) -> str:
    """The text under a key, which is not empty."""
    value = item.get(key)
    try:
        if isinstance(value, str) and value.strip() and value.encode():
            return value
    except UnicodeEncodeError:
        pass  # half a surrogate pair is JSON, but not text
    raise ValueError(f"{place}: {key} is {ascii(value)[:60]}, expected a text; fetch the file again")
