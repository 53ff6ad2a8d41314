import os
from pathlib import Path

import pytest

from sgm_hf.training.checkpoints import last_complete_checkpoint, write_text_atomically


def make_checkpoint(folder: Path, update: int, state: str | None = "{}") -> None:
    checkpoint = folder / f"checkpoint-{update}"
    checkpoint.mkdir()
    if state is not None:
        (checkpoint / "trainer_state.json").write_text(state)


def test_the_last_checkpoint_is_that_of_the_most_updates_that_is_complete(tmp_path):
    make_checkpoint(tmp_path, 90)
    make_checkpoint(tmp_path, 100)
    make_checkpoint(tmp_path, 110, state=None)
    make_checkpoint(tmp_path, 120, state='{"epoch": 1')
    make_checkpoint(tmp_path, 130, state="")
    (tmp_path / "checkpoint-last").mkdir()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")


def test_no_complete_checkpoint_is_an_error_that_names_the_folder(tmp_path):
    make_checkpoint(tmp_path, 5, state=None)
    with pytest.raises(FileNotFoundError, match=r"no complete checkpoint.*1 incomplete"):
        last_complete_checkpoint(tmp_path)


def test_a_write_that_fails_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text_atomically(path, "old")

    def fail(source, target):
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="killed"):
        write_text_atomically(path, "new")
    assert path.read_text() == "old"
