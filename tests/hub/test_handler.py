"""handler.py of a pushed repository, called as the platform of Inference Endpoints does."""

import ast
from pathlib import Path

import pytest
from client import TEXTS
from client_process import ClientError

HANDLER = Path(__file__).parents[2] / "modeling" / "handler.py"


@pytest.fixture
def platform(stranger):
    """The platform: it has the repository's files, Transformers, and no sgm_hf."""
    return stranger


@pytest.fixture(scope="module")
def folder(stranger, published) -> str:
    return stranger.call("download", model=published)


def test_a_request_gets_the_answer_of_the_publishers_pipeline(platform, me, folder, checkpoint):
    expected = me.call("predict", model=checkpoint)
    assert platform.call("handle", folder=folder, request={"inputs": TEXTS}) == expected["sets"]
    every = {"inputs": TEXTS, "parameters": {"top_k": None}}
    assert platform.call("handle", folder=folder, request=every) == expected["scores"]
    looked_at = {"inputs": TEXTS[0], "parameters": {"return_attention": True}}
    assert platform.call("handle", folder=folder, request=looked_at) == expected["attention"]


def test_parameters_reach_generate(platform, folder):
    parameters = {"required_labels": ["wheat"], "max_labels": 1, "num_beams": 2}
    answer = platform.call("handle", folder=folder, request={"inputs": TEXTS[0], "parameters": parameters})
    assert [entry["label"] for entry in answer] == ["wheat"]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"text": "oil"}, 'ValueError: .*expected "inputs"'),
        ({"inputs": {"text": "oil"}}, "TypeError: inputs is of type dict"),
        ({"inputs": ["oil", 3]}, "TypeError: Input 1 is 3 of type int"),
        ({"inputs": "oil", "parameters": ["top_k"]}, "TypeError: parameters is of type list"),
        ({"inputs": "oil", "parameters": {"custom_generate": "me/evil"}}, "Unknown parameters .'custom_generate'."),
        ({"inputs": "oil", "parameters": {"trust_remote_code": True}}, "Unknown parameters .'trust_remote_code'."),
        ({"inputs": "oil", "parameters": {"num_beams": 10**9}}, "num_beams is 1000000000; expected 1 to 64"),
        ({"inputs": "oil", "parameters": {"num_beams": "5"}}, "num_beams is '5'; expected 1 to 64"),
        ({"inputs": "oil", "parameters": {"allowed_labels": ["rice"]}}, "rice"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(platform, folder, request_, error):
    with pytest.raises(ClientError, match=error):
        platform.call("handle", folder=folder, request=request_)


def test_a_text_of_five_megabytes_is_cut_and_answered(platform, folder):
    answer = platform.call("handle", folder=folder, request={"inputs": "oil rose " * 600_000})
    assert answer == platform.call("handle", folder=folder, request={"inputs": "oil rose " * 400})


def test_requests_at_the_same_time_get_their_own_answers(platform, folder):
    answers = platform.call("handle_together", folder=folder, requests=[{"inputs": text} for text in TEXTS[:2] * 8])
    alone = [platform.call("handle", folder=folder, request={"inputs": text}) for text in TEXTS[:2]]
    assert alone[0] != alone[1]
    assert answers == alone * 8


def test_the_file_stands_alone():
    imports = [node for node in ast.walk(ast.parse(HANDLER.read_text())) if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 0 and node.module in ("typing", "transformers") for node in imports)
