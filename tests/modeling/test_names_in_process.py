"""The names of the package, each loaded at its first use; tests/test_init.py tries them in new interpreters."""

import pytest

from sgm_hf import modeling

MODULES = {
    "LabelConstraints": "constraints_sgm",
    "MultiLabelGenerationPipeline": "pipeline_sgm",
    "SGMConfig": "configuration_sgm",
    "SGMForMultiLabelGeneration": "modeling_sgm",
    "SGMPreTrainedModel": "modeling_sgm",
    "SGMTokenizer": "tokenization_sgm",
    "label_sets_from_sequences": "label_sets_sgm",
    "select_labels": "label_sets_sgm",
}


@pytest.mark.parametrize("name", MODULES)
def test_a_name_is_loaded_from_its_module_at_its_first_use_and_kept(monkeypatch, name):
    monkeypatch.delitem(vars(modeling), name, raising=False)
    value = getattr(modeling, name)
    assert value.__name__ == name
    assert value.__module__ == f"sgm_hf.modeling.{MODULES[name]}"
    assert vars(modeling)[name] is value


def test_every_name_is_listed_before_it_is_used(monkeypatch):
    for name in MODULES:
        monkeypatch.delitem(vars(modeling), name, raising=False)
    assert modeling.__all__ == sorted(MODULES)
    assert set(MODULES) <= set(dir(modeling))


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(AttributeError, match=f"has no attribute 'SGM'; it has {', '.join(MODULES)}"):
        modeling.SGM  # noqa: B018
