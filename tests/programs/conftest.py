"""What tests of the programs share."""

from contextlib import contextmanager

import pytest

from sgm_hf.programs import members


@pytest.fixture
def interrupted_at_the_second_model(monkeypatch):
    """A context in which a training of several models stops, as by Ctrl-C, where the second is made."""
    build, built = members.build_model, []

    def fail_at_the_second(*arguments):
        built.append(arguments)
        if len(built) == 2:
            raise KeyboardInterrupt
        return build(*arguments)

    @contextmanager
    def interrupted():
        with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
            patch.setattr(members, "build_model", fail_at_the_second)
            yield

    return interrupted
