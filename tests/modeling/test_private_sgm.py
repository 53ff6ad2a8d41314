"""That Transformers comes by way of our public names; `tests/test_private_names.py` checks the private ones."""

import torch
from tiny_models import build_model
from transformers import GenerationConfig, PreTrainedConfig

from sgm_hf.modeling.private_sgm import commit_hash


def test_a_configuration_of_the_hub_tells_its_revision():
    assert commit_hash(PreTrainedConfig()) is None
    config = PreTrainedConfig()
    config._commit_hash = "abc"  # as releases do that keep it
    assert commit_hash(config) == "abc"


def test_generation_comes_to_the_search_of_the_model(monkeypatch):
    model, searches = build_model(), []
    search = model.search_beams
    monkeypatch.setattr(
        model, "search_beams", lambda *a, **k: (searches.append(k["generation_config"]), search(*a, **k))[1]
    )
    texts = torch.tensor([[5, 6], [7, 8]])
    model.generate(texts, num_beams=3)
    model.generate(texts, generation_config=GenerationConfig(num_beams=2))
    model.generate(texts, num_beams=1)
    assert [config.num_beams for config in searches] == [3, 2]
