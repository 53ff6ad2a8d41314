"""Obtains the test-suite that the source distribution of Transformers holds.

The distribution of the installed version comes from the package index by pip, once; its hash must be the recorded one,
for what it holds is run. Only the files of its `tests` folder are unpacked, into a folder that git ignores.
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

# What a test of the tokenizers opens; the distribution has the tests without this file.
SAMPLE_TEXT = "A text of a few lines.\n\nThe tests of tokenizers open such a file,\nwhatever stands in it.\n"


class IndexUnreachable(Exception):
    """The package index gave no distribution; the message has pip's last words."""


def obtain_suite() -> Path:
    """
    The folder that holds the suite as the package `tests`, unpacked if it is not yet.

    Returns:
        `Path`: The folder, to be put on `sys.path`.

    Raises:
        IndexUnreachable: When the distribution is neither in the cache nor to be had from the package index.
        ValueError: When the installed version's hash is not recorded, or the file has another.
    """
    version = transformers.__version__
    if version not in HASHES:
        raise ValueError(
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
    """
    Has pip download the source distribution, and checks its hash.

    Args:
        version (`str`): Of Transformers.
        folder (`Path`): Where to put it.

    Returns:
        `Path`: The archive.

    Raises:
        IndexUnreachable: When pip could not.
        ValueError: When the file has another hash than the recorded one.
    """
    # Nothing is built but the metadata, and setuptools is here: no build isolation, which would download it.
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
    """
    Unpacks the `tests` of a source distribution.

    Args:
        archive (`Path`): The distribution.
        folder (`Path`): Gets the folder `tests`.
    """
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
