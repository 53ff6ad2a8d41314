"""The command that compares prediction files: its table, its files, its faults."""

import csv
import json

import pytest

from sgm_hf.cli import main

GOLD = [["oil"], ["oil", "gas"], ["gas"], ["tin"]] * 5


@pytest.fixture
def files(tmp_path):
    """Three systems: one right, one that misses every second set, one that finds nothing."""
    predicted = {"a": GOLD, "b": [labels if row % 2 else [] for row, labels in enumerate(GOLD)], "c": [[]] * len(GOLD)}
    paths = []
    for name, sets in predicted.items():
        lines = [
            json.dumps({"id": f"d{row}", "labels": found, "gold": gold, "threshold": gold})
            for row, (found, gold) in enumerate(zip(sets, GOLD, strict=True))
        ]
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("\n".join(lines) + "\n")
    return [str(path) for path in paths]


def complaint(capsys, *arguments):
    with pytest.raises(SystemExit):
        main(["compare", *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_table_has_a_line_per_metric_and_the_documents_that_differ_most(files, capsys):
    main(["compare", *files[:2], "--resamples", "200", "--show", "2"])
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert (lines[0], lines[1]) == (f"A  {files[0]}", f"B  {files[1]}")
    assert "20 documents, 3 labels, sets of 'labels'; 200 resamples of documents, seed 0" in text
    (row,) = (line.split() for line in lines if line.startswith("0/1 loss"))
    assert row[3:6] == ["0.0000", "0.5000", "+0.5000"]
    assert "corrected for all 7 rows" in text and "are about these runs" in text
    assert "d0  F1 of A 1.000, of B 0.000\n  true oil\n  A    oil\n  B    (none)" in text
    assert text.count("F1 of A") == 2
    main(["compare", *files[:2], "--set_decoding", "threshold", "--resamples", "100"])
    assert "documents that differ most" not in capsys.readouterr().out


def test_several_systems_are_compared_with_the_first_and_corrected_together(files, capsys):
    main(["compare", *files, "--resamples", "100"])
    text = capsys.readouterr().out
    assert text.count(f"A  {files[0]}") == 2 and "corrected for all 14 rows above" in text
    assert f"differ most from {files[2]}" in text


def test_runs_of_two_systems_are_resampled(files, tmp_path, capsys):
    output = tmp_path / "new" / "compare.json"
    main(["compare", "--a", *files[:2], "--b", *files[1:], "--resamples", "100", "--output", str(output)])
    text = capsys.readouterr().out
    assert "resamples of documents and runs" in text and "are about these runs" not in text
    (record,) = json.loads(output.read_text())
    assert (record["a"], record["b"], record["documents"]) == (files[:2], files[1:], 20)
    assert [row["metric"] for row in record["metrics"]][0] == "micro_f1" and len(record["most_different"]) == 10
    assert (record["metrics"][-1]["a"], record["metrics"][-1]["b"]) == (0.25, 0.75)


def test_the_csv_has_a_row_per_metric_and_system(files, tmp_path):
    output = tmp_path / "compare.csv"
    main(["compare", *files, "--resamples", "100", "--output", str(output)])
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14 and rows[7]["files_b"] == files[2]
    assert {"metric", "a", "b", "difference", "low", "high", "p_value", "p_holm", "documents", "seed"} < set(rows[0])


def test_what_cannot_be_compared_is_said_in_a_line(files, tmp_path, capsys):
    assert "nothing to compare with 1 system" in complaint(capsys, files[0])
    assert "give one file per system, or the runs" in complaint(capsys, files[0], "--a", files[1], "--b", files[2])
    assert "give one file per system, or the runs" in complaint(capsys, "--a", files[1])
    assert "none.jsonl do not exist" in complaint(capsys, files[0], str(tmp_path / "none.jsonl"))
    assert "its ending must be .json or .csv" in complaint(capsys, *files, "--output", str(tmp_path / "x.md"))
    assert not list(tmp_path.glob("x*"))
