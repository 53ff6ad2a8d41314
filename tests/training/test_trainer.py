import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets
from huggingface_hub import ModelCard
from sklearn.metrics import f1_score
from tiny_training import NUM_LABELS, make_decided_model, make_documents, make_model
from transformers import GenerationConfig, TrainerCallback

from sgm_hf.data.labels import label_matrix
from sgm_hf.metrics import compute_metrics, compute_ranking_metrics, compute_score_metrics, fit_threshold
from sgm_hf.modeling import label_sets_from_sequences
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.training import SGMTrainer, SGMTrainingArguments, machine
from sgm_hf.training import trainer as trainer_module
from sgm_hf.training.trainer import halving_factor


class StopAt(TrainerCallback):
    """Stops a training after a number of updates, with a checkpoint, as if it had been interrupted there."""

    def __init__(self, update: int):
        self.update = update

    def on_step_end(self, args, state, control, **keywords):
        if state.global_step == self.update:
            control.should_save = control.should_training_stop = True


class RecordLearningRates(TrainerCallback):
    def __init__(self):
        self.rates = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **keywords):
        self.rates.append(optimizer.param_groups[0]["lr"])


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_equal_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("update", [3, 7, 10])
@pytest.mark.parametrize("settings", [{}, {"label_order": "shuffled", "label_feedback": "global_embedding"}])
def test_resuming_gives_the_same_weights_as_never_stopping(arguments, update, settings):
    data, validation = make_documents(40), make_documents(10, seed=1)
    options = {"num_train_epochs": 3, "halve_from_epoch": 2, "save_total_limit": None, "load_best_model_at_end": False}

    def trainer(folder, callbacks=None):
        return SGMTrainer(make_model(**settings), arguments(folder, **options), data, validation, callbacks=callbacks)

    whole = trainer("whole")
    whole.train()
    interrupted = trainer("resumed", [StopAt(update)])
    interrupted.train()
    assert interrupted.state.global_step == update < whole.state.global_step
    resumed = trainer("resumed")
    torch.rand(17)  # the resumed process is in another random state
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step
    assert_equal_weights(weights(whole.model), weights(resumed.model))


class DivergingTrainer(SGMTrainer):
    """The loss of the tenth batch, or its gradient alone, is not finite."""

    fault = ""

    def compute_loss(self, *positional, **keywords):
        self.batches = getattr(self, "batches", 0) + 1
        loss = super().compute_loss(*positional, **keywords)
        if self.batches == 10 and self.fault == "gradient":
            loss.register_hook(lambda gradient: gradient * float("inf"))
        # An infinite constant leaves the gradient finite.
        return loss + float(self.fault) if self.batches == 10 and self.fault != "gradient" else loss


@pytest.mark.parametrize("fault", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_training_stops_before_an_update_that_is_not_finite(arguments, capfd, fault, accumulation):
    settings = {"gradient_accumulation_steps": accumulation, "eval_strategy": "no", "save_total_limit": None}
    settings |= {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 5, "logging_steps": 1}
    args = arguments(**settings)
    trainer = DivergingTrainer(make_model(), args, make_documents(40))
    trainer.fault = fault
    update = -(-10 // accumulation)
    last = Path(args.output_dir, f"checkpoint-{update - 1}")
    with pytest.raises(FloatingPointError, match=rf"update {update}: .*last good checkpoint is {last}.*learning_rate"):
        trainer.train()
    assert trainer.state.global_step == update - 1 and not trainer.is_in_train
    assert sorted(Path(args.output_dir).glob("checkpoint-*"), key=lambda path: int(path.name[11:]))[-1] == last
    assert_equal_weights(weights(trainer.model), weights(type(trainer.model).from_pretrained(last)))
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in trainer.model.parameters())
    assert "loss 0 " not in capfd.readouterr().err
    assert all(np.isfinite(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry)


def test_training_with_weights_that_are_not_finite_stops_at_once(arguments):
    model = make_model()
    model.decoder.output.bias.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="update 1: the loss is nan.*No checkpoint has been saved yet"):
        SGMTrainer(model, arguments(), make_documents(20), make_documents(5)).train()


def flushes_denormals() -> bool:
    return (torch.tensor([1e-30]) * 1e-10).item() == 0.0


@pytest.mark.parametrize("before", [False, True])
def test_denormals_are_flushed_while_the_trainer_works_and_then_as_before(arguments, monkeypatch, before):
    class Watch(TrainerCallback):
        seen = []

        def on_step_end(self, args, state, control, **keywords):
            self.seen.append(flushes_denormals())

        on_evaluate = on_predict = on_step_end

    monkeypatch.setattr(machine, "keep_freed_memory", lambda: pytest.fail("the allocator is the program's"))
    torch.set_flush_denormal(before)
    trainer = SGMTrainer(make_model(), arguments(), make_documents(10), make_documents(5), callbacks=[Watch()])
    assert flushes_denormals() == before
    for work in (trainer.train, trainer.evaluate, lambda: trainer.predict(make_documents(5))):
        work()
        assert flushes_denormals() == before
    assert len(Watch.seen) >= 5 and all(Watch.seen)
    trainer.train_dataset = None
    with pytest.raises(ValueError, match="no train_dataset"):
        trainer.train()
    assert flushes_denormals() == before


def test_resuming_under_gradient_accumulation_gives_the_same_weights(arguments):
    data = make_documents(40)
    options = {"gradient_accumulation_steps": 2, "eval_strategy": "no"}
    whole = SGMTrainer(make_model(), arguments("whole", **options), data)
    whole.train()
    SGMTrainer(make_model(), arguments("resumed", **options), data, callbacks=[StopAt(2)]).train()
    resumed = SGMTrainer(make_model(), arguments("resumed", **options), data)
    resumed.train(resume_from_checkpoint=True)
    assert_equal_weights(weights(whole.model), weights(resumed.model))


def test_accumulated_small_batches_equal_one_big_batch(arguments):
    data = make_documents(16)
    options = {"num_train_epochs": 1, "eval_strategy": "no", "save_strategy": "no"}
    options |= {"optim": "sgd", "learning_rate": 0.5}
    big = SGMTrainer(make_model(dropout=0.0), arguments(per_device_train_batch_size=16, **options), data)
    small = SGMTrainer(
        make_model(dropout=0.0),
        arguments(per_device_train_batch_size=3, gradient_accumulation_steps=6, **options),
        data,
    )
    big.train()
    small.train()
    assert big.state.global_step == small.state.global_step == 1
    before = weights(make_model(dropout=0.0))
    for name, tensor in weights(big.model).items():
        torch.testing.assert_close(tensor, small.model.state_dict()[name], atol=1e-6, rtol=1e-4)
        assert not torch.equal(tensor, before[name]) or name.endswith("bias"), f"{name} did not move"


@pytest.mark.parametrize("feedback", ["previous_label", "global_embedding"])
def test_training_overfits_eight_documents(arguments, feedback):
    data = make_documents(8)
    options = {"num_train_epochs": 60, "learning_rate": 0.02, "eval_strategy": "no", "save_strategy": "no"}
    trainer = SGMTrainer(make_model(dropout=0.0, label_feedback=feedback), arguments(**options), data)
    trainer.train()
    metrics = trainer.evaluate(data)
    assert metrics["eval_best_sequence_micro_f1"] == metrics["eval_threshold_micro_f1"] == 1.0
    assert metrics["eval_zero_one_loss"] == 0.0


def test_metrics_are_those_of_the_predictions(arguments):
    data = make_documents(50)
    trainer = SGMTrainer(make_decided_model(), arguments(), eval_dataset=data)
    trainer.model.generation_config.label_threshold = 0.3
    output = trainer.predict(data)
    truth = label_matrix(data["labels"], NUM_LABELS)
    for decoding in SET_DECODINGS:
        chosen = label_matrix(trainer.label_sets(output.predictions, decoding), NUM_LABELS)
        expected = f1_score(truth, chosen, average="micro", zero_division=0)
        assert output.metrics[f"test_{decoding}_micro_f1"] == pytest.approx(expected)
        for name, value in compute_metrics(truth, chosen).items():
            assert output.metrics[f"test_{decoding}_{name}"] == pytest.approx(value)
        assert 0.1 < chosen.mean() < 0.9
    thresholded = label_matrix(trainer.label_sets(output.predictions, "threshold"), NUM_LABELS)
    assert (thresholded == (output.predictions.label_scores >= 0.3)).all()
    evaluated = trainer.evaluate()
    assert evaluated["eval_micro_f1"] == output.metrics["test_micro_f1"]


CONSTRAINTS = [
    {},
    {"max_labels": 1},
    {"min_labels": 2, "max_labels": 3},
    {"label_hierarchy": {0: 1, 2: 1}, "max_labels": 2},
    {"label_hierarchy": {0: 1, 2: 0}, "required_labels": [2]},
]


@pytest.mark.parametrize("constraints", CONSTRAINTS, ids=str)
@pytest.mark.parametrize("threshold", [0.3, 1.0, [0.1 + 0.2 * (i % 4) for i in range(NUM_LABELS)]])
def test_label_sets_of_each_decoding_are_those_that_the_model_generates(arguments, constraints, threshold):
    data = make_documents(12)
    trainer = SGMTrainer(make_decided_model().eval(), arguments(), eval_dataset=data)
    for name, value in {"label_threshold": threshold, **constraints}.items():
        setattr(trainer.model.generation_config, name, value)
    predictions = trainer.generate_predictions(data)
    for decoding in SET_DECODINGS:
        rows = [trainer.model.generate(torch.tensor([ids]), set_decoding=decoding) for ids in data["input_ids"]]
        expected = [label_sets_from_sequences(row, NUM_LABELS)[0] for row in rows]
        assert trainer.label_sets(predictions, decoding) == expected
        for labels in expected:
            assert constraints.get("min_labels", 0) <= len(labels) <= constraints.get("max_labels", NUM_LABELS)
        trainer.model.generation_config.set_decoding = decoding
        assert trainer.label_sets(predictions) == expected
    metrics = trainer.predict(data).metrics
    assert metrics.get("test_label_threshold") == (None if isinstance(threshold, list) else threshold)


@pytest.mark.parametrize("decoding", ["best_sequence", "threshold", "expected_f1"])
def test_bare_metric_names_are_those_of_the_chosen_decoding(arguments, decoding):
    data = make_documents(30)
    trainer = SGMTrainer(make_decided_model(), arguments(), eval_dataset=data)
    trainer.model.generation_config.set_decoding = decoding
    metrics = trainer.evaluate()
    chosen = {name: value for name, value in metrics.items() if name.startswith(f"eval_{decoding}_")}
    assert len(chosen) == 10
    for name, value in chosen.items():
        assert metrics[name.replace(f"{decoding}_", "")] == value


def test_label_scores_are_compared_with_the_true_labels_whatever_the_decoding(arguments):
    data, reports = make_documents(30), []
    trainer = SGMTrainer(make_decided_model(), arguments(), eval_dataset=data)
    output = trainer.predict(data)
    for decoding in SET_DECODINGS:
        trainer.model.generation_config.set_decoding = decoding
        metrics = trainer.evaluate()
        reports.append({name: metrics[f"eval_{name}"] for name in ("ece", "nll", "brier", "certain_errors")})
    expected = compute_score_metrics(output.references, output.predictions.label_scores)
    assert reports == [expected] * 3
    assert 0 < expected["ece"] < 1 and expected["nll"] > 0
    ranking = compute_ranking_metrics(output.references, output.predictions.label_scores)
    assert {name: metrics[f"eval_{name}"] for name in ranking} == ranking
    scores, truth = output.predictions.label_scores.astype(float), output.references
    assert expected["brier"] == pytest.approx(((scores - truth) ** 2).mean())


@pytest.mark.parametrize("label_order", ["frequency", "alphabetical", "given", "hierarchical"])
def test_it_is_reported_how_far_labels_stand_from_their_places_in_training(arguments, label_order):
    data = make_documents(30)
    trainer = SGMTrainer(make_decided_model(), arguments(), eval_dataset=data)
    trainer.model.config.label_order = label_order
    output = trainer.predict(data)
    in_order = data["labels"] if label_order == "given" else [sorted(labels) for labels in data["labels"]]
    distances = [
        abs(true.index(label) - found.index(label))
        for true, found in zip(in_order, output.predictions.best_sequences, strict=True)
        for label in set(true) & set(found)
    ]
    expected = sum(distances) / len(distances)
    assert 0 < expected == output.metrics["test_position_deviation"]
    for decoding in SET_DECODINGS:
        trainer.model.generation_config.set_decoding = decoding
        assert trainer.evaluate()["eval_position_deviation"] == expected


def test_no_place_is_reported_of_shuffled_labels_nor_where_none_is_right(arguments):
    data = make_documents(30)
    trainer = SGMTrainer(make_decided_model(), arguments(), eval_dataset=data)
    wrong = data.map(lambda document: {"labels": []})
    assert "eval_position_deviation" not in trainer.evaluate(wrong)
    trainer.model.config.label_order = "shuffled"
    assert "eval_position_deviation" not in trainer.evaluate()


def test_f1_is_reported_by_how_often_training_has_seen_a_label(arguments):
    train = make_documents(24)
    counts = (12, 3, 0, 9)
    labels = [[label for label, count in enumerate(counts) if row < count] for row in range(24)]
    train = train.remove_columns("labels").add_column("labels", labels)
    trainer = SGMTrainer(make_decided_model(), arguments(), train, make_documents(30, seed=1))
    assert trainer.training_counts().tolist() == list(counts)
    output = trainer.predict(trainer.eval_dataset, metric_key_prefix="eval")
    predicted = label_matrix(output.label_sets, NUM_LABELS)
    rare = compute_metrics(output.references[:, [1, 3]], predicted[:, [1, 3]])
    frequent = compute_metrics(output.references[:, [0]], predicted[:, [0]])
    for average in ("micro", "macro"):
        assert output.metrics[f"eval_{average}_f1_1_to_9"] == rare[f"{average}_f1"]
        assert output.metrics[f"eval_{average}_f1_10_to_99"] == frequent[f"{average}_f1"]
    banded = {name for name in output.metrics if name.endswith(("_to_9", "_to_99", "_to_999", "from_1000"))}
    assert len(banded) == 4
    assert {f"eval_{name}" for name in trainer.metric_names()} == set(trainer.evaluate()) - {"eval_position_deviation"}
    unknown = trainer.evaluate(make_documents(5).map(lambda document: {"labels": [NUM_LABELS + 1]}))
    assert unknown["eval_micro_f1_1_to_9"] == 0.0
    trainer.train_dataset = train.select(range(4))
    assert trainer.training_counts().tolist() == [4, 3, 0, 4]


def test_without_training_documents_nothing_is_said_of_frequencies(arguments):
    trainer = SGMTrainer(make_decided_model(), arguments(), eval_dataset=make_documents(5))
    assert trainer.training_counts() is None
    assert not [name for name in trainer.evaluate() if "_to_" in name or "_from_" in name]
    trainer.train_dataset = make_documents(3).remove_columns("labels")
    assert trainer.training_counts() is None


def test_unknown_gold_labels_count_as_missed(arguments):
    data = make_documents(20)
    trainer = SGMTrainer(make_decided_model(), arguments(), eval_dataset=data)
    known = trainer.evaluate()
    extended = data.map(lambda document: {"labels": document["labels"] + [NUM_LABELS]})
    unknown = trainer.evaluate(extended)
    assert unknown["eval_micro_precision"] == known["eval_micro_precision"]
    assert unknown["eval_micro_recall"] < known["eval_micro_recall"]
    assert unknown["eval_zero_one_loss"] == 1.0
    assert unknown["eval_certain_errors"] == pytest.approx(known["eval_certain_errors"] + 1)


def test_data_without_labels_is_predicted_without_metrics(arguments):
    data = make_documents(6).remove_columns("labels")
    output = SGMTrainer(make_decided_model(), arguments(eval_strategy="no")).predict(data)
    assert output.references is None
    assert len(output.label_sets) == 6
    assert set(output.metrics) == {"test_runtime", "test_documents_per_second"}


def test_the_threshold_is_fitted_on_the_threshold_split_alone(arguments):
    held_out, validation = make_documents(30, seed=2), make_documents(30, seed=3)
    trainer = SGMTrainer(make_decided_model(), arguments(), eval_dataset=validation, threshold_dataset=held_out)
    threshold = trainer.fit_label_threshold()
    scores = trainer.generate_predictions(held_out).label_scores
    assert threshold == fit_threshold(label_matrix(held_out["labels"], NUM_LABELS), scores)
    assert trainer.model.generation_config.label_threshold == threshold
    assert trainer.evaluate()["eval_label_threshold"] == threshold


def test_the_best_checkpoint_comes_back_with_its_threshold(arguments):
    trainer = SGMTrainer(
        make_model(),
        arguments(num_train_epochs=4, save_total_limit=None),
        make_documents(40),
        make_documents(20, seed=1),
        make_documents(20, seed=2),
    )
    trainer.train()
    history = [record for record in trainer.state.log_history if "eval_micro_f1" in record]
    best = max(history, key=lambda record: record["eval_micro_f1"])
    assert len(history) == 4
    assert trainer.state.best_metric == best["eval_micro_f1"]
    assert trainer.model.generation_config.label_threshold == best["eval_label_threshold"]
    assert trainer.evaluate()["eval_threshold_micro_f1"] == best["eval_threshold_micro_f1"]
    for record in history:
        saved = GenerationConfig.from_pretrained(Path(trainer.args.output_dir, f"checkpoint-{record['step']}"))
        assert saved.label_threshold == record["eval_label_threshold"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, "num_beams of the model's generation config is 0"),
        ({"num_beams": 1}, "length_penalty"),  # 0.0 by default, which GenerationConfig refuses to save without beams
        ({"max_labels": -1}, "max_labels"),
        ({"min_labels": 9}, "min_labels"),
        ({"label_threshold": 0.0}, "label_threshold"),  # every evaluation takes label sets by it
        ({"set_decoding": "best"}, "set_decoding is 'best'"),
        ({"num_return_sequences": 9}, "num_return_sequences"),
        ({"temperature": 0.5}, "temperature"),
    ],
    ids=str,
)
def test_a_generation_config_that_cannot_be_saved_or_used_is_refused_before_training(arguments, settings, message):
    model = make_model()
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    trainer = SGMTrainer(model, arguments(), make_documents(8), make_documents(8), callbacks=[StopAt(1)])
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == 0 and not list(Path(trainer.args.output_dir).rglob("*"))


def test_a_published_config_that_could_not_be_saved_after_fitting_is_refused_before(arguments, tmp_path):
    config = make_model().generation_config
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**stored, "temperature": 0.5}))
    model, data = make_model(), make_documents(8)
    model.generation_config = GenerationConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="temperature"):
        SGMTrainer(model, arguments(), data, data, data).train()
    unfitted = SGMTrainer(model, arguments("unfitted"), data, data)
    try:
        model.generation_config.save_pretrained(tmp_path)
    except ValueError:  # Transformers 5.18 saves it not even unchanged
        with pytest.raises(ValueError, match="temperature"):
            unfitted.train()
    else:
        unfitted.train()


def test_the_check_of_the_generation_config_changes_no_random_number_and_no_setting(arguments):
    model = make_model()
    model.generation_config.do_sample, model.generation_config.num_beams = True, 2
    trainer = SGMTrainer(model, arguments(), make_documents(8), make_documents(8), make_documents(8))
    settings, random, mode = model.generation_config.to_dict(), torch.get_rng_state(), model.training
    trainer._check_generation()
    assert model.generation_config.to_dict() == settings and model.training == mode
    assert torch.equal(torch.get_rng_state(), random)


def test_the_evaluation_loss_is_the_mean_over_target_tokens(arguments):
    model, data = make_decided_model(), make_documents(25)
    # Unknown labels and a document without words do not count; labels are sorted by id.
    strange = data.select([0, 1]).map(lambda document: {"labels": [*document["labels"], NUM_LABELS + 3]})
    empty = data.select([2]).map(lambda document: {"input_ids": [], "length": 0})
    together = concatenate_datasets([data, strange, empty])
    trainer = SGMTrainer(model.train(), arguments(per_device_eval_batch_size=7), eval_dataset=together)
    losses, tokens = 0.0, 0
    model.eval()
    for document in [*data, *strange]:
        text = document["input_ids"]
        targets = [*sorted(label for label in document["labels"] if label < NUM_LABELS), NUM_LABELS]
        decoder_input = torch.tensor([[NUM_LABELS + 1, *targets[:-1]]])
        logits = model(input_ids=torch.tensor([text]), decoder_input_ids=decoder_input).logits[0]
        losses += torch.nn.functional.cross_entropy(logits, torch.tensor(targets), reduction="sum").item()
        tokens += len(targets)
    model.train()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses / tokens, rel=1e-5)
    assert model.training


def test_documents_without_words_have_no_evaluation_loss(arguments):
    empty = make_documents(2).map(lambda document: {"input_ids": [], "length": 0})
    assert math.isnan(SGMTrainer(make_model(), arguments(), eval_dataset=empty).evaluate()["eval_loss"])


def test_the_evaluation_loss_of_shuffled_labels_depends_on_no_draw(arguments):
    data, losses = make_documents(20), []
    for seed in (1, 2):
        model = make_decided_model()
        model.config.label_order = "shuffled"
        trainer = SGMTrainer(model, arguments(seed=seed, label_smoothing_factor=0.1 * seed), eval_dataset=data)
        trainer.data_collator.set_epoch(seed)
        losses.append(trainer.evaluate()["eval_loss"])
    sorted_once = SGMTrainer(make_decided_model(), arguments(), eval_dataset=data).evaluate()["eval_loss"]
    assert losses == [sorted_once, sorted_once]


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "hamming_loss", "eval_nll", "best_sequence_macro_f1"])
def test_the_best_checkpoint_is_the_best_by_the_metric_asked_for(arguments, metric):
    args = arguments(num_train_epochs=5, learning_rate=0.1, metric_for_best_model=metric, early_stopping_patience=9)
    trainer = SGMTrainer(make_model(), args, make_documents(20), make_documents(30, seed=1))
    trainer.train()
    name = metric if metric.startswith("eval_") else f"eval_{metric}"
    values = [record[name] for record in trainer.state.log_history if name in record]
    best = min(values) if metric.endswith(("loss", "nll")) else max(values)
    assert len(set(values)) > 1
    assert trainer.state.best_metric == best == trainer.evaluate()[name]


def test_what_evaluation_reports_is_what_a_metric_may_be(arguments):
    trainer = SGMTrainer(make_model(), arguments(), eval_dataset=make_documents(5))
    assert {f"eval_{name}" for name in trainer.metric_names()} == set(trainer.evaluate()) - {"eval_position_deviation"}


@pytest.mark.parametrize(
    ("metric", "hint"),
    [
        ("micro_F1", "did you mean micro_f1"),
        ("f1_micro", "micro_f1"),
        ("eval_los", "did you mean loss"),
        ("eval_run", "did you mean runtime"),
    ],
)
def test_a_metric_that_evaluation_does_not_report_is_refused_before_training(arguments, metric, hint):
    args = arguments(metric_for_best_model=metric)
    trainer = SGMTrainer(make_model(), args, make_documents(8), make_documents(5))
    with pytest.raises(ValueError, match=f"metric_for_best_model is '{metric}'.*{hint}"):
        trainer.train()
    assert trainer.state.global_step == 0
    without_labels = SGMTrainer(
        make_model(), arguments(), make_documents(8), make_documents(5).remove_columns("labels")
    )
    with pytest.raises(ValueError, match="the eval_dataset has no labels"):
        without_labels.train()


def test_early_stopping_stops_when_the_metric_no_longer_improves(arguments):
    settings = arguments(num_train_epochs=20, learning_rate=0.0, early_stopping_patience=2)
    trainer = SGMTrainer(make_model(), settings, make_documents(8), make_documents(8, seed=1))
    trainer.train()
    assert trainer.state.epoch == 3.0  # the first evaluation is the best so far, then two that are no better


def test_label_smoothing_changes_the_loss_as_the_model_defines_it(arguments):
    data = make_documents(8)
    model = make_model(dropout=0.0)
    smooth = SGMTrainer(model, arguments(label_smoothing_factor=0.2, eval_strategy="no"), data)
    batch = smooth.data_collator([data[row] for row in range(8)])
    expected = model(**batch, label_smoothing=0.2).loss
    assert torch.isfinite(expected)
    assert smooth.compute_loss(model, batch).item() == pytest.approx(expected.item())
    plain = SGMTrainer(model, arguments(eval_strategy="no"), data)
    assert plain.compute_loss(model, batch).item() == pytest.approx(model(**batch).loss.item())


def test_the_rate_is_halved_at_the_end_of_the_named_epoch_and_of_each_later_one(arguments):
    record = RecordLearningRates()
    settings = arguments(num_train_epochs=4, learning_rate=0.08, halve_from_epoch=2, eval_strategy="no")
    SGMTrainer(make_model(), settings, make_documents(24), callbacks=[record]).train()
    by_epoch = np.array(record.rates).reshape(4, -1)
    assert (by_epoch == np.array([[0.08], [0.08], [0.04], [0.02]])).all()


def test_halving_starts_after_warm_up():
    factors = [halving_factor(update, 10, 1, warmup_updates=4) for update in (0, 2, 4, 9, 10, 20)]
    assert factors == [0.0, 0.5, 1.0, 1.0, 0.5, 0.25]


def test_a_half_written_checkpoint_is_skipped_on_resume(arguments):
    data, options = make_documents(16), {"eval_strategy": "no"}
    trainer = SGMTrainer(make_model(), arguments(**options), data)
    trainer.train()
    last = Path(trainer.args.output_dir, f"checkpoint-{trainer.state.global_step}")
    after = Path(trainer.args.output_dir, "checkpoint-9999")
    shutil.copytree(last, after)
    state = (after / "trainer_state.json").read_text()
    (after / "trainer_state.json").write_text(state[: len(state) // 2])
    resumed = SGMTrainer(make_model(), arguments(num_train_epochs=3, **options), data)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.epoch == 3.0


def test_nothing_complete_to_resume_from_is_an_error(arguments):
    trainer = SGMTrainer(make_model(), arguments(), make_documents(8), make_documents(8))
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        trainer.train(resume_from_checkpoint=True)


def test_a_failed_save_leaves_the_old_model_and_no_other_file(arguments, monkeypatch):
    trainer = SGMTrainer(make_model(), arguments(eval_strategy="no"))
    trainer.save_model()
    folder = Path(trainer.args.output_dir)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert "model.safetensors" in before and not any(name.endswith((".bin", ".pt")) for name in before)
    torch.nn.init.zeros_(trainer.model.get_input_embeddings().weight)

    def fail(*arguments, **keywords):
        raise OSError("disk full")

    monkeypatch.setattr(trainer.model.generation_config, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        trainer.save_model()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_the_decoder_ids_of_the_generation_config_survive_training(arguments):
    from sgm_hf.modeling import SGMTokenizer

    tokenizer = SGMTokenizer.train_from_texts(["one two three"], vocab_size=10)
    trainer = SGMTrainer(make_model(), arguments(), make_documents(16), make_documents(8), processing_class=tokenizer)
    trainer.train()
    saved = json.loads(Path(trainer.state.best_model_checkpoint, "generation_config.json").read_text())
    assert saved["pad_token_id"] == NUM_LABELS + 2
    assert saved["eos_token_id"] == NUM_LABELS
    assert Path(trainer.state.best_model_checkpoint, "tokenizer.json").exists()


def test_evaluation_takes_its_own_beam_width(arguments):
    data, model = make_documents(30), make_decided_model()
    trainer = SGMTrainer(model, arguments(generation_num_beams=1), eval_dataset=data)
    scores = trainer.predict(data).predictions.label_scores
    assert set(np.unique(scores)) <= {0.0, 1.0}  # greedy search knows one hypothesis
    assert model.generation_config.num_beams == 5


def test_callbacks_hear_of_a_prediction_with_its_metrics_and_the_control(arguments):
    heard = []

    class Listener(TrainerCallback):
        def on_predict(self, args, state, control, metrics, **keywords):
            heard.append((control, metrics))

    trainer = SGMTrainer(make_model(), arguments(eval_strategy="no"), callbacks=[Listener()])
    control = trainer.control
    output = trainer.predict(make_documents(3))
    assert heard == [(control, output.metrics)] and trainer.control is control


def test_training_keeps_no_decoder_state(arguments):
    data = make_documents(4)
    trainer = SGMTrainer(make_model(), arguments(eval_strategy="no"), data)
    batch = trainer.data_collator([data[row] for row in range(4)])
    _, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert outputs.past_key_values is None


def test_data_that_is_not_encoded_is_refused_with_the_remedy(arguments):
    raw = make_documents(5).rename_column("input_ids", "text")
    with pytest.raises(ValueError, match="train_dataset has the columns text, .*encode_dataset"):
        SGMTrainer(make_model(), arguments(), raw)
    with pytest.raises(ValueError, match="encode_dataset"):
        SGMTrainer(make_model(), arguments(eval_strategy="no")).predict(raw)


def test_training_without_data_is_an_error(arguments):
    with pytest.raises(ValueError, match="no train_dataset"):
        SGMTrainer(make_model(), arguments(eval_strategy="no")).train()


def test_the_model_card_has_the_results_of_the_weights_that_training_ends_with(arguments):
    data, validation = make_documents(40), make_documents(30, seed=1)
    options = {
        "num_train_epochs": 4,
        "learning_rate": 0.3,
        "per_device_train_batch_size": 4,
        "lr_scheduler_type": "constant",
    }
    trainer = SGMTrainer(make_model(), arguments(**options), data, validation, validation)
    trainer.train()
    assert trainer.state.best_global_step < trainer.state.global_step  # the last epochs made it worse
    kept = trainer.results["validation"]
    trainer.evaluate()
    for name in ("micro_f1", "threshold_micro_f1", "hamming_loss", "label_threshold"):
        assert kept[name] == trainer.results["validation"][name], name
    trainer.predict(data, metric_key_prefix="test")
    trainer.create_model_card(dataset="drawn words", license="mit")
    card = ModelCard.load(Path(trainer.args.output_dir, "README.md"))
    assert {result.dataset_split for result in card.data.eval_results} == {"validation", "test"}
    assert card.data.license == "mit" and "It was trained on drawn words with the `SGMTrainer`" in card.text


def test_a_card_without_training_claims_none(arguments):
    trainer = SGMTrainer(make_model(), arguments(), eval_dataset=make_documents(10))
    trainer.create_model_card()
    card = ModelCard.load(Path(trainer.args.output_dir, "README.md"))
    assert "It was trained" not in card.text and "### Training" not in card.text and "Not evaluated." in card.text


def test_a_frozen_encoder_is_left_untouched_by_training(arguments):
    model = make_model()
    model.freeze_encoder()
    before = weights(model)
    settings = arguments("run", num_train_epochs=2, weight_decay=0.1)
    SGMTrainer(model, settings, make_documents(40), make_documents(10, seed=1)).train()
    for name, value in weights(model).items():
        assert torch.equal(value, before[name]) == name.startswith("encoder."), name


def test_gradient_checkpointing_gives_the_same_training(arguments):
    names = SGMTrainingArguments.__dataclass_fields__
    option = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in names)
    trained = []
    for checkpointing in (False, True):
        settings = arguments(f"run-{checkpointing}", num_train_epochs=1, **{option: checkpointing})
        trainer = SGMTrainer(make_model(), settings, make_documents(40), make_documents(10, seed=1))
        trainer.train()
        trained.append(weights(trainer.model))
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-4, atol=1e-6)


def with_added_label(**settings):
    """A model whose last label came by `add_labels` and is not trained."""
    model = make_model(num_labels=NUM_LABELS - 1, **settings)
    model.add_labels(["new"])
    return model


def test_training_marks_added_labels_as_trained_and_saves_that(arguments):
    trainer = SGMTrainer(with_added_label(), arguments(eval_strategy="no"), make_documents(8))
    assert trainer.model.config.num_untrained_labels == 1
    trainer.train()
    assert trainer.model.config.num_untrained_labels == 0
    checkpoints = list(Path(trainer.args.output_dir).glob("checkpoint-*"))
    assert checkpoints
    for checkpoint in checkpoints:
        assert type(trainer.model).from_pretrained(checkpoint).config.num_untrained_labels == 0
    # With no step left, the weights that come from the checkpoint are trained all the same.
    resumed = SGMTrainer(with_added_label(), arguments(eval_strategy="no"), make_documents(8))
    resumed.train(resume_from_checkpoint=True)
    assert resumed.model.config.num_untrained_labels == 0


def test_training_that_fails_before_its_first_update_marks_nothing_as_trained(arguments, monkeypatch):
    trainer = SGMTrainer(with_added_label(), arguments(eval_strategy="no"), make_documents(8))
    monkeypatch.setattr(trainer, "compute_loss", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert trainer.model.config.num_untrained_labels == 1


def test_the_settings_of_evaluation_reach_generation(arguments, monkeypatch):
    calls = []
    monkeypatch.setattr(
        trainer_module, "generate_predictions", lambda *given, **options: calls.append((given, options))
    )
    data = make_documents(3)
    given = arguments(max_tokens_per_eval_batch=123, per_device_eval_batch_size=45, generation_num_beams=6)
    trainer = SGMTrainer(make_model(), given, eval_dataset=data)
    trainer.generate_predictions(data, "Looking")
    ((model, dataset), options) = calls[0]
    assert (model, dataset) == (trainer.model, data)
    assert (options["max_tokens"], options["max_documents"], options["num_beams"]) == (123, 45, 6)
    assert (options["bf16"], options["show_progress"], options["description"]) == (False, False, "Looking")
    other = SGMTrainer(make_model(), arguments(disable_tqdm=False), eval_dataset=data)
    other.args.bf16 = True
    other.generate_predictions(data)
    options = calls[1][1]
    assert "num_beams" not in options
    assert (options["bf16"], options["show_progress"]) == (True, True)


def test_the_settings_of_the_loader_reach_it(arguments):
    given = arguments(
        eval_strategy="no",
        dataloader_num_workers=2,
        dataloader_prefetch_factor=3,
        dataloader_pin_memory=False,
    )
    loader = SGMTrainer(make_model(), given, make_documents(12)).get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.pin_memory) == (2, 3, False)
