"""Every block of docs/hub.md runs, in its order, for a user who has a CSV file."""

import csv
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(bash|python)( no-package)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SMALL = "--num_train_epochs 1 --disable_tqdm true --num_threads 1"
SIZES = "--embedding_size 8 --encoder_hidden_size 8 --decoder_hidden_size 8"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where the user works: the examples, and my.csv."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
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


def test_every_block_of_the_page_runs(hub, start, bare_python, folder):
    users = {"": start(), " no-package": start(bare_python, token=None)}
    blocks = BLOCK.findall((ROOT / "docs" / "hub.md").read_text(encoding="utf-8"))
    assert len(blocks) == 7
    for language, kind, code in blocks:
        if language == "python":
            users[kind].call("run_code", code=code, folder=str(folder))
            continue
        small = f" {SMALL}{'' if '--model_name_or_path' in code else f' {SIZES}'}" if "sgm-hf train" in code else ""
        command = code.strip().replace("python", sys.executable, 1) + small
        command = re.sub("^sgm-hf", f"{sys.executable} -m sgm_hf", command)
        environment = users[""].environment
        finished = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert finished.returncode == 0, finished.stderr[-3000:]
    pushed = set(hub.files("me/topics"))
    assert {"README.md", "model.safetensors", "summary.txt", "handler.py"} <= pushed
    assert not any("lexical_folds" in name for name in pushed)  # large, and of no use but to resume
    assert set(hub.files("me/parts")) == set(hub.files("me/pipeline"))
    assert "# Generated multi-label corpus" in hub.files("me/generated", kind="dataset")["README.md"].decode()
