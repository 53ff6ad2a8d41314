"""Maximum-likelihood training of SGM models, evaluated by generation."""

import copy
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
)
from transformers.trainer_utils import HubStrategy, TrainOutput
from transformers.utils.hub import PushInProgress, hf_api

from sgm_hf.data.batching import LengthBucketBatchSampler
from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.data.labels import label_matrix
from sgm_hf.hub import CardFacts, make_model_card
from sgm_hf.metrics import compute_metrics, fit_threshold
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS, checked_set_decoding
from sgm_hf.training.arguments import SGMTrainingArguments
from sgm_hf.training.checkpoints import RECORD, STATE, last_complete_checkpoint, write_text_atomically
from sgm_hf.training.evaluation_loss import mean_token_loss
from sgm_hf.training.machine import flushed_denormals
from sgm_hf.training.prediction import LabelPredictions, generate_predictions
from sgm_hf.training.progress import BarCallback, LineCallback
from sgm_hf.training.resuming import ResumableTrainer
from sgm_hf.training.summary import (
    TRAINING_FIELDS,
    describe_generation,
    describe_model,
    epoch_history,
    package_versions,
)

logger = logging.getLogger(__name__)

# What a checkpoint folder has for resuming only; the rest is the model.
RESUMING_FILES = ("*.pt", "*.pth", "*.bin", STATE, RECORD)


@dataclass
class SGMPredictionOutput:
    """What `SGMTrainer.predict` returns.

    Args:
        predictions: Best sequences, label scores and sets of greatest expected F1 of the N documents.
        label_sets: Their label ids under the model's set decoding.
        references: The true label sets, (N, L or more) bool, or None where the data has no labels.
        metrics: The metrics, empty where the data has no labels, and the speed.
    """

    predictions: LabelPredictions
    label_sets: list[list[int]]
    references: np.ndarray | None
    metrics: dict[str, float]


class SGMTrainer(ResumableTrainer):
    """A Transformers `Trainer` for multi-label generation.

    Training batches hold documents of similar length, capped by words and by documents. Evaluation generates: one
    `generate` call a batch gives the sets of every set decoding, whose metrics are reported side by side.

    Args:
        model: The model to train.
        args: The settings.
        train_dataset: Encoded training documents, see `sgm_hf.data.encoding.encode_dataset`.
        eval_dataset: Encoded documents to evaluate on.
        threshold_dataset: Encoded documents held out of the training split, on which the label threshold is
            fitted before each evaluation of a training and at its end; default None: the threshold of the model's
            generation config is used as it is.
        processing_class: The tokenizer, saved with each checkpoint.
        data_collator: Default a `MultiLabelCollator` in the model's label order.
        **keywords: Passed to `Trainer`.
    """

    control: TrainerControl
    lr_scheduler: Any
    push_in_progress: PushInProgress | None

    def __init__(
        self,
        model: PreTrainedModel,
        args: SGMTrainingArguments,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        threshold_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        data_collator: MultiLabelCollator | None = None,
        **keywords: Any,
    ):
        for name, dataset in (("train", train_dataset), ("eval", eval_dataset), ("threshold", threshold_dataset)):
            check_encoded(dataset, f"{name}_dataset")
        collator = data_collator or MultiLabelCollator(
            model.config.pad_token_id,
            model.config.num_labels,
            model.config.label_order,
            args.seed,
            getattr(processing_class, "pad_token_type_id", 0),
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            **keywords,
        )
        # Not handed to Trainer as its processing_class: it would set the generation config's pad id, which is a label
        # id here, to the word pad's.
        self.tokenizer = processing_class
        self.evaluation_seconds = 0.0
        self._update_losses: list[torch.Tensor] = []  # of the batches since the last update
        self.resumptions = []
        # Of the weights as they are now, by split, for the model card.
        self.results: dict[str, dict[str, float]] = {}
        # The model's loss takes num_items_in_batch and label_smoothing. Transformers' own LabelSmoother would average
        # over all logits, of which masked labels have -inf.
        self.model_accepts_loss_kwargs = True
        self.label_smoother = None
        self.threshold_dataset = threshold_dataset
        self.train_batch_sampler: LengthBucketBatchSampler | None = None
        self._add_callbacks()

    def _add_callbacks(self) -> None:
        """Add epoch counting and early stopping; print logs in a readable way."""
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.add_callback(LineCallback(self) if self.args.disable_tqdm else BarCallback())
        self.add_callback(_EpochCallback(self))
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(self.args.early_stopping_patience))

    # ---- training ----

    def get_train_dataloader(self) -> DataLoader:
        """The training batches, dealt to the processes.

        Raises:
            ValueError: If there is no training data.
        """
        self.train_batch_sampler = self._make_batch_sampler()
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.train_batch_sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        return self.accelerator.prepare(loader)

    def _make_batch_sampler(self) -> LengthBucketBatchSampler:
        """The sampler of the training batches."""
        if self.train_dataset is None:
            raise ValueError("SGMTrainer has no train_dataset; pass one to train.")
        return LengthBucketBatchSampler(
            self.train_dataset["length"],
            self.args.max_tokens_per_batch,
            self._train_batch_size,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            multiple_of=self.args.world_size,
        )

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The token cross-entropy of one batch, as the model computes it.

        Args:
            model: The model, wrapped or not.
            inputs: `input_ids`, `attention_mask` (B, T), `labels` (B, n).
            return_outputs: Whether to return the model's output too.
            num_items_in_batch: Target tokens of all batches of this update, on all processes; the loss is the sum
                over this batch's tokens divided by it.

        Returns:
            The loss, or the loss and the model's output.
        """
        outputs = model(
            **inputs,
            label_smoothing=self.args.label_smoothing_factor,
            num_items_in_batch=num_items_in_batch,
            use_cache=False,
        )
        loss = self.scale_to_processes(outputs["loss"], num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def scale_to_processes(self, loss: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor:
        """Make up for the processes' gradients being averaged although `num_items_in_batch` counts all their items.

        Args:
            loss: Of this process, divided by `num_items_in_batch` where that is given.
            num_items_in_batch: Items of this update on all processes, or None.
        """
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            return loss * self.accelerator.num_processes
        return loss

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The learning-rate schedule: halved after epochs where `halve_from_epoch` is set, else one of Transformers.

        Args:
            num_training_steps: Updates of the whole training.
            optimizer: Default the trainer's.
        """
        if self.args.halve_from_epoch is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        factor = partial(
            halving_factor,
            updates_per_epoch=self._updates_per_epoch(),
            halve_from_epoch=self.args.halve_from_epoch,
            warmup_updates=self.args.get_warmup_steps(num_training_steps),
        )
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _updates_per_epoch(self) -> int:
        """Updates of one epoch: batches of one process over the batches of one update, rounded up."""
        sampler = self._make_batch_sampler()
        return -(-len(sampler) // (self.args.world_size * self.args.gradient_accumulation_steps))

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """Transformers' forward and backward pass of one batch, whose loss is kept for the check of the update."""
        loss = super().training_step(*arguments, **keywords)
        self._update_losses.append(loss)
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm, which Transformers asks for before each update.

        Raises:
            FloatingPointError: On all processes, if the loss of one or the gradient is not finite. Nothing has been
                updated with them then.
        """
        grad_norm = super()._get_grad_norm(model, grad_norm)
        losses = self.accelerator.gather(torch.stack(self._update_losses).sum()[None])  # (processes)
        self._update_losses.clear()
        # In fp16 the loss scaler skips updates whose gradient is too large.
        if losses.isfinite().all() and (self.args.fp16 or math.isfinite(grad_norm)):
            return grad_norm
        model.zero_grad()
        raise FloatingPointError(
            f"update {self.state.global_step + 1}: the loss is {losses.mean().item():g} and its gradient's norm "
            f"{float(grad_norm):g}, which must both be finite, so training has stopped before this update. "
            f"{self._describe_last_checkpoint()} Try a lower learning_rate, warm-up, a smaller max_grad_norm or "
            "precision fp32; if it is the first update, look for weights that are not finite."
        )

    def _describe_last_checkpoint(self) -> str:
        """Where the training can be resumed from, in a sentence."""
        try:
            return f"The last good checkpoint is {last_complete_checkpoint(self.args.output_dir)}."
        except FileNotFoundError:
            return "No checkpoint has been saved yet."

    @flushed_denormals()
    def train(self, resume_from_checkpoint: str | bool | None = None, **keywords: Any) -> TrainOutput:
        """Train, and end with the best checkpoint's weights and label threshold if `load_best_model_at_end`.

        Args:
            resume_from_checkpoint: A checkpoint folder to go on from, or True for the last complete one of
                `output_dir`.
            **keywords: Passed to `Trainer.train`.

        Returns:
            Transformers' `TrainOutput`: updates, mean loss, speed.

        Raises:
            FileExistsError: If another process trains in `output_dir`.
            FileNotFoundError: If there is no complete checkpoint to resume from.
            FloatingPointError: At the first update whose loss or gradient is not finite.
            Interrupted: At Ctrl-C or SIGTERM, after a checkpoint; it ends the process with status 130 or 143.
            ValueError: If the checkpoint named is incomplete, or is of other data, labels or settings; or if saving or
                evaluating would refuse the model's generation config.
        """
        self._check_metric()
        self._check_generation()
        self.evaluation_seconds = 0.0
        self.results = {}
        untrained_labels = self.model.config.num_untrained_labels
        self._update_losses.clear()
        try:
            output = super().train(resume_from_checkpoint=resume_from_checkpoint, **keywords)
        finally:
            self.is_in_train = False
            if self.state.global_step == 0:  # it failed before the first update: nothing is trained
                self.model.config.num_untrained_labels = untrained_labels
        self._add_speed(output.metrics)
        best = self.state.best_model_checkpoint
        if self.args.load_best_model_at_end and best is not None:
            # Transformers reloads the weights only; the threshold belongs to them.
            self.model.generation_config.label_threshold = GenerationConfig.from_pretrained(best).label_threshold
            records = [r for r in epoch_history(self.state.log_history) if r["step"] == self.state.best_global_step]
            self._keep_results("eval", records[-1] if records else {})
        return output

    def _check_generation(self) -> None:
        """Save the generation config and evaluate one document of one word, as this training will at its end."""
        config = copy.deepcopy(self.model.generation_config)
        if config.num_beams is not None and config.num_beams < 1:
            raise ValueError(f"num_beams of the model's generation config is {config.num_beams}; give 1 or more.")
        if self.threshold_dataset is not None:
            config.label_threshold = 0.25  # as fitting will: what was changed since loading is checked strictly
        try:
            with tempfile.TemporaryDirectory() as folder:
                config.save_pretrained(folder)
        except ValueError as error:
            raise ValueError(
                f"the model's generation config could not be saved: {' '.join(str(error).split())}"
            ) from error
        word = {"input_ids": [[self.model.config.vocab_size - 1]], "labels": [[]], "length": [1]}
        with torch.random.fork_rng():  # a model that samples draws from the training's random numbers
            self._predict(Dataset.from_dict(word), "Checking", "check")

    def _keep_results(self, prefix: str, metrics: dict[str, Any]) -> None:
        """Keep the metrics of a split, "validation" if they come from `evaluate`, for the model card."""
        split = {"eval": "validation"}.get(prefix, prefix)
        own = {name.removeprefix(f"{prefix}_"): value for name, value in metrics.items() if name.startswith(prefix)}
        self.results[split] = own

    def _add_speed(self, metrics: dict[str, float]) -> None:
        """Add the time spent on evaluation, and the documents a second of the rest, to the training's metrics."""
        seconds = metrics["train_runtime"]
        documents = metrics.pop("train_samples_per_second") * seconds
        metrics["train_evaluation_seconds"] = round(self.evaluation_seconds, 3)
        metrics["train_documents_per_second"] = round(documents / max(seconds - self.evaluation_seconds, 1e-9), 2)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save model, tokenizer and generation config so that a kill never leaves half a file.

        Args:
            output_dir: The folder; default `args.output_dir`.
        """
        target = Path(output_dir or self.args.output_dir)
        if not self.args.should_save:
            super().save_model(str(target), _internal_call=True)
        else:
            self._save_whole(target)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    # ---- the Hub ----

    def create_model_card(
        self,
        language: str | Sequence[str] | None = None,
        license: str | None = None,
        tags: str | Sequence[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | Sequence[str] | None = None,
        dataset_tags: str | Sequence[str] | None = None,
        dataset: str | Sequence[str] | None = None,
        dataset_args: str | Sequence[str] | None = None,
    ) -> None:
        """Write `README.md`, the model card, to `output_dir`.

        Args:
            language: ISO 639 codes.
            license: The model's licence, as the Hub names it.
            tags: Further tags.
            model_name: Default the last part of the repository's or folder's name.
            finetuned_from: The model that training started from; default where this one was loaded from.
            tasks: Not used, kept for Transformers' interface: the task is always the same.
            dataset_tags: Names of the data sets on the Hub.
            dataset: Their titles, for readers.
            dataset_args: Their configurations.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir).absolute()
        repository = self.hub_model_id or self.args.hub_model_id
        labels = self.model.config.id2label
        facts = CardFacts(
            name=model_name or (repository or folder.name).split("/")[-1],
            repository=repository or self.args.output_dir,
            labels=[labels[label] for label in range(self.model.config.num_labels)],
            data=self._describe_data(),
            settings=self._describe_settings(),
            versions=package_versions(),
            results=self.results,
            max_words=getattr(self.tokenizer, "model_max_length", None),
            trainer=type(self).__name__ if self.state.global_step else None,
            dataset_names=_as_list(dataset),
            dataset_ids=_as_list(dataset_tags),
            dataset_configs=_as_list(dataset_args),
            language=_as_list(language),
            license=license,
            tags=_as_list(tags),
            base_model=finetuned_from or self._base_model(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(folder / "README.md", str(make_model_card(facts)))

    def _describe_data(self) -> dict[str, Any]:
        """Counts of the training documents."""
        data = self.train_dataset
        if data is None or not self.state.global_step:
            return {}
        counts = {
            "training documents": f"{len(data):,}",
            "labels per document": f"{sum(map(len, data['labels'])) / max(len(data), 1):.2f}",
            "words per document": f"{sum(data['length']) / max(len(data), 1):.1f}",
        }
        others = {"validation documents": self.eval_dataset, "threshold documents": self.threshold_dataset}
        return counts | {name: f"{len(other):,}" for name, other in others.items() if other is not None}

    def _describe_settings(self) -> dict[str, dict[str, Any]]:
        """Model, generation and training settings."""
        settings = {"Model": describe_model(self.model), "Generation": describe_generation(self.model)}
        if not self.state.global_step:
            return settings
        given = self.args.to_dict()
        training = {name: given[name] for name in TRAINING_FIELDS if name in given}
        return settings | {"Training": {**training, "updates": self.state.global_step}}

    def _base_model(self) -> str | None:
        """The repository that the model was loaded from, if it was one."""
        name = self.model.config._name_or_path
        return name if name and not Path(name).exists() else None

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint's model while training goes on, all of it: Transformers leaves out tokenizer and code.

        Nothing else is pushed than by Transformers, and no pickle but in the checkpoint that is to be resumed from.
        """
        strategy, pushing = self.args.hub_strategy, self.push_in_progress
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        if pushing is not None and not pushing.is_done() and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        output_dir = Path(self.args.output_dir)
        # Copied, because the checkpoint may be deleted before it has been sent.
        shutil.copytree(
            checkpoint_folder, output_dir, ignore=shutil.ignore_patterns(*RESUMING_FILES), dirs_exist_ok=True
        )
        message = f"Training in progress, step {self.state.global_step}"
        jobs = [self._upload(str(output_dir), message, ignore_patterns=["_*", "checkpoint-*"])]
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            last = strategy == HubStrategy.CHECKPOINT
            folder = "last-checkpoint" if last else Path(checkpoint_folder).name
            jobs.append(self._upload(checkpoint_folder, f"{message}, checkpoint", path_in_repo=folder))
        unfinished = [] if pushing is None else [job for job in pushing.jobs if not job.done()]
        self.push_in_progress = PushInProgress([*unfinished, *jobs])

    def _upload(self, folder: str, message: str, **options: Any) -> Future:
        """Send a folder in the background; a failure is logged, and does not end the training."""
        # Transformers' own client does one upload after the other.
        job = hf_api().upload_folder(
            repo_id=self.hub_model_id,
            folder_path=folder,
            commit_message=message,
            token=self.args.hub_token,
            revision=self.args.hub_revision,
            run_as_future=True,
            **options,
        )
        job.add_done_callback(_report_failed_push)
        return job

    # ---- evaluation ----

    def generate_predictions(self, dataset: Dataset, description: str = "Generating") -> LabelPredictions:
        """What is needed for the sets of each set decoding of every document, in the data set's order.

        Args:
            dataset: Encoded documents.
            description: Title of the progress bar.
        """
        arguments = {}
        if self.args.generation_num_beams is not None:
            arguments["num_beams"] = self.args.generation_num_beams
        return generate_predictions(
            self.model,
            dataset,
            max_tokens=self.args.max_tokens_per_eval_batch,
            max_documents=self.args.per_device_eval_batch_size,
            bf16=self.args.bf16,
            show_progress=not self.args.disable_tqdm and self.is_world_process_zero(),
            show_lines=self.args.disable_tqdm and self.is_world_process_zero(),
            description=description,
            **arguments,
        )

    def fit_label_threshold(self, dataset: Dataset | None = None) -> float:
        """Fit the label threshold and store it in the model's generation config.

        Args:
            dataset: Encoded documents to fit on; default the trainer's `threshold_dataset`. Fit on documents that
                are neither trained nor reported on.

        Returns:
            The threshold that maximises micro-F1 on them.

        Raises:
            ValueError: If there is no data to fit on.
        """
        dataset = dataset if dataset is not None else self.threshold_dataset
        if dataset is None:
            raise ValueError(
                "no data to fit the label threshold on; pass a data set or the trainer's threshold_dataset."
            )
        predictions = self.generate_predictions(dataset, "Fitting threshold")
        references = label_matrix(dataset["labels"], self.model.config.num_labels)
        threshold = fit_threshold(references, predictions.label_scores)
        self.model.generation_config.label_threshold = float(threshold)
        return float(threshold)

    @flushed_denormals()
    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Generate labels for a data set and compare them with the true ones.

        Args:
            eval_dataset: Encoded documents; default the trainer's `eval_dataset`.
            ignore_keys: Not used; kept for Transformers' interface.
            metric_key_prefix: Put before each metric's name.

        Returns:
            The metrics of each set decoding (`eval_best_sequence_micro_f1`, `eval_threshold_micro_f1`, …), once more
            without its name those of the decoding that the generation config chooses (`eval_micro_f1`, …), the
            threshold, and the speed. Where the data has labels also `eval_loss`, see `mean_token_loss`.

        Raises:
            ValueError: If there is no data to evaluate on.
        """
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        if dataset is None:
            raise ValueError("SGMTrainer has no eval_dataset; pass one to evaluate.")
        start = time.perf_counter()
        if self.is_in_train and self.threshold_dataset is not None:
            self.fit_label_threshold()
        output = self._predict(dataset, "Evaluating", metric_key_prefix)
        if output.references is not None:
            output.metrics[f"{metric_key_prefix}_loss"] = self._evaluation_loss(dataset)
        if self.is_in_train:
            self.evaluation_seconds += time.perf_counter() - start
        self._keep_results(metric_key_prefix, output.metrics)
        self.log(dict(output.metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, output.metrics)
        return output.metrics

    def _evaluation_loss(self, dataset: Dataset) -> float:
        """The mean token loss of encoded documents."""
        return mean_token_loss(
            self.model,
            dataset,
            max_tokens=self.args.max_tokens_per_eval_batch,
            max_documents=self.args.per_device_eval_batch_size,
            bf16=self.args.bf16,
        )

    def metric_names(self) -> list[str]:
        """The names of what `evaluate` reports on labelled documents, without the prefix.

        A subclass that reports more adds their names, so that `metric_for_best_model` can be one of them.
        """
        nothing = np.zeros((1, 1), dtype=bool)
        names = list(compute_metrics(nothing, nothing))
        of_decodings = [f"{decoding}_{name}" for decoding in SET_DECODINGS for name in names]
        return ["loss", *names, *of_decodings, "label_threshold", "runtime", "documents_per_second"]

    def _check_metric(self) -> None:
        """Refuse, before training, a metric that evaluation will not report.

        Raises:
            ValueError: If `metric_for_best_model` is no metric, or the evaluation data has no labels to compute it.
        """
        metric, dataset = self.args.metric_for_best_model, self.eval_dataset
        if metric is None or self.args.eval_strategy == "no" or dataset is None:
            return
        names = self.metric_names()
        if metric.removeprefix("eval_") not in names:
            like = get_close_matches(metric.removeprefix("eval_").lower(), names, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(like)}? " if like else ""
            raise ValueError(
                f"metric_for_best_model is {metric!r}, which evaluation does not report; {hint}It reports "
                f"{', '.join(names)}."
            )
        if "labels" not in dataset.column_names:
            raise ValueError(
                f"metric_for_best_model is {metric!r}, but the eval_dataset has no labels to compute it from; give it "
                "labels, or set eval_strategy to 'no'."
            )

    @flushed_denormals()
    def predict(
        self, test_dataset: Dataset, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> SGMPredictionOutput:
        """Generate the labels of a data set, with metrics where it has labels.

        Args:
            test_dataset: Encoded documents.
            ignore_keys: Not used; kept for Transformers' interface.
            metric_key_prefix: Put before each metric's name.

        Returns:
            Predictions, label sets, references and metrics.
        """
        output = self._predict(test_dataset, "Predicting", metric_key_prefix)
        if output.references is not None:
            self._keep_results(metric_key_prefix, output.metrics)
        self.control = self.callback_handler.on_predict(self.args, self.state, self.control, output.metrics)
        return output

    def label_sets(self, predictions: LabelPredictions, set_decoding: str | None = None) -> list[list[int]]:
        """Each document's label ids under one set decoding and the model's generation config.

        Args:
            predictions: From `generate_predictions`.
            set_decoding: "best_sequence", "threshold" or "expected_f1"; default that of the generation config.

        Returns:
            The sets that `model.generate` would return. Those of "best_sequence" and "expected_f1" were found when the
            predictions were made; a change of the generation config since then does not act on them.
        """
        settings = self.model.generation_config
        return predictions.label_sets(
            set_decoding or settings.set_decoding, self.model.label_constraints(), settings.label_threshold
        )

    def _predict(self, dataset: Dataset, description: str, prefix: str) -> SGMPredictionOutput:
        """Generate, and compute the metrics of each set decoding where the data has labels."""
        check_encoded(dataset, "the data set")
        start = time.perf_counter()
        predictions = self.generate_predictions(dataset, description)
        seconds = time.perf_counter() - start
        metrics: dict[str, float] = {}
        references = None
        if "labels" in dataset.column_names:
            # An unknown gold label has an id of L or above: a column that no prediction fills.
            highest = max((label for labels in dataset["labels"] for label in labels), default=-1)
            columns = max(self.model.config.num_labels, highest + 1)
            references = label_matrix(dataset["labels"], columns)
            metrics = self._metrics(predictions, references, prefix)
        metrics[f"{prefix}_runtime"] = round(seconds, 3)
        metrics[f"{prefix}_documents_per_second"] = round(len(dataset) / seconds, 1)
        return SGMPredictionOutput(predictions, self.label_sets(predictions), references, metrics)

    def _metrics(self, predictions: LabelPredictions, references: np.ndarray, prefix: str) -> dict[str, float]:
        """The metrics of each set decoding; those of the chosen one also under their bare names."""
        metrics: dict[str, float] = {}
        for set_decoding in SET_DECODINGS:
            matrix = label_matrix(self.label_sets(predictions, set_decoding), references.shape[1])
            values = compute_metrics(references, matrix)
            if set_decoding == checked_set_decoding(self.model.generation_config.set_decoding):
                metrics |= {f"{prefix}_{name}": float(value) for name, value in values.items()}
            metrics |= {f"{prefix}_{set_decoding}_{name}": float(value) for name, value in values.items()}
        threshold = self.model.generation_config.label_threshold
        if not isinstance(threshold, list | tuple):  # there may be one a label
            metrics[f"{prefix}_label_threshold"] = float(threshold)
        return metrics


def _as_list(value: str | Sequence[str] | None) -> list[str]:
    """A string alone, or several, as a list."""
    return [value] if isinstance(value, str) else list(value or ())


def _report_failed_push(job: Future) -> None:
    """Log that a push in the background failed, and why."""
    if not job.cancelled() and job.exception() is not None:
        logger.warning(
            "a checkpoint was not pushed to the Hub, training goes on; the next push sends it too: %s", job.exception()
        )


def check_encoded(dataset: Dataset | None, name: str) -> None:
    """Refuse a data set that is not encoded.

    Args:
        dataset: The data set, or None.
        name: What it is called in the error.

    Raises:
        ValueError: If it lacks the columns of `encode_dataset`.
    """
    if dataset is not None and not {"input_ids", "length"} <= set(dataset.column_names):
        raise ValueError(
            f"{name} has the columns {', '.join(dataset.column_names)}, not input_ids and length; encode it with "
            "sgm_hf.encode_dataset first."
        )


def halving_factor(update: int, updates_per_epoch: int, halve_from_epoch: int, warmup_updates: int = 0) -> float:
    """The factor on the learning rate before an update.

    Args:
        update: Updates already made.
        updates_per_epoch: Updates of one epoch.
        halve_from_epoch: Epoch (from 1) at whose end the rate is halved for the first time.
        warmup_updates: Updates over which the rate grows from 0; default none.

    Example:
        >>> [halving_factor(epoch * 10, updates_per_epoch=10, halve_from_epoch=2) for epoch in range(4)]
        [1.0, 1.0, 0.5, 0.25]
    """
    if update < warmup_updates:
        return update / warmup_updates
    finished_epochs = update // updates_per_epoch
    return 0.5 ** max(0, finished_epochs - halve_from_epoch + 1)


class _EpochCallback(TrainerCallback):
    """Tells sampler and collator the epoch, also where accelerate's wrappers hide it, and marks labels as trained."""

    def __init__(self, trainer: SGMTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args: SGMTrainingArguments, state: Any, control: Any, **keywords: Any) -> None:
        """Pass the epoch on."""
        epoch = int(state.epoch or 0)
        for part in (self.trainer.train_batch_sampler, self.trainer.data_collator):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)

    def on_train_begin(self, args: SGMTrainingArguments, state: Any, control: Any, **keywords: Any) -> None:
        if state.global_step > 0:  # resumed, perhaps with no step left
            self.trainer.model.mark_labels_trained()

    def on_step_begin(self, args: SGMTrainingArguments, state: Any, control: Any, **keywords: Any) -> None:
        # Before the first update, too: what a step samples must be what it trains.
        self.trainer.model.mark_labels_trained()

    # The losses since the last log are logged before each evaluation.

    def on_step_end(self, args: SGMTrainingArguments, state: Any, control: Any, **keywords: Any) -> None:
        control.should_log |= control.should_evaluate

    def on_epoch_end(self, args: SGMTrainingArguments, state: Any, control: Any, **keywords: Any) -> None:
        control.should_log = True
