import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sgm_hf.training import checkpoints
from sgm_hf.training.checkpoints import (
    LOCK,
    alone_in,
    begin_checkpoint,
    chosen_checkpoint,
    fault_of,
    find_checkpoint,
    finish_checkpoint,
    has_complete_checkpoint,
    is_unused,
    last_complete_checkpoint,
    leftovers,
    remove_leftovers,
    write_text_atomically,
)

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "config.json", "trainer_state.json")
HOLD = """
import sys, time
from sgm_hf.training.checkpoints import alone_in
with alone_in(sys.argv[1]):
    print("in", flush=True)
    time.sleep(60)
"""


def make_checkpoint(folder: Path, update: int, recorded: bool = True) -> Path:
    """A complete checkpoint; without its record it is as older versions wrote it."""
    checkpoint = folder / f"checkpoint-{update}"
    if recorded:
        begin_checkpoint(checkpoint)
    checkpoint.mkdir(exist_ok=True)
    save_file({"weight": torch.ones(10)}, checkpoint / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.arange(100)}, checkpoint / name)
    (checkpoint / "config.json").write_text('{"size": 1}')
    if recorded:
        finish_checkpoint(checkpoint, {"fingerprint": {}})
    (checkpoint / "trainer_state.json").write_text('{"epoch": 1}')
    return checkpoint


def test_the_last_checkpoint_is_that_of_the_most_updates_that_is_complete(tmp_path, caplog):
    for update in (90, 100, 110, 120, 130, 140):
        make_checkpoint(tmp_path, update)
    (tmp_path / "checkpoint-110" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-120" / "trainer_state.json").write_text('{"epoch": 1')
    (tmp_path / "checkpoint-130" / "trainer_state.json").write_text("")
    (tmp_path / "checkpoint-140" / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-150").write_text("a file")
    (tmp_path / "checkpoint-last").mkdir()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")
    skipped = [message for message in caplog.messages if "is skipped" in message]
    assert ["checkpoint-140" in skipped[0], "optimizer.pt is missing" in skipped[0]] == [True, True]
    assert len(skipped) == 4


def test_no_complete_checkpoint_is_an_error_that_names_the_folder(tmp_path):
    begin_checkpoint(tmp_path / "checkpoint-5")
    with pytest.raises(FileNotFoundError, match=r"no complete checkpoint.*1 incomplete; checkpoint-5: .*cut off"):
        last_complete_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        find_checkpoint(True, tmp_path / "never made")
    assert not has_complete_checkpoint(tmp_path)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_without_one_of_its_files_is_incomplete(tmp_path, name, recorded):
    checkpoint = make_checkpoint(tmp_path, 5, recorded)
    assert fault_of(checkpoint) is None
    (checkpoint / name).unlink()
    if recorded or name != "config.json":
        assert fault_of(checkpoint) == f"{name} is missing"
        with pytest.raises(ValueError, match=f"not a complete checkpoint to resume from: {name} is missing"):
            find_checkpoint(str(checkpoint), tmp_path)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [0, 7, -1])
def test_a_checkpoint_with_a_file_cut_short_is_incomplete(tmp_path, name, size, recorded):
    checkpoint = make_checkpoint(tmp_path, 5, recorded)
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(content[:size])
    assert name in fault_of(checkpoint)
    with pytest.raises(ValueError, match=name):
        find_checkpoint(str(checkpoint), tmp_path)


def test_a_checkpoint_with_flipped_bytes_is_incomplete(tmp_path):
    checkpoint = make_checkpoint(tmp_path, 5)
    content = bytearray((checkpoint / "optimizer.pt").read_bytes())
    middle = content.index(torch.arange(100).numpy().tobytes()) + 50
    content[middle] ^= 255
    (checkpoint / "optimizer.pt").write_bytes(content)
    assert "optimizer.pt is damaged" in fault_of(checkpoint)


def test_a_missing_random_state_of_one_of_several_processes_is_noticed(tmp_path):
    checkpoint = make_checkpoint(tmp_path, 5)
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    torch.save({}, checkpoint / "rng_state_1.pth")
    finish_checkpoint(checkpoint, {})
    assert fault_of(checkpoint) is None
    (checkpoint / "rng_state_1.pth").unlink()
    assert fault_of(checkpoint) == "rng_state_1.pth is missing"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *(("false", False), ("False", False), ("no", False), (None, False), (False, False), ("", False)),
        *(("true", True), ("True", True), (True, True), ("runs/checkpoint-5", "runs/checkpoint-5")),
    ],
)
def test_false_means_no_and_true_the_last_checkpoint(given, meant):
    assert chosen_checkpoint(given) == meant


def test_a_checkpoint_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"checkpoint-9 to resume from does not exist"):
        find_checkpoint(str(tmp_path / "checkpoint-9"), tmp_path)
    (tmp_path / "checkpoint-77").write_text("")
    with pytest.raises(ValueError, match="checkpoint-77 .*it is not a folder"):
        find_checkpoint(str(tmp_path / "checkpoint-77"), tmp_path)


def test_a_write_that_fails_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text_atomically(path, "old")

    def fail(source, target):
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="killed"):
        write_text_atomically(path, "new")
    assert path.read_text() == "old"
    remove_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path):
    make_checkpoint(tmp_path, 10)
    make_checkpoint(tmp_path, 20, recorded=False)
    (make_checkpoint(tmp_path, 30) / "optimizer.pt").unlink()
    for name in ("notes.txt", "data.part", "checkpoint-last"):
        (tmp_path / name).write_text("mine")
    kept = {path.name for path in tmp_path.iterdir()}
    begin_checkpoint(tmp_path / "checkpoint-40")
    for name in ("_saving-abc", ".saving-abc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training_args.bin").write_text("secret")
    (tmp_path / "_summary.json.part").write_text("{")
    assert len(leftovers(tmp_path)) == 4
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_checkpoint_whose_record_is_damaged_is_no_leftover(tmp_path):
    checkpoint = make_checkpoint(tmp_path, 5)
    (checkpoint / "checkpoint.json").write_text('{"files"')
    remove_leftovers(tmp_path)
    assert "checkpoint.json cannot be read" in fault_of(checkpoint)


def test_a_leftover_that_is_gone_already_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "leftovers", lambda folder: [Path(folder, "_gone.part"), Path(folder, "_x.part")])
    (tmp_path / "_x.part").write_text("")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_unused_if_it_holds_nothing_that_someone_would_miss(tmp_path):
    assert is_unused(tmp_path) and is_unused(tmp_path / "never made")
    with alone_in(tmp_path / "deep" / "run") as _, alone_in(tmp_path):
        begin_checkpoint(tmp_path / "deep" / "run" / "checkpoint-5")
        assert is_unused(tmp_path / "deep" / "run") and not is_unused(tmp_path)
    make_checkpoint(tmp_path / "deep" / "run", 5)
    assert not is_unused(tmp_path / "deep" / "run")


def test_a_folder_in_use_by_another_process_is_refused_until_that_process_is_killed(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(FileExistsError, match=rf"run is in use by process {other.pid} on .*another output_dir"):
            with alone_in(folder):
                pass
        other.send_signal(signal.SIGKILL)
    assert (folder / LOCK).exists()
    with alone_in(folder), alone_in(folder):
        assert str(os.getpid()) in (folder / LOCK).read_text()
    assert not folder.exists()


def test_a_folder_that_was_written_to_stays_without_its_lock(tmp_path):
    with alone_in(tmp_path / "run"):
        (tmp_path / "run" / "result").write_text("")
    assert os.listdir(tmp_path / "run") == ["result"]


def test_the_record_lists_every_file_but_the_state(tmp_path):
    record = json.loads((make_checkpoint(tmp_path, 5) / "checkpoint.json").read_text())
    assert set(record["files"]) == set(FILES) - {"trainer_state.json"}


def test_two_processes_that_write_one_file_at_once_both_succeed(tmp_path, monkeypatch):
    path, replace, own = tmp_path / "study.json", os.replace, os.getpid()

    def other_process_first(source, target):
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(os, "getpid", lambda: own + 1)
        write_text_atomically(path, "theirs")
        replace(source, target)

    monkeypatch.setattr(os, "replace", other_process_first)
    write_text_atomically(path, "ours")
    assert path.read_text() == "ours"
    assert [file.name for file in tmp_path.iterdir()] == ["study.json"]


def test_a_write_reaches_the_disk_before_it_replaces_the_old_file(tmp_path, monkeypatch):
    path, events = tmp_path / "results.json", []
    write_text_atomically(path, "old")
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append(("sync", os.fstat(file).st_size)), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (events.append(("replace", path.read_text())), replace(*names)))
    write_text_atomically(path, "né")
    assert events == [("sync", 3), ("replace", "old")]
    assert path.read_bytes() == "né".encode()
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
