"""What holds of every variant of the model: of its decoding, its files and its training."""

import itertools

import pytest
import torch
from accelerate import cpu_offload
from tiny_models import NUM_LABELS, build_model, shake
from variants import VARIANTS

from sgm_hf.modeling import SGMForMultiLabelGeneration, label_sets_from_sequences
from sgm_hf.training.machine import autocast

GOLD = torch.tensor([[2, 0, 3], [1, 3, -100], [3, -100, -100], [0, 2, 3]])
EOS = NUM_LABELS
SIZES = range(NUM_LABELS + 1)
SEQUENCES = [list(order) for size in SIZES for order in itertools.permutations(range(NUM_LABELS), size)]
SCORES = {"return_dict_in_generate": True, "output_label_scores": True}


@pytest.fixture(params=VARIANTS)
def model(request) -> SGMForMultiLabelGeneration:
    return shake(build_model(**VARIANTS[request.param]))


def as_sets(sequences: torch.Tensor) -> list[list[int]]:
    return label_sets_from_sequences(sequences, NUM_LABELS)


@torch.no_grad()
def test_beams_find_what_a_search_of_all_sequences_finds(model, texts):
    columns = []
    for labels in SEQUENCES:
        target = torch.tensor([[*labels, EOS]]).expand(4, -1)
        log_probs = model(**texts, labels=target).logits.log_softmax(-1)
        columns.append(log_probs.gather(-1, target[..., None]).sum(dim=(1, 2)))
    log_probs, order = torch.stack(columns, dim=1).sort(dim=1, descending=True)  # (B, sequences)
    torch.testing.assert_close(log_probs.logsumexp(dim=1), torch.zeros(4), atol=1e-4, rtol=0)
    width = len(SEQUENCES)
    for options in ({}, {"output_scores": True}):  # our own search, and that of Transformers
        output = model.generate(
            **texts, num_beams=width, num_return_sequences=width, return_dict_in_generate=True, **options
        )
        torch.testing.assert_close(output.sequences_scores.view(4, width), log_probs, rtol=1e-4, atol=1e-4)
        assert as_sets(output.sequences)[::width] == [SEQUENCES[place] for place in order[:, 0]]


@torch.no_grad()
def test_greedy_search_is_a_beam_of_one_and_takes_the_best_label_at_each_step(model, texts):
    found = as_sets(model.generate(**texts, num_beams=1))
    for row in range(4):
        text, labels = {name: value[row : row + 1] for name, value in texts.items()}, []
        while True:
            ids = torch.tensor([[model.config.bos_label_id, *labels]])
            token = int(model(**text, decoder_input_ids=ids).logits[0, -1].argmax())
            if token == EOS:
                break
            labels.append(token)
        assert found[row] == labels


@torch.no_grad()
def test_padding_batch_mates_and_their_order_change_nothing(model, texts):
    logits, together = model(**texts, labels=GOLD).logits, model.generate(**texts, **SCORES)
    order = torch.tensor([3, 1, 0, 2])
    permuted = model(**{name: value[order] for name, value in texts.items()}, labels=GOLD[order]).logits
    torch.testing.assert_close(permuted, logits[order], rtol=1e-5, atol=1e-5)
    for row in range(4):
        length = int(texts["attention_mask"][row].sum())
        alone = {name: value[row : row + 1, :length] for name, value in texts.items()}
        own = model(**alone, labels=GOLD[row : row + 1]).logits
        torch.testing.assert_close(own[0], logits[row], rtol=1e-4, atol=1e-5)
        found = model.generate(**alone, **SCORES)
        assert as_sets(found.sequences) == as_sets(together.sequences[row : row + 1])
        torch.testing.assert_close(found.label_scores[0], together.label_scores[row], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_text_without_words_is_labelled_alike_however_far_it_is_padded(model, texts):
    texts["attention_mask"][2] = 0
    logits = model(**texts, labels=GOLD).logits
    assert logits[:, 0].isfinite().all()
    for length in (1, 4):
        empty = {name: value[2:3, :length] for name, value in texts.items()}
        torch.testing.assert_close(model(**empty, labels=GOLD[2:3]).logits[0], logits[2], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_step_with_a_state_is_a_step_of_teacher_forcing(model, texts):
    ids = torch.tensor([[model.config.bos_label_id, *labels] for labels in ([2, 0], [1, 0], [0, 1], [0, 2])])
    whole, state, steps = model(**texts, decoder_input_ids=ids).logits, None, []
    for step in range(3):
        output = model(**texts, decoder_input_ids=ids[:, step : step + 1], past_key_values=state)
        state = output.past_key_values
        steps.append(output.logits)
    assert torch.equal(torch.cat(steps, dim=1), whole)


@torch.no_grad()
def test_it_comes_back_from_disk_bit_for_bit(model, texts, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    weights, expected = loaded.state_dict(), model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())
    # Where a tensor lies in memory may change the last bit of a sum.
    loaded.load_state_dict({name: weight.clone() for name, weight in weights.items()}, assign=True)
    found, expected = (each.generate(**texts, **SCORES) for each in (loaded, model))
    assert torch.equal(found.sequences, expected.sequences)
    assert torch.equal(found.label_scores, expected.label_scores)


def test_several_in_one_model_give_the_mean_of_their_probabilities(model, texts):
    other = build_model(seed=1)
    both = SGMForMultiLabelGeneration.from_members([model, other])
    expected = sum(each(**texts, labels=GOLD).logits.softmax(-1) for each in (model, other)) / 2
    torch.testing.assert_close(both(**texts, labels=GOLD).logits.exp(), expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_added_labels_change_no_prediction_before_they_are_trained(model, texts):
    before = model.generate(**texts, **SCORES)
    model.add_labels(["new", "newer"])
    after = model.generate(**texts, **SCORES)
    assert as_sets(after.sequences) == as_sets(before.sequences)
    torch.testing.assert_close(after.label_scores[:, :NUM_LABELS], before.label_scores, rtol=1e-4, atol=1e-5)
    assert not after.label_scores[:, NUM_LABELS:].any()


def test_offloaded_weights_give_the_same(model, texts):
    expected = model(**texts, labels=GOLD).logits
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.decoder.output.weight.is_meta
    assert torch.equal(model(**texts, labels=GOLD).logits, expected)


def test_every_parameter_gets_a_gradient_and_checkpointing_changes_none(model, texts):
    gradients = []
    for checkpoints in (False, True):
        if checkpoints:
            model.gradient_checkpointing_enable()
        model.train()
        model.zero_grad()
        torch.manual_seed(0)
        model(**texts, labels=GOLD).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert [name for name, gradient in gradients[0].items() if gradient is None] == []
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_bfloat16_autocast_stays_close_and_trains(model, texts):
    exact = model(**texts, labels=GOLD).loss
    with autocast(torch.device("cpu"), bf16=True):  # nothing on a processor without it
        loss = model(**texts, labels=GOLD).loss
    loss.backward()
    assert loss.dtype == torch.float32 and abs(loss - exact) < 0.05 * exact
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_eight_documents_are_learned_by_heart(variant):
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(1, 40, (8, 7), generator=generator)
    sets = [labels for labels in SEQUENCES if labels == sorted(labels)]  # all eight
    rows = [torch.tensor([*labels, EOS]) for labels in sets]
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    model = build_model(dropout=0.0, initializer_range=0.1, **VARIANTS[variant])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(input_ids=texts, labels=labels).loss
        if loss < 0.04:  # there is no dropout: the same as of the model in use
            break
        loss.backward()
        optimizer.step()
    model.eval()
    assert model(input_ids=texts, labels=labels).loss < 0.05
    assert as_sets(model.generate(input_ids=texts, num_beams=3)) == sets
