"""A Hub on loopback, and users of it: with sgm_hf, and in a virtual environment without."""

import subprocess
import sys
import venv

import pytest
from client_process import Client
from loopback_hub import LoopbackHub

TOKENS = {"hf_of_me": "me", "hf_of_you": "you"}


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory) -> str:
    """An interpreter that sees every installed package but sgm_hf."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=False)
    packages = next(folder.glob("lib/python*/site-packages"))
    # Only names of folders: their own .pth files, which install sgm_hf, are not read.
    seen = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "packages.pth").write_text("\n".join(seen) + "\n")
    python = str(folder / "bin" / "python")
    check = "import importlib.util, sys; sys.exit(importlib.util.find_spec('sgm_hf') is not None)"
    if subprocess.run([python, "-I", "-c", check]).returncode:
        pytest.skip("sgm_hf is not installed as editable, so an environment without it cannot share the others")
    return python


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """The Hub, with the users me and you."""
    with LoopbackHub(tmp_path_factory.mktemp("hub"), TOKENS) as server:
        yield server


@pytest.fixture(autouse=True)
def no_fault_is_left(request):
    """Each test starts without faults."""
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").faults.clear()


@pytest.fixture(scope="session")
def start(hub, tmp_path_factory):
    """Starts clients with empty caches."""
    clients = []

    def start_client(python: str = sys.executable, token: str | None = "hf_of_me") -> Client:
        clients.append(Client(python, hub.url, tmp_path_factory.mktemp("home"), token))
        return clients[-1]

    yield start_client
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def me(start):
    """A user with sgm_hf, signed in."""
    client = start()
    client.call("use_sgm_hf")
    return client


@pytest.fixture(scope="session")
def stranger(start, bare_python):
    """A user without sgm_hf and without a token."""
    return start(bare_python, token=None)


@pytest.fixture(scope="session")
def checkpoint(me, tmp_path_factory) -> str:
    """A folder with a model and its tokenizer."""
    folder = str(tmp_path_factory.mktemp("checkpoint"))
    me.call("make_checkpoint", folder=folder)
    return folder


@pytest.fixture(scope="session")
def published(me, checkpoint) -> str:
    """A pushed repository."""
    me.call("push", folder=checkpoint, repository="me/model")
    return "me/model"
