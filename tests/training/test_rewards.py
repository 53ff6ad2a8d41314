from functools import partial

import pytest
import torch
from sklearn.metrics import f1_score

from sgm_hf.training.rewards import REWARDS, checked_reward, cost_reward, f1_reward, hamming_reward
from sgm_hf.training.sampling import label_sets


def random_sets(num_sets: int = 200, num_labels: int = 7, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_sets, num_labels, generator=generator) < 0.3


def test_f1_is_scikit_learns_with_two_empty_sets_right():
    predicted, gold = random_sets(seed=1), random_sets(seed=2)
    predicted[0] = gold[0] = False
    expected = [
        f1_score(true, found, zero_division=0.0 if true.any() or found.any() else 1.0)
        for true, found in zip(gold.numpy(), predicted.numpy(), strict=True)
    ]
    torch.testing.assert_close(f1_reward(predicted, gold).double(), torch.tensor(expected, dtype=torch.float64))


def test_hand_computed_rewards():
    predicted = torch.tensor([[True, True, False, False]])
    gold = torch.tensor([[True, False, True, True]])
    assert f1_reward(predicted, gold).item() == pytest.approx(2 / 5)
    assert hamming_reward(predicted, gold).item() == pytest.approx(1 / 4)
    assert REWARDS["f1_and_hamming"](predicted, gold).item() == pytest.approx((2 / 5 + 1 / 4) / 2)
    assert REWARDS["cost"](predicted, gold).item() == cost_reward(predicted, gold).item() == -3
    assert (REWARDS["f1"], REWARDS["hamming"]) == (f1_reward, hamming_reward)
    assert partial(cost_reward, false_positive=10.0, false_negative=0.5)(predicted, gold).item() == -11


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_the_order_of_generation_never_changes_a_reward(name):
    generator = torch.Generator().manual_seed(0)
    gold = random_sets(50)
    for _ in range(20):
        order = torch.randperm(7, generator=generator)[:4]
        again = order[torch.randperm(4, generator=generator)]
        one, other = (label_sets(torch.cat([labels, torch.tensor([7, -100])]), 7) for labels in (order, again))
        assert torch.equal(REWARDS[name](one.expand(50, -1), gold), REWARDS[name](other.expand(50, -1), gold))


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_no_set_is_rewarded_more_than_the_true_one(name):
    predicted, gold = random_sets(seed=3), random_sets(seed=4)
    assert (REWARDS[name](predicted, gold) <= REWARDS[name](gold, gold)).all()


def test_a_reward_of_another_shape_or_without_a_number_is_refused():
    predicted, gold = random_sets(6).view(3, 2, 7), random_sets(3).view(3, 1, 7)
    assert checked_reward(f1_reward, predicted, gold).shape == (3, 2)
    with pytest.raises(
        ValueError, match=r"the reward <lambda> returned the shape \(3,\) .* must return one number per set, \(3, 2\)"
    ):
        checked_reward(lambda predicted, gold: torch.zeros(3), predicted, gold)
    with pytest.raises(ValueError, match="not finite"):
        checked_reward(lambda predicted, gold: torch.full((3, 2), float("nan")), predicted, gold)


def test_a_faulty_reward_is_named_also_where_it_has_no_name():
    predicted, gold = random_sets(6).view(3, 2, 7), random_sets(3).view(3, 1, 7)
    bad = partial(lambda predicted, gold: torch.full((3, 2), float("inf")))
    with pytest.raises(ValueError, match=r"the reward functools.partial\(.* not finite"):
        checked_reward(bad, predicted, gold)


def test_rewards_are_floats_whatever_the_function_returns():
    predicted, gold = random_sets(6).view(3, 2, 7), random_sets(3).view(3, 1, 7)
    for kind in (torch.int64, torch.float64, torch.bfloat16):
        rewards = checked_reward(lambda p, g, kind=kind: (p & g).sum(dim=-1).to(kind), predicted, gold)
        assert rewards.dtype == torch.float32
        assert torch.equal(rewards, (predicted & gold).sum(dim=-1).float())
    assert checked_reward(lambda p, g: [[1, 2]] * 3, predicted, gold).tolist() == [[1.0, 2.0]] * 3
