"""A new encoder, cell or attention is one class and one entry of a dictionary, and then all works.

The toys below are as a contributor would write them: nothing else of the package knows of them.
"""

import itertools
from typing import Any, Literal

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import BertConfig, BertTokenizer, pipeline

from sgm_hf import SGMTrainer, SGMTrainingArguments, encode_dataset
from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration, attention_sgm, decoder_sgm, encoders_sgm
from sgm_hf.modeling.attention_sgm import SGMAttention
from sgm_hf.modeling.encoders_sgm import SGMEncoder, SGMEncoderOutput

LABELS = ("grain", "cocoa", "coffee", "sugar")
WORDS_PER_LABEL = 2  # words 2, 3 are of label 0, words 4, 5 of label 1, ...; word 0 is padding, word 1 says nothing
VOCAB_SIZE = 2 + WORDS_PER_LABEL * len(LABELS)


class HalvingEncoder(SGMEncoder):
    """A state for every two words."""

    def __init__(self, config: SGMConfig):
        super().__init__()
        self.output_size, self.summary_size = 10, 6
        self.embed_tokens = nn.Embedding(config.vocab_size, 6)
        self.pair = nn.Linear(2 * 6, self.output_size)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> SGMEncoderOutput:
        """Joins the embeddings of neighbours."""
        is_odd = input_ids.shape[1] % 2
        words = nn.functional.pad(input_ids, (0, is_odd))  # (B, 2T')
        mask = nn.functional.pad(attention_mask, (0, is_odd)).bool()  # (B, 2T')
        embeddings = self.embed_tokens(words) * mask[..., None]  # (B, 2T', 6)
        states = torch.tanh(self.pair(embeddings.unflatten(1, (-1, 2)).flatten(2)))  # (B, T', 10)
        return SGMEncoderOutput(last_hidden_state=states, mask=mask[:, ::2], summary=embeddings.sum(dim=1))


class GRUCell(nn.GRUCell):
    """A cell with one state."""

    state_names = ("hidden",)

    def forward(self, inputs: torch.Tensor, states: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        """Steps."""
        return (super().forward(inputs, *states),)


class DotAttention(SGMAttention):
    """Dot products with the states, whose memory has other names and sizes than that of the words."""

    memory_names = ("projected", "absent")

    def __init__(self, config: SGMConfig, encoder: SGMEncoder):
        super().__init__()
        self.context_size = config.decoder_hidden_size
        self.project = nn.Linear(encoder.output_size, config.decoder_hidden_size)

    def memory(self, encoded: SGMEncoderOutput) -> dict[str, torch.Tensor]:
        """The states in the decoder's size."""
        return {"projected": self.project(encoded.last_hidden_state), "absent": ~encoded.mask}

    def forward(self, query: torch.Tensor, *memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attends."""
        projected, absent = memory
        rows = query.view(projected.shape[0], -1, query.shape[-1])  # (B, R/B, H_d)
        energy = (rows @ projected.mT).masked_fill(absent[:, None], -1e9)  # (B, R/B, T')
        weights = energy.softmax(dim=-1)  # (B, R/B, T')
        return (weights @ projected).flatten(0, 1), weights.flatten(0, 1)


@strict
class ToyConfig(SGMConfig):
    """The configuration with the toys' names."""

    encoder: Literal["recurrent", "halving", "pretrained"] = "recurrent"
    cell: Literal["lstm", "gru"] = "lstm"
    attention: Literal["word", "none", "dot"] = "word"


class ToyModel(SGMForMultiLabelGeneration):
    """The model of that configuration."""

    config: ToyConfig


BERT = BertConfig(
    vocab_size=VOCAB_SIZE,
    hidden_size=12,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
TOYS = {
    "halving encoder": {"encoder": "halving"},
    "GRU cell": {"cell": "gru", "decoder_layers": 2},
    "dot attention": {"attention": "dot"},
    "pre-trained encoder": {"encoder": "pretrained", "encoder_config": BERT},
    "all at once": {"encoder": "halving", "cell": "gru", "attention": "dot"},
}


@pytest.fixture(autouse=True)
def entries(monkeypatch):
    """The entries of the dictionaries: all that the package is told."""
    monkeypatch.setitem(encoders_sgm.ENCODERS, "halving", HalvingEncoder)
    monkeypatch.setitem(decoder_sgm.CELLS, "gru", GRUCell)
    monkeypatch.setitem(attention_sgm.ATTENTIONS, "dot", DotAttention)


def build(settings: dict[str, Any]) -> ToyModel:
    torch.manual_seed(0)
    config = ToyConfig(
        **{
            "vocab_size": VOCAB_SIZE,
            "id2label": dict(enumerate(LABELS)),
            "embedding_size": 8,
            "encoder_hidden_size": 8,
            "encoder_layers": 1,
            "decoder_hidden_size": 16,
            "dropout": 0.0,
            "label_feedback": "global_embedding",
        }
        | settings
    )
    return ToyModel(config)


def documents(count: int, seed: int = 0) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
    """Texts of 1 to 7 words that name their labels, and these, ascending."""
    generator = torch.Generator().manual_seed(seed)
    words = [torch.randint(1, VOCAB_SIZE, (int(n),), generator=generator) for n in torch.arange(count) % 7 + 1]
    input_ids = nn.utils.rnn.pad_sequence(words, batch_first=True)  # (B, T)
    sets = [sorted({(int(word) - 2) // WORDS_PER_LABEL for word in text if word > 1}) for text in words]
    return {"input_ids": input_ids, "attention_mask": input_ids.ne(0).long()}, sets


def targets(sets: list[list[int]]) -> torch.Tensor:
    rows = [torch.tensor([*labels, len(LABELS)]) for labels in sets]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)


def train(model: ToyModel, updates: int = 150) -> None:
    inputs, sets = documents(192)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(updates):
        optimizer.zero_grad()
        model(**inputs, labels=targets(sets)).loss.backward()
        optimizer.step()
    model.eval()


def sets_of(sequences: torch.Tensor) -> list[list[int]]:
    return [[int(label) for label in row if label < len(LABELS)] for row in sequences]


@pytest.fixture(params=TOYS)
def settings(request) -> dict[str, Any]:
    return TOYS[request.param]


def test_it_learns_and_labels_texts_that_it_has_not_seen(settings):
    model = build(settings)
    inputs, sets = documents(60, seed=1)
    before = sets_of(model.eval().generate(**inputs, num_beams=3))
    train(model)
    after = sets_of(model.generate(**inputs, num_beams=3))
    right = [
        sum(found == gold for found, gold in zip(found, sets, strict=True)) / len(sets) for found in (before, after)
    ]
    assert right[0] < 0.3 and right[1] > 0.8


def test_every_parameter_gets_a_gradient(settings):
    model = build(settings)
    inputs, sets = documents(14)
    model(**inputs, labels=targets(sets)).loss.backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert {name for name in idle if "pooler" not in name} == set()


def test_beams_under_constraints_find_what_a_search_of_all_sequences_finds(settings):
    model = build(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    inputs, _ = documents(5)
    constraints = {"required_labels": ["cocoa"], "forbidden_labels": ["sugar"], "max_labels": 2}
    found = model.generate(
        **inputs,
        **constraints,
        num_beams=40,
        num_return_sequences=1,
        return_dict_in_generate=True,
        output_scores=False,
    )
    allowed = [s for n in (1, 2) for s in itertools.permutations(range(3), n) if 1 in s]
    with torch.no_grad():
        labels = targets([list(labels) for labels in allowed])  # (S, n)
        for row in range(5):
            own = {name: tensor[row : row + 1].expand(len(allowed), -1) for name, tensor in inputs.items()}
            log_probs = model(**own, labels=labels).logits.log_softmax(dim=-1)  # (S, n, L + 1)
            # What constraints forbid is left out; the probability of what is left stays as it was.
            steps = log_probs.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1).masked_fill(labels < 0, 0.0)
            totals = steps.sum(dim=1)  # (S)
            assert sets_of(found.sequences)[row] == list(allowed[int(totals.argmax())])
            assert found.sequences_scores[row].item() == pytest.approx(totals.max().item(), abs=1e-4)


def test_transformers_beam_search_finds_the_same_as_ours(settings):
    model = build(settings).eval()
    inputs, _ = documents(7)
    ours = model.generate(**inputs, num_beams=4, num_return_sequences=4, return_dict_in_generate=True)
    theirs = model.generate(
        **inputs, num_beams=4, num_return_sequences=4, return_dict_in_generate=True, output_scores=True
    )
    assert sets_of(ours.sequences) == sets_of(theirs.sequences)
    torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, rtol=1e-4, atol=1e-4)


def test_padding_and_batch_mates_change_nothing(settings):
    model = build(settings).eval()
    inputs, sets = documents(7)
    together = model(**inputs, labels=targets(sets)).logits
    for row, labels in enumerate(sets):
        length = int(inputs["attention_mask"][row].sum())
        alone = {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}
        logits = model(**alone, labels=targets([labels])).logits
        torch.testing.assert_close(together[row, : len(labels) + 1], logits[0], rtol=1e-4, atol=1e-5)


def test_it_comes_back_from_disk_bit_for_bit(settings, tmp_path):
    model = build(settings).eval()
    inputs, sets = documents(7)
    model.save_pretrained(tmp_path)
    loaded = ToyModel.from_pretrained(tmp_path)
    assert type(loaded.encoder) is type(model.encoder)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    loaded.load_state_dict({name: weight.clone() for name, weight in loaded.state_dict().items()}, assign=True)
    assert torch.equal(model(**inputs, labels=targets(sets)).logits, loaded(**inputs, labels=targets(sets)).logits)
    assert torch.equal(model.generate(**inputs), loaded.generate(**inputs))


@pytest.mark.parametrize("toy", ["GRU cell", "dot attention", "pre-trained encoder"])
def test_gradient_checkpointing_changes_no_gradient(toy):
    inputs, sets = documents(14)
    gradients = []
    for checkpoints in (False, True):
        model = build(TOYS[toy])
        if checkpoints:
            model.gradient_checkpointing_enable()
        model(**inputs, labels=targets(sets)).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients)


def test_a_pretrained_encoder_is_trained_and_served_with_its_own_tokenizer(tmp_path):
    words = [f"word{i}" for i in range(2, VOCAB_SIZE)]
    special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate([*special, *words])})
    bert = BertConfig.from_dict(BERT.to_dict() | {"vocab_size": 20, "pad_token_id": 4})  # rows to spare; padding not 0
    inputs, sets = documents(192)
    texts = [" ".join(f"word{word}" for word in text if word > 1) for text in inputs["input_ids"].tolist()]
    kept = [row for row, text in enumerate(texts) if text]
    columns = {"text": [texts[row] for row in kept], "labels": [sets[row] for row in kept]}
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=list(LABELS)))})
    data = encode_dataset(Dataset.from_dict(columns, features), tokenizer, LABELS, training=True)
    arguments = SGMTrainingArguments(
        tmp_path / "run", num_train_epochs=25, learning_rate=0.01, per_device_train_batch_size=64, save_strategy="no",
        eval_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    model = build({"encoder": "pretrained", "encoder_config": bert})
    assert (model.config.vocab_size, model.config.pad_token_id) == (20, 4)
    SGMTrainer(model, arguments, train_dataset=data, processing_class=tokenizer).train()

    classifier = pipeline("multi-label-generation", model=model.eval(), tokenizer=tokenizer)
    answers = classifier(columns["text"][:40], return_attention=True)
    found = [sorted(LABELS.index(entry["label"]) for entry in answer) for answer in answers]
    assert sum(labels == gold for labels, gold in zip(found, columns["labels"][:40], strict=True)) > 35
    assert [word["word"] for word in answers[0][0]["attention"]] == columns["text"][0].split()
    with pytest.warns(UserWarning, match="no word"):
        assert classifier("") == []


def test_states_alone_are_refused_where_they_are_not_all(tmp_path):
    model = build(TOYS["halving encoder"])
    inputs, sets = documents(7)
    states = model.encoder(**inputs).last_hidden_state
    with pytest.raises(ValueError, match="HalvingEncoder returns more; give what the encoder returned"):
        model(encoder_outputs=(states,), labels=targets(sets))
    assert not model.attends_to_words
    assert build({}).attends_to_words and build(TOYS["pre-trained encoder"]).attends_to_words


def test_a_kind_that_is_not_there_is_refused():
    with pytest.raises(StrictDataclassError, match="'encoder' expected one of .'recurrent'.*, got halving"):
        SGMConfig(encoder="halving")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_config": BERT}, "encoder_config is a setting of a pre-trained encoder"),
        ({"encoder": "pretrained", "encoder_config": {"hidden_size": 4}}, "names no model_type.*such as BertConfig"),
        ({"encoder": "pretrained", "encoder_config": {"model_type": "no-such-model"}}, "no-such-model"),
    ],
    ids=["unused", "nameless", "unknown"],
)
def test_a_configuration_that_no_encoder_can_use_is_refused(settings, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        ToyConfig(**settings)


def test_the_configuration_of_a_pretrained_encoder_is_kept_with_its_words(tmp_path):
    config = ToyConfig(encoder="pretrained", encoder_config=BERT, num_labels=4)
    config.save_pretrained(tmp_path)
    loaded = ToyConfig.from_pretrained(tmp_path)
    assert isinstance(loaded.encoder_config, BertConfig)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.vocab_size == VOCAB_SIZE
