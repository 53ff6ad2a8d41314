"""Tests of datasets_scripts/__init__.py and of what all builders of published corpora share."""

import ast
import hashlib
import os
from pathlib import Path

import pytest

from sgm_hf import datasets_scripts
from sgm_hf.datasets_scripts import CORPORA, load, load_builder
from sgm_hf.datasets_scripts._corpus import CorpusBuilder, EmptyTexts, RepeatedLabels, check_distinct, random_split

PUBLISHED = [name for name in CORPORA if name != "generated"]


@pytest.fixture
def folder(write):
    """A small AAPD."""
    write("text_val", "one", "two")
    return write("label_val", "cs.CL", "cs.LG").parent


def test_the_builders_import_nothing_of_models():
    files = list(Path(datasets_scripts.__file__).parent.glob("*.py"))
    statements = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    modules = {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in statements if isinstance(node, ast.ImportFrom) and node.module}
    assert "sgm_hf.data.lines" in modules
    assert not {name for name in modules if name.startswith(("torch", "transformers", "sgm_hf.modeling"))}
    assert not {name for name in modules if name.startswith("sgm_hf.training")}


def test_an_unknown_corpus_is_named_with_the_known_ones():
    with pytest.raises(
        ValueError,
        match="unknown corpus 'reuters', expected one of aapd, coco, generated, goemotions, rcv1_v2, ren_cecps",
    ):
        load("reuters")


def test_an_unknown_configuration_is_named_with_the_known_ones(folder, cache):
    with pytest.raises(ValueError, match="'big' not found.*lyrl2004.*sgm_xml"):
        load("rcv1_v2", config="big", data_dir=folder, cache_dir=cache)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_missing_folder_is_explained_with_address_and_file_names(name, cache, tmp_path):
    with pytest.raises(ValueError, match=r"data_dir is missing.*https?://"):
        load(name, cache_dir=cache)
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist.*https?://"):
        load(name, data_dir=tmp_path / "nowhere", cache_dir=cache)
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} (lacks|has none of the files).*https?://"):
        load(name, data_dir=tmp_path, cache_dir=cache)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_features_are_id_text_and_a_list_of_class_labels(name):
    builder_class = getattr(__import__(f"sgm_hf.datasets_scripts.{name}", fromlist=[name]), CORPORA[name])
    assert issubclass(builder_class, CorpusBuilder)
    # Yelp's are those of the files.
    counts = {"aapd": 54, "coco": 80, "goemotions": 28, "rcv1_v2": 103, "ren_cecps": 8, "reuters21578": 90, "yelp": 0}
    assert len(set(builder_class.LABEL_NAMES)) == len(builder_class.LABEL_NAMES) == counts[name]
    for config in builder_class.BUILDER_CONFIGS:
        assert config.how_to_obtain and config.description


def test_an_unknown_split_is_an_error(folder, cache):
    for streaming in (False, True):
        with pytest.raises(ValueError, match="dev"):
            load("aapd", data_dir=folder, split="dev", streaming=streaming, cache_dir=cache)


def test_split_expressions_of_datasets_work(folder, cache):
    assert load("aapd", data_dir=folder, split="validation[:1]", cache_dir=cache)["text"][:] == ["one"]
    with pytest.raises(FileNotFoundError, match="the train split needs text_train, label_train"):
        load("aapd", data_dir=folder, split="train+validation", cache_dir=cache)


def test_a_second_load_reads_the_cache_and_a_changed_file_is_read_again(folder, write, cache):
    load("aapd", data_dir=folder, cache_dir=cache)
    arrow = {path: path.stat().st_mtime_ns for path in cache.rglob("*.arrow")}
    load("aapd", data_dir=folder, cache_dir=cache)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.arrow")} == arrow
    write("text_val", "one", "2wo")  # of the same size
    os.utime(folder / "text_val", ns=(0, 0))
    assert load("aapd", data_dir=folder, split="validation", cache_dir=cache)["text"][:] == ["one", "2wo"]
    write("text_train", "three")
    write("label_train", "cs.IT")
    assert list(load("aapd", data_dir=folder, cache_dir=cache)) == ["train", "validation"]


def test_a_corrected_fault_is_read_on_the_next_load(folder, write, cache):
    write("label_val", "cs.CL", "wrong")
    with pytest.raises(ValueError, match="unknown label 'wrong'"):
        load("aapd", data_dir=folder, cache_dir=cache)
    write("label_val", "cs.CL", "cs.AI")
    assert load("aapd", data_dir=folder, cache_dir=cache)["validation"].num_rows == 2


def test_a_relative_folder_and_the_builder_class_itself_work(folder, cache, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert load("aapd", data_dir=folder.name, cache_dir=cache)["validation"].num_rows == 2
    from sgm_hf.datasets_scripts.aapd import AAPD

    builder = AAPD(data_dir=str(folder), cache_dir=str(cache))
    builder.download_and_prepare()
    assert builder.as_dataset(split="validation").num_rows == 2
    assert builder.cache_dir == load_builder("aapd", data_dir=folder, cache_dir=cache).cache_dir


def test_the_generated_corpus_needs_no_files_and_takes_none(folder, cache):
    corpus = load("generated", split="test", cache_dir=cache)
    assert corpus.column_names == ["id", "text", "labels"] and corpus.num_rows > 0
    stream = load("generated", split="test", streaming=True)
    assert stream.features == corpus.features and next(iter(stream)) == corpus[0]
    with pytest.raises(ValueError, match="the generated corpus reads no files; leave it out"):
        load("generated", data_dir=folder, cache_dir=cache)


def test_looking_for_a_repeated_label_costs_as_much_as_there_are_labels(counted_names):
    names, count = counted_names
    repeats = RepeatedLabels()
    count["comparisons"] = 0
    assert repeats.merge([*names, names[-1]], "here") == names
    with pytest.raises(ValueError, match="there: the label 'label 1999' appears twice"):
        check_distinct([*names, names[-1]], "there")
    assert count["comparisons"] < 20 * len(names)


def test_texts_that_are_empty_are_reported_once_with_the_first_place(caplog):
    empty = EmptyTexts()
    empty.note("word", "line 1")
    empty.report()
    assert not caplog.records
    empty.note(" \n", "line 2")
    empty.note("", "line 3")
    empty.report()
    assert [record.getMessage() for record in caplog.records] == [
        "2 document(s) have no text (first: line 2); leave them out of training"
    ]


def test_a_split_by_chance_is_the_same_everywhere_and_has_eight_of_ten_documents_for_training():
    names = [f"corpus {number}" for number in range(10_000)]
    # The remainder of the first 64 bits is that of the last decimal digit.
    digits = [str(int(hashlib.sha256(name.encode()).hexdigest()[:16], 16))[-1] for name in names]
    splits = [random_split(name) for name in names]
    assert splits == [{"8": "validation", "9": "test"}.get(digit, "train") for digit in digits]
    assert splits.count("train") / len(names) == pytest.approx(0.8, abs=0.02)
    assert splits.count("test") / len(names) == pytest.approx(0.1, abs=0.02)


def test_documents_with_repeated_labels_are_reported_once_with_the_first_place(caplog):
    repeats = RepeatedLabels()
    repeats.report()
    assert not caplog.records
    assert repeats.merge(["b", "a", "b", "a"], "line 1") == ["b", "a"]
    assert repeats.merge(["a", "b"], "line 2") == ["a", "b"]
    repeats.merge(["c", "c", "c"], "line 3")
    repeats.report()
    assert [record.getMessage() for record in caplog.records] == [
        "2 document(s) name a label twice (first: line 1: label 'b'); the repetition is dropped, no action is needed"
    ]
