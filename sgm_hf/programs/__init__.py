"""What the commands are made of: settings, documents, model, results, and how a program ends."""

from sgm_hf.data.labels import LABEL_ORDERS
from sgm_hf.datasets_scripts.convert import convert as convert_corpus
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.programs.baseline import BaselineArguments, parse_baseline_arguments, run_baseline
from sgm_hf.programs.comparing import compare_systems, comparison_text
from sgm_hf.programs.ending import log_to_stderr, run_main
from sgm_hf.programs.finetuning import Seq2SetArguments, run_finetuning
from sgm_hf.programs.help import OF_TRAINING
from sgm_hf.programs.labelling import LabelledFile, label_file
from sgm_hf.programs.labelling_options import LabellingOptions, add_labelling_options
from sgm_hf.programs.options import CommandParser, parse_arguments, with_model
from sgm_hf.programs.results import say_what_comes_next
from sgm_hf.programs.settings import DataArguments, ModelArguments
from sgm_hf.programs.studies import REPORTS, Study, read_study, search_settings, study_names, train_study
from sgm_hf.programs.study_reports import report_study
from sgm_hf.programs.training import run_evaluation, run_training
from sgm_hf.training.interruption import exit_on_signals

__all__ = [
    "LABEL_ORDERS",
    "OF_TRAINING",
    "REPORTS",
    "SET_DECODINGS",
    "BaselineArguments",
    "CommandParser",
    "DataArguments",
    "LabelledFile",
    "LabellingOptions",
    "ModelArguments",
    "Seq2SetArguments",
    "Study",
    "add_labelling_options",
    "compare_systems",
    "comparison_text",
    "convert_corpus",
    "exit_on_signals",
    "label_file",
    "log_to_stderr",
    "parse_arguments",
    "parse_baseline_arguments",
    "read_study",
    "report_study",
    "run_baseline",
    "run_evaluation",
    "run_finetuning",
    "run_main",
    "run_training",
    "say_what_comes_next",
    "search_settings",
    "study_names",
    "train_study",
    "with_model",
]
