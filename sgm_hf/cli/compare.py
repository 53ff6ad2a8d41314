"""Compare systems from their predictions: each metric, its difference, how sure.

  sgm-hf compare runs/a/predictions_test.jsonl runs/b/predictions_test.jsonl
  sgm-hf compare --a sgm/seed_*/predictions_test.jsonl \\
                 --b br/seed_*/predictions_test.jsonl --output compare.csv

Each file has the predictions of one system for the same documents; each further
system is compared with the first, A. The intervals are those of a paired
bootstrap over the documents; the p-values are corrected for all metrics and
systems of the call (Holm). With --a and --b, the files of a side are runs of
one system, such as its seeds: the metrics are means over them, and the runs are
resampled, too. In Python: sgm_hf.analysis.comparison.compare_predictions.
"""

from collections.abc import Sequence
from pathlib import Path

from sgm_hf.programs import SET_DECODINGS, CommandParser, compare_systems, comparison_text

USAGE = "sgm-hf compare A.jsonl B.jsonl [C.jsonl ...] [OPTIONS]"


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = CommandParser("compare", __doc__, usage=USAGE)
    parser.add_argument("files", metavar="FILE", nargs="*", type=Path, help="Predictions, one file per system.")
    parser.add_argument("--a", metavar="FILE", nargs="+", type=Path, help="Runs of the first system.")
    parser.add_argument("--b", metavar="FILE", nargs="+", type=Path, help="Runs of the second system.")
    parser.add_argument(
        "--set_decoding",
        choices=("labels", *SET_DECODINGS),
        default="labels",
        help="Label sets to compare. Default: labels, those that each run has chosen.",
    )
    parser.add_argument("--resamples", type=int, metavar="NUMBER", help="Default: 2000, and more of many systems.")
    parser.add_argument("--seed", type=int, metavar="NUMBER", default=0, help="Of the resamples. Default: 0.")
    parser.add_argument(
        "--show", type=int, metavar="NUMBER", default=10, help="Documents that differ most to print. Default: 10."
    )
    parser.add_argument(
        "--num_labels", type=int, metavar="NUMBER", help="Labels of the task. Default: those that the files have."
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="Write the table to a .json or .csv file, too.")
    options = vars(parser.parse_args(arguments))
    files, a, b = (options.pop(name) for name in ("files", "a", "b"))
    if (a is None) != (b is None) or (files and a):
        raise ValueError("give one file per system, or the runs of two systems with --a and --b.")
    systems = [[file] for file in files] if a is None else [a, b]
    print(comparison_text(compare_systems(systems, **options)))
