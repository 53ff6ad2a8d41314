"""What is pushed to the Hub comes back the same, with sgm_hf and, by the repository's own code, without it."""

import ast
from pathlib import Path

import pytest
from client_process import ClientError

MODELING = Path(__file__).parents[2] / "modeling"


@pytest.fixture(scope="module")
def expected(me, checkpoint):
    """The publisher's predictions, from the folder."""
    return me.call("predict", model=checkpoint)


def without_modules(predictions):
    return {name: value for name, value in predictions.items() if name != "modules"}


def test_a_pushed_repository_holds_the_files_of_modeling_and_no_pickle(hub, published):
    files = hub.files(published)
    assert {path for path in files if not path.endswith(".py")} == {
        *(".gitattributes", "README.md", "config.json", "generation_config.json"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    }
    code = {path for path in files if path.endswith(".py")}
    assert {"configuration_sgm.py", "modeling_sgm.py", "generation_sgm.py", "pipeline_sgm.py", "handler.py"} <= code
    for path in code:
        assert files[path] == (MODELING / path).read_bytes()


def test_the_code_that_travels_imports_torch_transformers_tokenizers_and_its_neighbours_alone(hub, published):
    code = {path: text for path, text in hub.files(published).items() if path.endswith(".py")}
    for path, text in code.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert f"{node.module}.py" in code, path
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert "sgm_hf" not in {name.split(".")[0] for name in names}, path


def test_without_the_package_the_repository_predicts_bit_by_bit_as_its_publisher(
    start, bare_python, published, expected
):
    user = start(bare_python, token=None)
    assert not user.call("has_sgm_hf")
    predictions = user.call("predict", model=published, trust_remote_code=True)
    assert without_modules(predictions) == without_modules(expected)
    assert any(len(labels) > 1 for labels in expected["sets"])
    assert all(module.startswith("transformers_modules.me.model.") for module in predictions["modules"])


def test_a_model_with_a_branch_answers_bit_by_bit_without_the_package(hub, me, stranger, tmp_path):
    me.call("make_checkpoint", folder=str(tmp_path), branch=True)
    me.call("push", folder=str(tmp_path), repository="me/branch")
    assert "lexical_sgm.py" in hub.files("me/branch")
    expected = me.call("predict", model=str(tmp_path))
    found = stranger.call("predict", model="me/branch", trust_remote_code=True)
    assert without_modules(found) == without_modules(expected)
    assert all(module.startswith("transformers_modules.me.branch.") for module in found["modules"])
    scores = [entry["score"] for answer in found["scores"] for entry in answer]
    assert len(scores) == 20 and 0 < min(scores) and max(scores) < 1
    assert len({tuple(entry["label"] for entry in answer) for answer in found["sets"]}) > 1


def test_several_models_in_one_answer_bit_by_bit_without_the_package(hub, me, stranger, tmp_path):
    me.call("make_checkpoint", folder=str(tmp_path), num_models=2)
    me.call("push", folder=str(tmp_path), repository="me/members")
    assert "ensemble_sgm.py" in hub.files("me/members")
    found = stranger.call("predict", model="me/members", trust_remote_code=True)
    assert without_modules(found) == without_modules(me.call("predict", model=str(tmp_path)))
    assert all(module.startswith("transformers_modules.me.members.") for module in found["modules"])


def test_with_the_package_it_does_so_without_trust(start, published, expected):
    user = start(token=None)
    user.call("use_sgm_hf")
    predictions = user.call("predict", model=published)
    assert without_modules(predictions) == without_modules(expected)
    assert all(module.startswith("sgm_hf.modeling.") for module in predictions["modules"])
    assert user.call("predict", model=published, trust_remote_code=True)["modules"] == predictions["modules"]


def test_without_the_package_nothing_runs_before_the_user_trusts_it(stranger, published):
    with pytest.raises(ClientError, match="trust_remote_code=True"):
        stranger.call("predict", model=published, trust_remote_code=False)


@pytest.mark.parametrize("auto", ["AutoConfig", "AutoTokenizer", "AutoModel", "AutoModelForSeq2SeqLM"])
def test_the_auto_classes_load_it_in_both_environments(me, stranger, published, auto):
    ours = me.call("load", model=published, auto=auto)
    theirs = stranger.call("load", model=published, auto=auto, trust_remote_code=True)
    assert ours.pop("module").startswith("sgm_hf.modeling.")
    assert theirs.pop("module").startswith("transformers")
    if auto == "AutoTokenizer":
        assert (ours["class"], theirs["class"]) == ("SGMTokenizer", "TokenizersBackend")
    else:
        assert ours == theirs


def test_the_tokenizer_needs_no_code_of_the_repository(stranger, published):
    loaded = stranger.call("load", model=published, auto="AutoTokenizer", trust_remote_code=False)
    assert loaded["class"] == "TokenizersBackend"


def test_what_is_saved_by_the_repositorys_own_code_is_complete(stranger, me, published, expected, tmp_path):
    names = stranger.call("resave", model=published, folder=str(tmp_path), trust_remote_code=True)
    assert {"handler.py", "pipeline_sgm.py", "modeling_sgm.py", "config.json"} <= set(names)
    assert without_modules(me.call("predict", model=str(tmp_path))) == without_modules(expected)
    again = stranger.call("predict", model=str(tmp_path), trust_remote_code=True)
    assert without_modules(again) == without_modules(expected)


def test_revisions_give_each_its_own_weights(me, stranger, tmp_path):
    folders = [str(tmp_path / name) for name in ("first", "second")]
    for seed, folder in enumerate(folders):
        me.call("make_checkpoint", folder=folder, seed=seed)
    first = me.call("push", folder=folders[0], repository="me/revisions")
    me.call("tag", repository="me/revisions", name="v1", revision=first)
    me.call("push", folder=folders[1], repository="me/revisions")
    me.call("push", folder=folders[0], repository="me/revisions", revision="old-weights")
    weights = [me.call("load", model=folder)["weights"] for folder in folders]
    assert weights[0] != weights[1]
    trusted = {"model": "me/revisions", "trust_remote_code": True}
    for revision, which in ((None, 1), ("main", 1), ("v1", 0), (first, 0), ("old-weights", 0)):
        assert stranger.call("load", revision=revision, **trusted)["weights"] == weights[which]
    with pytest.raises(ClientError, match="no-such-branch is not a valid git identifier"):
        stranger.call("load", revision="no-such-branch", **trusted)


def test_local_files_only_needs_no_hub(hub, stranger, published, expected, tmp_path):
    offline = {"model": published, "trust_remote_code": True, "local_files_only": True}
    with pytest.raises(ClientError, match="(?i)local|offline|cached"):
        stranger.call("load", cache_dir=str(tmp_path), **offline)
    stranger.call("predict", model=published, trust_remote_code=True)
    hub.requests.clear()
    predictions = stranger.call("predict", **offline)
    assert without_modules(predictions) == without_modules(expected)
    # Where peft is installed, pipeline() of Transformers looks for an adapter without being told local_files_only.
    assert [request for request in hub.requests if "adapter_config.json" not in str(request)] == []


def test_sharded_weights_come_back_whole(hub, me, stranger, checkpoint):
    me.call("push", folder=checkpoint, repository="me/sharded", what="model", max_shard_size="2KB")
    shards = [path for path in hub.files("me/sharded") if path.endswith(".safetensors")]
    assert len(shards) > 2 and "model.safetensors.index.json" in hub.files("me/sharded")
    loaded = stranger.call("load", model="me/sharded", trust_remote_code=True)
    assert loaded["weights"] == me.call("load", model=checkpoint)["weights"]


def test_dtype_and_device_map_are_obeyed(me, stranger, published):
    for user, trust in ((me, {}), (stranger, {"trust_remote_code": True})):
        assert user.call("load", model=published, dtype="bfloat16", **trust)["dtype"] == "torch.bfloat16"
        for device_map in ("auto", "cpu", {"": "cpu"}):
            loaded = user.call("load", model=published, device_map=device_map, **trust)
            assert (loaded["device"], loaded["dtype"]) == ("cpu", "torch.float32")


def test_a_private_repository_opens_to_its_owners_token_only(hub, me, stranger, checkpoint, expected, tmp_path):
    me.call("push", folder=checkpoint, repository="me/private", private=True)
    assert hub.repositories["model", "me/private"].private
    assert without_modules(me.call("predict", model="me/private")) == without_modules(expected)
    for user, token in ((stranger, {}), (me, {"token": "hf_of_you"}), (me, {"token": False})):
        with pytest.raises(ClientError, match="not a valid model identifier|private or gated repo"):
            user.call("load", model="me/private", cache_dir=str(tmp_path), trust_remote_code=True, **token)
    opened = stranger.call("predict", model="me/private", trust_remote_code=True, token="hf_of_me")
    assert without_modules(opened) == without_modules(expected)


def test_model_and_tokenizer_pushed_one_after_the_other_make_a_whole_repository(
    hub, me, stranger, checkpoint, expected
):
    me.call("push", folder=checkpoint, repository="me/in-parts", what="tokenizer")
    assert set(hub.files("me/in-parts")) == {".gitattributes", "README.md", "tokenizer.json", "tokenizer_config.json"}
    me.call("push", folder=checkpoint, repository="me/in-parts", what="model")
    predictions = stranger.call("predict", model="me/in-parts", trust_remote_code=True)
    assert without_modules(predictions) == without_modules(expected)
