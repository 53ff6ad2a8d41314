"""That Transformers comes by way of our public names; `tests/test_private_names.py` checks the private ones."""

from tiny_training import make_documents, make_model

from sgm_hf.training import SGMTrainer, SGMTrainingArguments


def test_transformers_calls_what_the_trainers_extend(tmp_path):
    """Each step has its public name where Transformers comes to it, in its order."""
    steps = ["set_up_training", "start_state", "count_items", "gradient_norm"]
    steps += ["save_checkpoint", "save_files", "save_random_states", "load_optimizer_and_scheduler"]
    called = []
    settings = {"num_train_epochs": 1, "eval_strategy": "no", "gradient_accumulation_steps": 2}
    trainer = SGMTrainer(make_model(), SGMTrainingArguments(tmp_path, **settings), make_documents(8))
    for name in steps:
        step = getattr(trainer, name)
        setattr(trainer, name, lambda *a, name=name, step=step, **k: (called.append(name), step(*a, **k))[1])
    trainer.train()
    trainer.train(resume_from_checkpoint=True)
    assert list(dict.fromkeys(called)) == steps
