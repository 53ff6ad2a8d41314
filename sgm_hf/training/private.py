"""What the trainers take from Transformers that Transformers does not document, and nothing else.

A method with an underscore has a public name here, under which the other files extend it and call it. A release that
renames one of them is mended in this file; `tests/test_private_names.py` names all of them.
"""

from typing import Any

import torch
from transformers import Trainer
from transformers.utils.hub import PushInProgress


class TrainerHooks(Trainer):
    """A Transformers `Trainer` whose private steps have public names.

    Each pair is one step: Transformers calls the private method, which calls the public one, which our trainers extend
    and which ends here with what Transformers does.
    """

    push_in_progress: PushInProgress | None

    # ---- before training ----

    def set_up_training(self, trial: Any) -> None:
        """Take over a trial's settings: called when its model is there, and before a checkpoint is loaded."""
        super()._hp_search_setup(trial)

    def _hp_search_setup(self, trial: Any) -> None:
        self.set_up_training(trial)

    def start_state(
        self, max_steps: int, steps_per_epoch: int, num_epochs: int, checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        """Make the trainer's state; returns the epochs done, and the updates done of the next one."""
        return super()._init_training_state(max_steps, steps_per_epoch, num_epochs, checkpoint, trial)

    def _init_training_state(self, *arguments: Any) -> tuple[int, int]:
        return self.start_state(*arguments)

    def load_weights(self, checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Load the weights of a checkpoint."""
        super()._load_from_checkpoint(checkpoint, model)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        self.load_weights(resume_from_checkpoint, model)

    def load_best_weights(self) -> None:
        """Load the weights of the best checkpoint, at the end of a training."""
        super()._load_best_model()

    def _load_best_model(self) -> None:
        self.load_best_weights()

    def load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the optimizer's and the scheduler's state from a checkpoint."""
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        self.load_optimizer_and_scheduler(checkpoint)

    # ---- while training ----

    def gradient_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm, which is asked for before each update."""
        return super()._get_grad_norm(model, grad_norm)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        return self.gradient_norm(model, grad_norm)

    def count_items(self, batches: list, device: torch.device) -> torch.Tensor | int | None:
        """What the losses of the batches of an update are divided by."""
        return super()._get_num_items_in_batch(batches, device)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | int | None:
        return self.count_items(batch_samples, device)

    @property
    def batch_size(self) -> int:
        """Documents in a training batch of this process, fewer than asked for under `auto_find_batch_size`."""
        return self._train_batch_size

    @property
    def loss_since_log(self) -> torch.Tensor:
        """The training loss, summed over the updates since the last log."""
        return self._tr_loss

    @property
    def last_logged_step(self) -> int:
        """The update of the last log."""
        return self._globalstep_last_logged

    def continue_log(self, loss: float, last_logged_step: int) -> None:
        """Go on from the losses of a checkpoint that were not logged yet."""
        self._tr_loss += loss
        self._globalstep_last_logged = last_logged_step

    def own_scheduler(self, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
        """Use a schedule that the trainer has made, and that another training must not go on with."""
        self.lr_scheduler = scheduler
        self._created_lr_scheduler = True

    # ---- saving ----

    def run_folder(self, trial: Any) -> str:
        """Where the checkpoints are: the output folder, of a search's trial one within it."""
        return self._get_output_dir(trial)

    def save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save all that a training is resumed from."""
        super()._save_checkpoint(model, trial)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.save_checkpoint(model, trial)

    def save_random_states(self, folder: str) -> None:
        """Save the states of the random number generators: all but `trainer_state.json` is written before."""
        super()._save_rng_state(folder)

    def _save_rng_state(self, output_dir: str) -> None:
        self.save_random_states(output_dir)

    def save_files(self, folder: str | None, state_dict: dict[str, torch.Tensor] | None) -> None:
        """Write the files of the model."""
        super()._save(folder, state_dict)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        self.save_files(output_dir, state_dict)

    def push_checkpoint(self, folder: str) -> None:
        """Push a checkpoint to the Hub while training goes on."""
        super()._push_from_checkpoint(folder)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        self.push_checkpoint(checkpoint_folder)


def set_last_rates(scheduler: torch.optim.lr_scheduler.LRScheduler, rates: list[float]) -> None:
    """Have a schedule tell other rates than it last set."""
    scheduler._last_lr = list(rates)
