import pytest

from sgm_hf.training import SGMTrainingArguments


@pytest.fixture
def arguments(tmp_path):
    """Makes training arguments for a short, quiet training in a temporary folder."""

    def make(folder: str = "run", **settings) -> SGMTrainingArguments:
        defaults = {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "learning_rate": 5e-3,
            "disable_tqdm": True,
            "seed": 7,
        }
        return SGMTrainingArguments(output_dir=str(tmp_path / folder), **(defaults | settings))

    return make
