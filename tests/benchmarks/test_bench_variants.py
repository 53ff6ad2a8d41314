from pathlib import Path

import bench_variants
import pytest

from sgm_hf import SGMConfig
from sgm_hf.programs.options import parse_arguments
from sgm_hf.programs.settings import model_settings

MODELS = Path(__file__).parents[2] / "docs" / "models.md"
OF_TRAINING = ("label_loss", "learning_rate")


def config_of(variant, tmp_path):
    options = [*bench_variants.EQUAL, *bench_variants.VARIANTS[variant].split(), "--output_dir", str(tmp_path)]
    model_args, _, training_args = parse_arguments(options)
    of_training = {name: getattr(training_args, name) for name in OF_TRAINING}
    return {**model_settings(model_args), **of_training}


@pytest.mark.parametrize("variant", bench_variants.VARIANTS)
def test_every_variant_is_a_configuration_without_branch(variant, tmp_path):
    settings = config_of(variant, tmp_path)
    settings = {name: value for name, value in settings.items() if name not in OF_TRAINING}
    assert not SGMConfig(vocab_size=9, num_labels=3, **settings).lexical_branch


def test_no_two_variants_are_the_same_but_for_the_training_on_samples(tmp_path):
    settings = {variant: config_of(variant, tmp_path) for variant in bench_variants.VARIANTS}
    assert settings.pop(bench_variants.SELF_CRITICAL) == settings["Seq2Set, likelihood"]
    assert len({str(sorted(values.items(), key=str)) for values in settings.values()}) == len(settings)


def test_the_page_has_the_table_of_the_rows():
    assert bench_variants.table(bench_variants.VARIANTS_CSV) in MODELS.read_text(encoding="utf-8")


def test_the_table_takes_each_metric_from_the_objective_that_serves_it(tmp_path):
    path = tmp_path / "variants.csv"
    path.write_text(
        "corpus,split,variant,objective,seed,micro_f1,macro_f1,zero_one_loss,parameters,cpu_minutes\n"
        "x,test,SGM+GE,micro_f1,1,0.9,0.1,0.5,2000000,4\n"
        "x,test,SGM+GE,macro_f1,1,0.1,0.7,0.5,2000000,4\n"
        "x,test,SGM+GE,exact_match,1,0.1,0.1,0.2,2000000,4\n"
        "x,test,SGM,micro_f1,1,0.8,0,0,1500000,3\n"
        "x,test,SGM,micro_f1,2,0.6,0,0,1500000,5\n"
        "x,test,SGM,macro_f1,1,0,0.5,0,1500000,3\n"
        "x,test,SGM,exact_match,1,0,0,0.25,1500000,4\n",
        encoding="utf-8",
    )
    lines = bench_variants.table(path).splitlines()
    assert lines[2] == "| x | test | SGM | 2 | 1.50 | 3.8 | 0.700 ± 0.141 | 0.500 | 0.250 |"
    assert lines[3] == "| x | test | SGM+GE | 1 | 2.00 | 4.0 | 0.900 | 0.700 | 0.200 |"
