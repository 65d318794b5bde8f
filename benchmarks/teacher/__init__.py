"""Parts of benchmarks/synthesis.py, which runs in the environment of a baked project and imports that project's own slm/."""

import sys
from pathlib import Path

PROJECT = Path(sys.argv[1]).resolve()
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]
