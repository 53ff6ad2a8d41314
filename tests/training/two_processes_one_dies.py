"""Run by test_distributed.py in each of two processes: the second one's reward fails in the middle of the training."""

import sys

import torch
from tiny_training import make_documents, make_model

from sgm_hf.training import SamplingArguments, SelfCriticalTrainer
from sgm_hf.training.rewards import f1_reward

FAILING_STEP = 5


class FailingReward:
    """The F1 reward until the second process' fifth update: then not a number."""

    def __init__(self):
        self.calls = 0

    def __call__(self, predicted: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        rewards = f1_reward(predicted, gold)
        fails = torch.distributed.get_rank() == 1 and self.calls == FAILING_STEP
        return rewards * float("nan") if fails else rewards


if __name__ == "__main__":
    arguments = SamplingArguments(
        output_dir=sys.argv[1],
        num_train_epochs=2,
        per_device_train_batch_size=4,
        num_samples=2,
        baseline="leave_one_out",
        eval_strategy="no",
        save_strategy="steps",
        save_steps=2,
        save_total_limit=None,
        disable_tqdm=True,
        use_cpu=True,
    )
    SelfCriticalTrainer(make_model(), arguments, FailingReward(), train_dataset=make_documents(60)).train()
