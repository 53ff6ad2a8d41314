import subprocess
import sys
from pathlib import Path

import pytest
import torch
from two_processes import train_and_predict


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
def test_two_processes_train_and_predict_as_one_process_that_accumulates_two_batches(tmp_path):
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    run = subprocess.run([*command, str(tmp_path / "two")], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    two = torch.load(tmp_path / "two" / "result.pt")
    one = train_and_predict(str(tmp_path / "one"), accumulation=2)
    assert (one["processes"], two["processes"]) == (1, 2)
    for training in ("weights", "self_critical_weights"):
        for name, tensor in one[training].items():
            torch.testing.assert_close(two[training][name], tensor, atol=1e-6, rtol=1e-5)
    assert two["best_sequences"] == one["best_sequences"]
    torch.testing.assert_close(two["label_scores"], one["label_scores"])
    assert two["micro_f1"] == one["micro_f1"]
