#!/usr/bin/env python
"""Train and report a study: the same as the command `sgm-hf study`.

python examples/run_study.py train seq2set_reuters21578 --data_dir DIR --output_dir runs/seq2set
"""

import sys

from sgm_hf.cli import main

if __name__ == "__main__":
    main(["study", *sys.argv[1:]])
