"""What the converter writes goes to the Hub and comes back with plain `datasets`; every dataset card is valid."""

import json

import pandas as pd
import pytest
from client_process import ClientError
from huggingface_hub import DatasetCard, ModelCard
from loopback_hub import card_problems

import sgm_hf.cli.train
from sgm_hf.datasets_scripts import CORPORA, convert
from sgm_hf.datasets_scripts.aapd import LABEL_NAMES

NAMES = list(LABEL_NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A small AAPD, converted."""
    source = tmp_path_factory.mktemp("aapd")
    for split, count in (("train", 5), ("val", 2)):
        (source / f"text_{split}").write_text("".join(f"text number {i}\n" for i in range(count)))
        (source / f"label_{split}").write_text("".join(f"{NAMES[i]} {NAMES[i + 1]}\n" for i in range(count)))
    output = tmp_path_factory.mktemp("converted") / "out"
    convert.convert("aapd", output, data_dir=source)
    return str(output)


def check_rows(rows):
    assert (rows["labels"], rows["columns"]) == (NAMES, ["id", "text", "labels"])
    assert rows["first"] == {"id": "validation-1", "text": "text number 0", "labels": [0, 1]}


def test_an_uploaded_folder_is_a_data_set_to_users_without_the_package(hub, me, stranger, folder):
    me.call("upload", folder=folder, repository="me/aapd", kind="dataset")
    assert set(hub.files("me/aapd", kind="dataset")) == {
        *(".gitattributes", "README.md", "data/aapd-train.parquet", "data/aapd-validation.parquet"),
    }
    check_rows(stranger.call("load_rows", repository="me/aapd", split="validation"))


def test_a_data_set_pushed_by_its_own_method_comes_back_the_same(hub, me, stranger, folder):
    me.call("push_dataset", folder=folder, repository="me/pushed")
    assert card_problems(hub.files("me/pushed", kind="dataset")["README.md"].decode()) == []
    check_rows(stranger.call("load_rows", repository="me/pushed", split="validation"))


def test_the_written_card_is_valid_and_counts_what_is_there(me, folder):
    me.call("validate_card", path=f"{folder}/README.md", kind="dataset")
    card = DatasetCard.load(f"{folder}/README.md")
    assert card.data.size_categories == ["n<1K"]
    assert f"| `{NAMES[0]}` | 1 | 1 |" in card.text and f"| `{NAMES[2]}` | 2 | 1 |" in card.text
    assert 'corpus["train"].features' in card.text


@pytest.mark.parametrize("name", CORPORA)
def test_every_cards_metadata_is_complete_and_valid(name):
    card = DatasetCard.load(convert.CARDS / f"{name}.md")
    assert card_problems(str(card)) == []
    for field in ("license", "pretty_name", "multilinguality", "annotations_creators", "source_datasets"):
        assert getattr(card.data, field), field


@pytest.mark.parametrize(
    ("documents", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10_789, "10K<n<100K"), (804_414, "100K<n<1M")],
)
def test_the_size_category_is_that_of_the_documents_counted(documents, name):
    assert convert.size_category(documents) == name


def test_a_data_set_of_the_hub_trains_a_model_that_predicts_its_test_documents(me, tmp_path):
    texts = [f"{word} the a" for word in ("ball", "stock", "goal", "bank") for _ in range(5)]
    columns = {"comment": texts, "sport": [1] * 5 + [0] * 5 + [1] * 5 + [0] * 5}
    frame = pd.DataFrame(columns).assign(money=[1 - value for value in columns["sport"]])
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        frame.to_csv(folder / f"{split}.csv", index=False)
    me.call("upload", folder=str(folder), repository="me/comments", kind="dataset")
    options = (
        "--dataset_name me/comments --text_column comment --labels_columns * --do_train true --do_predict true "
        "--embedding_size 8 --encoder_hidden_size 8 --encoder_layers 1 --decoder_hidden_size 8 --num_train_epochs 8 "
        "--learning_rate 0.05 --per_device_train_batch_size 4 --validation_split_size 4 --split_method stratified "
        "--dataset_revision main --disable_tqdm true"
    )
    run = tmp_path / "run"
    me.call("run_program", path=sgm_hf.cli.train.__file__, arguments=[*options.split(), "--output_dir", str(run)])
    lines = [json.loads(line) for line in (run / "predictions_test.jsonl").read_text().splitlines()]
    assert [line["labels"] for line in lines] == [line["gold"] for line in lines]
    assert [line["gold"] for line in lines] == [[name] for name in ("sport", "money") * 2 for _ in range(5)]
    assert ModelCard.load(run / "README.md").data.datasets == ["me/comments"]


def test_a_data_set_that_the_hub_does_not_have_is_named_with_what_there_is(me, tmp_path):
    arguments = ["--dataset_name", "me/nothing", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(ClientError, match="me/nothing is neither a named corpus nor a folder.*that can be reached"):
        me.call("run_program", path=sgm_hf.cli.train.__file__, arguments=arguments)
