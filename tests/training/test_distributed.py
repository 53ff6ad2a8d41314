import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.commands.config import load_config_from_file
from tiny_training import NUM_LABELS, NUM_WORDS, make_documents, make_model
from two_processes import train_and_predict

from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.training import SamplingArguments, SelfCriticalTrainer
from sgm_hf.training.checkpoints import is_complete
from sgm_hf.training.lexical import LexicalSettings, fit_lexical_branch

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
EXAMPLES = Path(__file__).parents[2] / "examples"


def run_two_processes(script, folder):
    """Start a script of this folder twice, as torchrun does; what it writes comes before the launcher's own report."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(Path(__file__).with_name(script)), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found: one start of both for several tests."""
    folder = tmp_path_factory.mktemp("two")
    run = run_two_processes("two_processes.py", folder)
    assert run.returncode == 0, run.stderr[-20000:]
    return torch.load(folder / "result.pt")


def test_two_processes_train_and_predict_as_one_process_that_accumulates_two_batches(two, tmp_path):
    one = train_and_predict(str(tmp_path / "one"), accumulation=2)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert torch.equal(*two["weights_of_all"])
    assert torch.equal(*two["mixed_precision_weights_of_all"])
    assert two["mixed_precision_weights_of_all"].isfinite().all()
    for training in ("weights", "rare_label_weights", "encoder_weights", "self_critical_weights"):
        for name, tensor in one[training].items():
            torch.testing.assert_close(two[training][name], tensor, atol=1e-6, rtol=1e-5)
    assert two["best_sequences"] == one["best_sequences"]
    torch.testing.assert_close(two["label_scores"], one["label_scores"])
    assert two["micro_f1"] == one["micro_f1"]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    # The loss of one process was infinite: both stop before the update, with the same words.
    assert len(two["divergence"]) == 2 and two["divergence"][0] == two["divergence"][1]
    assert two["divergence"][0].startswith("update 5: the loss is inf")


def test_two_processes_begin_with_the_same_word_vectors(two):
    first, second = two["vectors"]
    assert torch.equal(first, second)
    assert first[1:].abs().sum(1).min() > 0


def test_two_processes_have_one_branch_one_choice_of_folds_and_one_calibration(two):
    first, second = two["branch"]
    assert first == second
    settings = LexicalSettings(cost=1.0, bigram_weight=0.5, max_bigrams=20, seed=42)
    alone = fit_lexical_branch(make_documents(61), NUM_WORDS, NUM_LABELS, settings)
    assert first["folds"] == alone.folds.tolist()
    for name, tensor in alone.branch().state_dict().items():
        torch.testing.assert_close(torch.tensor(first["branch"][name]), tensor, msg=name)
    assert first["decoder"] != [1.0] * 8  # trained


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch cannot spread a model over CPUs")
def test_a_model_spread_over_two_processes_trains_as_a_whole_one(tmp_path):
    run = run_two_processes("two_sharded_processes.py", tmp_path)
    assert run.returncode == 0, run.stderr[-20000:]
    result = torch.load(tmp_path / "result.pt")
    saved = result.pop("saved", None)
    for kind, found in result.items():
        assert found["local_size"] < 0.6 * found["whole_size"], kind
        assert found["whole"].keys() == found["spread"].keys()
        for name, expected in found["whole"].items():
            torch.testing.assert_close(found["spread"][name], expected, atol=1e-6, rtol=1e-5, msg=f"{kind} {name}")
    if saved is None:  # there is no peft
        return
    trained = [name for name in result["adapters"]["whole"] if name.startswith("encoder.")]
    assert trained and all("lora_" in name for name in trained)
    for name, expected in saved["whole"].items():
        assert torch.equal(saved["loaded"][name], expected), name
    model = SGMForMultiLabelGeneration.from_pretrained(tmp_path).state_dict()
    assert model.keys() == saved["merged"].keys()
    assert all(torch.equal(model[name], expected) for name, expected in saved["merged"].items())


def test_a_failing_process_ends_the_others_and_leaves_whole_checkpoints(tmp_path):
    start = time.monotonic()
    run = run_two_processes("two_processes_one_dies.py", tmp_path)
    assert run.returncode != 0
    assert time.monotonic() - start < 120
    assert "returned a number that is not finite" in run.stderr
    checkpoints = sorted(tmp_path.glob("checkpoint-*"))
    assert [path.name for path in checkpoints] == ["checkpoint-2", "checkpoint-4"]
    assert all(map(is_complete, checkpoints))
    assert (checkpoints[-1] / "rng_state_1.pth").exists()
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "eval_strategy": "no"}
    arguments = SamplingArguments(tmp_path, **settings, use_cpu=True, disable_tqdm=True)
    trainer = SelfCriticalTrainer(make_model(), arguments, train_dataset=make_documents(60))
    with pytest.raises(ValueError, match="processes: 2 → 1"):  # its batches would be others
        trainer.train(resume_from_checkpoint=True)


def test_a_signal_to_one_process_ends_all_after_the_same_update_with_a_checkpoint(tmp_path):
    run = run_two_processes("two_processes_interrupted.py", tmp_path)
    assert run.returncode != 0
    assert "143" in run.stderr  # the launcher names its processes' exit codes
    assert sorted(run.stdout.split("\n")[:2]) == ["process 0 ended after 3", "process 1 ended after 3"]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert is_complete(tmp_path / "checkpoint-3")
    assert run.stderr.count("checkpoint-3 is saved in") == 1


def test_accelerate_launches_two_processes_with_our_configuration():
    # Both processes write to one pipe: a line has to be one write.
    script = (
        "import os, torch.distributed; from accelerate import PartialState; state = PartialState(cpu=True);"
        "os.write(1, f'process {state.process_index} of {state.num_processes}\\n'.encode());"
        "torch.distributed.destroy_process_group()"
    )
    config = EXAMPLES / "configs" / "accelerate" / "multi_gpu.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    run = subprocess.run(
        [*command, "--no_python", sys.executable, "-c", script],
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-20000:]
    assert sorted(run.stdout.split("\n")) == ["", "process 0 of 2", "process 1 of 2"]


@pytest.mark.parametrize("name", ["multi_gpu", "fsdp"])
def test_accelerate_reads_our_configurations(name):
    config = load_config_from_file(str(EXAMPLES / "configs" / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type == name.upper()
    assert config.num_processes == 2
