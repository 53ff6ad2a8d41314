"""The settings of a training."""

import sys
from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

from sgm_hf.metrics.calibration import SCORE_METRICS
from sgm_hf.metrics.ranking import RANKING_LOSSES
from sgm_hf.training.checkpoints import chosen_checkpoint
from sgm_hf.training.imbalance import read_label_weights
from sgm_hf.training.machine import PRECISIONS, choose_precision
from sgm_hf.training.priors import read_label_frequencies

OBJECTIVES = ("micro_f1", "macro_f1", "exact_match", "hamming", "expected_f1")
LABEL_LOSSES = ("cross_entropy", "binary_cross_entropy")


@dataclass
class SGMTrainingArguments(TrainingArguments):
    """Transformers' `TrainingArguments` with the defaults of the SGM paper and the settings of `SGMTrainer`.

    Listed are the settings that `TrainingArguments` does not have, and those whose default or meaning differs here.
    Paper: Yang et al. 2018, section 3.3.

    Args:
        per_device_train_batch_size: Most documents in a training batch.
        per_device_eval_batch_size: Most documents in a batch of generation.
        max_tokens_per_batch: Most words in a training batch, padding included.
        max_tokens_per_eval_batch: The same for generation.
        num_train_epochs: Passes over the training documents.
        learning_rate: Of Adam (paper), which is Transformers' AdamW without `weight_decay`.
        encoder_learning_rate: Of the encoder, such as a pre-trained one, which takes lower rates; default
            `learning_rate`.
        layerwise_lr_decay: Learning rate of each layer of the encoder as a part of that of the layer above.
        max_grad_norm: Norm to which gradients are clipped (paper); 0 with `clip_grad_value`.
        clip_grad_value: In place of its norm, each element of the gradient is clipped to between minus this and this
            (Lin et al. 2018, section 5.2: 10). The norm that is logged is that of before.
        lr_scheduler_type: A schedule of Transformers.
        halve_from_epoch: The learning rate is halved at the end of this epoch (counted from 1) and of every later
            one, instead of following `lr_scheduler_type`.
        label_smoothing_factor: The share of the target's probability that the model's loss spreads over the labels
            that are still allowed.
        label_loss: Loss of each step: "cross_entropy", or "binary_cross_entropy", which also adds -log(1 - p) of every
            label that is not the step's target (Patel, SGM-MLC).
        label_weights: Factors on the losses of the targets, by label: "none", "balanced" (inverse to the label's
            frequency in the training documents), "effective_number" (Cui et al. 2019), or weights by label name: a
            mapping or a .json file of one, in which a label without an entry has 1. Those made from frequencies have a
            mean of 1 over all targets, and eos has 1. Holds what the file says, not its name.
        effective_number_beta: β of "effective_number", from 0 (as "none") to below 1 (1 would be "balanced").
        repeat_factor_threshold: The share of the training documents below which a label is rare: documents that have
            it come several times in an epoch, √(threshold / share) times on average (Gupta et al. 2019).
        focal_gamma: γ of the focal loss (Lin et al. 2017), which lowers the loss of targets that the model already
            gives a high probability; 0 is none.
        early_stopping_patience: Evaluations without a better `metric_for_best_model` after which training stops.
        generation_num_beams: Beam width of evaluation; default that of the model's generation config.
        metric_for_best_model: Any that `SGMTrainer.evaluate` reports, with or without `eval_`; default that of the set
            decoding which the model's generation config chooses. Of several evaluation sets one by its key, as
            `KEY_micro_f1`.
        greater_is_better: Default: False for a metric whose name ends in "loss" or is an error (`coverage_error`), and
            for those of the label scores (`ece`, `nll`, `brier`, `certain_errors`); True for all others.
        precision: Of multiplication: "fp32", "bf16" (autocast; weights, optimizer and loss stay in fp32), or "auto":
            "bf16" where the device has instructions for it and it works, else "fp32". Where "bf16" cannot run, it is
            "fp32", and a warning says why. Holds what was chosen, never "auto".
        bf16: Transformers' name for the same, which goes before `precision`: True for "bf16", False for "fp32".
        eval_strategy: When to evaluate: "epoch", "steps" or "no".
        save_strategy: When to save a checkpoint: "epoch", "steps", "best" or "no".
        save_total_limit: Checkpoints kept, the best one among them.
        ddp_broadcast_buffers: Whether the first process sends its buffers to the others at every update: those of the
            model, which the lexical branch has, never change.
        do_eval: For programs: whether to evaluate the validation split after training, whether or not training
            evaluates.
        use_cache: Recorded in the model's config.
        logging_steps: Updates between two logs.
        logging_nan_inf_filter: Not used: training stops at a loss that is not finite.
        report_to: Transformers' loggers: "tensorboard", "wandb", "mlflow" or another by name, several in a list, "all"
            for those that are installed, or "none". They get what is logged: loss, gradient norm and learning rate
            every `logging_steps` and before an evaluation, and every metric of each evaluation under its name.
        logging_first_step: Without progress bars, a line is also written where 30 seconds pass without one.
        disable_tqdm: Default: whether the error output is not a terminal.
        load_best_model_at_end: False where `eval_strategy` is "no".
        resume_from_checkpoint: For programs: a checkpoint folder, "true" for the newest complete one of `output_dir`,
            or "false"; kept as the folder, True or None.
        restore_callback_states_from_checkpoint: So that early stopping goes on counting on resume.
        objective: What label sets are to be best at: "micro_f1", "macro_f1", "exact_match", "hamming" or
            "expected_f1"; before each evaluation and at the end, scores and decisions are fitted to it
            (`SGMTrainer.calibrate`). Default: nothing is fitted but the threshold, where there is a
            `threshold_dataset`.
        label_frequencies: The share of documents that has each label where the model is to be used, by name or as a
            .json file of these, if labels are more or less frequent there than in training: calibration then fits
            scores and decisions for these (needs a lexical branch). Labels left out go with those they appear with.
        lexical_cost: C of the lexical branch's linear models; default: what serves best on the documents that
            thresholds are fitted on, else on those of validation, else on a part of those of training.
        lexical_bigram_weight: Weight of its bigrams beside its words; default: 0 or 0.5, chosen likewise.
        lexical_folds: Parts of the training documents, each of which the branch is fitted without, so that training
            sees what it says of documents that it does not know.
        refit_lexical_branch: Whether a branch that was fitted to other documents is fitted to these anew.
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
    encoder_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the encoder. Default: as that of the decoder."}
    )
    layerwise_lr_decay: float = field(
        default=1.0,
        metadata={"help": "Learning rate of each layer of the encoder as a part of that of the layer above."},
    )
    lr_scheduler_type: str = field(default="constant", metadata={"help": "A schedule of Transformers, by name."})
    halve_from_epoch: int | None = field(
        default=None,
        metadata={
            "help": "Halve the learning rate at the end of this epoch (from 1) and of every later one. Default: never."
        },
    )
    max_grad_norm: float = field(default=10.0, metadata={"help": "Norm to which gradients are clipped."})
    clip_grad_value: float | None = field(
        default=None,
        metadata={"help": "Clip each element of the gradient to this size, in place of its norm. Default: the norm."},
    )
    label_weights: dict[str, float] | str | None = field(
        default="none",
        metadata={
            "help": "Weights of labels in the loss: none, balanced, effective_number, or a .json file of label names "
            "and weights."
        },
    )
    effective_number_beta: float = field(
        default=0.999, metadata={"help": "Beta of --label_weights effective_number: 0 is as none, near 1 as balanced."}
    )
    repeat_factor_threshold: float | None = field(
        default=None,
        metadata={
            "help": "Repeat documents of labels that less than this share of the training documents has. Default: no "
            "document."
        },
    )
    label_loss: str = field(
        default="cross_entropy",
        metadata={"help": "Loss of each step: cross_entropy or binary_cross_entropy.", "choices": LABEL_LOSSES},
    )
    focal_gamma: float = field(
        default=0.0, metadata={"help": "Gamma of the focal loss, for targets that are hard to predict; 0: no such."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without a better metric. Default: never."}
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
    greater_is_better: bool | None = field(
        default=None,
        metadata={
            "help": "Whether that metric is to grow; default: unless its name ends in loss, ece, nll, brier, "
            "certain_errors or coverage_error."
        },
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "A checkpoint folder to resume from, true for the newest complete one of the output folder, or "
            "false. Default: false."
        },
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Go on counting early stopping's patience on resume."}
    )
    precision: str = field(
        default="fp32", metadata={"help": "Of multiplication: auto, fp32 or bf16.", "choices": list(PRECISIONS)}
    )
    bf16: bool = field(  # bool also for its parser, which then takes a bare --bf16
        default=None,  # type: ignore[assignment]
        metadata={"help": "true for --precision bf16, false for fp32; default as --precision says."},
    )
    disable_tqdm: bool | None = field(
        default=None, metadata={"help": "No progress bars; default: none where the error output is no terminal."}
    )
    ddp_broadcast_buffers: bool | None = field(
        default=False, metadata={"help": "Send buffers to all processes at each update; ours never change."}
    )
    label_frequencies: dict[str, float] | str | None = field(
        default=None,
        metadata={
            "help": "A .json file of label names and the share of documents that has each, where these differ from "
            "those of the training documents; scores and decisions are fitted for them. No default."
        },
    )
    objective: str | None = field(
        default=None,
        metadata={
            "help": "What label sets are to be best at; scores and decisions are fitted to it. Default: nothing is "
            "fitted but the threshold of a threshold split.",
            "choices": list(OBJECTIVES),
        },
    )
    lexical_cost: float | None = field(
        default=None, metadata={"help": "C of the lexical branch. Default: chosen on held-out documents."}
    )
    lexical_bigram_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the lexical branch's bigrams beside its words. Default: 0 or 0.5, chosen on held-out "
            "documents."
        },
    )
    lexical_folds: int = field(
        default=5,
        metadata={"help": "Parts of the training documents, each of which the lexical branch is fitted without."},
    )
    refit_lexical_branch: bool = field(
        default=False, metadata={"help": "Fit the branch of a model that was trained on other documents anew."}
    )
    do_eval: bool = field(default=False, metadata={"help": "Evaluate the validation split."})
    use_cache: bool = field(default=True, metadata={"help": "Recorded in the model's config; decoding needs it."})
    logging_first_step: bool = field(default=True, metadata={"help": "Also log the first update."})
    logging_steps: float = field(default=100, metadata={"help": "Updates between two lines of training loss."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Not used: training stops at a loss that is not finite."}
    )
    report_to: None | str | list[str] = field(
        default="none", metadata={"help": "Loggers of Transformers to report to."}
    )

    def __post_init__(self) -> None:
        """Check our settings (ValueError), and choose the device and the precision."""
        batch_sizes = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
        for name in ("max_tokens_per_batch", "max_tokens_per_eval_batch", *batch_sizes):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("halve_from_epoch", "early_stopping_patience", "generation_num_beams"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1, or left out.")
        if self.early_stopping_patience is not None and self.eval_strategy == "no":
            raise ValueError(
                f"early_stopping_patience is {self.early_stopping_patience}, but training evaluates nothing; set "
                "eval_strategy to epoch or steps, or leave early_stopping_patience out."
            )
        if self.objective not in (None, *OBJECTIVES):
            raise ValueError(f"objective is {self.objective!r}; choose one of {', '.join(OBJECTIVES)}.")
        if not 0.0 <= self.label_smoothing_factor < 1.0:
            raise ValueError(f"label_smoothing_factor is {self.label_smoothing_factor}; it must be in [0, 1).")
        if self.label_loss not in LABEL_LOSSES:
            raise ValueError(f"label_loss is {self.label_loss!r}; choose one of {', '.join(LABEL_LOSSES)}.")
        if self.encoder_learning_rate is not None and not 0.0 < self.encoder_learning_rate < float("inf"):
            raise ValueError(f"encoder_learning_rate is {self.encoder_learning_rate}; it must be above 0.")
        if not 0.0 < self.layerwise_lr_decay <= 1.0:
            raise ValueError(f"layerwise_lr_decay is {self.layerwise_lr_decay}; it must be in (0, 1].")
        self._check_rare_labels()
        self._choose_clipping()
        if not torch.accelerator.is_available():
            self.use_cpu = True
        self.label_frequencies = read_label_frequencies(self.label_frequencies)
        self._choose_precision()
        self.resume_from_checkpoint = chosen_checkpoint(self.resume_from_checkpoint) or None  # type: ignore[assignment]
        if self.disable_tqdm is None:
            self.disable_tqdm = not sys.stderr.isatty()
        if self.eval_strategy == "no":
            self.load_best_model_at_end = False  # nothing says which is best
        of_scores = tuple(f"_{name}" for name in (*SCORE_METRICS, *RANKING_LOSSES))
        if self.greater_is_better is None and f"_{self.metric_for_best_model}".endswith(of_scores):
            self.greater_is_better = False  # Transformers knows it only of names that end in "loss"
        # It also sets do_eval wherever training evaluates; the command line must keep what the user asked for.
        do_eval = self.do_eval
        super().__post_init__()
        self.do_eval = do_eval
        # Batches differ in size; LengthBucketBatchSampler already deals each process as many.
        self.accelerator_config.even_batches = False

    def _check_rare_labels(self) -> None:
        """Check the settings for rare labels, and read the weights."""
        self.label_weights = read_label_weights(self.label_weights)
        if not 0.0 <= self.effective_number_beta < 1.0:
            raise ValueError(f"effective_number_beta is {self.effective_number_beta}; it must be in [0, 1).")
        if self.repeat_factor_threshold is not None and not 0.0 < self.repeat_factor_threshold <= 1.0:
            raise ValueError(
                f"repeat_factor_threshold is {self.repeat_factor_threshold}; it must be in (0, 1], or left out."
            )
        if not 0.0 <= self.focal_gamma < float("inf"):
            raise ValueError(f"focal_gamma is {self.focal_gamma}; it must be a finite number from 0 on.")

    def _choose_clipping(self) -> None:
        """Leave the norm of gradients as it is where their elements are clipped."""
        if self.clip_grad_value is None:
            return
        if not 0.0 < self.clip_grad_value < float("inf"):
            raise ValueError(f"clip_grad_value is {self.clip_grad_value}; it must be above 0, or left out.")
        if self.max_grad_norm not in (0.0, type(self).max_grad_norm):
            raise ValueError(
                f"clip_grad_value is {self.clip_grad_value} and max_grad_norm {self.max_grad_norm}, but gradients are "
                "clipped by one of both; leave one out, or set max_grad_norm to 0."
            )
        if self.deepspeed is not None:
            raise ValueError(
                f"clip_grad_value is {self.clip_grad_value}, but DeepSpeed clips gradients by their norm only; set "
                "max_grad_norm."
            )
        self.max_grad_norm = 0.0

    def _choose_precision(self) -> None:
        """Set `precision` and `bf16` to what will run."""
        accelerator = None if self.use_cpu else torch.accelerator.current_accelerator()
        device_type = "cpu" if accelerator is None else accelerator.type
        if self.fp16 and device_type == "cpu":
            raise ValueError("fp16 is True, but a CPU does not train in it; leave it out and set precision to 'auto'.")
        if self.fp16:
            self.precision, self.bf16 = "fp16", bool(self.bf16)  # both is refused by Transformers
            return
        asked = self.precision if self.bf16 is None else ("bf16" if self.bf16 else "fp32")
        self.precision = choose_precision(asked, device_type)
        self.bf16 = self.precision == "bf16"
