"""What the machine can do and how the process uses it: the precision of multiplication, denormals, memory, threads."""

import contextlib
import ctypes
import functools
import logging
import os
import sys
from collections.abc import Iterator

import torch
from torch import nn

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16")
# Instructions that multiply bfloat16, as torch.cpu.get_capabilities() names them: x86, then ARM.
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")

# Parameters of the C library's mallopt().
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# Tensors larger than this many bytes still go back to the system: kept, they would leave holes that nothing fills.
KEPT_SIZE = 32 * 2**20


def prepare_cpu(num_threads: int | None = None) -> None:
    """Flush denormal numbers, keep freed memory, and set the number of threads; best before any thread starts.

    All of it holds for the whole process and cannot be undone, so programs call it, and nothing in the library does.

    Args:
        num_threads: PyTorch's threads; default as they are.
    """
    # Denormal numbers slow recurrent layers several times over.
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if num_threads is not None:
        torch.set_num_threads(num_threads)


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers within the block or decorated function, in this thread.

    PyTorch's worker threads keep the mode in which they started, which `prepare_cpu` at a program's start decides.
    """
    before = sys.float_info.min * 0.5 == 0.0  # a denormal number, unless the processor flushes them
    torch.ones(2**18).add_(1)  # starts the workers, so that they do not start flushed and stay so
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory, if it is glibc, so that each batch's tensors lie where the last one's lay.

    Returns:
        Whether it was done.
    """
    # By default a tensor's memory goes back to the system, which clears every page of it before the next batch.
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {M_MMAP_THRESHOLD: KEPT_SIZE, M_TRIM_THRESHOLD: -1, M_ARENA_MAX: 1}
    return all([bool(mallopt(parameter, value)) for parameter, value in settings.items()])


def choose_precision(precision: str, device_type: str) -> str:
    """The precision in which a device is to multiply; every use of bfloat16 autocast asks here.

    Args:
        precision: "fp32", "bf16", or "auto": "bf16" where the device has instructions for it and it works, else
            "fp32".
        device_type: Such as "cpu" or "cuda".

    Returns:
        "fp32" or "bf16". Where "bf16" is asked for and does not work it is "fp32", and a warning says why, once.

    Raises:
        ValueError: If there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    if precision == "fp32" or (precision == "auto" and not multiplies_bf16(device_type)):
        return "fp32"
    fault = bf16_fault(device_type)
    if fault is None:
        return "bf16"
    if precision == "bf16":
        _warn_once(
            f"bfloat16 was asked for, but an LSTM does not run under bfloat16 autocast on this {device_type}, which "
            f"probably has no instructions for it ({fault}); going on in fp32."
        )
    return "fp32"


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager:
    """bfloat16 autocast where it is asked for and works on the device (see `choose_precision`), else nothing."""
    if bf16 and choose_precision("bf16", device.type) == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def multiplies_bf16(device_type: str) -> bool:
    """Whether a device has instructions for bfloat16: emulated, it is slower than fp32."""
    if device_type == "cpu":
        # Before torch 2.11 nothing tells: then fp32, which is right everywhere.
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name) for name in BF16_INSTRUCTIONS)
    return device_type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@functools.cache
def bf16_fault(device_type: str) -> str | None:
    """Why an LSTM cannot be trained under bfloat16 autocast on a device, found by training one; None where it can."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        lstm, inputs = nn.LSTM(8, 8), torch.zeros(2, 1, 8)
    try:
        lstm, inputs = lstm.to(device_type), inputs.to(device_type)
        with torch.inference_mode(False), torch.enable_grad():
            with torch.autocast(device_type, torch.bfloat16):
                output = lstm(inputs)[0]  # (2, 1, 8)
            output.float().sum().backward()
    except RuntimeError as error:
        return str(error).split(". ")[0].splitlines()[0]
    return None


@functools.cache
def _warn_once(message: str) -> None:
    """Log a warning the first time that it is given, on one process of a machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        logger.warning(message)
