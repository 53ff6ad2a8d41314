"""When network or Hub fail, the error is clear, nothing is half published or half loaded, and a retry works."""

import hashlib
from pathlib import Path

import pytest
from client_process import ClientError
from loopback_hub import Fault

ALWAYS = 10**6


@pytest.fixture
def second(me, tmp_path) -> str:
    """A folder with other weights than the published ones."""
    me.call("make_checkpoint", folder=str(tmp_path), seed=1)
    return str(tmp_path)


def forget_weights(hub, folder):
    """Make the Hub ask for a folder's weights, also if another repository has them."""
    weights = Path(folder, "model.safetensors").read_bytes()
    (hub.folder / hashlib.sha256(weights).hexdigest()).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("request_", "kind", "error"),
    [
        ("PUT /lfs/", "cut", "(?s)uploading 'model.safetensors'.*(Server disconnected|reset|Broken pipe|WriteError)"),
        ("PUT /lfs/", "503", "(?s)uploading 'model.safetensors'.*503"),
        ("PUT /lfs/", "corrupt", "(?s)uploading 'model.safetensors'.*SHA-256"),
        ("POST /lfs/.*verify", "500", "(?s)uploading 'model.safetensors'.*500"),
        ("POST .*/preupload/", "503", "503"),
        ("POST .*/commit/", "cut", "(?i)disconnected|reset|pipe|writeerror"),
        ("POST .*/commit/", "500", "500"),
        ("POST .*/commit/", "429", "429"),
    ],
)
def test_a_push_that_fails_publishes_nothing_and_the_next_one_all(hub, me, checkpoint, second, request_, kind, error):
    name = f"me/fault-{len(hub.repositories)}"
    me.call("push", folder=checkpoint, repository=name)
    before, commits = hub.files(name), hub.messages(name)
    forget_weights(hub, second)  # the cases before this one have sent them
    hub.faults.append(Fault(request_, kind, ALWAYS))
    with pytest.raises(ClientError, match=error):
        me.call("push", folder=second, repository=name)
    assert (hub.files(name), hub.messages(name)) == (before, commits)
    hub.faults.clear()
    me.call("push", folder=second, repository=name)
    assert hub.files(name)["model.safetensors"] != before["model.safetensors"]
    assert len(hub.messages(name)) == len(commits) + 1


@pytest.mark.parametrize("kind", ["cut", "503"])
def test_a_short_fault_of_an_upload_is_overcome_without_the_user(hub, me, second, kind):
    forget_weights(hub, second)
    fault = Fault("PUT /lfs/", kind, times=2)
    hub.faults.append(fault)
    me.call("push", folder=second, repository=f"me/short-{kind}")
    assert fault.times == 0
    assert "model.safetensors" in hub.files(f"me/short-{kind}")


def test_a_push_without_the_right_is_refused(hub, me, checkpoint, published):
    before = hub.messages(published)
    for token in ("hf_of_you", "hf_wrong", False):
        with pytest.raises(ClientError, match="401|403|Unauthorized|Forbidden|rights"):
            me.call("push", folder=checkpoint, repository=published, token=token)
    assert hub.messages(published) == before


@pytest.mark.parametrize("path", ["config.json", "generation_config.json", "model.safetensors"])
def test_a_download_that_is_cut_goes_on_and_gives_the_whole(hub, me, stranger, checkpoint, published, tmp_path, path):
    fault = Fault(f"GET .*/resolve/.*/{path}", "cut", times=1)
    hub.faults.append(fault)
    loaded = stranger.call("load", model=published, trust_remote_code=True, cache_dir=str(tmp_path))
    assert fault.times == 0
    assert loaded["weights"] == me.call("load", model=checkpoint)["weights"]


@pytest.mark.parametrize(
    ("kind", "error"), [("truncate", "Consistency check failed"), ("503", "503|couldn't connect|Can't load")]
)
def test_weights_that_arrive_cut_short_or_not_at_all_are_an_error_and_a_retry_loads_them(
    hub, me, published, tmp_path, kind, error
):
    hub.faults.append(Fault("GET .*/resolve/.*/model.safetensors", kind, ALWAYS))
    with pytest.raises(ClientError, match=error):
        me.call("load", model=published, cache_dir=str(tmp_path))
    hub.faults.clear()
    assert me.call("load", model=published, cache_dir=str(tmp_path)) == me.call("load", model=published)


def test_weights_damaged_on_the_hub_are_refused(hub, me, published):
    files = hub.files(published)
    cut = files["model.safetensors"][:-100]
    hub.publish("me/cut", files | {"model.safetensors": cut})
    with pytest.raises(ClientError, match="weights of me/cut are damaged, or not in safetensors format"):
        me.call("load", model="me/cut")
    hub.publish("me/no-json", files | {"config.json": files["config.json"][:-10]})
    with pytest.raises(ClientError, match="(?i)config file .* is not a valid JSON file"):
        me.call("load", model="me/no-json")


def test_a_byte_changed_on_its_way_is_found_by_the_hash_and_fetched_again(hub, me, published, tmp_path):
    cached = {"model": published, "cache_dir": str(tmp_path)}
    hub.faults.append(Fault("GET .*/resolve/.*/model.safetensors", "corrupt", times=1))
    for _ in range(2):  # the damaged file stays in the cache
        with pytest.raises(ClientError, match="damaged: their SHA-256 is .* force_download=True"):
            me.call("load", **cached)
    assert me.call("load", force_download=True, **cached) == me.call("load", model=published)
    assert me.call("load", **cached) == me.call("load", model=published)


@pytest.mark.parametrize("named", ["tag", "commit"])
def test_a_byte_changed_on_its_way_is_found_in_the_revision_asked_for(hub, me, checkpoint, second, tmp_path, named):
    name = f"me/revisions-{named}"
    first = me.call("push", folder=checkpoint, repository=name)
    me.call("tag", repository=name, name="first", revision=first)
    me.call("push", folder=second, repository=name)
    revision = "first" if named == "tag" else first
    newest = me.call("load", model=name, cache_dir=str(tmp_path))  # whole, and in the cache
    hub.faults.append(Fault("GET .*/resolve/.*/model.safetensors", "corrupt", times=1))
    with pytest.raises(ClientError, match="damaged: their SHA-256 is"):
        me.call("load", model=name, revision=revision, cache_dir=str(tmp_path))
    assert me.call("load", model=name, cache_dir=str(tmp_path)) == newest
    again = me.call("load", model=name, revision=revision, cache_dir=str(tmp_path), force_download=True)
    assert again["weights"] == me.call("load", model=checkpoint)["weights"] != newest["weights"]


def test_a_byte_changed_in_one_of_several_files_of_weights_is_found_too(hub, me, checkpoint, tmp_path):
    me.call("push", folder=checkpoint, repository="me/shards", what="model", max_shard_size="2KB")
    cached = {"model": "me/shards", "cache_dir": str(tmp_path)}
    hub.faults.append(Fault("GET .*/resolve/.*/model-00002-of", "corrupt", times=1))
    with pytest.raises(ClientError, match="damaged: their SHA-256 is"):
        me.call("load", **cached)
    assert me.call("load", force_download=True, **cached)["weights"] == me.call("load", model=checkpoint)["weights"]
