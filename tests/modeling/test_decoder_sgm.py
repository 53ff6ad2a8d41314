"""The label feedback, the decoder's state and its steps."""

import numpy as np
import pytest
import torch
from tiny_models import build_model

from sgm_hf.modeling import SGMConfig
from sgm_hf.modeling.decoder_sgm import SGMLabelFeedback

GOLD = torch.tensor([[2, 0, 3], [1, 3, -100], [3, -100, -100], [0, 2, 3]])


@pytest.mark.parametrize("gate_activation", ["linear", "sigmoid"])
def test_global_embedding_equals_equations_11_to_13(gate_activation):
    torch.manual_seed(0)
    config = SGMConfig(
        num_labels=4, embedding_size=6, label_feedback="global_embedding", gate_activation=gate_activation
    )
    feedback = SGMLabelFeedback(config)
    label_ids, distribution = torch.tensor([3, 0]), torch.rand(2, 5).softmax(dim=-1)
    got = feedback(label_ids, feedback.average(distribution)).detach().numpy()

    embeddings = feedback.embed_labels.weight.detach().numpy().astype(np.float64)
    w1, w2 = (m.weight.detach().numpy().astype(np.float64) for m in (feedback.gate_label, feedback.gate_average))
    for row, (label, y) in enumerate(zip(label_ids.tolist(), distribution.numpy().astype(np.float64), strict=True)):
        e = embeddings[label]
        e_bar = sum(y[i] * embeddings[i] for i in range(4))  # eq. 11
        gate = w1 @ e + w2 @ e_bar  # eq. 13
        gate = 1 / (1 + np.exp(-gate)) if gate_activation == "sigmoid" else gate
        np.testing.assert_allclose(got[row], (1 - gate) * e + gate * e_bar, rtol=1e-5, atol=1e-6)  # eq. 12


@pytest.mark.parametrize("mixture_lambda", [0.0, 0.3, 1.0])
def test_fixed_mixture_equals_equation_14(mixture_lambda):
    torch.manual_seed(0)
    config = SGMConfig(num_labels=4, embedding_size=6, label_feedback="fixed_mixture", mixture_lambda=mixture_lambda)
    feedback = SGMLabelFeedback(config)
    label_ids, distribution = torch.tensor([2, 1]), torch.rand(2, 5).softmax(dim=-1)
    got = feedback(label_ids, feedback.average(distribution)).detach().numpy()
    embeddings = feedback.embed_labels.weight.detach().numpy()
    for row, label in enumerate(label_ids.tolist()):
        e_bar = distribution[row, :4].numpy() @ embeddings[:4]
        expected = (1 - mixture_lambda) * embeddings[label] + mixture_lambda * e_bar
        np.testing.assert_allclose(got[row], expected, rtol=1e-5, atol=1e-6)


def test_lambda_zero_is_sgm_without_global_embedding(texts):
    plain = build_model(label_feedback="previous_label")
    mixed = build_model(label_feedback="fixed_mixture", mixture_lambda=0.0)
    mixed.load_state_dict(plain.state_dict())
    assert torch.equal(plain(**texts, labels=GOLD).logits, mixed(**texts, labels=GOLD).logits)


def test_without_the_mask_a_repeat_keeps_its_logit(texts):
    model = build_model(label_mask=False)
    assert torch.isfinite(model(**texts, labels=GOLD).logits).all()


def test_global_embedding_passes_gradient_through_the_distribution_before():
    model = build_model(label_feedback="global_embedding")
    output = model(input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([[1, 3]]))
    first_step_logits = model.decoder.output.weight
    # Only the second step's logits are used: the output layer then gets gradient through y_{t-1} as well.
    gradient = torch.autograd.grad(output.logits[0, 1, 0], first_step_logits, retain_graph=True)[0]
    assert gradient[2].abs().sum() > 0  # label 2 takes part only through the average embedding of step 1


def test_stepping_with_a_state_equals_teacher_forcing(texts):
    model = build_model(label_feedback="global_embedding", decoder_layers=2)
    bos = model.config.bos_label_id
    decoder_input_ids = torch.tensor([[bos, 2, 0], [bos, 1, 0], [bos, 0, 1], [bos, 0, 2]])
    whole = model(**texts, decoder_input_ids=decoder_input_ids).logits
    state, steps = None, []
    for step in range(3):
        output = model(**texts, decoder_input_ids=decoder_input_ids[:, step : step + 1], past_key_values=state)
        state = output.past_key_values
        steps.append(output.logits)
    assert torch.equal(torch.cat(steps, dim=1), whole)
    assert state.get_seq_length() == 3


def test_several_decoder_rows_per_document_equal_repeated_documents(texts):
    model = build_model()
    bos = model.config.bos_label_id
    rows = torch.tensor([[bos, 0], [bos, 1]] * 4)
    shared = model(**texts, decoder_input_ids=rows).logits
    repeated = model(**{k: v.repeat_interleave(2, 0) for k, v in texts.items()}, decoder_input_ids=rows).logits
    torch.testing.assert_close(shared, repeated, rtol=1e-5, atol=1e-6)


def test_hidden_states_of_the_decoder_are_its_input_and_the_output_of_its_layers(texts):
    model, seen = build_model(label_feedback="fixed_mixture", decoder_layers=2), {0: [], 1: [], "feedback": []}
    for layer in (0, 1):
        model.decoder.cells[layer].register_forward_hook(
            lambda m, i, output, layer=layer: seen[layer].append(output[0])
        )
    model.decoder.feedback.register_forward_hook(lambda m, i, output: seen["feedback"].append(output))
    states = model(**texts, labels=GOLD, output_hidden_states=True).decoder_hidden_states
    for got, name in zip(states, ("feedback", 0, 1), strict=True):
        assert torch.equal(got, torch.stack(seen[name], dim=1))


def test_a_reordered_state_goes_on_as_the_rows_it_was_made_of(texts):
    model = build_model(label_feedback="global_embedding", decoder_layers=2)
    bos = model.config.bos_label_id
    rows = torch.tensor([[bos, 2], [bos, 0], [bos, 1], [bos, 0]] * 2)
    state = model(**texts, decoder_input_ids=rows).past_key_values
    order = torch.tensor([1, 1, 2, 3, 5, 4, 7, 7])  # within each document's two rows
    state.reorder_cache(order)
    last = torch.tensor([[1], [2], [2], [1], [1], [1], [2], [1]])
    got = model(**texts, decoder_input_ids=last, past_key_values=state).logits[:, 0]
    expected = model(**texts, decoder_input_ids=torch.cat([rows[order], last], dim=1)).logits[:, -1]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_a_state_of_fewer_documents_goes_on_alike(texts):
    model = build_model()
    bos = torch.full((4, 1), model.config.bos_label_id)
    state = model(**texts, decoder_input_ids=bos).past_key_values
    kept, last = torch.tensor([0, 3]), torch.tensor([[1], [2]])
    state.keep_documents(kept)
    state.reorder_cache(kept)
    got = model(decoder_input_ids=last, past_key_values=state).logits[:, 0]
    few = {name: values[kept] for name, values in texts.items()}
    expected = model(**few, decoder_input_ids=torch.cat([bos[kept], last], dim=1)).logits[:, -1]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_added_rows_are_the_mean_of_the_others_and_frozen_ones_stay_frozen(frozen):
    model = build_model(label_feedback="global_embedding")
    with torch.no_grad():
        model.decoder.output.bias.copy_(torch.tensor([1.0, 2.0, 6.0, 100.0]))
    model.decoder.output.requires_grad_(not frozen)
    model.decoder.feedback.embed_labels.requires_grad_(not frozen)
    embeddings, output = (
        layer.weight.detach().clone() for layer in (model.decoder.feedback.embed_labels, model.decoder.output)
    )
    model.add_labels(["new", "newer"])
    model.add_labels(["newest"])
    assert model.config.num_untrained_labels == 3
    decoder, feedback = model.decoder, model.decoder.feedback
    for layer, old in ((feedback.embed_labels, embeddings), (decoder.output, output)):
        added = old[:3].mean(dim=0).expand(3, -1)
        torch.testing.assert_close(layer.weight, torch.cat([old[:3], added, old[3:]]))
        assert all(parameter.requires_grad != frozen for parameter in layer.parameters())
    torch.testing.assert_close(decoder.output.bias, torch.tensor([1.0, 2.0, 6.0, 3.0, 3.0, 3.0, 100.0]))
    assert decoder.output.out_features == len(decoder.output.weight) == 7
    assert feedback.embed_labels.num_embeddings == len(feedback.embed_labels.weight) == 9
    assert decoder.num_labels == feedback.num_labels == 6
    assert decoder.feedback.gate_label.weight.requires_grad
