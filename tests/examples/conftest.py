import sys
from pathlib import Path

# The programs import each other as neighbours.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
