import csv
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from sgm_hf.cli.train import main
from sgm_hf.metrics import compute_metrics
from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.programs import training
from sgm_hf.programs.checks import check_settings, complete_settings
from sgm_hf.programs.models import build_model, build_tokenizer, load_checkpoint, set_generation
from sgm_hf.programs.options import parse_arguments
from sgm_hf.training import SGMTrainer
from sgm_hf.training.checkpoints import begin_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"
TOPICS = {"sport": "ball goal team match", "money, banks": "bank stock price loan", "zoë": "court judge crime trial"}
TINY = [
    *("--embedding_size", "16", "--encoder_hidden_size", "16", "--encoder_layers", "1", "--decoder_hidden_size", "16"),
    *("--dropout", "0.0", "--learning_rate", "0.02", "--per_device_train_batch_size", "8", "--num_beams", "3"),
    *("--disable_tqdm", "true", "--preset", "none"),
]


def write_csv(path, count, seed=0, topics=TOPICS):
    """Texts with words of some topics, and those topics joined by `|`."""
    generator = random.Random(seed)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "labels"])
        for _ in range(count):
            chosen = [topic for topic in topics if generator.random() < 0.5]
            words = [generator.choice(topics[topic].split()) for topic in chosen for _ in range(3)]
            words += generator.choices("the a of in and".split(), k=generator.randint(1, 10))
            generator.shuffle(words)
            writer.writerow([" ".join(words), "|".join(chosen)])
    return str(path)


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def metrics_of(lines, field):
    names = sorted({name for line in lines for name in line["gold"] + line[field]})
    truth, chosen = ([[name in line[key] for name in names] for line in lines] for key in ("gold", field))
    return compute_metrics(np.array(truth), np.array(chosen))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the program on a CSV file alone, with its folder and the metrics it returned."""
    folder = tmp_path_factory.mktemp("trained")
    train_file = write_csv(folder / "train.csv", 120)
    metrics = main(["--train_file", train_file, "--output_dir", str(folder / "run"), "--num_train_epochs", "8", *TINY])
    return folder, metrics


def test_a_csv_file_alone_trains_evaluates_and_predicts(trained):
    folder, metrics = trained
    run = folder / "run"
    lines = read_lines(run / "predictions_validation.jsonl")
    assert len(lines) == 12
    assert set(metrics) == {"validation"}
    assert metrics["validation"]["micro_f1"] > 0.7
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "summary.txt"):
        assert (run / name).exists()
    for ending in ("png", "svg"):
        assert (run / f"reliability_validation.{ending}").stat().st_size > 1000
    assert metrics["validation"]["ece"] > 0 and {"micro_f1_10_to_99", "nll", "brier"} < set(metrics["validation"])
    assert not [path for path in run.rglob("*") if path.name.startswith(".saving") or path.suffix == ".part"]


def test_metrics_are_those_recomputed_from_the_predictions_file(trained):
    folder, metrics = trained
    lines = read_lines(folder / "run" / "predictions_validation.jsonl")
    results = json.loads((folder / "run" / "all_results.json").read_text())
    for field, prefix in (("labels", ""), *((decoding, f"{decoding}_") for decoding in SET_DECODINGS)):
        recomputed = metrics_of(lines, field)
        for name in ("micro_precision", "micro_recall", "micro_f1", "samples_f1", "zero_one_loss", "hamming_loss"):
            assert metrics["validation"][prefix + name] == pytest.approx(recomputed[name])
            assert results[f"validation_{prefix}{name}"] == pytest.approx(recomputed[name])


def test_each_prediction_has_a_score_per_label_and_the_gold_labels_of_its_document(trained):
    folder, _ = trained
    gold = {f"train.csv:{number}": row for number, row in enumerate(csv.reader(open(folder / "train.csv")), start=1)}
    for line in read_lines(folder / "run" / "predictions_validation.jsonl"):
        assert len(line["scores"]) == len(line["labels"]) == len(set(line["labels"]))
        assert all(0 <= score <= 1 for score in line["scores"])
        assert line["labels"] == line["best_sequence"]
        assert "|".join(line["gold"]) == gold[line["id"]][1]


def test_the_summary_contains_data_settings_speed_and_history(trained):
    folder, metrics = trained
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["data"]["train_documents"] == 108
    assert summary["data"]["validation_documents"] == 12
    assert summary["settings"]["learning_rate"] == 0.02
    assert summary["model"]["labels"] == 3
    assert summary["training"]["documents_per_second"] > 0
    assert len(summary["history"]) == 8
    assert summary["metrics"]["validation"] == metrics["validation"]


def test_a_saved_run_predicts_the_same_again(trained, tmp_path):
    folder, metrics = trained
    again = main(
        ["--model_name_or_path", str(folder / "run"), "--train_file", str(folder / "train.csv"), "--do_eval"]
        + ["--do_predict", "--output_dir", str(tmp_path), "--disable_tqdm", "true"]
    )
    for name in ("best_sequence_micro_f1", "threshold_micro_f1", "expected_f1_micro_f1"):
        assert again["validation"][name] == metrics["validation"][name]
    old, new = (read_lines(path / "predictions_validation.jsonl") for path in (folder / "run", tmp_path))
    assert new == old


def test_a_checkpoint_predicts_a_file_without_labels(trained, tmp_path):
    folder, _ = trained
    file = tmp_path / "new.jsonl"
    file.write_text('{"text": "ball goal team"}\n{"text": ""}\n{"text": "xyzzy"}\n')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = main(
            ["--model_name_or_path", str(folder / "run"), "--test_file", str(file), "--do_predict"]
            + ["--output_dir", str(tmp_path / "out"), "--disable_tqdm", "true"]
        )
    lines = read_lines(tmp_path / "out" / "predictions_test.jsonl")
    assert "sport" in lines[0]["labels"]
    assert lines[1]["labels"] == []
    assert len(lines) == 3 and "gold" not in lines[0]
    assert "micro_f1" not in metrics["test"]


def test_unknown_labels_of_a_test_file_are_an_error_or_counted_as_missed(trained, tmp_path):
    folder, _ = trained
    file = write_csv(tmp_path / "test.csv", 20, seed=1, topics=TOPICS | {"new": "novel fresh"})
    options = ["--model_name_or_path", str(folder / "run"), "--test_file", file, "--do_predict"]
    options += ["--output_dir", str(tmp_path / "out"), "--disable_tqdm", "true"]
    with pytest.raises(ValueError, match="test.csv.*'new'"):
        main(options)
    assert not (tmp_path / "out" / "predictions_test.jsonl").exists()
    metrics = main([*options, "--unknown_labels", "count"])
    lines = read_lines(tmp_path / "out" / "predictions_test.jsonl")
    assert any("new" in line["gold"] for line in lines)
    assert metrics["test"]["micro_recall"] == pytest.approx(metrics_of(lines, "labels")["micro_recall"])


def test_a_training_is_never_started_over_the_content_of_a_folder(trained, tmp_path):
    folder, _ = trained
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    options = ["--train_file", str(folder / "train.csv"), "--output_dir", str(run), *TINY]
    with pytest.raises(FileExistsError, match="not empty.*--resume_from_checkpoint"):
        main(options)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    main([*options, "--num_train_epochs", "9", "--resume_from_checkpoint", "true"])
    history = json.loads((run / "summary.json").read_text())["history"]
    assert [record["epoch"] for record in history] == list(range(1, 10))


def test_a_training_is_not_resumed_with_another_file(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained[0] / "run", run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    other = write_csv(tmp_path / "train.csv", 120, seed=9)
    options = ["--train_file", other, "--output_dir", str(run), *TINY, "--num_train_epochs", "9"]
    with pytest.raises(ValueError, match=r"vocabulary: (.|\n)*training data: 108 documents, hash"):
        main([*options, "--resume_from_checkpoint", "true"])
    with pytest.raises(FileExistsError, match="not empty"):
        main([*options, "--resume_from_checkpoint", "false"])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_summary_says_from_where_and_with_what_a_training_was_resumed(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained[0] / "run", run)
    options = ["--train_file", str(trained[0] / "train.csv"), "--output_dir", str(run), *TINY]
    main([*options, "--num_train_epochs", "9", "--learning_rate", "0.01", "--resume_from_checkpoint", "True"])
    summary = json.loads((run / "summary.json").read_text())
    changed = {"learning_rate": [0.02, 0.01], "num_train_epochs": [8, 9]}
    assert summary["training"]["resumed"] == [{"update": summary["history"][7]["step"], "changed": changed}]
    assert (summary["settings"]["learning_rate"], len(summary["history"])) == (0.01, 9)


def test_only_a_folder_without_anything_but_what_a_kill_left_is_trained_into(trained, tmp_path):
    options = ["--train_file", str(trained[0] / "train.csv"), "--output_dir", str(tmp_path), *TINY]
    with pytest.raises(FileNotFoundError, match="no complete checkpoint to resume from"):
        main([*options, "--resume_from_checkpoint", "true"])
    begin_checkpoint(tmp_path / "checkpoint-2")
    (tmp_path / "_saving-x").mkdir()
    (tmp_path / "_lock").touch()
    main([*options, "--num_train_epochs", "1", "--resume_from_checkpoint", "no"])
    assert {"model.safetensors", "summary.json"} <= set(os.listdir(tmp_path))
    assert not {"checkpoint-2", "_saving-x", "_lock"} & set(os.listdir(tmp_path))


def test_sigterm_ends_the_program_with_a_checkpoint_from_which_it_goes_on_the_same(trained, tmp_path):
    options = ["--train_file", str(trained[0] / "train.csv"), *TINY, "--num_train_epochs", "60", "--output_dir"]
    command = [sys.executable, "-m", "sgm_hf", "train", *options, str(tmp_path / "run"), "--hub_token", "secret"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("step "):
                process.terminate()
                break
        lines += process.stderr.readlines()
    assert process.returncode == 143, lines
    assert not any("Traceback" in line for line in lines)
    assert lines[-2] == "Ended by SIGTERM. This goes on:\n" and "secret" not in lines[-1]
    again = shlex.split(lines[-1])
    assert again[:2] == ["sgm-hf", "train"]
    assert again[-2:] == ["--resume_from_checkpoint", "true"]
    main(again[2:])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["training"]["resumed"]
    main([*options, str(tmp_path / "whole")])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]


def test_training_goes_on_from_a_checkpoint_with_threshold_split_and_test_file(trained, tmp_path):
    folder, _ = trained
    test_file = write_csv(tmp_path / "test.csv", 30, seed=5)
    metrics = main(
        ["--model_name_or_path", str(folder / "run"), "--train_file", str(folder / "train.csv"), "--do_train"]
        + ["--test_file", test_file, "--do_eval", "--do_predict", "--output_dir", str(tmp_path / "out")]
        + ["--num_train_epochs", "1", "--threshold_split_size", "20", "--set_decoding", "threshold", *TINY]
    )
    assert set(metrics) == {"validation", "test"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["data"]["threshold_documents"] == 20
    assert summary["generation"]["set_decoding"] == "threshold"
    assert metrics["test"]["label_threshold"] == summary["history"][0]["eval_label_threshold"]
    lines = read_lines(tmp_path / "out" / "predictions_test.jsonl")
    assert [line["labels"] for line in lines] == [line["threshold"] for line in lines]
    assert metrics["test"]["micro_f1"] == pytest.approx(metrics_of(lines, "labels")["micro_f1"])


def test_the_former_name_of_a_set_decoding_is_taken_and_not_kept(trained, tmp_path):
    model = SGMForMultiLabelGeneration.from_pretrained(trained[0] / "run")
    settings = tmp_path / "former.json"
    settings.write_text(json.dumps({"set_decoding": "max_f1"}))
    for given in (["--set_decoding", "max_f1"], [str(settings)]):
        model_args, *_ = parse_arguments([*given, "--output_dir", str(tmp_path / "unused")])
        with pytest.warns(FutureWarning, match="'max_f1' is now called 'threshold'"):
            set_generation(model, model_args)
        assert model.generation_config.set_decoding == "threshold"


def test_a_checkpoint_is_not_trained_on_labels_it_does_not_have(trained, tmp_path):
    folder, _ = trained
    file = write_csv(tmp_path / "other.csv", 20, topics={"weather": "rain sun", "sport": "ball goal"})
    options = ["--model_name_or_path", str(folder / "run"), "--train_file", file, "--do_train", *TINY]
    with pytest.raises(ValueError, match="'weather'"):
        main([*options, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_learns_new_labels_when_asked_to(trained, tmp_path):
    folder, _ = trained
    topics = {"law": TOPICS["zoë"], "sport": TOPICS["sport"]}
    file = write_csv(tmp_path / "more.csv", 160, seed=1, topics=topics)
    known, _ = load_checkpoint(str(folder / "run"))
    metrics = main(
        ["--model_name_or_path", str(folder / "run"), "--train_file", file, "--do_train", "--do_predict"]
        + ["--add_labels", "true", "--test_file", write_csv(tmp_path / "test.csv", 40, seed=2, topics=topics)]
        + ["--freeze_encoder", "true", "--output_dir", str(tmp_path / "out"), "--num_train_epochs", "8", *TINY]
    )
    model, _ = load_checkpoint(str(tmp_path / "out"))
    assert list(model.config.id2label.values()) == [*known.config.id2label.values(), "law"]
    for name, value in known.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value)
    lines = read_lines(tmp_path / "out" / "predictions_test.jsonl")
    assert metrics["test"]["micro_f1"] > 0.7
    assert {"law"} < {label for line in lines for label in line["labels"]} <= {"law", "sport"}


def test_a_new_model_begins_with_the_word_vectors_asked_for(tmp_path, monkeypatch):
    """Seen before training; a model that exists, or a training that is resumed, keeps what it has."""
    begun = {}

    def keep(trainer):
        weight = trainer.model.get_input_embeddings().weight.detach().clone()
        begun[vectors] = {word: weight[row] for word, row in trainer.processing_class.get_vocab().items()}
        return train(trainer)

    train = training.train
    monkeypatch.setattr(training, "train", keep)
    (tmp_path / "v.txt").write_text("ball " + "0.5 " * 16 + "\n", encoding="utf-8")
    common = ["--train_file", write_csv(tmp_path / "train.csv", 60), "--num_train_epochs", "1", *TINY]
    for vectors in ("ppmi", "none", str(tmp_path / "v.txt")):
        main([*common, "--output_dir", str(tmp_path / f"run{len(begun)}"), "--initial_vectors", vectors])
    ppmi, none, file = begun.values()
    norms = torch.stack([ppmi[word] for word in TOPICS["sport"].split()]).norm(dim=1)
    torch.testing.assert_close(norms, torch.full((4,), 0.15 * 4))
    assert file["ball"].tolist() == [0.5] * 16 and none["ball"].tolist() != [0.5] * 16
    assert all(words["<pad>"].eq(0).all() for words in begun.values())
    monkeypatch.setattr(training, "set_initial_vectors", lambda *_: pytest.fail("word vectors were overwritten"))
    resumed = ["--num_train_epochs", "2", "--resume_from_checkpoint", "true"]
    main([*common, *resumed, "--output_dir", str(tmp_path / "run1")])
    vectors = "those of the model"
    options = ["--model_name_or_path", str(tmp_path / "run0"), "--do_train", "true", "--max_steps", "1"]
    main([*common, *options, "--output_dir", str(tmp_path / "more")])
    model, tokenizer = load_checkpoint(str(tmp_path / "run0"))
    for word, row in tokenizer.get_vocab().items():
        assert torch.equal(begun[vectors][word], model.get_input_embeddings().weight[row])


def test_a_missing_file_of_word_vectors_is_named_before_anything_is_read(tmp_path):
    options = ["--train_file", str(tmp_path / "unread.csv"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(FileNotFoundError, match="--initial_vectors glove: there is no such file"):
        main([*options, "--initial_vectors", "glove"])
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_whose_tokenizer_is_another_models_is_refused(trained, tmp_path):
    folder, _ = trained
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    SGMTokenizer.train_from_texts(["only three words"]).save_pretrained(run)
    with pytest.raises(ValueError, match="tokenizer of .*run has 5 words, the model"):
        load_checkpoint(str(run))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model_name_or_path", "x"], "give either --dataset_name"),
        (["--dataset_name", "aapd", "--train_file", "x.csv"], "give either --dataset_name"),
        (["--do_eval", "--dataset_name", "aapd"], "nothing to evaluate"),
        (["--do_train", "--test_file", "x.csv"], "--do_train needs --train_file"),
        (["--train_file", "x.csv", "--add_labels", "true"], "--add_labels is for"),
        (["--model_name_or_path", "x", "--test_file", "x.csv", "--freeze_encoder", "true"], "--freeze_encoder is for"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        main([*options, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


BAD_GENERATION = [
    (["--num_beams", "0"], "--num_beams is 0"),
    (["--max_labels", "0"], "--max_labels is 0"),
    (["--max_labels", "-1"], "--max_labels is -1"),
    (["--max_labels", "4"], "--max_labels is 4, but there are 3 labels"),
    (["--set_decoding", "threshold", "--label_threshold", "0"], "--label_threshold is 0"),
    (["--set_decoding", "threshold", "--label_threshold", "1.5"], "--label_threshold is 1.5"),
    (["--label_threshold", "0.3"], "--label_threshold 0.3 has no effect .* best_sequence"),
]


@pytest.mark.parametrize(("options", "message"), BAD_GENERATION, ids=lambda value: str(value))
def test_what_saving_or_generating_would_refuse_is_refused_before_training(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(SGMTrainer, "training_step", lambda *_: pytest.fail("a training step was made"))
    files = ["--train_file", write_csv(tmp_path / "train.csv", 20), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=message):
        main([*files, *TINY, *options])
    assert not (tmp_path / "out").exists()


GOOD_GENERATION = [
    {"num_beams": 1},
    {"num_beams": 1, "set_decoding": "threshold", "threshold_split_size": 5},
    {"num_beams": 3, "max_labels": 3},
    {"max_labels": 1, "set_decoding": "threshold", "label_threshold": 1.0},
]


@pytest.mark.parametrize("settings", GOOD_GENERATION, ids=lambda value: str(value))
def test_settings_that_pass_train_are_saved_and_predict_the_same_when_reloaded(tmp_path, caplog, settings):
    caplog.set_level("INFO")
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    test_file = write_csv(tmp_path / "test.csv", 10, seed=1)
    common = ["--test_file", test_file, "--do_predict", "--disable_tqdm", "true"]
    train = ["--train_file", write_csv(tmp_path / "train.csv", 30), "--do_train", "--num_train_epochs", "1"]
    main([*train, *TINY, *common, *options, "--output_dir", str(tmp_path / "run")])
    main(["--model_name_or_path", str(tmp_path / "run"), *common, "--output_dir", str(tmp_path / "again")])
    count = 27 - settings.get("threshold_split_size", 0)
    phases = ("reading the documents", f"making the vocabulary of {count} documents", "encoding the documents")
    assert [text for text in caplog.messages if text in phases] == [*phases, phases[0], phases[2]]
    first, again = (read_lines(tmp_path / folder / "predictions_test.jsonl") for folder in ("run", "again"))
    assert first == again
    saved = json.loads((tmp_path / "run" / "generation_config.json").read_text())
    assert saved.items() >= {name: settings[name] for name in settings if name in saved}.items()
    assert saved["num_beams"] == settings.get("num_beams", 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--embedding_size", "32"], r"--embedding_size 32 \(it has 16\)"),
        (["--decoder_layers", "2", "--dropout", "0.5"], r"--decoder_layers 2 \(it has 1\), --dropout 0.5"),
        (["--label_order", "shuffled"], "--label_order shuffled"),
    ],
)
def test_settings_that_contradict_a_checkpoint_are_refused_and_equal_ones_are_not(trained, tmp_path, given, message):
    folder, _ = trained
    options = ["--model_name_or_path", str(folder / "run"), "--test_file", write_csv(tmp_path / "test.csv", 5)]
    options += ["--do_predict", "--output_dir", str(tmp_path / "out"), *TINY]
    with pytest.raises(ValueError, match=message):
        main([*options, *given])
    main(options)


def test_a_checkpoint_is_not_evaluated_on_a_training_file_unasked(trained, tmp_path, caplog):
    folder, _ = trained
    options = ["--model_name_or_path", str(folder / "run"), "--train_file", str(folder / "train.csv")]
    options += ["--output_dir", str(tmp_path / "out"), "--disable_tqdm", "true"]
    with pytest.raises(ValueError, match="--do_train true to continue .* --do_eval true to evaluate"):
        main(options)
    main([*options, "--do_eval"])
    assert "the model has seen these documents" in caplog.text
    test_file = write_csv(tmp_path / "test.csv", 5)
    with pytest.raises(ValueError, match="--do_eval evaluates the validation documents"):
        main([*options[:2], "--test_file", test_file, "--do_eval", *options[4:]])


SHIPPED = [path for kind in ("*sgm*", "*_su_*", "*_hier_*") for path in sorted(EXAMPLES.glob(f"configs/{kind}.json"))]


@pytest.mark.parametrize("config", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_accepted(config, tmp_path):
    model_args, data_args, training_args = parse_arguments([str(config), "--output_dir", str(tmp_path)])
    complete_settings(model_args, data_args, training_args)
    check_settings(model_args, data_args, training_args)
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["x", "y"]))})
    train = Dataset.from_dict({"text": ["a b"], "labels": [[0]]}, features=features)
    tokenizer = build_tokenizer(train, data_args)
    model = build_model(train, tokenizer, model_args)
    assert model.config.label_feedback == model_args.label_feedback
    assert ("_ge" in config.stem) == (model.config.label_feedback == "global_embedding")


def test_the_papers_settings_are_in_the_papers_configurations():
    """SGM paper, section 3.3."""
    common = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "learning_rate": 0.001}
    common |= {"max_grad_norm": 10.0, "encoder_hidden_size": 256, "decoder_hidden_size": 512, "encoder_layers": 2}
    rcv1 = {"vocab_size": 50000, "max_length": 500, "num_beams": 5, "embedding_size": 512, "decoder_layers": 2}
    aapd = {"vocab_size": 30000, "num_beams": 9, "embedding_size": 256, "decoder_layers": 1}
    for corpus, own in (("rcv1_v2", rcv1), ("aapd", aapd)):
        for system in ("sgm", "sgm_ge"):
            settings = json.loads((EXAMPLES / "configs" / f"{corpus}_{system}.json").read_text())
            assert settings.items() >= (common | own).items()


SU_TABLE_4 = {
    "su_without_attention": {"encoder": "recurrent", "attention": "none"},
    "su_attention": {"encoder": "recurrent", "attention": "bilinear"},
    "su_mdc": {"encoder": "semantic_units", "attention": "semantic"},
    "su_additive": {"encoder": "semantic_units", "attention": "additive"},
    "su_hybrid": {"encoder": "semantic_units", "attention": "hybrid"},
}
SU_TABLE_5 = {
    f"hier_{n}": {"encoder": "hierarchical", "sentence_length": n, "attention": "bilinear"} for n in (5, 10, 15, 20)
}


@pytest.mark.parametrize("row", [*SU_TABLE_4, *SU_TABLE_5])
def test_the_rows_of_the_semantic_unit_paper_are_configurations_with_its_settings(row):
    """Lin et al. 2018, sections 4.1, 5.1, 5.2 and 6.3, tables 4 and 5."""
    paper = {"max_train_words": 500, "vocab_size": 50000, "per_device_train_batch_size": 64, "embedding_size": 512}
    paper |= {"decoder_hidden_size": 512, "encoder_hidden_size": 256, "label_order": "frequency", "adam_epsilon": 1e-8}
    paper |= {"learning_rate": 0.0003, "halve_from_epoch": 1, "clip_grad_value": 10.0, "adam_beta2": 0.999}
    own = (SU_TABLE_4 | SU_TABLE_5)[row]
    if own["encoder"] == "semantic_units":
        own = own | {"unit_kernel_size": 3, "unit_dilations": [1, 2, 3]}
    if own["attention"] != "none":
        own = own | {"context_input": "current"}
    hybrid, settings = (
        json.loads((EXAMPLES / "configs" / f"rcv1_v2_{name}.json").read_text()) for name in ("su_hybrid", row)
    )
    assert settings.items() >= (paper | own).items()
    may_differ = {"output_dir", "context_input", "unit_kernel_size", "unit_dilations", *own}
    assert {name for name in settings | hybrid if settings.get(name) != hybrid.get(name)} <= may_differ


def test_attention_maps_of_the_first_predictions_are_drawn(trained, tmp_path):
    folder, _ = trained
    test_file = write_csv(tmp_path / "new.csv", 5, seed=3)
    main(
        [
            *("--model_name_or_path", str(folder / "run"), "--test_file", test_file, "--do_predict", "true"),
            *("--output_dir", str(tmp_path / "out"), "--attention_figures", "3", "--disable_tqdm", "true"),
        ]
    )
    drawn = tmp_path / "out" / "attention_test"
    lines = read_lines(tmp_path / "out" / "predictions_test.jsonl")[:3]
    assert {path.stem for path in drawn.iterdir()} == {"1", "2", "3"}
    for number, line in enumerate(lines, start=1):
        page = (drawn / f"{number}.html").read_text(encoding="utf-8")
        assert page.count("<details") == len(line["labels"])
        assert line["id"] in page
        for ending in ("png", "svg"):
            assert (drawn / f"{number}.{ending}").exists() == bool(line["labels"])
    assert any(line["labels"] for line in lines)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--attention_figures", "-1"], "-1"),
        (["--attention_figures", "2", "--do_train", "true"], "--do_predict"),
        (["--attention_figures", "2", "--attention", "none"], "--attention is none"),
    ],
)
def test_attention_maps_that_cannot_be_drawn_are_refused_before_training(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        main(["--dataset_name", "generated", "--output_dir", str(tmp_path / "run"), *options])
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_without_attention_is_refused_for_attention_maps_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(SGMTrainer, "training_step", lambda *_: pytest.fail("a training step was made"))
    train_file = write_csv(tmp_path / "train.csv", 20)
    tokenizer = SGMTokenizer.train_from_texts(["ball goal team"])
    names = dict(enumerate(sorted(TOPICS)))
    config = SGMConfig(vocab_size=len(tokenizer), id2label=names, attention="none", embedding_size=4)
    SGMForMultiLabelGeneration(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    options = ["--model_name_or_path", str(tmp_path / "model"), "--train_file", train_file, "--do_train"]
    options += ["--do_predict", "true", "--attention_figures", "1", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="--attention is none"):
        main(options)
    assert not (tmp_path / "out").exists()
