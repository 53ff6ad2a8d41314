"""Label hierarchies: read from both formats with their faults named, ordered, and completed in documents."""

import gzip
import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sgm_hf.data.hierarchy import (
    add_ancestors,
    label_depths,
    parents_of_labels,
    read_label_hierarchy,
    with_ancestors,
)
from sgm_hf.data.labels import label_sets_of, order_label_names, target_sequence

LINES = """parent: CCAT child: C15
parent: Root child: CCAT
parent: C15 child: C151
parent: Root child: GCAT"""
PARENTS = {"C15": "CCAT", "CCAT": None, "C151": "C15", "GCAT": None}


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_both_formats_say_the_same_and_the_root_is_no_label(write, ending):
    assert read_label_hierarchy(write(f"a.hier{ending}", LINES)) == PARENTS
    assert read_label_hierarchy(write(f"a.json{ending}", json.dumps(PARENTS))) == PARENTS
    # Those at the top may be left out where something is below them.
    left_out = {child: parent for child, parent in PARENTS.items() if child != "CCAT"}
    assert read_label_hierarchy(write(f"b.json{ending}", json.dumps(left_out))) == PARENTS


def test_names_with_spaces_and_descriptions_are_read(write):
    text = (
        "parent: None child: Root child-description: Root\n"
        "parent: Root  child: real estate child-description: Houses\n"
        "parent: real estate child: rent"
    )
    assert read_label_hierarchy(write("a.hier", text)) == {"real estate": None, "rent": "real estate"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.hier", LINES + "\nCCAT C11", r"a\.hier, line 5: got 'CCAT C11', expected 'parent: P child: C'"),
        ("a.hier", LINES + "\nparent: GCAT child: C15", r"line 5: .*'C15' is below 'GCAT', but .* below 'CCAT'"),
        ("a.hier", LINES + "\nparent: C151 child: CCAT", r"line 5: .*'CCAT' is below 'C151', but .* below None"),
        ("a.hier", "parent: a child: b\nparent: b child: a", r"a\.hier: .* cycle, 'b' below 'a' below 'b'"),
        ("a.hier", "parent: a child: a", "cycle, 'a' below 'a'"),
        ("a.hier", "", "names no label"),
        ("a.json", '{"a": "b", "a": "c"}', r"a\.json: .*'a' is given 2 times"),
        ("a.json", '{"a": ["b", "c"]}', r"parent of 'a' is \['b', 'c'\]; expected the name"),
        ("a.json", '["a"]', "a JSON list, expected one object"),
        ("a.json", "{", "not valid JSON"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(write, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_label_hierarchy(write(name, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.hier"):
        read_label_hierarchy(tmp_path / "nowhere.hier")


def test_a_label_that_the_hierarchy_lacks_and_a_parent_that_no_label_is_are_named():
    assert parents_of_labels(PARENTS, ["C15", "CCAT"]) == {"C15": "CCAT"}
    with pytest.raises(ValueError, match="the label 'M1' is not in the label hierarchy, which has 4"):
        parents_of_labels(PARENTS, ["C15", "CCAT", "M1"])
    with pytest.raises(ValueError, match="'C151' is below 'C15', which no document .* --add_ancestors true"):
        parents_of_labels(PARENTS, ["C151", "CCAT"])


def test_depths_are_those_of_climbing_and_take_linear_time():
    random = np.random.default_rng(0)
    parents = {str(i): str(random.integers(i)) if i > 3 else None for i in random.permutation(200)}

    def depth(label):
        return 0 if parents[label] is None else 1 + depth(parents[label])

    assert label_depths(parents) == {label: depth(label) for label in parents}
    chain = {i: i + 1 for i in range(200_000)}  # quadratic, this takes hours
    assert label_depths(chain)[0] == 200_000


def test_the_hierarchical_order_puts_general_labels_first_and_frequent_ones_of_a_level():
    random = np.random.default_rng(1)
    names = [f"l{i}" for i in range(30)]
    parents = {f"l{i}": f"l{random.integers(i)}" for i in range(5, 30)}
    label_sets = [random.choice(names, 4, replace=False).tolist() for _ in range(50)]
    ordered = order_label_names(label_sets, names, "hierarchical", parents)
    assert sorted(ordered) == sorted(names)
    depths = label_depths(parents | dict.fromkeys(names[:5]))
    counts = {name: sum(name in labels for labels in label_sets) for name in names}
    assert ordered == sorted(names, key=lambda name: (depths[name], -counts[name], name))
    ids = {name: label for label, name in enumerate(ordered)}
    for labels in label_sets:
        target = target_sequence([ids[name] for name in with_ancestors(labels, parents)], "hierarchical")
        places = {ordered[label]: place for place, label in enumerate(target)}
        assert all(places[parents[name]] < places[name] for name in places if name in parents)
    assert order_label_names(label_sets, names, "hierarchical", {}) == order_label_names(
        label_sets, names, "frequency"
    )
    with pytest.raises(ValueError, match="--label_hierarchy FILE"):
        order_label_names(label_sets, names, "hierarchical")


def test_documents_get_the_ancestors_that_they_lack_and_keep_all_else():
    names = ["GCAT", "C151", "C15"]
    features = Features({"id": Value("string"), "labels": List(ClassLabel(names=names)), "text": Value("string")})
    documents = {"id": list("abcd"), "labels": [[1, 0], [], [2], [0]], "text": ["x", "y", "z", "w"]}
    dataset = Dataset.from_dict(documents, features=features)
    completed, num_documents, num_labels = add_ancestors(dataset, PARENTS)
    assert label_sets_of(completed) == [["C151", "GCAT", "C15", "CCAT"], [], ["C15", "CCAT"], ["GCAT"]]
    assert (num_documents, num_labels) == (2, 3)
    assert completed.features["labels"].feature.names == [*names, "CCAT"]
    assert completed["id"][:] == list("abcd") and completed["text"][:] == dataset["text"][:]
    assert label_sets_of(dataset)[0] == ["C151", "GCAT"]
    again, *counts = add_ancestors(completed, PARENTS)
    assert counts == [0, 0] and label_sets_of(again) == label_sets_of(completed)
