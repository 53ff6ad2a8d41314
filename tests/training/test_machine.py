import ctypes
import os
import platform
import subprocess
import sys

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


@pytest.mark.parametrize(("system", "library"), [("win32", object()), ("linux", object())])
def test_other_systems_are_left_alone(monkeypatch, system, library):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert not machine.keep_freed_memory()
