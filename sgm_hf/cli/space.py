"""Make a Space of a model: a folder that runs on its own and can be pushed.

  sgm-hf space runs/my space --title "Topics of news" --examples texts.jsonl
  cd space && python app.py                               # what the Space does
  hf upload USER/NAME space --repo-type space --private   # makes the Space

The folder has the page, the model and a copy of the library.
"""

from collections.abc import Sequence
from pathlib import Path

from sgm_hf.programs import CommandParser


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = CommandParser("space", __doc__)
    parser.add_argument("model", metavar="MODEL", help="Folder of a model, or its name on the Hub.")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="The Space's folder; new or empty.")
    parser.add_argument("--title", metavar="TEXT", help="Heading and title. Default: Multi-label text classification.")
    parser.add_argument(
        "--examples", metavar="FILE", type=Path, help="File of texts to try (.txt, .csv, .jsonl, …). No default."
    )
    options = parser.parse_args(arguments)
    from sgm_hf.programs.app import TITLE, make_space  # here, because gradio takes seconds to import

    make_space(options.model, options.folder, options.title or TITLE, options.examples)
    print(f"{options.folder} is ready: hf upload USER/NAME {options.folder} --repo-type space")
