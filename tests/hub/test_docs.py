"""Every block of docs/hub.md runs, in its order, for a user who has a CSV file."""

import csv
import random
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(bash|python)( no-package)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SMALL = shlex.split("--num_train_epochs 1 --disable_tqdm true --num_threads 1")
SIZES = shlex.split("--embedding_size 8 --encoder_hidden_size 8 --decoder_hidden_size 8")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where the user works, with my.csv."""
    generator = random.Random(0)
    topics = {"money": "bank loan stock", "law": "court judge trial"}
    with open(tmp_path / "my.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "labels"])
        for _ in range(40):
            chosen = [topic for topic in topics if generator.random() < 0.6]
            rows.writerow(
                [" ".join(["the", *(generator.choice(topics[t].split()) for t in chosen)]), "|".join(chosen)]
            )
    return tmp_path


def test_every_block_of_the_page_runs(hub, me, stranger, folder):
    users = {"": me, " no-package": stranger}
    blocks = BLOCK.findall((ROOT / "docs" / "hub.md").read_text(encoding="utf-8"))
    assert len(blocks) == 7
    for language, kind, code in blocks:
        if language == "bash":  # in the user's process, which spares the start of another
            command, *words = shlex.split(code)
            assert command == "sgm-hf"
            if words[0] == "train":
                words += SMALL if "--model_name_or_path" in words else [*SMALL, *SIZES]
            code = f"from sgm_hf.cli import run_command; run_command({words!r})"
        users[kind].call("run_code", code=code, folder=str(folder))
    pushed = set(hub.files("me/topics"))
    assert {"README.md", "model.safetensors", "summary.txt", "handler.py"} <= pushed
    assert not any("lexical_folds" in name for name in pushed)  # large, and of no use but to resume
    assert set(hub.files("me/parts")) == set(hub.files("me/pipeline"))
    assert "# Generated multi-label corpus" in hub.files("me/generated", kind="dataset")["README.md"].decode()
