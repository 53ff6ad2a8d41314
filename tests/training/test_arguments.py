import dataclasses
import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from sgm_hf.training import SGMTrainingArguments, machine
from sgm_hf.training.machine import bf16_fault


def test_defaults_are_the_papers(tmp_path):
    args = SGMTrainingArguments(output_dir=str(tmp_path))
    assert (args.learning_rate, args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (1e-3, 0.9, 0.999, 1e-8)
    assert (args.max_grad_norm, args.weight_decay) == (10.0, 0.0)
    assert (args.metric_for_best_model, args.greater_is_better, args.load_best_model_at_end) == (
        "micro_f1",
        True,
        True,
    )
    assert args.report_to == []


@pytest.mark.parametrize(
    ("metric", "greater"),
    [("ece", False), ("eval_nll", False), ("long_brier", False), ("certain_errors", False), ("loss", False)]
    + [("coverage_error", False), ("eval_ranking_loss", False), ("lrap", True), ("precision_at_1", True)]
    + [("micro_f1", True), ("micro_f1_1_to_9", True), ("piece", True)],
)
def test_what_is_to_fall_and_what_is_to_grow_is_known_by_its_name(tmp_path, metric, greater):
    assert SGMTrainingArguments(str(tmp_path), metric_for_best_model=metric).greater_is_better is greater
    assert SGMTrainingArguments(str(tmp_path), metric_for_best_model=metric, greater_is_better=True).greater_is_better


def test_every_default_that_is_declared_here(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    args = SGMTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    expected = {
        "per_device_train_batch_size": 64,
        "per_device_eval_batch_size": 256,
        "max_tokens_per_batch": 16384,
        "max_tokens_per_eval_batch": 32768,
        "num_train_epochs": 10.0,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "halve_from_epoch": None,
        "max_grad_norm": 10.0,
        "clip_grad_value": None,
        "label_weights": "none",
        "effective_number_beta": 0.999,
        "repeat_factor_threshold": None,
        "focal_gamma": 0.0,
        "label_loss": "cross_entropy",
        "label_frequencies": None,
        "early_stopping_patience": None,
        "generation_num_beams": None,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "micro_f1",
        "greater_is_better": True,
        "restore_callback_states_from_checkpoint": True,
        "precision": "fp32",
        "bf16": False,
        "ddp_broadcast_buffers": False,
        "objective": None,
        "lexical_cost": None,
        "lexical_bigram_weight": None,
        "lexical_folds": 5,
        "refit_lexical_branch": False,
        "disable_tqdm": True,
        "do_eval": False,
        "use_cache": True,
        "logging_first_step": True,
        "logging_steps": 100,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "resume_from_checkpoint": None,
        "encoder_learning_rate": None,
        "layerwise_lr_decay": 1.0,
    }
    declared = {name for name in SGMTrainingArguments.__annotations__ if name in vars(SGMTrainingArguments)}
    assert declared <= set(expected)
    assert {name: getattr(args, name) for name in expected} == expected
    assert args.accelerator_config.even_batches is False and args.label_smoothing_factor == 0.0


def test_progress_bars_are_shown_on_a_terminal_unless_told_otherwise(tmp_path, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert not SGMTrainingArguments(output_dir=str(tmp_path)).disable_tqdm
    assert SGMTrainingArguments(output_dir=str(tmp_path), disable_tqdm=True).disable_tqdm


def test_the_least_value_of_a_setting_is_allowed(tmp_path):
    least = dict.fromkeys(("max_tokens_per_batch", "max_tokens_per_eval_batch", "gradient_accumulation_steps"), 1)
    least |= dict.fromkeys(("halve_from_epoch", "early_stopping_patience", "generation_num_beams"), 1)
    args = SGMTrainingArguments(output_dir=str(tmp_path), label_smoothing_factor=0.0, **least)
    assert {name: getattr(args, name) for name in least} == least
    with pytest.raises(ValueError, match="label_smoothing_factor is -0.1"):
        SGMTrainingArguments(output_dir=str(tmp_path), label_smoothing_factor=-0.1)


def test_bfloat16_needs_no_gpu_but_a_device_that_runs_it(tmp_path):
    works = bf16_fault("cpu") is None
    assert SGMTrainingArguments(output_dir=str(tmp_path), bf16=True, use_cpu=True).bf16 == works


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({}, "fp32"),
        ({"precision": "auto"}, "bf16"),
        ({"precision": "bf16"}, "bf16"),
        ({"bf16": True}, "bf16"),
        ({"precision": "auto", "bf16": False}, "fp32"),
        ({"precision": "bf16", "bf16": False}, "fp32"),
    ],
)
@pytest.mark.parametrize("fault", [None, "no such instruction"])
def test_the_precision_is_the_one_asked_for_where_it_works(tmp_path, monkeypatch, settings, chosen, fault):
    monkeypatch.setattr(machine, "multiplies_bf16", lambda device_type: True)
    monkeypatch.setattr(machine, "bf16_fault", lambda device_type: fault)
    args = SGMTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **settings)
    assert args.precision == (chosen if fault is None else "fp32")
    assert args.bf16 is (args.precision == "bf16")
    # A copy with other settings keeps it.
    assert dataclasses.replace(args, seed=2).precision == args.precision


def test_half_precision_on_a_cpu_is_refused(tmp_path):
    with pytest.raises(ValueError, match="fp16 is True.*precision to 'auto'"):
        SGMTrainingArguments(output_dir=str(tmp_path), fp16=True, use_cpu=True)


def test_half_precision_is_the_precision_of_an_accelerator_that_is_asked_for_it(tmp_path, monkeypatch):
    args = SGMTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    args.fp16, args.use_cpu = True, False
    args._choose_precision()
    assert args.precision == "fp16"
    args.use_cpu = True
    with pytest.raises(ValueError, match="a CPU does not train in it"):
        args._choose_precision()


def test_every_configuration_leaves_the_precision_to_the_machine():
    paths = sorted(Path(__file__).parents[2].glob("examples/configs/*.json"))
    assert len(paths) > 5
    for path in paths:
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings = settings.get("common", settings)
        assert settings["precision"] == "auto" and "bf16" not in settings, path


def test_a_loss_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="label_loss is 'hinge'; choose one of cross_entropy, binary_cross_entropy"):
        SGMTrainingArguments(output_dir=str(tmp_path), label_loss="hinge")


def test_gradients_are_clipped_by_their_norm_or_by_their_elements(tmp_path):
    folder = str(tmp_path)
    assert SGMTrainingArguments(folder).max_grad_norm == 10.0
    for given in ({}, {"max_grad_norm": 0.0}, {"max_grad_norm": 10.0}):
        by_value = SGMTrainingArguments(folder, clip_grad_value=10.0, **given)
        assert (by_value.clip_grad_value, by_value.max_grad_norm) == (10.0, 0.0)
    with pytest.raises(ValueError, match="clip_grad_value is 10.0 and max_grad_norm 2.0"):
        SGMTrainingArguments(folder, clip_grad_value=10.0, max_grad_norm=2.0)


def test_early_stopping_needs_evaluations(tmp_path):
    settings = {"output_dir": str(tmp_path), "early_stopping_patience": 2}
    with pytest.raises(ValueError, match="early_stopping_patience is 2, but training evaluates nothing"):
        SGMTrainingArguments(eval_strategy="no", **settings)
    assert SGMTrainingArguments(**settings).early_stopping_patience == 2


def test_do_eval_stays_as_asked(tmp_path):
    assert not SGMTrainingArguments(output_dir=str(tmp_path)).do_eval
    assert SGMTrainingArguments(output_dir=str(tmp_path), do_eval=True).do_eval


def test_without_evaluation_there_is_no_best_model(tmp_path):
    assert not SGMTrainingArguments(output_dir=str(tmp_path), eval_strategy="no").load_best_model_at_end


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens_per_batch", 0),
        ("max_tokens_per_eval_batch", -5),
        ("per_device_train_batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("halve_from_epoch", 0),
        ("early_stopping_patience", 0),
        ("generation_num_beams", 0),
        ("label_smoothing_factor", 1.0),
        ("effective_number_beta", 1.0),
        ("effective_number_beta", -0.1),
        ("repeat_factor_threshold", 0.0),
        ("repeat_factor_threshold", 1.5),
        ("focal_gamma", -1.0),
        ("clip_grad_value", 0.0),
        ("clip_grad_value", float("inf")),
        ("focal_gamma", float("nan")),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_and_value(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        SGMTrainingArguments(output_dir=str(tmp_path), **{name: value})


def test_the_docstring_lists_every_setting_that_is_declared_here():
    listed = set(re.findall(r"^        (\w+): ", SGMTrainingArguments.__doc__, re.MULTILINE))
    assert set(SGMTrainingArguments.__annotations__) <= listed
    assert listed <= set(SGMTrainingArguments.__dataclass_fields__)
