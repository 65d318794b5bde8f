"""One baked project, set up and run once with the quick profile; every chain test starts from it."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests import bake
from tests.world import share

pytest_plugins = ["tests.worlds", "tests.remotes"]
QUICK = bake.TEMPLATE / "build" / "test-slm"
MADE = bake.TEMPLATE / "build" / "test-made"
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


def install_extra(name: str, project: Path, target: Path) -> None:
    """What `slm extra` would install, into a folder of its own: the project's environment is that of all tests."""
    options = ["--python", ".venv/bin/python", "--no-deps", "--no-build-isolation", "--require-hashes", "-r", f"requirements/{name}.txt"]
    python(project, "-m", "uv", "pip", "install", *options, "--target", str(target))


def shrink(project: Path) -> None:
    for name, count in SIZES.items():
        path = project / "task" / f"{name}.jsonl"
        rows = [r for r in path.read_text(encoding="utf-8").splitlines() if name == "prompts" or any(f'{f}\\"' in r for f in FUNCTIONS)]
        random.Random(0).shuffle(rows)
        path.write_text("\n".join(rows[:count]) + "\n", encoding="utf-8", newline="\n")


def once(name: str, testrun_uid: str, make: Callable[[], None]) -> None:
    """Make something that all workers of this run share; the others wait for the first."""
    build = bake.TEMPLATE / "build"
    build.mkdir(exist_ok=True)
    marker = build / f".{name}.made"
    with FileLock(build / f".{name}.lock"):
        if not marker.exists() or marker.read_text(encoding="utf-8") != testrun_uid:
            marker.unlink(missing_ok=True)
            make()
            marker.write_text(testrun_uid, encoding="utf-8")


def copy_of(project: Path, target: Path) -> Path:
    """A copy of a project to break; environment, DVC cache and models are shared."""
    skip = shutil.ignore_patterns(".venv", ".resume", "logs", "models", "__pycache__", ".pytest_cache")
    shutil.copytree(project, target, ignore=skip, symlinks=True)
    os.symlink(project / ".venv", target / ".venv")
    os.symlink(project / "models", target / "models")
    return target


@pytest.fixture(scope="session")
def project(testrun_uid: str) -> Path:
    """The quick project with its environment, not run yet."""

    def make() -> None:
        sys.argv = ["tests.bake", str(QUICK)]
        bake.main()
        shrink(QUICK)
        run(QUICK, "make", "setup")
        run(QUICK, "make", "profile", "NAME=quick")
        run(QUICK, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--all", "--message", "Quick profile")

    once("project", testrun_uid, make)
    return QUICK


@pytest.fixture(scope="session")
def chain(project: Path, testrun_uid: str) -> Path:
    """The quick project after a whole `make repro`, with no network."""

    def make() -> None:
        done = run(project, "make", "repro", offline=True)
        (project.parent / "test-repro.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        shutil.rmtree(MADE, ignore_errors=True)
        copy_of(project, MADE)
        (MADE / "models").unlink()
        share(project / "models", MADE / "models")

    once("chain", testrun_uid, make)
    return project


@pytest.fixture
def alone(chain: Path) -> Iterator[None]:
    """For tests that work in the project itself: one at a time, whichever worker runs them."""
    with FileLock(bake.TEMPLATE / "build" / ".alone.lock"):
        yield


@pytest.fixture(scope="session")
def made(chain: Path) -> Path:
    """A copy of the chain's project as `make repro` left it, while tests of the pipeline break and mend the project itself."""
    return MADE


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return copy_of(made, tmp_path / "copy")


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))
