"""Settings of the process that make training and generation on a CPU fast."""

import ctypes
import sys

import torch

# Parameters of the C library's mallopt().
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# Tensors larger than this many bytes still go back to the system: kept, they would leave holes that nothing fills.
KEPT_SIZE = 32 * 2**20


def prepare_cpu(num_threads: int | None = None) -> None:
    """Flush denormal numbers, keep freed memory, and set the number of threads; best before any thread starts.

    Denormal numbers slow recurrent layers several times over. All of it holds for the whole process.

    Args:
        num_threads: PyTorch's threads; default as they are.
    """
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory, so that each batch's tensors lie where the last batch's lay.

    By default it returns a tensor's memory to the system and asks for it again at the next batch, and the system
    clears every page of it. Does nothing where the C library is not glibc.

    Returns:
        Whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {M_MMAP_THRESHOLD: KEPT_SIZE, M_TRIM_THRESHOLD: -1, M_ARENA_MAX: 1}
    return all([bool(mallopt(parameter, value)) for parameter, value in settings.items()])
