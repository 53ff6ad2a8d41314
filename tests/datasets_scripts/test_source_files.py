"""Tests of datasets_scripts/_files.py."""

import os

import pytest

from sgm_hf.datasets_scripts._files import find_file, read_bytes, read_lines, source_fingerprint


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_plain_and_gzip_files_read_the_same(write, name):
    path = write(name, "erste Zeile", "zweite: é")
    assert list(read_lines(path)) == [(1, "erste Zeile"), (2, "zweite: é")]
    assert read_bytes(path).decode() == "erste Zeile\nzweite: é\n"


def test_only_a_line_feed_ends_a_line(write):
    path = write("a.txt", "one\x0bline\u2028of\x85text", "next\r")
    assert list(read_lines(path)) == [(1, "one\x0bline\u2028of\x85text"), (2, "next")]


def test_a_file_is_found_plain_before_gzip(write):
    gzipped = write("a.txt.gz", "x")
    assert find_file(gzipped.parent, "a.txt") == gzipped
    plain = write("a.txt", "x")
    assert find_file(plain.parent, "a.txt") == plain
    assert find_file(plain.parent, "b.txt") is None


@pytest.mark.parametrize("read", [read_bytes, lambda path: list(read_lines(path))])
def test_a_truncated_gzip_file_is_named(write, truncate, read):
    path = write("a.txt.gz", *map(str, range(1000)))
    truncate(path)
    with pytest.raises(ValueError, match=r"a\.txt\.gz is truncated or damaged"):
        read(path)


@pytest.mark.parametrize("read", [read_bytes, lambda path: list(read_lines(path))])
def test_a_gzip_file_of_no_bytes_is_no_empty_file(tmp_path, read):
    (tmp_path / "a.txt.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.txt\.gz is truncated or damaged .it is empty."):
        read(tmp_path / "a.txt.gz")


def test_a_byte_order_mark_is_no_part_of_the_first_line(write):
    assert list(read_lines(write("a.txt", "\ufefffirst", "\ufeffsecond"))) == [(1, "first"), (2, "\ufeffsecond")]


def test_a_carriage_return_within_a_line_is_named_with_its_number(write):
    path = write("a.txt", "fine\r", "one\rtwo")
    with pytest.raises(ValueError, match=r"a\.txt, line 2: a carriage return within the line"):
        list(read_lines(path))


def test_a_file_that_is_not_gzip_is_named(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(b"<html>404 Not Found</html>")
    with pytest.raises(ValueError, match=r"a\.txt\.gz is truncated or damaged"):
        list(read_lines(path))


def test_a_line_that_is_not_utf8_is_named_with_its_number(write):
    path = write("a.txt", "fine", "größe", encoding="latin-1")
    with pytest.raises(ValueError, match=r"a\.txt, line 2: byte 0xf6 is not UTF-8"):
        list(read_lines(path))


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
