import csv
import sys

import plot_presets
import pytest
from bench_svm import COLUMNS
from matplotlib import image


@pytest.fixture
def rows_csv(tmp_path):
    """Rows as they are measured, made up for this test."""
    path = tmp_path / "presets.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for seed, (micro, minutes) in enumerate([(0.5, 2.0), (0.75, 4.0)], start=1):
            values = {"micro_f1": micro, "macro_f1": 0.25, "zero_one_loss": 0.5, "cpu_minutes": minutes}
            names = {"corpus": "aapd", "split": "validation", "system": "fast", "objective": "micro_f1", "seed": seed}
            writer.writerow(names | values)
        writer.writerow({"corpus": "aapd", "split": "test", "system": "SGM+GE", "micro_f1": 0.71})
    return path


def test_rows_are_drawn(rows_csv, tmp_path, monkeypatch):
    picture = tmp_path / "figure"
    monkeypatch.setattr(sys, "argv", ["plot_presets.py", "--rows", str(rows_csv), "--output", str(picture)])
    plot_presets.main()
    assert image.imread(tmp_path / "figure.png").shape[2] == 4
    drawing = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert "<svg" in drawing


def test_the_table_has_the_mean_and_the_spread_of_the_seeds(rows_csv, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["plot_presets.py", "table", "--rows", str(rows_csv)])
    plot_presets.main()
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| aapd | validation | fast | micro_f1 | 2 | 0.625 ± 0.177 | 0.250 ± 0.000 | 0.500 ± 0.000 | 3.0 |",
        "| aapd | test | SGM+GE |  | 1 | 0.710 |  |  |  |",
    ]


def test_a_cell_that_is_no_number_is_named(rows_csv):
    rows_csv.write_text(rows_csv.read_text().replace("0.75", "three"))
    with pytest.raises(ValueError, match="presets.csv, line 3: micro_f1 is 'three'"):
        plot_presets.read_rows(rows_csv)
    rows_csv.write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(ValueError, match="presets.csv has no row"):
        plot_presets.read_rows(rows_csv)


def test_the_page_has_the_table_of_the_rows_that_are_kept():
    page = plot_presets.PRESETS_CSV.parents[1] / "docs" / "sizes.md"
    assert plot_presets.table(plot_presets.read_rows(plot_presets.PRESETS_CSV)) in page.read_text(encoding="utf-8")
