"""One baked project, set up and run once with the quick profile; every chain test starts from it."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import bake

pytest_plugins = ["tests.worlds", "tests.remotes"]
QUICK = bake.TEMPLATE / "build" / "test-slm"
# What the quick run keeps of each split: few functions and many examples of each, so that a stub of the model learns some.
SIZES = {"train": 480, "validation": 60, "test": 40, "prompts": 40}
FUNCTIONS = ("set_lock", "control_media", "get_status", "none")


def environment() -> dict[str, str]:
    """The shell of a person who only followed the README; no variable of the template's own environment."""
    return {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}


def run(project: Path, *command: str, check: bool = True, offline: bool = False) -> subprocess.CompletedProcess:
    """Run a command in a project; `offline` takes every network but loopback away (Linux user namespaces)."""
    words = list(command)
    if offline and can_isolate():
        words = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up 2>/dev/null; exec "$@"', "sh", *words]
    done = subprocess.run(
        words, cwd=project, env=environment(), capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)} exited {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def can_isolate() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run(["unshare", "--map-root-user", "--net", "true"], capture_output=True, check=False).returncode == 0
    )


def python(project: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    folder = "Scripts" if sys.platform == "win32" else "bin"
    return run(project, str(project / ".venv" / folder / "python"), *arguments, check=check)


def shrink(project: Path) -> None:
    for name, count in SIZES.items():
        path = project / "task" / f"{name}.jsonl"
        rows = [r for r in path.read_text(encoding="utf-8").splitlines() if name == "prompts" or any(f'{f}\\"' in r for f in FUNCTIONS)]
        random.Random(0).shuffle(rows)
        path.write_text("\n".join(rows[:count]) + "\n", encoding="utf-8", newline="\n")


@pytest.fixture(scope="session")
def project() -> Path:
    """The quick project with its environment, not run yet."""
    sys.argv = ["tests.bake", str(QUICK)]
    bake.main()
    shrink(QUICK)
    run(QUICK, "make", "setup")
    run(QUICK, "make", "profile", "NAME=quick")
    run(QUICK, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--all", "--message", "Quick profile")
    return QUICK


@pytest.fixture(scope="session")
def chain(project: Path) -> Path:
    """The quick project after a whole `make repro`, with no network."""
    done = run(project, "make", "repro", offline=True)
    (project.parent / "test-repro.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    return project


@pytest.fixture
def copy(chain: Path, tmp_path: Path) -> Path:
    """A copy of the quick project to break; environment and DVC cache are shared."""
    target = tmp_path / "copy"
    skip = shutil.ignore_patterns(".venv", ".resume", "logs", "models", "__pycache__", ".pytest_cache")
    shutil.copytree(chain, target, ignore=skip, symlinks=True)
    os.symlink(chain / ".venv", target / ".venv")
    os.symlink(chain / "models", target / "models")
    return target


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))
