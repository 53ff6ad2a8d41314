"""Models around an encoder of Transformers come back from the Hub without the encoder's own repository."""

import base64
import io

import pytest
from client_process import ClientError
from PIL import Image


@pytest.mark.parametrize("trusts", [False, True])
def test_a_model_around_bert_answers_as_its_publisher_with_and_without_the_package(
    hub, me, start, bare_python, tmp_path, trusts
):
    me.call("make_pretrained", folder=str(tmp_path))
    me.call("push", folder=str(tmp_path), repository=f"me/bert{int(trusts)}")
    files = hub.files(f"me/bert{int(trusts)}")
    assert {"windows_sgm.py", "adapters_sgm.py", "model.safetensors", "tokenizer.json"} <= files.keys()
    expected = me.call("predict", model=str(tmp_path))
    user = start(bare_python, token=None) if trusts else start()
    options = {"trust_remote_code": True} if trusts else {}
    if not trusts:
        user.call("use_sgm_hf")
    found = user.call("predict", model=f"me/bert{int(trusts)}", **options)
    assert {name: value for name, value in found.items() if name != "modules"} == {
        name: value for name, value in expected.items() if name != "modules"
    }
    assert any(expected["sets"])


@pytest.fixture(scope="module")
def images(me, tmp_path_factory):
    """A folder with a trained model of images, and what it said of some when it was trained."""
    folder = str(tmp_path_factory.mktemp("vit"))
    return folder, me.call("make_pretrained", folder=folder, images=True)


def test_a_model_around_vit_predicts_in_the_pipeline_as_when_it_was_trained(hub, me, stranger, start, images):
    folder, trained = images
    assert [[entry["label"] for entry in found] for found in trained][0] == ["red"]
    assert len({str(found) for found in trained}) > 3
    me.call("push", folder=folder, repository="me/vit")
    assert {"inputs_sgm.py", "preprocessor_config.json", "model.safetensors"} <= hub.files("me/vit").keys()
    assert "tokenizer.json" not in hub.files("me/vit")
    user = start()
    user.call("use_sgm_hf")
    without = stranger.call("label_images", model="me/vit", trust_remote_code=True)
    found = user.call("label_images", model="me/vit")
    assert found["pictures"] == found["files"] == without["pictures"] == without["files"]
    assert_same(found["pictures"], trained)
    assert found["module"] == "sgm_hf.modeling.pipeline_sgm"
    assert without["module"].startswith("transformers_modules")
    assert found["processor"].startswith("ViTImageProcessor")


def assert_same(found, trained):
    """The same labels in the same order; scores but for the rounding of sums over weights that lie elsewhere."""
    assert [[entry["label"] for entry in labels] for labels in found] == [
        [entry["label"] for entry in labels] for labels in trained
    ]
    scores = [[entry["score"] for labels in side for entry in labels] for side in (found, trained)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_an_endpoint_answers_images_in_base64_only(me, stranger, images, tmp_path):
    folder, trained = images
    me.call("push", folder=folder, repository="me/vit-endpoint")
    files = stranger.call("download", model="me/vit-endpoint")
    buffer = io.BytesIO()
    Image.new("RGB", (9, 6), (255, 0, 0)).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    assert_same(stranger.call("handle", folder=files, request={"inputs": [encoded]}), trained[:1])
    (tmp_path / "red.png").write_bytes(buffer.getvalue())
    with pytest.raises(ClientError, match="is no image file in Base64"):
        stranger.call("handle", folder=files, request={"inputs": str(tmp_path / "red.png")})
