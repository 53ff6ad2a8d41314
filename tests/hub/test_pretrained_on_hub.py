"""Models around an encoder of Transformers come back from the Hub without the encoder's own repository."""

import pytest


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


def test_a_model_around_vit_labels_images_as_its_publisher_without_the_package(me, stranger, tmp_path):
    me.call("make_pretrained", folder=str(tmp_path), images=True)
    me.call("push_model", folder=str(tmp_path), repository="me/vit")
    expected = me.call("label_images", model=str(tmp_path))
    assert stranger.call("label_images", model="me/vit", trust_remote_code=True) == expected
