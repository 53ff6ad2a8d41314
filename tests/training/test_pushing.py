"""What a trainer tells the Hub and the model card, seen at the calls it makes."""

import logging
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_training import NUM_LABELS, make_documents, make_model

from sgm_hf.training import SGMTrainer, pushing


@pytest.fixture
def uploads(monkeypatch):
    """The uploads that were begun, each with the files its folder then had; they end when the test says so."""
    begun = []

    def upload_folder(**options):
        files = {str(path.relative_to(options["folder_path"])) for path in Path(options["folder_path"]).rglob("*")}
        begun.append(SimpleNamespace(**options, files=files, job=Future()))
        return begun[-1].job

    monkeypatch.setattr(pushing, "upload_folder", upload_folder)
    return begun


@pytest.fixture
def push(arguments, uploads):
    """Lets a trainer push its checkpoint of the second update, and gives the uploads of that."""

    def push_checkpoint(trainer=None, **settings):
        if trainer is None:
            trainer = make_pushing_trainer(arguments, **settings)
        before = len(uploads)
        trainer.push_checkpoint(str(Path(trainer.args.output_dir, "checkpoint-2")))
        return trainer, uploads[before:]

    return push_checkpoint


def make_pushing_trainer(arguments, **settings):
    options = {"hub_token": "secret", "hub_revision": "draft", "eval_strategy": "no", **settings}
    trainer = SGMTrainer(make_model(), arguments(**options))
    trainer.hub_model_id, trainer.push_in_progress, trainer.state.global_step = "me/topics", None, 2
    checkpoint = Path(trainer.args.output_dir, "checkpoint-2")
    (checkpoint / "inner").mkdir(parents=True)
    for name in ("model.safetensors", "tokenizer.json", "inner/code.py", "optimizer.pt", "rng_state.pth", "args.bin"):
        (checkpoint / name).write_text(name)
    (checkpoint / "trainer_state.json").write_text("{}")
    return trainer


def test_nothing_is_pushed_while_training_if_the_strategy_is_to_push_at_its_end(push):
    assert push(hub_strategy="end")[1] == []


def test_each_save_pushes_the_model_and_nothing_of_resuming(push):
    trainer, (upload,) = push(hub_strategy="every_save")
    assert {"model.safetensors", "tokenizer.json", "inner/code.py"} <= upload.files
    assert not {"optimizer.pt", "rng_state.pth", "args.bin", "trainer_state.json"} & upload.files
    assert (upload.repo_id, upload.token, upload.revision, upload.run_as_future) == (
        "me/topics",
        "secret",
        "draft",
        True,
    )
    assert upload.folder_path == trainer.args.output_dir
    assert upload.commit_message == "Training in progress, step 2"
    assert upload.ignore_patterns == ["_*", "checkpoint-*"]
    assert trainer.push_in_progress.jobs == [upload.job]


@pytest.mark.parametrize(
    ("strategy", "folder"), [("checkpoint", "last-checkpoint"), ("all_checkpoints", "checkpoint-2")]
)
def test_checkpoints_are_pushed_where_asked_for(push, strategy, folder):
    trainer, (model, checkpoint) = push(hub_strategy=strategy)
    assert not hasattr(model, "path_in_repo")
    assert checkpoint.path_in_repo == folder
    assert checkpoint.folder_path == str(Path(trainer.args.output_dir, "checkpoint-2"))
    assert checkpoint.commit_message == "Training in progress, step 2, checkpoint"
    assert not hasattr(checkpoint, "ignore_patterns")
    assert trainer.push_in_progress.jobs == [model.job, checkpoint.job]


def test_a_push_waits_for_the_one_before_unless_told_to_push_always(push):
    trainer, (first,) = push(hub_strategy="every_save")
    assert push(trainer)[1] == []
    trainer.args.hub_always_push = True
    (second,) = push(trainer)[1]
    assert trainer.push_in_progress.jobs == [first.job, second.job]
    first.job.set_result(None)
    (third,) = push(trainer)[1]
    assert trainer.push_in_progress.jobs == [second.job, third.job]
    trainer.args.hub_always_push = False
    second.job.set_result(None)
    third.job.set_result(None)
    assert len(push(trainer)[1]) == 1


def test_a_push_that_fails_is_logged_with_its_reason(push, caplog):
    _, (upload,) = push(hub_strategy="every_save")
    with caplog.at_level(logging.WARNING):
        upload.job.set_exception(OSError("no route"))
    assert "not pushed" in caplog.text and "no route" in caplog.text
    caplog.clear()
    _, (cancelled,) = push(hub_strategy="every_save", folder="other")
    cancelled.job.cancel()
    assert caplog.text == ""


def test_saving_pushes_only_where_asked_for_and_not_from_inside_a_training(arguments, monkeypatch, tmp_path):
    trainer = SGMTrainer(make_model(), arguments(eval_strategy="no", hub_revision="draft"))
    pushed = []
    monkeypatch.setattr(trainer, "push_to_hub", lambda **options: pushed.append(options))
    trainer.save_model()
    trainer.args.push_to_hub = True
    trainer.save_model(str(tmp_path / "inside"), _internal_call=True)
    assert pushed == []
    trainer.save_model(str(tmp_path / "outside"))
    assert pushed == [{"commit_message": "Model save", "revision": "draft"}]
    for folder in (trainer.args.output_dir, tmp_path / "inside", tmp_path / "outside"):
        assert Path(folder, "model.safetensors").exists()


# ---- the model card ----


@pytest.fixture
def card_facts(monkeypatch):
    """The facts of the model card that a trainer writes."""

    def facts_of(trainer, **keywords):
        facts = []
        monkeypatch.setattr(pushing, "make_model_card", lambda given: facts.append(given) or "the card")
        trainer.create_model_card(**keywords)
        assert Path(trainer.args.output_dir, "README.md").read_text() == "the card"
        return facts[0]

    return facts_of


def test_a_cards_facts_before_training(arguments, card_facts):
    trainer = SGMTrainer(make_model(), arguments("topics"), make_documents(8), make_documents(4))
    facts = card_facts(trainer)
    assert (facts.name, facts.repository) == ("topics", trainer.args.output_dir)
    assert facts.labels == [f"LABEL_{label}" for label in range(NUM_LABELS)]
    assert (facts.data, set(facts.settings), facts.trainer) == ({}, {"Model", "Generation"}, None)
    assert (facts.max_words, facts.base_model, facts.license) == (None, None, None)
    assert facts.dataset_names == facts.dataset_ids == facts.dataset_configs == facts.language == facts.tags == []
    assert facts.results == {} and "torch" in facts.versions


def test_a_cards_facts_after_training(arguments, card_facts):
    data = make_documents(1200).select(range(1, 1101))
    trainer = SGMTrainer(
        make_model(),
        arguments(
            num_train_epochs=1, per_device_train_batch_size=1000, save_strategy="no", load_best_model_at_end=False
        ),
        data,
        make_documents(12),
        make_documents(11),
    )
    trainer.train()
    trainer.hub_model_id, trainer.processing_class = "me/other", SimpleNamespace(model_max_length=77)
    facts = card_facts(
        trainer, language="en", tags=["a", "b"], dataset="Drawn", dataset_tags=("me/drawn",), license="mit"
    )
    labels, words = sum(map(len, data["labels"])) / 1100, sum(map(len, data["input_ids"])) / 1100
    assert facts.data == {
        "training documents": "1,100",
        "labels per document": f"{labels:.2f}",
        "words per document": f"{words:.1f}",
        "validation documents": "12",
        "threshold documents": "11",
    }
    training = facts.settings["Training"]
    assert (training["learning_rate"], training["seed"], training["updates"]) == (5e-3, 7, trainer.state.global_step)
    assert (facts.trainer, facts.max_words, facts.name, facts.repository) == ("SGMTrainer", 77, "other", "me/other")
    assert (facts.language, facts.tags, facts.license) == (["en"], ["a", "b"], "mit")
    assert (facts.dataset_names, facts.dataset_ids) == (["Drawn"], ["me/drawn"])
    assert set(facts.results) == {"validation"} and "micro_f1" in facts.results["validation"]


def test_the_base_model_is_the_repository_it_was_loaded_from(arguments, card_facts, tmp_path):
    trainer = SGMTrainer(make_model(), arguments(eval_strategy="no"))
    for name, expected in (("me/base", "me/base"), (str(tmp_path), None), ("", None)):
        trainer.model.config._name_or_path = name
        assert card_facts(trainer).base_model == expected
    assert card_facts(trainer, finetuned_from="you/other", model_name="mine").base_model == "you/other"
    assert card_facts(trainer, model_name="mine").name == "mine"
