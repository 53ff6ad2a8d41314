"""Maximum-likelihood training of SGM models, evaluated by generation."""

import copy
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from torch.nn.utils import clip_grad_value_
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerControl,
)
from transformers.trainer_utils import BestRun, TrainOutput, denumpify_detensorize

from sgm_hf.data.batching import LengthBucketBatchSampler
from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.data.labels import label_counts, label_matrix, target_sequence
from sgm_hf.metrics import (
    compute_metrics,
    fit_threshold,
    frequency_bands,
    mean_position_deviation,
)
from sgm_hf.metrics.calibration import SCORE_METRICS
from sgm_hf.metrics.hierarchical import HIERARCHICAL_METRICS
from sgm_hf.metrics.ranking import RANKING_METRICS
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS, checked_set_decoding
from sgm_hf.training.arguments import SGMTrainingArguments
from sgm_hf.training.branch import BranchTrainer
from sgm_hf.training.calibrating import CalibratingTrainer
from sgm_hf.training.callbacks import BarCallback, EpochCallback, LineCallback, TrainedLabelsCallback
from sgm_hf.training.checkpoints import has_complete_checkpoint, last_complete_checkpoint
from sgm_hf.training.imbalance import document_repeat_factors, make_label_weights, read_label_weights
from sgm_hf.training.machine import flushed_denormals
from sgm_hf.training.prediction import (
    LabelHypotheses,
    LabelPredictions,
    evaluation_sets,
    generate_hypotheses,
    generate_predictions,
    mean_token_loss,
    metrics_of_decodings,
)
from sgm_hf.training.pushing import PushingTrainer
from sgm_hf.training.rates import encoder_rates, split_groups
from sgm_hf.training.resuming import ResumableTrainer
from sgm_hf.training.streaming import StreamedBatches, is_stream
from sgm_hf.training.summary import epoch_history

# What `Trainer.train` takes from the tokenizer.
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass
class SGMPredictionOutput:
    """What `SGMTrainer.predict` returns.

    Args:
        predictions: Best sequences, label scores and sets of highest expected F1 of the N documents.
        label_sets: Their label ids under the model's set decoding.
        references: The true label sets, (N, L or more) bool, or None where the data has no labels.
        metrics: The metrics, empty where the data has no labels, and the speed.
    """

    predictions: LabelPredictions
    label_sets: list[list[int]]
    references: np.ndarray | None
    metrics: dict[str, float]


class SGMTrainer(PushingTrainer, CalibratingTrainer, ResumableTrainer, BranchTrainer):
    """A Transformers `Trainer` for multi-label generation.

    Training batches hold documents of similar length, capped by words and by documents. Evaluation generates: one
    `generate` call per batch gives the sets of every set decoding, whose metrics are reported side by side.

    Args:
        model: The model to train; or give `model_init`.
        args: The settings; default those of `SGMTrainingArguments("tmp_trainer")`.
        train_dataset: Encoded training documents, see `sgm_hf.data.encoding.encode_dataset`. Of an `IterableDataset`
            (of `datasets` or PyTorch), which needs `max_steps`, batches are made as the documents come: see
            `StreamedBatches`. Its training counts as one epoch, however often the documents are read.
        eval_dataset: Encoded documents to evaluate on, or a dictionary of such data sets: the metrics of each then
            have its key in their names, as `eval_KEY_micro_f1`.
        threshold_dataset: Encoded documents held out of the training split, on which the label threshold is
            fitted before each evaluation of a training and at its end; default None: the threshold of the model's
            generation config is used as it is.
        processing_class: The tokenizer, saved with each checkpoint.
        data_collator: Default a `MultiLabelCollator` in the model's label order.
        model_init: Makes a new model for each training, and for each trial of a search, which it gets if it takes an
            argument; replaces `model`.
        compute_metrics: Returns further metrics by name, which are reported in addition to ours, and instead of those
            of the same name. It gets an `EvalPrediction` of N documents and C labels (L, or more where a true label is
            unknown to the model): `label_ids`, the true labels, (N, C) int64 of 0 and 1; `predictions`, a tuple of the
            label sets under the model's set decoding, (N, C) int64 of 0 and 1, and the label scores, (N, C) float32.
        **keywords: Passed to `Trainer`, such as `callbacks` and `optimizers`.
    """

    control: TrainerControl
    lr_scheduler: Any

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: SGMTrainingArguments | None = None,
        train_dataset: Dataset | IterableDataset | torch.utils.data.IterableDataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        threshold_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        data_collator: MultiLabelCollator | None = None,
        model_init: Callable[..., PreTrainedModel] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        **keywords: Any,
    ):
        if not is_stream(train_dataset):
            check_encoded(train_dataset, "train_dataset")
        for name, dataset in evaluation_sets(eval_dataset, "eval").items():
            check_encoded(dataset, f"{name}_dataset")
        check_encoded(threshold_dataset, "threshold_dataset")
        super().__init__(
            model=model,
            args=args or SGMTrainingArguments("tmp_trainer"),
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            model_init=model_init,
            compute_metrics=compute_metrics,
            **keywords,
        )
        if data_collator is None:
            self.data_collator = self._make_collator()
        self._has_own_collator = data_collator is None
        self.threshold_dataset = threshold_dataset
        self.train_batch_sampler: LengthBucketBatchSampler | None = None
        self.trained_documents = 0  # by all processes in this training, of which each has as many batches
        self.evaluation_seconds = 0.0
        self.resumptions = []
        self._loss_arguments: dict[str, Any] = {}  # known once the labels are
        self._update_losses: list[torch.Tensor] = []  # of the batches since the last update
        self._counted: tuple[Dataset, np.ndarray] | None = None  # a training set, and its documents of each label
        # Of the weights as they are now, by split, for the model card.
        self.results = {}
        # The model's loss takes num_items_in_batch and label_smoothing. Transformers' own LabelSmoother would average
        # over all logits, of which masked labels have -inf.
        self.model_accepts_loss_kwargs = True
        self.label_smoother = None
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.add_callback(LineCallback(self) if self.args.disable_tqdm else BarCallback())
        self.add_callback(EpochCallback(self))
        self.add_callback(TrainedLabelsCallback(self))
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(self.args.early_stopping_patience))

    def _make_collator(self) -> MultiLabelCollator:
        """The collator of training batches, in the label order of the model."""
        config = self.model.config
        pad_token_type_id = getattr(self.processing_class, "pad_token_type_id", 0)
        return MultiLabelCollator(
            config.pad_token_id,
            config.num_labels,
            config.label_order,
            self.args.seed,
            pad_token_type_id,
            keep_index=config.lexical_in_decoder,
        )

    # ---- training ----

    def get_train_dataloader(self) -> DataLoader:
        """The training batches, dealt to the processes (ValueError without training data)."""
        options = {
            "num_workers": self.args.dataloader_num_workers,
            "pin_memory": self.args.dataloader_pin_memory,
            "prefetch_factor": self.args.dataloader_prefetch_factor,
        }
        if not is_stream(self.train_dataset):
            sampler = self.train_batch_sampler = self._make_batch_sampler()
            loader = DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator, **options)
            return self.accelerator.prepare(loader)
        self.train_batch_sampler = None
        batches = StreamedBatches(
            self.train_dataset,
            self.data_collator,
            self.args.max_tokens_per_batch,
            self.batch_size,
            seed=self._data_seed(),
            process_index=self.args.process_index,
            num_processes=self.args.world_size,
            batches_per_update=self.args.gradient_accumulation_steps,
        )
        # Not prepared: accelerate would deal the batches to the processes once more.
        return DataLoader(batches, batch_size=None, **options)

    def _make_batch_sampler(self) -> LengthBucketBatchSampler:
        """The sampler of the training batches."""
        if self.train_dataset is None:
            raise ValueError("SGMTrainer has no train_dataset; pass one to train.")
        return LengthBucketBatchSampler(
            self.train_dataset["length"],
            self.args.max_tokens_per_batch,
            self.batch_size,
            seed=self._data_seed(),
            multiple_of=self.args.world_size,
            repeat_factors=self._repeat_factors(),
        )

    def _repeat_factors(self) -> np.ndarray | None:
        """How often each training document comes in an epoch on average, (N); None where each comes once."""
        if self.args.repeat_factor_threshold is None or self.train_dataset is None:
            return None
        return document_repeat_factors(self.train_dataset, self.args.repeat_factor_threshold)

    def _make_loss_arguments(self) -> dict[str, Any]:
        """What the model's forward pass is told of the loss: nothing of settings that are off."""
        arguments: dict[str, Any] = {"focal_gamma": self.args.focal_gamma} if self.args.focal_gamma else {}
        if self.args.label_loss == "binary_cross_entropy":
            arguments["binary_cross_entropy"] = True
        repeat_factors = self._repeat_factors()
        weighting = read_label_weights(self.args.label_weights)  # once more: a trial of a search sets what it likes
        if weighting != "none" and self.train_dataset is not None:
            names = [self.model.config.id2label[label] for label in range(self.model.config.num_labels)]
            weights = make_label_weights(
                weighting, names, self.train_dataset, self.args.effective_number_beta, repeat_factors
            ).to(self.args.device)  # (L + 1)
            # Where one process has several GPUs, each gets a row.
            arguments["label_weights"] = weights.expand(self.args.n_gpu, -1) if self.args.n_gpu > 1 else weights
        return arguments

    def _data_seed(self) -> int:
        """The seed of the batches."""
        return self.args.data_seed if self.args.data_seed is not None else self.args.seed

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The loss of one batch, as the model computes it, with the settings for rare labels.

        Args:
            model: The model, wrapped or not.
            inputs: `input_ids`, `attention_mask` (B, T), `labels` (B, n).
            return_outputs: Whether to return the model's output in addition.
            num_items_in_batch: Target tokens of all batches of this update, on all processes; the loss is the sum
                over this batch's tokens divided by it.

        Returns:
            The loss, or the loss and the model's output.
        """
        outputs = model(
            **self.with_lexical_logits(inputs),
            label_smoothing=self.args.label_smoothing_factor,
            num_items_in_batch=num_items_in_batch,
            use_cache=False,
            **self._loss_arguments,
        )
        loss = self.scale_to_processes(outputs["loss"], num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def scale_to_processes(self, loss: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor:
        """Multiply a loss by the processes that average gradients, if `num_items_in_batch` counts all their items."""
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            return loss * self.accelerator.num_processes
        return loss

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """As Transformers', with the encoder's learning rates where the settings have such."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        args, owner = self.args, self.model if model is None else model
        if is_new and (args.encoder_learning_rate is not None or args.layerwise_lr_decay != 1.0):
            rate = args.learning_rate if args.encoder_learning_rate is None else args.encoder_learning_rate
            rates = encoder_rates(owner, rate, args.layerwise_lr_decay)
            split_groups(optimizer, {id(one): rates[name] for name, one in owner.named_parameters() if name in rates})
        if is_new:
            self.first_rates = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The learning-rate schedule: halved after epochs where `halve_from_epoch` is set, else one of Transformers.

        Raises:
            ValueError: If epochs are to be counted that a stream does not have.
        """
        if self.args.halve_from_epoch is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        if is_stream(self.train_dataset):
            raise ValueError(
                f"halve_from_epoch is {self.args.halve_from_epoch}, but train_dataset is an IterableDataset, whose "
                "epochs have no known length; leave it out and choose an lr_scheduler_type."
            )
        batches_per_update = self.args.world_size * self.args.gradient_accumulation_steps
        factor = partial(
            halving_factor,
            updates_per_epoch=-(-len(self._make_batch_sampler()) // batches_per_update),  # rounded up
            halve_from_epoch=self.args.halve_from_epoch,
            warmup_updates=self.args.get_warmup_steps(num_training_steps),
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        self.own_scheduler(scheduler)
        return scheduler

    def training_step(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *arguments: Any) -> torch.Tensor:
        """Transformers' forward and backward pass of one batch, whose documents are counted and whose loss is kept."""
        loss = super().training_step(model, inputs, *arguments)
        self._update_losses.append(loss)
        self.trained_documents += len(next(iter(inputs.values()))) * self.args.world_size
        return loss

    def gradient_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm, which Transformers asks for before each update; then clips its elements if asked to.

        Raises:
            FloatingPointError: On all processes, if the loss of one or the gradient is not finite. Nothing has been
                updated with them then.
        """
        grad_norm = super().gradient_norm(model, grad_norm)
        losses = self.accelerator.gather(torch.stack(self._update_losses).sum()[None])  # (processes)
        self._update_losses.clear()
        # In fp16 the loss scaler skips updates whose gradient is too large.
        if losses.isfinite().all() and (self.args.fp16 or math.isfinite(grad_norm)):
            if self.args.clip_grad_value is not None:
                # One by one, since what PyTorch does with several at once does not know parts of sharded gradients.
                clip_grad_value_(model.parameters(), self.args.clip_grad_value, foreach=False)
            return grad_norm
        model.zero_grad()
        folder = self.training_folder()
        saved = "No checkpoint has been saved yet."
        if has_complete_checkpoint(folder):
            saved = f"The last good checkpoint is {last_complete_checkpoint(folder)}."
        raise FloatingPointError(
            f"update {self.state.global_step + 1}: the loss is {losses.mean().item():g} and its gradient's norm "
            f"{float(grad_norm):g}, which must both be finite, so training has stopped before this update. {saved} "
            "Try a lower learning_rate, warm-up, a smaller max_grad_norm or precision fp32; if it is the first "
            "update, look for weights that are not finite."
        )

    @flushed_denormals()
    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, **keywords: Any
    ) -> TrainOutput:
        """Train, and end with the best checkpoint's weights and label threshold if `load_best_model_at_end`.

        Args:
            resume_from_checkpoint: A checkpoint folder to resume from, or True for the newest complete one.
            trial: The trial of a search that this training is.
            **keywords: Passed to `Trainer.train`.

        Raises:
            FileExistsError: If another process trains in `output_dir`, or a trial's folder has files.
            FileNotFoundError: If there is no complete checkpoint to resume from.
            FloatingPointError: At the first update whose loss or gradient is not finite.
            Interrupted: At Ctrl-C or SIGTERM, after a checkpoint; it ends the process with status 130 or 143.
            ValueError: If the checkpoint named is incomplete, or is of other data, labels or settings; or if saving or
                evaluating would refuse the model's generation config.
        """
        self.evaluation_seconds, self.trained_documents = 0.0, 0
        self.results = {}
        self._update_losses.clear()
        if self.model_init is None:
            self._token_ids = token_ids(self.model)
        self._num_untrained_labels: int | None = None  # known once the model is there
        transformers_logger = logging.getLogger("transformers.trainer_utils")
        transformers_logger.addFilter(says_nothing_of_token_ids)
        try:
            output = super().train(resume_from_checkpoint, trial, **keywords)
        finally:
            transformers_logger.removeFilter(says_nothing_of_token_ids)
            # It failed before the first update: nothing is trained.
            if self.state.global_step == 0 and self._num_untrained_labels is not None:
                self.model.config.num_untrained_labels = self._num_untrained_labels
        self._add_speed(output.metrics)
        best = self.state.best_model_checkpoint
        if self.args.load_best_model_at_end and best is not None:
            # Transformers reloads the weights only; the threshold belongs to them.
            self.model.generation_config.label_threshold = GenerationConfig.from_pretrained(best).label_threshold
            records = [r for r in epoch_history(self.state.log_history) if r["step"] == self.state.best_global_step]
            for prefix in evaluation_sets(self.eval_dataset, "eval"):
                self._keep_results(prefix, records[-1] if records else {})
        if self.args.objective is not None:
            self.calibrate()
        return output

    def call_model_init(self, trial: Any = None) -> PreTrainedModel:
        """Make the model by `model_init`, and note its token ids."""
        model = super().call_model_init(trial)
        self._token_ids = token_ids(model)
        return model

    def set_up_training(self, trial: Any) -> None:
        """As Transformers'; then check whether this model can be trained, evaluated and saved with these settings."""
        for config, ids in self._token_ids:  # Transformers has taken the tokenizer's words for label ids
            for name in TOKEN_IDS:
                vars(config).pop(name, None)
            vars(config).update(ids)
        super().set_up_training(trial)
        self._num_untrained_labels = self.model.config.num_untrained_labels
        if self._has_own_collator and self.model_init is not None:
            self.data_collator = self._make_collator()
        self._loss_arguments = self._make_loss_arguments()
        self._check_metric()
        self._check_generation()

    def _check_metric(self) -> None:
        """Refuse a `metric_for_best_model` that evaluation will not report, or cannot for want of labels."""
        metric = self.args.metric_for_best_model
        if metric is None or self.args.eval_strategy == "no" or self.eval_dataset is None:
            return
        labelled = {  # whether a metric's data set has labels
            f"{prefix}_{name}".removeprefix("eval_"): "labels" in dataset.column_names
            for prefix, dataset in evaluation_sets(self.eval_dataset, "eval").items()
            for name in self.metric_names()
        }
        name = metric.removeprefix("eval_")
        if name not in labelled and self.compute_metrics is None:  # what that reports is seen at the first evaluation
            like = get_close_matches(name.lower(), labelled, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(like)}? " if like else ""
            raise ValueError(
                f"metric_for_best_model is {metric!r}, which evaluation does not report; {hint}It reports "
                f"{', '.join(labelled)}."
            )
        if not labelled.get(name, True):
            raise ValueError(
                f"metric_for_best_model is {metric!r}, but the eval_dataset has no labels to compute it from; give it "
                "labels, or set eval_strategy to 'no'."
            )

    def _check_generation(self) -> None:
        """Save the generation config and generate for a document of one word, as this training will at its end."""
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
        one = Dataset.from_dict({"input_ids": [[self.model.config.vocab_size - 1]], "length": [1]})
        if self.model.encoder.main_input_name != "input_ids" and self.train_dataset is not None:
            one = self.train_dataset.select([0])
        with torch.random.fork_rng():  # a model that samples draws from the training's random numbers
            predictions = self.generate_predictions(one, "Checking")
        for set_decoding in (None, *SET_DECODINGS):
            self.label_sets(predictions, set_decoding)

    def _keep_results(self, prefix: str, metrics: dict[str, Any]) -> None:
        """Keep the metrics of a split, "validation" if they come from `evaluate`, for the model card."""
        split = {"eval": "validation"}.get(prefix, prefix.removeprefix("eval_"))
        own = {name.removeprefix(f"{prefix}_"): value for name, value in metrics.items() if name.startswith(prefix)}
        self.results[split] = own

    def _add_speed(self, metrics: dict[str, float]) -> None:
        """Add the time spent on evaluation, and the documents per second of the rest, to the training's metrics."""
        seconds = metrics["train_runtime"] - self.evaluation_seconds
        del metrics["train_samples_per_second"]  # of batches that are all as large as they may be
        metrics["train_evaluation_seconds"] = round(self.evaluation_seconds, 3)
        metrics["train_documents_per_second"] = round(self.trained_documents / max(seconds, 1e-9), 2)

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], dict[str, float]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] | None = None,
        **keywords: Any,
    ) -> BestRun | list[BestRun]:
        """Search for the best settings, as Transformers does, each trial in a folder of its own, `run-N`.

        A trial whose loss is not finite raises FloatingPointError; with Optuna, `catch=(FloatingPointError,)` goes on.

        Args:
            hp_space: Gives the settings of a trial; default Transformers' for the backend.
            compute_objective: What is optimised, of the metrics of an evaluation; default `metric_for_best_model`.
            n_trials: Number of trainings.
            direction: "minimize" or "maximize"; default that in which `metric_for_best_model` is better.
            **keywords: Passed to `Trainer.hyperparameter_search`, such as `backend="optuna"`.
        """
        metric = (self.args.metric_for_best_model or "loss").removeprefix("eval_")
        default_direction = "maximize" if self.args.greater_is_better else "minimize"
        return super().hyperparameter_search(
            hp_space,
            compute_objective or (lambda metrics: metrics[f"eval_{metric}"]),
            n_trials,
            direction or default_direction,
            **keywords,
        )

    # ---- evaluation ----

    def generate_predictions(self, dataset: Dataset, description: str = "Generating") -> LabelPredictions:
        """What is needed for the sets of each set decoding of every document, in the data set's order."""
        return generate_predictions(self.model, dataset, **self._generation_settings(description))

    def generate_hypotheses(self, dataset: Dataset, description: str = "Generating") -> LabelHypotheses:
        """What beam search finds for every document, in the data set's order."""
        return generate_hypotheses(self.model, dataset, **self._generation_settings(description))

    def _generation_settings(self, description: str) -> dict[str, Any]:
        """How a data set is generated for."""
        shown = self.is_world_process_zero()
        beams = self.args.generation_num_beams
        return {
            "max_tokens": self.args.max_tokens_per_eval_batch,
            "max_documents": self.args.per_device_eval_batch_size,
            "bf16": self.args.bf16,
            "show_progress": not self.args.disable_tqdm and shown,
            "show_lines": self.args.disable_tqdm and shown,
            "description": description,
        } | ({} if beams is None else {"num_beams": beams})

    def fit_label_threshold(self, dataset: Dataset | None = None) -> float:
        """Fit the label threshold and store it in the model's generation config.

        Args:
            dataset: Encoded documents that are neither trained nor reported on; default `threshold_dataset`.

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
        eval_dataset: Dataset | dict[str, Dataset] | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Generate labels for a data set, or several, and compare them with the true ones.

        Args:
            eval_dataset: Encoded documents, a dictionary of such data sets, or the key of one in the trainer's
                dictionary; default the trainer's `eval_dataset`.
            ignore_keys: Not used.
            metric_key_prefix: Put before each metric's name, and before the key of one of several data sets.

        Returns:
            The metrics of each set decoding (`eval_best_sequence_micro_f1`, `eval_threshold_micro_f1`, …; with a
            `label_hierarchy` in the generation config `eval_best_sequence_hierarchical_f1`, … too), those of the
            decoding that the generation config chooses also without its name (`eval_micro_f1`, …), its F1 by the
            labels' number of training documents where it is known (`eval_micro_f1_1_to_9`, see
            `sgm_hf.metrics.f1_by_frequency`), those of the label scores (`eval_ece`, …, see
            `sgm_hf.metrics.compute_score_metrics`) and of their ranking (`eval_lrap`, …, see
            `sgm_hf.metrics.compute_ranking_metrics`), those of `compute_metrics`, the threshold, and the speed. Where
            the data has labels also `eval_loss`, see `mean_token_loss`, and unless training shuffles them or none is
            found `eval_position_deviation` of the best sequences, see `sgm_hf.metrics.mean_position_deviation`.

        Raises:
            ValueError: If there is no data to evaluate on.
        """
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]
        if dataset is None:
            raise ValueError("SGMTrainer has no eval_dataset; pass one to evaluate.")
        start = time.perf_counter()
        if self.is_in_train and self.args.objective is not None:
            self.calibrate()
        elif self.is_in_train and self.threshold_dataset is not None:
            self.fit_label_threshold()
        metrics: dict[str, float] = {}
        for prefix, part in evaluation_sets(dataset, metric_key_prefix).items():
            output = self._predict(part, "Evaluating", prefix)
            if output.references is not None:
                output.metrics[f"{prefix}_loss"] = mean_token_loss(
                    self.model,
                    part,
                    max_tokens=self.args.max_tokens_per_eval_batch,
                    max_documents=self.args.per_device_eval_batch_size,
                    bf16=self.args.bf16,
                )
            self._keep_results(prefix, output.metrics)
            metrics |= output.metrics
        if self.is_in_train:
            self.evaluation_seconds += time.perf_counter() - start
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def metric_names(self) -> list[str]:
        """The names of what `evaluate` reports on any labelled documents, without the prefix.

        A subclass that reports more adds their names, so that `metric_for_best_model` can be one of them.
        """
        nothing = np.zeros((1, 1), dtype=bool)
        names = list(compute_metrics(nothing, nothing))
        if self.label_parents(self.model.config.num_labels) is not None:
            names += HIERARCHICAL_METRICS
        of_decodings = [f"{decoding}_{name}" for decoding in SET_DECODINGS for name in names]
        counts = self.training_counts()
        bands = frequency_bands(counts) if counts is not None else {}
        of_bands = [f"{average}_f1_{band}" for band in bands for average in ("micro", "macro")]
        last = ("label_threshold", "runtime", "documents_per_second")
        return ["loss", *names, *of_decodings, *SCORE_METRICS, *RANKING_METRICS, *of_bands, *last]

    def label_parents(self, num_columns: int) -> np.ndarray | None:
        """The parent of each label under the generation config's hierarchy, (num_columns) int64, -1 for none.

        Columns from L on are of labels that the model does not know. None without a hierarchy.
        """
        parents = self.model.label_constraints().parents
        if parents is None:
            return None
        known = parents.masked_fill(parents == len(parents), -1).numpy()  # (L)
        return np.pad(known, (0, num_columns - len(known)), constant_values=-1)

    def training_counts(self) -> np.ndarray | None:
        """The training documents of each label, (L), or None where they are not known: no labels, or a stream."""
        dataset = self.train_dataset
        if dataset is None or is_stream(dataset) or "labels" not in dataset.column_names:
            return None
        if self._counted is None or self._counted[0] is not dataset:
            self._counted = dataset, label_counts(dataset["labels"], self.model.config.num_labels)
        return self._counted[1]

    @flushed_denormals()
    def predict(
        self, test_dataset: Dataset, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> SGMPredictionOutput:
        """Generate the labels of a data set, with metrics where it has labels.

        Args:
            test_dataset: Encoded documents.
            ignore_keys: Not used.
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
        """Generate, and compute the metrics where the data has labels."""
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
            metrics = self._order_metrics(predictions, dataset["labels"], prefix)
            metrics |= self._metrics(predictions, references, prefix)
        metrics[f"{prefix}_runtime"] = round(seconds, 3)
        metrics[f"{prefix}_documents_per_second"] = round(len(dataset) / seconds, 1)
        return SGMPredictionOutput(predictions, self.label_sets(predictions), references, metrics)

    def _metrics(self, predictions: LabelPredictions, references: np.ndarray, prefix: str) -> dict[str, float]:
        """The metrics of each set decoding, of the chosen one also under bare names, of the scores, and the user's."""
        scores = predictions.label_scores_of(references.shape[1])  # (N, C)
        values = metrics_of_decodings(
            references,
            {decoding: self.label_sets(predictions, decoding) for decoding in SET_DECODINGS},
            checked_set_decoding(self.model.generation_config.set_decoding),
            scores,
            self.label_parents(references.shape[1]),
            self.training_counts(),
        )
        metrics = {f"{prefix}_{name}": value for name, value in values.items()}
        threshold = self.model.generation_config.label_threshold
        if not isinstance(threshold, list | tuple):  # there may be one per label
            metrics[f"{prefix}_label_threshold"] = float(threshold)
        if self.compute_metrics is not None:
            sets = label_matrix(self.label_sets(predictions), references.shape[1])  # (N, C)
            own = self.compute_metrics(EvalPrediction((sets.astype(np.int64), scores), references.astype(np.int64)))
            own = {f"{prefix}_{name.removeprefix(f'{prefix}_')}": value for name, value in own.items()}
            metrics |= denumpify_detensorize(own)
        return metrics

    def _order_metrics(
        self, predictions: LabelPredictions, labels: Iterable[Sequence[int]], prefix: str
    ) -> dict[str, float]:
        """How far right labels stand from their places in training, if they have one there and there are any."""
        order = self.model.config.label_order
        if order == "shuffled":
            return {}
        references = [target_sequence(list(dict.fromkeys(own)), order) for own in labels]
        deviation = mean_position_deviation(references, predictions.best_sequences)
        return {} if math.isnan(deviation) else {f"{prefix}_position_deviation": deviation}


def token_ids(model: PreTrainedModel) -> list[tuple[Any, dict[str, Any]]]:
    """The configurations of a model that `Trainer.train` changes, and their token ids."""
    configs = (model.config, model.generation_config)
    return [(config, {name: vars(config)[name] for name in TOKEN_IDS if name in vars(config)}) for config in configs]


def says_nothing_of_token_ids(record: logging.LogRecord) -> bool:
    """Whether a log record is another than that of `Trainer.train` changing token ids, which `SGMTrainer` undoes."""
    return not record.getMessage().startswith("The tokenizer has new PAD/BOS/EOS tokens")


def check_encoded(dataset: Any, name: str) -> None:
    """Refuse (ValueError) a data set that lacks the columns of `encode_dataset`, or is an `IterableDataset`."""
    if is_stream(dataset):
        raise ValueError(
            f"{name} is an IterableDataset, which can only be trained on; give a Dataset, such as "
            "Dataset.from_list(list(stream))."
        )
    columns = set() if dataset is None else set(dataset.column_names)
    if dataset is not None and not ("length" in columns and {"input_ids", "pixel_values"} & columns):
        raise ValueError(
            f"{name} has the columns {', '.join(dataset.column_names)}, not input_ids and length; encode it with "
            "sgm_hf.encode_dataset first, images with sgm_hf.encode_images."
        )


def halving_factor(update: int, updates_per_epoch: int, halve_from_epoch: int, warmup_updates: int = 0) -> float:
    """The factor on the learning rate before an update.

    Args:
        update: Updates already made.
        updates_per_epoch: Updates of one epoch.
        halve_from_epoch: Epoch (from 1) at whose end the rate is halved for the first time.
        warmup_updates: First updates, over which the rate grows from 0.

    Examples:
        >>> [halving_factor(epoch * 10, updates_per_epoch=10, halve_from_epoch=2) for epoch in range(4)]
        [1.0, 1.0, 0.5, 0.25]
    """
    if update < warmup_updates:
        return update / warmup_updates
    finished_epochs = update // updates_per_epoch
    return 0.5 ** max(0, finished_epochs - halve_from_epoch + 1)
