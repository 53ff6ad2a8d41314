"""Write a corpus as Parquet files with a dataset card.

  sgm-hf convert aapd --data_dir data/aapd --output_dir data/aapd_parquet

The folder needs no code of sgm_hf: datasets.load_dataset reads it, and
hf upload publishes it.
"""

from collections.abc import Sequence

from sgm_hf.datasets_scripts import CORPORA
from sgm_hf.programs import CommandParser, convert_corpus


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = CommandParser("convert", __doc__)
    corpora = sorted(CORPORA)
    parser.add_argument("name", metavar="CORPUS", choices=corpora, help=f"The corpus: {', '.join(corpora)}.")
    parser.add_argument(
        "--data_dir", metavar="FOLDER", help="Folder with the published files; the generated corpus needs none."
    )
    parser.add_argument("--output_dir", metavar="FOLDER", required=True, help="Folder to make.")
    parser.add_argument(
        "--config", metavar="NAME", help="Configuration, if the corpus has several; default: its first."
    )
    options = parser.parse_args(arguments)
    statistics = convert_corpus(options.name, options.output_dir, options.config, options.data_dir)
    counts = ", ".join(f"{split} {counts.documents:,}" for split, counts in statistics.items())
    print(f"wrote {options.output_dir}: {counts} documents")
