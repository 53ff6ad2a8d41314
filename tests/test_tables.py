import csv

import pytest

from sgm_hf.tables import cells_of_groups, markdown_table, span, write_csv


def test_a_markdown_table_has_a_line_per_row_and_shows_what_looks_like_a_column_border():
    table = markdown_table(("name", "value"), [("a|b", 0.5), ("c", None)])
    assert table == "| name | value |\n|---|---|\n| a\\|b | 0.5 |\n| c | None |"


def test_rows_are_written_and_read_back(tmp_path):
    rows = [{"system": "a", "f1": 1 / 3}, {"system": 'b, "c"\nd', "f1": 2.0}]
    write_csv(rows, tmp_path / "new" / "rows.csv", float_format=".6g")
    with (tmp_path / "new" / "rows.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"system": "a", "f1": "0.333333"}, {"system": 'b, "c"\nd', "f1": "2"}]


@pytest.mark.parametrize("append", [True, False])
def test_rows_are_added_under_one_header_or_replace_the_file(tmp_path, append):
    for number in (1, 2):
        write_csv([{"b": 0.1, "a": number, "c": None}], tmp_path / "rows.csv", ["a", "b"], append=append)
    assert (tmp_path / "rows.csv").read_bytes() == (b"a,b\n1,0.1\n2,0.1\n" if append else b"a,b\n2,0.1\n")


def test_columns_without_rows_give_the_header_alone(tmp_path):
    write_csv([], tmp_path / "rows.csv", ["a", "b"])
    assert (tmp_path / "rows.csv").read_bytes() == b"a,b\n"


def test_many_numbers_are_shown_by_their_ends_and_their_middle():
    assert span([0.5, 0.125, 0.75]) == "0.125 to 0.75, median 0.5 (3)"
    assert span([0.3125]) == "0.312 to 0.312, median 0.312 (1)"


def test_the_best_mean_among_lines_of_a_kind_is_in_bold():
    groups = {
        ("a", "one"): [{"f1": 0.5, "loss": 0.2}, {"f1": 0.7, "loss": 0.4}],
        ("a", "two"): [{"f1": "0.6", "loss": "0.5"}],  # as read from CSV; an equal mean is as good
        ("b", "alone"): [{"f1": 0.1, "loss": 0.9}],
    }
    cells = cells_of_groups(groups, {"f1": (True, 2), "loss": (False, 1)}, kind=lambda key: key[0])
    assert cells == {
        ("a", "one"): ["**0.60 ± 0.14**", "**0.3 ± 0.1**"],
        ("a", "two"): ["**0.60**", "0.5"],
        ("b", "alone"): ["0.10", "0.9"],
    }
