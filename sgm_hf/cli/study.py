"""Compare trainings of a corpus over label orders and seeds, as Seq2Set's paper.

  sgm-hf study train study.json --data_dir data/aapd --output_dir runs/study
  sgm-hf study report runs/study --output report

train makes, for each order of the labels and each seed, a model by likelihood
and from it one by each other system of the JSON file; likelihood_continued, a
control, only trains longer. Finished runs are skipped, interrupted ones are
resumed. search tries the settings listed under "search" from the likelihood
models of the first seed and compares them on the validation split. report
writes from the predictions

- table.csv, table.md: the metrics on the test split, also the micro-F1 of
  decoding "threshold", and how much shuffled orders harm (Tables 1 and 2);
- without_top_labels.{csv,png,svg}: without the k most frequent labels
  (Figure 1);
- by_frequency.{csv,png,svg}: on the top and the last 10 % of the labels
  (Figure 2);
- climb.{csv,png,svg}: micro-F1 on the validation split over the epochs;
- search.csv, search.md: the settings tried and their metrics.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from sgm_hf.programs import (
    LABEL_ORDERS,
    SET_DECODINGS,
    CommandParser,
    Study,
    exit_on_signals,
    log_to_stderr,
    read_study,
    report_study,
    search_settings,
    train_study,
)


def parse_arguments(arguments: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = CommandParser("study", __doc__)
    parts = parser.add_subparsers(dest="part", required=True, metavar="train | search | report")
    for name, help_text in (("train", "Train the systems."), ("search", "Compare settings on the validation split.")):
        part = parts.add_parser(name, help=help_text, description=help_text)
        part.add_argument("config", type=Path, help="JSON file: common, search, and the systems to train.")
        part.add_argument("--output_dir", type=Path, required=True, help="Folder of the study.")
        part.add_argument("--data_dir", type=Path, help="Folder or archive of the corpus.")
        part.add_argument(
            "--orders",
            nargs="+",
            default=["frequency", "shuffled"],
            choices=LABEL_ORDERS,
            help="Of the labels.",
        )
        part.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="The search uses the first one.")
    part = parts.add_parser("report", help="Write tables and figures.", description="Write tables and figures.")
    part.add_argument("study", type=Path, help="Folder that train wrote.")
    part.add_argument("--output", type=Path, required=True, help="Folder for the tables and figures.")
    part.add_argument(
        "--set_decoding", choices=SET_DECODINGS, default="best_sequence", help="Predicted sets that are compared."
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse_arguments(arguments)
    log_to_stderr()
    if options.part == "report":
        print(report_study(options.study, options.output, options.set_decoding))
        return
    config = read_study(options.config, ["search"] if options.part == "search" else [])
    study = Study(config, options.output_dir, options.orders, options.seeds, options.data_dir)
    with exit_on_signals(["sgm-hf", "study", *arguments]):
        {"train": train_study, "search": search_settings}[options.part](study)
