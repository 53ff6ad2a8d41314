#!/usr/bin/env python
"""Tune a baseline on a named corpus or on your own files: the same as the command `sgm-hf baseline`.

python examples/run_baseline.py br_svm --dataset_name aapd --data_dir data/aapd --output_dir runs/aapd_br_svm
"""

import sys

from sgm_hf.cli import main

if __name__ == "__main__":
    main(["baseline", *sys.argv[1:]])
