"""A label hierarchy in training: it orders and completes labels, constrains generation, and is measured."""

import csv
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from sgm_hf.cli.evaluate import main as evaluate
from sgm_hf.cli.train import main
from sgm_hf.data.hierarchy import read_label_hierarchy, with_ancestors
from sgm_hf.metrics import compute_hierarchical_metrics
from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS

PARENTS = {"tennis": "sport", "football": "sport", "goalkeeping": "football", "sport": None, "law": None}
TINY = [
    *("--embedding_size", "12", "--encoder_hidden_size", "12", "--encoder_layers", "1"),
    *("--decoder_hidden_size", "12", "--num_beams", "3", "--disable_tqdm", "true", "--num_train_epochs", "1"),
]


def write_csv(path, count, seed, complete):
    """Texts of label names and filler; labels with their ancestors or without."""
    generator = random.Random(seed)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "labels"])
        for _ in range(count):
            labels = generator.sample(sorted(PARENTS), generator.randint(1, 2))
            words = [*labels, *generator.choices("the a of in and".split(), k=5)]
            labels = with_ancestors(labels, PARENTS) if complete else labels
            writer.writerow([" ".join(words), "|".join(labels)])
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Options of complete training and test documents, and of the hierarchy."""
    hierarchy = tmp_path / "labels.json"
    hierarchy.write_text(json.dumps(PARENTS | {"chess": "sport", "politics": None}))
    train, test = (write_csv(tmp_path / f"{name}.csv", 60, seed, True) for seed, name in enumerate(("train", "test")))
    return ["--train_file", train, "--test_file", test], ["--label_hierarchy", str(hierarchy)]


def predictions(folder):
    lines = (Path(folder) / "predictions_test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def hierarchical_f1(records, field, names, parents):
    """That of `predictions_test.jsonl`, from names."""
    ids = {name: column for column, name in enumerate(names)}
    true, found = np.zeros((2, len(records), len(names)), dtype=bool)
    for row, record in enumerate(records):
        true[row, [ids[name] for name in record["gold"]]] = True
        found[row, [ids[name] for name in record[field]]] = True
    columns = np.array([ids[parents[name]] if parents.get(name) else -1 for name in names])
    return compute_hierarchical_metrics(true, found, columns)["hierarchical_f1"]


def assert_obeys(records, parents):
    """No set of any decoding lacks an ancestor of its labels; generated labels come after their ancestors."""
    for record in records:
        for decoding in SET_DECODINGS:
            labels = record[decoding]
            assert set(with_ancestors(labels, parents)) == set(labels)
            places = {label: place for place, label in enumerate(labels)}
            assert all(places[parents[name]] < places[name] for name in labels if parents.get(name))


@pytest.mark.parametrize("preset", ["none", "fast"])
def test_labels_are_ordered_generated_and_measured_by_the_hierarchy(files, tmp_path, preset):
    data, hierarchy = files
    options = ["--preset", preset, "--output_dir", str(tmp_path / "run"), *TINY]
    if preset == "fast":  # its labels are shuffled, unless there is a hierarchy
        options += ["--lexical_bigrams", "0", "--lexical_cost", "1", "--precision", "fp32"]
    metrics = main([*data, *hierarchy, *options])["test"]
    model = SGMForMultiLabelGeneration.from_pretrained(tmp_path / "run")
    names = list(model.config.id2label.values())
    assert model.config.label_order == "hierarchical"
    assert set(names[:2]) == {"sport", "law"} and names[-1] == "goalkeeping"
    parents = {child: parent for child, parent in PARENTS.items() if parent}
    assert model.generation_config.label_hierarchy == parents
    records = predictions(tmp_path / "run")
    assert_obeys(records, parents)
    for decoding in SET_DECODINGS:
        expected = hierarchical_f1(records, decoding, names, parents)
        assert metrics[f"{decoding}_hierarchical_f1"] == pytest.approx(expected)
    summary = (tmp_path / "run" / "summary.txt").read_text()
    assert "label_hierarchy" in summary and "3 labels below another" in summary and "hierarchical_f1" in summary
    # The checkpoint has the hierarchy: it is obeyed and measured without the file.
    again = evaluate([str(tmp_path / "run"), *data[2:], "--output_dir", str(tmp_path / "again")])["test"]
    assert again["hierarchical_f1"] == metrics["hierarchical_f1"]


def test_a_model_without_a_hierarchy_is_evaluated_with_one(files, tmp_path):
    data, hierarchy = files
    flat = main([*data, *TINY, "--preset", "none", "--output_dir", str(tmp_path / "flat")])["test"]
    assert "hierarchical_f1" not in flat
    found = evaluate([str(tmp_path / "flat"), *data[2:], *hierarchy, "--output_dir", str(tmp_path / "with")])["test"]
    assert "hierarchical_f1" in found
    assert_obeys(predictions(tmp_path / "with"), PARENTS)


def test_missing_ancestors_are_counted_and_added_to_training_documents_where_asked(files, tmp_path, caplog):
    caplog.set_level("INFO")
    data, hierarchy = files
    train = write_csv(tmp_path / "leaves.csv", 60, seed=0, complete=False)
    with open(train, encoding="utf-8", newline="") as file:
        label_sets = [row["labels"].split("|") for row in csv.DictReader(file)]
    lacking = [len(with_ancestors(labels, PARENTS)) - len(labels) for labels in label_sets]
    options = ["--train_file", train, *data[2:], *hierarchy, *TINY, "--preset", "none"]
    main([*options, "--output_dir", str(tmp_path / "run"), "--add_ancestors", "true"])
    assert (
        f"{sum(map(bool, lacking))} of 60 training documents lacked ancestors of their labels and got {sum(lacking)}"
        in caplog.text
    )
    assert "--add_ancestors true adds them" not in caplog.text
    # Test documents stay as they are.
    test = ["--test_file", train, "--do_predict", "true", "--output_dir", str(tmp_path / "test"), *hierarchy]
    main(["--model_name_or_path", str(tmp_path / "run"), *test, "--disable_tqdm", "true"])
    assert [record["gold"] for record in predictions(tmp_path / "test")] == label_sets
    main([*options, "--output_dir", str(tmp_path / "not")])
    assert "of 54 training documents lack ancestors of their labels" in caplog.text
    assert "--add_ancestors true adds them" in caplog.text


def test_an_ancestor_that_no_document_has_becomes_a_label_where_asked(files, tmp_path):
    data, _ = files
    hierarchy = tmp_path / "deeper.json"
    hierarchy.write_text(json.dumps(PARENTS | {"sport": "leisure"}))
    options = [*data, "--label_hierarchy", str(hierarchy), *TINY, "--preset", "none"]
    with pytest.raises(ValueError, match="'sport' is below 'leisure', which no document .* --add_ancestors true"):
        main([*options, "--output_dir", str(tmp_path / "refused")])
    main([*options, "--add_ancestors", "true", "--output_dir", str(tmp_path / "run")])
    model = SGMForMultiLabelGeneration.from_pretrained(tmp_path / "run")
    assert "leisure" in model.config.label2id and model.generation_config.label_hierarchy["sport"] == "leisure"
    assert_obeys(predictions(tmp_path / "run"), PARENTS | {"sport": "leisure"})


def test_an_order_that_generation_cannot_follow_is_warned_of(files, tmp_path, caplog):
    data, hierarchy = files
    options = [*data, *hierarchy, *TINY, "--preset", "none", "--label_order", "shuffled"]
    main([*options, "--output_dir", str(tmp_path / "run")])
    assert "in the order shuffled, in which labels come before their ancestors" in caplog.text
    assert_obeys(predictions(tmp_path / "run"), PARENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--add_ancestors", "true"], "--add_ancestors true needs .* --label_hierarchy FILE"),
        (["--label_order", "hierarchical"], "--label_order hierarchical needs .* --label_hierarchy FILE"),
        (["--label_hierarchy", "nowhere.hier"], r"nowhere\.hier: there is no such file"),
    ],
)
def test_what_needs_a_hierarchy_says_so_before_anything_is_written(files, tmp_path, options, message):
    data, _ = files
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main([*data, *options, *TINY, "--output_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_no_prediction_for_the_sample_of_rcv1_v2_violates_its_hierarchy(tmp_path):
    root = Path(os.environ.get("SGM_HF_DATA", Path(__file__).parents[3] / "shared" / "data"))
    folder = root / "rcv1"
    if not folder.is_dir():
        pytest.skip(f"real corpora are not at {root}; set SGM_HF_DATA to their folder")
    options = ["--dataset_name", "rcv1_v2", "--dataset_config", "sample", "--data_dir", str(folder)]
    options += ["--label_hierarchy", str(folder / "rcv1.topics.hier"), "--max_train_samples", "200"]
    options += ["--max_eval_samples", "80", "--encoder_max_length", "30", "--initial_vectors", "none"]
    metrics = main([*options, *TINY, "--preset", "none", "--output_dir", str(tmp_path / "run")])["validation"]
    parents = read_label_hierarchy(folder / "rcv1.topics.hier")
    lines = (tmp_path / "run" / "predictions_validation.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 80
    assert_obeys(records, parents)
    # Its documents have all ancestors, and so have the sets: both ways of counting agree.
    for decoding in SET_DECODINGS:
        assert metrics[f"{decoding}_hierarchical_f1"] == pytest.approx(metrics[f"{decoding}_micro_f1"])
