"""The constraints on label sets: what they allow at each step, what they cost, and what they refuse."""

import functools
import itertools
import random

import numpy as np
import pytest
import torch
from tiny_models import build_model
from torch.utils._python_dispatch import TorchDispatchMode

from sgm_hf.modeling import LabelConstraints, SGMConfig
from sgm_hf.modeling.constraints_sgm import produced_labels
from sgm_hf.modeling.label_sets_sgm import label_sets_from_sequences

NUM_LABELS = 4


class LargestTensor(TorchDispatchMode):
    """Counts PyTorch's operations and the elements of the largest tensor that one returned."""

    def __init__(self):
        super().__init__()
        self.elements = self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        outputs = output if isinstance(output, tuple | list) else [output]
        self.operations += 1
        self.elements = max([self.elements, *(t.numel() for t in outputs if isinstance(t, torch.Tensor))])
        return output


# ---- what is allowed ----


def obeys(labels, constraints) -> bool:
    """The constraints, read literally on a label sequence."""
    hierarchy = constraints.get("label_hierarchy", {})
    return (
        constraints.get("min_labels", 0) <= len(set(labels)) <= constraints.get("max_labels", NUM_LABELS)
        and set(labels) <= set(constraints.get("allowed_labels", range(NUM_LABELS)))
        and not set(labels) & set(constraints.get("forbidden_labels", ()))
        and set(constraints.get("required_labels", ())) <= set(labels)
        and all(hierarchy[label] in labels[:i] for i, label in enumerate(labels) if label in hierarchy)
    )


def random_constraints(seed: int) -> dict:
    """Any combination of constraints."""
    chance = random.Random(seed)
    labels = list(range(NUM_LABELS))
    drawn = {
        "allowed_labels": sorted(chance.sample(labels, chance.choice((2, 3)))),
        "forbidden_labels": [chance.choice(labels)],
        "required_labels": sorted(chance.sample(labels, chance.choice((1, 2)))),
        "min_labels": chance.choice((1, 2)),
        "max_labels": chance.choice((1, 2, 3)),
        "label_hierarchy": chance.choice(({0: 1}, {0: 1, 1: 2}, {0: 3, 1: 3, 2: 1}, {2: 0, 3: 0})),
    }
    return {name: value for name, value in drawn.items() if chance.random() < 0.5}


@pytest.mark.parametrize("repeats", [False, True], ids=["each label once", "labels repeated"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, None])
def test_a_label_may_come_next_exactly_if_a_set_within_the_constraints_can_follow(num_steps, repeats):
    if num_steps is None and repeats:
        num_steps = 5
    longest = NUM_LABELS + 1 if num_steps is None else num_steps
    all_sequences = [
        list(labels)
        for size in range(longest + 1)
        for labels in itertools.product(range(NUM_LABELS), repeat=size)
        if repeats or len(set(labels)) == size
    ]
    config, num_met = SGMConfig(num_labels=NUM_LABELS), 0
    for seed in range(60):
        limits = random_constraints(seed)
        complete = [labels for labels in all_sequences if obeys(labels, limits)]
        # What ends with eos has to have a step for it; what is cut has none.
        ended = {tuple(labels) for labels in complete if num_steps is None or len(labels) < num_steps}
        prefixes = {tuple(labels[:size]) for labels in complete for size in range(len(labels) + 1)}
        max_length = None if num_steps is None else num_steps + 1
        make = functools.partial(LabelConstraints, config, **limits, max_length=max_length)
        if not complete:
            with pytest.raises(ValueError):
                make()
            continue
        num_met += 1
        constraints = make()
        for prefix in prefixes:
            if num_steps is not None and len(prefix) == num_steps:
                continue
            ids = torch.tensor([[config.bos_label_id, *prefix]])
            allowed = constraints(ids, torch.zeros(1, NUM_LABELS + 1))[0].isfinite().tolist()
            for label in range(NUM_LABELS):
                if repeats or label not in prefix:  # else the decoder masks it
                    assert allowed[label] == ((*prefix, label) in prefixes), (limits, prefix, label)
            assert allowed[NUM_LABELS] == (prefix in ended), (limits, prefix)
    assert num_met > 20


def test_rows_are_masked_each_by_what_it_has_produced():
    constraints = LabelConstraints(SGMConfig(num_labels=3), required_labels=[0], label_hierarchy={0: 1}, max_labels=2)
    ids = torch.tensor([[4, 5, 5], [4, 1, 5], [4, 1, 0]])  # {}, {1}, {1, 0}
    allowed = constraints(ids, torch.zeros(3, 4)).isfinite()
    assert allowed.tolist() == [
        [False, True, False, False],
        [True, True, False, False],
        [True, True, False, True],
    ]


def test_produced_labels_are_those_of_the_sequence():
    ids = torch.tensor([[4, 0, 2, 3, 5], [4, 1, 1, 1, 3], [4, 3, 5, 5, 5]])
    assert produced_labels(ids, 3).tolist() == [[True, False, True], [False, True, False], [False, False, False]]


def test_an_ancestor_is_selected_before_its_descendants_in_a_tie():
    constraints = LabelConstraints(SGMConfig(num_labels=4), label_hierarchy={0: 1, 1: 3})
    scores = torch.tensor([[0.5, 0.5, 0.9, 0.5], [0.4, 0.6, 0.0, 0.7]])
    assert constraints.select(scores, 0.5) == [[2, 3, 1, 0], [3, 1]]
    assert LabelConstraints(SGMConfig(num_labels=4), max_labels=2).select(scores, 0.5) == [[2, 0], [3, 1]]


# ---- what it costs ----


HIERARCHIES = {
    "none": lambda num_labels: {},
    "tree": lambda num_labels: {label: (label - 1) // 2 for label in range(1, num_labels)},
    "chain": lambda num_labels: {label: label - 1 for label in range(1, num_labels)},
    "chain, from its end": lambda num_labels: {label: label - 1 for label in reversed(range(1, num_labels))},
}


def test_nothing_is_built_where_no_constraint_is_set():
    config = SGMConfig(num_labels=5000)
    with LargestTensor() as largest:
        constraints = LabelConstraints(config)
    assert constraints.is_trivial
    assert largest.elements == 0


@pytest.mark.parametrize("name", HIERARCHIES)
def test_constraints_cost_time_and_memory_linear_in_the_labels_and_edges(name):
    num_labels, num_rows = 20_000, 3
    config = SGMConfig(num_labels=num_labels)
    hierarchy = HIERARCHIES[name](num_labels)
    with LargestTensor() as largest:
        constraints = LabelConstraints(
            config, forbidden_labels=[num_labels - 1], required_labels=[1], max_labels=5, label_hierarchy=hierarchy
        )
        ids = torch.tensor([[config.bos_label_id, 0, 1]] * num_rows)
        constraints(ids, torch.zeros(num_rows, num_labels + 1))
        constraints.select(torch.rand(num_rows, num_labels), 0.9)
    assert largest.elements <= num_rows * (num_labels + 3)
    assert largest.operations < 500  # and nothing is done in PyTorch label by label


@pytest.mark.parametrize("settings", [{"num_beams": 5}, {"num_beams": 1}, {"num_beams": 5, "output_scores": True}])
@pytest.mark.parametrize("name", HIERARCHIES)
def test_generating_makes_nothing_larger_than_the_scores_of_its_rows(name, settings):
    num_labels = 3000
    model = build_model(num_labels=num_labels)
    limits = {"max_labels": 3, "label_hierarchy": HIERARCHIES[name](num_labels)}
    with LargestTensor() as largest:
        model.generate(torch.tensor([[5, 6, 7], [8, 9, 0]]), **settings, **limits, return_dict_in_generate=True)
    assert largest.elements < 100_000  # weights and scores; 3000 * 3000 would be 9 million


def test_the_search_is_no_longer_than_the_largest_set(monkeypatch):
    model, lengths = build_model(num_labels=50), []
    search = type(model).search_beams
    monkeypatch.setattr(
        type(model),
        "search_beams",
        lambda self, *args, generation_config, **others: (
            lengths.append(generation_config.max_length)
            or search(self, *args, generation_config=generation_config, **others)
        ),
    )
    for limits in ({}, {"max_labels": 5}, {"allowed_labels": [3, 4]}, {"max_labels": 5, "max_length": 20}):
        model.generate(torch.tensor([[5, 6]]), **limits)
    assert lengths == [52, 7, 4, 20]


# ---- what is refused ----


@pytest.mark.parametrize("name", ["allowed_labels", "forbidden_labels", "required_labels"])
@pytest.mark.parametrize("labels", ["LABEL_1", b"LABEL_1", 1, {"LABEL_1": 2}], ids=repr)
def test_a_bare_label_is_not_read_as_a_list(name, labels):
    with pytest.raises(TypeError, match=f"{name} must be a list of label names or ids, got"):
        LabelConstraints(SGMConfig(num_labels=3), **{name: labels})


def test_an_unknown_label_is_refused_with_some_of_the_labels_there_are():
    some = "LABEL_0, .*, LABEL_9"
    for num_labels, shown in ((3, "LABEL_0, LABEL_1, LABEL_2"), (10, some), (11, f"{some}, …")):
        for label in (num_labels, -1, "LABEL_11"):
            with pytest.raises(ValueError, match=rf"no label {label!r}\. Its {num_labels} labels are: {shown}$"):
                LabelConstraints(SGMConfig(num_labels=num_labels), required_labels=[0, label])


def test_untrained_labels_are_forbidden_and_cannot_be_required():
    config = SGMConfig(num_labels=4, num_untrained_labels=2)
    constraints = LabelConstraints(config)
    assert constraints.most_labels == 2
    allowed = constraints(torch.tensor([[config.bos_label_id]]), torch.zeros(1, 5)).isfinite()
    assert allowed.tolist() == [[True, True, False, False, True]]
    with pytest.raises(ValueError, match=r"asks for \['LABEL_2'\].* not been trained"):
        LabelConstraints(config, required_labels=[1, 2])


@pytest.mark.parametrize("label", [True, 1.0, None, np.bool_(True), torch.tensor(True), torch.tensor(1.0)], ids=repr)
def test_label_ids_are_integers(label):
    for arguments in ({"allowed_labels": [label]}, {"required_labels": [label]}, {"label_hierarchy": {0: label}}):
        with pytest.raises(TypeError, match="A label id must be an integer, got"):
            LabelConstraints(SGMConfig(num_labels=3), **arguments)


@pytest.mark.parametrize("labels", [(1,), {1}, np.array([1]), torch.tensor([1]), [np.int64(1)], [torch.tensor(1)]])
def test_integers_of_other_libraries_are_label_ids(labels):
    constraints = LabelConstraints(SGMConfig(num_labels=3), required_labels=labels, max_labels=np.int32(2))
    assert constraints.required.tolist() == [1]
    assert constraints.max_labels == 2


@pytest.mark.parametrize("name", ["min_labels", "max_labels"])
@pytest.mark.parametrize("value", [1.5, 2.0, True, "2", torch.tensor(1.5)], ids=repr)
def test_numbers_of_labels_are_integers(name, value):
    with pytest.raises(TypeError, match=f"{name} must be an integer, got"):
        LabelConstraints(SGMConfig(num_labels=3), **{name: value})


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"required_labels": [0, 1]},
            r"required_labels \(2 with their ancestors\) do not fit.*max_length=2.*1 places",
        ),
        ({"required_labels": [0], "label_hierarchy": {0: 1}}, r"required_labels \(2 with their ancestors\)"),
        ({"min_labels": 2}, "min_labels=2"),
    ],
)
def test_what_does_not_fit_before_the_cut_is_refused_with_its_numbers(limits, message):
    config = SGMConfig(num_labels=3)
    LabelConstraints(config, **limits, max_length=3)
    with pytest.raises(ValueError, match=message):
        LabelConstraints(config, **limits, max_length=2)


@pytest.mark.parametrize("turn", range(5))
def test_a_cycle_is_refused_wherever_it_begins(turn):
    edges = [(0, 1), (1, 2), (2, 3), (3, 1), (4, 0)]
    with pytest.raises(ValueError, match="label_hierarchy has a cycle through 'LABEL_[123]'"):
        LabelConstraints(SGMConfig(num_labels=5), label_hierarchy=dict(edges[turn:] + edges[:turn]))


@pytest.mark.parametrize(
    ("limits", "prompt"),
    [
        ({"forbidden_labels": [2]}, [2]),
        ({"max_labels": 1}, [0, 1]),
        ({"label_hierarchy": {0: 1}}, [0]),
        ({"required_labels": [1, 2], "max_labels": 2}, [0]),
        ({"required_labels": [1], "max_new_tokens": 1}, None),
    ],
    ids=str,
)
def test_first_labels_outside_the_constraints_are_refused(limits, prompt):
    model, text = build_model(num_labels=3), torch.tensor([[5, 6, 7]])
    if prompt is None:  # the prompt's length counts towards the cut
        prompt = [0]
        sequences = model.generate(text, decoder_input_ids=torch.tensor([[4, 0]]), **limits)
        assert label_sets_from_sequences(sequences, 3) == [[0, 1]]
        return
    for ids in ([4, *prompt], prompt):  # with bos, and without
        with pytest.raises(ValueError, match=r"decoder_input_ids has 'LABEL_\d' at place \d"):
            model.generate(text, decoder_input_ids=torch.tensor([ids]), **limits)
