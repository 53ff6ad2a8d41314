"""What a user of Transformers expects of a `Trainer`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, label_ranking_average_precision_score
from tiny_training import NUM_LABELS, make_decided_model, make_documents, make_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainerCallback
from transformers.integrations import integration_utils

from sgm_hf.modeling import SGMTokenizer
from sgm_hf.training import SGMTrainer


class Recorder(TrainerCallback):
    """Keeps what is logged and what evaluations report."""

    logs, evaluations = [], []

    def on_log(self, args, state, control, logs=None, **keywords):
        self.logs.append(logs)

    def on_evaluate(self, args, state, control, metrics=None, **keywords):
        self.evaluations.append(metrics)


@pytest.fixture
def recorder():
    class Fresh(Recorder):
        logs, evaluations = [], []

    return Fresh


# ---- compute_metrics ----


def own_metrics(prediction):
    sets, scores = prediction.predictions
    return {
        "sklearn_f1": f1_score(prediction.label_ids, sets, average="micro", zero_division=0),
        "eval_ranking": np.float64(label_ranking_average_precision_score(prediction.label_ids, scores)),
        "shapes": [list(matrix.shape) for matrix in (sets, scores, prediction.label_ids)],
    }


@pytest.mark.parametrize("decoding", ["best_sequence", "threshold", "expected_f1"])
def test_compute_metrics_gets_sets_scores_and_true_labels_and_is_reported_with_ours(arguments, decoding):
    data = make_documents(30)
    trainer = SGMTrainer(make_decided_model(), arguments(), eval_dataset=data, compute_metrics=own_metrics)
    trainer.model.generation_config.set_decoding = decoding
    metrics = trainer.evaluate()
    assert metrics["eval_sklearn_f1"] == pytest.approx(metrics[f"eval_{decoding}_micro_f1"])
    assert metrics["eval_sklearn_f1"] > 0
    output = trainer.predict(data)
    truth = np.array([[label in labels for label in range(NUM_LABELS)] for labels in data["labels"]])
    ranking = label_ranking_average_precision_score(truth, output.predictions.label_scores)
    assert metrics["eval_ranking"] == pytest.approx(ranking) and type(metrics["eval_ranking"]) is float
    assert output.metrics["test_sklearn_f1"] == pytest.approx(metrics["eval_sklearn_f1"])
    assert {f"eval_{name}" for name in trainer.metric_names()} < set(metrics)


def test_compute_metrics_gets_a_column_for_labels_that_the_model_does_not_know(arguments):
    data = make_documents(8).map(lambda document: {"labels": [*document["labels"], NUM_LABELS + 1]})
    trainer = SGMTrainer(make_model(), arguments(), eval_dataset=data, compute_metrics=own_metrics)
    assert trainer.evaluate()["eval_shapes"] == [[8, NUM_LABELS + 2]] * 3
    assert "test_shapes" not in trainer.predict(data.remove_columns("labels")).metrics


def test_a_metric_of_the_users_own_replaces_ours_of_the_same_name(arguments):
    trainer = SGMTrainer(
        make_model(), arguments(), eval_dataset=make_documents(5), compute_metrics=lambda prediction: {"micro_f1": 7.0}
    )
    metrics = trainer.evaluate()
    assert metrics["eval_micro_f1"] == 7.0 and metrics["eval_best_sequence_micro_f1"] <= 1.0


def test_a_metric_of_the_users_own_chooses_the_best_checkpoint(arguments):
    values = iter([0.1, 0.9, 0.3])
    args = arguments(num_train_epochs=3, metric_for_best_model="mine", save_total_limit=None)
    trainer = SGMTrainer(
        make_model(),
        args,
        make_documents(16),
        make_documents(8, seed=1),
        compute_metrics=lambda prediction: {"mine": next(values)},
    )
    trainer.train()
    assert (trainer.state.best_metric, trainer.state.best_global_step) == (0.9, 4)
    saved = type(trainer.model).from_pretrained(Path(args.output_dir, "checkpoint-4"))
    assert torch.equal(saved.decoder.output.weight, trainer.model.decoder.output.weight)
    other = SGMTrainer(
        make_model(),
        arguments("other", metric_for_best_model="yours"),
        make_documents(16),
        make_documents(8),
        compute_metrics=lambda prediction: {"mine": 1.0},
    )
    with pytest.raises(KeyError, match="eval_yours"):
        other.train()


# ---- several evaluation sets ----


def test_each_set_of_a_dictionary_is_evaluated_under_its_key(arguments):
    sets = {"short": make_documents(12, seed=1), "long": make_documents(9, seed=2)}
    trainer = SGMTrainer(make_decided_model(), arguments(), eval_dataset=sets)
    metrics, alone = trainer.evaluate(), SGMTrainer(make_decided_model(), arguments("alone", eval_strategy="no"))
    for key, data in sets.items():
        for name, value in alone.evaluate(data).items():
            if not name.endswith(("runtime", "per_second")):
                assert metrics[f"eval_{key}_{name.removeprefix('eval_')}"] == value
    assert len(metrics) == 2 * len([*trainer.metric_names(), "position_deviation"])
    assert {"short", "long"} == set(trainer.results)
    assert trainer.evaluate("long")["eval_micro_f1"] == metrics["eval_long_micro_f1"]
    other = trainer.evaluate({"other": sets["long"]}, metric_key_prefix="test")
    assert other["test_other_micro_f1"] == metrics["eval_long_micro_f1"]


def test_a_training_is_judged_by_the_metric_of_one_of_several_sets(arguments, recorder, capfd):
    sets = {"first": make_documents(20, seed=1), "second": make_documents(20, seed=2)}
    args = arguments(
        num_train_epochs=4, learning_rate=0.05, metric_for_best_model="second_loss", early_stopping_patience=9
    )
    held_out, fitted = make_documents(10, seed=3), []
    trainer = SGMTrainer(make_model(), args, make_documents(24), sets, held_out, callbacks=[recorder])
    fit = trainer.fit_label_threshold
    trainer.fit_label_threshold = lambda *given: fitted.append(fit(*given))
    trainer.train()
    assert len(fitted) == len(recorder.evaluations) == 4  # once per evaluation, not per set
    losses = [metrics["eval_second_loss"] for metrics in recorder.evaluations]
    assert trainer.state.best_metric == min(losses)
    assert trainer.evaluate()["eval_second_loss"] == pytest.approx(min(losses))
    assert set(trainer.results) == {"first", "second"}
    data = trainer.fingerprint["data"]
    assert {"validation_first", "validation_second"} < set(data)
    assert data["validation_first"] != data["validation_second"]
    assert "first_micro_f1" in capfd.readouterr().err
    trainer.create_model_card()
    assert "second" in Path(args.output_dir, "README.md").read_text()


def test_a_metric_of_no_set_and_a_set_that_is_not_encoded_are_refused_before_training(arguments):
    sets = {"a": make_documents(4), "b": make_documents(4).remove_columns("labels")}
    trainer = SGMTrainer(make_model(), arguments(), make_documents(8), sets)
    with pytest.raises(ValueError, match="'micro_f1'.*did you mean .*a_micro_f1"):
        trainer.train()
    trainer = SGMTrainer(make_model(), arguments(metric_for_best_model="eval_b_loss"), make_documents(8), sets)
    with pytest.raises(ValueError, match="'eval_b_loss', but the eval_dataset has no labels"):
        trainer.train()
    with pytest.raises(ValueError, match="eval_c_dataset has the columns text"):
        SGMTrainer(make_model(), arguments(), eval_dataset={"c": make_documents(2).rename_column("input_ids", "text")})


# ---- processing_class ----


def token_ids_of(model):
    settings = [*model.config.to_dict().items(), *model.generation_config.to_dict().items()]
    return sorted((name, value) for name, value in settings if name.endswith("token_id") and value is not None)


def test_the_tokenizer_is_the_processing_class_and_changes_no_label_id(arguments, caplog):
    words = {word: index for index, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "a"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<unk>")),
        **{"pad_token": "a", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    )
    model = make_model()
    before = token_ids_of(model)
    heard = []

    class Listener(TrainerCallback):
        def on_train_begin(self, args, state, control, processing_class=None, **keywords):
            heard.append(processing_class)

    trainer = SGMTrainer(
        model,
        arguments(save_strategy="no", load_best_model_at_end=False),
        make_documents(8),
        make_documents(4),
        processing_class=tokenizer,
        callbacks=[Listener()],
    )
    assert trainer.processing_class is tokenizer
    trainer.train()
    assert heard == [tokenizer]
    assert token_ids_of(model) == before
    made = SGMTrainer(
        args=trainer.args,
        train_dataset=make_documents(8),
        eval_dataset=make_documents(4),
        processing_class=tokenizer,
        model_init=lambda: make_model(),
    )
    made.train()
    assert token_ids_of(made.model) == before
    assert "PAD/BOS/EOS" not in caplog.text


# ---- model_init ----


def test_each_training_begins_with_the_model_of_model_init(arguments):
    args, data, validation = arguments(num_train_epochs=1), make_documents(16), make_documents(8, seed=1)
    made = SGMTrainer(args=args, train_dataset=data, eval_dataset=validation, model_init=lambda: make_model(3))
    made.train()
    first = made.model
    assert made.evaluate()["eval_micro_f1"] == made.results["validation"]["micro_f1"]
    made.train()
    assert made.model is not first and made.state.global_step == 2
    for name, weight in first.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], weight), name
        assert not torch.equal(make_model(3).state_dict()[name], weight) or name.endswith("bias"), name


def test_a_training_of_model_init_is_resumed_with_its_threshold(arguments):
    def make_trainer(folder, epochs):
        return SGMTrainer(
            args=arguments(folder, num_train_epochs=epochs, load_best_model_at_end=False),
            train_dataset=make_documents(24),
            eval_dataset=make_documents(8, seed=1),
            threshold_dataset=make_documents(20, seed=2),
            model_init=lambda: make_model(),
            processing_class=SGMTokenizer.train_from_texts(["one two"], vocab_size=10),
        )

    whole = make_trainer("whole", 3)
    whole.train()
    make_trainer("part", 2).train()
    resumed = make_trainer("part", 3)
    resumed.train(resume_from_checkpoint=True)
    assert [resumption["update"] for resumption in resumed.resumptions] == [6]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    assert resumed.model.generation_config.label_threshold == whole.model.generation_config.label_threshold


def test_targets_follow_the_label_order_of_the_model_of_model_init(arguments):
    orders = iter(["frequency", "frequency", "given"])
    trainer = SGMTrainer(
        args=arguments(eval_strategy="no", save_strategy="no"),
        train_dataset=make_documents(8),
        model_init=lambda: make_model(label_order=next(orders)),
    )
    assert trainer.data_collator.label_order == "frequency"
    for expected in ("frequency", "given"):
        trainer.train()
        assert trainer.data_collator.label_order == expected


def test_early_stopping_counts_from_zero_in_each_training(arguments):
    settings = arguments(num_train_epochs=9, learning_rate=0.0, early_stopping_patience=3)
    trainer = SGMTrainer(make_model(), settings, make_documents(8), make_documents(8, seed=1))
    for _ in range(2):
        trainer.train()
        assert trainer.state.epoch == 4.0


# ---- report_to ----


def test_a_logger_named_in_report_to_hears_losses_and_every_metric(arguments, recorder, monkeypatch):
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", recorder)
    trainer = SGMTrainer(
        make_model(),
        arguments(report_to="recorder"),
        make_documents(16),
        make_documents(8),
        compute_metrics=lambda prediction: {"mine": 0.5},
    )
    trainer.train()
    assert any("loss" in logs and "learning_rate" in logs for logs in recorder.logs)
    evaluated = [logs for logs in recorder.logs if "eval_micro_f1" in logs]
    assert len(evaluated) == 2
    for logs in evaluated:
        assert {f"eval_{name}" for name in [*trainer.metric_names(), "mine"]} <= set(logs)
    json.dumps(recorder.logs)
    assert (
        "Fresh" not in SGMTrainer(make_model(), arguments("quiet", eval_strategy="no")).callback_handler.callback_list
    )
