import json
import time

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from sgm_hf import SGMConfig


def test_decoder_ids_follow_the_labels():
    config = SGMConfig(id2label={0: "a", 1: "b", 2: "c"})
    assert (config.num_labels, config.eos_label_id, config.bos_label_id, config.pad_label_id) == (3, 3, 4, 5)
    assert config.label2id == {"a": 0, "b": 1, "c": 2}


def test_a_saved_configuration_loads_equal_by_the_auto_class(tmp_path):
    config = SGMConfig(
        id2label={0: "Märkte", 1: "rates, bonds"}, label_feedback="fixed_mixture", mixture_lambda=0.25, dropout=0
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, SGMConfig)
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()


def test_unset_sizes_follow_the_sizes_they_belong_to():
    config = SGMConfig(embedding_size=12, decoder_hidden_size=34)
    assert (config.label_embedding_size, config.attention_size) == (12, 34)


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"embedding_size": 0}, "embedding_size"),
        ({"dropout": 1.0}, "dropout"),
        ({"mixture_lambda": 1.5}, "mixture_lambda"),
        ({"attention": "words"}, "attention"),
        ({"encoder_layers": "two"}, "encoder_layers"),
        ({"unit_dilations": []}, r"unit_dilations is \[\]"),
        ({"unit_dilations": [1, 0]}, r"unit_dilations is \[1, 0\]"),
        ({"unit_dilations": ["1"]}, "unit_dilations"),
        ({"sentence_end_ids": []}, "sentence_end_ids is an empty list"),
        ({"encoder": "semantic_units"}, "attention='word' never looks at the units"),
        ({"id2label": {0: "a", 2: "b"}}, "id2label"),
        ({"id2label": {0: "a", 1: "a"}}, "id2label"),
    ],
)
def test_a_wrong_value_is_refused_by_name(settings, culprit):
    with pytest.raises(StrictDataclassError, match=culprit):
        SGMConfig(**settings)


def test_generation_parameters_stay_out_of_the_model_configuration():
    assert not set(SGMConfig().to_dict()) & {"num_beams", "max_length", "length_penalty"}


@pytest.mark.parametrize("count", [-1, 4])
def test_more_untrained_labels_than_labels_are_refused(count):
    with pytest.raises(StrictDataclassError, match="num_untrained_labels must lie between 0 and num_labels=3"):
        SGMConfig(num_labels=3, num_untrained_labels=count)


def test_a_label_named_twice_among_a_hundred_thousand_is_found_at_once():
    names = [f"label {i}" for i in range(100_000)]
    start = time.process_time()
    with pytest.raises(StrictDataclassError, match=r"appear twice: \['label 7'\]"):
        SGMConfig(id2label=dict(enumerate([*names, "label 7"])))
    assert time.process_time() - start < 5.0  # counting each name in turn took minutes


def test_a_hundred_thousand_labels_are_saved_and_loaded_in_seconds(tmp_path):
    config = SGMConfig(id2label={i: f"label {i}" for i in range(100_000)})
    start = time.process_time()
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert time.process_time() - start < 10.0
    assert loaded.id2label == config.id2label and loaded.label2id["label 99999"] == 99999


def test_values_not_given_are_the_papers_for_aapd_and_our_own():
    config = SGMConfig()
    paper = {"vocab_size": 30000, "embedding_size": 256, "encoder_hidden_size": 256, "encoder_layers": 2}
    paper |= {"decoder_hidden_size": 512, "decoder_layers": 1, "label_mask": True, "label_order": "frequency"}
    own = {"label_embedding_size": 256, "attention": "word", "attention_size": 512, "dropout": 0.5}
    own |= {"label_feedback": "previous_label", "mixture_lambda": 0.5, "gate_activation": "linear"}
    own |= {"initializer_range": 0.1, "num_untrained_labels": 0, "pad_token_id": 0, "use_cache": True}
    own |= {"unit_kernel_size": 3, "unit_dilations": [1, 2, 3], "sentence_length": 10, "sentence_end_ids": None}
    own |= {"is_encoder_decoder": True, "tie_word_embeddings": False}
    assert {name: getattr(config, name) for name in paper | own} == paper | own


SIZES = ["vocab_size", "embedding_size", "encoder_hidden_size", "encoder_layers", "decoder_hidden_size"]
SIZES += ["decoder_layers", "label_embedding_size", "attention_size", "unit_kernel_size", "sentence_length"]


@pytest.mark.parametrize("name", SIZES)
def test_each_size_is_at_least_one(name):
    assert getattr(SGMConfig(**{name: 1}), name) == 1
    for value in (0, -3):
        with pytest.raises(StrictDataclassError, match=f"{name} must be at least 1, got {value}"):
            SGMConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("dropout", (0, 0.0, 0.99), (-0.01, 1.0, 1.5)),
        ("mixture_lambda", (0.0, 0, 1.0, 1), (-0.01, 1.01)),
        ("num_untrained_labels", (0, 1, 2), (-1, 3)),
    ],
)
def test_ranges_have_their_ends(name, allowed, refused):
    for value in allowed:
        assert getattr(SGMConfig(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(StrictDataclassError, match=f"{name} must .* got {value}"):
            SGMConfig(**{name: value})


def test_gaps_and_repeats_among_the_labels_are_named():
    with pytest.raises(StrictDataclassError, match=r"ids 0 to 1, got \[0, 2\]"):
        SGMConfig(id2label={0: "a", 2: "b"})
    with pytest.raises(StrictDataclassError, match=r"appear twice: \['a', 'c'\]"):
        SGMConfig(id2label={0: "c", 1: "a", 2: "b", 3: "c", 4: "a"})


def test_label_names_are_stored_even_if_they_are_those_of_transformers(tmp_path):
    SGMConfig(num_labels=2).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}
    assert AutoConfig.from_pretrained(tmp_path).id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_what_is_stored_says_its_format_and_its_code_and_what_is_loaded_does_not(tmp_path):
    config = SGMConfig(num_labels=2)
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["sgm_format"] == 1
    assert stored["auto_map"]["AutoModel"] == "modeling_sgm.SGMForMultiLabelGeneration"
    assert stored["auto_map"]["AutoConfig"] == "configuration_sgm.SGMConfig"
    pipeline = stored["custom_pipelines"]["multi-label-generation"]
    assert pipeline["impl"] == "pipeline_sgm.MultiLabelGenerationPipeline"
    assert (pipeline["pt"], pipeline["type"]) == (["AutoModel"], "text")
    loaded = SGMConfig.from_pretrained(tmp_path)
    assert not hasattr(loaded, "sgm_format")
    assert not hasattr(loaded, "custom_pipelines")  # or pipeline() would ask for trust in remote code
    config.to_dict()["auto_map"].clear()
    config.to_dict()["custom_pipelines"]["multi-label-generation"].clear()
    assert config.to_dict()["auto_map"] and config.to_dict()["custom_pipelines"]["multi-label-generation"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "a model of type 'bert', expected 'sgm'"),
        ({"sgm_format": 2}, "has the format 2, this release of sgm_hf reads up to 1; install a newer release"),
        ({"sgm_format": "1"}, "has the format '1'"),
        ({"id2label": None}, r"names no labels \(id2label\)"),
        ({"id2label": {}}, r"names no labels \(id2label\)"),
    ],
)
def test_a_stored_configuration_that_would_be_read_wrongly_is_refused(change, message):
    stored = {"model_type": "sgm", "sgm_format": 1, "id2label": {"0": "a"}}
    assert SGMConfig.from_dict(dict(stored)).id2label == {0: "a"}
    assert SGMConfig.from_dict(stored | {"sgm_format": 0}).num_labels == 1
    for name in ("model_type", "sgm_format"):
        assert SGMConfig.from_dict({key: value for key, value in stored.items() if key != name}).num_labels == 1
    with pytest.raises(ValueError, match=message):
        SGMConfig.from_dict(stored | change)


def test_its_code_goes_with_a_saved_configuration(tmp_path):
    SGMConfig(num_labels=2).save_pretrained(tmp_path)
    assert "class SGMConfig" in (tmp_path / "configuration_sgm.py").read_text(encoding="utf-8")


def test_names_that_transformers_asks_for_are_those_of_the_sizes():
    config = SGMConfig(decoder_hidden_size=34, encoder_layers=3)
    assert (config.hidden_size, config.num_hidden_layers) == (34, 3)
    assert SGMConfig.keys_to_ignore_at_inference == ["past_key_values"]


def test_a_configuration_from_arguments_gives_back_what_it_does_not_know(tmp_path):
    SGMConfig(num_labels=2).save_pretrained(tmp_path)
    config, unused = SGMConfig.from_pretrained(tmp_path, dropout=0.1, colour="red", return_unused_kwargs=True)
    assert (config.dropout, unused) == (0.1, {"colour": "red"})
