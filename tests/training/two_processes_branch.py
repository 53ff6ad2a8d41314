"""Used by two_processes.py in each of two processes: train with a lexical branch, calibrate, and compare the two."""

from typing import Any

from accelerate.utils import gather_object
from tiny_training import make_documents, make_model

from sgm_hf.training import SGMTrainer, SGMTrainingArguments


def train_with_branch(folder: str) -> list[dict[str, Any]]:
    """What each process has of the branch, its folds and the calibration."""
    arguments = SGMTrainingArguments(
        folder,
        num_train_epochs=1,
        per_device_train_batch_size=8,
        lexical_cost=1.0,
        lexical_bigram_weight=0.5,
        eval_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    model = make_model(lexical_branch=True, lexical_bigrams=20, lexical_in_decoder=True)
    data = {"train_dataset": make_documents(61), "eval_dataset": make_documents(31, seed=1)}
    trainer = SGMTrainer(model, arguments, **data)
    trainer.train()
    fitted = {objective: trainer.calibrate(objective=objective) for objective in ("exact_match", "macro_f1")}
    settings = trainer.model.generation_config
    mine = {
        "folds": trainer.lexical_fit.folds.tolist(),
        "branch": {name: tensor.tolist() for name, tensor in trainer.model.lexical.state_dict().items()},
        "decoder": trainer.model.decoder.lexical.label_scale.tolist(),
        "fitted": fitted,
        "thresholds": settings.label_threshold,
        "calibration": settings.label_calibration,
    }
    return gather_object([mine])
