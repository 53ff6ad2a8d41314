"""Compare systems on a corpus as the papers do: one command per study.

  sgm-hf study list
  sgm-hf study train sgm_global_embedding --dataset_name aapd \\
      --data_dir data/aapd --output_dir runs/ge_aapd
  sgm-hf study report runs/ge_aapd --output report

A study is a settings file of systems, what they have in common, seeds and
reports; list names those that come with the package. train makes a run of each
system and seed; finished runs are skipped, interrupted ones go on. search tries
the settings listed under "search" and compares them on the validation split.
report writes tables (CSV, Markdown) and figures (PNG, SVG) of the predictions.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from sgm_hf.programs import (
    LABEL_ORDERS,
    REPORTS,
    SET_DECODINGS,
    CommandParser,
    Study,
    exit_on_signals,
    log_to_stderr,
    read_study,
    report_study,
    search_settings,
    study_names,
    train_study,
)


def parse_arguments(arguments: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = CommandParser("study", __doc__)
    parts = parser.add_subparsers(dest="part", required=True, metavar="list | train | search | report")
    parts.add_parser("list", help="Name the studies.", description="Name the studies that come with the package.")
    for name, help_text in (("train", "Train the systems."), ("search", "Compare settings on the validation split.")):
        part = parts.add_parser(name, help=help_text, description=help_text)
        part.add_argument("study", help="A name that list gives, or a JSON file.")
        part.add_argument("--output_dir", type=Path, required=True, help="Folder of the runs.")
        part.add_argument("--dataset_name", help="The corpus, where the file does not name it.")
        part.add_argument("--data_dir", type=Path, help="Folder or archive of the corpus.")
        part.add_argument(
            "--orders", nargs="+", choices=LABEL_ORDERS, help="Of the labels. Default: those of the study, if any."
        )
        if name == "train":
            part.add_argument("--systems", nargs="+", help="Default: all of the study.")
            part.add_argument("--seeds", nargs="+", type=int, help="Default: those of the study.")
    part = parts.add_parser("report", help="Write tables and figures.", description="Write tables and figures.")
    part.add_argument("study", type=Path, help="Folder that train wrote.")
    part.add_argument("--output", type=Path, help="Folder for the tables and figures. Default: report in that one.")
    part.add_argument(
        "--set_decoding",
        choices=("labels", *SET_DECODINGS),
        help="Predicted sets that are compared; labels are those that each system was set to. Default: the study's.",
    )
    part.add_argument("--reports", nargs="+", choices=REPORTS, help="Which to write. Default: those of the study.")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse_arguments(arguments)
    log_to_stderr()
    if options.part == "list":
        print("\n".join(f"{name}: {description}" for name, description in study_names().items()))
        return
    if options.part == "report":
        print(
            report_study(
                options.study, options.output or options.study / "report", options.set_decoding, options.reports
            )
        )
        return
    study = Study(read_study(options.study), options.output_dir, options.dataset_name, options.data_dir)
    with exit_on_signals(["sgm-hf", "study", *arguments]):
        if options.part == "search":
            search_settings(study, options.orders)
        else:
            train_study(study, options.systems, options.orders, options.seeds)
