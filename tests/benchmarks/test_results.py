import csv
import importlib.util
import json
from pathlib import Path

import pytest

from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.programs.studies import Study, write_record

SOURCE = Path(__file__).parents[2] / "benchmarks" / "results.py"


@pytest.fixture
def results(tmp_path):
    """The program as a module that keeps its CSV in a temporary folder."""
    spec = importlib.util.spec_from_file_location("results", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.RESULTS = tmp_path / "results.csv"
    return module


def write_run(folder: Path, micro_f1: float, seed: int = 3, bf16: bool = True) -> Path:
    """The summary of a run, as `sgm-hf train` writes it."""
    names = ("micro_precision", "micro_recall", "macro_f1", "macro_f1_of_means", "samples_f1")
    metrics = {name: 0.5 for name in names} | {"micro_f1": micro_f1, "hamming_loss": 0.01, "zero_one_loss": 0.25}
    each = {f"{decoding}_{name}": value for decoding in SET_DECODINGS for name, value in metrics.items()}
    summary = {
        "data": {"name": "corpus", "test_documents": 7},
        "model": {},
        "generation": {"set_decoding": "threshold"},
        "settings": {"seed": seed, "bf16": bf16},
        "training": {"seconds": 120.0, "best_epoch": 2.0},
        "machine": {"cpu": "c", "cores": 2, "threads": 1, "accelerator": None},
        "versions": {"torch": "t", "transformers": "f"},
        "metrics": {"test": each | {"label_threshold": 0.3, "ece": 0.0123456, "nll": 2.5}},
    }
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_added_runs_become_rows_and_the_table_shows_them(results, tmp_path):
    results.add(write_run(tmp_path / "a", 0.8125), "examples/configs/a.json")
    results.add(write_run(tmp_path / "b", 0.75), "examples/configs/b.json")
    with results.RESULTS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["config"], row["set_decoding"]) for row in rows] == [
        ("examples/configs/a.json", "best_sequence"),
        ("examples/configs/a.json", "threshold"),
        ("examples/configs/a.json", "expected_f1"),
        ("examples/configs/b.json", "best_sequence"),
        ("examples/configs/b.json", "threshold"),
        ("examples/configs/b.json", "expected_f1"),
    ]
    assert {(row["ece"], row["nll"], row["brier"]) for row in rows} == {("0.01235", "2.5", "")}
    assert {row["seed"] for row in rows} == {"3"} and {row["training_minutes"] for row in rows} == {"2.0"}
    table = results.table().splitlines()
    assert len(table) == 2 + 6
    assert table[2].startswith("| `a.json` | bf16 | test | `best_sequence` | 1 | 0.812 |")


def test_seeds_of_a_configuration_share_a_line_and_precisions_do_not(results, tmp_path):
    for number, (micro_f1, seed, bf16) in enumerate([(0.5, 1, True), (0.6, 2, True), (0.7, 3, True), (0.9, 1, False)]):
        results.add(write_run(tmp_path / str(number), micro_f1, seed, bf16), "examples/configs/a.json")
    table = results.table().splitlines()
    assert len(table) == 2 + 6
    assert table[2].startswith("| `a.json` | bf16 | test | `best_sequence` | 3 | 0.600 ± 0.100 | 0.500 ± 0.000 |")
    assert table[5].startswith("| `a.json` | fp32 | test | `best_sequence` | 1 | 0.900 | 0.500 |")


def test_a_run_that_is_there_is_not_added_again(results, tmp_path):
    run = write_run(tmp_path / "a", 0.8125)
    assert results.add(run, "a.json") == 3
    assert results.add(run, "a.json") == 0
    assert results.add(run, "b.json") == 3
    assert len(results.read_rows()) == 6


def test_a_row_says_how_and_of_which_documents_it_was_made(results, tmp_path):
    run = write_run(tmp_path / "a", 0.8125)
    (run / "predictions_test.jsonl").write_text('{"id": 1, "gold": ["b", "a"], "labels": ["b"]}\n')
    summary = json.loads((run / "summary.json").read_text())
    summary["model"] = {"baseline": "br_svm"}
    summary["training"]["tuning_seconds"] = 600.0
    (run / "summary.json").write_text(json.dumps(summary))
    results.add(run, "a b.json")
    row = results.read_rows()[0]
    assert (row["command"], row["tuning_minutes"]) == ("sgm-hf baseline br_svm 'a b.json'", "10.0")
    assert (row["chosen_decoding"], row["system"]) == ("threshold", "")
    of_same = tmp_path / "same.jsonl"
    of_same.write_text('{"id": 1, "gold": ["a", "b"], "labels": []}\n')
    assert row["data_hash"] == results.data_hash(of_same) != ""
    of_same.write_text('{"id": 1, "gold": ["a"], "labels": ["b"]}\n')
    assert row["data_hash"] != results.data_hash(of_same)


def test_a_study_gives_a_row_of_each_run_and_its_table_the_best_mean_in_bold(results, tmp_path):
    config = {"systems": {"SGM": {}, "SGM+GE": {}, "BR": {"baseline": "br_svm"}}}
    study = Study(config, tmp_path / "runs", "generated")
    study.output_dir.mkdir()
    write_record(study)
    for system, seed, micro_f1 in (("SGM", 1, 0.5), ("SGM", 2, 0.7), ("SGM+GE", 1, 0.65)):
        write_run(study.folder_of(system, None, seed), micro_f1, seed)
    results.add(study.output_dir, "own_study")
    rows = results.read_rows()
    assert len(rows) == 9 and rows[0]["config"] == "own_study"
    assert rows[3]["command"] == ("sgm-hf study train own_study --systems SGM --seeds 2 --dataset_name generated")
    lines = results.study_table("own_study").splitlines()
    assert [line.split(" | ")[2:7] for line in lines[2:4]] == [
        ["its own", "SGM+GE", "bf16", "1", "**0.650**"],
        ["its own", "SGM", "bf16", "2", "0.600 ± 0.141"],
    ]
    assert [line.split(" | ")[2] for line in lines[4:]] == ["best_sequence"] * 2
    assert results.table().count("\n") == 1  # what is of a study is in that table alone
    page = "a\n<!-- results own_study -->\nold\n<!-- end of results -->\nb\n"
    assert results.with_tables(page) == page.replace("old", "\n".join(lines))
    corpus = rows[0]["data"]
    of_corpus = results.study_table("own_study", corpus).splitlines()
    assert of_corpus[2:] == [f"| {' | '.join(line.split(' | ')[2:])}" for line in lines[2:]]
    page = f"<!-- results own_study {corpus} -->\nold\n<!-- end of results -->\n<!-- results own_study other -->\n"
    page += "old\n<!-- end of results -->\n"
    page_now = page.replace("old", "\n".join(of_corpus), 1).replace("old", "\n".join(of_corpus[:2]))
    assert results.with_tables(page) == page_now


def test_the_pages_have_the_tables_of_the_rows_that_are_kept(results):
    results.RESULTS = SOURCE.with_name("results.csv")
    marked = [page for page in results.pages() if results.BLOCK.search(page.read_text(encoding="utf-8"))]
    assert SOURCE.parents[1] / "docs" / "results.md" in marked
    for page in marked:
        text = page.read_text(encoding="utf-8")
        assert results.with_tables(text) == text, f"python benchmarks/results.py tables rewrites {page.name}"


def test_the_rows_that_are_kept_have_the_columns_that_are_added(results):
    with SOURCE.with_name("results.csv").open(newline="") as file:
        reader = csv.reader(file)
        assert tuple(next(reader)) == results.COLUMNS
        assert {len(row) for row in reader} == {len(results.COLUMNS)}
