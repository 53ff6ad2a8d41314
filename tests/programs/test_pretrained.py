"""`sgm-hf train` around a pre-trained encoder, here a tiny one with random weights."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig, BertTokenizer, RobertaConfig, pipeline

from sgm_hf.cli.train import main
from sgm_hf.data.encoding import special_tokens_around
from sgm_hf.modeling import SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.programs.options import parse_arguments

sys.path.append(str(Path(__file__).parents[1] / "modeling"))
from tiny_encoders import VIT  # noqa: E402

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


def test_a_configuration_alone_gives_random_weights(encoder, documents, tmp_path):
    train(encoder / "config.json", documents, tmp_path, "--max_steps", "1", "--lexical_branch", "true")
    found = encoder_weights(SGMForMultiLabelGeneration.from_pretrained(tmp_path))
    base = encoder_weights(SGMForMultiLabelGeneration.from_encoder_pretrained(encoder, num_labels=2))
    name = "encoder.model.encoder.layer.0.attention.self.query.weight"
    assert not torch.allclose(found[name], base[name], atol=0.1)


def test_the_preset_is_left_out_unless_it_is_named():
    model_args, _, training_args = parse_arguments(["--train_file", "x.csv", "--encoder_name_or_path", "bert"])
    assert (model_args.preset, model_args.word_dropout, training_args.objective) == ("none", None, None)


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
