import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_train import EXAMPLES, write_csv

from sgm_hf.cli import finetune, train
from sgm_hf.cli.study import main
from sgm_hf.programs import studies
from sgm_hf.programs.finetuning import TRAINERS, Seq2SetArguments
from sgm_hf.programs.options import parse_arguments
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
    search = [{"method": "order_free", "learning_rate": 1e-3}, {"method": "self_critical", "likelihood_weight": 0.5}]
    config = {"common": common, "likelihood": TINY, "order_free": SAMPLED, "self_critical": SAMPLED, "search": search}
    config["likelihood_continued"] = {"learning_rate": 3e-3, "num_train_epochs": 1}
    (folder / "study.json").write_text(json.dumps(config))
    options = [str(folder / "study.json"), "--output_dir", str(folder / "runs"), "--seeds", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "run_to_its_end", run_here)
        main(["train", *options])
        main(["search", *options, "--orders", "shuffled"])
    main(["report", str(folder / "runs"), "--output", str(folder / "report")])
    return folder


def test_every_system_is_trained_in_every_order_from_its_likelihood_model(study):
    for order in ("frequency", "shuffled"):
        results = {
            system: json.loads((study / "runs" / order / "seed_1" / system / "all_results.json").read_text())
            for system in studies.SYSTEMS
        }
        start = results["likelihood"]["test_micro_f1"]
        assert results["self_critical"]["before_test_micro_f1"] == start
        assert results["order_free"]["before_test_micro_f1"] == start
        for system in ("likelihood_continued", "self_critical"):
            config = json.loads((study / "runs" / order / "seed_1" / system / "config.json").read_text())
            assert config["label_order"] == order
        # The control starts from the trained weights, so its loss is below that of the first epoch from scratch.
        losses = {}
        for system in ("likelihood", "likelihood_continued"):
            history = json.loads((study / "runs" / order / "seed_1" / system / "summary.json").read_text())["history"]
            losses[system] = history[0]["loss"]
        assert losses["likelihood_continued"] < losses["likelihood"]


def test_the_table_holds_the_metrics_of_the_runs(study):
    rows = {(row["order"], row["system"]): row for row in read_rows(study / "report" / "table.csv")}
    assert len(rows) == 8
    results = json.loads((study / "runs" / "shuffled" / "seed_1" / "order_free" / "all_results.json").read_text())
    for metric in studies.METRICS:
        assert float(rows["shuffled", "order_free"][metric]) == pytest.approx(results[f"test_{metric}"], rel=1e-5)
    lines = (study / "report" / "table.md").read_text().splitlines()
    assert len(lines) == 10
    assert "%" not in lines[2] and lines[-1].count("% worse)") + lines[-1].count("% better)") == 6


def test_the_figures_are_drawn_from_the_predictions(study):
    for name in ("without_top_labels", "by_frequency", "climb"):
        for ending in ("png", "svg", "csv"):
            assert (study / "report" / f"{name}.{ending}").stat().st_size > 100
    table = {(row["order"], row["system"]): row for row in read_rows(study / "report" / "table.csv")}
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
    results = json.loads((study / "runs" / "search" / "shuffled" / "0" / "all_results.json").read_text())
    assert float(rows[0]["after_micro_f1"]) == pytest.approx(results["validation_best_sequence_micro_f1"], rel=1e-5)
    assert not any(name.startswith(("test_", "before_test_")) for name in results)
    table = [line.split("|")[1:-1] for line in (study / "report" / "search.md").read_text().splitlines()]
    assert len(table) == 4 and len({len(cells) for cells in table}) == 1
    assert float(table[3][-3]) == pytest.approx(float(rows[1]["after_micro_f1"]), abs=5e-5)


def test_finished_runs_are_skipped(study, monkeypatch):
    monkeypatch.setattr(studies, "run_to_its_end", lambda *_, **__: pytest.fail("a finished run ran again"))
    options = ["--output_dir", str(study / "runs"), "--seeds", "1"]
    main(["train", str(study / "study.json"), *options])


def test_a_study_killed_in_a_training_ends_with_the_weights_of_one_never_killed(study, tmp_path, monkeypatch):
    config = json.loads((study / "study.json").read_text())
    config = {name: config[name] for name in ("common", "likelihood", "self_critical")}
    config["self_critical"] = SAMPLED | {"num_train_epochs": 10}
    (tmp_path / "study.json").write_text(json.dumps(config))
    seed = Path("frequency", "seed_1")
    for folder in ("killed", "whole"):
        shutil.copytree(study / "runs" / seed / "likelihood", tmp_path / folder / seed / "likelihood")
    options = ["train", str(tmp_path / "study.json"), "--seeds", "1", "--orders", "frequency", "--output_dir"]

    program = [sys.executable, "-m", "sgm_hf", "study", *options, str(tmp_path / "killed")]
    process = subprocess.Popen(program, start_new_session=True, stderr=subprocess.DEVNULL)
    run = tmp_path / "killed" / seed / "self_critical"
    deadline = time.monotonic() + 240
    while not any(map(is_complete, run.glob("checkpoint-*"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "summary.json").exists()
    main([*options, str(tmp_path / "killed")])
    assert json.loads(run.with_suffix(".json").read_text())["resume_from_checkpoint"] == "true"
    assert len(json.loads((run / "summary.json").read_text())["history"]) == 10

    monkeypatch.setattr(studies, "run_to_its_end", run_here)
    main([*options, str(tmp_path / "whole")])
    whole = tmp_path / "whole" / seed / "self_critical" / "model.safetensors"
    assert (run / "model.safetensors").read_bytes() == whole.read_bytes()


def test_faults_are_reported(study, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        main(["train", str(tmp_path / "none.json"), "--output_dir", str(tmp_path)])
    for content, message in (("{", "line 1: not JSON"), ('{"commun": {}}', "commun"), ("{}", "has no 'common'")):
        (tmp_path / "faulty.json").write_text(content)
        with pytest.raises(ValueError, match=f"faulty.json.*{message}"):
            main(["train", str(tmp_path / "faulty.json"), "--output_dir", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        main(["report", str(tmp_path), "--output", str(tmp_path / "report")])
    config = json.loads((study / "study.json").read_text())
    config["common"] |= {"train_file": str(tmp_path / "absent.csv")}
    (tmp_path / "study.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match=r"failed; its log .*(\n.*)*absent\.csv"):
        main(["train", str(tmp_path / "study.json"), "--output_dir", str(tmp_path / "runs")])


@pytest.mark.parametrize("path", sorted((EXAMPLES / "configs").glob("study_*.json")), ids=lambda path: path.stem)
def test_settings_of_the_studies_are_known_to_the_programs(path, tmp_path):
    config = json.loads(path.read_text())
    trainings = [(system, config["common"] | config[system]) for system in studies.SYSTEMS if system in config]
    trainings += [
        (tried["method"], config["common"] | config[tried["method"]] | tried) for tried in config.get("search", [])
    ]
    for number, (system, settings) in enumerate(trainings):
        own = tmp_path / f"{number}.json"
        own.write_text(json.dumps(settings | {"output_dir": str(tmp_path)}))
        training_class = {"training_class": Seq2SetArguments} if system in TRAINERS else {}
        _, data_args, _ = parse_arguments([str(own)], **training_class)
        assert data_args.dataset_name == Path(path).stem.removeprefix("study_")
