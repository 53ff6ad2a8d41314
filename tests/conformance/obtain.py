"""Obtains the test suite of the source distribution of Transformers.

pip downloads the distribution of the installed version once from the package index; its hash must be the recorded one,
because its code is run. Only its `tests` folder is unpacked, into a folder that git ignores.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

CACHE = Path(__file__).parents[2] / ".data-cache"

# SHA-256 of transformers-<version>.tar.gz, as https://pypi.org/project/transformers/<version>/#files shows it.
HASHES = {"5.23.0": "19d647a4d5d903a7c644ca5cde2d86efc3dde7d8c687ae7988806ff2205efa71"}

# Tests of the tokenizers open this file, which is not in the distribution.
SAMPLE_TEXT = "A text of a few lines.\n\nThe tests of tokenizers open such a file,\nwhatever stands in it.\n"


class IndexUnreachable(Exception):
    """The package index gave no distribution; the message has the end of pip's output."""


class ReleaseNotRecorded(ValueError):
    """The hash of the installed release of Transformers is not recorded."""


def obtain_suite() -> Path:
    """The folder for `sys.path` with the suite as the package `tests`, unpacked if necessary.

    Raises:
        IndexUnreachable: If the distribution is neither in the cache nor available from the package index.
        ReleaseNotRecorded: If the hash of the installed version is not recorded.
        ValueError: If that of the file differs.
    """
    version = transformers.__version__
    if version not in HASHES:
        raise ReleaseNotRecorded(
            f"Transformers {version} is installed, but {Path(__file__).name} records the hash of {', '.join(HASHES)} "
            f"only. Add that of transformers-{version}.tar.gz, which the package index shows."
        )
    folder = CACHE / f"transformers-{version}-{HASHES[version][:8]}"
    if not folder.is_dir():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as partial:
            unpack_tests(download(version, Path(partial)), Path(partial, "suite"))
            Path(partial, "suite").rename(folder)
    return folder


def download(version: str, folder: Path) -> Path:
    """Download the source distribution of this version of Transformers with pip, and check its hash.

    Raises:
        IndexUnreachable: If pip fails.
        ValueError: If the file does not have the recorded hash.
    """
    # Only the metadata is built, with the installed setuptools: build isolation would download another.
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--retries", "1", "--timeout", "20"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), f"transformers=={version}"]
    result = subprocess.run(command, capture_output=True, text=True)
    archive = folder / f"transformers-{version}.tar.gz"
    if result.returncode != 0 or not archive.is_file():
        last_words = (result.stderr or result.stdout).strip().splitlines()[-3:]
        raise IndexUnreachable(f"pip could not download transformers {version}: {' '.join(last_words)}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != HASHES[version]:
        raise ValueError(
            f"{archive.name} has the SHA-256 {found}, expected {HASHES[version]}. Do not run it; find out what the "
            "package index serves."
        )
    return archive


def unpack_tests(archive: Path, folder: Path) -> None:
    """Unpack the Python files of the folder `tests` of a source distribution into `folder`."""
    tests = folder / "tests"
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            path = Path(member.name)
            is_test = path.parts[1:2] == ("tests",) and path.suffix == ".py" and ".." not in path.parts
            if member.isfile() and is_test:
                target = tests.joinpath(*path.parts[2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(member).read())
    (tests / "fixtures").mkdir()
    (tests / "fixtures" / "sample_text.txt").write_text(SAMPLE_TEXT, encoding="utf-8")
