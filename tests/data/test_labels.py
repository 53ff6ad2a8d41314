"""Label order, ids, target sequences and reference matrices."""

import warnings

import numpy as np
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sgm_hf.data.labels import (
    LABEL_ORDERS,
    check_label_names,
    encode_label_sets,
    encode_labels,
    label_matrix,
    label_sets_of,
    order_label_names,
    reference_matrix,
    target_sequence,
)

NAMES = ["zoo", "Łódź, city", "art", "日本語", "never seen"]
LABEL_SETS = [["art", "zoo"], ["Łódź, city"], ["zoo", "art"], ["zoo", "日本語"], []]


def test_frequency_order_descends_and_breaks_ties_by_name():
    names = order_label_names(LABEL_SETS, NAMES, "frequency")
    assert names == ["zoo", "art", "Łódź, city", "日本語", "never seen"]


def test_alphabetical_order_goes_by_name_alone():
    assert order_label_names(LABEL_SETS, NAMES, "alphabetical") == sorted(NAMES)


def test_given_order_is_kept():
    assert order_label_names(LABEL_SETS, NAMES, "given") == NAMES


def test_shuffled_order_has_the_ids_of_the_frequency_order():
    assert order_label_names(LABEL_SETS, NAMES, "shuffled") == order_label_names(LABEL_SETS, NAMES, "frequency")


@pytest.mark.parametrize("order", ["frequency", "alphabetical", "shuffled"])
@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_documents_and_names_does_not_matter(order, seed):
    generator = np.random.default_rng(seed)
    names = [NAMES[i] for i in generator.permutation(len(NAMES))]
    label_sets = [LABEL_SETS[i] for i in generator.permutation(len(LABEL_SETS))]
    assert order_label_names(label_sets, names, order) == order_label_names(LABEL_SETS, NAMES, order)


def test_label_sets_may_come_from_a_generator():
    assert order_label_names(iter(LABEL_SETS), NAMES, "frequency")[0] == "zoo"


def test_an_unknown_order_is_refused_with_the_orders_there_are():
    with pytest.raises(ValueError, match="frequency, alphabetical, shuffled, given, hierarchical, got 'random'"):
        order_label_names(LABEL_SETS, NAMES, "random")
    with pytest.raises(ValueError, match="got 'random'"):
        target_sequence([1], "random")


def test_a_training_label_that_is_not_listed_is_named():
    with pytest.raises(ValueError, match="'art' occurs in the training data, but not among the 1 known labels"):
        order_label_names([["art"]], ["zoo"], "frequency")


def test_an_empty_list_of_label_names_is_an_error():
    with pytest.raises(ValueError, match="no label names"):
        order_label_names([[]], [], "frequency")
    with pytest.raises(ValueError, match="no label names"):
        reference_matrix([[]], [])


def test_a_single_label_is_allowed_with_one_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        order_label_names([["spam"], []], ["spam", "ham"], "frequency")
        assert not caught
        assert order_label_names([["spam"], []], ["spam"], "frequency") == ["spam"]
        target_sequence([0], "frequency")
        reference_matrix([["spam"], []], ["spam"])
    assert len(caught) == 1
    assert str(caught[0].message) == (
        "There is only one label, 'spam': a model can only learn which documents have it and which have none. If the "
        "data has more labels, check the label column and its separator (--label_separator)."
    )
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a", "a"], "'a' is listed 2 times"), (["a", " "], "' ' is not a label name"), ([3], "3 is")],
)
def test_impossible_label_names_are_named(names, message):
    with pytest.raises(ValueError, match=message):
        check_label_names(names)


def test_labels_become_ids_in_the_order_of_the_document():
    label2id = {name: i for i, name in enumerate(NAMES)}
    assert encode_labels(["日本語", "zoo", "Łódź, city"], label2id, "document 1") == ([3, 0, 1], [])


def test_an_unknown_label_is_an_error_that_names_document_label_and_remedy():
    with pytest.raises(ValueError, match="^document 17: unknown label 'artt', .*'zoo'.*--unknown_labels count"):
        encode_labels(["zoo", "artt"], {"zoo": 0, "art": 1}, "document 17")


def test_an_unknown_label_that_is_counted_is_set_apart():
    assert encode_labels(["new", "zoo"], {"zoo": 0}, "document 1", "count") == ([0], ["new"])


@pytest.mark.parametrize("labels", [["zoo", "art", "zoo"], ["new", "new"]])
def test_a_label_twice_is_an_error_that_names_document_and_label(labels):
    with pytest.raises(ValueError, match=f"^document 17: the label '{labels[0]}' occurs twice"):
        encode_labels(labels, {"zoo": 0, "art": 1}, "document 17", "count")


def test_the_cost_of_a_documents_labels_grows_with_their_number_and_not_its_square(counted_names):
    names, count = counted_names
    label2id = {name: i for i, name in enumerate(names)}
    count["comparisons"] = 0
    assert encode_labels(names, label2id, "document 1", "count") == (list(range(2000)), [])
    assert encode_labels(names, {}, "document 1", "count") == ([], names)
    assert count["comparisons"] < 20 * len(names)


def test_a_wrong_choice_for_unknown_labels_is_refused():
    with pytest.raises(ValueError, match="unknown_labels must be one of error, count, got 'drop'"):
        encode_labels([], {}, "document 1", "drop")


def test_a_long_label_list_is_cut_short_in_an_error():
    with pytest.raises(ValueError, match=r"the 100 known labels \('0', '1', '2', '3', '4', …\)"):
        encode_labels(["x"], {str(i): i for i in range(100)}, "document 1")


@pytest.mark.parametrize(
    ("order", "expected"), [("frequency", [0, 2, 5]), ("alphabetical", [0, 2, 5]), ("given", [5, 0, 2])]
)
def test_target_sequences_follow_the_order(order, expected):
    labels = [5, 0, 2]
    assert target_sequence(labels, order) == expected
    assert labels == [5, 0, 2]


def test_shuffled_targets_are_permutations_set_by_the_generator_alone():
    labels = list(range(8))
    first = target_sequence(labels, "shuffled", np.random.default_rng((1, 0, 5)))
    again = target_sequence(labels, "shuffled", np.random.default_rng((1, 0, 5)))
    next_epoch = target_sequence(labels, "shuffled", np.random.default_rng((1, 1, 5)))
    assert first == again != next_epoch
    assert sorted(first) == sorted(next_epoch) == labels


def test_shuffled_targets_reach_every_order():
    generator = np.random.default_rng(0)
    seen = {tuple(target_sequence([3, 1, 2], "shuffled", generator)) for _ in range(200)}
    assert len(seen) == 6


def test_shuffled_targets_need_a_generator():
    with pytest.raises(ValueError, match="needs a generator"):
        target_sequence([1, 0], "shuffled")


@pytest.mark.parametrize("order", LABEL_ORDERS)
def test_a_document_without_labels_has_an_empty_target(order):
    assert target_sequence([], order, np.random.default_rng(0)) == []


def test_a_reference_matrix_holds_each_label_where_its_id_says():
    matrix, unknown = reference_matrix(LABEL_SETS, NAMES)
    assert matrix.dtype == bool and matrix.shape == (5, 5) and unknown == []
    assert [[NAMES[i] for i in np.flatnonzero(row)] for row in matrix] == [
        sorted(labels, key=NAMES.index) for labels in LABEL_SETS
    ]


def test_counted_unknown_labels_get_columns_after_the_known_ones_sorted_by_name():
    matrix, unknown = reference_matrix([["y", "a"], ["x"], ["a", "y"]], ["a", "b"], "count")
    assert unknown == ["x", "y"]
    assert matrix.tolist() == [[True, False, False, True], [False, False, True, False], [True, False, False, True]]


def test_the_ids_of_label_sets_are_the_columns_of_the_reference_matrix():
    id_sets, unknown = encode_label_sets([["y", "a"], [], ["x"]], ["a", "b"], "count")
    assert (id_sets, unknown) == ([[0, 3], [], [2]], ["x", "y"])
    matrix, _ = reference_matrix([["y", "a"], [], ["x"]], ["a", "b"], "count")
    assert np.array_equal(matrix, label_matrix(id_sets, 4))


def test_an_unknown_label_in_references_names_the_document():
    with pytest.raises(ValueError, match="^document number 1: unknown label 'x'"):
        reference_matrix([["a"], ["x"]], ["a"])
    with pytest.raises(ValueError, match="^document d7: unknown label 'x'"):
        reference_matrix([["a"], ["x"]], ["a"], document_ids=["d6", "d7"])


def test_predictions_are_laid_out_as_wide_as_their_references():
    assert label_matrix([[1, 0], [], [2]], 4).tolist() == [
        [True, True, False, False],
        [False, False, False, False],
        [False, False, True, False],
    ]


def test_label_sets_of_a_data_set_hold_known_and_unknown_names():
    features = {"labels": List(ClassLabel(names=NAMES)), "unknown_labels": List(Value("string"))}
    columns = {"labels": [[3, 0], []], "unknown_labels": [["new"], []]}
    dataset = Dataset.from_dict(columns, features=Features(features))
    assert label_sets_of(dataset) == [["日本語", "zoo", "new"], []]
    assert label_sets_of(dataset.remove_columns("unknown_labels")) == [["日本語", "zoo"], []]


@pytest.mark.parametrize("labels", [[[0], [-1]], [[0], [1, None]], [[0], [5]], [[0], None]])
def test_an_invalid_label_id_is_reported_with_its_document(labels):
    features = Features({"labels": List(ClassLabel(names=NAMES))})
    dataset = Dataset(pa.table({"labels": labels}, schema=features.arrow_schema))
    with pytest.raises(ValueError, match=r"document number 1: labels are .*list of ids from 0 to 4.*an empty list"):
        label_sets_of(dataset)


def test_labels_that_are_not_class_labels_are_refused_with_their_type():
    for labels in ([["a"], ["b"]], ["a", "b"]):
        with pytest.raises(ValueError, match=r"'labels' is of type .*string.*expected List\(ClassLabel"):
            label_sets_of(Dataset.from_dict({"labels": labels}))


def test_a_data_set_without_labels_is_refused_with_its_columns():
    with pytest.raises(ValueError, match="no column 'labels', only id, text"):
        label_sets_of(Dataset.from_dict({"id": ["1"], "text": ["a"]}))


MESSAGES = {
    "no names": (
        lambda: check_label_names([]),
        "There are no label names: at least one document needs a label, or give the label names.",
    ),
    "a name twice": (
        lambda: check_label_names(["b", "a", "b", "a"]),
        "The label name 'b' is listed 2 times: list each name once.",
    ),
    "no text": (lambda: check_label_names(["a", 3]), "3 is not a label name: expected a text that is not empty."),
    "unlisted labels": (
        lambda: order_label_names([["z", "a"], ["y"]], ["a", "b"], "frequency"),
        "The label 'y' occurs in the training data, but not among the 2 known labels ('a', 'b'): add it to the label "
        "names, or correct the data.",
    ),
    "five names": (
        lambda: encode_labels(["x"], {name: i for i, name in enumerate("abcde")}, "t.csv, line 3"),
        "t.csv, line 3: unknown label 'x', expected one of the 5 known labels ('a', 'b', 'c', 'd', 'e'). Correct it, "
        "add it to the training data, or count it as missed in the evaluation with --unknown_labels count.",
    ),
    "six names": (
        lambda: encode_label_sets([["a"], ["x"]], list("abcdef")),
        "document number 1: unknown label 'x', expected one of the 6 known labels ('a', 'b', 'c', 'd', 'e', …). "
        "Correct it, add it to the training data, or count it as missed in the evaluation with --unknown_labels "
        "count.",
    ),
    "a label twice": (
        lambda: encode_labels(["a", "x", "a"], {"a": 0}, "document 5", "count"),
        "document 5: the label 'a' occurs twice, expected it once. Remove the second.",
    ),
    "an order of names": (
        lambda: order_label_names([], ["a"], "random"),
        "label order must be one of frequency, alphabetical, shuffled, given, hierarchical, got 'random'.",
    ),
    "an order": (
        lambda: target_sequence([1], "random"),
        "label order must be one of frequency, alphabetical, shuffled, given, hierarchical, got 'random'.",
    ),
    "a choice": (
        lambda: encode_labels([], {}, "document 5", "drop"),
        "unknown_labels must be one of error, count, got 'drop'.",
    ),
    "no generator": (
        lambda: target_sequence([1], "shuffled"),
        'The order "shuffled" needs a generator: np.random.default_rng((seed, epoch, document)).',
    ),
    "no labels": (
        lambda: label_sets_of(Dataset.from_dict({"id": ["1"], "text": ["a"]})),
        "The data set has no column 'labels', only id, text: without true labels it can be predicted, but neither "
        "trained on nor evaluated.",
    ),
    "labels by name": (
        lambda: label_sets_of(Dataset.from_dict({"labels": [["a"]]})),
        "The column 'labels' is of type List(Value('string')): expected List(ClassLabel(names=[…])). Cast it, or read "
        "the file with load_files.",
    ),
}


@pytest.mark.parametrize(("call", "message"), MESSAGES.values(), ids=MESSAGES.keys())
def test_an_error_says_what_is_wrong_and_what_to_do(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


def test_a_wrong_label_id_says_document_value_and_what_to_do():
    features = Features({"labels": List(ClassLabel(names=NAMES))})
    with pytest.raises(ValueError) as caught:
        label_sets_of(Dataset(pa.table({"labels": [[4], [0, -1]]}, schema=features.arrow_schema)))
    assert str(caught.value) == (
        "document number 1: labels are [0, -1], expected a list of ids from 0 to 4. Correct them; a document without "
        "a label has an empty list."
    )


def test_references_of_unequal_number_are_refused():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        reference_matrix([["a"], ["b"]], ["a", "b"], document_ids=["d1"])
