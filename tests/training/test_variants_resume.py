"""A training of any variant goes on from a checkpoint as if it had never stopped."""

from pathlib import Path

import pytest
import torch
from tiny_training import make_documents, make_model
from variants import VARIANTS

from sgm_hf.training import SGMTrainer


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_training_ends_bit_for_bit_as_one_that_was_never_stopped(variant, arguments):
    settings = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 9}
    settings |= {"eval_strategy": "no", "load_best_model_at_end": False}
    ends = []
    for resumed in (False, True):
        model = make_model(**VARIANTS[variant])
        trainer = SGMTrainer(model, arguments("run", **settings), make_documents(32))
        trainer.train(str(Path(trainer.args.output_dir, "checkpoint-3")) if resumed else None)
        assert trainer.state.global_step == 8
        ends.append(model.state_dict())
    assert ends[0].keys() == ends[1].keys()
    for name, weight in ends[0].items():
        assert torch.equal(weight, ends[1][name]), name
