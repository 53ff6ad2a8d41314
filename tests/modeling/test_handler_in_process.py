"""What the handler of an endpoint passes on and refuses, in this process; tests/hub runs it as the platform does."""

import base64
import io

import pytest
from PIL import Image

from sgm_hf.modeling import handler
from sgm_hf.modeling.inputs_sgm import open_image


class Echo:
    """A pipeline that answers with what it was given."""

    reads_images = False

    def __init__(self, task, options):
        self.made_of = (task, options)

    def __call__(self, inputs, **parameters):
        return (*self.made_of, inputs, parameters)


@pytest.fixture
def endpoint(monkeypatch):
    """A handler whose pipeline answers with what it was given."""

    def make_pipeline(task, **options):
        return Echo(task, options)

    monkeypatch.setattr(handler, "pipeline", make_pipeline)
    return handler.EndpointHandler("folder")


def test_a_request_reaches_the_pipeline_of_the_repository(endpoint):
    options = {"model": "folder", "trust_remote_code": True}
    assert endpoint({"inputs": "a text"}) == ("multi-label-generation", options, "a text", {})
    parameters = dict.fromkeys(handler.PARAMETERS, 1)
    assert endpoint({"inputs": ["a", "b"], "parameters": parameters})[2:] == (["a", "b"], parameters)
    assert endpoint({"inputs": "a", "parameters": None})[3] == {}
    assert handler.EndpointHandler()({"inputs": "a"})[1]["model"] == ""


def test_the_parameters_that_pass_are_those_of_labels_and_beams(endpoint):
    names = {
        "top_k",
        "return_attention",
        "num_beams",
        "set_decoding",
        "label_threshold",
        "min_labels",
        "max_labels",
        "allowed_labels",
        "forbidden_labels",
        "required_labels",
        "label_hierarchy",
        "lexical_weight",
        "hypothesis_temperature",
        "label_calibration",
        "lexical_bias",
        "lexical_share",
    }
    assert endpoint({"inputs": "a", "parameters": dict.fromkeys(names, 1)})[3] == dict.fromkeys(names, 1)
    assert set(handler.PARAMETERS) == names


@pytest.mark.parametrize("num_beams", [1, 2, 64])
def test_beams_up_to_the_greatest_number_pass(endpoint, num_beams):
    assert endpoint({"inputs": "a", "parameters": {"num_beams": num_beams}})[3] == {"num_beams": num_beams}


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"text": "a", "b": 1}, ValueError, r"keys \['b', 'text'\]; expected \"inputs\""),
        ({"inputs": 3}, TypeError, "inputs is of type int"),
        ({"inputs": "a", "parameters": [1]}, TypeError, "parameters is of type list"),
        ({"inputs": "a", "parameters": {"b": 1, "a": 2}}, ValueError, r"Unknown parameters \['a', 'b'\]; .* top_k"),
        ({"inputs": "a", "parameters": {"num_beams": 0}}, ValueError, "num_beams is 0; expected 1 to 64"),
        ({"inputs": "a", "parameters": {"num_beams": 65}}, ValueError, "num_beams is 65"),
        ({"inputs": "a", "parameters": {"num_beams": "5"}}, ValueError, "num_beams is '5'"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(endpoint, request_, error, message):
    with pytest.raises(error, match=message):
        endpoint(request_)


@pytest.fixture
def images(endpoint):
    """The same of a model that reads images."""
    endpoint.classifier.reads_images = True
    return endpoint


def test_images_come_in_base64(images):
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (9, 8, 7)).save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    url = f"data:image/any;base64,{encoded}"
    assert images({"inputs": [encoded, f"data:image/png;base64,{encoded}"]})[2] == [url, url]
    assert images({"inputs": encoded})[2] == url
    assert open_image(url).getpixel((0, 0)) == (9, 8, 7)


def test_no_path_or_address_of_a_stranger_is_opened(images, tmp_path, monkeypatch):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    for given in (
        str(tmp_path / "a.png"),
        "a.png",
        "http://localhost/a.png",
        "file:///a.png",
        "data:image/png,a.b",
        7,
    ):
        with pytest.raises(ValueError, match="is no image file in Base64"):
            images({"inputs": [given]})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").rename("AAAA")
    with pytest.raises(ValueError, match="cannot identify image file"):  # the four bytes, not the file of this name
        open_image(images({"inputs": "AAAA"})[2])
