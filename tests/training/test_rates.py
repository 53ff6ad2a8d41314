"""Learning rates of an encoder's layers."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import make_documents, make_model

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration
from sgm_hf.training import SGMTrainer, SGMTrainingArguments
from sgm_hf.training.rates import encoder_rates

sys.path.append(str(Path(__file__).parents[1] / "modeling"))
from tiny_encoders import TEXT_ENCODERS, VIT  # noqa: E402

FIRST = {"bert": "embeddings.", "roberta": "embeddings.", "deberta": "embeddings.", "modernbert": "embeddings."}
FIRST |= {"t5": "embed_tokens.", "vit": "embeddings."}
LAYERS = {"bert": "encoder.layer", "roberta": "encoder.layer", "deberta": "encoder.layer", "modernbert": "layers"}
LAYERS |= {"t5": "block", "vit": "layers"}


def model_of(name):
    torch.manual_seed(0)
    encoder_config = copy.deepcopy({**TEXT_ENCODERS, "vit": VIT}[name])
    return SGMForMultiLabelGeneration(SGMConfig(encoder="pretrained", encoder_config=encoder_config, num_labels=4))


@pytest.mark.parametrize("name", FIRST)
def test_rates_fall_from_the_last_layer_to_the_embeddings(name):
    model = model_of(name)
    rates = encoder_rates(model, 1.0, 0.5)
    assert rates.keys() == {one for one, _ in model.named_parameters() if one.startswith("encoder.")}
    place = f"encoder.model.{LAYERS[name]}."
    for parameter, rate in rates.items():
        if parameter.startswith(place):
            expected = {"0": 0.5, "1": 1.0}[parameter.removeprefix(place)[0]]
        else:
            expected = 0.25 if parameter.startswith(f"encoder.model.{FIRST[name]}") else 1.0
        assert rate == expected, parameter
    assert {0.25, 0.5, 1.0} == {*rates.values()}


def test_wrappers_change_no_rate():
    model = model_of("bert")
    inner = encoder_rates(model, 1.0, 0.5)
    wrapped = encoder_rates(torch.nn.ModuleDict({"module": model}), 1.0, 0.5)
    assert wrapped == {f"module.{name}": rate for name, rate in inner.items()}


def make_trainer(folder, model=None, **settings):
    arguments = SGMTrainingArguments(
        str(folder), learning_rate=0.1, eval_strategy="no", save_strategy="no", weight_decay=0.1, **settings
    )
    return SGMTrainer(model or make_model(), arguments, train_dataset=make_documents(20))


def test_each_parameter_is_in_one_group_of_its_rate(tmp_path):
    trainer = make_trainer(tmp_path, model_of("bert"), encoder_learning_rate=0.01, layerwise_lr_decay=0.5)
    groups = trainer.create_optimizer().param_groups
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    found = {names[id(one)]: (group["lr"], group["weight_decay"]) for group in groups for one in group["params"]}
    rates = encoder_rates(trainer.model, 0.01, 0.5)
    plain = make_trainer(tmp_path, trainer.model).create_optimizer().param_groups
    decay = {names[id(one)]: group["weight_decay"] for group in plain for one in group["params"]}
    assert found == {name: (rates.get(name, 0.1), decay[name]) for name in names.values()}
    assert sum(len(group["params"]) for group in groups) == len(names) and groups[0]["lr"] == 0.1
    assert len(plain) == 2


def test_a_step_moves_each_part_as_far_as_its_rate_says(tmp_path):
    """The first step of Adam is the learning rate, whatever the gradient."""
    trainer = make_trainer(tmp_path, encoder_learning_rate=0.001, optim="sgd", num_train_epochs=1)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    optimizer = trainer.create_optimizer()
    for parameter in trainer.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    optimizer.step()
    for name, parameter in trainer.model.named_parameters():
        rate = 0.001 if name.startswith("encoder.") else 0.1
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, rate), rtol=1e-3, atol=1e-5)


def test_a_resumed_training_keeps_the_encoders_rate_where_that_of_the_decoder_changed(tmp_path):
    settings = {"encoder_learning_rate": 0.01, "max_steps": 2, "per_device_train_batch_size": 4}

    def train(rate, **more):
        arguments = SGMTrainingArguments(
            str(tmp_path), learning_rate=rate, eval_strategy="no", save_strategy="steps", save_steps=2, **more
        )
        trainer = SGMTrainer(make_model(), arguments, train_dataset=make_documents(20))
        trainer.train(resume_from_checkpoint=rate != 0.1)
        return trainer

    train(0.1, **settings)
    resumed = train(0.3, **settings | {"max_steps": 4})
    assert [group["lr"] for group in resumed.optimizer.param_groups] == [0.3, 0.3, 0.01, 0.01]


@pytest.mark.parametrize("settings", [{"encoder_learning_rate": 0.0}, {"layerwise_lr_decay": 1.5}], ids=str)
def test_rates_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is .*must be"):
        SGMTrainingArguments("unused", **settings)
