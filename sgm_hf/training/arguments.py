"""The settings of a training."""

import sys
from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available


@dataclass
class SGMTrainingArguments(TrainingArguments):
    """Transformers' `TrainingArguments` with the defaults of the SGM paper and the settings of `SGMTrainer`.

    Only what differs from `TrainingArguments` is listed. Paper: Yang et al. 2018, section 3.3.

    Args:
        per_device_train_batch_size: Greatest number of documents in a batch; default 64.
        per_device_eval_batch_size: Greatest number of documents in a batch of generation; default 256.
        max_tokens_per_batch: Greatest number of words in a training batch, padding included; default 16,384.
        max_tokens_per_eval_batch: The same for generation; default 32,768.
        learning_rate: Of Adam; default 1e-3 (paper).
        optim: Default Adam as PyTorch has it, with no weight decay.
        max_grad_norm: Norm to which gradients are clipped; default 10 (paper).
        lr_scheduler_type: Default "constant".
        halve_from_epoch: The learning rate is halved at the end of this epoch (counted from 1) and of every later
            one; it replaces `lr_scheduler_type`. Default None: not halved.
        label_smoothing_factor: Given to the model, which spreads this share of the target's probability over the
            labels that are still allowed; default 0.
        early_stopping_patience: Evaluations without a better `metric_for_best_model` after which training stops;
            default None: never.
        generation_num_beams: Beam width of evaluation; default None: the model's generation config.
        metric_for_best_model: Default "micro_f1", of the set decoding the model's generation config chooses.
        disable_tqdm: Default: whether the error output is not a terminal.
        load_best_model_at_end: Default True; False where `eval_strategy` is "no".
        restore_callback_states_from_checkpoint: Default True, so that early stopping goes on counting on resume.
    """

    per_device_train_batch_size: int = field(default=64, metadata={"help": "Most documents in a training batch."})
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "Most documents in an evaluation batch."})
    max_tokens_per_batch: int = field(
        default=16384, metadata={"help": "Most words in a training batch, padding included."}
    )
    max_tokens_per_eval_batch: int = field(
        default=32768, metadata={"help": "Most words in an evaluation batch, padding included."}
    )
    num_train_epochs: float = field(default=10.0, metadata={"help": "Passes over the training documents."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Learning rate of Adam."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "A schedule of Transformers, by name."})
    halve_from_epoch: int | None = field(
        default=None,
        metadata={"help": "Halve the learning rate at the end of this epoch (from 1) and of every later one."},
    )
    max_grad_norm: float = field(default=10.0, metadata={"help": "Norm to which gradients are clipped."})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without a better metric."}
    )
    generation_num_beams: int | None = field(
        default=None, metadata={"help": "Beam width in evaluation; default that of the model's generation config."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: no, steps or epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: no, steps, epoch or best."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept, the best one among them."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best checkpoint's weights."})
    metric_for_best_model: str | None = field(
        default="micro_f1", metadata={"help": "Evaluation metric that chooses the best checkpoint."}
    )
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether that metric is to grow."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Go on counting early stopping's patience on resume."}
    )
    disable_tqdm: bool | None = field(
        default=None, metadata={"help": "No progress bars; default: none where the error output is no terminal."}
    )
    do_eval: bool = field(default=False, metadata={"help": "Evaluate the validation split."})
    use_cache: bool = field(default=True, metadata={"help": "Recorded in the model's config; decoding needs it."})
    logging_steps: float = field(default=100, metadata={"help": "Updates between two lines of training loss."})
    report_to: None | str | list[str] = field(
        default="none", metadata={"help": "Loggers of Transformers to report to."}
    )

    def __post_init__(self) -> None:
        """Check our settings and choose the device.

        Raises:
            ValueError: If a setting is out of its range.
        """
        for name in ("max_tokens_per_batch", "max_tokens_per_eval_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("halve_from_epoch", "early_stopping_patience", "generation_num_beams"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1, or left out.")
        if not 0.0 <= self.label_smoothing_factor < 1.0:
            raise ValueError(f"label_smoothing_factor is {self.label_smoothing_factor}; it must be in [0, 1).")
        # Transformers refuses bf16 without a GPU that has it unless told to use the CPU.
        if not torch.accelerator.is_available() or (self.bf16 and not is_torch_bf16_gpu_available()):
            self.use_cpu = True
        if self.disable_tqdm is None:
            self.disable_tqdm = not sys.stderr.isatty()
        if self.eval_strategy == "no":
            self.load_best_model_at_end = False  # nothing says which is best
        # It also sets do_eval wherever training evaluates; the command line must keep what the user asked for.
        do_eval = self.do_eval
        super().__post_init__()
        self.do_eval = do_eval
        # Batches differ in size; LengthBucketBatchSampler already deals each process as many.
        self.accelerator_config.even_batches = False
