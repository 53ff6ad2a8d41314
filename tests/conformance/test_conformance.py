import io
import subprocess
import tarfile

import obtain
import pytest
from obtain import IndexUnreachable, ReleaseNotRecorded, obtain_suite
from run import Reason, compare, read_reasons, run_suites


@pytest.fixture(scope="module")
def suite():
    try:
        return obtain_suite()
    except (IndexUnreachable, ReleaseNotRecorded) as error:
        pytest.skip(str(error))


def test_every_common_test_of_transformers_passes_or_cannot_apply(suite):
    comparison = compare(run_suites(suite), read_reasons())
    assert not comparison.faults, "\n".join(comparison.faults)
    assert len(comparison.passed) > 200


OUTCOMES = {
    "A::one": {"outcome": "passed", "message": ""},
    "A::two": {"outcome": "skipped", "message": "no device"},
    "B::two": {"outcome": "failed", "message": "1 != 2\nmore"},
}


@pytest.mark.parametrize(
    ("patterns", "faults"),
    [
        (["*::two"], []),
        (["A::two"], ["B::two failed: 1 != 2"]),
        (["*::two", "A::one"], ["A::one is listed as not applicable, but it passed: take it off the list"]),
        (["*::two", "C::*"], ["no test matches C::*: take it off the list"]),
        (["*::two", "A::t*"], ["A::two is listed 2 times: *::two, A::t*"]),
    ],
)
def test_the_comparison_finds_what_the_list_does_not_say(patterns, faults):
    assert compare(OUTCOMES, [Reason("a reason", patterns)]).faults == faults


def test_what_needs_hardware_may_pass_where_it_is_but_not_fail():
    comparison = compare(OUTCOMES, [Reason("needs hardware", ["*"], hardware=True)])
    assert comparison.faults == ["B::two failed: 1 != 2"]
    assert comparison.passed == ["A::one"]


def test_every_reason_says_something_of_its_own():
    reasons = [reason.reason for reason in read_reasons()]
    assert len(set(reasons)) == len(reasons)
    assert not [reason for reason in reasons if len(reason) < 20 or "yet" in reason]


@pytest.fixture
def pip_that(monkeypatch, tmp_path):
    """Replaces pip by a stand-in and the cache by an empty one."""

    def replace(code, archive=None):
        def run(command, **options):
            if archive is not None:
                folder = command[command.index("--dest") + 1]
                with open(f"{folder}/transformers-{next(iter(obtain.HASHES))}.tar.gz", "wb") as file:
                    file.write(archive)
            return subprocess.CompletedProcess(command, code, stdout="", stderr="ERROR: no such index")

        monkeypatch.setattr(obtain.subprocess, "run", run)
        monkeypatch.setattr(obtain.transformers, "__version__", next(iter(obtain.HASHES)))
        monkeypatch.setattr(obtain, "CACHE", tmp_path / "cache")
        return tmp_path / "cache"

    return replace


def test_an_index_that_cannot_be_reached_is_told_apart(pip_that):
    cache = pip_that(1)
    with pytest.raises(IndexUnreachable, match="no such index"):
        obtain_suite()
    assert not [*cache.iterdir()]


def test_a_distribution_with_another_hash_is_refused_and_not_unpacked(pip_that):
    cache = pip_that(0, b"something else")
    with pytest.raises(ValueError, match="SHA-256.*expected"):
        obtain_suite()
    assert not [*cache.iterdir()]


def test_only_the_tests_of_a_distribution_are_unpacked(tmp_path):
    archive = tmp_path / "x-1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("x-1/tests/test_a.py", "x-1/tests/sub/test_b.py", "x-1/setup.py", "x-1/tests/data.bin"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    obtain.unpack_tests(archive, tmp_path / "out")
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"tests/test_a.py", "tests/sub/test_b.py", "tests/fixtures/sample_text.txt"}


def test_an_unrecorded_version_is_refused(monkeypatch):
    monkeypatch.setattr(obtain, "HASHES", {"0.1": "0" * 64})
    with pytest.raises(ValueError, match="records the hash of 0.1 only"):
        obtain_suite()
