"""Checkpoints that earlier code wrote load and predict what they did.

`checkpoints/make_checkpoints.py` says how they were made.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoTokenizer, pipeline

CHECKPOINTS = Path(__file__).with_name("checkpoints")
sys.path.insert(0, str(CHECKPOINTS))

from make_checkpoints import SETTINGS, TEXTS, machine, predict  # noqa: E402

# On another machine the last bits of a sum differ.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(params=SETTINGS)
def folder(request) -> Path:
    return CHECKPOINTS / request.param


def test_its_tensors_are_the_same(folder):
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with safe_open(folder / "expected.safetensors", "pt") as file:
        expected = {name: file.get_tensor(name) for name in file.keys()}
        is_same_machine = file.metadata()["machine"] == machine()
    found = predict(model, tokenizer)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        if is_same_machine or not tensor.is_floating_point():
            assert torch.equal(found[name], tensor), name
        else:
            tolerance = TOLERANCES[model.dtype]
            torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance, msg=name)


def test_its_pipeline_answers_the_same(folder):
    expected = json.loads((folder / "expected_pipeline.json").read_text(encoding="utf-8"))
    answers = pipeline("multi-label-generation", model=str(folder))(TEXTS)
    labels = [[label["label"] for label in answer] for answer in answers]
    assert labels == [[label["label"] for label in answer] for answer in expected]
    scores = [label["score"] for answer in answers for label in answer]
    tolerance = TOLERANCES[torch.bfloat16 if folder.name.endswith("bf16") else torch.float32]
    assert scores == pytest.approx([label["score"] for answer in expected for label in answer], abs=tolerance)


def test_it_is_saved_with_the_same_weights(folder, tmp_path):
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path)
    with safe_open(folder / "model.safetensors", "pt") as old, safe_open(tmp_path / "model.safetensors", "pt") as new:
        assert old.keys() == new.keys()
        for name in old.keys():
            assert torch.equal(old.get_tensor(name), new.get_tensor(name)), name
