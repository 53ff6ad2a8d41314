"""What happens at the events of a training: epochs, signals, logs. Each callback knows its trainer."""

import signal
import sys
import time
from types import FrameType
from typing import Any

import torch
from transformers import ProgressCallback, Trainer, TrainerCallback

from sgm_hf.training.interruption import SAME_SIGNAL_SECONDS, Interrupted, write_unbuffered
from sgm_hf.training.progress import SECONDS, duration, format_log, write_line
from sgm_hf.training.streaming import start_pass


class EpochCallback(TrainerCallback):
    """Tells sampler and collator the epoch, which accelerate's wrappers do not, and logs the losses when it ends."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Tell the epoch."""
        epoch = int(state.epoch or 0)
        for part in (self.trainer.train_batch_sampler, self.trainer.data_collator):
            start_pass(part, epoch)

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Log the losses before an evaluation."""
        control.should_log |= control.should_evaluate

    def on_epoch_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Log the losses of the epoch."""
        control.should_log = True


class TrainedLabelsCallback(TrainerCallback):
    """Marks the labels of an SGM model as trained."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Mark the labels of a resumed training as trained."""
        if state.global_step > 0:  # resumed, perhaps with no step left
            self.trainer.model.mark_labels_trained()

    def on_step_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Mark the labels as trained."""
        # Also before the first update: what a step samples must be what it trains.
        self.trainer.model.mark_labels_trained()


class LossSinceLogCallback(TrainerCallback):
    """Keeps the training loss since the last log, which Transformers forgets on resume."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.kept: dict[str, float] = {}

    def values(self) -> dict[str, float]:
        """What a checkpoint keeps: the loss summed since the last log, mean over processes, and that log's update."""
        loss = self.trainer.accelerator.gather(self.trainer.loss_since_log).mean().item()
        return {"loss": loss, "last log": self.trainer.last_logged_step}

    def on_train_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Go on from what the checkpoint kept."""
        if self.kept:
            self.trainer.continue_log(self.kept["loss"], self.kept["last log"])


class InterruptionCallback(TrainerCallback):
    """Ends a training at the first update after a signal, with a checkpoint; a second signal ends it at once.

    The processes of one training agree on the update. Where an epoch ends with that update, the checkpoint is saved
    after the epoch's evaluation, which a resumed training would not make up for.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.signal_number = 0
        self.time = 0.0
        self.stops = False
        self.epoch_is_over = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; end at the second."""
        now = time.monotonic()
        if self.signal_number and now - self.time > SAME_SIGNAL_SECONDS:
            raise Interrupted(number)
        if not self.signal_number:
            self.signal_number, self.time = int(number), now
            if self.trainer.is_world_process_zero():
                name = signal.Signals(number).name
                write_unbuffered(
                    f"{name}: training ends with a checkpoint after this update; once more to end it at once."
                )

    def agree(self) -> None:
        """Decide, the same in all processes, whether a signal came to any of them."""
        number = self.signal_number
        if self.trainer.args.world_size > 1:
            flag = torch.tensor(number, device=self.trainer.args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            number = int(flag)
        if number:
            self.signal_number, self.stops = number, True

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Note where in the epoch the training is."""
        self.epoch_is_over = False

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Ask for a checkpoint, unless the epoch ends here."""
        self.agree()
        if self.stops and state.epoch != int(state.epoch):
            control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Ask for a checkpoint."""
        self.epoch_is_over = True
        self.agree()
        if self.stops:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """End the training once the checkpoint is there."""
        self.agree()
        if self.stops and (self.epoch_is_over or state.epoch != int(state.epoch)):
            self.trainer.accelerator.wait_for_everyone()
            self.end(f"checkpoint-{state.global_step} is saved in {self.trainer.training_folder()}")

    def end(self, what: str) -> None:
        """Say what there is to resume from, and end."""
        interrupted = Interrupted(self.signal_number)
        if self.trainer.is_world_process_zero():
            write_unbuffered(f"{interrupted.signal_name}: {what}; train(resume_from_checkpoint=True) goes on from it.")
        raise interrupted


class LineCallback(TrainerCallback):
    """Writes one line per log, and one where 30 seconds passed without; it changes nothing of the training."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.first_step = trainer, 0
        self.start = self.last = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Start the clock."""
        self.start = self.last = time.monotonic()
        self.first_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **keywords: Any) -> None:
        """Write what is logged."""
        if logs:
            self._write(state, format_log(logs))

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Write the mean loss since the last log, if there was no line for long."""
        if time.monotonic() - self.last >= SECONDS:
            # Transformers' own sum, only read: a log would begin a new one, at a moment that chance decides.
            steps = state.global_step - self.trainer.last_logged_step
            loss = {"loss": self.trainer.loss_since_log.item() / steps} if steps else {}
            self._write(state, format_log({"epoch": state.epoch, **loss}))

    def _write(self, state: Any, values: str) -> None:
        """Write a line: where the training is, the values, and in training its speed and the time left."""
        self.last = time.monotonic()
        if not state.is_world_process_zero:
            return
        steps, seconds, speed = state.global_step - self.first_step, self.last - self.start, ""
        if self.trainer.is_in_train and steps > 0:
            # The speed is that of training alone, the time left has evaluations in it.
            rate = self.trainer.trained_documents / max(seconds - self.trainer.evaluation_seconds, 1e-9)
            left = seconds / steps * (state.max_steps - state.global_step)
            speed = f"  {rate:.1f} documents/s  {duration(left)} left"
        write_line(f"step {state.global_step}/{state.max_steps}  {values}{speed}")


class BarCallback(ProgressCallback):
    """A progress bar, and one line per log above it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **keywords: Any) -> None:
        """Write what is logged."""
        if state.is_world_process_zero and logs and self.training_bar is not None:
            self.training_bar.write(f"step {state.global_step}  {format_log(logs)}", file=sys.stderr)
