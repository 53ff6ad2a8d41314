#!/usr/bin/env python
"""Fine-tune a model on label sequences that it samples (Seq2Set): the same as the command `sgm-hf finetune`.

    python examples/run_seq2set.py examples/configs/reuters21578_seq2set.json --model_name_or_path runs/mle \\
        --data_dir DIR --output_dir runs/seq2set
"""

import sys

from sgm_hf.cli import main

if __name__ == "__main__":
    main(["finetune", *sys.argv[1:]])
