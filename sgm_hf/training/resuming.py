"""What lets a training be killed, interrupted and resumed without losing work, or going on with something else."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, GenerationConfig
from transformers.trainer_utils import TrainOutput

from sgm_hf.training.callbacks import InterruptionCallback, LossSinceLogCallback
from sgm_hf.training.checkpoints import (
    SAVING,
    STATE,
    alone_in,
    begin_checkpoint,
    find_checkpoint,
    finish_checkpoint,
    is_unused,
    read_record,
    remove_leftovers,
)
from sgm_hf.training.fingerprint import changed_settings, differences, make_fingerprint
from sgm_hf.training.interruption import signals_handled_by
from sgm_hf.training.lora import load_adapters, save_adapters
from sgm_hf.training.prediction import evaluation_sets
from sgm_hf.training.private import TrainerHooks, set_last_rates

logger = logging.getLogger(__name__)


class ResumableTrainer(TrainerHooks):
    """A Transformers `Trainer` whose checkpoints are complete or not used, and resumed only by the same training.

    Each checkpoint keeps the training's fingerprint and a list of its files. `train` is alone in its folder, and
    Ctrl-C and SIGTERM end it with a checkpoint. The folder is `output_dir`, that of a search's trial one within it.
    """

    threshold_dataset: Dataset | None
    # From which updates on this training was resumed, and with which settings changed: {"update": 7, "changed": {…}}.
    resumptions: list[dict[str, Any]]
    _trial: Any = None
    first_rates: list[float] | None = None  # of the optimizer's groups, before any update

    def training_folder(self) -> str:
        """Where the checkpoints of this training are."""
        return self.run_folder(self._trial)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, **keywords: Any
    ) -> TrainOutput:
        """Train alone in a folder; a signal ends it with a checkpoint. See `SGMTrainer.train`."""
        interruption, self._loss_since_log = InterruptionCallback(self), LossSinceLogCallback(self)
        self.add_callback(interruption)
        self.add_callback(self._loss_since_log)
        self._trial = trial
        folder = self.training_folder()
        try:
            with alone_in(folder) if self.args.should_save else nullcontext():
                self._checkpoint = find_checkpoint(resume_from_checkpoint, folder)
                # The trials of a search that was killed, or of the one before, have the same numbers.
                if trial is not None and self._checkpoint is None and not is_unused(folder):
                    raise FileExistsError(
                        f"{folder} has files of another search, with which those of this trial would be mixed; choose "
                        "another output_dir, or go on with that search by its study_name, storage and load_if_exists."
                    )
                if self.args.should_save:
                    remove_leftovers(folder)
                with signals_handled_by(interruption.handle):
                    output = super().train(resume_from_checkpoint=self._checkpoint, trial=trial, **keywords)
                if interruption.signal_number:
                    interruption.end("training had just ended")
                return output
        finally:
            self.is_in_train = False
            self.pop_callback(interruption)
            self.pop_callback(self._loss_since_log)

    def set_up_training(self, trial: Any) -> None:
        """As Transformers'; then find out whether this training can go on from its checkpoint."""
        super().set_up_training(trial)
        datasets = {
            "training": self.train_dataset,
            **evaluation_sets(self.eval_dataset, "validation"),
            "threshold": self.threshold_dataset,
        }
        self.fingerprint = make_fingerprint(
            self.model, self.args, datasets, self.processing_class, trainer=type(self).__name__
        )
        self.resumptions = []
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience_counter = 0  # Transformers goes on counting from the last training
        if self._checkpoint is None:
            return
        record = read_record(self._checkpoint)
        if record is None:
            logger.warning(
                "%s has no fingerprint: nothing says that it is of these data and settings.", self._checkpoint
            )
        else:
            found = differences(record["fingerprint"], self.fingerprint)
            if found:
                raise ValueError(
                    f"{self._checkpoint} cannot be resumed, because the training that it is of differs from this one "
                    "in\n  "
                    + "\n  ".join(found)
                    + "\nGive data and settings as they were, or start a new training in "
                    "another output_dir; it can begin with the checkpoint's weights as its model."
                )
            changed = changed_settings(record["fingerprint"], self.fingerprint)
            update = json.loads(Path(self._checkpoint, STATE).read_text(encoding="utf-8"))["global_step"]
            self.resumptions = [*record["resumptions"], {"update": update, "changed": changed}]
            for name, (old, new) in changed.items():
                logger.warning("%s: %s → %s, from update %d on.", name, old, new, update)
            self._loss_since_log.kept = record["since log"]
        if self.threshold_dataset is not None:
            # Fitted before the checkpoint was saved; Transformers reloads the weights only.
            stored = GenerationConfig.from_pretrained(self._checkpoint)
            self.model.generation_config.label_threshold = stored.label_threshold

    # ---- resuming ----

    def start_state(
        self, max_steps: int, steps_per_epoch: int, num_epochs: int, checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        """As Transformers', but a finished training makes no further update, and steps changed are not ignored."""
        start = super().start_state(max_steps, steps_per_epoch, num_epochs, checkpoint, trial)
        if checkpoint is None:
            return start
        if self.state.global_step > max_steps:
            raise ValueError(
                f"{checkpoint} has {self.state.global_step} updates, more than the {max_steps} of these "
                "settings; raise num_train_epochs or max_steps, or name an earlier checkpoint."
            )
        self.state.compute_steps(self.args, max_steps)
        best = Path(self.run_folder(trial), f"checkpoint-{self.state.best_global_step}")
        if self.state.best_model_checkpoint is None and best.is_dir():
            self.state.best_model_checkpoint = str(best)  # the output folder was moved
        stopped = any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
        )
        return (num_epochs, 0) if stopped or self.state.global_step == max_steps else start

    def load_weights(self, checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """As Transformers', with adapters apart from the weights that they are added to."""
        super().load_weights(checkpoint, model)
        load_adapters(self.plain_model(), checkpoint)

    def load_best_weights(self) -> None:
        """As Transformers', with adapters apart from the weights that they are added to."""
        super().load_best_weights()
        load_adapters(self.plain_model(), self.state.best_model_checkpoint)

    def plain_model(self) -> Any:
        """The model without what wraps it."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As Transformers', but with a learning rate that was changed instead of the old one."""
        super().load_optimizer_and_scheduler(checkpoint)
        if self.resumptions and "learning_rate" in self.resumptions[-1]["changed"]:
            set_learning_rate(self.optimizer, self.lr_scheduler, self.first_rates or [self.args.learning_rate])

    # ---- saving ----

    def save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """As Transformers', but marked as incomplete until all is written."""
        if self.args.should_save and not self.args.save_only_model:
            begin_checkpoint(Path(self.run_folder(trial), f"checkpoint-{self.state.global_step}"))
        super().save_checkpoint(model, trial)

    def save_random_states(self, folder: str) -> None:
        """As Transformers'; only `trainer_state.json` is written later, so the record can list the files."""
        super().save_random_states(folder)
        record = {
            "fingerprint": self.fingerprint,
            "resumptions": self.resumptions,
            "since log": self._loss_since_log.values(),
        }
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            finish_checkpoint(folder, record)

    def save_files(self, folder: str | None, state_dict: dict[str, torch.Tensor] | None) -> None:
        """As Transformers', but without `training_args.bin`: a pickle, in which the Hub's token can be."""
        folder = folder or self.args.output_dir
        model = self.plain_model()
        if self.args.should_save or self.is_distributed_loading_by_transformers:
            # Transformers' trainer, which loads the checkpoints of a training, knows a weight by the model's own name
            # for it alone; save_pretrained gives those of some encoders, such as ViT, the names of older releases.
            options = {"is_main_process": self.args.should_save, "save_original_format": not self.is_in_train}
            model.save_pretrained(folder, state_dict=state_dict, **options)
        if self.args.should_save and self.is_in_train:
            save_adapters(model, folder, state_dict)
        if self.args.should_save and self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save model, tokenizer and generation config to a folder so that a kill never leaves half a file."""
        target, folder = Path(output_dir or self.args.output_dir), Path(self.args.output_dir)
        if self.args.should_save:
            target.mkdir(parents=True, exist_ok=True)
            # What begins with "_" in the output folder is never pushed to the Hub.
            inside = folder.absolute() in target.absolute().parents
            temporary = tempfile.mkdtemp(prefix=SAVING, dir=folder if inside else target)
            try:
                super().save_model(temporary, _internal_call=True)
                for file in sorted(Path(temporary).iterdir()):
                    os.replace(file, target / file.name)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        else:
            super().save_model(str(target), _internal_call=True)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)


def set_learning_rate(
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    learning_rates: Sequence[float],
) -> None:
    """Go on with other learning rates, one for each group, which the schedule's factors multiply as before.

    Raises:
        ValueError: If the schedule's rates are no multiples of one rate.
    """
    if not isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
        raise ValueError(
            f"the learning rate cannot change on resume under {type(scheduler).__name__}; leave it as it was."
        )
    scheduler.base_lrs = list(learning_rates)
    for group, rate, factor in zip(optimizer.param_groups, learning_rates, scheduler.lr_lambdas, strict=True):
        group["initial_lr"] = rate
        group["lr"] = rate * factor(scheduler.last_epoch)
    set_last_rates(scheduler, [group["lr"] for group in optimizer.param_groups])
