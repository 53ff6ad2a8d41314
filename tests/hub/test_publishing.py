"""`sgm-hf train --push_to_hub` and `SGMTrainer`: the model, its checkpoints while training, and its card."""

import csv
import json
import random
from pathlib import Path

import pytest
from client_process import ClientError
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from loopback_hub import Fault, card_problems

import sgm_hf.cli.train

PROGRAM = sgm_hf.cli.train.__file__
LABELS = {
    "sport": "ball goal team match",
    "money | banks": "bank stock price loan",
    "`zoë`": "court judge crime trial",
}
SMALL = [
    "--preset",
    "none",
    *("--embedding_size", "16", "--encoder_hidden_size", "16", "--encoder_layers", "1", "--decoder_hidden_size", "16"),
    *("--dropout", "0.0", "--learning_rate", "0.02", "--per_device_train_batch_size", "16", "--num_beams", "3"),
    *("--label_separator", ";", "--disable_tqdm", "true", "--num_threads", "1"),
]


@pytest.fixture(scope="module")
def train_file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("data") / "my topics.csv"
    generator = random.Random(0)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "labels"])
        for _ in range(96):
            chosen = [label for label in LABELS if generator.random() < 0.5]
            words = [generator.choice(LABELS[label].split()) for label in chosen for _ in range(3)]
            writer.writerow([" ".join([*words, *generator.choices("the a of".split(), k=4)]), ";".join(chosen)])
    return str(path)


@pytest.fixture(scope="module")
def run(hub, me, train_file, tmp_path_factory) -> Path:
    """The folder of a run that was pushed to me/run, with checkpoints while training."""
    folder = tmp_path_factory.mktemp("run") / "topics"
    arguments = ["--train_file", train_file, "--output_dir", str(folder), "--num_train_epochs", "2"]
    arguments += ["--push_to_hub", "true", "--hub_model_id", "me/run", "--hub_strategy", "checkpoint"]
    me.call("run_program", path=PROGRAM, arguments=[*arguments, "--hub_always_push", "true", *SMALL])
    return folder


@pytest.fixture(scope="module")
def card(hub, run) -> ModelCard:
    return ModelCard(hub.files("me/run")["README.md"].decode())


def test_the_repository_is_the_output_folder_and_serves_users_without_the_package(hub, me, stranger, run):
    files = hub.files("me/run")
    assert hub.messages("me/run")[-1] == "End of training"
    for name in ("model.safetensors", "config.json", "tokenizer.json", "modeling_sgm.py", "handler.py", "README.md"):
        assert files[name] == (run / name).read_bytes()
    predictions = stranger.call("predict", model="me/run", trust_remote_code=True)
    expected = me.call("predict", model=str(run))
    assert predictions.pop("modules") != expected.pop("modules")
    assert predictions == expected


def test_every_checkpoint_is_pushed_whole_while_training(hub, run):
    commits = hub.repositories["model", "me/run"]
    progress = [oid for oid, message in commits.messages.items() if message.startswith("Training in progress")]
    assert len(progress) == 4  # two epochs, each the model and the checkpoint to resume from
    files = commits.commits[progress[0]]
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "pipeline_sgm.py"):
        assert name in files
    assert "last-checkpoint/optimizer.pt" in commits.commits[progress[1]]
    assert commits.commits[progress[0]]["model.safetensors"] != commits.commits[progress[2]]["model.safetensors"]


def test_no_pickle_lies_beside_the_model(hub, run):
    names = [name for name in hub.files("me/run") if not name.startswith("last-checkpoint/")]
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]


def test_training_goes_on_from_the_pushed_checkpoint(hub, me, run, train_file, tmp_path):
    folder = me.call("download", model="me/run", allow_patterns="last-checkpoint/*") + "/last-checkpoint"
    arguments = ["--train_file", train_file, "--output_dir", str(tmp_path), "--num_train_epochs", "3"]
    me.call("run_program", path=PROGRAM, arguments=[*arguments, "--resume_from_checkpoint", folder, *SMALL])
    assert json.loads((tmp_path / "summary.json").read_text())["training"]["epochs"] == 3


def test_a_model_of_the_hub_is_evaluated_and_trained_further(hub, me, run, train_file, tmp_path):
    arguments = ["--model_name_or_path", "me/run", "--train_file", train_file, "--do_train", "--do_eval"]
    arguments += ["--output_dir", str(tmp_path), "--num_train_epochs", "1", *SMALL]
    me.call("run_program", path=PROGRAM, arguments=arguments)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "me/run"
    assert "starting from `me/run`" in card.text


def test_the_card_is_valid_and_its_results_are_those_of_the_run(hub, me, run, card):
    me.call("validate_card", path=str(run / "README.md"))
    assert card_problems(str(card)) == []
    results = json.loads((run / "all_results.json").read_text())
    listed = {(result.dataset_split, result.metric_name): result.metric_value for result in card.data.eval_results}
    assert listed["validation", "Micro F1"] == pytest.approx(results["validation_micro_f1"], abs=1e-4)
    assert listed["validation", "Hamming loss"] == pytest.approx(results["validation_hamming_loss"], abs=1e-4)
    assert len(listed) == 7 + 4  # of the sets, and of the label scores
    assert listed["validation", "Brier score"] == pytest.approx(results["validation_brier"], abs=1e-4)


def test_results_survive_the_way_through_the_model_index(card):
    name, results = model_index_to_eval_results(eval_results_to_model_index("run", card.data.eval_results))
    assert (name, results) == ("run", card.data.eval_results)
    assert card.data.model_name == "run"


def test_an_invalid_card_is_refused_by_the_hub(me, tmp_path):
    (tmp_path / "README.md").write_text("---\nlanguage: english\nlicense: 3\n---\n")
    with pytest.raises(ClientError, match="(?s)license.*must be a string.*no ISO 639 code"):
        me.call("validate_card", path=str(tmp_path / "README.md"))


def test_a_push_that_fails_while_training_leaves_the_training_alone_and_the_last_one_sends_all(
    hub, me, train_file, tmp_path
):
    hub.faults.append(Fault("POST /api/models/me/unlucky/commit", "503", times=2))
    arguments = ["--train_file", train_file, "--output_dir", str(tmp_path), "--num_train_epochs", "2"]
    arguments += ["--push_to_hub", "true", "--hub_model_id", "me/unlucky", "--hub_always_push", "true", *SMALL]
    me.call("run_program", path=PROGRAM, arguments=arguments)
    assert "a checkpoint was not pushed to the Hub" in me.log.read_text()
    assert hub.messages("me/unlucky")[-1] == "End of training"
    assert hub.files("me/unlucky")["model.safetensors"] == (tmp_path / "model.safetensors").read_bytes()
