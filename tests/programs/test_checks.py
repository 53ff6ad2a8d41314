import pytest

from sgm_hf.programs.checks import check_settings, complete_settings
from sgm_hf.programs.options import parse_arguments


@pytest.mark.parametrize(
    ("options", "name"),
    [([], "generated"), (["--model_name_or_path", "x"], None), (["--test_file", "x.csv"], None)],
)
def test_the_generated_corpus_is_taken_where_neither_data_nor_checkpoint_is_named(tmp_path, options, name):
    model_args, data_args, training_args = parse_arguments([*options, "--output_dir", str(tmp_path)])
    complete_settings(model_args, data_args, training_args)
    assert data_args.dataset_name == name


IDLE = {
    "--text_column x --delimiter ; --id_column y --dataset_revision z": "--dataset_name generated",
    "--delimiter ; --encoding cp1252": "--dataset_name my/data",
    "--labels_column x --label_separator ;": "--train_file x.csv --labels_columns a,b",
    "--dataset_config lyrl2004 --dataset_revision z --data_dir x": "--train_file x.csv",
    "--vocab_size 10 --min_frequency 2 --lowercase false --mask_numbers false": "--model_name_or_path x --test_file y",
    "--attention_size 7": "--attention none",
    "--context_input current": "--attention none",
    "--unit_kernel_size 5 --unit_dilations 1 2": "--encoder hierarchical",
    "--sentence_length 5 --sentence_end_ids 7": "--encoder semantic_units",
    "--sentence_length 15": "--encoder hierarchical --sentence_end_ids 7 9",
    "--mixture_lambda 0.3": "--label_feedback global_embedding",
    "--gate_activation sigmoid": "--label_feedback fixed_mixture",
    "--threshold_split_size 0.1": "--set_decoding best_sequence",
    "--label_threshold 0.4": "--set_decoding threshold --threshold_split_size 0.1",
    "--hub_model_id me/mine": "--push_to_hub false",
    "--effective_number_beta 0.9": "--label_weights balanced",
    "--lr_scheduler_type linear": "--halve_from_epoch 2",
    "--dataloader_drop_last true --eval_accumulation_steps 3": "",
}


@pytest.mark.parametrize("idle", IDLE)
def test_options_without_effect_are_named(tmp_path, caplog, idle):
    def warnings_of(options):
        caplog.clear()
        parsed = parse_arguments([*options.split(), "--preset", "none", "--output_dir", str(tmp_path / "out")])
        complete_settings(*parsed)
        check_settings(*parsed)
        return [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()]

    names = [word for word in idle.split() if word.startswith("--")]
    (line,) = warnings_of(f"{IDLE[idle]} {idle}")
    assert line.startswith(f"{', '.join(names)}: no effect ")
    assert warnings_of(IDLE[idle].replace("--threshold_split_size 0.1", "")) == []
