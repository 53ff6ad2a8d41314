"""Checkpoints that do not hold what their configuration describes are refused; nobody gets a random model unasked."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import build_model
from transformers import AutoModel

from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.modeling.loading_sgm import check_hashes, check_names, check_values

NAME = "decoder.output.weight"
GOLD = torch.tensor([[2, 0, 3], [1, 3, -100], [3, -100, -100], [0, 2, 3]])


@pytest.fixture
def checkpoint(tmp_path):
    """A folder with a model, whose weights `change` replaces by what a function makes of them."""
    build_model().save_pretrained(tmp_path)
    return tmp_path


def change(folder, function) -> None:
    file = folder / "model.safetensors"
    save_file(function(load_file(file)), file, metadata={"format": "pt"})


def with_value(value: float, place: int = 0):
    """A function that puts a value into one weight."""

    def put(weights):
        weights[NAME].view(-1)[place] = value
        return weights

    return put


def without(*names: str):
    return lambda weights: {name: value for name, value in weights.items() if name not in names}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 17, -1])
def test_weights_that_are_not_finite_are_refused_by_name(checkpoint, value, place):
    change(checkpoint, with_value(value, place))
    with pytest.raises(ValueError, match=f"1 weights of .* cannot be used; {NAME} is not finite"):
        SGMForMultiLabelGeneration.from_pretrained(checkpoint)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_found_in_half_precision(checkpoint, dtype):
    change(
        checkpoint,
        lambda weights: {name: value.to(dtype) for name, value in with_value(float("nan"))(weights).items()},
    )
    with pytest.raises(ValueError, match="not finite"):
        AutoModel.from_pretrained(checkpoint)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.uint8])
def test_weights_of_whole_numbers_are_refused_by_name_and_type(checkpoint, dtype):
    change(checkpoint, lambda weights: weights | {NAME: weights[NAME].to(dtype)})
    with pytest.raises(ValueError, match=rf"{NAME} is of type (I64|I8|BOOL|U8), expected one of BF16, F16, F32, F64"):
        SGMForMultiLabelGeneration.from_pretrained(checkpoint)
    change(checkpoint, lambda weights: {name: value.to(dtype) for name, value in weights.items()})
    with pytest.raises(ValueError, match="[1-9][0-9] weights of"):
        SGMForMultiLabelGeneration.from_pretrained(checkpoint)


def test_the_pairs_of_the_lexical_branch_are_whole_numbers_and_its_scale_none(tmp_path):
    model = build_model(lexical_branch=True, lexical_bigrams=3)
    model.lexical.bigrams.copy_(torch.tensor([2, 7, 9]))
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    assert loaded.lexical.bigrams.tolist() == [2, 7, 9] and loaded.lexical.bigrams.dtype == torch.int64
    for pairs, fault in (
        (torch.tensor([2, 9, 7]), "not in ascending order"),
        (torch.tensor([2.0, 7.0, 9.0]), "of type F32, expected I64"),
        (torch.tensor([2, 7, 9]).int(), "of type I32, expected I64"),
    ):
        change(tmp_path, lambda weights, pairs=pairs: weights | {"lexical.bigrams": pairs})
        with pytest.raises(ValueError, match=f"lexical.bigrams is {fault}"):
            SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    scale = model.lexical.scale.long()
    change(tmp_path, lambda weights: weights | {"lexical.bigrams": torch.tensor([2, 7, 9]), "lexical.scale": scale})
    with pytest.raises(ValueError, match="lexical.scale is of type I64, expected one of BF16"):
        SGMForMultiLabelGeneration.from_pretrained(tmp_path)


def test_a_branch_that_a_checkpoint_lacks_is_made_anew_without_evidence(tmp_path):
    config = {"lexical_bigrams": 3, "lexical_neighbors": 2, "lexical_datastore": [5, 9, 7]}
    build_model(lexical_branch=True, **config).save_pretrained(tmp_path)
    change(tmp_path, lambda weights: {name: w for name, w in weights.items() if not name.startswith("lexical")})
    model = SGMForMultiLabelGeneration.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert (model.lexical(torch.tensor([[3, 4]])) == -10.0).all()


def test_only_the_lexical_branch_has_buffers():
    assert not list(build_model().buffers())
    names = {name for name, _ in build_model(lexical_branch=True).named_buffers()}
    assert {name.partition(".")[0] for name in names} == {"lexical"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_each_floating_point_type_load(checkpoint, dtype):
    change(checkpoint, lambda weights: {name: value.to(dtype) for name, value in weights.items()})
    expected = build_model().state_dict()[NAME].to(dtype).float()
    assert torch.equal(
        SGMForMultiLabelGeneration.from_pretrained(checkpoint, dtype="float32").state_dict()[NAME], expected
    )


def test_missing_weights_are_refused_by_name(checkpoint):
    change(checkpoint, without(NAME, "decoder.output.bias"))
    with pytest.raises(
        ValueError, match=r"2 \(decoder.output.bias, decoder.output.weight\) missing, none not expected"
    ):
        SGMForMultiLabelGeneration.from_pretrained(checkpoint)


def test_a_checkpoint_without_any_weight_is_refused(checkpoint):
    change(checkpoint, lambda weights: {"tensor": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"\d\d \(.*, …\) missing, 1 \(tensor\) not expected"):
        SGMForMultiLabelGeneration.from_pretrained(checkpoint)


def test_weights_of_another_system_are_refused(checkpoint):
    build_model(label_feedback="global_embedding").save_pretrained(checkpoint)
    config = checkpoint / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"label_feedback": "previous_label"}))
    with pytest.raises(ValueError, match=r"none missing, 2 \(decoder.feedback.gate_average.weight, .*\) not expected"):
        SGMForMultiLabelGeneration.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    "damage",
    [with_value(float("nan")), lambda weights: weights | {NAME: weights[NAME].long()}, without(NAME)],
    ids=["nan", "whole numbers", "missing"],
)
def test_what_cannot_be_used_is_made_anew_on_request_and_the_rest_is_kept(checkpoint, texts, damage):
    change(checkpoint, damage)
    model, info = SGMForMultiLabelGeneration.from_pretrained(
        checkpoint, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert info["missing_keys"] == {NAME}
    assert model(**texts, labels=GOLD).loss.isfinite()
    for name, expected in build_model().state_dict().items():
        assert torch.equal(model.state_dict()[name], expected) == (name != NAME), name
    assert SGMForMultiLabelGeneration.from_pretrained(checkpoint, ignore_mismatched_sizes=True) is not None


def test_each_weight_missing_alone_is_made_anew_and_all_others_are_kept(checkpoint):
    model = build_model(label_feedback="global_embedding")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.375)  # as no weight is drawn
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.save_pretrained(checkpoint)
    for missing in weights:
        save_file(without(missing)(weights), checkpoint / "model.safetensors", metadata={"format": "pt"})
        loaded = SGMForMultiLabelGeneration.from_pretrained(checkpoint, ignore_mismatched_sizes=True).state_dict()
        made_anew = {name for name, value in weights.items() if not torch.equal(loaded[name], value)}
        assert made_anew == {missing}
        assert loaded[missing].isfinite().all() and not loaded[missing].eq(0.375).any()


def test_who_asks_for_the_loading_info_gets_the_names_of_missing_weights(checkpoint):
    change(checkpoint, lambda weights: without(NAME)(weights) | {"tensor": torch.zeros(2)})
    _, info = SGMForMultiLabelGeneration.from_pretrained(checkpoint, output_loading_info=True)
    assert (info["missing_keys"], info["unexpected_keys"]) == ({NAME}, {"tensor"})
    change(checkpoint, lambda weights: weights | {"decoder.output.bias": torch.full((4,), float("nan"))})
    with pytest.raises(ValueError, match="not finite"):
        SGMForMultiLabelGeneration.from_pretrained(checkpoint, output_loading_info=True)


def test_weights_of_another_shape_are_made_anew_on_request(checkpoint):
    model = SGMForMultiLabelGeneration.from_pretrained(checkpoint, num_labels=5, ignore_mismatched_sizes=True)
    assert model.decoder.output.weight.shape == (6, 10)
    assert torch.equal(model.encoder.embed_tokens.weight, build_model().encoder.embed_tokens.weight)


def test_each_file_of_several_is_looked_at(tmp_path):
    build_model().save_pretrained(tmp_path, max_shard_size="2KB")
    files = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(files.values())) > 2
    assert SGMForMultiLabelGeneration.from_pretrained(tmp_path) is not None
    file = tmp_path / files[NAME]
    save_file(with_value(float("nan"))(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{NAME} is not finite"):
        SGMForMultiLabelGeneration.from_pretrained(tmp_path)


def test_files_in_a_subfolder_and_of_a_variant_are_looked_at(tmp_path):
    build_model().save_pretrained(tmp_path / "sub", variant="fp16")
    options = {"subfolder": "sub", "variant": "fp16"}
    assert SGMForMultiLabelGeneration.from_pretrained(tmp_path, **options) is not None
    file = tmp_path / "sub" / "model.fp16.safetensors"
    save_file(with_value(float("nan"))(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{NAME} is not finite"):
        SGMForMultiLabelGeneration.from_pretrained(tmp_path, **options)


@pytest.mark.parametrize(
    "options", [{"device_map": "cpu"}, {"device_map": "auto"}, {"dtype": torch.bfloat16}], ids=str
)
def test_weights_are_looked_at_however_they_are_loaded(checkpoint, options):
    assert SGMForMultiLabelGeneration.from_pretrained(checkpoint, **options) is not None
    change(checkpoint, with_value(float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        SGMForMultiLabelGeneration.from_pretrained(checkpoint, **options)


def test_weights_given_by_the_caller_are_taken_as_they_are():
    model = build_model()
    state_dict = without(NAME)(model.state_dict())
    loaded = SGMForMultiLabelGeneration.from_pretrained(None, config=model.config, state_dict=state_dict)
    assert torch.equal(loaded.decoder.output.bias, model.decoder.output.bias)


def test_pickles_are_refused(checkpoint):
    with pytest.raises(ValueError, match="use_safetensors is False.*model.safetensors"):
        SGMForMultiLabelGeneration.from_pretrained(checkpoint, use_safetensors=False)
    torch.save(build_model().state_dict(), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    for choice in (True, None):
        with pytest.raises(OSError, match="model.safetensors"):
            SGMForMultiLabelGeneration.from_pretrained(checkpoint, use_safetensors=choice)


def test_damaged_files_are_refused_with_the_remedy(checkpoint):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(OSError, match=f"weights of {checkpoint} are damaged, or not in safetensors.*force_download"):
        SGMForMultiLabelGeneration.from_pretrained(checkpoint)


def test_a_file_named_by_its_hash_must_have_it(tmp_path):
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    blob, link = tmp_path / digest, tmp_path / "model.safetensors"
    link.symlink_to(blob)  # as in the cache of the Hub
    blob.write_bytes(content + b".")
    with pytest.raises(OSError, match=f"weights of me/model are damaged: .* expected {digest}.*force_download=True"):
        check_hashes("me/model", [str(link)])
    blob.write_bytes(content)
    check_hashes("me/model", [str(link)])
    other = tmp_path / "model-00002-of-00002.safetensors"
    other.write_bytes(b"anything")
    check_hashes("me/model", [str(other)])  # no name of a hash, so nothing to compare


def test_a_file_is_hashed_once_after_it_was_fetched(tmp_path, monkeypatch):
    blob = tmp_path / hashlib.sha256(b"weights").hexdigest()
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: hashed.append(file.name) or digest(file, name))
    blob.write_bytes(b"weights")
    for _ in range(3):
        check_hashes("me/model", [str(blob)])
    assert len(hashed) == 1
    blob.write_bytes(b"weight.")  # fetched again, this time with a fault
    later = blob.stat().st_mtime + 1  # than the steps of a file system's clock
    os.utime(blob, (later, later))
    with pytest.raises(OSError, match="damaged"):
        check_hashes("me/model", [str(blob)])
    with pytest.raises(OSError, match="damaged"):
        check_hashes("me/model", [str(blob)])


def test_where_nothing_can_be_written_beside_it_a_file_is_hashed_each_time(tmp_path, monkeypatch):
    blob = tmp_path / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"weights")
    monkeypatch.setattr(Path, "touch", lambda path: (_ for _ in ()).throw(PermissionError("read-only")))
    check_hashes("me/model", [str(blob)])
    blob.write_bytes(b"weight.")
    with pytest.raises(OSError, match="damaged"):
        check_hashes("me/model", [str(blob)])


def test_messages_name_some_of_many_weights():
    with pytest.raises(ValueError, match=r"3 \(a, b, c\) missing, 4 \(d, e, f, …\) not expected"):
        check_names("x", {"c", "b", "a"}, {"g", "f", "e", "d"})
    with pytest.raises(ValueError, match="2 weights of x cannot be used; a is odd"):
        check_values("x", {"b": "even", "a": "odd"})
    check_names("x", set(), set())
