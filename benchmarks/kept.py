"""How much of the teacher the shipped students of several seeds keep, by a project's own code. Run by benchmarks/student.py inside the project, in its environment.

    .venv/bin/python kept.py 3

After `make seeds N=3`, if there are several. The last line of stdout is one JSON object.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

sys.path.insert(0, str(Path.cwd()))

from slm.files import read_jsonl
from slm.task.definition import load_task
from slm.task.metrics import score_one


def scores(path: Path) -> np.ndarray:
    """[examples], in the order of the test set."""
    task = load_task()
    return np.array([score_one(task, r["expected"], r["answer"])["score"] for r in read_jsonl(path)[1:]])


def main(seeds: int) -> None:
    paths = [Path(f"predictions/seeds/{seed}.jsonl") for seed in range(seeds)] if seeds > 1 else [Path("predictions/int4.jsonl")]
    teacher, students = scores(Path("predictions/teacher.jsonl")), np.array([scores(path) for path in paths])
    # Over examples, the same for teacher and students; the students' scores are averaged first.
    found = bootstrap(
        (students.mean(0), teacher), lambda s, t, axis=-1: s.mean(axis) / t.mean(axis), paired=True, n_resamples=10_000,
        confidence_level=0.95, rng=np.random.default_rng(0),
    )  # fmt: skip
    figures = {
        "full_seeds": seeds,
        "full_kept": float(students.mean() / teacher.mean()),
        "full_kept_low": float(found.confidence_interval.low),
    }
    figures |= {f"full_kept_seed_{seed}": float(row.mean() / teacher.mean()) for seed, row in enumerate(students)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]))
