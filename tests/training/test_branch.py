"""The lexical branch is fitted before the first update, and training sees what it says without each document."""

import pytest
import torch
from test_trainer import StopAt
from tiny_training import NUM_LABELS, make_documents, make_model

from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.training import SamplingArguments, SelfCriticalTrainer, SGMTrainer, SGMTrainingArguments
from sgm_hf.training.lexical import FOLDS_FILE, LexicalSettings, fit_lexical_branch


def make_trainer(tmp_path, model=None, trainer=SGMTrainer, arguments=SGMTrainingArguments, data=None, **settings):
    options = {
        "use_cpu": True,
        "disable_tqdm": True,
        "eval_strategy": "no",
        "num_train_epochs": 2,
        "lexical_cost": 1.0,
    }
    model = model or make_model(lexical_branch=True, lexical_in_decoder=True)
    data = make_documents(60) if data is None else data
    options["lexical_cost"] = 1.0
    batches = {"per_device_train_batch_size": 16, "max_tokens_per_batch": 10_000}
    return trainer(model, arguments(str(tmp_path), **options | batches | settings), train_dataset=data)


def watch(model) -> list[dict[str, torch.Tensor]]:
    """What `model.encode` gets in training."""
    seen, encode = [], model.encode

    def record(**inputs):
        if model.training:
            seen.append(inputs)
        return encode(**inputs)

    model.encode = record
    return seen


@pytest.mark.parametrize("kind", [SGMTrainer, SelfCriticalTrainer])
def test_training_sees_of_each_document_what_the_branch_says_without_it(tmp_path, kind):
    arguments = SGMTrainingArguments if kind is SGMTrainer else SamplingArguments
    trainer = make_trainer(tmp_path, trainer=kind, arguments=arguments, num_train_epochs=1)
    seen = watch(trainer.model)
    trainer.train()
    documents = make_documents(60)
    fit = fit_lexical_branch(documents, 30, NUM_LABELS, LexicalSettings(cost=1.0, seed=trainer.args.seed))
    expected = torch.cat(list(fit.iterate_out_of_fold_log_odds(documents)))
    of_text = {tuple(text): row for row, text in enumerate(documents["input_ids"])}
    count = 0
    for inputs in seen:
        for text, found in zip(inputs["input_ids"].tolist(), inputs["lexical_logits"], strict=True):
            row = of_text[tuple(word for word in text if word)]
            torch.testing.assert_close(found, expected[row])
            count += 1
    assert count >= 60
    in_sample = fit.branch()(*MultiLabelCollator(0, NUM_LABELS).pad_texts(list(documents)).values())
    assert not torch.allclose(in_sample, expected, atol=0.1)


def test_the_trained_model_has_the_branch_of_all_documents(tmp_path):
    trainer = make_trainer(tmp_path, num_train_epochs=1)
    trainer.train()
    fit = fit_lexical_branch(make_documents(60), 30, NUM_LABELS, LexicalSettings(cost=1.0, seed=trainer.args.seed))
    assert torch.equal(trainer.model.lexical.weight, fit.branch().weight)
    assert trainer.model.config.lexical_data == fit.data_hash


def test_a_branch_beside_the_decoder_changes_nothing_in_its_training(tmp_path):
    plain = make_trainer(tmp_path / "plain", make_model())
    beside = make_trainer(tmp_path / "beside", make_model(lexical_branch=True))
    for trainer in (plain, beside):
        torch.manual_seed(3)
        trainer.train()
    weights = beside.model.state_dict()
    assert {name for name in weights if name.startswith("lexical")} == {
        f"lexical.{name}" for name in ("scale", "weight", "bias", "bigrams")
    }
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_a_resumed_training_ends_in_the_same_model(tmp_path):
    settings = {"save_strategy": "epoch", "num_train_epochs": 3}
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    interrupted = make_trainer(tmp_path / "resumed", **settings)
    interrupted.add_callback(StopAt(6))
    interrupted.train()
    assert interrupted.state.global_step == 6 < whole.state.global_step
    fits = (tmp_path / "resumed" / FOLDS_FILE).stat().st_mtime_ns
    resumed = make_trainer(
        tmp_path / "resumed", make_model(1, lexical_branch=True, lexical_in_decoder=True), **settings
    )
    torch.manual_seed(99)
    resumed.train(resume_from_checkpoint=True)
    assert (tmp_path / "resumed" / FOLDS_FILE).stat().st_mtime_ns == fits  # read, not fitted again
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


@pytest.mark.parametrize("refit", [False, True])
def test_a_branch_of_other_documents_stays_unless_it_is_to_be_fitted_anew(tmp_path, refit):
    first = make_trainer(tmp_path / "first", num_train_epochs=1)
    first.train()
    weight = first.model.lexical.weight.clone()
    data = make_documents(40, seed=7)
    second = make_trainer(tmp_path / "second", first.model, data=data, refit_lexical_branch=refit, num_train_epochs=1)
    seen = watch(second.model)
    second.train()
    assert torch.equal(second.model.lexical.weight, weight) is not refit
    assert all(("lexical_logits" in inputs) is refit for inputs in seen)


def test_cost_and_bigram_weight_are_chosen_where_they_are_not_given(tmp_path):
    model = make_model(lexical_branch=True, lexical_bigrams=50)
    trainer = make_trainer(tmp_path, model, lexical_cost=None, num_train_epochs=1)
    trainer.train()
    settings = trainer.lexical_fit.settings
    assert settings.cost in (0.1, 0.3, 1.0, 3.0) and settings.bigram_weight in (0.0, 0.5)
    assert model.config.lexical_bigrams == len(model.lexical.bigrams) <= 50


def test_what_the_branch_cannot_be_fitted_to_is_refused(tmp_path):
    stream = make_documents(40).to_iterable_dataset()
    trainer = make_trainer(tmp_path / "stream", data=stream, max_steps=2)
    with pytest.raises(ValueError, match="they are a stream; load them as a Dataset"):
        trainer.train()
    own = make_trainer(tmp_path / "own")
    own.data_collator = MultiLabelCollator(0, NUM_LABELS)
    with pytest.raises(ValueError, match="a batch has no index"):
        own.train()


def test_a_model_made_anew_for_each_training_gets_the_branch_each_time(tmp_path):
    options = {"use_cpu": True, "disable_tqdm": True, "eval_strategy": "no", "save_strategy": "no"}
    arguments = SGMTrainingArguments(str(tmp_path), num_train_epochs=1, lexical_cost=1.0, **options)
    trainer = SGMTrainer(
        args=arguments,
        train_dataset=make_documents(40),
        model_init=lambda: make_model(lexical_branch=True, lexical_in_decoder=True),
    )
    weights = []
    for _ in range(2):
        trainer.train()
        weights.append(trainer.model.lexical.weight)
        assert trainer.model.config.lexical_data is not None
    assert torch.equal(*weights) and weights[0].abs().sum() > 0


@pytest.mark.parametrize("changed", [{"lexical_folds": 3}, {"lexical_cost": 0.3}])
def test_a_fit_of_other_settings_is_not_taken_for_this_one(tmp_path, changed):
    make_trainer(tmp_path, num_train_epochs=1).train()
    again = make_trainer(tmp_path, **{"num_train_epochs": 1} | changed)
    again.train()
    settings = again.lexical_fit.settings
    assert changed.items() <= {"lexical_folds": settings.num_folds, "lexical_cost": settings.cost}.items()


def test_a_fit_is_read_whose_bigram_weight_has_nothing_to_weigh(tmp_path):
    make_trainer(tmp_path, num_train_epochs=1, lexical_bigram_weight=0.5).train()
    time = (tmp_path / FOLDS_FILE).stat().st_mtime_ns
    make_trainer(tmp_path, num_train_epochs=1, lexical_bigram_weight=0.5).train()
    assert (tmp_path / FOLDS_FILE).stat().st_mtime_ns == time
