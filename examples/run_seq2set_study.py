#!/usr/bin/env python
"""Train and report a study of Seq2Set: the same as the command `sgm-hf study`.

    python examples/run_seq2set_study.py train examples/configs/study_reuters21578.json --data_dir DIR \\
        --output_dir runs/study_reuters21578
"""

import sys

from sgm_hf.cli import main

if __name__ == "__main__":
    main(["study", *sys.argv[1:]])
