"""A repository that is not one of ours, or not whole, is refused with an error that says what is wrong."""

import json
import pickle

import pytest
import safetensors.torch
import torch
from client_process import ClientError


class Harm:
    """Something whose pickle does harm when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def publish(hub, published):
    """Publishes the repository with some files changed (`None`: left out), and returns its name."""

    def publish_changed(name, **changes):
        files = hub.files(published) | {path.replace("__", "."): content for path, content in changes.items()}
        hub.publish(f"me/{name}", {path: content for path, content in files.items() if content is not None})
        return f"me/{name}"

    return publish_changed


@pytest.fixture
def config(hub, published):
    return json.loads(hub.files(published)["config.json"])


def encoded(config):
    return json.dumps(config).encode()


def test_a_repository_without_config_or_tokenizer_is_refused(me, publish):
    with pytest.raises(ClientError, match="(?s)me/no_config.*config.json"):
        me.call("predict", model=publish("no_config", config__json=None))
    with pytest.raises(ClientError, match="(?s)tokenizer"):
        me.call("predict", model=publish("no_words", tokenizer__json=None, tokenizer_config__json=None))


def test_a_repository_without_our_code_needs_the_package(me, stranger, publish, config):
    del config["auto_map"], config["custom_pipelines"]
    name = publish("no_code", config__json=encoded(config), modeling_sgm__py=None)
    assert len(me.call("predict", model=name)["sets"]) == 5
    with pytest.raises(ClientError, match="model type `sgm`"):
        stranger.call("predict", model=name, trust_remote_code=True)


def test_a_model_of_another_kind_is_refused(me, publish, config):
    bert = {"model_type": "bert", "hidden_size": 4, "num_attention_heads": 1, "num_hidden_layers": 1}
    bert |= {"intermediate_size": 4, "vocab_size": config["vocab_size"], "max_position_embeddings": 8}
    with pytest.raises(ClientError, match="configuration of a model of type 'bert', expected 'sgm'"):
        me.call("load_ours", model=publish("bert", config__json=encoded(bert)))
    with pytest.raises(ClientError, match="The model is of type 'bert', expected 'sgm'"):
        me.call("predict", model=publish("bert_pipeline", config__json=encoded(bert)))


def test_a_newer_format_is_refused_with_the_way_out(me, publish, config):
    config["sgm_format"] = 2
    with pytest.raises(ClientError, match="has the format 2, .* reads up to 1; install a newer release"):
        me.call("predict", model=publish("newer", config__json=encoded(config)))


def test_missing_labels_are_refused(me, stranger, publish, config):
    del config["id2label"]
    name = publish("no_labels", config__json=encoded(config))
    for user, trust in ((me, {}), (stranger, {"trust_remote_code": True})):
        with pytest.raises(ClientError, match=r"names no labels \(id2label\)"):
            user.call("predict", model=name, **trust)
    config["id2label"] = {"0": "oil", "2": "gold"}
    with pytest.raises(ClientError, match="id2label must have the ids 0 to 1"):
        me.call("predict", model=publish("gap", config__json=encoded(config)))


def test_weights_of_another_shape_are_refused(me, publish, config):
    config["id2label"]["4"] = "one too many"
    with pytest.raises(ClientError, match="ignore_mismatched_sizes"):
        me.call("predict", model=publish("shape", config__json=encoded(config)))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda weight: weight * float("nan"), "decoder.output.weight is not finite"),
        (lambda weight: weight.to(torch.int32), "decoder.output.weight is of type I32"),
        (lambda weight: None, r"1 \(decoder.output.weight\) missing, none not expected"),
    ],
    ids=["nan", "integers", "missing"],
)
def test_weights_that_cannot_be_used_are_refused_with_and_without_the_package(
    hub, me, stranger, publish, published, request, change, error
):
    weights = safetensors.torch.load(hub.files(published)["model.safetensors"])
    weights["decoder.output.weight"] = change(weights["decoder.output.weight"])
    weights = {name: weight for name, weight in weights.items() if weight is not None}
    content = safetensors.torch.save(weights, metadata={"format": "pt"})
    name = publish(f"unusable-{request.node.callspec.id}", model__safetensors=content)
    for user, trust in ((me, {}), (stranger, {"trust_remote_code": True})):
        for function in ("load", "predict"):
            with pytest.raises(ClientError, match=error):
                user.call(function, model=name, **trust)
    loaded = stranger.call("load", model=name, ignore_mismatched_sizes=True, trust_remote_code=True)
    assert loaded["class"] == "SGMForMultiLabelGeneration"


@pytest.mark.parametrize("place", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickle_is_refused_and_never_read(me, hub, publish, tmp_path, place):
    content = pickle.dumps({"weight": Harm(tmp_path / "harm")})
    name = publish(place.replace(".", "-"), model__safetensors=None)
    hub.publish(name, hub.files(name) | {place: content})
    with pytest.raises(ClientError, match="safetensors"):
        me.call("predict", model=name)
    with pytest.raises(ClientError, match="pickle format may run code"):
        me.call("load", model=name, use_safetensors=False)
    assert not (tmp_path / "harm").exists()
