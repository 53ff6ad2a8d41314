"""What is done differently on a CPU gives the same."""

import pytest
import torch
from tiny_models import build_model

from sgm_hf.modeling import cpu_sgm
from sgm_hf.modeling.cpu_sgm import SGMDropout

GOLD = torch.tensor([[2, 0, 3], [1, 3, -100], [3, -100, -100], [0, 2, 3]])


def test_attention_in_pieces_equals_attention_at_once(texts, monkeypatch):
    model, sizes = build_model(), []
    energy = model.decoder.attention.energy
    with torch.no_grad():
        whole = model(**texts, labels=GOLD).logits
        for size, expected in ((1, [1] * 4), (9 * 7, [1] * 4), (2 * 9 * 7, [2] * 2), (3 * 9 * 7 + 1, [3, 1])):
            monkeypatch.setattr(cpu_sgm, "PIECE_SIZE", size)
            sizes.clear()
            handle = energy.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
            torch.testing.assert_close(model(**texts, labels=GOLD).logits, whole, rtol=1e-6, atol=1e-6)
            handle.remove()
            assert sizes == expected * 4  # c_0 and three steps


def test_dropout_drops_the_share_asked_for_and_keeps_the_mean():
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        for share in (0.1, 0.5, 0.9):
            inputs = torch.ones(701, 503, dtype=dtype, requires_grad=True)
            output = SGMDropout(share)(inputs)
            assert output.dtype == dtype
            assert (output == 0).float().mean().item() == pytest.approx(share, abs=4 * (0.25 / 701 / 503) ** 0.5)
            assert set(output.float().unique().tolist()) == {0.0, output.float().max().item()}
            assert output.float().max().item() == pytest.approx(1 / (1 - share), rel=5e-3)
            output.sum().backward()
            assert torch.equal(inputs.grad, output.detach())


def test_dropout_does_nothing_in_evaluation_and_all_or_nothing_at_the_ends():
    inputs = torch.randn(3, 5)
    assert torch.equal(SGMDropout(0.5).eval()(inputs), inputs)
    assert torch.equal(SGMDropout(0.0)(inputs), inputs)
    assert not SGMDropout(1.0)(inputs).any()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.77])
def test_what_is_kept_is_scaled_by_the_share_that_sixteen_bits_give(share):
    dropped = round(share * 65536)
    kept = SGMDropout(share)(torch.ones(1000)).max().item()
    assert kept == pytest.approx(65536 / (65536 - dropped), rel=1e-7)
    assert kept != pytest.approx(1 / (1 - share), rel=5e-7)


def test_neighbouring_elements_are_dropped_independently():
    torch.manual_seed(0)
    dropped = SGMDropout(0.3)(torch.ones(400_000)) == 0
    for distance in (1, 2, 3, 4, 8):
        both = (dropped[distance:] & dropped[:-distance]).float().mean().item()
        assert both == pytest.approx(0.09, abs=0.003)
