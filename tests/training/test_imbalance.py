import json

import numpy as np
import optuna
import pytest
import torch
from datasets import Dataset
from sklearn.utils.class_weight import compute_class_weight
from test_trainer import StopAt, assert_equal_weights, weights
from tiny_training import NUM_LABELS, make_documents, make_model

from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.training import OrderFreeTrainer, SamplingArguments, SGMTrainer
from sgm_hf.training.imbalance import (
    balanced_weights,
    document_repeat_factors,
    make_label_weights,
    read_label_weights,
)

RARE = NUM_LABELS - 1
GIVEN = {"LABEL_0": 0.5, "LABEL_2": 0, "LABEL_3": 7}
NAMES = [f"LABEL_{label}" for label in range(NUM_LABELS)]


def make_imbalanced_documents(count: int, seed: int = 0) -> Dataset:
    """Documents of three frequent labels, and of one that only a third of those with its word have."""
    random = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        chosen = np.flatnonzero(random.random(RARE) < 0.4).tolist()
        words = [10, *(2 * label + 2 for label in chosen)]  # nothing by which a document could be learnt by heart
        if random.random() < 0.12:
            words.append(2 * RARE + 2)
            chosen += [RARE] * bool(random.random() < 0.35)
        texts.append(words)
        labels.append(chosen)
    columns = {"input_ids": texts, "labels": labels, "length": [len(text) for text in texts]}
    return Dataset.from_dict({**columns, "index": list(range(count))})


def train(arguments, folder="run", data=None, callbacks=None, resume=None, model=None, **settings):
    """Train a tiny model that shuffles its targets, and return the trainer."""
    given = arguments(folder, **({"eval_strategy": "no", "save_strategy": "no"} | settings))
    trainer = SGMTrainer(
        model or make_model(label_order="shuffled"), given, data or make_documents(24), callbacks=callbacks
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


# ---- weights ----


@pytest.mark.parametrize("given", ["none", "balanced", "effective_number"])
def test_a_weighting_is_named(given):
    assert read_label_weights(given) == given
    assert read_label_weights(None) == "none"


def test_given_weights_are_the_same_from_a_mapping_and_from_a_file(tmp_path, arguments):
    file = tmp_path / "weights.json"
    file.write_text(json.dumps(GIVEN), encoding="utf-8")
    assert read_label_weights(str(file)) == read_label_weights(GIVEN) == GIVEN
    assert arguments(label_weights=str(file)).label_weights == GIVEN  # the file may change or go after that
    expected = torch.tensor([0.5, 1.0, 0.0, 7.0, 1.0])
    assert torch.equal(make_label_weights(GIVEN, NAMES, None, beta=0.9), expected)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("balancd", ValueError, "label_weights is 'balancd'; expected none, balanced, effective_number, or weights"),
        ("missing.json", FileNotFoundError, "label_weights is 'missing.json', but there is no such file"),
        ({"a": -1.0}, ValueError, "the weight of 'a' is -1; expected a number from 0 on"),
        ({"a": float("nan")}, ValueError, "'a' has nan; expected a finite number"),
        ({"a": float("inf")}, ValueError, "'a' has inf"),
        ({"a": "2"}, ValueError, "'a' has '2'"),
        ({"a": True}, ValueError, "'a' has True"),
        ([1.0, 2.0], TypeError, "is no mapping but a list"),
    ],
)
def test_what_is_no_weighting_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        read_label_weights(given)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('{"a": 1, "a": 2}', ValueError, "the key 'a' is given 2 times"),
        ('{"a": ', ValueError, "cannot be read"),
        ("[1, 2]", TypeError, "is no mapping but a list"),
        ('{"a": null}', ValueError, "'a' has None"),
    ],
)
def test_a_file_that_has_no_weights_is_refused(tmp_path, text, error, message):
    file = tmp_path / "weights.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        read_label_weights(str(file))


def test_a_label_that_does_not_exist_is_refused_by_name_before_training(arguments):
    with pytest.raises(ValueError, match="label_weights has 'sport', which is none of the 4 labels"):
        train(arguments, label_weights={"LABEL_1": 2.0, "sport": 3.0})


def test_balanced_weights_are_those_of_scikit_learn():
    data = make_imbalanced_documents(200)
    targets = [label for labels in data["labels"] for label in labels]
    expected = compute_class_weight("balanced", classes=np.arange(NUM_LABELS), y=np.array(targets))
    found = make_label_weights("balanced", NAMES, data, beta=0.9)
    torch.testing.assert_close(found, torch.tensor([*expected, 1.0], dtype=torch.float32))


def test_weights_of_the_effective_number_by_hand():
    found = balanced_weights(np.array([1, 2, 3, 0]), "effective_number", beta=0.5)
    raw = np.array([1.0, 1 / 1.5, 1 / 1.75])  # one over 1, 1 + β, 1 + β + β²
    np.testing.assert_allclose(found, [*(raw * 6 / (raw @ [1, 2, 3])), 1.0])


@pytest.mark.parametrize("weighting", ["balanced", "effective_number"])
def test_the_mean_weight_over_the_targets_is_one(weighting):
    counts = np.random.default_rng(0).integers(1, 50_000, size=300)
    for beta in (0.0, 0.9, 0.999, 1 - 1e-12):
        found = balanced_weights(counts, weighting, beta)
        assert (found @ counts) / counts.sum() == pytest.approx(1.0)
        assert (np.diff(found[np.argsort(counts)]) <= 1e-12).all()  # rarer never counts less


def test_the_effective_number_goes_from_no_weights_to_balanced_ones():
    counts = np.array([1, 30, 400, 20_000])
    np.testing.assert_allclose(balanced_weights(counts, "effective_number", 0.0), np.ones(4))
    near = balanced_weights(counts, "effective_number", 1 - 1e-12)
    np.testing.assert_allclose(near, balanced_weights(counts, "balanced", 0.5), rtol=1e-6)


def test_a_label_without_documents_has_the_weight_one():
    assert balanced_weights(np.array([0.0, 5.0, 0.0]), "balanced", 0.9).tolist() == [1.0, 1.0, 1.0]
    assert balanced_weights(np.zeros(2), "effective_number", 0.9).tolist() == [1.0, 1.0]


def test_repeated_documents_count_as_often_as_they_come():
    data = make_imbalanced_documents(300)
    factors = document_repeat_factors(data, 0.5)
    copies = np.repeat(np.arange(300), np.rint(factors * 100).astype(int))
    expected = make_label_weights("balanced", NAMES, data.select(copies), beta=0.9)
    found = make_label_weights("balanced", NAMES, data, beta=0.9, repeat_factors=factors)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


# ---- repeat factors ----


def test_a_document_has_the_repeat_factor_of_its_rarest_label():
    data = Dataset.from_dict({"labels": [[0], [0, 1], [0], [], [2, 0], [0], [0], [0], [1], [0]]})
    rare, common = np.sqrt(0.4 / 0.1), np.sqrt(0.4 / 0.2)
    expected = [1.0, common, 1.0, 1.0, rare, 1.0, 1.0, 1.0, common, 1.0]
    np.testing.assert_allclose(document_repeat_factors(data, 0.4), expected)
    shuffled = data.select([4, 1, 0])  # rows of a table that is in another order
    np.testing.assert_allclose(document_repeat_factors(shuffled, 1.0), np.sqrt([3.0, 3.0, 1.0]))


def test_no_document_is_repeated_for_labels_above_the_threshold():
    data = make_imbalanced_documents(100)
    assert (document_repeat_factors(data, 0.001) == 1).all()
    without = Dataset.from_dict({"labels": [[], []]})
    assert document_repeat_factors(without, 1.0).tolist() == [1.0, 1.0]


def test_an_epoch_has_the_repeated_documents(arguments):
    data = make_imbalanced_documents(100)
    trainer = train(arguments, data=data, repeat_factor_threshold=0.3, num_train_epochs=2)
    expected = int(np.ceil(document_repeat_factors(data, 0.3).sum()))
    assert 100 < expected == trainer.trained_documents / 2


# ---- training ----


def test_settings_that_weigh_nothing_change_no_bit(arguments):
    plain = weights(train(arguments).model)
    for settings in (
        {"label_weights": dict.fromkeys(NAMES, 1.0)},
        {"label_weights": "effective_number", "effective_number_beta": 0.0},
        {"repeat_factor_threshold": 1e-6},
    ):
        assert_equal_weights(plain, weights(train(arguments, **settings).model))


def batch_of(trainer):
    documents = [trainer.train_dataset[row] for row in range(6)]
    return MultiLabelCollator(trainer.model.config.pad_token_id, NUM_LABELS)(documents)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("num_items", [None, 50])
def test_the_loss_of_training_is_that_of_torch_with_the_divisor_of_today(arguments, smoothing, num_items):
    settings = {"label_weights": "balanced", "label_smoothing_factor": smoothing}
    trainer = train(arguments, model=make_model(label_mask=False), **settings)  # torch's smoothing knows no mask
    trainer.model.eval()
    batch = batch_of(trainer)
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=num_items)
    logits, labels = trainer.model(**batch).logits.flatten(0, 1), batch["labels"].flatten()
    label_weights = make_label_weights("balanced", NAMES, trainer.train_dataset, beta=0.9)
    assert label_weights.min() < 1 < label_weights.max()
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    expected = (losses * label_weights[labels.clamp(min=0)]).sum() / (num_items or (labels != -100).sum())
    torch.testing.assert_close(loss, expected)


def test_binary_cross_entropy_is_the_loss_of_training_and_not_of_evaluation(arguments):
    trainer = train(arguments, label_loss="binary_cross_entropy")
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    trainer.model.eval()
    probabilities = trainer.model(**batch).logits.softmax(-1)
    is_target = torch.nn.functional.one_hot(batch["labels"].clamp(min=0), probabilities.shape[-1]).float()
    losses = torch.nn.functional.binary_cross_entropy(probabilities, is_target, reduction="none").sum(-1)
    expected = losses[batch["labels"] >= 0].mean()
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), expected)
    plain = SGMTrainer(trainer.model, arguments("plain"), eval_dataset=make_documents(20))
    assert trainer.evaluate(make_documents(20))["eval_loss"] == plain.evaluate()["eval_loss"]


def test_the_loss_of_evaluation_knows_no_weights(arguments):
    trainer = train(arguments, label_weights=GIVEN, focal_gamma=2.0)
    with_weights = trainer.evaluate(make_documents(20))["eval_loss"]
    plain = SGMTrainer(trainer.model, arguments("plain"), eval_dataset=make_documents(20))
    assert with_weights == plain.evaluate()["eval_loss"]


def test_accumulated_small_batches_equal_one_big_batch_with_weights(arguments):
    settings = {"optim": "sgd", "learning_rate": 0.1, "label_weights": "balanced", "focal_gamma": 1.5}
    trained = []
    for size, accumulation in ((24, 1), (4, 6)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        given = arguments(f"run-{size}", eval_strategy="no", save_strategy="no", **sizes, **settings)
        trainer = SGMTrainer(make_model(dropout=0.0), given, make_documents(24))
        trainer.train()
        trained.append(weights(trainer.model))
    for name, tensor in trained[0].items():
        torch.testing.assert_close(trained[1][name], tensor, atol=1e-6, rtol=1e-5)


def test_resuming_weighted_and_repeated_training_gives_the_same_weights(arguments):
    update = 6  # in the second epoch
    settings = {"label_weights": "balanced", "repeat_factor_threshold": 0.4, "focal_gamma": 2.0}
    data = make_imbalanced_documents(30)
    whole = train(arguments, "whole", data, **settings)
    assert update < whole.state.global_step and document_repeat_factors(data, 0.4).max() > 1.5
    train(arguments, "run", data, [StopAt(update)], save_strategy="steps", save_steps=1, **settings)
    resumed = train(arguments, "run", data, resume=True, **settings)
    assert_equal_weights(weights(whole.model), weights(resumed.model))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"label_weights": "balanced"}, "label_weights balanced"),
        ({"label_weights": "effective_number"}, "label_weights effective_number"),
        ({"repeat_factor_threshold": 0.1}, "repeat_factor_threshold"),
    ],
)
def test_a_stream_whose_labels_are_not_counted_is_refused(arguments, settings, name):
    with pytest.raises(ValueError, match=f"{name} needs to know how frequent the labels are"):
        train(arguments, data=make_documents(24).to_iterable_dataset(), max_steps=4, **settings)


def test_a_stream_may_have_given_weights(arguments):
    stream, steps = make_documents(24).to_iterable_dataset(), {"max_steps": 4}
    plain, weighted, again = (
        weights(train(arguments, folder, stream, **steps, **other).model)
        for folder, other in (("a", {}), ("b", {"label_weights": GIVEN}), ("c", {"label_weights": GIVEN}))
    )
    assert_equal_weights(weighted, again)
    assert not torch.equal(plain["decoder.output.weight"], weighted["decoder.output.weight"])


def test_a_model_made_for_the_training_has_the_weights_of_its_labels(arguments):
    def make_renamed(trial=None):
        model = make_model(dropout=0.0)  # where the random numbers stand then differs
        model.config.id2label = {label: f"topic {label}" for label in range(NUM_LABELS)}
        model.config.label2id = {name: label for label, name in model.config.id2label.items()}
        return model

    given = {f"topic {label}": GIVEN.get(f"LABEL_{label}", 1.0) for label in range(NUM_LABELS)}
    settings = arguments("made", eval_strategy="no", save_strategy="no", label_weights=given)
    made = SGMTrainer(args=settings, train_dataset=make_documents(24), model_init=make_renamed)
    made.train()
    given = train(arguments, model=make_model(dropout=0.0), label_weights=GIVEN)
    assert_equal_weights(weights(given.model), weights(made.model))


def test_a_search_tries_weightings_and_thresholds(arguments):
    def space(trial):
        weighting = trial.suggest_categorical("label_weights", ["none", "balanced"])
        return {"label_weights": weighting, "repeat_factor_threshold": 0.5 if weighting == "none" else None}

    trainer = SGMTrainer(
        args=arguments("search", num_train_epochs=1),
        train_dataset=make_imbalanced_documents(40),
        eval_dataset=make_imbalanced_documents(10, seed=1),
        model_init=lambda: make_model(),
    )
    seen, rare_label_arguments = [], trainer._make_loss_arguments
    trainer._make_loss_arguments = lambda: seen.append(rare_label_arguments()) or seen[-1]
    sampler = optuna.samplers.GridSampler({"label_weights": ["none", "balanced"]}, seed=0)
    trainer.hyperparameter_search(hp_space=space, n_trials=2, backend="optuna", sampler=sampler)
    assert sorted(map(len, seen)) == [0, 1]
    with pytest.raises(ValueError, match="label_weights is 'weights.json'; expected one of none, balanced"):
        make_label_weights("weights.json", NAMES, trainer.train_dataset, beta=0.9)  # as a trial may set it


REFUSED_ON_SAMPLES = (
    ("label_weights", "balanced"),
    ("label_weights", GIVEN),
    ("focal_gamma", 1.0),
    ("label_loss", "binary_cross_entropy"),
)


def test_training_on_samples_repeats_documents_and_refuses_weights(tmp_path):
    settings = {"output_dir": str(tmp_path), "disable_tqdm": True, "eval_strategy": "no", "num_train_epochs": 1}
    for name, value in REFUSED_ON_SAMPLES:
        with pytest.raises(ValueError, match=f"{name} is .* the loss of a training on samples has no such setting"):
            SamplingArguments(**settings, **{name: value})
    data = make_imbalanced_documents(40)
    trainer = OrderFreeTrainer(
        make_model(), SamplingArguments(**settings, repeat_factor_threshold=0.5), train_dataset=data
    )
    trainer.train()
    assert trainer.trained_documents > 45


def recall_of_the_rare_label(arguments, folder, **settings):
    """The recall of the rare label on unseen documents after a training."""
    given = {"num_train_epochs": 8, "learning_rate": 2e-2, "per_device_train_batch_size": 32} | settings
    model = make_model(dropout=0.0)
    trainer = SGMTrainer(
        model, arguments(folder, eval_strategy="no", save_strategy="no", **given), make_imbalanced_documents(300)
    )
    trainer.train()
    unseen = make_imbalanced_documents(300, seed=9)
    predicted = np.array([RARE in labels for labels in trainer.predict(unseen).label_sets])
    true = np.array([RARE in labels for labels in unseen["labels"]])
    return (predicted & true).sum() / true.sum()


def test_weights_and_repeats_raise_the_recall_of_a_rare_label(arguments):
    plain = recall_of_the_rare_label(arguments, "plain")
    assert plain < 0.3
    for settings in ({"label_weights": "balanced"}, {"repeat_factor_threshold": 0.8}):
        (name,) = settings
        assert recall_of_the_rare_label(arguments, name, **settings) > plain + 0.4, settings
