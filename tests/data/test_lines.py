import gzip
import json

import pytest

from sgm_hf.data.lines import read_json_lines, read_lines


@pytest.fixture
def write(tmp_path):
    """A function that writes lines to a file, compressed if its name ends in `.gz`."""

    def write_lines(name, *lines, encoding="utf-8"):
        path = tmp_path / name
        content = "".join(f"{line}\n" for line in lines).encode(encoding)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write_lines


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_plain_and_gzip_files_read_the_same(write, name):
    path = write(name, "erste Zeile", "zweite: é")
    assert list(read_lines(path)) == [(1, "erste Zeile"), (2, "zweite: é")]


def test_only_a_line_feed_ends_a_line(write):
    path = write("a.txt", "one\x0bline\u2028of\x85text", "next\r")
    assert list(read_lines(path)) == [(1, "one\x0bline\u2028of\x85text"), (2, "next")]


def test_lines_keep_their_ends_and_carriage_returns_on_request(write):
    path = write("a.txt", "one\rtwo", "next\r", "\ufeff")
    assert list(read_lines(path, keep_ends=True)) == [(1, "one\rtwo\n"), (2, "next\r\n"), (3, "\ufeff\n")]


def test_a_truncated_gzip_file_is_named_with_the_line_it_breaks_off_in(write):
    path = write("a.txt.gz", *map(str, range(1000)))
    path.write_bytes(path.read_bytes()[:-400])
    read = []
    with pytest.raises(ValueError, match=r"a\.txt\.gz, line \d+: the gzip stream breaks off") as caught:
        read.extend(text for _, text in read_lines(path))
    assert f"line {len(read) + 1}:" in str(caught.value)
    assert read == list(map(str, range(len(read))))


def test_a_gzip_file_of_no_bytes_is_not_an_empty_file(write, tmp_path):
    assert list(read_lines(write("a.txt.gz"))) == []
    (tmp_path / "a.txt.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.txt\.gz, line 1: .* damaged .it is empty."):
        list(read_lines(tmp_path / "a.txt.gz"))


def test_a_byte_order_mark_is_not_part_of_the_first_line(write):
    assert list(read_lines(write("a.txt", "\ufefffirst", "\ufeffsecond"))) == [(1, "first"), (2, "\ufeffsecond")]


def test_a_carriage_return_within_a_line_is_named_with_its_number(write):
    path = write("a.txt", "fine\r", "one\rtwo")
    with pytest.raises(ValueError, match=r"a\.txt, line 2: a carriage return within the line"):
        list(read_lines(path))


def test_a_file_that_is_not_gzip_is_named(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(b"<html>404 Not Found</html>")
    with pytest.raises(ValueError, match=r"a\.txt\.gz, line 1: .* damaged"):
        list(read_lines(path))


def test_a_line_that_is_not_utf8_is_named_with_its_number(write):
    path = write("a.txt", "fine", "größe", encoding="latin-1")
    with pytest.raises(ValueError, match=r"a\.txt, line 2: not UTF-8 .*byte 0xf6"):
        list(read_lines(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_objects_come_with_the_numbers_of_their_lines_and_blank_lines_are_skipped(write, name):
    records = [{"text": "été\u2028x", "labels": []}, {"text": "b", "n": 1.5}]
    path = write(name, json.dumps(records[0], ensure_ascii=False), "", " \t", json.dumps(records[1]) + "\r")
    assert list(read_json_lines(path)) == [(1, records[0]), (4, records[1])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"n": 1', "not valid JSON .* at character 8"),
        ('{"n": 1} {"n": 2}', "not valid JSON .Extra data"),
        ("[1]", "a JSON list"),
        ('{"n": 1, "n": 2}', "the key 'n' is given 2 times"),
        ('{"n": "\\ud83d"}', "not valid JSON .*surrogates"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_is_not_one_object_is_named(write, line, message):
    path = write("a.jsonl", "{}", line)
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 2: .*{message}.*Expected one object per line"):
        list(read_json_lines(path))
