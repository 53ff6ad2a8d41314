import csv
import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, hamming_loss, matthews_corrcoef

from sgm_hf.metrics import compute_ranking_metrics, compute_score_metrics
from sgm_hf.programs import study_reports
from sgm_hf.programs.studies import REPORTS, Study, write_record
from sgm_hf.programs.study_cases import chosen_rows
from sgm_hf.programs.study_reports import report_study

LABELS = ["zoo", "art", "music", "law", "tax"]  # in the order of their frequency in training
CONFIG = {
    "systems": {
        "BR": {"baseline": "br_svm", "seeds": [1]},
        "SGM": {},
        "SGM, λ = 0.5": {"label_feedback": "fixed_mixture"},
        "SGM+GE": {"label_feedback": "global_embedding", "reference": "SGM"},
    },
    "seeds": [1, 2],
    "reference": "BR",
    "shown": ["BR", "SGM+GE"],
    "set_decodings": ["labels", "best_sequence"],
    "reports": ["table", "ranking", "differences", "lambda", "set_sizes", "correlations", "cases", "positions"],
}
MODELS = {
    "SGM": {"label_feedback": "previous_label", "mixture_lambda": 0.5},
    "SGM, λ = 0.5": {"label_feedback": "fixed_mixture", "mixture_lambda": 0.5},
    "SGM+GE": {"label_feedback": "global_embedding", "mixture_lambda": 0.5},
}
NUMBER = 60


def named(matrix):
    return [[LABELS[label] for label in np.flatnonzero(row)] for row in matrix]


def write_runs(folder, config=CONFIG):
    """Finish the runs of a study; returns true labels, and predictions by system, seed and field."""
    study = Study(json.loads(json.dumps(config)), folder)
    write_record(study)
    random = np.random.default_rng(0)
    truth = random.random((NUMBER, 5)) < [0.6, 0.4, 0.4, 0.2, 0.2]
    truth[:, 3] |= truth[:, 1] & (random.random(NUMBER) < 0.7)
    predicted = {}
    for run in study.runs():
        run.folder.mkdir(parents=True)
        run.settings_file.write_text(json.dumps(run.program_settings))
        sets = {field: truth ^ (random.random(truth.shape) < 0.15) for field in ("labels", "best_sequence")}
        predicted |= {(run.system, run.seed, field): matrix for field, matrix in sets.items()}
        lines = [
            {"id": f"d{row}", "gold": gold, "labels": labels, "best_sequence": sequence[::-1]}
            for row, (gold, labels, sequence) in enumerate(zip(*map(named, (truth, *sets.values())), strict=True))
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run.folder / "predictions_test.jsonl").write_text(text)
        summary = {"training": {"seconds": 90.0 * run.seed}, "model": MODELS.get(run.system, {"baseline": "br_svm"})}
        scores = np.random.default_rng(len(predicted)).random(truth.shape) * 2 + truth
        measured = compute_ranking_metrics(truth, scores) | compute_score_metrics(truth, scores / 3)
        summary["metrics"] = {"test": measured if (run.system, run.seed) != ("SGM", 2) else {}}  # an older run
        (run.folder / "summary.json").write_text(json.dumps(summary))
        if run.program == "baseline":
            record = {"baseline": "br_svm", "label_names": sorted(LABELS)}
            (run.folder / "baseline.json").write_text(json.dumps(record))
        else:
            config = {"id2label": dict(enumerate(LABELS)), "label_order": "frequency"}
            (run.folder / "config.json").write_text(json.dumps(config))
    return truth, predicted


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the reports, true labels and predictions."""
    folder = tmp_path_factory.mktemp("study")
    truth, predicted = write_runs(folder / "runs")
    report_study(folder / "runs", folder / "report")
    return folder / "report", truth, predicted


def test_the_table_has_the_metrics_of_scikit_learn_for_each_run_and_its_minutes(made):
    report, truth, predicted = made
    rows = read_rows(report / "table.csv")
    assert len(rows) == 2 * (1 + 3 * 2) and "order" not in rows[0]
    for row in rows:
        matrix = predicted[row["system"], int(row["seed"]), row["set_decoding"]]
        assert float(row["micro_f1"]) == pytest.approx(f1_score(truth, matrix, average="micro"), rel=1e-5)
        assert float(row["macro_f1"]) == pytest.approx(f1_score(truth, matrix, average="macro"), rel=1e-5)
        assert float(row["hamming_loss"]) == pytest.approx(hamming_loss(truth, matrix), rel=1e-5)
        assert float(row["minutes"]) == 1.5 * int(row["seed"]) and row["documents"] == "60"


def test_the_best_mean_of_each_metric_and_decoding_is_bold(made):
    report, truth, predicted = made
    lines = (report / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    column = cells[0].index("micro-F1")
    for field in ("labels", "best_sequence"):
        own = [row for row in cells[2:] if row[0] == field]
        means = {}
        for row in own:
            seeds = (1,) if row[1] == "BR" else (1, 2)
            scores = [f1_score(truth, predicted[row[1], seed, field], average="micro") for seed in seeds]
            means[row[1]] = np.mean(scores)
        assert [row[1] for row in own if row[column].startswith("**")] == [max(means, key=means.get)]
    assert {row[2] for row in cells[2:] if row[1] == "SGM"} == {"2"}


def test_the_ranking_is_what_the_runs_have_measured_with_the_best_mean_in_bold(made):
    report = made[0]
    rows = read_rows(report / "ranking.csv")
    assert [(row["system"], row["seed"]) for row in rows] == [
        *[("BR", "1"), ("SGM", "1")],  # the second run of SGM has not measured it
        *[(system, seed) for system in ("SGM, λ = 0.5", "SGM+GE") for seed in "12"],
    ]
    summary = json.loads((report.parent / "runs" / "sgm_ge" / "seed_2" / "summary.json").read_text())
    measured = summary["metrics"]["test"]
    assert {name: float(rows[-1][name]) for name in measured} == pytest.approx(measured, rel=1e-5)
    cells = [line.split("|")[1:-1] for line in (report / "ranking.md").read_text().splitlines()]
    for metric, title, best in (("lrap", " LRAP ", max), ("ece", " ECE ", min)):
        means = {}
        for row in rows:
            means.setdefault(row["system"], []).append(float(row[metric]))
        means = {system: np.mean(values) for system, values in means.items()}
        column = cells[0].index(title)
        assert [row[0].strip() for row in cells[2:] if "**" in row[column]] == [best(means, key=means.get)]


def test_differences_are_those_of_the_means_to_the_reference_of_each_system(made):
    report, truth, predicted = made
    rows = read_rows(report / "differences.csv")
    pairs = {(row["system"], row["reference"]) for row in rows}
    assert pairs == {("SGM", "BR"), ("SGM, λ = 0.5", "BR"), ("SGM+GE", "SGM")}

    def mean(system, field):
        runs = [m for (name, _, kind), m in predicted.items() if (name, kind) == (system, field)]
        return np.mean([f1_score(truth, matrix, average="micro") for matrix in runs])

    for row in rows:
        if row["metric"] == "micro_f1":
            expected = mean(row["system"], row["set_decoding"]) - mean(row["reference"], row["set_decoding"])
            assert float(row["difference"]) == pytest.approx(expected, abs=1e-6)
            assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    text = (report / "differences.md").read_text()
    assert "SGM+GE - SGM" in text and "60 documents" in text and "42 differences" in text


def test_lambda_is_that_of_each_model_and_the_gate_stands_apart(made):
    rows = read_rows(made[0] / "lambda.csv")
    assert [(row["system"], row["mixture_lambda"]) for row in rows] == [
        *[("SGM", "0")] * 2,
        *[("SGM, λ = 0.5", "0.5")] * 2,
        *[("SGM+GE", "gate")] * 2,
    ]
    truth, predicted = made[1:]
    expected = f1_score(truth, predicted["SGM+GE", 2, "labels"], average="micro")
    assert float(rows[-1]["micro_f1"]) == pytest.approx(expected, rel=1e-5)


def test_set_sizes_are_those_of_the_true_labels_of_the_systems_shown(made):
    report, truth, predicted = made
    rows = read_rows(report / "set_sizes.csv")
    assert {row["system"] for row in rows} == {"BR", "SGM+GE"}
    largest = max(int(row["size"]) for row in rows)
    assert (truth.sum(axis=1) >= largest).sum() >= 20
    for row in rows:
        chosen = np.minimum(truth.sum(axis=1), largest) == int(row["size"])
        matrix = predicted[row["system"], int(row["seed"]), "labels"][chosen]
        expected = f1_score(truth[chosen], matrix, average="micro", zero_division=0)
        assert float(row["micro_f1"]) == pytest.approx(expected, rel=1e-5)
        assert int(row["documents"]) == chosen.sum()


def test_correlations_are_phi_coefficients_of_truth_and_of_the_mean_over_seeds(made):
    report, truth, predicted = made
    rows = read_rows(report / "correlations.csv")
    assert len(rows) == 10
    for row in rows:
        a, b = LABELS.index(row["label"]), LABELS.index(row["other"])
        assert float(row["true labels"]) == pytest.approx(matthews_corrcoef(truth[:, a], truth[:, b]), rel=1e-5)
        own = [predicted["SGM+GE", seed, "labels"] for seed in (1, 2)]
        expected = np.mean([matthews_corrcoef(matrix[:, a], matrix[:, b]) for matrix in own])
        assert float(row["SGM+GE"]) == pytest.approx(expected, rel=1e-5)


def test_cases_are_documents_on_which_systems_differ_and_show_hits_and_misses(made):
    report, truth, predicted = made
    sets = [predicted["BR", 1, "labels"], predicted["SGM+GE", 1, "labels"]]
    rows = chosen_rows(truth, sets)
    wrong = [(truth ^ matrix).sum(axis=1) for matrix in sets]
    spread = np.abs(wrong[0] - wrong[1])
    assert sorted(spread[rows], reverse=True) == list(spread[rows]) and spread[rows[0]] == spread.max()
    lines = (report / "cases.md").read_text().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == [f"d{row}" for row in rows]
    for line, row in zip(lines, rows, strict=True):
        for cell, matrix in zip(line.split("|")[3:5], sets, strict=True):
            assert cell.count("~~") == 2 * (matrix[row] & ~truth[row]).sum()
            missed = (truth[row] & ~matrix[row]).sum()
            assert (f"({missed} missed)" in cell) == bool(missed)
    page = (report / "cases.html").read_text()
    assert page.count("<table>") == len(rows) and 'class="wrong"' in page


def test_places_are_compared_with_the_order_of_training(made):
    report, truth, predicted = made
    rows = read_rows(report / "positions.csv")
    assert {row["system"] for row in rows} == {"SGM", "SGM, λ = 0.5", "SGM+GE"}
    for row in rows:
        deviations = []
        for true, found in zip(truth, predicted[row["system"], int(row["seed"]), "best_sequence"], strict=True):
            gold = list(np.flatnonzero(true))
            sequence = list(np.flatnonzero(found))[::-1]  # as the runs were written
            deviations += [abs(gold.index(label) - sequence.index(label)) for label in set(gold) & set(sequence)]
        assert float(row["position_deviation"]) == pytest.approx(np.mean(deviations), rel=1e-5)


def test_every_figure_is_a_picture_and_a_drawing(made):
    for name in ("differences", "lambda", "set_sizes", "correlations"):
        for ending in ("png", "svg"):
            assert (made[0] / f"{name}.{ending}").stat().st_size > 1000


def test_the_same_runs_give_the_same_files_in_any_folder_but_for_minutes(made, tmp_path):
    write_runs(tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").glob("*/*/summary.json"):
        path.write_text(path.read_text().replace("90.0", "50.0"))
    report_study(tmp_path / "elsewhere", tmp_path / "report", reports=CONFIG["reports"])
    for path in sorted(made[0].glob("*.csv")):
        first, second = (read_rows(folder / path.name) for folder in (made[0], tmp_path / "report"))
        for row in (*first, *second):
            row.pop("minutes", None)
        assert first == second, path.name
    assert {path.name for path in (tmp_path / "report").iterdir()} == {path.name for path in made[0].iterdir()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line | {"id": "other"}, "not of the same documents and true labels"),
        (lambda line: line | {"gold": ["zoo", "art", "music", "law", "tax"]}, "not of the same documents"),
        (lambda line: {"id": line["id"], "gold": line["gold"]}, "'labels' is missing"),
    ],
)
def test_runs_of_other_documents_are_not_compared(change, message, tmp_path):
    write_runs(tmp_path / "runs")
    path = tmp_path / "runs" / "sgm_ge" / "seed_2" / "predictions_test.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[7] = change(lines[7])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=message):
        report_study(tmp_path / "runs", tmp_path / "report")


def test_runs_of_other_labels_are_not_compared(tmp_path):
    write_runs(tmp_path / "runs")
    record = {"baseline": "br_svm", "label_names": [*LABELS, "war"]}
    (tmp_path / "runs" / "br" / "seed_1" / "baseline.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="different labels, e.g. 'war'"):
        report_study(tmp_path / "runs", tmp_path / "report")


def test_a_page_of_cases_has_the_texts_where_the_documents_are_at_hand(tmp_path):
    for name, number in (("train", 4), ("test", NUMBER)):
        lines = [{"id": f"d{row}", "text": f"<b> text {row}", "labels": ["zoo"]} for row in range(number)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = {f"{split}_file": str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    write_runs(tmp_path / "runs", CONFIG | {"common": files, "reports": ["cases"]})
    report_study(tmp_path / "runs", tmp_path / "report")
    first = (tmp_path / "report" / "cases.md").read_text().splitlines()[2].split("|")[1].strip()
    assert f"&lt;b&gt; text {first[1:]}</p>" in (tmp_path / "report" / "cases.html").read_text()
    assert "text" not in (tmp_path / "report" / "cases.md").read_text()


def test_systems_that_predict_nothing_are_reported_too(tmp_path):
    write_runs(tmp_path / "runs")
    for path in (tmp_path / "runs").glob("s*/*/predictions_test.jsonl"):
        lines = [json.loads(line) | {"labels": [], "best_sequence": []} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report_study(tmp_path / "runs", tmp_path / "report", reports=["correlations", "positions"])
    assert "| SGM+GE | 2 | no label is right |" in (tmp_path / "report" / "positions.md").read_text()
    rows = read_rows(tmp_path / "report" / "correlations.csv")
    assert {row["SGM+GE"] for row in rows} == {"nan"} and "nan" not in {row["BR"] for row in rows}


def test_every_report_has_its_function():
    assert tuple(study_reports.DRAWN) == REPORTS
