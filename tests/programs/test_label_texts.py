"""Texts of labels in `sgm-hf train`: of a new model, and of labels that a checkpoint gets."""

import json
import random
from pathlib import Path

import pytest

from sgm_hf.cli.train import main
from sgm_hf.data.labels import read_label_texts
from sgm_hf.datasets_scripts.aapd import LABEL_NAMES
from sgm_hf.modeling import SGMForMultiLabelGeneration

TOPICS = {"a1": "ball goal team", "a2": "bank stock loan", "a3": "court judge crime"}
TEXTS = {"a1": "ball and goal", "a2": "stock", "a3": "court of crime", "a4": "nothing of ours"}
TINY = [
    *("--embedding_size", "12", "--encoder_hidden_size", "12", "--encoder_layers", "1", "--preset", "none"),
    *("--decoder_hidden_size", "12", "--disable_tqdm", "true", "--num_train_epochs", "1", "--num_beams", "3"),
]


def write(path, topics, count=40):
    generator, lines = random.Random(0), ["text,labels"]
    for _ in range(count):
        chosen = generator.sample(topics, generator.randint(1, 2))
        lines.append(" ".join(generator.choice(TOPICS[name].split()) for name in chosen * 3) + f",{'|'.join(chosen)}")
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(TEXTS))
    return str(path)


def test_new_models_and_new_labels_begin_with_their_texts(tmp_path, texts, monkeypatch, caplog):
    caplog.set_level("INFO")
    begun = []
    own = SGMForMultiLabelGeneration.set_label_texts
    monkeypatch.setattr(
        SGMForMultiLabelGeneration,
        "set_label_texts",
        lambda model, texts, tokenizer: begun.append(texts) or own(model, texts, tokenizer),
    )
    run = ["--train_file", write(tmp_path / "train.csv", ["a1", "a2"]), "--label_texts", texts, *TINY]
    main([*run, "--output_dir", str(tmp_path / "run")])
    assert begun == [{"a1": "ball and goal", "a2": "stock"}] or begun == [{"a2": "stock", "a1": "ball and goal"}]
    assert "2 of 2 labels have a text, 2 of them or of the names have known words" in caplog.text

    added, add = [], SGMForMultiLabelGeneration.add_labels
    monkeypatch.setattr(
        SGMForMultiLabelGeneration,
        "add_labels",
        lambda model, names, texts, tokenizer: added.append((names, texts)) or add(model, names, texts, tokenizer),
    )
    file = tmp_path / "more.csv"
    write(file, ["a1", "a2", "a3"])
    file.write_text(file.read_text().replace("judge", "bank"))  # of its text, "court" and "crime" are unknown words
    options = ["--model_name_or_path", str(tmp_path / "run"), "--train_file", str(file), "--do_train", "true"]
    options += ["--add_labels", "true", "--label_texts", texts, *TINY]
    with pytest.raises(ValueError, match="the new label 'a3', 'court of crime', has no word"):
        main([*options, "--output_dir", str(tmp_path / "refused")])
    known = tmp_path / "known.json"
    known.write_text(json.dumps(TEXTS | {"a3": "loan and goal"}))
    main([*options, "--label_texts", str(known), "--output_dir", str(tmp_path / "after")])
    assert added[-1] == (["a3"], {"a1": "ball and goal", "a2": "stock", "a3": "loan and goal"})
    model = SGMForMultiLabelGeneration.from_pretrained(tmp_path / "after")
    assert model.config.label2id["a3"] == 2 and model.config.num_untrained_labels == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["a1"]', "expected one object"),
        ('{"a1": ""}', "text of 'a1' is ''; expected a text that is not empty"),
        ('{"a1": null}', "text of 'a1' is None"),
        ('{"a1": "x", "a1": "y"}', "'a1' is given 2 times"),
        ('{"b": "x"}', r"no text of a label of the data: expected some of the 2 known labels \('a1', 'a2'\)"),
    ],
)
def test_what_is_wrong_in_a_file_of_texts_is_said(tmp_path, text, message):
    path = tmp_path / "texts.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_label_texts(path, ["a1", "a2"])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        read_label_texts(tmp_path / "nowhere.json", ["a1"])


def test_a_missing_file_is_said_before_anything_is_written(tmp_path):
    run = ["--train_file", write(tmp_path / "train.csv", ["a1", "a2"]), "--label_texts", "nowhere.json", *TINY]
    with pytest.raises(FileNotFoundError, match=r"--label_texts nowhere\.json"):
        main([*run, "--output_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_the_texts_of_aapd_are_of_its_labels():
    path = Path(__file__).parents[2] / "examples" / "label_texts" / "aapd.json"
    assert list(read_label_texts(path, LABEL_NAMES)) == list(LABEL_NAMES)
