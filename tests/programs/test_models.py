import pytest
import torch
from datasets import Dataset
from transformers import BertTokenizer

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.programs.models import load_checkpoint, set_initial_vectors
from sgm_hf.training import ppmi_vectors

SIZES = {"embedding_size": 4, "encoder_hidden_size": 4, "encoder_layers": 1, "decoder_hidden_size": 4}
VOCABULARY = {word: i for i, word in enumerate("[PAD] [UNK] [CLS] [SEP] [MASK] cocoa oil price ##s".split())}


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_checkpoint(str(tmp_path / "nowhere"))


def test_a_baseline_is_no_checkpoint_and_the_error_says_what_it_is(tmp_path):
    (tmp_path / "baseline.json").write_text('{"baseline": "cc"}')
    with pytest.raises(ValueError, match="has the baseline cc, not a model; it labels a file by sgm-hf baseline cc"):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    "tokenizer",
    [
        SGMTokenizer.train_from_texts(["cocoa oil prices"]),
        BertTokenizer(vocab=VOCABULARY),
    ],
    ids=lambda tokenizer: type(tokenizer).__name__,
)
def test_a_checkpoint_comes_with_the_tokenizer_it_was_saved_with(tmp_path, tokenizer):
    config = SGMConfig(vocab_size=len(tokenizer), id2label={0: "a", 1: "b"}, **SIZES)
    saved = SGMForMultiLabelGeneration(config)
    saved.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, loaded = load_checkpoint(str(tmp_path))
    assert type(loaded) is type(tokenizer)
    assert loaded("Cocoa prices")["input_ids"] == tokenizer("Cocoa prices")["input_ids"]
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in saved.state_dict().items())


def test_initial_vectors_none_leave_a_new_model_and_the_random_state_bit_for_bit():
    tokenizer = SGMTokenizer.train_from_texts(["cocoa oil prices"])
    model = SGMForMultiLabelGeneration(SGMConfig(vocab_size=len(tokenizer), id2label={0: "a", 1: "b"}, **SIZES))
    before, state = {name: weight.clone() for name, weight in model.state_dict().items()}, torch.get_rng_state()
    train = Dataset.from_dict({"input_ids": [[2, 3, 4], [3, 4]], "length": [3, 2]})
    set_initial_vectors(model, tokenizer, train, "none", seed=1)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    set_initial_vectors(model, tokenizer, train, "ppmi", seed=1)
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {"encoder.embed_tokens.weight"}
    expected = ppmi_vectors(train, len(tokenizer), 4, pad_token_id=0, seed=1)
    assert torch.equal(model.get_input_embeddings().weight, expected)
    assert torch.equal(torch.get_rng_state(), state)
