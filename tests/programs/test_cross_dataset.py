"""examples/cross_dataset.py: two corpora with the labels that they share."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from sgm_hf.datasets_scripts import load
from sgm_hf.programs.studies import Study, read_study, refuse_faulty_settings

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(labels, folder, monkeypatch):
    """Run the example with the labels of two corpora, both the generated one."""
    settings = folder / "labels.json"
    settings.write_text(json.dumps([{"name": "generated", "labels": one} for one in labels]), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["cross_dataset", str(settings), "--output_dir", str(folder / "files")])
    runpy.run_path(str(EXAMPLES / "cross_dataset.py"), run_name="__main__")
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (folder / "files").iterdir()
    }


def test_documents_keep_the_labels_that_take_part_by_their_shared_names(tmp_path, monkeypatch):
    corpus = load("generated")
    names = corpus["train"].features["labels"].feature.names
    both, other = {names[0]: "x", names[1]: "x", names[2]: "y"}, {names[3]: "x", names[4]: "y"}
    files = run([both, other], tmp_path, monkeypatch)
    parts = {"train": (["train"], both), "own_test": (["test"], both), "test": (list(corpus), other)}
    assert files.keys() == parts.keys()
    for part, (splits, shared) in parts.items():
        expected = []
        for document in (document for split in splits for document in corpus[split]):
            labels = {shared[names[label]] for label in document["labels"] if names[label] in shared}
            if labels:
                expected.append((document["text"], sorted(labels)))
        assert [(one["text"], one["labels"]) for one in files[part]] == expected != []


def test_a_label_that_the_corpus_lacks_ends_it_with_its_name(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run([{"no such": "x"}, {}], tmp_path, monkeypatch)
    assert "label 'no such'; the corpus has" in capsys.readouterr().err
    assert not (tmp_path / "files").exists()


def test_the_settings_that_are_there_name_the_same_labels_and_the_study_is_sound(tmp_path):
    first, second = json.loads((EXAMPLES / "cross_dataset" / "labels.json").read_text(encoding="utf-8"))
    assert set(first["labels"].values()) == set(second["labels"].values())
    study = Study(read_study(EXAMPLES / "cross_dataset" / "study.json"), tmp_path)
    refuse_faulty_settings(study.runs())
