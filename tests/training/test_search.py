"""`SGMTrainer.hyperparameter_search`."""

import json
import math
import os
import signal
from pathlib import Path

import optuna
import pytest
from tiny_training import make_documents, make_model
from transformers import TrainerCallback

from sgm_hf.training import SGMTrainer
from sgm_hf.training.checkpoints import checkpoints_in, is_complete
from sgm_hf.training.interruption import Interrupted

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def searching(arguments):
    """Makes trainers that search in one folder."""

    def make(folder="search", callbacks=None, **settings):
        return SGMTrainer(
            args=arguments(folder, num_train_epochs=1, **settings),
            train_dataset=make_documents(24),
            eval_dataset=make_documents(10, seed=1),
            threshold_dataset=make_documents(10, seed=2),
            model_init=lambda: make_model(),
            callbacks=callbacks,
        )

    return make


def rates(trial):
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 5e-2, log=True)}


def search(trainer, n_trials=2, **keywords):
    sampler = optuna.samplers.RandomSampler(seed=0)
    return trainer.hyperparameter_search(
        hp_space=rates, n_trials=n_trials, backend="optuna", sampler=sampler, **keywords
    )


def record_of(run: Path) -> dict:
    (checkpoint,) = checkpoints_in(run)
    assert is_complete(checkpoint)
    return json.loads((checkpoint / "checkpoint.json").read_text())


def test_a_search_of_five_trials_finds_the_best_and_keeps_each_in_a_folder_of_its_own(searching):
    trainer, objectives = searching(), []
    best = search(
        trainer,
        n_trials=5,
        direction="minimize",
        compute_objective=lambda metrics: objectives.append(metrics["eval_loss"]) or metrics["eval_loss"],
    )
    assert best.objective == min(objectives) and len(set(objectives)) == 5
    assert int(best.run_id) == objectives.index(best.objective)
    folder = Path(trainer.args.output_dir)
    assert {path.name for path in folder.iterdir()} == {f"run-{number}" for number in range(5)}
    used = [record_of(folder / f"run-{number}")["fingerprint"]["settings"]["learning_rate"] for number in range(5)]
    assert len(set(used)) == 5 and used[int(best.run_id)] == best.hyperparameters["learning_rate"]


@pytest.mark.parametrize(("metric", "better"), [("loss", min), ("micro_f1", max)])
def test_a_search_is_by_default_for_the_best_metric_for_best_model(searching, metric, better):
    trainer = searching(metric_for_best_model=metric, save_strategy="no", load_best_model_at_end=False)
    values = []

    class Record(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **keywords):
            values.append(metrics[f"eval_{metric}"])

    trainer.add_callback(Record())
    assert search(trainer, n_trials=3).objective == better(values)
    assert len(values) == 3


def test_the_best_trial_trained_alone_gives_what_the_search_found(searching):
    best = search(searching(metric_for_best_model="loss"), n_trials=2)
    alone = searching("alone", metric_for_best_model="loss", **best.hyperparameters)
    alone.train()
    assert alone.state.best_metric == best.objective


def test_a_second_search_in_the_same_folder_is_refused_before_it_changes_anything(searching):
    first = searching()
    search(first)
    folder = Path(first.args.output_dir)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="run-0 has files of another search.*load_if_exists"):
        search(searching())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


class StopTrial(TrainerCallback):
    """Interrupts the training of a trial in its second update."""

    def __init__(self, run: str):
        self.run = run

    def on_step_begin(self, args, state, control, **keywords):
        if state.global_step == 1 and self.run in state.trial_name:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_search_goes_on_with_new_trials_and_its_trial_can_be_resumed(searching, tmp_path, capfd):
    settings = {"study_name": "s", "storage": f"sqlite:///{tmp_path}/study.db", "load_if_exists": True}
    interrupted = searching(callbacks=[StopTrial("run-1")])
    names = {"hp_name": lambda trial: f"run-{trial.number}"}
    with pytest.raises(Interrupted):
        search(interrupted, n_trials=3, **names, **settings)
    folder = Path(interrupted.args.output_dir)
    assert f"checkpoint-2 is saved in {folder / 'run-1'}" in capfd.readouterr().err
    stopped = record_of(folder / "run-1")
    search(searching(), n_trials=1, **names, **settings)
    assert {path.name for path in folder.iterdir()} == {"run-0", "run-1", "run-2"}
    assert record_of(folder / "run-1") == stopped

    rate = stopped["fingerprint"]["settings"]["learning_rate"]
    with pytest.raises(ValueError, match="(?s)cannot be resumed.*training data"):
        other = searching("search/run-1", learning_rate=rate)
        other.train_dataset = make_documents(25)
        other.train(resume_from_checkpoint=True)
    resumed = searching("search/run-1", learning_rate=rate)
    resumed.train(resume_from_checkpoint=True)
    whole = searching("whole", learning_rate=rate)
    whole.train()
    assert resumed.state.global_step == whole.state.global_step == 3
    for name, weight in whole.model.state_dict().items():
        assert (resumed.model.state_dict()[name] == weight).all(), name


def test_a_pruned_trial_ends_and_the_search_goes_on(searching):
    class PruneFirst(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 0

    trainer = searching()
    assert search(trainer, n_trials=2, pruner=PruneFirst()).run_id == "1"
    assert not trainer.is_in_train
    assert not list(Path(trainer.args.output_dir).rglob("_lock"))


def test_a_search_can_go_on_after_a_trial_that_diverged(searching):
    class Diverging(SGMTrainer):
        def compute_loss(self, *given, **keywords):
            loss = super().compute_loss(*given, **keywords)
            return loss * math.nan if self._trial is not None and self._trial.number == 0 else loss

    trainer = searching()
    trainer.__class__ = Diverging
    with pytest.raises(FloatingPointError, match="No checkpoint has been saved yet"):
        search(trainer)
    assert search(trainer, catch=(FloatingPointError,)).run_id == "1"


def test_a_search_without_model_init_is_refused(arguments):
    trainer = SGMTrainer(make_model(), arguments(), make_documents(8), make_documents(4))
    with pytest.raises(RuntimeError, match="model_init"):
        search(trainer)


def test_trials_fit_the_lexical_branch_with_their_own_settings(arguments):
    fits = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **keywords):
            settings = trainer.lexical_fit.settings
            fits.append((settings.cost, settings.num_folds, bool(trainer.model.lexical.weight.any())))

    trainer = SGMTrainer(
        args=arguments("search", num_train_epochs=1),
        train_dataset=make_documents(24),
        eval_dataset=make_documents(10, seed=1),
        model_init=lambda: make_model(lexical_branch=True, lexical_in_decoder=True),
        callbacks=[Watch()],
    )
    space = {"lexical_cost": [0.3, 1.0], "lexical_folds": [2, 3]}
    trainer.hyperparameter_search(
        hp_space=lambda trial: {name: trial.suggest_categorical(name, values) for name, values in space.items()},
        n_trials=4,
        backend="optuna",
        sampler=optuna.samplers.GridSampler(space, seed=0),
    )
    assert sorted(fits) == [(0.3, 2, True), (0.3, 3, True), (1.0, 2, True), (1.0, 3, True)]
