"""`SGMTrainer.calibrate` stores what `generate()` then makes of both sources."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import f1_score, log_loss
from tiny_training import NUM_LABELS, make_documents, make_model

from sgm_hf.data.labels import label_matrix
from sgm_hf.metrics import compute_metrics
from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.modeling.generation_sgm import ScoreSettings
from sgm_hf.training import SGMTrainer, SGMTrainingArguments, calibrating
from sgm_hf.training.arguments import OBJECTIVES
from sgm_hf.training.calibrating import DECISIONS, SHARES, label_marginals, label_scores


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trainer whose small model has learned a little."""
    options = {"use_cpu": True, "disable_tqdm": True, "eval_strategy": "no", "save_strategy": "no"}
    arguments = SGMTrainingArguments(
        str(tmp_path_factory.mktemp("run")),
        num_train_epochs=6,
        per_device_train_batch_size=16,
        lexical_cost=1.0,
        **options,
    )
    model = make_model(lexical_branch=True, lexical_in_decoder=True)
    trainer = SGMTrainer(model, arguments, train_dataset=make_documents(200), eval_dataset=make_documents(150, seed=1))
    trainer.train()
    return trainer


@pytest.fixture
def trainer(trained):
    generation_config = trained.model.generation_config
    trained.model.generation_config = type(generation_config).from_dict(generation_config.to_dict())
    yield trained
    trained.model.generation_config = generation_config


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_is_stored_gives_the_scores_and_sets_that_were_fitted(trainer, objective, tmp_path):
    fitted = trainer.calibrate(objective=objective)
    settings, data = trainer.model.generation_config, trainer.eval_dataset
    chosen = (
        {"expected_f1", DECISIONS[objective][0]}
        if objective in ("micro_f1", "macro_f1")
        else {DECISIONS[objective][0]}
    )
    assert settings.objective == objective and settings.set_decoding in chosen
    names = ("lexical_weight", "hypothesis_temperature", "lexical_share")
    assert {*names} <= set(fitted)
    values = {name: getattr(settings, name) for name in (*names, "label_calibration")}
    scoring = ScoreSettings(**values)
    found = trainer.generate_hypotheses(data)
    expected = label_scores(label_marginals(found, scoring), found.lexical_logits, scoring)
    predictions = trainer.generate_predictions(data)
    np.testing.assert_allclose(predictions.label_scores, expected, atol=1e-5)
    trainer.save_model(str(tmp_path))
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    inputs = {name: torch.tensor([data[0][name]]) for name in ("input_ids",)}
    found = loaded.generate(**inputs, return_dict_in_generate=True, output_label_scores=True)
    torch.testing.assert_close(found.label_scores[0], torch.from_numpy(expected[0]))
    chosen = [label for label in found.sequences[0].tolist() if label < NUM_LABELS]
    assert set(chosen) == set(trainer.label_sets(predictions)[0])


def test_scores_are_nearer_to_the_truth_than_before(trainer):
    data = trainer.eval_dataset
    references = label_matrix(data["labels"], NUM_LABELS)

    def loss() -> float:
        scores = trainer.generate_predictions(data).label_scores.clip(1e-6, 1 - 1e-6)
        return -np.where(references, np.log(scores), np.log1p(-scores)).mean()

    before = loss()
    trainer.calibrate(objective="hamming")
    assert loss() < before


def test_each_objective_is_at_least_as_good_in_its_metric_as_the_default_on_the_documents_of_the_fit(trainer):
    data = trainer.eval_dataset
    references = label_matrix(data["labels"], NUM_LABELS)

    def metrics() -> dict[str, float]:
        sets = trainer.label_sets(trainer.generate_predictions(data))
        return compute_metrics(references, label_matrix(sets, NUM_LABELS))

    before = metrics()
    trainer.calibrate(objective="exact_match")
    assert metrics()["zero_one_loss"] <= before["zero_one_loss"]
    trainer.calibrate(objective="micro_f1")
    assert metrics()["micro_f1"] >= before["micro_f1"]


def make_doubtful_documents(count: int, seed: int) -> Dataset:
    """Documents of which every second one has the labels of another."""
    documents = make_documents(count, seed)
    labels = documents["labels"][:]
    for row in range(0, count - 1, 2):
        labels[row] = labels[count - 1 - row]
    return documents.remove_columns("labels").add_column("labels", labels)


def test_known_label_frequencies_make_scores_right_where_labels_are_more_frequent(tmp_path):
    arguments = SGMTrainingArguments(
        str(tmp_path), use_cpu=True, disable_tqdm=True, eval_strategy="no", num_train_epochs=3, lexical_cost=1.0
    )
    data = {"train_dataset": make_doubtful_documents(400, 0), "eval_dataset": make_doubtful_documents(400, 1)}
    trainer = SGMTrainer(make_model(lexical_branch=True), arguments, **data)
    trainer.train()
    pool = make_doubtful_documents(3000, seed=2)
    has_first = label_matrix(pool["labels"], NUM_LABELS)[:, 0]
    shifted = pool.select(np.r_[np.flatnonzero(has_first)[:400], np.flatnonzero(~has_first)[:100]])
    references = label_matrix(shifted["labels"], NUM_LABELS)
    shares = dict(zip(trainer.model.config.id2label.values(), references.mean(axis=0).tolist(), strict=True))

    def loss() -> float:
        scores = trainer.generate_predictions(shifted).label_scores.astype(float).clip(1e-6, 1 - 1e-6)
        return -np.where(references, np.log(scores), np.log1p(-scores)).mean()

    trainer.calibrate(objective="micro_f1")
    before = loss()
    trainer.calibrate(objective="micro_f1", label_frequencies=shares)
    assert len(trainer.model.generation_config.lexical_bias) == NUM_LABELS
    assert loss() < 0.97 * before
    trainer.calibrate(objective="micro_f1")
    assert trainer.model.generation_config.lexical_bias is None
    assert loss() == pytest.approx(before)


def test_label_frequencies_need_a_branch_and_training_documents(trainer, tmp_path):
    name = trainer.model.config.id2label[0]
    arguments = SGMTrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, eval_strategy="no")
    other = SGMTrainer(make_model(), arguments, train_dataset=make_documents(9), eval_dataset=make_documents(40))
    with pytest.raises(ValueError, match="need a model with a lexical branch"):
        other.calibrate(label_frequencies={name: 0.5})
    with pytest.raises(ValueError, match="'no label', which is none of"):
        trainer.calibrate(label_frequencies={"no label": 0.5})


def test_what_is_fitted_to_the_training_documents_is_fitted_once(trainer, monkeypatch):
    calls = []
    fit_prior, fit_shift = calibrating.fit_prior_shift, trainer._fit_label_shift
    monkeypatch.setattr(calibrating, "fit_prior_shift", lambda *given: calls.append("prior") or fit_prior(*given))
    monkeypatch.setattr(trainer, "_fit_label_shift", lambda *given: calls.append("shift") or fit_shift(*given))
    monkeypatch.setattr(trainer, "_kept_prior", None)
    monkeypatch.setattr(trainer, "_kept_shift", None)

    def calibrate(frequencies):
        calls.clear()
        trainer.calibrate(objective="macro_f1", label_frequencies=frequencies)
        settings = trainer.model.generation_config
        return settings.set_decoding, settings.label_threshold, settings.lexical_bias

    name = trainer.model.config.id2label[0]
    plain = calibrate(None)
    assert calls == ["shift"]
    assert calibrate(None) == plain and calls == []
    often = calibrate({name: 0.7})
    assert calls == ["prior", "shift"]
    assert calibrate({name: 0.7}) == often and calls == []
    assert calibrate({name: 0.2}) != often and calls == ["prior", "shift"]
    monkeypatch.setattr(trainer, "train_dataset", trainer.train_dataset.select(range(150)))
    calibrate({name: 0.2})
    assert calls == ["prior", "shift"]


def test_training_with_an_objective_ends_calibrated(tmp_path):
    arguments = SGMTrainingArguments(
        str(tmp_path), use_cpu=True, disable_tqdm=True, num_train_epochs=1, objective="exact_match", lexical_cost=1.0
    )
    data = {"train_dataset": make_documents(60), "eval_dataset": make_documents(30, seed=1)}
    trainer = SGMTrainer(make_model(lexical_branch=True), arguments, **data)
    trainer.train()
    settings = trainer.model.generation_config
    assert (settings.objective, settings.set_decoding) == ("exact_match", "best_sequence")
    assert settings.label_calibration


def test_a_model_without_a_branch_gets_thresholds_and_a_decoding(tmp_path):
    arguments = SGMTrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, eval_strategy="no")
    trainer = SGMTrainer(make_model(), arguments, eval_dataset=make_documents(40))
    fitted = trainer.calibrate(objective="macro_f1")
    assert set(fitted) <= {"label_threshold"} and trainer.model.generation_config.set_decoding == "threshold"
    assert len(trainer.generate_predictions(make_documents(5)).best_sequences) == 5


def test_what_cannot_be_fitted_is_refused(trainer):
    with pytest.raises(ValueError, match="objective is 'f1'; choose one of micro_f1"):
        trainer.calibrate(objective="f1")
    with pytest.raises(ValueError, match="no labelled documents"):
        trainer.calibrate(make_documents(5).remove_columns("labels"))
    with pytest.raises(ValueError, match="objective is 'f1'; choose one of micro_f1"):
        SGMTrainingArguments("folder", objective="f1")


@pytest.mark.parametrize("objective", ["micro_f1", "hamming"])
def test_the_branch_gets_the_share_that_serves_the_objective(trainer, objective):
    columns = make_documents(150, seed=1).to_dict()
    columns["labels"][::3] = make_documents(50, seed=2)["labels"]  # of other documents: else all shares are perfect
    data = Dataset.from_dict(columns)
    trainer.calibrate(data, objective=objective)
    settings = trainer.model.generation_config
    references = label_matrix(data["labels"], NUM_LABELS)
    found, worth = trainer.generate_hypotheses(data), {}
    for share in SHARES:
        scoring = ScoreSettings(settings.lexical_weight, settings.hypothesis_temperature, lexical_share=share)
        scores = label_scores(label_marginals(found, scoring), found.lexical_logits, scoring).astype(np.float64)
        if objective == "micro_f1":
            cuts = np.unique(scores)
            worth[share] = max(f1_score(references, scores >= cut, average="micro", zero_division=0) for cut in cuts)
        else:
            worth[share] = -log_loss(references.ravel(), scores.ravel().clip(1e-6, 1 - 1e-6))
    assert worth[settings.lexical_share] == pytest.approx(max(worth.values()), abs=1e-6)
    assert len({*worth.values()}) > 1
