import json
import subprocess
import sys

import pytest

from sgm_hf.baselines import BASELINES
from sgm_hf.programs import studies
from sgm_hf.programs.baseline import settings_to_try
from sgm_hf.programs.options import parse_arguments
from sgm_hf.programs.studies import Study, read_study, search_settings, study_names, train_study
from sgm_hf.training import SGMTrainingArguments
from sgm_hf.training.interruption import Interrupted

CONFIG = {
    "common": {"validation_split_size": 0.2},
    "train": {"preset": "fast", "num_train_epochs": 3},
    "after": {"learning_rate": 0.001},
    "baseline": {"max_length": 9},
    "corpora": {"generated": {"train": {"num_train_epochs": 2}, "common": {"max_train_samples": 50}}},
    "systems": {
        "RL": {"after": "SGM+GE", "method": "self_critical", "seeds": [1, 2]},
        "SGM+GE": {"label_feedback": "global_embedding"},
        "BR": {"baseline": "br_svm", "seeds": [1]},
    },
    "seeds": [1, 2, 3],
}


def make_study(tmp_path, config=CONFIG, corpus="generated"):
    return Study(json.loads(json.dumps(config)), tmp_path / "runs", corpus)


@pytest.fixture
def program(monkeypatch):
    """The commands that would have run; each writes the summary of a run of 120 seconds, but for those that fail."""
    calls = []

    def run(command, **streams):
        calls.append(command[3:])
        settings = json.loads(open(command[-1], encoding="utf-8").read())
        if (program.end or (lambda _: None))(settings):
            return 1
        folder = studies.Path(settings["output_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_text(json.dumps({"training": {"seconds": 120.0}}))
        return 0

    program = type("Program", (), {"calls": calls, "end": None})()
    monkeypatch.setattr(studies, "run_to_its_end", run)
    return program


def ran(program):
    """Program and folder of each run, in their order."""
    return [(words[0], "/".join(studies.Path(words[-1]).with_suffix("").parts[-2:])) for words in program.calls]


def test_a_system_has_the_settings_of_all_of_its_kind_of_its_corpus_and_its_own(tmp_path):
    study = make_study(tmp_path)
    common = {"validation_split_size": 0.2, "max_train_samples": 50, "seed": 2, "dataset_name": "generated"}
    done = {"do_train": True, "do_eval": True, "do_predict": True}
    run = study.run_of("SGM+GE", None, 2)
    assert run.settings == common | done | {
        "preset": "fast",
        "num_train_epochs": 2,
        "label_feedback": "global_embedding",
    }
    assert run.program == "train" and run.folder == tmp_path / "runs" / "sgm_ge" / "seed_2"
    base = {"model_name_or_path": str(run.folder), "method": "self_critical", "learning_rate": 0.001}
    assert study.run_of("RL", None, 2).settings == common | done | base
    assert study.run_of("RL", None, 2).program == "finetune"
    run = study.run_of("BR", None, 2)
    assert run.settings == common | {"baseline": "br_svm", "max_length": 9}
    assert "baseline" not in run.program_settings
    config = CONFIG | {"corpora": {"generated": {"systems": {"SGM+GE": {"preset": "balanced"}}}}}
    assert make_study(tmp_path, config).run_of("SGM+GE", None, 2).settings["preset"] == "balanced"
    assert make_study(tmp_path, config, "aapd").run_of("SGM+GE", None, 2).settings["preset"] == "fast"
    other = make_study(tmp_path, corpus="aapd").run_of("SGM+GE", None, 2)
    assert other.settings["num_train_epochs"] == 3 and "max_train_samples" not in other.settings


def test_a_system_runs_after_the_one_it_goes_on_from_and_with_seeds_of_its_own(tmp_path, program):
    train_study(make_study(tmp_path))
    assert ran(program) == [
        ("train", "sgm_ge/seed_1"),
        ("baseline", "br/seed_1"),
        ("finetune", "rl/seed_1"),
        ("train", "sgm_ge/seed_2"),
        ("finetune", "rl/seed_2"),
        ("train", "sgm_ge/seed_3"),
    ]
    assert program.calls[1][:2] == ["baseline", "br_svm"]


def test_a_study_that_was_ended_in_a_run_goes_on_with_that_run(tmp_path, program):
    def interrupt(settings):
        if settings["output_dir"].endswith("rl/seed_1"):
            raise Interrupted(15)

    program.end = interrupt
    with pytest.raises(Interrupted):
        train_study(make_study(tmp_path))
    program.end = None
    program.calls.clear()
    train_study(make_study(tmp_path))
    assert ran(program)[0] == ("finetune", "rl/seed_1") and len(program.calls) == 4
    program.calls.clear()
    train_study(make_study(tmp_path))
    assert program.calls == []


def test_systems_and_seeds_can_be_chosen_and_come_with_what_they_go_on_from(tmp_path, program):
    train_study(make_study(tmp_path), systems=["RL"], seeds=[2])
    assert ran(program) == [("train", "sgm_ge/seed_2"), ("finetune", "rl/seed_2")]
    with pytest.raises(ValueError, match="no system 'SGM'; it has RL, SGM"):
        train_study(make_study(tmp_path), systems=["SGM"])
    with pytest.raises(ValueError, match="does not compare label orders"):
        train_study(make_study(tmp_path), orders=["shuffled"])


def test_a_baseline_is_tuned_with_its_first_seed_alone(tmp_path, program):
    def end(settings):
        if "/cnn/" in settings["output_dir"]:
            grids.append((settings["seed"], settings.get("grid")))
            chosen = {"dropout": 0.3, "filter_sizes": [3, 4], "encoder_name_or_path": None, "seed": settings["seed"]}
            folder = studies.Path(settings["output_dir"])
            folder.mkdir(parents=True)
            (folder / "baseline.json").write_text(json.dumps({"baseline": "cnn", "settings": chosen}))

    grids = []
    program.end = end
    config = {"systems": {"CNN": {"baseline": "cnn"}, "LP": {"baseline": "lp", "seeds": [2]}}, "seeds": [1, 2]}
    study = make_study(tmp_path, config)
    train_study(study, systems=["CNN"], seeds=[2])
    chosen = {"dropout": [0.3], "filter_sizes": [[3, 4]], "encoder_name_or_path": [None]}
    assert grids == [(1, None), (2, chosen)]
    assert study.run_of("LP", None, 2).after is None
    # Tuned anew with another outcome, the other seeds are no longer of the same settings.
    record = study.folder_of("CNN", None, 1) / "baseline.json"
    record.write_text(record.read_text().replace("0.3", "0.5"))
    with pytest.raises(ValueError, match="CNN, seed 2 is finished .*grid: "):
        train_study(study)


@pytest.mark.parametrize("name", BASELINES)
def test_the_settings_of_a_tuned_baseline_are_a_grid_of_one(name):
    settings = json.loads(json.dumps(BASELINES[name]().settings))
    del settings["seed"]
    assert len(settings_to_try(BASELINES[name], {key: [value] for key, value in settings.items()})) == 1


def test_a_finished_run_with_other_settings_is_refused_and_named(tmp_path, program):
    train_study(make_study(tmp_path), seeds=[1])
    program.calls.clear()
    config = json.loads(json.dumps(CONFIG))
    config["systems"]["SGM+GE"]["dropout"] = 0.25
    config["corpora"]["generated"]["train"]["num_train_epochs"] = 4
    message = r"SGM\+GE, seed 1 is finished .*dropout: not set → 0.25; num_train_epochs: 2 → 4"
    # Also where other seeds are asked for: their runs could not be compared.
    with pytest.raises(ValueError, match=message):
        train_study(make_study(tmp_path, config), seeds=[2])
    with pytest.raises(ValueError, match="has runs on generated, not on aapd|dataset_name: generated → aapd"):
        train_study(make_study(tmp_path, corpus="aapd"))
    (tmp_path / "runs" / "br" / "seed_1" / "baseline.json").write_text('{"baseline": "cc"}')
    with pytest.raises(ValueError, match="BR, seed 1 .*baseline: cc → br_svm"):
        train_study(make_study(tmp_path))
    assert program.calls == []


def test_a_study_may_be_moved_and_its_corpus_too(tmp_path, program):
    study = make_study(tmp_path)
    study.data_dir = tmp_path / "here"
    train_study(study)
    (tmp_path / "runs").rename(tmp_path / "moved")
    program.calls.clear()
    train_study(Study(study.config, tmp_path / "moved", "generated", tmp_path / "there"))
    assert program.calls == []


def test_a_fault_in_the_settings_of_the_last_system_is_found_before_the_first_is_trained(tmp_path, program):
    config = json.loads(json.dumps(CONFIG))
    config["systems"]["RL"]["learning_rate"] = "fast"
    with pytest.raises(ValueError, match="system 'RL': .*learning_rate.*'fast'"):
        train_study(make_study(tmp_path, config))
    config["systems"]["RL"] = {"after": "SGM+GE", "method": "self_critical", "droput": 0.1}
    with pytest.raises(ValueError, match="system 'RL': its part sets droput"):
        train_study(make_study(tmp_path, config))
    for own, message in (
        ({"baseline": "svm"}, "no baseline 'svm'"),
        ({"baseline": "br_svm", "grid": {"c": 1}}, "'c'"),
    ):
        config["systems"] = {"SGM": {}, "BR": own}
        with pytest.raises(ValueError, match=f"system 'BR': .*{message}"):
            train_study(make_study(tmp_path, config))
    assert program.calls == []


def test_a_run_that_fails_ends_the_study_with_the_end_of_its_log(tmp_path, monkeypatch):
    def fail(command, stdout, **streams):
        stdout.write("some lines\nno room on the disk\n")
        return 1

    monkeypatch.setattr(studies, "run_to_its_end", fail)
    with pytest.raises(RuntimeError, match=r"sgm_ge.seed_1 failed(.*\n)*no room on the disk"):
        train_study(make_study(tmp_path))


def test_the_time_left_is_that_of_finished_runs_of_the_same_systems(tmp_path, program):
    study = make_study(tmp_path)
    runs = study.runs()
    done = {study.folder_of("SGM+GE", None, 1): 4.0, study.folder_of("BR", None, 1): 1.0}
    # Two runs of SGM+GE as long as the first, and two of RL as long as both on average.
    assert studies.minutes_left(runs, done) == pytest.approx(2 * 4.0 + 2 * 2.5)
    assert studies.minutes_left(runs, {}) is None


def test_progress_is_said_before_each_run(tmp_path, program, caplog):
    caplog.set_level("INFO")
    train_study(make_study(tmp_path), seeds=[1])
    lines = [record.message for record in caplog.records]
    assert lines[0] == "0 of 3 runs are finished; now SGM+GE, seed 1"
    assert lines[1].startswith("1 of 3 runs are finished, about 0 min left; now BR")
    assert lines[-1] == "all 3 runs are finished"


def test_a_run_that_another_process_is_at_is_left_to_it_with_those_that_go_on_from_it(tmp_path, program, caplog):
    place = tmp_path / "runs" / "sgm_ge" / "seed_1.running"
    place.mkdir(parents=True)
    code = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(place / "_lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        train_study(make_study(tmp_path), seeds=[1, 2])
        other.stdin.close()
    assert ran(program) == [("baseline", "br/seed_1"), ("train", "sgm_ge/seed_2"), ("finetune", "rl/seed_2")]
    message = caplog.records[-1].message
    assert message.startswith("2 of 5 runs are left to another process that is at them: SGM+GE, seed 1; RL, seed 1.")
    train_study(make_study(tmp_path), seeds=[1, 2])
    assert ran(program)[3:] == [("train", "sgm_ge/seed_1"), ("finetune", "rl/seed_1")]
    assert not list((tmp_path / "runs").rglob("*.running"))


def test_orders_make_a_run_each_and_settings_are_tried_from_the_first_seed(tmp_path, program):
    config = {
        "systems": {"ml": {}, "rl": {"after": "ml", "method": "self_critical"}},
        "orders": ["frequency", "shuffled"],
        "seeds": [5, 6],
        "search": [{"system": "rl", "learning_rate": 0.1}, {"system": "rl"}],
    }
    study = make_study(tmp_path, config)
    search_settings(study, ["shuffled"])
    assert ran(program) == [("train", "ml_shuffled/seed_5"), *(("finetune", f"search/shuffled_{n}") for n in (0, 1))]
    settings = json.loads((tmp_path / "runs" / "search" / "shuffled_0.json").read_text())
    assert settings["learning_rate"] == 0.1 and settings["do_predict"] is False
    assert settings["model_name_or_path"] == str(study.folder_of("ml", "shuffled", 5))
    assert study.run_of("ml", "shuffled", 5).settings["label_order"] == "shuffled"
    train_study(study)
    assert len(program.calls) == 3 + 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1: not JSON"),
        ('{"commun": {}}', "commun"),
        ("{}", "no 'systems'"),
        ('{"systems": {"a": {"after": "b"}}}', "'a' goes on from 'b'"),
        ('{"systems": {"a": {}, "b": {"after": "a"}, "c": {"after": "b"}}}', "'c' goes on from 'b'"),
        ('{"systems": {"a": {"method": "x"}}}', "method 'x'"),
        ('{"systems": {"a b": {}, "a+b": {}}}', r"'a\+b' has no folder of its own"),
        ('{"systems": {"λ": {}}}', "'λ' has no folder of its own"),
        ('{"systems": {"a": {"reference": "b"}}}', "reference 'b' of system 'a'"),
        ('{"systems": {"a": {}}, "corpora": {"c": {"systems": {"b": {}}}}}', "corpus 'c' has settings of 'b'"),
        (
            '{"systems": {"a": {}}, "corpora": {"c": {"systems": {"a": {"after": "a"}}}}}',
            "changes what the system 'a' is",
        ),
        ('{"systems": {"a": {}}, "shown": ["b"]}', "shown 'b'"),
        ('{"systems": {"a": {}}, "reports": ["pie"]}', "no report 'pie'"),
        ('{"systems": {"a": {}}, "search": [{"system": "a"}]}', "search tries"),
    ],
)
def test_a_settings_file_that_no_study_can_follow_is_refused(content, message, tmp_path):
    path = tmp_path / "faulty.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"faulty.json.*{message}"):
        read_study(path)


@pytest.mark.parametrize("name", study_names())
def test_settings_of_the_studies_are_known_to_the_programs(name, tmp_path):
    config = read_study(name)
    first, *others = config.get("corpora", {}) or [None]
    study = make_study(tmp_path, config, first)
    tried = [run for order in study.orders[:1] for run in study.search_runs(order)]
    studies.refuse_faulty_settings(study.runs(orders=study.orders[:1] if "orders" in config else None) + tried)
    # Corpora differ in what all systems of a kind have: one of each is enough.
    systems = {config["systems"][system].get("baseline", ""): system for system in config["systems"]}
    for corpus in others:
        runs = make_study(tmp_path, config, corpus).runs(systems=list(systems.values())[:2], seeds=[1])
        studies.refuse_faulty_settings(runs)


@pytest.mark.parametrize("corpus", ["reuters21578", "goemotions", "aapd", "generated"])
def test_a_system_of_several_studies_of_the_sgm_paper_is_the_same_run(corpus, tmp_path):
    found = {}
    for name in ("sgm_global_embedding", "sgm_table_2", "sgm_lambda", "sgm_ablation"):
        for system in ("SGM", "SGM+GE"):
            run = make_study(tmp_path, read_study(name), corpus).run_of(system, None, 1)
            assert found.setdefault(system, run) == run


def test_the_systems_of_the_global_embedding_differ_in_nothing_else(tmp_path):
    study = make_study(tmp_path, read_study("sgm_global_embedding"), "reuters21578")
    found = []
    for run in study.runs(seeds=[1]):
        path = tmp_path / "settings.json"
        path.write_text(json.dumps(run.program_settings | {"output_dir": str(tmp_path / "out")}))
        found.append([vars(part) for part in parse_arguments([str(path)], SGMTrainingArguments)])
    differing = [
        (name, part[name], other[name])
        for part, other in zip(*found, strict=True)
        for name in part
        if str(part[name]) != str(other[name])
    ]
    assert differing == [("label_feedback", "previous_label", "global_embedding")]
