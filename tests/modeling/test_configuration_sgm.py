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
