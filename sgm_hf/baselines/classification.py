"""Training of networks that give each label a probability of its own.

Shapes: N documents, L labels.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerControl,
)
from transformers.trainer_utils import TrainOutput

from sgm_hf.data.batching import LengthBucketBatchSampler
from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.data.labels import label_matrix
from sgm_hf.metrics import compute_metrics, fit_threshold
from sgm_hf.training.arguments import SGMTrainingArguments
from sgm_hf.training.callbacks import BarCallback, EpochCallback, LineCallback
from sgm_hf.training.machine import autocast, flushed_denormals
from sgm_hf.training.prediction import evaluation_batches, gather_rows
from sgm_hf.training.progress import shown_progress
from sgm_hf.training.resuming import ResumableTrainer


class MultiHotCollator(MultiLabelCollator):
    """Pads the documents of a batch, with a column of 0 and 1 for each label."""

    def __call__(self, documents: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate B encoded documents.

        Returns:
            The tensors of `pad_texts`; where the documents have labels `labels`, (B, L) float32.
        """
        batch = self.pad_texts(documents)
        if "labels" in documents[0]:
            sets = [document["labels"] for document in documents]
            batch["labels"] = torch.from_numpy(label_matrix(sets, self.num_labels)).float()
        return batch


def make_collator(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> MultiHotCollator:
    """The collator of a network's batches."""
    pad_token_type_id = getattr(tokenizer, "pad_token_type_id", 0)
    return MultiHotCollator(tokenizer.pad_token_id, model.config.num_labels, pad_token_type_id=pad_token_type_id)


class ClassificationTrainer(ResumableTrainer):
    """A Transformers `Trainer` for networks of independent labels, on the batches that SGM models are trained on.

    It evaluates by the micro-F1 of the best single threshold on the evaluation documents themselves
    (`eval_micro_f1`), since thresholds are fitted there after the training, too. Checkpoints, resuming and signals are
    those of `SGMTrainer`.

    Args:
        model: Gives logits (B, L), and a loss for `labels` (B, L).
        args: The settings.
        train_dataset: Documents of `encode_dataset`.
        eval_dataset: Others, to evaluate on.
        processing_class: The tokenizer, saved with each checkpoint.
    """

    control: TrainerControl
    threshold_dataset = None

    def __init__(
        self,
        model: PreTrainedModel,
        args: SGMTrainingArguments,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        processing_class: PreTrainedTokenizerBase,
    ):
        super().__init__(
            model=model,
            args=args,
            data_collator=make_collator(model, processing_class),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
        )
        self.train_batch_sampler: LengthBucketBatchSampler | None = None
        self.trained_documents = 0  # by all processes in this training
        self.evaluation_seconds = 0.0
        self.resumptions = []
        self.last_loss: torch.Tensor | None = None
        # The loss is a mean over a batch, whatever arguments `forward` takes.
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.add_callback(LineCallback(self) if args.disable_tqdm else BarCallback())
        self.add_callback(EpochCallback(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def get_train_dataloader(self) -> DataLoader:
        """The training batches, of documents of similar length, dealt to the processes."""
        self.train_batch_sampler = LengthBucketBatchSampler(
            self.train_dataset["length"],
            self.args.max_tokens_per_batch,
            self.batch_size,
            seed=self.args.seed,
            multiple_of=self.args.world_size,
        )
        loader = DataLoader(self.train_dataset, batch_sampler=self.train_batch_sampler, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *arguments: Any) -> torch.Tensor:
        """Transformers' forward and backward pass of one batch, whose documents are counted."""
        self.last_loss = super().training_step(model, inputs, *arguments)
        self.trained_documents += len(inputs["input_ids"]) * self.args.world_size
        return self.last_loss

    def gradient_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm, which Transformers asks for before each update.

        Raises:
            FloatingPointError: If it is not finite. Nothing has been updated with the gradient then.
        """
        grad_norm = super().gradient_norm(model, grad_norm)
        if not math.isfinite(grad_norm):
            model.zero_grad()
            raise FloatingPointError(
                f"update {self.state.global_step + 1}: the loss is {self.last_loss:g} and its gradient's norm "
                f"{float(grad_norm):g}, which must be finite, so training has stopped before this update; try a lower "
                "learning_rate or precision fp32."
            )
        return grad_norm

    @flushed_denormals()
    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, **keywords: Any
    ) -> TrainOutput:
        """Train, and end with the weights of the best evaluation; arguments and errors as of `SGMTrainer.train`."""
        self.trained_documents, self.evaluation_seconds = 0, 0.0
        return super().train(resume_from_checkpoint, trial, **keywords)

    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score the evaluation documents and compare the best sets that one threshold makes with the true ones.

        Args:
            eval_dataset: Documents of `encode_dataset` with labels; default the trainer's.
            ignore_keys: Not used.
            metric_key_prefix: Put before each metric's name.

        Returns:
            The metrics of `compute_metrics`, the threshold, and the seconds that it took.
        """
        start = time.perf_counter()
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        scores = predict_scores(
            self.model,
            dataset,
            self.processing_class,
            self.args.bf16,
            self.args.max_tokens_per_eval_batch,
            self.args.per_device_eval_batch_size,
            "Evaluating",
        )
        references = label_matrix(dataset["labels"], self.model.config.num_labels)
        threshold = fit_threshold(references, scores)
        values = compute_metrics(references, scores >= np.float32(threshold))
        seconds = time.perf_counter() - start
        self.evaluation_seconds += seconds
        values |= {"label_threshold": threshold, "runtime": seconds}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


@flushed_denormals()
def predict_scores(
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    bf16: bool = False,
    max_tokens: int = 32768,
    max_documents: int = 256,
    description: str = "Predicting",
) -> np.ndarray:
    """The probability of each label of encoded documents.

    Args:
        model: Gives logits (B, L).
        dataset: Documents of `encode_dataset`.
        tokenizer: The model's.
        bf16: Whether to multiply in bfloat16 (autocast).
        max_tokens: Most words of a batch, padding included.
        max_documents: Most documents of a batch.
        description: Title of the progress shown.

    Returns:
        (N, L) float32; 0 for a document without words.
    """
    collate = make_collator(model, tokenizer)
    rows: list[tuple[int, np.ndarray]] = []
    with (
        evaluation_batches(model, dataset, max_tokens, max_documents) as batches,
        shown_progress(sum(map(len, batches)), description) as progress,
    ):
        for batch in batches:
            inputs = collate.pad_texts(dataset.__getitems__(batch))
            inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
            with torch.no_grad(), autocast(model.device, bf16):
                logits = model(**inputs).logits  # (B, L)
            rows += zip(batch, logits.float().sigmoid().cpu().numpy(), strict=True)
            progress.update(len(batch))
    scores = np.zeros((len(dataset), model.config.num_labels), dtype=np.float32)
    for row, values in gather_rows(rows):
        scores[row] = values
    return scores
