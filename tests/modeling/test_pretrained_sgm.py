"""Encoders of Transformers: tiny ones with random weights, of each kind that texts and images are read by."""

import copy
import itertools

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from tiny_encoders import SIZES, TEXT_ENCODERS, VIT, VOCAB_SIZE
from transformers import AutoModel, BertConfig, GPT2Config, ResNetConfig

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration
from sgm_hf.modeling.lexical_sgm import SGMLexicalBranch

ENCODERS = {**TEXT_ENCODERS, "vit": VIT}
NUM_LABELS = 3
SETTINGS = {
    "num_labels": NUM_LABELS,
    "embedding_size": 8,
    "decoder_hidden_size": 16,
    "label_feedback": "global_embedding",
    "dropout": 0.0,
    "initializer_range": 1.0,
}
EVERY_SEQUENCE = [s for n in range(NUM_LABELS + 1) for s in itertools.permutations(range(NUM_LABELS), n)]


def build(encoder_config, seed=0, **settings):
    torch.manual_seed(seed)
    config = SGMConfig(encoder="pretrained", encoder_config=copy.deepcopy(encoder_config), **{**SETTINGS, **settings})
    model = SGMForMultiLabelGeneration(config).eval()
    with torch.no_grad():
        model.decoder.output.weight.mul_(4.0)
    return model


def texts(*lengths, pad=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(4, VOCAB_SIZE, (length,), generator=generator) for length in lengths]
    input_ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return {"input_ids": input_ids, "attention_mask": mask}


def inputs_of(name, *lengths):
    if name == "vit":
        return {"pixel_values": torch.randn(len(lengths), 3, 8, 8, generator=torch.Generator().manual_seed(0))}
    return texts(*lengths, pad=ENCODERS[name].pad_token_id)


def targets(sets):
    rows = [torch.tensor([*labels, NUM_LABELS]) for labels in sets]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)


def row_of(inputs, row):
    return {name: tensor[row : row + 1] for name, tensor in inputs.items()}


@pytest.fixture(params=ENCODERS)
def name(request):
    return request.param


# ---- the encoder ----


def test_the_states_are_those_of_the_model_itself(name, tmp_path):
    torch.manual_seed(1)
    original = AutoModel.from_config(copy.deepcopy(ENCODERS[name])).eval()
    original.save_pretrained(tmp_path)
    model = SGMForMultiLabelGeneration.from_encoder_pretrained(tmp_path, **SETTINGS)
    inputs = inputs_of(name, 9, 4, 7)
    own = original.get_encoder() if name == "t5" else original
    with torch.no_grad():
        expected = own(**inputs, output_hidden_states=True)
        found = model.encoder(**inputs, output_hidden_states=True)
    mask = inputs.get("attention_mask", torch.ones(expected[0].shape[:2])).bool()
    assert torch.equal(found.mask, mask)
    torch.testing.assert_close(found.last_hidden_state[mask], expected.last_hidden_state[mask])
    for ours, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(ours[mask], theirs[mask])
    for row, states in enumerate(found.last_hidden_state):
        torch.testing.assert_close(found.summary[row], states[mask[row]].mean(dim=0))
    assert str(tmp_path) not in str(model.config.to_dict())


def test_nothing_that_is_not_read_is_kept(name):
    model = build(ENCODERS[name])
    names = [parameter for parameter, _ in model.named_parameters()]
    assert not [one for one in names if "pooler" in one or ".model.decoder" in one]
    gold = targets([[2, 0], [1], []])
    model(**inputs_of(name, 9, 4, 7), labels=gold).loss.backward()
    idle = [one for one, parameter in model.named_parameters() if parameter.grad is None]
    assert [one for one in idle if "mask_token" not in one] == []


def test_padding_and_batch_mates_change_nothing(name):
    model, inputs = build(ENCODERS[name]), inputs_of(name, 9, 4, 7, 1)
    gold = [[2, 0], [1], [], [0, 1, 2]]
    with torch.no_grad():
        together = model(**inputs, labels=targets(gold)).logits
        for row, labels in enumerate(gold):
            alone = row_of(inputs, row)
            if name != "vit":
                length = int(alone["attention_mask"].sum())
                alone = {key: tensor[:, :length] for key, tensor in alone.items()}
            logits = model(**alone, labels=targets([labels])).logits[0]
            torch.testing.assert_close(together[row, : len(logits)], logits, rtol=1e-4, atol=1e-4)


def test_it_comes_back_from_disk(name, tmp_path):
    model, inputs = build(ENCODERS[name], encoder_special_tokens=[1, 1]), inputs_of(name, 9, 4, 7)
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    assert loaded.config.to_dict() | {"_name_or_path": ""} == model.config.to_dict()
    assert type(loaded.config.encoder_config) is type(ENCODERS[name])
    for weight, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[weight], tensor), weight
    assert torch.equal(loaded.generate(**inputs), model.generate(**inputs))


def test_it_overfits_eight_documents(name):
    model = build(ENCODERS[name], initializer_range=0.1)
    gold = targets(EVERY_SEQUENCE[:8])
    inputs = inputs_of(name, 9, 4, 7, 3, 5, 6, 8, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(80):
        optimizer.zero_grad()
        model(**inputs, labels=gold).loss.backward()
        optimizer.step()
    sequences = model.eval().generate(**inputs, num_beams=3)
    assert [[label for label in row if label < NUM_LABELS] for row in sequences.tolist()] == [
        list(labels) for labels in EVERY_SEQUENCE[:8]
    ]


# ---- decoding ----


def test_beams_find_what_a_search_of_all_sequences_finds(name):
    model, inputs = build(ENCODERS[name]), inputs_of(name, 9, 4, 7)
    options = {"num_beams": 20, "num_return_sequences": 16, "return_dict_in_generate": True}
    found = model.generate(**inputs, **options)
    sequences = found.sequences.view(3, 16, -1).tolist()
    for row in range(3):
        own = {key: tensor.expand(16, *tensor.shape[1:]) for key, tensor in row_of(inputs, row).items()}
        with torch.no_grad():
            gold = targets(EVERY_SEQUENCE)
            log_probs = model(**own, labels=gold).logits.log_softmax(dim=-1)
        steps = log_probs.gather(-1, gold.clamp(min=0)[..., None]).squeeze(-1).masked_fill(gold < 0, 0.0)
        order = steps.sum(dim=1).argsort(descending=True).tolist()
        expected = [list(EVERY_SEQUENCE[place]) for place in order]
        assert [[label for label in one if label < NUM_LABELS] for one in sequences[row]][:5] == expected[:5]
        torch.testing.assert_close(
            found.sequences_scores.view(3, 16)[row], steps.sum(dim=1)[order], rtol=1e-3, atol=1e-3
        )


def test_one_beam_is_greedy_search(name):
    model, inputs = build(ENCODERS[name]), inputs_of(name, 9, 4, 7)
    greedy = model.generate(**inputs, num_beams=1)
    first = torch.full((3, 1), model.config.bos_label_id)
    with torch.no_grad():
        while first.shape[1] < greedy.shape[1]:
            logits = model(**inputs, decoder_input_ids=first).logits[:, -1]
            ended = (first == model.config.eos_label_id).any(dim=1)
            chosen = torch.where(ended, model.config.pad_label_id, logits.argmax(dim=-1))
            first = torch.cat([first, chosen[:, None]], dim=1)
    assert torch.equal(greedy, first)


# ---- windows ----


@pytest.mark.parametrize("name", TEXT_ENCODERS)
@pytest.mark.parametrize(("overlap", "around"), [(4, [1, 1]), (3, [0, 1])])
def test_a_long_text_is_read_in_the_windows_that_a_loop_reads(name, overlap, around):
    model = build(ENCODERS[name], encoder_window=12, encoder_overlap=overlap, encoder_special_tokens=around)
    before, after = around
    input_ids = texts(29)["input_ids"]
    own, room = input_ids[0, before : 29 - after], 12 - before - after
    with torch.no_grad():
        found = model.encoder(input_ids).last_hidden_state[0]
        states, start = [], 0
        while start == 0 or start + overlap < len(own):
            window = torch.cat([input_ids[0, :before], own[start : start + room], input_ids[0, 29 - after :]])
            states.append(model.encoder.model(window[None]).last_hidden_state[0])
            start += room - overlap
    merged = states[0][:-after]
    for place, one in enumerate(states[1:], start=1):
        start = before + place * (room - overlap)
        half = overlap // 2
        last = len(states) - 1 == place
        merged = torch.cat([merged[: start + half], one[before + half : len(one) if last else -after]])
    assert len(states) == 4 or around == [0, 1]
    torch.testing.assert_close(found, merged, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_a_text_of_three_windows_has_the_same_labels_whatever_its_batch_mates(name):
    model = build(ENCODERS[name], encoder_window=10, encoder_overlap=2, encoder_special_tokens=[1, 1])
    together = texts(20, 38, 5, 10, pad=ENCODERS[name].pad_token_id)
    options = {"return_dict_in_generate": True, "output_label_scores": True, "num_beams": 4}
    found = model.generate(**together, **options)
    for row, length in enumerate([20, 38, 5, 10]):
        alone = {key: tensor[:, :length] for key, tensor in row_of(together, row).items()}
        one = model.generate(**alone, **options)
        labels = [
            [label for label in sequence.tolist() if label < NUM_LABELS]
            for sequence in (one.sequences[0], found.sequences[row])
        ]
        assert labels[0] == labels[1]
        torch.testing.assert_close(one.label_scores[0], found.label_scores[row], rtol=1e-3, atol=1e-4)


def test_windows_are_as_long_as_the_encoder_has_positions():
    assert build(TEXT_ENCODERS["bert"]).encoder.window == 24
    assert build(TEXT_ENCODERS["bert"]).encoder.overlap == 6
    assert build(TEXT_ENCODERS["roberta"]).encoder.window == 22  # positions begin behind that of padding, 1
    assert build(TEXT_ENCODERS["t5"]).encoder.window is None
    for name, encoder_config in TEXT_ENCODERS.items():
        model = build(encoder_config)
        assert model.encoder(**texts(100, 30, pad=encoder_config.pad_token_id)).mask.shape == (2, 100), name


def test_gradients_flow_through_windows_with_and_without_checkpoints():
    inputs, gradients = texts(40, 11, 3), []
    for is_checkpointed in (False, True):
        model = build(TEXT_ENCODERS["bert"], encoder_special_tokens=[1, 1]).train()
        if is_checkpointed:
            model.gradient_checkpointing_enable()
        model(**inputs, labels=targets([[2, 0], [1], []])).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients[0])
    torch.testing.assert_close(*gradients)


def test_bfloat16_runs_and_differs_by_its_rounding_only():
    model, inputs = build(TEXT_ENCODERS["bert"]), texts(40, 11, 3)
    exact = model(**inputs, labels=targets([[2, 0], [1], []])).loss
    rounded = model.to(torch.bfloat16)(**inputs, labels=targets([[2, 0], [1], []])).loss
    assert rounded.item() == pytest.approx(exact.item(), rel=0.1)


# ---- what surrounds it ----


def test_the_average_of_models_around_one_kind_of_encoder_has_the_mean_of_their_probabilities(name, tmp_path):
    members = [build(ENCODERS[name], seed) for seed in (0, 1)]
    model, inputs, gold = SGMForMultiLabelGeneration.from_members(members), inputs_of(name, 9, 4, 7), [[2, 0], [1], []]
    if name in ("bert", "deberta"):
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = sum(member(**inputs, labels=targets(gold)).logits.softmax(dim=-1) for member in members) / 2
        for one in (model, SGMForMultiLabelGeneration.from_pretrained(tmp_path)):
            found = one(**inputs, labels=targets(gold)).logits.exp()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            assert torch.equal(one.generate(**inputs), model.generate(**inputs))


def test_two_models_of_one_configuration_do_not_change_each_other():
    shared = copy.deepcopy(TEXT_ENCODERS["bert"])
    settings = {"encoder": "pretrained", "encoder_config": shared, **SETTINGS}
    model, inputs = SGMForMultiLabelGeneration(SGMConfig(**settings)).eval(), texts(9, 4)
    before = model.encoder(**inputs).last_hidden_state
    SGMConfig(**settings)
    assert torch.equal(model.encoder(**inputs).last_hidden_state, before)
    assert shared._attn_implementation is None


def test_types_of_tokens_end_where_the_encoder_stops_reading():
    model, inputs = build(TEXT_ENCODERS["bert"], encoder_max_length=5), texts(9, 4)
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    cut = {key: tensor[:, :5] for key, tensor in inputs.items()}
    torch.testing.assert_close(model.encode(**inputs).last_hidden_state, model.encode(**cut).last_hidden_state)
    assert torch.equal(model.generate(**inputs), model.generate(**cut))


def test_embeddings_take_the_place_of_words():
    model, inputs = build(TEXT_ENCODERS["bert"]), texts(40, 11)
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    states = model.encoder(inputs_embeds=embeddings, attention_mask=inputs["attention_mask"]).last_hidden_state
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(states[mask], model.encoder(**inputs).last_hidden_state[mask])


def test_a_text_without_a_token_is_finite_and_reads_nothing(name):
    if name == "vit":
        return
    model, inputs = build(ENCODERS[name]), inputs_of(name, 9, 4)
    inputs["attention_mask"][1] = 0
    encoded = model.encoder(**inputs)
    assert encoded.summary[1].abs().max() == 0 and encoded.summary.isfinite().all()
    assert model.generate(**inputs).shape[0] == 2
    none = torch.zeros(2, 0, dtype=torch.long)
    assert model.encoder(input_ids=none).last_hidden_state.shape == (2, 0, 12)


def test_words_can_be_added(tmp_path):
    model, inputs = build(TEXT_ENCODERS["bert"]), texts(9, 4)
    before = model.encoder(**inputs).last_hidden_state
    model.resize_token_embeddings(VOCAB_SIZE + 3)
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    assert loaded.config.vocab_size == loaded.config.encoder_config.vocab_size == VOCAB_SIZE + 3
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(loaded.encoder(**inputs).last_hidden_state[mask], before[mask])


def test_a_tokenizer_without_padding_needs_a_mask_only():
    gpt2 = GPT2Config(vocab_size=VOCAB_SIZE, n_embd=12, n_layer=1, n_head=2, n_positions=24)
    model = build(gpt2, lexical_branch=True)
    assert model.config.pad_token_id is None
    input_ids = torch.tensor([[0, 5, 0]])  # 0 is a word here
    assert model.encode(input_ids).mask.all()
    assert model.generate(input_ids).shape[0] == 1


def test_the_lexical_branch_reads_the_tokens_of_the_encoder():
    model, inputs = build(TEXT_ENCODERS["roberta"], lexical_branch=True), texts(40, 11, pad=1)
    branch = SGMLexicalBranch(VOCAB_SIZE, NUM_LABELS)
    branch.scale, branch.weight = torch.ones(VOCAB_SIZE), torch.randn(VOCAB_SIZE, NUM_LABELS)
    model.set_lexical_branch(branch)
    for masked in (inputs, {"input_ids": inputs["input_ids"]}):
        torch.testing.assert_close(model.encode(**masked).lexical_logits, branch(**inputs))


def test_freezing_leaves_only_the_decoder_to_train(name):
    model = build(ENCODERS[name])
    model.freeze_encoder()
    assert {one.split(".")[0] for one, parameter in model.named_parameters() if parameter.requires_grad} == {"decoder"}


def test_a_checkpoint_that_lacks_weights_of_the_encoder_is_refused(tmp_path):
    AutoModel.from_config(TEXT_ENCODERS["bert"]).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({one: w for one, w in weights.items() if "layer.1" not in one}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="lack 16 of the encoder, such as encoder.layer.1"):
        SGMForMultiLabelGeneration.from_encoder_pretrained(tmp_path, **SETTINGS)


def test_words_for_an_encoder_of_images_are_refused_and_the_other_way_round():
    with pytest.raises(ValueError, match="'vit', reads pixel_values"):
        build(VIT)(**texts(4), labels=targets([[0]]))
    with pytest.raises(ValueError, match="'bert', reads input_ids"):
        build(TEXT_ENCODERS["bert"])(pixel_values=torch.zeros(1, 3, 8, 8), labels=targets([[0]]))


BERT = BertConfig(**SIZES, vocab_size=VOCAB_SIZE, max_position_embeddings=24)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs encoder_config"),
        ({"encoder_config": ResNetConfig()}, "'resnet' model, which has no hidden_size"),
        ({"encoder_config": BERT, "word_dropout": 0.1}, "word_dropout is 0.1"),
        ({"encoder_config": BERT, "encoder_window": 0}, "encoder_window is 0"),
        ({"encoder_config": BERT, "encoder_special_tokens": [1]}, r"encoder_special_tokens is \[1\]"),
        ({"encoder_config": BERT, "encoder_window": 25}, "positions for 24 tokens"),
        ({"encoder_config": BERT, "encoder_overlap": 22, "encoder_special_tokens": [1, 1]}, "room for 22"),
        ({"encoder": "recurrent", "encoder_window": 5}, "encoder_window is a setting of a pre-trained encoder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        SGMForMultiLabelGeneration(SGMConfig(**{"encoder": "pretrained", **SETTINGS, **settings}))
