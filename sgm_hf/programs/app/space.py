"""Make a Space of a model: a folder that runs on its own and can be pushed to the Hub as it is.

The folder has `app.py`, the model, title and example texts, `requirements.txt`, a `README.md` with the settings of
the Space, and a copy of the library: a Space installs the packages of requirements.txt before its own files are there,
so it could not install the library from them.
"""

import json
import shutil
import sys
from importlib.metadata import requires, version
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData

import sgm_hf
from sgm_hf import datasets_scripts, modeling
from sgm_hf.programs.app.page import NUM_EXAMPLES, TITLE
from sgm_hf.programs.app.predictor import load_predictor, read_documents

README = """
# {title}

Generates the labels of a text one by one, shows their scores and what each label looked at, and labels whole files.

Made by `sgm-hf space`. `python app.py` starts the page on your own machine.
"""


APP = '''"""The page of this Space: `python app.py` starts it on your own machine."""

from pathlib import Path

from sgm_hf.programs.app import serve

HERE = Path(__file__).parent
EXAMPLES = HERE / "examples.jsonl"

if __name__ == "__main__":
    title = (HERE / "title.txt").read_text(encoding="utf-8").strip()
    serve(str(HERE / "model"), EXAMPLES if EXAMPLES.is_file() else None, title)
'''


def space_requirements() -> list[str]:
    """The library's dependencies; the page's own, Gradio, is a setting of the Space."""
    return [line for line in requires("sgm_hf") or [] if "extra ==" not in line]


def copy_library(folder: Path) -> None:
    """Copy the library in its installed layout: a checkout has modeling and datasets_scripts elsewhere."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(str(sgm_hf.__file__)).parent, folder / "sgm_hf", ignore=ignored, dirs_exist_ok=True)
    for package in (modeling, datasets_scripts):
        name = package.__name__.rpartition(".")[2]
        shutil.copytree(
            Path(str(package.__file__)).parent, folder / "sgm_hf" / name, ignore=ignored, dirs_exist_ok=True
        )


def make_space(model: str, folder: Path, title: str = TITLE, examples: Path | None = None) -> None:
    """Write the folder of a Space.

    Args:
        model: Folder of a model, or its name on the Hub.
        folder: The Space's folder, new or empty.
        title: Heading of the page and title of the Space.
        examples: File of texts to try.

    Raises:
        FileExistsError: If the folder is not empty.
        FileNotFoundError: If there is no such model or no such file of examples.
        ValueError: If the file of examples cannot be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is in use; give a folder that is new or empty.")
    documents = read_documents(examples)[:NUM_EXAMPLES] if examples else []
    classifier = load_predictor(model).classifier
    folder.mkdir(parents=True, exist_ok=True)
    classifier.model.save_pretrained(folder / "model")
    classifier.tokenizer.save_pretrained(folder / "model")
    copy_library(folder)
    (folder / "app.py").write_text(APP, encoding="utf-8")
    (folder / "title.txt").write_text(title + "\n", encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(space_requirements()) + "\n", encoding="utf-8")
    if documents:
        lines = [json.dumps({"id": document.id, "text": document.text}) for document in documents]
        (folder / "examples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        tags=["sgm_hf", "multi-label-classification"],
    )
    content = f"---\n{settings.to_yaml()}\n---\n{README.format(title=title)}"
    SpaceCard(content, ignore_metadata_errors=False).save(folder / "README.md")
