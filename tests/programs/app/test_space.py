import json
import platform
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from huggingface_hub import SpaceCard
from random_model import TEXTS, build_pipeline

from sgm_hf.cli import main

app = pytest.importorskip("sgm_hf.programs.app")
NUM_EXAMPLES = 5


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A Space, with the pipeline whose model is in it."""
    folder = tmp_path_factory.mktemp("space")
    classifier = build_pipeline()
    classifier.model.save_pretrained(folder / "source")
    classifier.tokenizer.save_pretrained(folder / "source")
    (folder / "source" / "checkpoint-1").mkdir()
    (folder / "examples.txt").write_text("\n".join(TEXTS * 3), encoding="utf-8")
    main(
        [
            "space",
            str(folder / "source"),
            str(folder / "made"),
            *("--title", 'News: "oil" # <b>'),
            *("--examples", str(folder / "examples.txt")),
        ]
    )
    return folder / "made", classifier


# Prints what the page of the Space in the working directory is made of.
READ_SPACE = """
import json, sys
import runpy
import sgm_hf, sgm_hf.modeling
from sgm_hf.programs.app import page
served, build = {}, page.build_page
def build_page(predictor, examples, title):
    served.update(predictor=predictor, examples=examples)
    return build(predictor, examples, title)
page.build_page = build_page
page.gr.Blocks.launch = lambda page, **options: (served.update(title=page.title), "", "")
page.gr.Blocks.block_thread = lambda page: None
runpy.run_path("app.py", run_name="__main__")
print(json.dumps({
    "files": [sgm_hf.__file__, sgm_hf.modeling.__file__],
    "title": served["title"],
    "examples": served["examples"],
    "predictions": served["predictor"].predict(json.loads(sys.argv[1]), 3, "best_sequence", 0.5)[0],
}))
"""


def test_a_space_runs_by_itself_with_its_own_files(space):
    folder, classifier = space
    command = [sys.executable, "-B", "-c", READ_SPACE, json.dumps(TEXTS)]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    assert found["files"] == [str(folder / "sgm_hf/__init__.py"), str(folder / "sgm_hf/modeling/__init__.py")]
    assert found["title"] == 'News: "oil" # <b>'
    assert found["examples"] == (TEXTS * 3)[:NUM_EXAMPLES]
    expected = classifier(TEXTS, num_beams=3)
    assert [[entry["label"] for entry in answer] for answer in found["predictions"]] == [
        [entry["label"] for entry in answer] for answer in expected
    ]


def test_the_card_says_how_the_space_is_run(space):
    card = SpaceCard.load(space[0] / "README.md")
    assert card.data.sdk == "gradio"
    assert card.data.sdk_version == version("gradio")
    assert card.data.app_file == "app.py"
    assert card.data.title == 'News: "oil" # <b>'
    assert card.data.python_version == ".".join(platform.python_version_tuple()[:2])


def test_a_space_installs_what_the_library_needs_and_no_more(space):
    lines = (space[0] / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {re.match(r"[\w.-]+", line)[0] for line in lines}
    assert {"torch", "transformers", "datasets"} <= names
    assert not {"pytest", "gradio", "matplotlib", "sgm_hf"} & names


def test_a_space_has_no_more_than_it_needs(space):
    folder, _ = space
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "app.py", "examples.jsonl", "model", "requirements.txt", "sgm_hf", "title.txt"),
    }
    assert "checkpoint-1" not in {path.name for path in (folder / "model").iterdir()}
    assert not list(folder.rglob("*.pyc"))


def test_a_folder_in_use_is_left_as_it_is(space, tmp_path):
    (tmp_path / "mine").write_text("kept", encoding="utf-8")
    with pytest.raises(FileExistsError, match="in use"):
        app.make_space(str(space[0] / "model"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_wrong_model_or_file_of_examples_leaves_no_folder(space, tmp_path):
    with pytest.raises(FileNotFoundError):
        app.make_space(str(tmp_path / "nowhere"), tmp_path / "space")
    with pytest.raises(FileNotFoundError):
        app.make_space(str(space[0] / "model"), tmp_path / "space", examples=tmp_path / "none.csv")
    assert not (tmp_path / "space").exists()
