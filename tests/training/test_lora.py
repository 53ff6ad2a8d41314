"""Low-rank adapters: what they train, and that what is saved does without them."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import NUM_LABELS, make_documents, make_model
from transformers import GPT2Config, TrainerCallback

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration
from sgm_hf.modeling.adapters_sgm import merged_weights
from sgm_hf.training import SGMTrainer, SGMTrainingArguments
from sgm_hf.training.lora import FILE, add_lora
from sgm_hf.training.machine import bf16_fault

pytest.importorskip("peft")
sys.path.append(str(Path(__file__).parents[1] / "modeling"))
from tiny_encoders import TEXT_ENCODERS, VIT  # noqa: E402

ENCODERS = {**TEXT_ENCODERS, "vit": VIT, "gpt2": GPT2Config(vocab_size=40, n_embd=12, n_layer=1, n_head=2)}


def model_of(name="bert", lora=True):
    torch.manual_seed(0)
    model = SGMForMultiLabelGeneration(
        SGMConfig(
            encoder="pretrained", encoder_config=copy.deepcopy(ENCODERS[name]), num_labels=NUM_LABELS, dropout=0.1
        )
    )
    if lora:
        add_lora(model, rank=2)
    return model


def shake(model):
    """Gives the adapters an effect, which they have not at first."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model.eval()


class StopAt(TrainerCallback):
    def __init__(self, update):
        self.update = update

    def on_step_end(self, args, state, control, **keywords):
        control.should_training_stop = state.global_step == self.update


def train(folder, *callbacks, resume=False, model=None, **settings):
    arguments = SGMTrainingArguments(
        str(folder), max_steps=6, save_strategy="steps", save_steps=2, eval_strategy="no", save_total_limit=None,
        per_device_train_batch_size=4, disable_tqdm=True, **settings,
    )  # fmt: skip
    trainer = SGMTrainer(
        model_of() if model is None else model, arguments, train_dataset=make_documents(20), callbacks=[*callbacks]
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_saved_loads_without_adapters_and_answers_the_same(name, tmp_path):
    model = shake(model_of(name))
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model_of(name, lora=False).state_dict().keys()
    inputs = {"pixel_values": torch.randn(3, 3, 8, 8)}
    if name != "vit":
        inputs = {"input_ids": torch.randint(4, 30, (3, 7)), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    options = {"decoder_input_ids": torch.tensor([[NUM_LABELS + 1, 2, 0]] * 3)}
    expected = model(**inputs, **options).logits
    torch.testing.assert_close(loaded(**inputs, **options).logits, expected, rtol=1e-4, atol=1e-4)
    untouched = model_of(name, lora=False).eval()(**inputs, **options).logits
    assert not torch.allclose(untouched, expected, atol=1e-3)


def test_only_the_adapters_and_the_decoder_are_trained(tmp_path):
    before = {name: tensor.clone() for name, tensor in model_of().state_dict().items()}
    after = train(tmp_path, learning_rate=0.01).model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in moved if not name.startswith("decoder.")} == {name for name in before if "lora_" in name}
    assert {name for name in before if name.startswith("decoder.")} <= moved | {"decoder.feedback.embed_labels.weight"}


def test_a_frozen_encoder_does_not_move(tmp_path):
    model = model_of(lora=False)
    model.freeze_encoder()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = train(tmp_path, model=model, learning_rate=0.01).model.state_dict()
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"decoder"}


def changed_by_training(folder, part, **settings):
    """What training moved, by name, from the same start; of the encoder all is trained, nothing, or adapters."""
    model = model_of(lora=part == "adapters")
    if part == "nothing":
        model.freeze_encoder()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = train(folder, model=model, optim="sgd", learning_rate=0.1, **settings).model.state_dict()
    assert all(tensor.dtype == before[name].dtype for name, tensor in after.items())
    return {name: tensor - before[name] for name, tensor in after.items()}


@pytest.mark.parametrize("part", ["all", "nothing", "adapters"])
def test_gradient_checkpointing_gives_the_same_training(part, tmp_path):
    names = SGMTrainingArguments.__dataclass_fields__
    option = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in names)
    plain, checkpointed = (
        changed_by_training(tmp_path / str(value), part, **{option: value}) for value in (False, True)
    )
    trained = [name for name, change in plain.items() if change.any()]
    assert any(name.startswith("encoder.") for name in trained) == (part != "nothing")
    for name, change in plain.items():
        torch.testing.assert_close(checkpointed[name], change, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("part", ["all", "nothing", "adapters"])
def test_training_in_bf16_differs_by_its_rounding_only(part, tmp_path):
    if bf16_fault("cpu") is not None:
        pytest.skip("this machine cannot train in bf16")
    exact, rounded = (changed_by_training(tmp_path / str(value), part, bf16=value) for value in (False, True))
    whole, other = (torch.cat([change.flatten() for change in found.values()]) for found in (exact, rounded))
    assert not torch.equal(whole, other)
    torch.testing.assert_close(torch.cosine_similarity(whole, other, dim=0), torch.tensor(1.0), rtol=0, atol=0.05)


@pytest.mark.parametrize("has_adapters", [True, False])
def test_it_resumes_bit_for_bit(has_adapters, tmp_path):
    whole = train(tmp_path / "whole", model=model_of(lora=has_adapters))
    train(tmp_path / "cut", StopAt(4), model=model_of(lora=has_adapters))
    resumed = train(tmp_path / "cut", resume=True, model=model_of(lora=has_adapters))
    assert resumed.state.global_step == 6
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


def test_checkpoints_are_models_without_adapters_beside_what_resuming_needs(tmp_path):
    trainer = train(tmp_path)
    trainer.save_model()
    assert (tmp_path / "checkpoint-6" / FILE).exists() and not (tmp_path / FILE).exists()
    merged = merged_weights(trainer.model, trainer.model.state_dict())
    for folder in (tmp_path, tmp_path / "checkpoint-6"):
        found = SGMForMultiLabelGeneration.from_pretrained(folder).state_dict()
        assert found.keys() == merged.keys()
        assert all(torch.equal(found[name], merged[name].cpu()) for name in merged)


def test_a_checkpoint_with_adapters_is_not_resumed_without_and_the_other_way_round(tmp_path):
    train(tmp_path / "with", StopAt(2))
    with pytest.raises(ValueError, match="trained parameters"):
        train(tmp_path / "with", resume=True, model=model_of(lora=False))
    model = model_of(lora=False)
    add_lora(model, rank=3)
    with pytest.raises(ValueError, match="trained parameters"):
        train(tmp_path / "with", resume=True, model=model)


def test_adapters_are_refused_where_they_cannot_be():
    with pytest.raises(ValueError, match="for a pre-trained encoder, but config.encoder is 'recurrent'"):
        add_lora(make_model())
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(model_of())
