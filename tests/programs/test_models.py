import pytest
import torch
from transformers import BertTokenizer

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.programs.models import load_checkpoint

SIZES = {"embedding_size": 4, "encoder_hidden_size": 4, "encoder_layers": 1, "decoder_hidden_size": 4}
VOCABULARY = {word: i for i, word in enumerate("[PAD] [UNK] [CLS] [SEP] [MASK] cocoa oil price ##s".split())}


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_checkpoint(str(tmp_path / "nowhere"))


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
