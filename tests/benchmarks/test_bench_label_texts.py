import bench_label_texts
from datasets import ClassLabel, Dataset, Features, List, Value

from sgm_hf import label_sets_of

DOCUMENTS = Dataset.from_dict(
    {"text": list("abcde"), "labels": [[0, 1], [1], [2, 0], [], [2, 0, 1]]},
    features=Features({"text": Value("string"), "labels": List(ClassLabel(names=["x", "y", "z", "rare"]))}),
)


def test_left_out_labels_are_gone_with_the_documents_that_have_no_other():
    kept = bench_label_texts.without_labels(DOCUMENTS, ["y"])
    assert kept.features["labels"].feature.names == ["x", "z", "rare"]
    assert kept["text"][:] == ["a", "c", "e"]
    assert label_sets_of(kept) == [["x"], ["z", "x"], ["z", "x"]]


def test_labels_are_left_out_at_even_ranks_of_those_that_occur():
    assert bench_label_texts.spread_labels(DOCUMENTS, 3) == ["x", "y", "z"]
    assert bench_label_texts.spread_labels(DOCUMENTS, 1) == ["y"]
