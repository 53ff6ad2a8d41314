"""What tests of several folders share."""

import signal

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def ctrl_c():
    """Ctrl-C as in a terminal: what a shell starts in the background ignores it, and hands that on to its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def subnormal_numbers():
    """Numbers near 0 are as they are at first: programs set the processor to flush them, for the whole process."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def counted_names():
    """2,000 label names, and how often they were compared, `{"comparisons": 0}`: cost without a clock."""
    count = {"comparisons": 0}

    class CountedName(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            count["comparisons"] += 1
            return str.__eq__(self, other)

    return [CountedName(f"label {i}") for i in range(2000)], count
