"""The developer's tools, each run as a program of this environment."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from slm.cli.stages import exit_with
from slm.errors import UserError
from slm.processes import run_child

REQUIREMENTS = Path("requirements")
# Name of a lock, and what uv is told beside what is told for all.
LOCKS = {
    "locked": [
        *("--no-emit-package", "torch", "--overrides", "requirements/no-cuda.txt"),
        *("-c", "requirements/torch.txt"),
    ],
    "uv": [],
    "olive-overlay": ["--no-deps"],
    "remotes": ["-c", "requirements/locked.txt"],
    "serve": ["-c", "requirements/locked.txt"],
    "qlora": ["--no-deps"],
    "deepspeed": ["--no-deps"],
    "entra": ["-c", "requirements/locked.txt"],
    "ray": ["-c", "requirements/locked.txt"],
    "docs": ["-c", "requirements/locked.txt"],
    "signing": [],
}  # fmt: skip
SOURCES = {"locked": "project"}  # where the source of a lock has another name


def run_tool(name: str, *arguments: str) -> None:
    exit_with(run_child(sys.executable, "-m", name, *arguments))


def lint_project() -> None:
    run_tool("ruff", "check", ".")
    run_tool("ruff", "format", "--check", ".")
    run_tool("mypy")
    if shutil.which("lint-imports") is None:
        raise UserError("import-linter is not installed: run `python bootstrap.py`")
    exit_with(run_child("lint-imports"))


def build_docs(serve: bool) -> None:
    if find_spec("mkdocs") is None:
        raise UserError("the packages of the documentation are not installed: run `slm extra docs`")
    run_tool("mkdocs", *(["serve"] if serve else ["build"]), "--strict")


def renew_locks() -> None:
    options = ["--universal", "--python-version", "3.11", "--generate-hashes"]
    options += ["--no-header", "--no-annotate", "--no-emit-find-links"]
    for name, more in LOCKS.items():
        source = REQUIREMENTS / f"{SOURCES.get(name, name)}.in"
        if source.exists():
            target = (REQUIREMENTS / f"{name}.txt").as_posix()
            run_tool("uv", "pip", "compile", "-q", *options, *more, source.as_posix(), "-o", target)


def install_extra(name: str) -> None:
    lock = REQUIREMENTS / f"{name}.txt"
    # An extra is named by what asks for it; the other locks are set-up's.
    set_up = ("project", "olive-overlay", "uv")
    known = sorted(p.stem for p in REQUIREMENTS.glob("*.in") if p.stem not in set_up)
    if name not in known or not lock.exists():
        raise UserError(f"no extra {name!r}; there are: {', '.join(known)}")
    options = ["--no-deps", "--no-build-isolation", "--require-hashes"]
    run_tool("uv", "pip", "install", "--python", sys.executable, *options, "-r", lock.as_posix())
