import itertools
import re
import time

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from reference import Reference, encode
from tiny_models import NUM_LABELS, build_model, shake
from torch import nn
from transformers import AutoModel, AutoModelForSeq2SeqLM
from variants import VARIANTS

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration
from sgm_hf.modeling.cpu_sgm import SGMDropout
from sgm_hf.modeling.modeling_sgm import label_loss
from sgm_hf.training.machine import autocast

SYSTEMS = list(itertools.product(("word", "none"), ("previous_label", "global_embedding", "fixed_mixture")))
GOLD = torch.tensor([[2, 0, 3], [1, 3, -100], [3, -100, -100], [0, 2, 3]])


@pytest.mark.parametrize("label_mask", [True, False])
@pytest.mark.parametrize("gate_activation", ["linear", "sigmoid"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("context_input", ["previous", "current"])
@pytest.mark.parametrize(("attention", "label_feedback"), SYSTEMS)
def test_logits_and_attention_equal_the_equations_in_numpy(
    texts, attention, label_feedback, context_input, layers, gate_activation, label_mask
):
    model = build_model(
        attention=attention,
        label_feedback=label_feedback,
        context_input=context_input,
        encoder_layers=layers,
        decoder_layers=layers,
        gate_activation=gate_activation,
        label_mask=label_mask,
        mixture_lambda=0.3,
        label_embedding_size=5,
    ).double()
    shake(model)
    bos, pad = model.config.bos_label_id, model.config.pad_label_id
    # Two rows a document; the last step of one of them is behind its end.
    rows = [[bos, 2, 0], [bos, 1, 3]] + [[bos, 0, 1], [bos, 3, pad]] + [[bos, 1, 2], [bos, 2, 1]] * 2
    options = {"decoder_input_ids": torch.tensor(rows), "output_attentions": True}
    with_gradient = model(**texts, **options)
    with torch.no_grad():
        without = model(**texts, **options)
    for row, decoder_input_ids in enumerate(rows):
        word_ids = [
            i for i, is_word in zip(*(texts[name][row // 2].tolist() for name in texts), strict=True) if is_word
        ]
        expected, weights = Reference(model, encode(model, word_ids)).logits(decoder_input_ids)
        for output in (with_gradient, without):
            np.testing.assert_allclose(output.logits[row].detach().numpy(), expected, rtol=1e-9, atol=1e-9)
            if attention == "word":
                got = output.cross_attentions[0][row].detach().numpy()
                np.testing.assert_allclose(got[:, : len(word_ids)], weights, rtol=1e-9, atol=1e-12)
                assert not got[:, len(word_ids) :].any()
            else:
                assert output.cross_attentions is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_equals_its_equations_in_numpy(texts, variant):
    model = shake(build_model(**VARIANTS[variant]).double())
    bos = model.config.bos_label_id
    rows = [[bos, 2, 0], [bos, 0, 1], [bos, 1, 2], [bos, 2, 1]]
    logits = model(**texts, decoder_input_ids=torch.tensor(rows)).logits.detach().numpy()
    for row, decoder_input_ids in enumerate(rows):
        word_ids = texts["input_ids"][row, : texts["attention_mask"][row].sum()].tolist()
        expected, _ = Reference(model, encode(model, word_ids)).logits(decoder_input_ids)
        np.testing.assert_allclose(logits[row], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("attention", "label_feedback"), SYSTEMS)
def test_padding_and_batch_mates_never_change_the_logits(texts, attention, label_feedback):
    settings = {"attention": attention, "label_feedback": label_feedback, "encoder_layers": 2, "decoder_layers": 2}
    model = shake(build_model(**settings))
    together = model(**texts, labels=GOLD).logits
    for row in range(4):
        length, steps = int(texts["attention_mask"][row].sum()), int((GOLD[row] != -100).sum())
        alone = model(input_ids=texts["input_ids"][row : row + 1, :length], labels=GOLD[row : row + 1, :steps]).logits
        torch.testing.assert_close(together[row : row + 1, :steps], alone, rtol=1e-5, atol=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    permuted = model(**{name: value[order] for name, value in texts.items()}, labels=GOLD[order]).logits
    torch.testing.assert_close(permuted, together[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_equals_cross_entropy_by_hand_with_repeats_masked(texts, label_smoothing):
    model = build_model(label_feedback="global_embedding")
    output = model(**texts, labels=GOLD, label_smoothing=label_smoothing)
    raw = build_model(label_feedback="global_embedding", label_mask=False)
    assert model.config.label_mask and not raw.config.label_mask
    logits = output.logits.detach().double().numpy()
    total, count = 0.0, 0
    for row, labels in enumerate(GOLD.tolist()):
        for step, label in enumerate(labels):
            if label == -100:
                continue
            free = [i for i in range(NUM_LABELS + 1) if i not in labels[:step]]
            assert np.isfinite(logits[row, step, free]).all()
            assert np.isneginf(np.delete(logits[row, step], free)).all()
            log_probs = logits[row, step, free] - np.log(np.exp(logits[row, step, free]).sum())
            nll, spread = -log_probs[free.index(label)], -log_probs.mean()
            total += (1 - label_smoothing) * nll + label_smoothing * spread
            count += 1
    assert output.loss.item() == pytest.approx(total / count, rel=1e-6)


def test_loss_over_a_given_number_of_items_adds_up_over_micro_batches(texts):
    model = build_model()
    whole = model(**texts, labels=GOLD).loss
    count = (GOLD != -100).sum()
    halves = [
        model(**{k: v[rows] for k, v in texts.items()}, labels=GOLD[rows], num_items_in_batch=count).loss
        for rows in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(halves), whole)


@pytest.mark.parametrize(("attention", "label_feedback"), SYSTEMS)
def test_every_parameter_gets_gradient(texts, attention, label_feedback):
    model = build_model(attention=attention, label_feedback=label_feedback, decoder_layers=2).train()
    model(**texts, labels=GOLD).loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSeq2SeqLM, SGMForMultiLabelGeneration])
def test_a_loaded_model_gives_bit_equal_logits(tmp_path, texts, auto_class):
    model = build_model(label_feedback="global_embedding", encoder_layers=2)
    model.generation_config.label_threshold = 0.375
    model.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir() if path.suffix != ".py"}
    assert files == {"config.json", "generation_config.json", "model.safetensors"}
    loaded = auto_class.from_pretrained(tmp_path)
    assert torch.equal(model(**texts, labels=GOLD).logits, loaded(**texts, labels=GOLD).logits)
    assert loaded.generation_config.label_threshold == 0.375


def test_a_checkpoint_of_other_sizes_is_refused_and_the_log_names_them(tmp_path, caplog):
    build_model().save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        SGMForMultiLabelGeneration.from_pretrained(tmp_path, num_labels=5)
    assert re.search(r"embed_labels.weight .*\[6, 8\].*\[8, 8\]", caplog.text)


def test_a_corrupt_checkpoint_is_refused(tmp_path):
    build_model().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Exception, match="(?i)safetensor|incomplete|header|corrupt"):
        SGMForMultiLabelGeneration.from_pretrained(tmp_path)


def test_hidden_states_are_those_of_the_embeddings_and_of_each_layer(texts):
    output = build_model(decoder_layers=2)(**texts, labels=GOLD, output_hidden_states=True)
    assert [states.shape for states in output.encoder_hidden_states] == [(4, 9, 8), (4, 9, 12), (4, 9, 12)]
    assert [states.shape for states in output.decoder_hidden_states] == [(4, 3, 8), (4, 3, 10), (4, 3, 10)]


def test_outputs_asked_for_in_the_configuration_are_given(texts):
    model = build_model(output_hidden_states=True)
    output = model(**texts, labels=GOLD)
    assert output.encoder_hidden_states and output.decoder_hidden_states and output.cross_attentions is None
    assert model(**texts, labels=GOLD, output_hidden_states=False).encoder_hidden_states is None
    model.config.return_dict = False
    assert isinstance(model(**texts, labels=GOLD), tuple)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(texts, use_reentrant):
    model = build_model(label_feedback="global_embedding", decoder_layers=2, dropout=0.3).train()

    def gradients():
        torch.manual_seed(0)
        model.zero_grad()
        loss = model(**texts, labels=GOLD).loss
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in model.parameters())]

    expected = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})  # in 5.18 it has no other name
    assert model.is_gradient_checkpointing
    for got, gradient in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(got, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("feedback", ["previous_label", "global_embedding", "fixed_mixture"])
def test_a_model_whose_weights_are_offloaded_gives_the_same(texts, feedback):
    model, offloaded = build_model(label_feedback=feedback), build_model(label_feedback=feedback)
    cpu_offload(offloaded, execution_device=torch.device("cpu"))
    assert offloaded.decoder.output.weight.is_meta
    assert torch.equal(offloaded(**texts, labels=GOLD).logits, model(**texts, labels=GOLD).logits)
    assert torch.equal(offloaded.generate(**texts), model.generate(**texts))


def test_new_words_can_be_added(texts):
    model = build_model()
    before = model(**texts, labels=GOLD).logits
    model.resize_token_embeddings(50)
    assert model.config.vocab_size == 50
    assert torch.equal(model(**texts, labels=GOLD).logits, before)


@pytest.mark.parametrize("forbidden", [None, ["new", "newer"]])
@pytest.mark.parametrize("searched", [{"num_beams": 5}, {"num_beams": 1}, {"num_beams": 3, "output_scores": True}])
@pytest.mark.parametrize("settings", [{}, {"label_feedback": "global_embedding"}, {"label_mask": False}])
def test_added_labels_change_no_prediction_before_they_are_trained(texts, forbidden, searched, settings):
    model = build_model(num_labels=20, **settings)
    options = {**searched, "max_length": 12, "output_label_scores": True, "return_dict_in_generate": True}
    before = model.generate(**texts, **options)
    model.add_labels(["new", "newer"])
    after = model.generate(**texts, **options, forbidden_labels=forbidden)
    risen = torch.where(before.sequences >= 20, before.sequences + 2, before.sequences)  # eos, bos and padding
    assert torch.equal(after.sequences, risen)
    # A sum over more columns is rounded otherwise.
    torch.testing.assert_close(after.label_scores[:, :20], before.label_scores, rtol=1e-5, atol=1e-5)
    assert not after.label_scores[:, 20:].any()


def test_added_labels_are_left_out_until_they_are_marked_as_trained(texts):
    model = build_model()
    model.add_labels(["new"])
    with pytest.raises(ValueError, match="'new'.*not been trained"):
        model.generate(**texts, required_labels=["new"])
    bos = torch.full((4, 1), model.config.bos_label_id)
    assert model(**texts, decoder_input_ids=bos).logits[..., 3].isneginf().all()
    assert model(**texts, labels=torch.tensor([[3, 4]] * 4)).loss.isfinite()  # an evaluation may have them
    model.mark_labels_trained()
    assert model.config.num_untrained_labels == 0
    assert model(**texts, decoder_input_ids=bos).logits[..., 3].isfinite().all()
    assert model.generate(**texts, required_labels=["new"]).eq(3).any(dim=1).all()


def test_a_forward_pass_changes_no_configuration(texts):
    model = build_model().train()
    model.add_labels(["new"])
    before = model.config.to_dict()
    bos = torch.full((4, 1), model.config.bos_label_id)
    model(**texts, labels=GOLD.where(GOLD != 3, 4)).loss.backward()
    assert model(**texts, decoder_input_ids=bos).logits[..., 3].isfinite().all()  # in training there is no label out
    model.generate(**texts, do_sample=True)
    assert model.config.to_dict() == before
    assert model.config.num_untrained_labels == 1


def test_added_labels_are_kept_by_saving_and_have_their_names(tmp_path):
    model = build_model()
    parameters = {name: value.clone() for name, value in model.state_dict().items()}
    model.add_labels(["new"])
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2", 3: "new"}
    assert again.config.label2id["new"] == 3
    assert again.generation_config.eos_token_id == again.config.eos_label_id == 4
    assert again.config.num_untrained_labels == 1
    grown = again.state_dict()
    for name, old in parameters.items():
        kept = [0, 1, 2, *range(4, len(old) + 1)] if len(grown[name]) > len(old) else range(len(old))
        assert torch.equal(grown[name][list(kept)], old), name


def test_an_added_label_is_learned(texts):
    model = build_model(dropout=0.0).train()
    model.add_labels(["new"])
    labels = torch.tensor([[3, 4], [0, 4], [3, 4], [0, 4]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        model(**texts, labels=labels).loss.backward()
        optimizer.step()
    model.mark_labels_trained()
    assert torch.equal(model.eval().generate(**texts)[:, 1:], labels)


def test_a_name_twice_among_many_new_labels_is_found_at_once():
    start = time.process_time()
    with pytest.raises(ValueError, match=r"not new: \['7', 'LABEL_1'\]"):
        build_model().add_labels([*map(str, range(50_000)), "7", "LABEL_1"])
    assert time.process_time() - start < 5.0  # counting each name in turn took half a minute


def test_labels_that_cannot_be_added_are_refused():
    model = build_model()
    for names in ([], ["LABEL_1"], ["new", "new"]):
        with pytest.raises(ValueError, match="expected new names"):
            model.add_labels(names)
    for names in ("new", [3]):
        with pytest.raises(TypeError, match="list of names"):
            model.add_labels(names)
    assert model.config.num_labels == 3


def test_a_frozen_encoder_gets_no_gradient_and_all_else_does(texts):
    model = build_model(label_feedback="global_embedding")
    model.freeze_encoder()
    model.add_labels(["new"])
    model.resize_token_embeddings(50)
    model(**texts, labels=GOLD).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("encoder."), name


def test_misuse_is_refused_with_the_remedy(texts):
    model = build_model()
    with pytest.raises(ValueError, match="generate"):
        model(**texts)
    with pytest.raises(ValueError, match="padding_side='right'"):
        model(input_ids=torch.tensor([[0, 4]]), labels=torch.tensor([[3]]))
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        model(labels=torch.tensor([[3]]))


def test_label_loss_of_one_target_is_its_surprise():
    logits = torch.tensor([[[1.0, 2.0, float("-inf"), 4.0], [0.0, 0.0, 0.0, 0.0]]])
    labels = torch.tensor([[1, -100]])
    expected = np.log(np.exp(1.0) + np.exp(2.0) + np.exp(4.0)) - 2.0
    assert label_loss(logits, labels).item() == pytest.approx(expected)
    assert label_loss(logits, labels, num_items_in_batch=4).item() == pytest.approx(expected / 4)
    spread = np.log(np.exp(1.0) + np.exp(2.0) + np.exp(4.0)) - 7.0 / 3  # the mean of the three that are not masked
    assert label_loss(logits, labels, label_smoothing=0.3).item() == pytest.approx(0.7 * expected + 0.3 * spread)


def test_label_loss_without_any_target_is_zero():
    nothing = torch.zeros(1, 2, 4), torch.full((1, 2), -100)
    assert label_loss(*nothing).item() == 0.0
    assert label_loss(*nothing, label_weights=torch.rand(4), focal_gamma=0.5).item() == 0.0


def random_logits(seed=0):
    """Logits (5, 3, 6) with masked labels, and targets (5, 3), none of them masked."""
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(5, 3, 6, generator=random)
    labels = torch.randint(1, 6, (5, 3), generator=random)
    labels[1, 2] = labels[4, 1] = labels[4, 2] = -100
    logits[:, 1:, 0] = float("-inf")  # of the places without a target, too
    return logits, labels


@pytest.mark.parametrize("num_items", [None, 100])
def test_label_weights_are_those_of_cross_entropy_and_the_divisor_counts_targets(num_items):
    logits, labels = random_logits()
    label_weights = torch.tensor([9.0, 0.0, 0.3, 1.0, 2.0, 5.0])
    total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=label_weights, reduction="sum")
    expected = total / (num_items or 12)
    loss = label_loss(logits, labels, num_items_in_batch=num_items, label_weights=label_weights)
    torch.testing.assert_close(loss, expected)
    one_row = label_loss(logits, labels, num_items_in_batch=num_items, label_weights=label_weights[None])
    assert torch.equal(one_row, loss)  # as a GPU of several in one process gets them
    doubled = label_loss(logits, labels, num_items_in_batch=num_items, label_weights=2 * label_weights)
    torch.testing.assert_close(doubled, 2 * loss)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("focal_gamma", [0.0, 0.5, 2.0])
def test_weights_of_one_are_no_weights_bit_for_bit(label_smoothing, focal_gamma):
    logits, labels = random_logits()
    plain = label_loss(logits, labels, label_smoothing, focal_gamma=focal_gamma)
    assert torch.equal(label_loss(logits, labels, label_smoothing, None, torch.ones(6), focal_gamma), plain)
    assert (focal_gamma > 0) == (plain < label_loss(logits, labels, label_smoothing))


def test_the_focal_loss_by_hand():
    probabilities = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]])
    loss = label_loss(probabilities.log(), torch.tensor([[0, 0]]), num_items_in_batch=1, focal_gamma=2.0)
    assert loss.item() == pytest.approx(-(0.1**2) * np.log(0.9) - 0.8**2 * np.log(0.2))
    smoothed = label_loss(probabilities.log(), torch.tensor([[0, 0]]), 0.5, num_items_in_batch=1, focal_gamma=2.0)
    spread = -np.log([0.9, 0.1]).mean() - np.log([0.2, 0.8]).mean()  # smoothing is not focal
    assert smoothed.item() == pytest.approx(0.5 * loss.item() + 0.5 * spread)


@pytest.mark.parametrize("focal_gamma", [0.3, 1.0, 2.0])
def test_the_focal_loss_has_a_finite_gradient_where_a_target_is_certain(focal_gamma):
    logits = torch.tensor([[[200.0, 0.0, float("-inf")], [0.0, 1.0, 2.0]]], requires_grad=True)
    label_loss(logits, torch.tensor([[0, 2]]), 0.1, focal_gamma=focal_gamma).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_gradients_of_weighted_focal_losses_equal_numeric_differences(label_smoothing):
    logits, labels = random_logits()
    finite = logits.masked_fill(logits.isinf(), 0.0).double().requires_grad_()
    masked = logits.isinf()
    label_weights = torch.tensor([9.0, 0.0, 0.3, 1.0, 2.0, 5.0])

    def loss(values):
        values = values.masked_fill(masked, float("-inf"))
        return label_loss(values, labels, label_smoothing, label_weights=label_weights, focal_gamma=1.5)

    assert torch.autograd.gradcheck(loss, (finite,))


def test_binary_cross_entropy_is_that_of_pytorch_over_the_labels_that_are_not_masked():
    logits, labels = random_logits()
    probabilities = logits.softmax(-1)
    is_target = nn.functional.one_hot(labels.clamp(min=0), 6).float()
    losses = nn.functional.binary_cross_entropy(probabilities, is_target, reduction="none")
    expected = losses[(labels >= 0)[..., None] & logits.isfinite()].sum() / 12
    torch.testing.assert_close(label_loss(logits, labels, binary_cross_entropy=True), expected)
    assert expected > label_loss(logits, labels)


def test_gradients_of_binary_cross_entropy_equal_numeric_differences_and_stay_finite():
    logits, labels = random_logits()
    finite, masked = logits.masked_fill(logits.isinf(), 0.0).double().requires_grad_(), logits.isinf()
    label_weights = torch.rand(6, generator=torch.Generator().manual_seed(0)).double()

    def loss(values):
        values = values.masked_fill(masked, float("-inf"))
        return label_loss(values, labels, 0.1, label_weights=label_weights, binary_cross_entropy=True)

    assert torch.autograd.gradcheck(loss, (finite,))
    certain = torch.tensor([[[200.0, 0.0, float("-inf")]]], requires_grad=True)
    wrong = label_loss(certain, torch.tensor([[1]]), binary_cross_entropy=True)
    wrong.backward()
    assert wrong.isfinite() and certain.grad.isfinite().all()


def test_the_model_weighs_its_loss_and_nothing_else(texts):
    model = build_model()
    plain = model(**texts, labels=GOLD)
    label_weights = torch.rand(NUM_LABELS + 1)
    weighted = model(**texts, labels=GOLD, label_weights=label_weights, focal_gamma=1.0)
    assert torch.equal(weighted.logits, plain.logits)
    torch.testing.assert_close(
        weighted.loss, label_loss(plain.logits, GOLD, label_weights=label_weights, focal_gamma=1.0)
    )
    assert not torch.equal(weighted.loss, plain.loss)


def test_bfloat16_autocast_stays_close_and_trains(texts):
    model = build_model(label_feedback="global_embedding")
    exact = model(**texts, labels=GOLD).loss
    with autocast(torch.device("cpu"), bf16=True):  # nothing on a processor without it
        rounded = model(**texts, labels=GOLD).loss
    rounded.backward()
    assert rounded.item() == pytest.approx(exact.item(), rel=0.05)


def test_a_model_in_half_precision_trains_and_decodes(texts):
    model = build_model().to(torch.bfloat16)
    assert model.generate(**texts, num_beams=3).shape[0] == 4
    assert model.generate(**texts, num_beams=1).shape[0] == 4
    model(**texts, labels=torch.tensor([[1, 3]] * 4)).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


# ---- texts without words, and no texts ----


@pytest.mark.parametrize(("attention", "label_feedback"), SYSTEMS)
def test_a_text_without_words_scores_the_same_at_any_width_and_beside_any_text(texts, attention, label_feedback):
    settings = {"attention": attention, "label_feedback": label_feedback, "encoder_layers": 2, "decoder_layers": 2}
    model, labels = shake(build_model(**settings)), GOLD[:1]
    alone = model(input_ids=torch.zeros(1, 1, dtype=torch.long), labels=labels).logits
    assert alone.isfinite().any()
    for width in (0, 2, 7):
        got = model(input_ids=torch.zeros(1, width, dtype=torch.long), labels=labels).logits
        torch.testing.assert_close(got, alone, rtol=1e-5, atol=1e-6)
    # Between other texts, and with words behind the mask.
    order = [0, 1, 1, 2, 3]
    together = {name: values[order] for name, values in texts.items()}
    together["attention_mask"][2] = 0
    got = model(**together, labels=GOLD[[0, 1, 0, 2, 3]]).logits
    torch.testing.assert_close(got[2:3], alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[[0, 1, 3, 4]], model(**texts, labels=GOLD).logits, rtol=1e-5, atol=1e-6)


def test_training_on_a_text_without_words_gives_finite_gradients(texts):
    model = build_model().train()
    texts["attention_mask"][1] = 0
    model(**texts, labels=GOLD).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    model.zero_grad()
    model(input_ids=torch.zeros(4, 0, dtype=torch.long), labels=GOLD).loss.backward()
    assert model.decoder.output.weight.grad.isfinite().all()


@pytest.mark.parametrize("width", [0, 5])
@pytest.mark.parametrize(("attention", "label_feedback"), SYSTEMS)
def test_no_texts_give_no_logits(width, attention, label_feedback):
    model = build_model(attention=attention, label_feedback=label_feedback, decoder_layers=2)
    nothing = {"input_ids": torch.zeros(0, width, dtype=torch.long), "labels": torch.zeros(0, 3, dtype=torch.long)}
    output = model(**nothing, output_attentions=True, output_hidden_states=True)
    assert output.logits.shape == (0, 3, NUM_LABELS + 1)
    assert output.encoder_last_hidden_state.shape == (0, width, 12)
    assert output.loss == 0.0
    with torch.no_grad():
        assert model(**nothing).logits.shape == (0, 3, NUM_LABELS + 1)


# ---- number types ----


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_logits_and_loss_keep_at_least_single_precision(texts, dtype, expected):
    output = build_model().to(dtype)(**texts, labels=GOLD, output_attentions=True)
    assert output.logits.dtype == output.loss.dtype == output.cross_attentions[0].dtype == expected


def test_a_model_in_double_precision_decodes_as_in_single(texts):
    model = build_model(label_feedback="global_embedding")
    settings = {"return_dict_in_generate": True, "output_label_scores": True}
    single = model.generate(**texts, **settings)
    double = model.double().generate(**texts, **settings)
    assert torch.equal(single.sequences, double.sequences)
    torch.testing.assert_close(single.label_scores.double(), double.label_scores.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("attention", "label_feedback"), SYSTEMS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_gradients_in_double_precision_equal_numeric_differences(texts, attention, label_feedback, label_smoothing):
    settings = {"encoder_layers": 2, "decoder_layers": 2, "gate_activation": "sigmoid"}
    model = build_model(attention=attention, label_feedback=label_feedback, **settings).double()
    parameters = dict(model.named_parameters())

    def loss() -> torch.Tensor:
        return model(**texts, labels=GOLD, label_smoothing=label_smoothing).loss

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in parameters.items():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        ends = []
        with torch.no_grad():
            for step in (1e-5, -2e-5, 1e-5):  # up, down, and back to where it was
                parameter.add_(direction, alpha=step)
                ends.append(loss().item())
        numeric = (ends[0] - ends[1]) / 2e-5
        assert (parameter.grad * direction).sum().item() == pytest.approx(numeric, rel=1e-5, abs=1e-8), name


# ---- targets that the mask excludes ----


def test_a_label_twice_in_a_row_is_refused_by_row_and_place(texts):
    model = build_model()
    labels = GOLD.clone()
    labels[3] = torch.tensor([2, 2, 3])
    with pytest.raises(ValueError, match=r"Row 3 of labels asks for the label 2 at place 1.*\[2, 2, 3\].*once"):
        model(**texts, labels=labels)
    assert build_model(label_mask=False)(**texts, labels=labels).loss.isfinite()


def test_a_target_that_the_labels_before_exclude_is_refused(texts):
    bos = build_model().config.bos_label_id
    with pytest.raises(ValueError, match="Row 0 of labels asks for the label 1 at place 1"):
        build_model()(**texts, decoder_input_ids=torch.tensor([[bos, 1]] * 4), labels=torch.tensor([[0, 1]] * 4))


# ---- parameters ----


@pytest.mark.parametrize(("attention", "label_feedback"), SYSTEMS)
def test_parameters_have_the_names_and_shapes_of_every_checkpoint(attention, label_feedback):
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "label_embedding_size": 5}
    model = build_model(attention=attention, label_feedback=label_feedback, **sizes)
    fed_back = 5 + (12 if attention == "word" else 0)
    expected = {"encoder.embed_tokens.weight": (40, 8), "decoder.feedback.embed_labels.weight": (6, 5)}
    for layer, size in ((0, 8), (1, 12)):
        for direction in ("forward", "backward"):
            name = f"encoder.layers.{layer}.{direction}_lstm"
            expected |= {f"{name}.weight_ih_l0": (24, size), f"{name}.weight_hh_l0": (24, 6)}
            expected |= {f"{name}.bias_ih_l0": (24,), f"{name}.bias_hh_l0": (24,)}
    for layer, size in ((0, fed_back), (1, 10)):
        name = f"decoder.cells.{layer}"
        expected |= {f"{name}.weight_ih": (40, size), f"{name}.weight_hh": (40, 10)}
        expected |= {f"{name}.bias_ih": (40,), f"{name}.bias_hh": (40,)}
    linear = {"initial_hidden": (20, 12), "initial_cell": (20, 12), "state_projection": (10, 10), "output": (4, 10)}
    for name, shape in linear.items():
        expected |= {f"decoder.{name}.weight": shape, f"decoder.{name}.bias": shape[:1]}
    if attention == "word":
        expected |= {"decoder.attention.query.weight": (7, 10), "decoder.attention.query.bias": (7,)}
        expected |= {"decoder.attention.key.weight": (7, 12), "decoder.attention.energy.weight": (1, 7)}
        expected |= {"decoder.context_projection.weight": (10, 12)}
    if label_feedback == "global_embedding":
        expected |= {f"decoder.feedback.{name}.weight": (5, 5) for name in ("gate_label", "gate_average")}
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected


# ---- initial weights ----


def test_weights_that_were_loaded_are_not_drawn_again():
    model = build_model(label_feedback="global_embedding")
    for parameter in model.parameters():
        parameter.data.fill_(0.375)
        parameter._is_hf_initialized = True  # as Transformers marks them
    model.apply(model._init_weights)
    assert all(parameter.eq(0.375).all() for parameter in model.parameters())


def test_initial_weights_are_those_of_the_field():
    torch.manual_seed(0)
    sizes = {"vocab_size": 2000, "embedding_size": 60, "encoder_hidden_size": 50, "decoder_hidden_size": 80}
    model = SGMForMultiLabelGeneration(SGMConfig(**sizes, num_labels=500, decoder_layers=2, initializer_range=0.3))
    words, labels = model.encoder.embed_tokens.weight, model.decoder.feedback.embed_labels.weight
    assert not words[0].any()  # padding
    for embeddings in (words[1:], labels):
        assert embeddings.std().item() == pytest.approx(0.3, rel=0.02)
        assert embeddings.mean().item() == pytest.approx(0.0, abs=0.01)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert module.bias is None or not module.bias.any(), name
            assert_xavier(module.weight, name)
        elif isinstance(module, nn.LSTM | nn.LSTMCell):
            size = module.hidden_size
            for parameter_name, parameter in module.named_parameters():
                if "weight_ih" in parameter_name:
                    assert_xavier(parameter, name)
                elif "weight_hh" in parameter_name:  # (4 size, size), its columns orthonormal
                    torch.testing.assert_close(parameter.T @ parameter, torch.eye(size), rtol=1e-4, atol=1e-4)
                else:
                    forget = torch.zeros(4 * size)
                    forget[size : 2 * size] = 1.0 if "bias_ih" in parameter_name else 0.0
                    assert torch.equal(parameter, forget), (name, parameter_name)


def assert_xavier(weight, name):
    """Evenly drawn between plus and minus the root of 6 over the sum of both sizes."""
    bound = (6 / sum(weight.shape)) ** 0.5
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.05), name
    assert weight.abs().max() <= bound, name
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1), name


# ---- each place of dropout ----


def calls_of_dropout(model, texts, monkeypatch, zeroed: int | None = None) -> tuple[torch.Tensor, list[tuple]]:
    """The logits where dropout takes all at one of its calls and nothing at the others; the shapes of the calls."""
    shapes = []

    def drop(module, values):
        shapes.append(tuple(values.shape))
        return values * (len(shapes) - 1 != zeroed) if module.training else values

    with monkeypatch.context() as patch:
        patch.setattr(SGMDropout, "forward", drop)
        return model(**texts, labels=GOLD).logits, shapes


# What is dropped out, in the order of the calls: words and states before the encoder's layers; and at each of three
# steps the input of each decoder layer and the features before the output layer.
STEP = [(4, 8 + 12), (4, 10), (4, 10)]
DROPPED = [(4, 9, 8), (4, 9, 12), *STEP, *STEP, *STEP]


def test_dropout_acts_on_the_inputs_of_all_layers_and_before_the_output(texts, monkeypatch):
    model = build_model(encoder_layers=2, decoder_layers=2, dropout=0.25)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.25}
    logits, shapes = calls_of_dropout(model.train(), texts, monkeypatch)
    assert shapes == DROPPED
    assert torch.equal(logits, model.eval()(**texts, labels=GOLD).logits)


@pytest.mark.parametrize("place", range(5))
def test_dropout_at_each_place_alone_changes_training_and_not_evaluation(texts, monkeypatch, place):
    model = build_model(encoder_layers=2, decoder_layers=2)
    expected = model(**texts, labels=GOLD).logits
    assert torch.equal(calls_of_dropout(model, texts, monkeypatch, place)[0], expected)
    dropped, _ = calls_of_dropout(model.train(), texts, monkeypatch, place)
    allowed = expected[:, 0].isfinite()
    assert not torch.isclose(dropped[:, 0][allowed], expected[:, 0][allowed], rtol=1e-3).any()
    if place == 4:  # nothing of the first step's features is left
        torch.testing.assert_close(dropped[:, 0], model.decoder.output.bias.expand(4, -1))


def test_two_passes_in_training_differ_and_in_evaluation_do_not(texts):
    model = build_model().train()
    assert model(**texts, labels=GOLD).loss != model(**texts, labels=GOLD).loss
    model.eval()
    assert model(**texts, labels=GOLD).loss == model(**texts, labels=GOLD).loss


# ---- adding labels ----


def test_the_ids_of_generation_rise_with_added_labels():
    model = build_model()
    model.generation_config.num_beams, model.generation_config.label_threshold = 7, 0.25
    model.add_labels(["new"])
    generation, config = model.generation_config, model.config
    assert (config.eos_label_id, config.bos_label_id, config.pad_label_id) == (4, 5, 6)
    assert (generation.eos_token_id, generation.bos_token_id, generation.pad_token_id) == (4, 5, 6)
    assert generation.decoder_start_token_id == 5
    assert (generation.num_beams, generation.label_threshold) == (7, 0.25)


# ---- arguments of a forward pass ----


def test_labels_are_shifted_behind_bos_and_ignored_ones_become_padding():
    model = build_model()
    assert model.prepare_decoder_input_ids_from_labels(GOLD).tolist() == [[4, 2, 0], [4, 1, 3], [4, 3, 5], [4, 0, 2]]


def test_parts_of_the_model_are_what_they_are_called():
    model = build_model()
    assert (model.get_encoder(), model.get_decoder()) == (model.encoder, model.decoder)
    embeddings = nn.Embedding(40, 8)
    model.set_input_embeddings(embeddings)
    assert model.get_input_embeddings() is model.encoder.embed_tokens is embeddings


def test_encoder_outputs_may_be_given_in_place_of_texts(texts):
    model = build_model()
    expected = model(**texts, labels=GOLD, output_hidden_states=True)
    encoded = model.encoder(**texts, output_hidden_states=True)
    mask = texts["attention_mask"]
    output = model(encoder_outputs=encoded, attention_mask=mask, labels=GOLD)
    assert torch.equal(output.logits, expected.logits)
    assert torch.equal(output.encoder_last_hidden_state, expected.encoder_last_hidden_state)
    assert len(output.encoder_hidden_states) == 3
    output = model(encoder_outputs=(encoded.last_hidden_state,), attention_mask=mask, labels=GOLD)
    assert torch.equal(output.logits, expected.logits)
    assert output.encoder_hidden_states is None


def test_the_state_is_returned_as_asked_for(texts):
    model = build_model()
    assert model(**texts, labels=GOLD).past_key_values.get_seq_length() == 3
    assert model(**texts, labels=GOLD, use_cache=False).past_key_values is None
    model.config.use_cache = False
    assert model(**texts, labels=GOLD).past_key_values is None
    assert model(**texts, labels=GOLD, use_cache=True).past_key_values is not None


def test_attention_is_returned_as_asked_for(texts):
    model = build_model(output_attentions=True)
    assert model(**texts, labels=GOLD).cross_attentions[0].shape == (4, 3, 9)
    assert model(**texts, labels=GOLD, output_attentions=False).cross_attentions is None


def test_transformers_is_told_what_the_model_takes():
    model = build_model()
    assert model.main_input_name == model.encoder.main_input_name == "input_ids"
    assert model.accepts_loss_kwargs  # it divides by num_items_in_batch, so that Trainer must not
    assert model.supports_gradient_checkpointing
    assert model._is_stateful  # its state cannot be cut back, as assisted decoding would
    assert not model._supports_default_dynamic_cache()
