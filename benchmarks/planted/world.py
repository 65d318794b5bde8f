"""The healthy project that every case starts from, and copies of it to plant in.

It is the quick profile's stub of a model, taught enough to be right more often than wrong on four functions, asked every test example
of these, and released: what a case breaks is then compared with it.
"""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.bake import TEMPLATE, bake
from tests.conftest import FUNCTIONS, QUICK, environment
from tests.world import AUTHOR, share

HOME = TEMPLATE / "build" / "planted"
SIZES = {"train": 480, "validation": 60, "test": 240, "prompts": 40}
# The quick profile, with a student that is worth a comparison and a test set that can show a loss.
PARAMS: dict[str, dict[str, Any]] = {
    "teach": {"epochs": 6},
    "distill": {"epochs": 1},
    "finetune": {"epochs": 3, "learning_rate": 2.0e-3, "rank": 16},
    "measure": {"prompts": 6},
    "evaluate": {"sample": {"teacher": 240, "base": 8, "distilled": 120, "finetuned": 120, "onnx": 240, "int8": 8, "int4": 240}},
}
# What such a model reaches, with the room that a shared machine and another seed need.
GATES = """\
gates:
  - {name: score, severity: block, metric: shipped.score_low, at_least: 0.10}
  - {name: valid answers, severity: block, metric: shipped.valid_rate, at_least: 0.85}
  - {name: kept of teacher, severity: block, metric: shipped.score, over: teacher.score, at_least: 0.75}
  - {name: kept by quantization, severity: block, metric: shipped.score, over: onnx.score, at_least: 0.85}
  - {name: time, severity: block, metric: shipped.request_ms_p50, over: teacher.request_ms_p50, at_most: 0.50}
  - {name: memory, severity: block, metric: shipped.rss_mb, over: teacher.rss_mb, at_most: 0.85}
  - {name: weights, severity: block, metric: shipped.weights_mb, over: teacher.weights_mb, at_most: 0.25}
allowed_licences: [Apache-2.0, CC0-1.0]
required_expectations: [schema_error, leak, normal_text]
released: {margin: 0.10, best_margin: 0.12, alpha: 0.025, best_alpha: 0.015, time: 1.6, memory: 1.5, weights: 1.02, slice_size: 30, slice_alpha: 0.01}
"""


@dataclass(frozen=True)
class Done:
    """code: exit code; seconds: wall clock; log: all that was printed."""

    code: int
    seconds: float
    log: str


def run(folder: Path, *command: str) -> Done:
    """A command in a project, as its Makefile would call it: `python …` and `dvc …` are those of the project's environment; `dist/*/model` is the package."""
    variables = environment() | {
        "HF_HUB_OFFLINE": "1",
        "DVC_NO_ANALYTICS": "1",
        "OLIVE_DISABLE_TELEMETRY": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    binaries = folder / ".venv" / ("Scripts" if os.name == "nt" else "bin")
    variables["PATH"] = f"{binaries}{os.pathsep}{variables['PATH']}"
    words = [str(at(folder, word).relative_to(folder)) if word.startswith("dist/*") else word for word in command]
    program = binaries / words[0]
    start = time.monotonic()
    done = subprocess.run(
        [str(program) if program.exists() else words[0], *words[1:]],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return Done(done.returncode, time.monotonic() - start, done.stdout)


def must(folder: Path, *command: str) -> str:
    done = run(folder, *command)
    if done.code:
        raise RuntimeError(f"{' '.join(command)} in {folder} exited {done.code}:\n{done.log[-3000:]}")
    return done.log


def at(folder: Path, pattern: str) -> Path:
    """The one file or folder of a project that a pattern names."""
    (path,) = folder.glob(pattern)
    return path


def own(path: Path) -> Path:
    """Bytes of its own for a file or folder that a copy shares by links; call it before an edit in place."""
    if path.is_dir():
        for inner in [p for p in path.rglob("*") if p.is_file()]:
            own(inner)
    else:
        temporary = path.with_name(f"{path.name}.own")
        shutil.copyfile(path, temporary)
        os.replace(temporary, path)
    return path


def edit_params(folder: Path, **changes: dict[str, Any]) -> None:
    """Set parameters, keeping file's order and comments."""
    yaml = YAML()
    yaml.width = 200
    path = folder / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    for section, values in changes.items():
        if isinstance(values, dict):
            params[section].update(values)
        else:
            params[section] = values
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        yaml.dump(params, stream)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8", newline="\n")


def function_of(row: dict[str, Any]) -> str:
    return json.loads(row["messages"][-1]["content"])["name"]


def prepare(source: Path = QUICK, home: Path = HOME) -> Path:
    """The healthy project, baked, run and released, if that is not yet done with this template and these settings.

    Args:
        source: a project whose set-up is done: its environment and its base model are used.
    """
    healthy, note = home / "healthy", home / "healthy.json"
    inputs = {"body": tree_of_body(), "sizes": SIZES, "params": PARAMS, "gates": GATES}
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) == inputs:
        return healthy
    if not (source / ".venv" / "ready").exists():
        raise SystemExit(f"{source} has no environment: run `make test` first, or name another project with --environment")
    note.unlink(missing_ok=True)
    cache = home / ".cache.kept"
    if (healthy / ".dvc" / "cache").exists():  # stages that are the same are not run again
        shutil.rmtree(cache, ignore_errors=True)
        (healthy / ".dvc" / "cache").rename(cache)
    shutil.rmtree(healthy, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    bake(healthy, project="planted")
    (home / "planted").rename(healthy)
    if cache.exists():
        cache.rename(healthy / ".dvc" / "cache")
    os.symlink((source / ".venv").resolve(), healthy / ".venv")
    (healthy / ".cache").mkdir()
    for path in (source / ".cache").iterdir():
        if path.name != "released":
            os.symlink(path.resolve(), healthy / ".cache" / path.name)
    shrink(healthy)
    must(healthy, "python", "-m", "slm", "profile", "quick")
    edit_params(healthy, **PARAMS)
    (healthy / "gates.yaml").write_text(GATES, encoding="utf-8", newline="\n")
    # The contract's first commit is the one that later contracts are held against.
    shutil.rmtree(healthy / ".git")
    must(healthy, "git", "init", "--quiet", "--initial-branch", "main")
    commit(healthy, "The healthy project")
    (home / "repro.log").write_text(must(healthy, "dvc", "repro"), encoding="utf-8")
    release(healthy)
    must(healthy, "python", "-m", "slm", "gate")  # compared with itself it is no worse
    note.write_text(json.dumps(inputs), encoding="utf-8")
    return healthy


def tree_of_body() -> str:
    """Names the body's files as they are on disk, whether committed or not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "{{cookiecutter.project}}"]
    names = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=True).stdout.split("\0")
    paths = "\n".join(n for n in names if n and (TEMPLATE / n).is_file())
    hashes = subprocess.run(["git", "hash-object", "--stdin-paths"], cwd=TEMPLATE, input=paths, capture_output=True, text=True, check=True)
    return subprocess.run(
        ["git", "hash-object", "--stdin"], input=hashes.stdout + paths, cwd=TEMPLATE, capture_output=True, text=True, check=True
    ).stdout.strip()


def shrink(folder: Path) -> None:
    """Few functions, with many examples of each."""
    for name, count in SIZES.items():
        path = folder / "task" / f"{name}.jsonl"
        rows = read_jsonl(path)
        if name != "prompts":
            rows = [r for r in rows if function_of(r) in FUNCTIONS]
        write_jsonl(path, rows[:count])


def commit(folder: Path, message: str) -> None:
    must(folder, "git", "add", "--all")
    must(folder, "git", *AUTHOR, "commit", "--quiet", "--allow-empty", "--message", message)


def release(folder: Path) -> None:
    """The project's own model becomes what candidates are compared with, by the doors that a release uses.

    What a release would download from GitHub is put where the download is kept.
    """
    done = run(folder, "python", "-m", "slm", "gate")
    if done.code:
        raise RuntimeError(f"the healthy project fails its own gates:\n{done.log[-4000:]}")
    must(folder, "python", "-m", "slm", "release", "seal")
    commit(folder, "The first model")
    must(folder, "git", "tag", "v1")
    must(folder, "python", "-m", "slm", "release", "name", "sealed", "v1")
    entry = json.loads((folder / "released.json").read_text(encoding="utf-8"))["released"]
    kept = folder / ".cache" / "released"
    kept.mkdir(exist_ok=True)
    for name in (f"{json.loads((folder / 'sealed' / 'SEAL.json').read_text())['name']}.tar.gz", "predictions.jsonl"):
        what = "predictions_sha256" if name.startswith("predictions") else "package_sha256"
        shutil.copyfile(folder / "sealed" / name, kept / entry[what])
    shutil.rmtree(folder / "sealed")
    commit(folder, "Release v1")


LINKED = ("models", "dist")


def copy(healthy: Path, target: Path) -> Path:
    """A copy to plant in. Large files are shared by links (`own` before an edit), the rest is its own."""
    shutil.rmtree(target, ignore_errors=True)
    skip = {".resume", "logs", ".venv", ".dvc", ".cache", *LINKED}
    shutil.copytree(healthy, target, symlinks=True, ignore=lambda folder, names: skip & set(names) if Path(folder) == healthy else [])
    (target / ".dvc").mkdir()
    for path in (healthy / ".dvc").iterdir():
        if path.name == "cache":
            share(path, target / ".dvc" / "cache")
        elif path.is_file():
            shutil.copyfile(path, target / ".dvc" / path.name)
    for name in (*LINKED, ".cache"):
        share(healthy / name, target / name)
    os.symlink((healthy / ".venv").resolve(), target / ".venv")
    return target
