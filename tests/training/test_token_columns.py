"""The columns of the tokenizer reach the model in training, in prediction and in the loss of an evaluation."""

from functools import wraps

import pytest
from tiny_training import make_documents, make_model

from sgm_hf.training import SamplingArguments, SelfCriticalTrainer, SGMTrainer, SGMTrainingArguments
from sgm_hf.training.prediction import generate_predictions, mean_token_loss


def make_recording_model():
    """A model, and the lists of the token types that its `forward` and its `generate` get from outside."""
    model, forwarded, generated = make_model(), [], []
    forward, generate = model.forward, model.generate

    @wraps(forward)
    def record_forward(*arguments, token_type_ids=None, **keywords):
        forwarded.append(token_type_ids)
        return forward(*arguments, **keywords)

    @wraps(generate)
    def record_generate(*arguments, token_type_ids=None, **keywords):
        generated.append(token_type_ids)
        return generate(*arguments, **keywords)

    model.forward, model.generate = record_forward, record_generate
    return model, forwarded, generated


def make_typed_documents():
    """Encoded documents whose token types are 1."""
    documents = make_documents(4)
    return documents.add_column("token_type_ids", [[1] * length for length in documents["length"]])


def assert_all_documents_came(batches, documents):
    batches = [types for types in batches if types is not None]  # None: of the steps within generate()
    assert sum(len(batch) for batch in batches) == len(documents)
    assert sum(int(batch.sum()) for batch in batches) == sum(documents["length"])  # padding is 0


def test_predictions_hand_them_to_the_model():
    (model, _, generated), documents = make_recording_model(), make_typed_documents()
    generate_predictions(model, documents, max_documents=3)
    assert_all_documents_came(generated, documents)


def test_the_loss_hands_them_to_the_model():
    (model, forwarded, _), documents = make_recording_model(), make_typed_documents()
    mean_token_loss(model, documents, max_documents=3)
    assert_all_documents_came(forwarded, documents)


@pytest.mark.parametrize(
    ("trainer_class", "arguments_class"),
    [(SGMTrainer, SGMTrainingArguments), (SelfCriticalTrainer, SamplingArguments)],
)
def test_training_hands_them_to_the_model(tmp_path, trainer_class, arguments_class):
    (model, forwarded, _), documents = make_recording_model(), make_typed_documents()
    arguments = arguments_class(str(tmp_path), per_device_train_batch_size=3)
    trainer = trainer_class(model, arguments, train_dataset=documents, eval_dataset=documents)
    for batch in trainer.get_train_dataloader():
        trainer.compute_loss(model, batch)
    assert_all_documents_came(forwarded, documents)
