"""Tests of datasets_scripts/_json_sections.py."""

import gzip
import json
import tracemalloc

import pytest

from sgm_hf.datasets_scripts._json_sections import _Window, read_sections

CONTENT = {
    "info": {"year": 2017, "nested": [1, {"a": "}]"}]},
    "images": [{"id": 1, "name": 'a "b" \\ ]}'}, {"id": 2}, [], [[1.5, -2e3]], 17, "é 好 😀", None, True],
    "empty": [],
    "number": 12345,
    "annotations": [{"text": "x" * 300}],
}
EXPECTED = [(key, n, item) for key, value in CONTENT.items() if type(value) is list for n, item in enumerate(value, 1)]


@pytest.fixture(params=[1, 2, 7, 2**20])
def piece(request, monkeypatch):
    """Pieces so short that every value is cut somewhere, and the usual ones."""
    monkeypatch.setattr(_Window, "PIECE", request.param)


@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])
@pytest.mark.parametrize("packed", [False, True])
def test_the_items_are_those_that_json_reads_however_the_file_is_cut(tmp_path, piece, layout, packed):
    path = tmp_path / ("a.json.gz" if packed else "a.json")
    content = f" {json.dumps(CONTENT, **layout)}\n".encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert list(read_sections(path)) == EXPECTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, start: not valid JSON .got the end of the file, expected {"),
        ("[]", "line 1, start: not valid JSON .got '.', expected {"),
        ("{", "line 1, key 1: not valid JSON"),
        ('{"a": [1, 2', "line 1, a, item 2: not valid JSON .got the end of the file, expected , or"),
        ('{"a": [1, 2,]}', "line 1, a, item 3: not valid JSON"),
        ('{"a":\n[{"b": 1},\n{"b" 2}]}', "line 3, a, item 2: not valid JSON .Expecting ':' delimiter"),
        ('{"a": [{"b": 1, "b": 2}]}', "line 1, a, item 1: not valid JSON .the key 'b' is given 2 times"),
        ('{"a": [1], "a": [2]}', "line 1, key 2: got the key 'a', expected a name that was not given before"),
        ('{"a": [1] "b": 2}', "line 1, a, item 1: not valid JSON .got '\"', expected , or }"),
        ("{1: 2}", "got the key '1'"),
        ('{"a": 1}\n{}', "line 2, end: something follows the object"),
        ('{"a": "b', "line 1, a: not valid JSON .Unterminated string"),
        (f'{{"a": [{"[" * 100_000}', "line 1, a, item 1: not valid JSON .nested too deeply"),
        (f'{{"a": [{"1" * 5000}, 2]}}', "line 1, a, item 1: not valid JSON .Exceeds the limit"),
    ],
)
def test_a_fault_is_named_with_file_line_and_item(tmp_path, piece, monkeypatch, text, message):
    if len(text) > 1000:
        monkeypatch.setattr(_Window, "PIECE", 2**20)  # a long value in short pieces takes long
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json, .*{message}"):
        list(read_sections(path))


def test_bytes_that_are_no_utf_8_and_damaged_gzip_are_named(tmp_path, truncate):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": ["\xff"]}')
    with pytest.raises(ValueError, match=r"a\.json: not UTF-8"):
        list(read_sections(path))
    packed = tmp_path / "b.json.gz"
    packed.write_bytes(gzip.compress(json.dumps({"a": list(range(10_000))}).encode()))
    truncate(packed)
    with pytest.raises(ValueError, match=r"b\.json\.gz is truncated or damaged"):
        list(read_sections(packed))


def test_a_value_longer_than_any_published_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_Window, "PIECE", 10)
    monkeypatch.setattr(_Window, "LIMIT", 100)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": ["x" * 1000, "y"]}).replace('", "y', ""))
    with pytest.raises(ValueError, match=r"a, item 1: not valid JSON"):
        list(read_sections(path))


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_Window, "PIECE", 2**14)

    def peak(items):
        path = tmp_path / f"{items}.json"
        path.write_text(json.dumps({"annotations": [{"id": i, "segmentation": [[0.5] * 20]} for i in range(items)]}))
        tracemalloc.start()
        count = sum(1 for _ in read_sections(path))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == items
        return highest

    assert peak(20_000) < 1.5 * peak(2_000)
