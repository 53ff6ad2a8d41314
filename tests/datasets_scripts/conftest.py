"""What the tests of the corpora share: small source files, and the folder of real ones."""

import gzip
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def real_data() -> Path:
    """The folder with the published corpora, or the test is skipped."""
    folder = Path(os.environ.get("SGM_HF_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real corpora are not at {folder}; set SGM_HF_DATA to their folder")
    return folder


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder for generated files."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def write(tmp_path: Path):
    """A function that writes lines to a file below the test's folder `data`, compressed if its name ends in `.gz`."""

    def write_lines(name: str, *lines: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = "".join(f"{line}\n" for line in lines).encode(encoding)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write_lines


@pytest.fixture
def truncate():
    """A function that cuts the last fifth off a file."""

    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 4 // 5])

    return cut
