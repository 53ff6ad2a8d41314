from pathlib import Path
from types import SimpleNamespace

import bench_sizes
import pytest

from sgm_hf import load_corpus


def test_the_page_shows_the_rows_that_were_measured():
    page = (Path(bench_sizes.__file__).parents[1] / "docs" / "sizes.md").read_text(encoding="utf-8")
    assert bench_sizes.table() in page


def test_few_documents_are_seen_more_often_than_many():
    assert [bench_sizes.epochs_for(count) for count in (500, 3_000, 7_000, 100_000)] == [30, 12, 12, 5]


@pytest.mark.parametrize("arm", ["small", "linear"])
def test_an_arm_is_measured(arm, monkeypatch):
    corpus = load_corpus("generated")
    splits = [corpus["train"].select(range(40)), *(corpus["validation"].select(range(k, k + 5)) for k in (0, 5))]
    monkeypatch.setattr(bench_sizes, "SEEN", ((40, 1),))
    monkeypatch.setattr(bench_sizes, "load_splits", lambda arguments: splits)
    monkeypatch.setattr("sgm_hf.training.prepare_cpu", lambda num_threads: None)
    arguments = SimpleNamespace(corpus="generated", data_dir=None, num_documents=40, arm=arm, seed=1)
    row = (bench_sizes.train_linear if arm == "linear" else bench_sizes.train_model)(arguments)
    assert (row["documents"], row["labels"]) == (40, 29)
    assert 0 <= row["micro_f1"] <= 1 and 0 < row["zero_one_loss"] <= 1
    assert row["training_documents_per_second"] == pytest.approx(40 / row["training_seconds"])


def test_validation_documents_are_not_trained_on():
    arguments = SimpleNamespace(corpus="generated", data_dir=None, num_documents=50_000)
    train, validation, test = bench_sizes.load_splits(arguments)
    assert (len(train), len(validation), len(test)) == (19_700, 300, 1_000)
    assert not {*train["id"]} & {*validation["id"]}
