"""The same documents as users have them, in each form: the same trained model and the same predictions."""

import json
import random

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sgm_hf import load_files
from sgm_hf.cli.predict import main as predict
from sgm_hf.cli.train import main
from sgm_hf.data import label_sets_of

TOPICS = {"sport": "ball goal team match", "money, banks": "bank stock price loan", "zoë": "court judge crime trial"}
TINY = (
    "--embedding_size 8 --encoder_hidden_size 8 --encoder_layers 1 --decoder_hidden_size 8 --num_train_epochs 6 "
    "--per_device_train_batch_size 4 --learning_rate 0.03 --num_beams 2 --disable_tqdm true --do_train true "
    "--do_predict true --validation_split_size 8"
).split()


def documents(count, seed):
    """Documents of a title, a body and labels, some of which have none."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        labels = [topic for topic in TOPICS if generator.random() < 0.4]
        words = [generator.choice(TOPICS[topic].split()) for topic in labels for _ in range(3)] + ["the", "a"]
        generator.shuffle(words)
        rows.append({"id": f"d{number}", "title": words[0], "body": " ".join(words[1:]), "labels": labels})
    return pd.DataFrame(rows)


OF_TEXTS = ("--text_column", "--delimiter", "--encoding")
SPLITS = {"train": documents(40, 0), "test": documents(10, 1)}


def one_text(frame):
    """Title and body as one column."""
    return frame.assign(text=frame["title"] + "\n" + frame["body"]).drop(columns=["title", "body"])


def one_hot(frame, values=(0, 1)):
    """The documents with a column for each label."""
    columns = {name: [values[name in labels] for labels in frame["labels"]] for name in TOPICS}
    return frame.drop(columns="labels").assign(**columns)


def multi_hot(frame):
    """The documents with a list of 0 and 1."""
    return frame.assign(labels=[[int(name in labels) for name in TOPICS] for labels in frame["labels"]])


def class_labels(frame):
    """The documents as a data set of `ClassLabel` ids."""
    ids = [[list(TOPICS).index(name) for name in labels] for labels in frame["labels"]]
    columns = {name: frame[name].tolist() for name in ("id", "title", "body")} | {"topics": ids}
    kinds = {name: Value("string") for name in ("id", "title", "body")}
    return Dataset.from_dict(columns, Features(kinds | {"topics": List(ClassLabel(names=list(TOPICS)))}))


def predictions_of(arguments, folder):
    """What a model trained with the arguments predicts for the test documents: ids, labels and scores."""
    main([*arguments, *TINY, "--output_dir", str(folder / "run")])
    lines = (folder / "run" / "predictions_test.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 10
    return [record | {"gold": sorted(record["gold"])} for record in records]


def files(folder, name, write):
    """Options for the files that `write` has written."""
    for split, frame in SPLITS.items():
        write(frame, folder / f"{split}_{name}")
    return ["--train_file", str(folder / f"train_{name}"), "--test_file", str(folder / f"test_{name}")]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The predictions from JSON Lines with lists of names."""
    folder = tmp_path_factory.mktemp("reference")
    options = files(folder, "a.jsonl", lambda frame, path: one_text(frame).to_json(path, orient="records", lines=True))
    predictions = predictions_of(options, folder)
    assert any(record["labels"] for record in predictions)
    return predictions


def excel(frame, path):
    """A table as a spreadsheet program saves it in a country of the comma."""
    cells = one_text(one_hot(frame, ("", "yes")))
    cells.to_csv(path, sep=";", index=False, encoding="cp1252", lineterminator="\r\n")


def nulls_and_repeats(frame, path):
    """One JSON list; null where there is no label, and each label twice."""
    labels = [names * 2 or None for names in frame["labels"]]
    one_text(frame).assign(labels=labels).to_json(path, orient="records", indent=1)


DOORS = {
    "one_hot.csv": (
        lambda frame, path: one_hot(frame).to_csv(path, index=False),
        ["--text_column", "title,body", "--labels_columns", "*"],
    ),
    "spreadsheet.csv": (
        excel,
        ["--delimiter", ";", "--encoding", "cp1252", "--labels_columns", "sport,money*,zoë"],
    ),
    "multi_hot.parquet": (
        lambda frame, path: one_text(multi_hot(frame)).to_parquet(path),
        ["--multi_hot_names", "NAMES"],
    ),
    "list_with_nulls.json": (nulls_and_repeats, []),
}


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.filterwarnings("ignore:.* name a label more than once")
def test_documents_of_each_form_give_the_same_model_and_predictions(tmp_path, name, expected):
    write, options = DOORS[name]
    (tmp_path / "names.txt").write_text("\n".join(TOPICS), encoding="utf-8")
    options = [option.replace("NAMES", str(tmp_path / "names.txt")) for option in options]
    assert predictions_of([*files(tmp_path, name, write), *options], tmp_path) == expected
    reading = [part for pair in zip(options[::2], options[1::2], strict=True) if pair[0] in OF_TEXTS for part in pair]
    done = predict([str(tmp_path / "run"), str(tmp_path / f"test_{name}"), *reading])
    lines = [json.loads(line) for line in done.output.read_text(encoding="utf-8").splitlines()]
    assert [(line["id"], line["labels"]) for line in lines] == [(line["id"], line["labels"]) for line in expected]


def test_a_folder_of_class_labels_gives_the_same_model_and_predictions(tmp_path, expected):
    folder = tmp_path / "my_data"
    folder.mkdir()
    for split, frame in SPLITS.items():
        class_labels(frame).to_parquet(folder / f"{split}.parquet")
    options = ["--dataset_name", str(folder), "--text_column", "title,body", "--labels_column", "topics"]
    assert predictions_of(options, tmp_path) == expected
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "my_data" in card and str(folder) not in card


def test_frames_and_data_sets_in_memory_are_read_as_the_files_are():
    reference = load_files(SPLITS["train"], test_file=SPLITS["test"], text_column=["title", "body"])
    others = {
        "one_hot": load_files(
            one_hot(SPLITS["train"]), test_file=one_hot(SPLITS["test"]), text_column="title,body", labels_columns="*"
        ),
        "data set": load_files(
            class_labels(SPLITS["train"]),
            test_file=class_labels(SPLITS["test"]),
            text_column="title,body",
            labels_column="topics",
        ),
    }
    for name, data in others.items():
        for split in ("train", "test"):
            assert data[split]["text"][:] == reference[split]["text"][:], name
            sets = [set(labels) for labels in label_sets_of(data[split])]
            assert sets == [set(labels) for labels in label_sets_of(reference[split])], name
