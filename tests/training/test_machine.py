import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sgm_hf.training import machine


def test_denormals_are_flushed_and_threads_set(monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    machine.prepare_cpu(3)
    assert threads == [3]
    assert (torch.tensor([1e-30]) * 1e-10).item() == 0.0
    machine.prepare_cpu()
    assert threads == [3]


def test_auto_is_bf16_only_where_it_works_and_has_instructions(monkeypatch):
    for native in (True, False):
        for fault in (None, "a reason"):
            monkeypatch.setattr(machine, "multiplies_bf16", lambda device_type, native=native: native)
            monkeypatch.setattr(machine, "bf16_fault", lambda device_type, fault=fault: fault)
            expected = "bf16" if native and fault is None else "fp32"
            assert machine.choose_precision("auto", "cpu") == expected
            assert machine.choose_precision("fp32", "cpu") == "fp32"
            # Emulated it is slow, but it was asked for.
            assert machine.choose_precision("bf16", "cpu") == ("bf16" if fault is None else "fp32")
    with pytest.raises(ValueError, match="precision is 'half'; choose one of auto, fp32, bf16"):
        machine.choose_precision("half", "cpu")


@pytest.mark.parametrize(("rank", "count"), [("0", 1), ("1", 0)])
def test_the_first_process_of_a_machine_alone_warns_and_once(monkeypatch, caplog, rank, count):
    monkeypatch.setattr(machine, "bf16_fault", lambda device_type: "no such instruction")
    monkeypatch.setenv("LOCAL_RANK", rank)
    machine._warn_once.cache_clear()
    for _ in range(2):
        assert machine.choose_precision("bf16", "cpu") == "fp32"
    assert ["no such instruction" in message for message in caplog.messages] == [True] * count
    machine._warn_once.cache_clear()


def test_the_probe_of_bfloat16_draws_no_random_numbers_and_works_without_gradients():
    machine.bf16_fault.cache_clear()
    state = torch.get_rng_state()
    with torch.inference_mode():
        within = machine.bf16_fault("cpu")
    assert torch.equal(torch.get_rng_state(), state)
    machine.bf16_fault.cache_clear()
    assert machine.bf16_fault("cpu") == within


def test_the_probe_of_bfloat16_finds_a_fault_just_where_an_lstm_fails():
    machine.bf16_fault.cache_clear()
    try:
        with torch.autocast("cpu", torch.bfloat16):
            torch.nn.LSTM(4, 4)(torch.zeros(1, 1, 4))[0].float().sum().backward()
    except RuntimeError:
        assert machine.bf16_fault("cpu") is not None
    else:
        assert machine.bf16_fault("cpu") is None


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_multiplies_bfloat16_where_it_does_not_emulate_it_and_other_devices_do_not(monkeypatch, supported):
    def is_supported(including_emulation=True):
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert machine.multiplies_bf16("cuda") == supported
    assert not machine.multiplies_bf16("mps")


def test_without_native_bfloat16_all_runs_in_fp32_with_one_warning(tmp_path):
    # oneDNN then takes any x86 processor for one with AVX2 alone, on which an LSTM does not run under autocast.
    program = """
import sys
import torch
from tiny_training import make_decided_model, make_documents, make_model
from sgm_hf.training import SamplingArguments, SelfCriticalTrainer, SGMTrainer, SGMTrainingArguments
from sgm_hf.training import generate_predictions
from sgm_hf.training.machine import bf16_fault

fault = bf16_fault("cpu")
assert fault is not None and "LSTM" in fault and "\\n" not in fault, fault
assert not SGMTrainingArguments(sys.argv[1], precision="auto").bf16
print("warnings from here on", file=sys.stderr)
options = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "disable_tqdm": True, "bf16": True}
for trainer, arguments in ((SGMTrainer, SGMTrainingArguments), (SelfCriticalTrainer, SamplingArguments)):
    args = arguments(f"{sys.argv[1]}/{trainer.__name__}", **options)
    assert (args.precision, args.bf16, args.to_dict()["bf16"]) == ("fp32", False, False)
    trainer(make_model(), args, train_dataset=make_documents(16), eval_dataset=make_documents(8)).train()
model, data = make_decided_model(), make_documents(10)
exact, asked = generate_predictions(model, data), generate_predictions(model, data, bf16=True)
assert (exact.label_scores == asked.label_scores).all()
# A model whose weights are bfloat16 runs, forward and backward.
model = make_model().bfloat16()
loss = model(input_ids=torch.tensor([[4, 5, 6]]), labels=torch.tensor([[1, 4]])).loss
loss.backward()
assert loss.isfinite()
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
    )
    if platform.machine() in ("x86_64", "AMD64"):
        assert run.returncode == 0, run.stderr
        before, after = run.stderr.split("warnings from here on")
        assert "bfloat16" not in before
        assert after.count("bfloat16 was asked for") == 1
        assert "could not create a primitive descriptor" in after and "going on in fp32" in after


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
def test_freed_memory_is_kept():
    # 16 MiB, freed and taken again: without the setting, the system clears its pages each time. The environment keeps
    # the C library from finding the setting's thresholds by itself, which it sometimes does.
    program = """
import resource, sys, torch
from sgm_hf.training.machine import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def take_and_free():
    for size in (4, 3) * 5:
        left, right = torch.zeros(size, 2**20), torch.zeros(size, 2**20)
        del left, right
torch.set_num_threads(1)
take_and_free()
before = faults()
take_and_free()
print(faults() - before)
"""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17), "MALLOC_TRIM_THRESHOLD_": str(2**17)}
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", program, how], env=environment, text=True))
        for how in ("keep", "give back")
    )
    assert given_back > 10_000
    assert kept < 100


@pytest.mark.parametrize("answer", [1, 0])
def test_memory_is_kept_by_three_settings_of_the_c_library(monkeypatch, answer):
    given = []
    library = SimpleNamespace(mallopt=lambda *setting: given.append(setting) or answer)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert machine.keep_freed_memory() == bool(answer)
    # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX; a trim threshold of -1 means never.
    assert sorted(given) == [(-8, 1), (-3, 32 * 2**20), (-1, -1)]


@pytest.mark.parametrize(("system", "library"), [("win32", object()), ("linux", object())])
def test_other_systems_are_left_alone(monkeypatch, system, library):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert not machine.keep_freed_memory()
