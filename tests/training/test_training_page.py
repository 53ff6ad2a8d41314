"""Every block of docs/training.md runs, one after the other."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_every_block_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert set(names["best"].hyperparameters) == {"learning_rate"}
    assert 0 < names["metrics"]["eval_old_micro_f1"] <= 1
    assert names["trainer"].state.global_step == 10
    assert (tmp_path / "runs" / "search" / "run-1").is_dir()
