import pytest

from sgm_hf.training import SGMTrainingArguments


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


def test_bfloat16_needs_no_gpu(tmp_path):
    assert SGMTrainingArguments(output_dir=str(tmp_path), bf16=True).bf16


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
        ("halve_from_epoch", 0),
        ("early_stopping_patience", 0),
        ("generation_num_beams", 0),
        ("label_smoothing_factor", 1.0),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_and_value(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        SGMTrainingArguments(output_dir=str(tmp_path), **{name: value})
