"""Several models as one: its distribution is the mean of the members', and all else works as of one model."""

import copy
import itertools

import pytest
import torch
from accelerate import cpu_offload
from huggingface_hub.errors import StrictDataclassError
from tiny_models import NUM_LABELS, build_model, shake

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration
from sgm_hf.modeling.configuration_sgm import MEMBER_SETTINGS
from sgm_hf.modeling.ensemble_sgm import OF_FIRST_MEMBER

EOS = NUM_LABELS
SIZES = range(NUM_LABELS + 1)
SEQUENCES = [list(order) for size in SIZES for order in itertools.permutations(range(NUM_LABELS), size)]
GOLD = torch.tensor([[2, 0, 3], [1, 3, -100], [3, -100, -100], [0, 2, 3]])
SCORES = {"return_dict_in_generate": True, "output_label_scores": True}
OTHERS = [
    {},
    {"embedding_size": 5, "encoder_hidden_size": 4, "decoder_layers": 2, "label_feedback": "global_embedding"},
    {"encoder_layers": 1, "encoder_max_length": 5, "decoder_hidden_size": 9, "attention_size": 4, "dropout": 0.1},
]
BRANCH = {"lexical_branch": True, "lexical_data": "some documents"}


def build_members(*settings: dict, **shared) -> list[SGMForMultiLabelGeneration]:
    """Models of other seeds and settings; with a branch, all have the same."""
    models = [shake(build_model(seed, **{**shared, **own})) for seed, own in enumerate(settings)]
    if shared.get("lexical_branch"):
        generator = torch.Generator().manual_seed(1)
        lexical = models[0].lexical
        lexical.scale = torch.rand(40, generator=generator) + 0.5
        lexical.weight = torch.randn(40, NUM_LABELS, generator=generator)
        for model in models[1:]:
            model.lexical.load_state_dict(lexical.state_dict())
    return models


KINDS = {
    "seeds": lambda: build_members({}, {}),
    "sizes": lambda: build_members(*OTHERS),
    "branch in one decoder": lambda: build_members({}, {"lexical_in_decoder": True}, **BRANCH),
    "branch in no decoder": lambda: build_members(*OTHERS, **BRANCH),
}


@pytest.fixture(params=KINDS)
def models(request) -> list[SGMForMultiLabelGeneration]:
    return KINDS[request.param]()


def combine(models) -> SGMForMultiLabelGeneration:
    return SGMForMultiLabelGeneration.from_members(models)


def mean_probabilities(models, texts, labels) -> torch.Tensor:
    """By the members themselves, (B, n, L + 1)."""
    return sum(model(**texts, labels=labels).logits.double().softmax(-1) for model in models) / len(models)


def as_ids(row: torch.Tensor) -> list[int]:
    return [label for label in row.tolist() if label < NUM_LABELS]


@torch.no_grad()
def test_each_step_has_the_mean_of_the_members_probabilities(models, texts):
    output = combine(models)(**texts, labels=GOLD)
    expected = mean_probabilities(models, texts, GOLD)
    torch.testing.assert_close(output.logits.double().exp(), expected, rtol=1e-4, atol=1e-6)
    is_target = GOLD >= 0
    right = expected.gather(-1, GOLD.clamp(min=0)[..., None]).squeeze(-1)[is_target]
    assert output.loss.item() == pytest.approx(-right.log().mean().item(), rel=1e-4)


@torch.no_grad()
def test_beams_find_what_a_search_of_all_sequences_finds_and_greedy_search_the_likeliest_steps(models, texts):
    model, columns = combine(models), []
    for labels in SEQUENCES:
        targets = torch.tensor([[*labels, EOS]]).expand(4, -1)
        steps = mean_probabilities(models, texts, targets).log().gather(-1, targets[..., None])  # (B, n, 1)
        columns.append(steps.sum(dim=(1, 2)))
    log_probs = torch.stack(columns, dim=1)  # (B, sequences)
    torch.testing.assert_close(log_probs.logsumexp(dim=1), torch.zeros(4).double(), atol=1e-4, rtol=0)
    best = log_probs.max(dim=1)
    for options in ({}, {"output_scores": True}):  # our own search, and that of Transformers
        output = model.generate(**texts, num_beams=16, return_dict_in_generate=True, **options)
        assert [as_ids(row) for row in output.sequences] == [SEQUENCES[place] for place in best.indices]
        torch.testing.assert_close(output.sequences_scores.double(), best.values, rtol=1e-4, atol=1e-4)
    greedy = model.generate(**texts, num_beams=1)
    steps = mean_probabilities(models, texts, greedy[:, 1:].where(greedy[:, 1:] <= EOS, -100)).argmax(dim=-1)
    assert torch.equal(steps[greedy[:, 1:] <= EOS], greedy[:, 1:][greedy[:, 1:] <= EOS])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "settings", [{}, {"label_feedback": "global_embedding", **BRANCH, "lexical_in_decoder": True}]
)
def test_equal_members_say_what_one_says(texts, count, settings):
    (model,) = build_members({}, **settings)
    one, several = (each.generate(**texts, **SCORES) for each in (model, combine([model] * count)))
    assert torch.equal(several.sequences, one.sequences)
    torch.testing.assert_close(several.sequences_scores, one.sequences_scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(several.label_scores, one.label_scores, rtol=1e-4, atol=1e-5)
    steps = [each(**texts, labels=GOLD, output_attentions=True) for each in (model, combine([model] * count))]
    torch.testing.assert_close(steps[1].cross_attentions[0], steps[0].cross_attentions[0])


@torch.no_grad()
def test_the_order_of_the_members_padding_and_batch_mates_change_nothing(models, texts):
    model = combine(models)
    logits = model(**texts, labels=GOLD).logits
    torch.testing.assert_close(combine(models[::-1])(**texts, labels=GOLD).logits, logits, rtol=1e-4, atol=1e-5)
    together = model.generate(**texts, **SCORES)
    for row in range(4):
        length = int(texts["attention_mask"][row].sum())
        alone = {"input_ids": texts["input_ids"][row : row + 1, :length]}
        torch.testing.assert_close(
            model(**alone, labels=GOLD[row : row + 1]).logits[0], logits[row], rtol=1e-4, atol=1e-5
        )
        found = model.generate(**alone, **SCORES)
        assert as_ids(found.sequences[0]) == as_ids(together.sequences[row])
        torch.testing.assert_close(found.label_scores[0], together.label_scores[row], rtol=1e-4, atol=1e-5)


def test_it_comes_back_from_disk_bit_for_bit(models, texts, tmp_path):
    models[0].generation_config.num_beams = 3
    model = combine(models)
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    assert loaded.config.members == model.config.members and loaded.generation_config.num_beams == 3
    assert loaded.state_dict().keys() == model.state_dict().keys()
    found, expected = (each.generate(**texts, **SCORES) for each in (loaded, model))
    assert torch.equal(found.sequences, expected.sequences)
    assert torch.equal(found.label_scores, expected.label_scores)
    assert loaded.num_parameters() == sum(member.num_parameters() for member in models)


def test_the_members_are_copied_and_each_differs_by_its_settings_alone(texts):
    models = build_members(*OTHERS)
    before = [copy.deepcopy(model.state_dict()) for model in models]
    model = combine(models)
    assert model.config.encoder_max_length is None
    assert [settings.get("encoder_max_length") for settings in model.config.members] == [None, None, 5]
    shake(model)
    for member, weights in zip(models, before, strict=True):
        assert all(torch.equal(value, weights[name]) for name, value in member.state_dict().items())
    own = {**model.config.to_dict(), "members": None}
    assert SGMConfig.from_dict({**own, **model.config.members[1]}).to_dict() == models[1].config.to_dict()


@torch.no_grad()
def test_attention_is_the_mean_over_the_words_that_each_reads(texts):
    models = build_members(*OTHERS)
    model = combine(models)
    assert model.attends_to_words
    options = {**texts, "labels": GOLD, "output_attentions": True, "output_hidden_states": True}
    expected = torch.zeros(4, 3, 9)
    for member in models:
        weights = member(**options).cross_attentions[0]
        expected[..., : weights.shape[-1]] += weights / 3
    output = model(**options)
    torch.testing.assert_close(output.cross_attentions[0], expected)
    assert len(output.encoder_hidden_states) == 3 + 3 + 2 and len(output.decoder_hidden_states) == 2 + 3 + 2
    blind = combine(build_members({}, {"attention": "none"}))
    assert not blind.attends_to_words and blind(**options).cross_attentions is None


def test_gradients_with_checkpointing_are_those_of_numeric_differences(texts):
    models = build_members(*OTHERS, **BRANCH)
    model = combine(models).double()
    model.gradient_checkpointing_enable()
    model.train()
    for module in model.modules():
        module.p = 0.0 if isinstance(module, torch.nn.Dropout) else getattr(module, "p", None)
    loss = model(**texts, labels=GOLD, label_smoothing=0.1).loss
    loss.backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        ends = []
        with torch.no_grad():
            for step in (1e-5, -2e-5, 1e-5):
                parameter.add_(direction, alpha=step)
                ends.append(model(**texts, labels=GOLD, label_smoothing=0.1).loss.item())
        numeric = (ends[0] - ends[1]) / 2e-5
        assert (parameter.grad * direction).sum().item() == pytest.approx(numeric, rel=1e-5, abs=1e-8), name


def test_added_labels_change_no_prediction_and_then_can_be_predicted(texts):
    model = combine(build_members(*OTHERS))
    before = model.generate(**texts, **SCORES)
    model.add_labels(["new"])
    after = model.generate(**texts, **SCORES)
    assert torch.equal(after.sequences, before.sequences.where(before.sequences < 3, before.sequences + 1))
    torch.testing.assert_close(after.label_scores[:, :3], before.label_scores, rtol=1e-5, atol=1e-5)
    model.mark_labels_trained()
    assert model.generate(**texts, required_labels=["new"]).eq(3).any(dim=1).all()


def test_a_frozen_encoder_gets_no_gradient_and_constraints_and_samples_obey(texts):
    model = combine(build_members({}, {"decoder_layers": 2}))
    model.freeze_encoder()
    model(**texts, labels=GOLD).loss.backward()
    assert all((p.grad is None) == name.startswith("encoder.") for name, p in model.named_parameters())
    sampled = model.generate(**texts, num_beams=1, do_sample=True, num_return_sequences=4, forbidden_labels=[1])
    assert len(sampled) == 16 and not sampled.eq(1).any()
    empty = model.generate(input_ids=torch.zeros(0, 4, dtype=torch.long))
    assert len(empty) == 0


def test_other_types_of_numbers_and_offloaded_weights(texts):
    models = build_members(*OTHERS)
    model = combine(models)
    assert combine([models[0].to(torch.bfloat16), models[1]]).dtype == torch.float32
    offloaded = copy.deepcopy(model)
    cpu_offload(offloaded, execution_device=torch.device("cpu"))
    assert torch.equal(offloaded.generate(**texts), model.generate(**texts))
    model.to(torch.bfloat16)
    assert model(**texts, labels=GOLD).logits.dtype == torch.float32
    assert model.generate(**texts).shape[0] == 4


def test_what_cannot_be_averaged_is_refused():
    model = build_model()
    for others, message in (
        ({"vocab_size": 41}, "vocab_size of model 1 is 41, of model 0 40"),
        ({"id2label": {0: "a", 1: "b", 2: "c"}}, "id2label of model 1"),
        ({"label_mask": False}, "label_mask of model 1 is False"),
        ({"lexical_branch": True}, "lexical_branch of model 1 is True"),
    ):
        with pytest.raises(ValueError, match=message):
            combine([model, build_model(**others)])
    branches = [build_model(lexical_branch=True, lexical_data=data) for data in ("these", "those")]
    with pytest.raises(ValueError, match="lexical_data of model 1 is 'those', of model 0 'these'"):
        combine(branches)
    with pytest.raises(ValueError, match="at least one member"):
        combine([])
    with pytest.raises(ValueError, match="Model 1 is an ensemble itself"):
        combine([model, combine([model])])


def test_word_embeddings_of_an_ensemble_are_refused_and_it_stays_as_it_was(texts):
    model = combine([build_model(), build_model(1)])
    with pytest.raises(ValueError, match="single models, then average them again"):
        model.resize_token_embeddings(50)
    with pytest.raises(ValueError, match="single models"):
        model.set_input_embeddings(torch.nn.Embedding(40, 8))
    with pytest.raises(ValueError, match="give input_ids"):
        model(inputs_embeds=torch.zeros(4, 9, 8), labels=GOLD)
    with pytest.raises(ValueError, match="give what the encoder returned"):
        model(encoder_outputs=(torch.zeros(4, 9, 12),), labels=GOLD)
    assert model.config.vocab_size == 40
    assert torch.equal(
        model(**texts, labels=GOLD).logits, model(encoder_outputs=model.encode(**texts), labels=GOLD).logits
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "empty list"),
        ([{}, {"vocab_size": 3}], "Member 1 has vocab_size of its own"),
        ([{"encoder_hidden_size": 0}], "encoder_hidden_size must be at least 1"),
        ([{"encoder_max_length": 9}], "encoder_max_length of member 0 is 9, beyond 5"),
        ([{}, {"lexical_in_decoder": True}], "lexical_in_decoder is True of member 1"),
        ("two", "members"),
    ],
)
def test_wrong_settings_of_members_are_refused(members, message):
    with pytest.raises(StrictDataclassError, match=message):
        SGMConfig(members=members, encoder_max_length=5, lexical_branch=True)


def test_every_setting_of_a_model_is_either_shared_or_of_each_member():
    shared = {"vocab_size", "pad_token_id", "label_mask", "lexical_branch", "lexical_data", "num_untrained_labels"}
    of_no_model = {"members", "is_encoder_decoder", "tie_word_embeddings"}
    assert {*SGMConfig.__annotations__} >= {*MEMBER_SETTINGS}
    rest = {*SGMConfig.__annotations__} - {*MEMBER_SETTINGS} - OF_FIRST_MEMBER - shared - of_no_model
    assert {name for name in rest if name.islower() and name not in ("model_type", "attribute_map")} == set()
