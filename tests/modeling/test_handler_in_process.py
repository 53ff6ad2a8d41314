"""What the handler of an endpoint passes on and refuses, in this process; tests/hub runs it as the platform does."""

import pytest

from sgm_hf.modeling import handler


@pytest.fixture
def endpoint(monkeypatch):
    """A handler whose pipeline answers with what it was given."""

    def make_pipeline(task, **options):
        return lambda inputs, **parameters: (task, options, inputs, parameters)

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
