import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from test_train import write_csv

from sgm_hf.cli import finetune, train
from sgm_hf.cli.study import main
from sgm_hf.programs import studies
from sgm_hf.programs.study_reports import METRICS
from sgm_hf.training.checkpoints import is_complete

TINY = {
    **dict.fromkeys(("embedding_size", "encoder_hidden_size", "decoder_hidden_size"), 16),
    "encoder_layers": 1,
    "dropout": 0.0,
    "learning_rate": 0.02,
    "num_train_epochs": 2,
}
SAMPLED = {"num_samples": 2, "learning_rate": 3e-3, "num_train_epochs": 1}


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run_here(command, **streams):
    """Run a command of the study in this process, which spares its start; other tests start it for real."""
    {"train": train, "finetune": finetune}[command[3]].main(command[4:])
    return 0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A configuration for a user's files, and the folder of the study trained with it."""
    folder = tmp_path_factory.mktemp("study")
    common = {
        "train_file": write_csv(folder / "train.csv", 60),
        "test_file": write_csv(folder / "test.csv", 20, seed=2),
        "num_beams": 2,
        "set_decoding": "best_sequence",
        "per_device_train_batch_size": 8,
    }
    config = {"common": common, "train": TINY, "orders": ["frequency", "shuffled"], "seeds": [1]}
    config["systems"] = {
        "likelihood": {},
        "likelihood_continued": {"after": "likelihood", "learning_rate": 3e-3, "num_train_epochs": 1},
        "self_critical": {"after": "likelihood", "method": "self_critical", **SAMPLED},
        "order_free": {"after": "likelihood", "method": "order_free", **SAMPLED},
    }
    config["search"] = [
        {"system": "order_free", "learning_rate": 1e-3},
        {"system": "self_critical", "likelihood_weight": 0.5},
    ]
    config["set_decodings"] = ["best_sequence", "threshold"]
    config["reports"] = ["table", "without_top_labels", "by_frequency", "climb"]
    (folder / "study.json").write_text(json.dumps(config))
    options = [str(folder / "study.json"), "--output_dir", str(folder / "runs")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "run_to_its_end", run_here)
        main(["train", *options])
        main(["search", *options, "--orders", "shuffled"])
    main(["report", str(folder / "runs"), "--output", str(folder / "report")])
    return folder


SYSTEMS = ("likelihood", "likelihood_continued", "self_critical", "order_free")


def read_json(*parts):
    return json.loads(parts[0].joinpath(*parts[1:]).read_text(encoding="utf-8"))


def test_every_system_is_trained_in_every_order_from_its_likelihood_model(study):
    for order in ("frequency", "shuffled"):
        folders = {system: study / "runs" / f"{system}_{order}" / "seed_1" for system in SYSTEMS}
        results = {system: read_json(folder, "all_results.json") for system, folder in folders.items()}
        start = results["likelihood"]["test_micro_f1"]
        assert results["self_critical"]["before_test_micro_f1"] == start
        assert results["order_free"]["before_test_micro_f1"] == start
        for system in ("likelihood_continued", "self_critical"):
            assert read_json(folders[system], "config.json")["label_order"] == order
        # The control starts from the trained weights, so its loss is below that of the first epoch from scratch.
        losses = {system: read_json(folders[system], "summary.json")["history"][0]["loss"] for system in SYSTEMS}
        assert losses["likelihood_continued"] < losses["likelihood"]


def test_the_table_holds_the_metrics_of_the_runs(study):
    rows = {(r["order"], r["system"], r["set_decoding"]): r for r in read_rows(study / "report" / "table.csv")}
    assert len(rows) == 16
    results = read_json(study, "runs", "order_free_shuffled", "seed_1", "all_results.json")
    for decoding in ("best_sequence", "threshold"):
        for metric in METRICS:
            found = float(rows["shuffled", "order_free", decoding][metric])
            assert found == pytest.approx(results[f"test_{decoding}_{metric}"], rel=1e-5)
    lines = (study / "report" / "table.md").read_text().splitlines()
    assert len(lines) == 18
    assert "%" not in lines[2] and lines[-1].count("% worse)") + lines[-1].count("% better)") == len(METRICS)
    # In each decoding a value of each metric is the best, or several that are equal.
    assert "".join(lines[2:10]).count("**") >= 2 * len(METRICS)


def test_the_figures_are_drawn_from_the_predictions(study):
    for name in ("without_top_labels", "by_frequency", "climb"):
        for ending in ("png", "svg", "csv"):
            assert (study / "report" / f"{name}.{ending}").stat().st_size > 100
    rows = read_rows(study / "report" / "table.csv")
    table = {(row["order"], row["system"]): row for row in rows if row["set_decoding"] == "best_sequence"}
    for row in read_rows(study / "report" / "without_top_labels.csv"):
        if row["removed"] == "0":
            assert row["micro_f1"] == table[row["order"], row["system"]]["micro_f1"]
    climb = read_rows(study / "report" / "climb.csv")
    fine_tuned = [float(row["epoch"]) for row in climb if (row["order"], row["system"]) == ("shuffled", "order_free")]
    assert len(fine_tuned) == 2 and fine_tuned[1] == fine_tuned[0] + 1


def test_the_search_compares_settings_on_the_validation_split_alone(study):
    rows = read_rows(study / "report" / "search.csv")
    assert [(row["method"], row["learning_rate"], row["baseline"], row["likelihood_weight"]) for row in rows] == [
        ("order_free", "0.001", "", "0"),
        ("self_critical", "0.003", "greedy", "0.5"),
    ]
    results = read_json(study, "runs", "search", "shuffled_0", "all_results.json")
    assert float(rows[0]["after_micro_f1"]) == pytest.approx(results["validation_best_sequence_micro_f1"], rel=1e-5)
    assert not any(name.startswith(("test_", "before_test_")) for name in results)
    table = [line.split("|")[1:-1] for line in (study / "report" / "search.md").read_text().splitlines()]
    assert len(table) == 4 and len({len(cells) for cells in table}) == 1
    assert float(table[3][-3]) == pytest.approx(float(rows[1]["after_micro_f1"]), abs=5e-5)


def test_finished_runs_are_skipped(study, monkeypatch):
    monkeypatch.setattr(studies, "run_to_its_end", lambda *_, **__: pytest.fail("a finished run ran again"))
    main(["train", str(study / "study.json"), "--output_dir", str(study / "runs")])


def test_a_study_killed_in_a_training_ends_with_the_weights_of_one_never_killed(study, tmp_path, monkeypatch):
    config = read_json(study, "study.json")
    config["systems"] = {name: config["systems"][name] for name in ("likelihood", "self_critical")}
    config["systems"]["self_critical"]["num_train_epochs"] = 10
    del config["search"]
    (tmp_path / "study.json").write_text(json.dumps(config))
    for folder in ("killed", "whole"):
        shutil.copytree(study / "runs" / "likelihood_frequency", tmp_path / folder / "likelihood_frequency")
    options = ["train", str(tmp_path / "study.json"), "--orders", "frequency", "--output_dir"]

    program = [sys.executable, "-m", "sgm_hf", "study", *options, str(tmp_path / "killed")]
    process = subprocess.Popen(program, start_new_session=True, stderr=subprocess.DEVNULL)
    run = tmp_path / "killed" / "self_critical_frequency" / "seed_1"
    deadline = time.monotonic() + 240
    while not any(map(is_complete, run.glob("checkpoint-*"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "summary.json").exists()
    monkeypatch.setattr(studies, "run_to_its_end", run_here)
    main([*options, str(tmp_path / "killed")])
    assert read_json(run.with_suffix(".json"))["resume_from_checkpoint"] == "true"
    assert len(read_json(run, "summary.json")["history"]) == 10

    main([*options, str(tmp_path / "whole")])
    whole = tmp_path / "whole" / "self_critical_frequency" / "seed_1" / "model.safetensors"
    assert (run / "model.safetensors").read_bytes() == whole.read_bytes()


def test_faults_are_reported(study, tmp_path):
    for name, message in (("none.json", "does not exist"), ("no_study", "no study .*sgm_global_embedding")):
        with pytest.raises(FileNotFoundError, match=message):
            main(["train", name, "--output_dir", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="holds no study"):
        main(["report", str(tmp_path), "--output", str(tmp_path / "report")])
    config = read_json(study, "study.json")
    config["common"] |= {"train_file": str(tmp_path / "absent.csv")}
    (tmp_path / "study.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match=r"failed; its log .*(\n.*)*absent\.csv"):
        main(["train", str(tmp_path / "study.json"), "--output_dir", str(tmp_path / "runs")])
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        main(["report", str(tmp_path / "runs")])
