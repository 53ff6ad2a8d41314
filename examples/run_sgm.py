#!/usr/bin/env python
"""Train, evaluate and predict on a named corpus or on your own files: the same as the command `sgm-hf train`.

python examples/run_sgm.py examples/configs/aapd_sgm_ge.json --data_dir data/aapd --output_dir runs/aapd --seed 3
"""

import sys

from sgm_hf.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
