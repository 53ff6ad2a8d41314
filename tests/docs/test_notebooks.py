"""The notebooks run from their first cell to their last, and are stored with what they print."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip(
    "nbformat", reason="the tools of the notebooks are not installed: pip install '.[docs]'"
)
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def printed(notebook) -> list[list[str]]:
    """The kinds of output of each cell of code; progress and warnings left out."""
    return [
        sorted({kind for output in cell.outputs if (kind := kind_of(output))})
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def kind_of(output) -> str | None:
    """Text, a picture, or nothing that a reader needs."""
    if "image/png" in output.get("data", {}):
        return "picture"
    return "text" if output.get("name") == "stdout" else None


def printed_before_training(notebook) -> list[str]:
    """What is printed up to the training, which does not depend on the processor."""
    texts = []
    for cell in notebook.cells:
        if "trainer.train()" in cell.source:
            return texts
        texts += [output.text for output in cell.get("outputs", []) if output.get("name") == "stdout"]
    raise AssertionError("no cell trains")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_prints_what_is_stored(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    stored = nbformat.read(str(path), as_version=4)
    notebook = nbformat.read(str(path), as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert printed(notebook) == printed(stored)
    assert printed_before_training(notebook) == printed_before_training(stored) != []
    assert any("picture" in kinds for kinds in printed(stored))
