"""Settings by the minutes that there are: what `--preset` stands for.

What is given on the command line or in a settings file goes before them. How they were chosen: docs/sizes.md.
"""

from typing import Any

BALANCED: dict[str, Any] = {
    "embedding_size": 160,
    "encoder_hidden_size": 160,
    "encoder_layers": 1,
    "encoder_max_length": 150,
    "decoder_hidden_size": 320,
    "label_feedback": "global_embedding",
    "gate_activation": "sigmoid",
    "word_dropout": 0.1,
    "lexical_branch": True,
    "lexical_bigrams": 100_000,
    "lexical_neighbors": 30,
    "lexical_in_decoder": True,
    "lexical_logit_dropout": 0.15,
    "lexical_dropout": 0.5,
    "label_order": "shuffled",
    "num_train_epochs": 0,  # as many as suit the number of documents
    "learning_rate": 2e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0.05,
    "max_grad_norm": 2.0,
    "per_device_train_batch_size": 48,
    "max_tokens_per_batch": 6_000,
    "precision": "auto",
    "eval_strategy": "no",
    "objective": "micro_f1",
}
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "fast": BALANCED
    | {"embedding_size": 128, "encoder_hidden_size": 128, "encoder_max_length": 100, "decoder_hidden_size": 256},
    "balanced": BALANCED,
    "best": BALANCED | {"num_models": 3},
}
DEFAULT_PRESET = "balanced"
# Settings of a preset that are not taken where the user switches off what they are about.
DEPENDENT: dict[str, tuple[str, ...]] = {
    "lexical_branch": (
        "lexical_bigrams",
        "lexical_neighbors",
        "lexical_in_decoder",
        "lexical_logit_dropout",
        "lexical_dropout",
    ),
    "lexical_in_decoder": ("lexical_logit_dropout", "lexical_dropout"),
}
# Of `num_train_epochs` 0: this many for so many documents, fewer for more by their square root, within bounds.
EPOCHS, DOCUMENTS, MOST_EPOCHS, FEWEST_EPOCHS = 12, 8_000, 30, 2
SHARES = {"fast": 0.5}


def suitable_epochs(num_documents: int, preset: str | None) -> float:
    """The passes over so many training documents that `--num_train_epochs 0` stands for.

    Examples:
        >>> [suitable_epochs(count, "balanced") for count in (500, 8_000, 40_000, 1_000_000)]
        [30.0, 12.0, 5.0, 2.0]
    """
    epochs = EPOCHS * (DOCUMENTS / max(1, num_documents)) ** 0.5 * SHARES.get(preset or "", 1.0)
    return float(round(min(MOST_EPOCHS, max(FEWEST_EPOCHS, epochs))))
