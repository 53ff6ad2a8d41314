"""Yelp Open Dataset: reviews of businesses, with the categories of the business as labels."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from sgm_hf.data.lines import read_json_lines

from ._corpus import CorpusBuilder, CorpusConfig, EmptyTexts, RepeatedLabels, corpus_features, random_split

logger = logging.getLogger(__name__)

# In the files the categories of a business are one string with commas between them; these have commas in their names.
NAMES_WITH_COMMAS = (
    "Beer, Wine & Spirits",
    "Books, Mags, Music & Video",
    "Used, Vintage & Consignment",
    "Wills, Trusts, & Probates",
)
MAX_WORDS = 500  # of the reviews in the text of a business; bounds what is held in memory

_BUSINESS_FILE = "yelp_academic_dataset_business.json"
_REVIEW_FILE = "yelp_academic_dataset_review.json"
_FILES = (_BUSINESS_FILE, _REVIEW_FILE)


def _config(name: str, description: str) -> CorpusConfig:
    """A configuration; all splits are read from the same two files."""
    return CorpusConfig(
        name=name,
        version="1.0.0",
        description=description,
        split_files=dict.fromkeys(("train", "validation", "test"), _FILES),
        how_to_obtain=(
            "Yelp Open Dataset: download the JSON files at https://business.yelp.com/data/resources/open-dataset/ "
            "(for academic use, under Yelp's terms; not to be passed on), unpack "
            f"{_BUSINESS_FILE} and {_REVIEW_FILE}, put them, plain or .gz, into one folder and pass it as data_dir"
        ),
    )


class Yelp(CorpusBuilder):
    """Builder of the Yelp Open Dataset.

    Configuration `reviews`: a document is a review; its labels are the categories of the business, in the order of
    the source. Configuration `businesses`: a document is a business; its text is the name, then its reviews in the
    order of the file, up to 500 words of them.

    The labels are the categories of all businesses in the file, the most frequent ones first and ties by name: other
    releases have other labels. Businesses without categories are left out, with a warning.

    The data has no published split. Here a business and all its reviews are in one split, which the SHA-256 of
    "yelp <business id>" decides.
    """

    DEFAULT_CONFIG_NAME = "reviews"
    BUILDER_CONFIGS = [
        _config("reviews", "One document per review"),
        _config("businesses", "One document per business"),
    ]
    LABEL_NAMES = ()  # those of the files
    DESCRIPTION = "Reviews of businesses with the categories of the business."
    HOMEPAGE = "https://business.yelp.com/data/resources/open-dataset/"
    LICENSE = "Yelp's terms for the Open Dataset: academic use; the data must not be passed on."
    CITATION = "Yelp. Yelp Open Dataset. https://business.yelp.com/data/resources/open-dataset/"

    def features(self) -> None:
        """None: the categories are known only when the file of the businesses is read."""

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        business_path, _ = next(iter(self.config.find_sources().values()))
        counts: Counter[str] = Counter()
        splits = set()
        for _, business in read_businesses(business_path):
            counts.update(set(business.categories))
            if business.categories:
                splits.add(random_split(f"yelp {business.id}"))
        if not counts:
            raise ValueError(f"{business_path} has no category; give {_BUSINESS_FILE} as it is published")
        self.info.features = corpus_features(sorted(counts, key=lambda name: (-counts[name], name)))
        # A small part of the file may have no business in one of the splits, and `datasets` reads no empty ones.
        return [generator for generator in super()._split_generators(dl_manager) if generator.name in splits]

    def _generate_examples(self, split: str, files: tuple[Path, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
        business_path, review_path = files
        businesses: dict[str, Business | None] = {}  # None for those of other splits
        repeats, without = RepeatedLabels(), []
        for place, business in read_businesses(business_path):
            is_here = random_split(f"yelp {business.id}") == split
            if is_here and not business.categories:
                without.append(place)
            business.categories = repeats.merge(business.categories, place) if is_here else []
            businesses[business.id] = business if business.categories else None
        if without:
            logger.warning("%d business(es) have no category (first: %s) and are left out", len(without), without[0])
        repeats.report()
        documents = _reviews if self.config.name == "reviews" else _businesses
        empty = EmptyTexts()
        for number, (place, document) in enumerate(documents(businesses, review_path), start=1):
            empty.note(document["text"], place)
            yield number, document
        empty.report()


@dataclass
class Business:
    """A business of the file: its id, its name and the names of its categories."""

    id: str
    name: str
    categories: list[str]


def split_categories(categories: str) -> list[str]:
    """Split the names of categories at the commas between them, but not within `NAMES_WITH_COMMAS`."""
    parts = [part.strip() for part in categories.split(",")]
    names, place = [], 0
    while place < len(parts):
        size = 1
        for name in NAMES_WITH_COMMAS:
            known = name.split(", ")
            if parts[place : place + len(known)] == known:
                size = len(known)
        names.append(", ".join(parts[place : place + size]))
        place += size
    return [name for name in names if name]


def read_businesses(path: Path) -> Iterator[tuple[str, Business]]:
    """Yield place (file and line) and business of each line of the file of businesses.

    Raises:
        ValueError: If a line is no such object or repeats an id, or the file is empty.
    """
    seen: set[str] = set()
    for place, record in _records(path, {"business_id": "…", "name": "…", "categories": "Food, Bars"}):
        categories = record.get("categories")
        if isinstance(categories, list):  # releases up to 2017
            names = categories
        else:
            names = split_categories(categories) if isinstance(categories, str) else []
        if not (categories is None or isinstance(categories, str | list)) or any(type(n) is not str for n in names):
            raise ValueError(f"{place}: categories is {str(categories)[:60]}, expected names with commas between them")
        if "categories" not in record:
            raise ValueError(f"{place}: there is no key categories; give {_BUSINESS_FILE} as it is published")
        business = Business(_string(record, "business_id", place), _string(record, "name", place), names)
        if business.id in seen:
            raise ValueError(f"{place}: the business {business.id} appears twice; fetch the file again")
        seen.add(business.id)
        yield place, business


def _records(path: Path, example: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and object of each line of a file; the example is for errors."""
    expected = f"Expected one object per line, e.g. {example}; fetch the file again".replace("'", '"')
    number = 0
    with datasets.utils.tqdm(desc=f"Reading {path.name}", unit=" lines") as bar:
        for number, record in read_json_lines(path, expected=expected):
            bar.update()
            yield f"{path}, line {number}", record
    if number == 0:
        raise ValueError(f"{path} has no line; fetch it again")


def _string(record: dict[str, Any], key: str, place: str) -> str:
    """The text under a key."""
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{place}: {key} is {str(value)[:60]}, expected a text; fetch the file again")
    return value


def _read_reviews(
    businesses: dict[str, Business | None], path: Path
) -> Iterator[tuple[str, Business, dict[str, Any]]]:
    """Yield place, business and object of the reviews of the businesses that are not None."""
    for place, record in _records(path, {"review_id": "…", "business_id": "…", "text": "…"}):
        business_id = _string(record, "business_id", place)
        if business_id not in businesses:
            raise ValueError(
                f"{place}: the business {business_id[:40]!r} is not in the file of businesses; fetch both files of "
                "one release"
            )
        business = businesses[business_id]
        if business is not None:
            yield place, business, record


def _reviews(businesses: dict[str, Business | None], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and document of each review."""
    for place, business, record in _read_reviews(businesses, path):
        text = _string(record, "text", place)
        yield place, {"id": _string(record, "review_id", place), "text": text, "labels": business.categories}


def _businesses(businesses: dict[str, Business | None], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and document of each business."""
    texts = {business.id: [business.name] for business in businesses.values() if business is not None}
    room = dict.fromkeys(texts, MAX_WORDS)
    for place, business, record in _read_reviews(businesses, path):
        words = _string(record, "text", place).split()
        if room[business.id] > 0 and words:
            texts[business.id].append(" ".join(words[: room[business.id]]))
            room[business.id] -= len(words)
    for found in businesses.values():
        if found is not None:
            document = {"id": found.id, "text": "\n".join(texts[found.id]), "labels": found.categories}
            yield f"business {found.id}", document
