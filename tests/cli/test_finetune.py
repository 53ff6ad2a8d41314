import json
from pathlib import Path

import pytest
from test_train import EXAMPLES, TINY, write_csv

from sgm_hf.cli import finetune, train
from sgm_hf.programs import finetuning
from sgm_hf.programs.options import parse_arguments

SETTINGS = [
    *("--do_eval", "true", "--do_predict", "true", "--num_train_epochs", "2", "--learning_rate", "0.003"),
    *("--num_samples", "4", "--baseline", "leave_one_out", "--per_device_train_batch_size", "8"),
    *("--disable_tqdm", "true"),
]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A user's files, and a model that `sgm-hf train` has trained on them shortly."""
    folder = tmp_path_factory.mktemp("seq2set")
    files = [
        "--train_file",
        write_csv(folder / "train.csv", 80),
        "--test_file",
        write_csv(folder / "test.csv", 30, seed=2),
    ]
    train.main([*files, "--output_dir", str(folder / "mle"), "--num_train_epochs", "2", *TINY])
    return files, folder / "mle"


def trainer_name(method):
    return finetuning.TRAINERS[method].__name__


@pytest.mark.parametrize("method", ["self_critical", "order_free"])
def test_a_checkpoint_is_fine_tuned_and_compared_with_itself_before(pretrained, tmp_path, capsys, method):
    files, checkpoint = pretrained
    options = ["--model_name_or_path", str(checkpoint), "--output_dir", str(tmp_path / "out"), "--method", method]
    options += ["--attention_figures", "1"]
    after = finetune.main([*files, *options, *SETTINGS])
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    first = json.loads((checkpoint / "all_results.json").read_text())
    assert results["before_test_best_sequence_micro_f1"] == first["test_best_sequence_micro_f1"]
    assert results["test_best_sequence_micro_f1"] == after["test"]["best_sequence_micro_f1"]
    assert after["test"]["best_sequence_micro_f1"] > first["test_best_sequence_micro_f1"]
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert trainer_name(method) in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "attention_test" / "1.html").exists()
    assert len((tmp_path / "out" / "predictions_test.jsonl").read_text().splitlines()) == 30
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("test best_sequence_micro_f1"))
    assert line.split()[-2:] == [
        f"{first['test_best_sequence_micro_f1']:.4f}",
        f"{after['test']['best_sequence_micro_f1']:.4f}",
    ]
    assert "metrics before, test" in printed and method in (tmp_path / "out" / "summary.txt").read_text()


def test_pretraining_first_ends_where_fine_tuning_a_checkpoint_does(pretrained, tmp_path, monkeypatch):
    files, checkpoint = pretrained
    settings = dict(zip([name.removeprefix("--") for name in TINY[::2]], TINY[1::2], strict=True))
    config = tmp_path / "likelihood.json"
    config.write_text(json.dumps(settings | {"num_train_epochs": 2}))
    options = [*files, *SETTINGS, "--output_dir", str(tmp_path / "out"), "--pretrain_config", str(config)]
    finetune.main(options)
    first = tmp_path / "out_likelihood" / "model.safetensors"
    assert first.read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    finetune.main([*files, *SETTINGS, "--output_dir", str(tmp_path / "two"), "--model_name_or_path", str(checkpoint)])
    tuned = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert tuned == (tmp_path / "two" / "model.safetensors").read_bytes()

    monkeypatch.setattr(finetuning, "run_training", lambda *parsed: pytest.fail("a finished pre-training ran again"))
    (tmp_path / "out_likelihood").rename(tmp_path / "again_likelihood")
    finetune.main([*options, "--output_dir", str(tmp_path / "again")])
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == tuned


def test_bad_input_is_refused(pretrained, tmp_path):
    files, checkpoint = pretrained
    with pytest.raises(ValueError, match="give --model_name_or_path"):
        finetune.main([*files, "--output_dir", str(tmp_path / "a")])
    both = ["--model_name_or_path", str(checkpoint), "--pretrain_config", "likelihood.json"]
    with pytest.raises(ValueError, match="not both"):
        finetune.main([*files, "--output_dir", str(tmp_path / "a"), *both])
    with pytest.raises(ValueError, match="give either --dataset_name"):
        finetune.main(["--output_dir", str(tmp_path / "a"), *both[2:]])
    with pytest.raises(FileNotFoundError, match=r"likelihood\.json does not exist"):
        finetune.main([*files, "--output_dir", str(tmp_path / "a"), *both[2:]])
    other = write_csv(tmp_path / "other.csv", 40, topics={"weather": "rain sun", "sport": "ball goal"})
    options = ["--model_name_or_path", str(checkpoint), "--output_dir", str(tmp_path / "b")]
    with pytest.raises(ValueError, match="weather"):
        finetune.main(["--train_file", other, *options, *SETTINGS])
    with pytest.raises(ValueError, match="num_samples is 0"):
        finetune.main([*files, *options, "--num_samples", "0"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--embedding_size", "32"], r"--embedding_size 32 \(it has 16\)"),
        (["--attention", "none"], r"--attention none \(it has word\)"),  # word is the default of a new model
        (["--label_threshold", "0.3"], "--label_threshold 0.3 has no effect"),
    ],
)
def test_settings_that_the_pretrained_model_will_not_have_are_refused_before_it_is_trained(
    tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr(finetuning, "run_training", lambda *parsed: pytest.fail("pre-training ran"))
    (tmp_path / "likelihood.json").write_text(json.dumps({"embedding_size": 16}))
    given = ["--train_file", "x.csv", "--pretrain_config", str(tmp_path / "likelihood.json")]
    with pytest.raises(ValueError, match=message):
        finetune.main([*given, "--output_dir", str(tmp_path / "out"), *options])


def test_both_trainings_share_all_settings_of_the_documents(tmp_path, monkeypatch):
    class Ran(Exception):
        """Carries what pre-training was given."""

    def run_training(model_args, data_args, training_args):
        raise Ran(data_args)

    monkeypatch.setattr(finetuning, "run_training", run_training)
    (tmp_path / "likelihood.json").write_text(json.dumps({"vocab_size": 77, "max_length": 9}))
    given = ["--train_file", "x.csv", "--pretrain_config", str(tmp_path / "likelihood.json"), "--max_length", "5"]
    given += ["--unknown_labels", "count", "--max_eval_samples", "3", "--max_predict_samples", "4"]
    with pytest.raises(Ran) as ran:
        finetune.main([*given, "--num_threads", "1", "--output_dir", str(tmp_path / "out"), "--id_column", "key"])
    (shared,) = ran.value.args
    assert (shared.unknown_labels, shared.max_eval_samples, shared.max_predict_samples) == ("count", 3, 4)
    assert (shared.num_threads, shared.id_column) == (1, "key")
    assert (shared.vocab_size, shared.max_length) == (77, 9)  # the vocabulary belongs to the first training


@pytest.mark.parametrize("path", sorted((EXAMPLES / "configs").glob("*seq2set.json")), ids=lambda path: path.stem)
def test_settings_files_are_read(path, tmp_path):
    _, data_args, training_args = parse_arguments([str(path)], finetuning.Seq2SetArguments)
    assert (training_args.method, training_args.reward, training_args.learning_rate) == ("self_critical", "f1", 1e-5)
    assert data_args.dataset_name in Path(path).stem
