"""Tests of datasets_scripts/_files.py."""

import os

import pytest

from sgm_hf.datasets_scripts._files import find_file, read_bytes, source_fingerprint


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_plain_and_gzip_files_read_the_same(write, name):
    path = write(name, "erste Zeile", "zweite: é")
    assert read_bytes(path).decode() == "erste Zeile\nzweite: é\n"


def test_a_file_is_found_plain_before_gzip(write):
    gzipped = write("a.txt.gz", "x")
    assert find_file(gzipped.parent, "a.txt") == gzipped
    plain = write("a.txt", "x")
    assert find_file(plain.parent, "a.txt") == plain
    assert find_file(plain.parent, "b.txt") is None


def test_a_truncated_gzip_file_is_named(write, truncate):
    path = write("a.txt.gz", *map(str, range(1000)))
    truncate(path)
    with pytest.raises(ValueError, match=r"a\.txt\.gz is truncated or damaged"):
        read_bytes(path)


def test_a_gzip_file_of_no_bytes_is_not_an_empty_file(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.txt\.gz is truncated or damaged .it is empty."):
        read_bytes(tmp_path / "a.txt.gz")


def test_the_fingerprint_changes_with_size_time_and_name_but_not_with_order(write):
    first, second = write("a.txt", "x"), write("b.txt", "y")
    before = source_fingerprint([first, second])
    assert source_fingerprint([second, first]) == before
    assert source_fingerprint([first]) != before
    status = first.stat()
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed_time = source_fingerprint([first, second])
    assert changed_time != before
    write("b.txt", "longer")
    assert source_fingerprint([first, second]) != changed_time
