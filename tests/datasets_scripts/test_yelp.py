"""Tests of datasets_scripts/yelp.py, on files in the published format with reviews of our own."""

import gzip
import itertools
import json
import logging

import datasets
import pytest

from sgm_hf.datasets_scripts import convert, load
from sgm_hf.datasets_scripts._corpus import random_split
from sgm_hf.datasets_scripts.yelp import MAX_WORDS, NAMES_WITH_COMMAS, read_businesses, split_categories

BUSINESSES, REVIEWS = "yelp_academic_dataset_business.json", "yelp_academic_dataset_review.json"


def id_in(split, skip=0):
    """A business id that is in a split."""
    ids = (f"business-{number}" for number in itertools.count() if random_split(f"yelp business-{number}") == split)
    return next(itertools.islice(ids, skip, None))


def business(business_id, categories, name="A place"):
    """A line of the file of businesses."""
    fields = {"business_id": business_id, "name": name, "stars": 4.5, "attributes": {"WiFi": "u'no'"}, "hours": None}
    return json.dumps({**fields, "categories": categories})


def review(review_id, business_id, text):
    """A line of the file of reviews."""
    fields = {"review_id": review_id, "user_id": "u", "business_id": business_id, "stars": 5.0, "date": "2018-07-07"}
    return json.dumps({**fields, "text": text})


CAFE, BAR, SHOP, NONE = id_in("train"), id_in("train", 1), id_in("test"), id_in("train", 2)


@pytest.fixture
def folder(write):
    """Two businesses in the training split, one in the test split, and one without categories; five reviews."""
    write(
        BUSINESSES,
        business(CAFE, "Food, Coffee & Tea, Beer, Wine & Spirits", "Café"),
        business(BAR, "Bars, Food"),
        business(SHOP, "Books, Mags, Music & Video, Shopping, Food"),
        business(NONE, None),
    )
    return write(
        REVIEWS,
        review("r1", BAR, "Good\n\nbeer, “cheap”"),
        review("r2", SHOP, "Many books"),
        review("r3", CAFE, "Nice tea"),
        review("r4", NONE, "Closed"),
        review("r5", BAR, "Loud"),
    ).parent


def names_of(dataset):
    """The names of the labels of each document."""
    names = dataset.features["labels"].feature.names
    return [[names[label] for label in labels] for labels in dataset["labels"]]


def test_reviews_have_the_categories_of_their_business_and_stay_in_its_split(folder, cache):
    corpus = load("yelp", data_dir=folder, cache_dir=cache)
    assert corpus["train"].features["labels"].feature.names == [
        *("Food", "Bars", "Beer, Wine & Spirits", "Books, Mags, Music & Video", "Coffee & Tea", "Shopping"),
    ]
    assert corpus["train"]["id"][:] == ["r1", "r3", "r5"]
    assert corpus["train"]["text"][:] == ["Good\n\nbeer, “cheap”", "Nice tea", "Loud"]
    assert names_of(corpus["train"]) == [
        ["Bars", "Food"],
        ["Food", "Coffee & Tea", "Beer, Wine & Spirits"],
        ["Bars", "Food"],
    ]
    assert names_of(corpus["test"]) == [["Books, Mags, Music & Video", "Shopping", "Food"]]
    assert list(corpus) == ["train", "test"]  # no business is in the validation split


def test_businesses_have_their_name_and_reviews_as_text(folder, cache):
    corpus = load("yelp", "businesses", folder, cache_dir=cache)
    assert corpus["train"]["id"][:] == [CAFE, BAR]
    assert corpus["train"]["text"][:] == ["Café\nNice tea", "A place\nGood beer, “cheap”\nLoud"]
    assert corpus["test"]["text"][:] == ["A place\nMany books"]
    assert names_of(corpus["train"])[1] == ["Bars", "Food"]


def test_the_text_of_a_business_is_cut_to_a_number_of_words_of_its_reviews(write, cache):
    write(BUSINESSES, business(BAR, "Bars", "Name of it"))
    lines = [review(f"r{number}", BAR, "word " * 150) for number in range(10)]
    folder = write(REVIEWS, *lines).parent
    (text,) = load("yelp", "businesses", folder, "train", cache_dir=cache)["text"][:]
    assert len(text.split()) == MAX_WORDS + 3 and text.count("\n") == 4


def test_streaming_and_gzip_give_the_same(folder, cache):
    corpus = load("yelp", data_dir=folder, cache_dir=cache)
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    stream = load("yelp", data_dir=folder, streaming=True)
    packed = load("yelp", data_dir=folder, cache_dir=cache)
    for split in corpus:
        assert stream[split].features == packed[split].features == corpus[split].features
        assert list(stream[split]) == list(packed[split]) == list(corpus[split])


def test_a_second_load_has_the_labels_from_the_cache_and_other_files_have_others(folder, write, cache):
    load("yelp", data_dir=folder, cache_dir=cache)
    again = load("yelp", data_dir=folder, split="train", cache_dir=cache)
    assert names_of(again)[0] == ["Bars", "Food"]
    write(BUSINESSES, *(business(name, "Pubs") for name in (CAFE, BAR, SHOP, NONE)))
    changed = load("yelp", data_dir=folder, split="train", cache_dir=cache)
    assert changed.features["labels"].feature.names == ["Pubs"] and changed.num_rows == 4


def test_converted_files_give_the_same_with_plain_datasets(folder, tmp_path, cache):
    statistics = convert.convert("yelp", tmp_path / "out", data_dir=folder)
    converted = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(cache))
    corpus = load("yelp", data_dir=folder, cache_dir=cache)
    for split in corpus:
        assert converted[split].features == corpus[split].features
        assert converted[split][:] == corpus[split][:]
    assert statistics["train"].documents == 3 and statistics["train"].label_counts.tolist() == [3, 2, 1, 0, 1, 0]
    assert "| `Books, Mags, Music & Video` | 0 | 1 |" in (tmp_path / "out" / "README.md").read_text()


def test_what_is_left_out_or_empty_is_a_warning(folder, write, cache, caplog):
    write(REVIEWS, review("r1", BAR, " "), review("r2", NONE, "x"))
    with caplog.at_level(logging.WARNING):
        assert load("yelp", data_dir=folder, split="train", cache_dir=cache)["text"][:] == [" "]
    assert "1 business(es) have no category" in caplog.text and f"{BUSINESSES}, line 4" in caplog.text
    assert "1 document(s) have no text" in caplog.text and f"{REVIEWS}, line 1" in caplog.text


def test_a_category_given_twice_counts_once(write, cache, caplog):
    write(BUSINESSES, business(BAR, "Bars, Food, Bars"))
    folder = write(REVIEWS, review("r1", BAR, "Good")).parent
    assert names_of(load("yelp", data_dir=folder, split="train", cache_dir=cache)) == [["Bars", "Food"]]
    assert "name a label twice" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "not valid JSON .*business_id.*fetch the file again"),
        ("[1]", "a JSON list"),
        ("{}", "there is no key categories"),
        ('{"categories": "Food"}', "business_id is None, expected a text"),
        ('{"business_id": 3, "categories": "Food"}', "business_id is 3, expected a text"),
        ('{"business_id": "b", "categories": "Food"}', "name is None, expected a text"),
        (business("b", 7), "categories is 7, expected names with commas between them"),
        (business("b", ["Food", 7]), "categories is .'Food', 7.*, expected names"),
        (business(CAFE, "Food"), rf"the business {CAFE} appears twice"),
        ('{"business_id": "\\ud800", "name": "n", "categories": "Food"}', "not valid JSON"),
    ],
)
def test_a_faulty_business_is_named_with_file_and_line(folder, write, cache, line, message):
    write(BUSINESSES, business(CAFE, "Food"), line)
    with pytest.raises(ValueError, match=rf"{BUSINESSES}, line 2: .*{message}"):
        load("yelp", data_dir=folder, cache_dir=cache)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON .*review_id.*fetch the file again"),
        ("{}", "business_id is None, expected a text"),
        (review("r", "unknown", "x"), "the business 'unknown' is not in the file of businesses"),
        (review(None, BAR, "x"), "review_id is None, expected a text"),
        (review("r", BAR, None), "text is None, expected a text"),
        (f'{{"text": "a", {review("r", BAR, "x")[1:]}', "the key 'text' is given 2 times"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_faulty_review_is_named_with_file_and_line_and_leaves_nothing(
    folder, write, cache, line, message, streaming
):
    write(REVIEWS, review("r1", BAR, "Good"), line, review("r2", BAR, "Loud"))
    with pytest.raises(ValueError, match=rf"{REVIEWS}, line 2: .*{message}"):
        list(load("yelp", data_dir=folder, split="train", streaming=streaming, cache_dir=cache))
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize("name", [BUSINESSES, REVIEWS])
def test_an_empty_or_truncated_file_is_named(folder, write, truncate, cache, name):
    write(name)
    with pytest.raises(ValueError, match=rf"{name} has no line"):
        load("yelp", data_dir=folder, cache_dir=cache)
    (folder / name).unlink()
    make = business if name == BUSINESSES else review
    truncate(write(f"{name}.gz", *(make(f"b{number}", BAR, "x") for number in range(100))))
    with pytest.raises(ValueError, match=rf"{name}\.gz, line \d+: the gzip stream breaks off"):
        load("yelp", data_dir=folder, cache_dir=cache)


def test_a_missing_file_is_named_with_where_to_get_it(folder, cache):
    (folder / REVIEWS).unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks {REVIEWS} .*https://business\.yelp\.com"):
        load("yelp", data_dir=folder, cache_dir=cache)


def test_files_without_any_category_are_an_error(folder, write, cache):
    write(BUSINESSES, business(BAR, None), business(CAFE, ""))
    with pytest.raises(ValueError, match=f"{BUSINESSES} has no category"):
        load("yelp", data_dir=folder, cache_dir=cache)


def test_lists_of_categories_as_in_old_releases_are_read(write):
    path = write(BUSINESSES, business(BAR, ["Used, Vintage & Consignment", "Bars"]), business(CAFE, ["Bars"]))
    lists = [found.categories for _, found in read_businesses(path)]
    assert lists == [["Used, Vintage & Consignment", "Bars"], ["Bars"]]


def test_categories_are_split_at_the_commas_between_names():
    assert split_categories("Food, Bars") == ["Food", "Bars"]
    assert split_categories(" Food ,Bars,") == ["Food", "Bars"]
    assert split_categories("") == []
    assert split_categories("Beer, Bars") == ["Beer", "Bars"]
    for order in itertools.permutations([*NAMES_WITH_COMMAS, "Food"]):
        assert split_categories(", ".join(order)) == list(order)
