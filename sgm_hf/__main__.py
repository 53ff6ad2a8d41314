"""`python -m sgm_hf` is `sgm-hf`."""

from sgm_hf.cli import main

main()
