#!/usr/bin/env python
"""Make a Space of a model: a folder that runs on its own and can be pushed to the Hub as it is.

    python examples/make_space.py runs/mine space --title "Topics of news" --examples texts.jsonl
    cd space && python app.py                                    # what the Space does
    hf upload USER/NAME space --repo-type space --private        # makes the Space

The folder has `app.py`, the model, title and example texts, `requirements.txt`, a `README.md` with the settings of
the Space, and a copy of the library: a Space installs the packages of requirements.txt before its own files are there,
so it could not install the library from them.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import requires, version
from pathlib import Path

import app
from huggingface_hub import SpaceCard, SpaceCardData

import sgm_hf
from sgm_hf import datasets_scripts, modeling
from sgm_hf.programs import run_main

README = """
# {title}

Generates the labels of a text one by one, shows their scores and what each label looked at, and labels whole files.

Made by `make_space.py` of sgm_hf. `python app.py` starts the page on your own machine.
"""


def space_requirements() -> list[str]:
    """The library's dependencies; the page's own, Gradio, is a setting of the Space."""
    return [line for line in requires("sgm_hf") or [] if "extra ==" not in line]


def copy_library(folder: Path) -> None:
    """Copy the library in its installed layout: a checkout has modeling and datasets_scripts elsewhere."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(sgm_hf.__file__).parent, folder / "sgm_hf", ignore=ignored, dirs_exist_ok=True)
    for package in (modeling, datasets_scripts):
        name = package.__name__.rpartition(".")[2]
        shutil.copytree(Path(package.__file__).parent, folder / "sgm_hf" / name, ignore=ignored, dirs_exist_ok=True)


def make_space(model: str, folder: Path, title: str = app.TITLE, examples: Path | None = None) -> None:
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
    documents = app.read_documents(examples)[: app.NUM_EXAMPLES] if examples else []
    classifier = app.load_predictor(model).classifier
    folder.mkdir(parents=True, exist_ok=True)
    classifier.model.save_pretrained(folder / "model")
    classifier.tokenizer.save_pretrained(folder / "model")
    copy_library(folder)
    shutil.copyfile(app.__file__, folder / "app.py")
    (folder / "title.txt").write_text(title + "\n", encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(space_requirements()) + "\n", encoding="utf-8")
    if documents:
        lines = [json.dumps({"id": document.id, "text": document.text}) for document in documents]
        (folder / "examples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version="3.11",
        app_file="app.py",
        tags=["sgm_hf", "multi-label-classification"],
    )
    content = f"---\n{settings.to_yaml()}\n---\n{README.format(title=title)}"
    SpaceCard(content, ignore_metadata_errors=False).save(folder / "README.md")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="Folder of a model, or its name on the Hub.")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="The Space's folder; new or empty.")
    parser.add_argument("--title", default=app.TITLE, help="Heading of the page and title of the Space.")
    parser.add_argument("--examples", type=Path, help="File of texts to try (.txt, .csv, .jsonl, …).")
    settings = parser.parse_args(arguments)
    make_space(settings.model, settings.folder, settings.title, settings.examples)
    print(f"{settings.folder} is ready: hf upload USER/NAME {settings.folder} --repo-type space")


if __name__ == "__main__":
    run_main(main)
