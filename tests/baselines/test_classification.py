"""The trainer of networks of independent labels."""

import os
import signal

import numpy as np
import pytest
import torch
from datasets import Dataset

from sgm_hf.baselines.classification import ClassificationTrainer, MultiHotCollator, predict_scores
from sgm_hf.baselines.convolution import CNNConfig, CNNForMultiLabelClassification
from sgm_hf.modeling import SGMTokenizer
from sgm_hf.training import SGMTrainingArguments
from sgm_hf.training.checkpoints import has_complete_checkpoint

TEXTS = ["grain rose", "cocoa and grain fell in march", "", "oil", "cocoa oil grain and tin of the north"]
LABELS = [[0], [1, 0], [], [2], [0, 1, 2]]


@pytest.fixture(scope="module")
def tokenizer():
    return SGMTokenizer.train_from_texts(TEXTS)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "embedding_size": 6, "feature_maps": 4, "num_labels": 3}
    return CNNForMultiLabelClassification(CNNConfig(**sizes))


@pytest.fixture
def trainer(model, tokenizer, tmp_path):
    documents = encoded(tokenizer).select([0, 1, 3, 4])
    args = SGMTrainingArguments(
        str(tmp_path), num_train_epochs=4, per_device_train_batch_size=2, disable_tqdm=True, eval_strategy="no"
    )
    return ClassificationTrainer(model, args, documents, None, tokenizer)


def encoded(tokenizer) -> Dataset:
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    return Dataset.from_dict({"input_ids": ids, "length": list(map(len, ids)), "labels": LABELS})


def test_labels_are_columns_of_zero_and_one():
    collate = MultiHotCollator(0, 3)
    batch = collate([{"input_ids": [5, 6], "labels": [2, 0]}, {"input_ids": [7], "labels": []}])
    assert batch["labels"].tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_scores_come_in_the_order_of_the_documents_and_are_0_without_words(model, tokenizer):
    dataset = encoded(tokenizer)
    scores = predict_scores(model, dataset, tokenizer, max_documents=2)
    for row, ids in enumerate(dataset["input_ids"]):
        expected = torch.zeros(3)
        if ids:
            with torch.no_grad():
                expected = model.eval()(torch.tensor([ids])).logits[0].sigmoid()
        np.testing.assert_allclose(scores[row], expected.numpy(), rtol=1e-5, atol=1e-7)


def test_training_stops_before_an_update_that_is_not_finite(trainer):
    trainer.model.output.bias.data[0] = float("nan")
    before = trainer.model.convolution.embed_tokens.weight.clone()
    with pytest.raises(FloatingPointError, match="update 1: the loss is nan"):
        trainer.train()
    assert torch.equal(trainer.model.convolution.embed_tokens.weight.cpu(), before)


def test_ctrl_c_ends_a_training_with_a_checkpoint(trainer, monkeypatch):
    step = ClassificationTrainer.training_step

    def interrupted_at_the_third(self, *arguments):
        if self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(ClassificationTrainer, "training_step", interrupted_at_the_third)
    with pytest.raises(SystemExit) as ended:
        trainer.train()
    assert ended.value.code == 130 and trainer.state.global_step == 3
    assert has_complete_checkpoint(trainer.args.output_dir)
