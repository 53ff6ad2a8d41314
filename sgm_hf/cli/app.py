"""Serve a page to try a model: labels of a text with scores and attention maps.

  sgm-hf app runs/my
  sgm-hf app runs/my --examples texts.jsonl --title "Topics of news" --port 7861

The page also labels whole files. It needs no network; sgm-hf space makes a
Space of it. Ctrl-C ends it.
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sgm_hf.programs import CommandParser


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = CommandParser("app", __doc__)
    parser.add_argument("model", metavar="MODEL", help="Folder of a model, or its name on the Hub.")
    parser.add_argument(
        "--examples",
        metavar="FILE",
        type=Path,
        help="File of texts (.txt, .csv, .jsonl, …); a click tries one of the first. No default.",
    )
    parser.add_argument(
        "--title", metavar="TEXT", help="Heading of the page. Default: Multi-label text classification."
    )
    parser.add_argument("--port", metavar="NUMBER", type=int, help="Default: the first free one from 7860 on.")
    parser.add_argument(
        "--host", metavar="ADDRESS", help="Address to serve on, as 0.0.0.0 for all. Default: this machine alone."
    )
    options = parser.parse_args(arguments)
    from sgm_hf.programs.app import TITLE, serve  # here, because gradio takes seconds to import

    # So that SIGTERM, as Ctrl-C does, ends with the uploads removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    serve(options.model, options.examples, options.title or TITLE, options.port, options.host)
