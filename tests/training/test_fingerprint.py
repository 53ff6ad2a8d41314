import pytest
from datasets import Dataset, List, Value
from tiny_training import make_documents, make_model

from sgm_hf.modeling import SGMTokenizer
from sgm_hf.training.fingerprint import changed_settings, differences, hash_dataset, make_fingerprint


@pytest.fixture
def fingerprint(arguments):
    """The fingerprint of one training, with what differs."""

    def make(model=None, threshold=None, tokenizer=None, **settings):
        datasets = {"training": make_documents(5), "validation": make_documents(3), "threshold": threshold}
        return make_fingerprint(model or make_model(), arguments(**settings), datasets, tokenizer, "SGMTrainer")

    return make


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"eval_delay": 1}, False),
        ({"eval_on_start": True}, False),
        ({"num_train_epochs": 7}, False),
        ({"skip_memory_metrics": False}, True),
        ({"restore_callback_states_from_checkpoint": False}, True),
        ({"run_name": "other"}, True),
    ],
)
def test_settings_that_change_no_update_made_may_change_and_are_told_where_they_act(fingerprint, changed, same):
    old, new = fingerprint(), fingerprint(**changed)
    assert differences(old, new) == []
    told = changed_settings(old, new)
    assert told == ({} if same else {name: [old["settings"][name], value] for name, value in changed.items()})


def test_a_model_loaded_from_elsewhere_is_the_same(fingerprint):
    model = make_model()
    model.config._name_or_path, model.config.transformers_version = "me/published", "1.2.3"
    assert differences(fingerprint(), fingerprint(model)) == []


@pytest.mark.parametrize("column", ["input_ids", "labels", "length", "index"])
def test_one_changed_number_of_any_column_changes_the_hash_of_the_data(column):
    data = make_documents(20)
    values = data[column]
    row = next(row for row in reversed(range(20)) if values[row])
    values = [*values[:row], [0] if isinstance(values[row], list) else 99, *values[row + 1 :]]
    changed = data.remove_columns(column).add_column(column, values)
    assert (
        hash_dataset(changed)
        != hash_dataset(data)
        == hash_dataset(data.remove_columns(column).add_column(column, data[column]))
    )


def test_where_documents_end_decides_the_hash_and_the_type_of_integers_does_not():
    data = make_documents(20)
    small = data.cast_column("input_ids", List(Value("int32"))).cast_column("length", Value("int16"))
    assert hash_dataset(small) == hash_dataset(data)
    one, two = (Dataset.from_dict({"input_ids": texts}) for texts in ([[1, 2, 3, 4]], [[1, 2], [3, 4]]))
    assert hash_dataset(one) != hash_dataset(two)


def test_the_vocabulary_is_that_of_the_same_words_with_the_same_ids(fingerprint):
    tokenizers = [SGMTokenizer.train_from_texts([text]) for text in ("a b c c", "a b d d", "a a b c")]
    old, *others = (fingerprint(tokenizer=tokenizer) for tokenizer in tokenizers)
    for other in others:
        assert [line.split(":")[0] for line in differences(old, other)] == ["vocabulary"]
    assert differences(old, fingerprint()) == []  # the tokenizer may be left out


def test_a_threshold_that_training_fits_may_differ_and_no_other(fingerprint):
    model = make_model()
    model.generation_config.label_threshold = 0.123
    held_out = make_documents(4)
    assert differences(fingerprint(threshold=held_out), fingerprint(model, threshold=held_out)) == []
    assert [line.split(":")[0] for line in differences(fingerprint(), fingerprint(model))] == ["label_threshold"]


@pytest.mark.parametrize(("warmup", "refused"), [(0, False), (1, False), (0.5, True)])
def test_the_length_may_change_unless_the_warm_up_is_a_share_of_it(fingerprint, warmup, refused):
    settings = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": warmup}
    found = differences(fingerprint(**settings), fingerprint(num_train_epochs=9, **settings))
    assert bool(found) == refused
    linear = {"lr_scheduler_type": "linear", "warmup_steps": warmup}
    assert differences(fingerprint(**linear), fingerprint(num_train_epochs=9, **linear))


def test_of_many_given_weights_the_first_that_differs_is_named(fingerprint):
    given = {f"LABEL_{label}": 1.5 for label in range(4)}
    old = fingerprint(label_weights=given)
    assert differences(old, fingerprint(label_weights=dict(reversed(given.items())))) == []
    (line,) = differences(old, fingerprint(label_weights={**given, "LABEL_2": 3, "LABEL_3": 4}))
    assert line == "label_weights: 2 entries differ, first 'LABEL_2': 1.5 → 3.0"


def test_a_checkpoint_older_than_the_settings_for_rare_labels_was_trained_without_them(fingerprint):
    old = fingerprint()
    for name in ("label_loss", "label_weights", "repeat_factor_threshold", "focal_gamma"):
        del old["settings"][name]
    assert differences(old, fingerprint()) == []
    assert differences(old, fingerprint(label_weights="balanced")) == ["label_weights: none → balanced"]
    assert differences(old, fingerprint(focal_gamma=1.0)) == ["focal_gamma: 0.0 → 1.0"]
