"""What the verdict is worth: how often it is wrong, what it catches, how long it takes.

    make bench-verdict    (after make demo, whose project and environment are used; an hour, most of it planted regressions that are trained)

Writes build/bench/verdict.json and prints the same as a table. What was run before with the same template is not run again.
`make calibrate` in a project says more of the first part, and proposes limits. Method and assumptions: docs/verdict-method.md of a project.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.planted.cases import CASES
from benchmarks.planted.run import figures_of, run_cases
from benchmarks.planted.world import HOME, copy, must, prepare, run
from tests.bake import TEMPLATE

OUTPUT = TEMPLATE / "build" / "bench" / "verdict.json"
SEEDS = 6
GATE_RUNS = 5


def compared(project: Path, how: str) -> dict[str, float]:
    """Figures by the project's own code, in its own environment."""
    python = project / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = subprocess.run([python, Path(__file__).with_name("comparisons.py"), project, how], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def retrained(environment: Path) -> dict[str, float]:
    """The small model of the planted regressions, really trained again from other seeds."""
    healthy, folder = prepare(environment), HOME / "seeds"
    note = folder / "tree"
    tree = (HOME / "healthy.json").read_text(encoding="utf-8")
    if not note.exists() or note.read_text(encoding="utf-8") != tree:
        copy(healthy, folder)
        note.write_text(tree, encoding="utf-8")
    must(folder, "python", "-m", "slm", "seeds", str(SEEDS))
    return compared(folder, "retrained")


def gate_seconds(project: Path) -> float:
    runs = [run(project, "python", "-m", "slm", "gate") for _ in range(GATE_RUNS)]
    assert all(r.code == 0 for r in runs), runs[0].log  # a gate that stops early is quick
    return statistics.median(r.seconds for r in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="a default project whose model is made")
    project = parser.parse_args().project.resolve()  # its commands run inside it
    planted = figures_of(run_cases(CASES, project))
    figures: dict[str, Any] = compared(project, "simulated") | retrained(project)
    figures |= planted | {"gate_seconds": gate_seconds(project)}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"figures": figures}, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:56s}{value:10.3f}")


if __name__ == "__main__":
    main()
