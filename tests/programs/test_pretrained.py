"""`sgm-hf train` around a pre-trained encoder, here a tiny one with random weights."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import AutoModel, BertConfig, BertTokenizer, RobertaConfig, pipeline

from sgm_hf.cli.train import main
from sgm_hf.data.encoding import special_tokens_around
from sgm_hf.modeling import SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.programs.checks import check_settings, complete_settings
from sgm_hf.programs.models import build_model, build_tokenizer
from sgm_hf.programs.options import parse_arguments

sys.path.append(str(Path(__file__).parents[1] / "modeling"))
from tiny_encoders import VIT  # noqa: E402

CONFIG = Path(__file__).parents[2] / "examples" / "configs" / "reuters21578_bert.json"
WORDS = "ball goal team bank stock loan the a of".split()
OPTIONS = ["--decoder_hidden_size", "16", "--dropout", "0", "--disable_tqdm", "true", "--validation_split_size", "4"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a tiny BERT and its tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate([*special, *WORDS])})
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=16, max_position_embeddings=12, initializer_range=0.3, **sizes)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Short texts of one topic or two, and long ones."""
    file = tmp_path_factory.mktemp("documents") / "train.csv"
    texts = [("the ball goal team", "sport"), ("a bank stock loan", "money"), ("goal of the bank", "sport|money")]
    texts.append(("the a of " * 9 + "loan stock", "money"))
    file.write_text("text,labels\n" + "".join(f"{text},{labels}\n" for text, labels in texts * 10))
    return str(file)


def train(encoder, documents, output_dir, *options):
    names = ["--train_file", documents, "--encoder_name_or_path", str(encoder), "--output_dir", str(output_dir)]
    return main([*names, *OPTIONS, *options])


def encoder_weights(model):
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith("encoder.")}


def test_a_run_needs_its_encoders_folder_no_more(encoder, documents, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(encoder, base)
    rates = ["--learning_rate", "0.02", "--encoder_learning_rate", "0.005", "--layerwise_lr_decay", "0.9"]
    metrics = train(base, documents, tmp_path / "run", *rates, "--num_train_epochs", "12")
    assert metrics["validation"]["micro_f1"] > 0.8
    shutil.rmtree(base)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["encoder"] == "pretrained" and config["encoder_config"]["hidden_size"] == 12
    assert config["encoder_special_tokens"] == [1, 1]
    assert str(tmp_path) not in json.dumps(config["encoder_config"])
    classifier = pipeline("multi-label-generation", model=str(tmp_path / "run"))
    assert type(classifier.tokenizer).__name__ == "BertTokenizer"
    (found,) = [classifier("the a of " * 9 + "loan stock")]
    assert [entry["label"] for entry in found] == ["money"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["model"]["encoder_config"] == "bert, 2 layers of size 12"
    assert "encoder_layers" not in summary["model"] and "word_dropout" not in summary["model"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "What its encoder (`bert, 2 layers of size 12`) learnt before" in card


def test_a_frozen_encoder_is_saved_as_it_was(encoder, documents, tmp_path):
    train(encoder, documents, tmp_path, "--freeze_encoder", "true", "--max_steps", "3")
    before = SGMForMultiLabelGeneration.from_encoder_pretrained(encoder, num_labels=2)
    after = encoder_weights(SGMForMultiLabelGeneration.from_pretrained(tmp_path))
    assert all(torch.equal(after[name], tensor) for name, tensor in encoder_weights(before).items())


@pytest.mark.skipif(find_spec("peft") is None, reason="needs peft")
def test_adapters_change_linear_maps_only_and_are_not_seen_afterwards(encoder, documents, tmp_path):
    train(encoder, documents, tmp_path, "--lora_rank", "2", "--max_steps", "3", "--learning_rate", "0.02")
    before = encoder_weights(SGMForMultiLabelGeneration.from_encoder_pretrained(encoder, num_labels=2))
    after = encoder_weights(SGMForMultiLabelGeneration.from_pretrained(tmp_path))
    assert before.keys() == after.keys()
    moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert moved and all(name.endswith(".weight") and before[name].dim() == 2 for name in moved)
    assert not any("embeddings" in name for name in moved)


SEVERAL = "--num_models 2 --num_train_epochs 1 --eval_strategy no --learning_rate 0.02".split()


@pytest.fixture(scope="module", params=["--freeze_encoder true", "--lora_rank 2"], ids=["frozen", "adapters"])
def averaged(request, encoder, documents, tmp_path_factory):
    """The options of two models around one encoder, of which not all is trained, and the folder of their average."""
    options = [*request.param.split(), *SEVERAL]
    if "--lora_rank" in options:
        pytest.importorskip("peft")
    run = tmp_path_factory.mktemp("averaged")
    train(encoder, documents, run, *options)
    return options, run


def test_models_of_other_seeds_around_one_encoder_are_averaged(averaged, encoder):
    options, run = averaged
    model = SGMForMultiLabelGeneration.from_pretrained(run)
    folders = [sorted((run / "members" / number).glob("checkpoint-*"))[-1] for number in "12"]
    trained = [SGMForMultiLabelGeneration.from_pretrained(folder) for folder in folders]
    base = encoder_weights(SGMForMultiLabelGeneration.from_encoder_pretrained(encoder, num_labels=2))
    for member in trained:
        moved = [name for name, tensor in encoder_weights(member).items() if not torch.equal(base[name], tensor)]
        assert bool(moved) == ("--lora_rank" in options) and not any("embeddings" in name for name in moved)
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 9, 3]]), "labels": torch.tensor([[0, 1, 2]])}
    one, two = (member(**inputs).logits.softmax(dim=-1) for member in trained)
    assert not torch.allclose(one, two)
    torch.testing.assert_close(model(**inputs).logits.softmax(dim=-1), (one + two) / 2, rtol=1e-4, atol=1e-5)


def test_several_models_around_one_encoder_go_on_after_an_interruption(
    averaged, encoder, documents, tmp_path, interrupted_at_the_second_model
):
    options, run = averaged
    with interrupted_at_the_second_model():
        train(encoder, documents, tmp_path, *options)
    train(encoder, documents, tmp_path, *options, "--resume_from_checkpoint", "true")
    expected, found = (SGMForMultiLabelGeneration.from_pretrained(folder).state_dict() for folder in (run, tmp_path))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_configuration_alone_gives_random_weights(encoder, documents, tmp_path):
    train(encoder / "config.json", documents, tmp_path, "--max_steps", "1", "--lexical_branch", "true")
    found = encoder_weights(SGMForMultiLabelGeneration.from_pretrained(tmp_path))
    base = encoder_weights(SGMForMultiLabelGeneration.from_encoder_pretrained(encoder, num_labels=2))
    name = "encoder.model.encoder.layer.0.attention.self.query.weight"
    assert not torch.allclose(found[name], base[name], atol=0.1)


def test_the_preset_is_left_out_unless_it_is_named():
    model_args, _, training_args = parse_arguments(["--train_file", "x.csv", "--encoder_name_or_path", "bert"])
    assert (model_args.preset, model_args.word_dropout, training_args.objective) == ("none", None, None)


def test_the_shipped_configuration_makes_a_model_around_the_encoder_that_is_given(encoder, documents, tmp_path):
    options = [str(CONFIG), "--output_dir", str(tmp_path), "--encoder_name_or_path", str(encoder)]
    model_args, data_args, training_args = parse_arguments(options)
    complete_settings(model_args, data_args, training_args)
    check_settings(model_args, data_args, training_args)
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["x", "y"]))})
    data = Dataset.from_dict({"text": ["a bank"], "labels": [[0]]}, features=features)
    tokenizer = build_tokenizer(data, data_args, model_args.encoder_name_or_path)
    model = build_model(data, tokenizer, model_args)
    assert model.config.encoder == "pretrained" and model.config.label_feedback == "global_embedding"
    assert tokenizer.model_max_length == 512 == data_args.max_length
    assert json.loads(CONFIG.read_text())["encoder_name_or_path"] == "bert-base-uncased"


def test_the_tokens_around_a_text_are_counted(encoder):
    tokenizer = BertTokenizer.from_pretrained(encoder)
    assert special_tokens_around(tokenizer) == (1, 1)
    assert special_tokens_around(SGMTokenizer.train_from_texts(["a b c"])) == (0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder", "pretrained"], "needs --encoder_name_or_path"),
        (["--encoder_name_or_path", "x", "--model_name_or_path", "y", "--do_train"], "give one of the two"),
        (["--encoder_name_or_path", "x", "--encoder", "recurrent"], "but --encoder is recurrent"),
        (["--encoder_name_or_path", "x", "--lora_rank", "2", "--freeze_encoder", "true"], "give one of the two"),
        (["--encoder_name_or_path", "x", "--lora_rank", "0"], "--lora_rank is 0"),
    ],
    ids=["none", "two", "other", "both", "rank"],
)
def test_what_contradicts_itself_is_refused(options, message, documents, tmp_path):
    with pytest.raises(ValueError, match=message):
        main(["--train_file", documents, "--output_dir", str(tmp_path), *options])


def test_an_encoder_that_is_not_there_or_reads_other_things_is_refused(encoder, documents, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no model"):
        train(tmp_path / "missing", documents, tmp_path / "run")
    shutil.copytree(encoder, tmp_path / "images")
    AutoModel.from_config(VIT).save_pretrained(tmp_path / "images")
    with pytest.raises(FileNotFoundError, match="reads images, but .* has no image processor"):
        train(tmp_path / "images", documents, tmp_path / "run")
    shutil.copytree(encoder, tmp_path / "small")
    AutoModel.from_config(RobertaConfig(vocab_size=5, hidden_size=4, num_attention_heads=1, num_hidden_layers=1)
        ).save_pretrained(tmp_path / "small")  # fmt: skip
    with pytest.raises(ValueError, match="has 14 words, the model 5"):
        train(tmp_path / "small", documents, tmp_path / "run")
