import sys
from pathlib import Path

# The benchmarks are programs, not a package: they import each other as neighbours.
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
