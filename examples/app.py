#!/usr/bin/env python
"""A page to try a model: the same as the command `sgm-hf app`.

python examples/app.py runs/mine --examples texts.jsonl --port 7861
"""

import sys

from sgm_hf.cli import main

if __name__ == "__main__":
    main(["app", *sys.argv[1:]])
