"""What rounding costs, and what training for it gives back: the demo's student by several recipes, trained with and without rounding.

    make bench-rounding        (after make demo; about half an hour)

Each row is the demo's project with one change of parameters or recipe, made by `dvc repro`. Scores are exact match on validation data, on
which recipes are chosen; the test set is not asked. Writes build/bench/rounding.json and prints the same as a table.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.bake import TEMPLATE

DEMO = TEMPLATE / "build" / "my-slm"
SCRATCH = TEMPLATE / "build" / "rounding"
OUTPUT = TEMPLATE / "build" / "bench" / "rounding.json"
# Run in the project: every second validation example, asked as users ask.
SCORE = """
import json
from pathlib import Path
from slm.config.params import load_params
from slm.task.records import TASK, read_records
from slm.inference.asking import ask_singly
from slm.task.metrics import score_one
from slm.task.definition import load_task

def scores(folder):
    records = read_records(TASK / "validation.jsonl", answered=True)[::2]
    replies = dict(ask_singly(folder, [r.prompt for r in records], load_params().evaluate.max_new_tokens))
    return [score_one(load_task(), r.answer, replies[i].text)["score"] for i, r in enumerate(records)]

if __name__ == "__main__":
    print(json.dumps([scores(Path("models/onnx")), scores(Path("models/int4"))]))
"""


def asymmetric(recipe: dict[str, Any]) -> None:
    all_in_4_bits(recipe)
    recipe["passes"]["round"]["sym"] = False


def groups_of_64(recipe: dict[str, Any]) -> None:
    all_in_4_bits(recipe)
    recipe["passes"]["round"]["group_size"] = 64
    recipe["passes"]["build"]["int4_block_size"] = 64


def half_in_8_bits(recipe: dict[str, Any]) -> None:
    recipe["passes"]["choose"]["ratio"] = 0.5


def all_in_4_bits(recipe: dict[str, Any]) -> None:
    del recipe["passes"]["choose"]


RECIPES = {
    "the recipe: 8 bits in the quarter that SNR picks": None,
    "8 bits in a half": half_in_8_bits,
    "4 bits alone": all_in_4_bits,
    "4 bits alone, with zero points": asymmetric,
    "4 bits alone, in groups of 64": groups_of_64,
}


def row(project: Path, environment: dict[str, str], edit: Any) -> dict[str, float]:
    path = project / "recipes" / "int4.json"
    recipe = json.loads((DEMO / "recipes" / "int4.json").read_text(encoding="utf-8"))
    if edit:
        edit(recipe)
    path.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    subprocess.run(["dvc", "repro", "quantize@int4", "convert@onnx"], cwd=project, env=environment, check=True)
    done = subprocess.run(["python", "score.py"], cwd=project, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    fp32, int4 = json.loads(done.stdout.splitlines()[-1])
    weights = sum(p.stat().st_size for p in (project / "models" / "int4").glob("model.onnx*")) / 1e6
    return {"fp32": sum(fp32) / len(fp32), "int4": sum(int4) / len(int4), "weights_mb": weights, "examples": len(fp32)}


def main() -> None:
    if not (DEMO / "dvc.lock").exists():
        sys.exit("build/my-slm holds no model: run `make demo` first")
    binaries = DEMO / ".venv" / ("Scripts" if os.name == "nt" else "bin")
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1"}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    all_figures = {}
    for trained in ("rounded", "not rounded"):
        shutil.rmtree(SCRATCH, ignore_errors=True)
        shutil.copytree(DEMO, SCRATCH, ignore=shutil.ignore_patterns(".venv", ".resume"), symlinks=True)
        (SCRATCH / "score.py").write_text(SCORE, encoding="utf-8")
        if trained == "not rounded":
            yaml = YAML(typ="rt")
            params = yaml.load((SCRATCH / "params.yaml").read_text(encoding="utf-8"))
            params["distill"]["rounding"] = params["finetune"]["rounding"] = None
            with (SCRATCH / "params.yaml").open("w", encoding="utf-8") as stream:
                yaml.dump(params, stream)
        for name, edit in RECIPES.items():
            figures = row(SCRATCH, environment, edit)
            all_figures |= {f"trained {trained}, {name}: {figure}": value for figure, value in figures.items()}
            shown = (
                f"{figures['fp32']:.3f}  {figures['int4']:.3f}  {figures['int4'] / figures['fp32']:.3f}  {figures['weights_mb']:6.1f} MB"
            )
            print(f"trained {trained:12s} {name:46s} {shown}", flush=True)
            OUTPUT.write_text(json.dumps({"figures": all_figures}, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(SCRATCH)


if __name__ == "__main__":
    main()
