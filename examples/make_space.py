#!/usr/bin/env python
"""Make a Space of a model: the same as the command `sgm-hf space`.

python examples/make_space.py runs/mine space --title "Topics of news" --examples texts.jsonl
"""

import sys

from sgm_hf.cli import main

if __name__ == "__main__":
    main(["space", *sys.argv[1:]])
