"""The example tasks, and projects whose task/ is one of them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.planted.world import Done, edit_params, must, run
from tests.bake import TEMPLATE, bake

EXAMPLES = TEMPLATE / "examples"
KINDS = sorted(p.name for p in EXAMPLES.iterdir() if p.is_dir())
# The quick profile's stub, gone over the few examples often enough that its answers end.
PARAMS: dict[str, dict[str, Any]] = {
    "teach": {"epochs": 12},
    "synthesize": {"prompts": 20, "max_new_tokens": 96},
    "distill": {"epochs": 4},
    "evaluate": {"max_new_tokens": 96},
    "measure": {"max_new_tokens": 24},
}


def with_task(task: str | Path, target: Path, source: Path) -> Path:
    """A fresh bake whose task/ is the example of this name, or this folder, with the environment and the base model of the project `source`."""
    bake(target)
    shutil.rmtree(target / "task")
    shutil.copytree(EXAMPLES / task, target / "task")
    os.symlink((source / ".venv").resolve(), target / ".venv")
    (target / ".cache").mkdir()
    for path in (source / ".cache").iterdir():
        os.symlink(path.resolve(), target / ".cache" / path.name)
    return target


def prepared(task: str | Path, target: Path, source: Path, params: dict[str, dict[str, Any]]) -> Path:
    """The same with the quick profile and these parameters, ready to run.

    What a stub of a teacher says to a new request is mostly of no use: the share that may be dropped, and that its answers differ, is not asked of it.
    """
    with_task(task, target, source)
    must(target, "python", "-m", "slm", "profile", "quick")
    edit_params(target, **params)
    suite = target / "task" / "expectations" / "synthetic.json"
    spec = json.loads(suite.read_text(encoding="utf-8"))
    spec["expectations"] = [e for e in spec["expectations"] if e["kwargs"]["column"] not in ("dropped", "answer", "answer_class")]
    suite.write_text(json.dumps(spec), encoding="utf-8", newline="\n")
    return target


def made(kind: str, target: Path, source: Path) -> Path:
    """An example after the whole pipeline, on the quick profile's stub of a model."""
    prepared(kind, target, source, PARAMS)
    must(target, "dvc", "repro")
    return target


def gate(folder: Path, figure: str, floor: float) -> Done:
    """The verdict, with a floor under one figure of what ships beside the ceilings that a stub meets."""
    (folder / "gates.yaml").write_text(
        f"""\
gates:
  - {{name: own figure, severity: block, metric: shipped.{figure}, at_least: {floor}}}
  - {{name: weights, severity: block, metric: shipped.weights_mb, over: teacher.weights_mb, at_most: 0.5}}
  - {{name: provenance, severity: block, metric: data.provenance, at_least: 1.0}}
allowed_licences: [Apache-2.0, CC0-1.0]
required_expectations: [schema_error, leak, normal_text]
released: {{margin: 0.05, best_margin: 0.05, time: 2, memory: 2, weights: 1.02, slice_size: 30, slice_alpha: 0.01}}
""",
        encoding="utf-8",
        newline="\n",
    )
    return run(folder, "python", "-m", "slm", "gate")
