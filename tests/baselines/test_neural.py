"""The neural baselines: they learn, keep the best epoch, resume, and are the same after saving and loading."""

import json

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer, RobertaConfig

from sgm_hf.baselines import BASELINES, Baseline, Documents
from sgm_hf.baselines.base import setting_names
from sgm_hf.baselines.classification import ClassificationTrainer
from sgm_hf.metrics import compute_metrics, fit_threshold

NAMES = ("cnn", "xml_cnn", "cnn_rnn", "sequence_classification")
# Column 0 is the rarest label, so that the order of generation is another one than that of the columns.
TRAIN = Documents(
    [
        "grain prices rose again in march",
        "grain and cocoa exports fell",
        "cocoa shipments from ghana to the ports of the north were late this year said the board",
        "oil output was cut grain was not",
        "cocoa oil",
        "oil",
        "tin cocoa oil traders met",
        "the weather was fine",
    ],
    np.array(
        [
            [0, 1, 0, 0],
            [0, 1, 1, 0],
            [0, 0, 1, 0],
            [0, 1, 0, 1],
            [0, 0, 1, 1],
            [0, 0, 0, 1],
            [1, 0, 1, 1],
            [0, 0, 0, 0],
        ],
        dtype=bool,
    ),
)
OTHERS = Documents(["grain rose", "oil fell and cocoa rose", "the board met"], TRAIN.references[[0, 4, 7]])
SMALL = {
    "cnn": {"embedding_size": 12, "feature_maps": 8, "dropout": 0.0, "learning_rate": 0.02},
    "xml_cnn": {
        **{"embedding_size": 12, "feature_maps": 8, "dropout": 0.0, "learning_rate": 0.01},
        **{"num_chunks": 2, "bottleneck_size": 16},
    },
    "cnn_rnn": {
        **{"embedding_size": 12, "feature_maps": 8, "dropout": 0.0, "learning_rate": 0.01},
        **{"text_size": 16, "decoder_hidden_size": 16, "num_beams": 3},
    },
    "sequence_classification": {"learning_rate": 0.01},
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    """The configuration of a tiny BERT, with no tokenizer beside it."""
    folder = tmp_path_factory.mktemp("bert")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(**sizes, vocab_size=200, max_position_embeddings=16, initializer_range=0.3)
    (folder / "tiny.json").write_text(json.dumps(config.to_dict()))
    return str(folder / "tiny.json")


def make(name: str, bert: str, **settings) -> Baseline:
    if name == "sequence_classification":
        settings = {"encoder_name_or_path": bert, **settings}
    return BASELINES[name](**{"num_train_epochs": 60, "precision": "fp32", **SMALL[name], **settings})


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_eight_documents_and_is_the_same_after_loading(name, bert, tmp_path):
    baseline = make(name, bert)
    baseline.label_names = ["tin", "grain", "cocoa", "oil"]
    baseline.fit(TRAIN)
    scores, sets = baseline.predict_scores(TRAIN.texts), baseline.predict_sets(TRAIN.texts)
    assert scores.dtype == np.float32 and scores.shape == (8, 4) and 0 <= scores.min() <= scores.max() <= 1
    assert [sorted(labels) for labels in sets] == [np.flatnonzero(row).tolist() for row in TRAIN.references]
    np.testing.assert_array_equal(scores >= 0.5, TRAIN.references)

    baseline.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".txt"}
    again = Baseline.load(tmp_path)
    assert type(again) is type(baseline) and again.settings == baseline.settings
    texts = [*TRAIN.texts, *OTHERS.texts, "", "unheard of"]
    np.testing.assert_array_equal(again.predict_scores(texts), baseline.predict_scores(texts))
    assert again.predict_sets(TRAIN.texts) == sets
    assert again.predict_labels(TRAIN.texts[1:2]) and set(again.predict_labels(TRAIN.texts)[1]) == {"grain", "cocoa"}
    assert not again.predict_scores(["", "grain"])[0].any()  # no words, no label


def test_the_epoch_of_the_best_validation_f1_is_kept(bert, monkeypatch):
    values = []
    evaluate = ClassificationTrainer.evaluate

    def noted(self, *arguments, **keywords):
        metrics = evaluate(self, *arguments, **keywords)
        values.append(metrics["eval_micro_f1"])
        return metrics

    monkeypatch.setattr(ClassificationTrainer, "evaluate", noted)
    baseline = make("cnn", bert, num_train_epochs=6, learning_rate=0.2, patience=6)
    baseline.fit(TRAIN, OTHERS)
    scores = baseline.predict_scores(OTHERS.texts)
    found = compute_metrics(OTHERS.references, scores >= np.float32(fit_threshold(OTHERS.references, scores)))
    assert found["micro_f1"] == max(values) > min(values)
    assert baseline.best_epoch == values.index(max(values)) + 1


def test_an_interrupted_training_goes_on_to_the_same_weights(bert, monkeypatch, tmp_path):
    settings = {"num_train_epochs": 4, "dropout": 0.3}
    whole = make("cnn", bert, **settings)
    whole.fit(TRAIN, OTHERS)

    evaluate, calls = ClassificationTrainer.evaluate, []

    def killed_at_the_third(self, *arguments, **keywords):
        calls.append(self.state.epoch)
        if len(calls) == 3:
            raise RuntimeError("killed")
        return evaluate(self, *arguments, **keywords)

    monkeypatch.setattr(ClassificationTrainer, "evaluate", killed_at_the_third)
    parts = make("cnn", bert, **settings)
    parts.checkpoint_folder = tmp_path / "checkpoints"
    with pytest.raises(RuntimeError, match="killed"):
        parts.fit(TRAIN, OTHERS)
    parts.fit(TRAIN, OTHERS)
    assert calls == [1, 2, 3, 3, 4]
    expected = whole.model.state_dict()
    assert all(torch.equal(expected[name], weight) for name, weight in parts.model.state_dict().items())

    again = make("cnn", bert, **settings)  # killed after the training, before anything was made of it
    again.checkpoint_folder = parts.checkpoint_folder
    again.fit(TRAIN, OTHERS)
    assert len(calls) == 5
    assert all(torch.equal(expected[name], weight) for name, weight in again.model.state_dict().items())

    with pytest.raises(ValueError, match="training data"):
        parts.fit(Documents(["other words", *TRAIN.texts[1:]], TRAIN.references), OTHERS)


def test_another_setting_takes_over_words_and_documents_once(bert):
    first, second, shorter = (make("cnn", bert, num_train_epochs=1, max_length=length) for length in (20, 20, 3))
    first.fit(TRAIN, OTHERS)
    for other in (second, shorter):
        other.reuse(first)
        other.fit(TRAIN, OTHERS)
    assert second.tokenizer is first.tokenizer and second.datasets is first.datasets
    assert shorter.tokenizer is not first.tokenizer and max(shorter.datasets[0]["length"]) == 3
    second.fit(OTHERS)
    assert len(second.tokenizer) < len(first.tokenizer) and len(second.datasets[0]) == 3


def test_a_text_is_cut_where_the_encoder_has_no_more_positions(bert):
    baseline = make("sequence_classification", bert, num_train_epochs=1)
    baseline.fit(TRAIN)
    assert max(baseline.datasets[0]["length"]) == 16
    assert baseline.predict_scores(["cocoa " * 100]).shape == (1, 4)


def test_without_an_encoder_a_small_one_reads_pieces_of_the_training_texts(bert, tmp_path):
    baseline = make("sequence_classification", bert, encoder_name_or_path=None, num_train_epochs=1)
    baseline.fit(TRAIN)
    assert baseline.model.config.vocab_size == len(baseline.tokenizer)
    assert baseline.tokenizer("cocoa").tokens() == ["[CLS]", "cocoa", "[SEP]"]
    scores = baseline.predict_scores(TRAIN.texts)
    alone = np.concatenate([baseline.predict_scores([text]) for text in TRAIN.texts])
    np.testing.assert_allclose(scores, alone, rtol=1e-4, atol=1e-6)
    baseline.save(tmp_path)
    np.testing.assert_array_equal(Baseline.load(tmp_path).predict_scores(TRAIN.texts), scores)


def test_a_pretrained_encoder_begins_with_its_weights_and_tokenizer(bert, tmp_path):
    tokenizer = BertTokenizer().train_new_from_iterator(["grain, cocoa", "cocoa"], 60, show_progress=False)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    encoder = BertModel(BertConfig(**sizes, vocab_size=len(tokenizer)))
    encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    baseline = make("sequence_classification", bert, encoder_name_or_path=str(tmp_path), num_train_epochs=1)
    baseline.fit(TRAIN)
    assert baseline.tokenizer.get_vocab() == tokenizer.get_vocab()
    model = baseline.make_model(TRAIN)
    assert model.config.problem_type == "multi_label_classification" and model.config.num_labels == 4
    for name, weight in encoder.state_dict().items():
        assert torch.equal(model.state_dict()[f"bert.{name}"], weight), name


@pytest.mark.parametrize("kind", [BertConfig, RobertaConfig])  # with another id of padding
def test_padding_changes_no_score_of_an_encoder_without_a_tokenizer(kind, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = kind(**sizes, vocab_size=120, max_position_embeddings=40, initializer_range=0.5)
    (tmp_path / "tiny.json").write_text(json.dumps(config.to_dict()))
    baseline = make("sequence_classification", str(tmp_path / "tiny.json"), num_train_epochs=1)
    baseline.fit(TRAIN)
    assert baseline.model.config.pad_token_id == baseline.tokenizer.pad_token_id
    together = baseline.predict_scores(TRAIN.texts)
    alone = np.concatenate([baseline.predict_scores([text]) for text in TRAIN.texts])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"num_train_epochs": 0}, "num_train_epochs is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"widths": [3, 0]}, "widths is"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_training(bert, settings, message):
    with pytest.raises(ValueError, match=message):
        make("cnn", bert, **settings)


def test_an_encoder_that_is_not_there_is_named(bert, tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        make("sequence_classification", bert, encoder_name_or_path=str(tmp_path)).fit(TRAIN)


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_varies_settings_that_there_are(name):
    assert BASELINES[name].name == name
    assert BASELINES[name].grid and set(BASELINES[name].grid) <= set(setting_names(BASELINES[name]))
