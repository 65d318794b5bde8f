"""DVC's command line, and what its status says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from slm.errors import UserError

# What is not here but whose hash is in the lock is no change: it can be pulled or made again, to the same
# bytes.
ABSENT = {"deleted", "not in cache"}


def dvc_status(checkout: Path = Path()) -> dict[str, list[Any]]:
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(
        command, cwd=checkout, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise UserError(f"dvc status: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout or "{}")


def absent(how: Any) -> bool:
    return isinstance(how, str) and how in ABSENT


def out_of_lock(status: dict[str, list[Any]]) -> dict[str, list[str]]:
    """Stages whose lock entry does not fit the files: stage -> what differs."""
    stale: dict[str, list[str]] = {}
    for name, entries in status.items():
        for entry in entries:
            if isinstance(entry, str):  # "changed command", "always changed"
                stale.setdefault(name, []).append(entry)
                continue
            for kind, paths in entry.items():
                if isinstance(paths, dict):
                    found = [_say(path, how) for path, how in paths.items() if not absent(how)]
                else:
                    found = [f"{kind}: {paths}"]
                if found:
                    stale.setdefault(name, []).extend(found)
    return stale


def _say(path: str, how: Any) -> str:
    return f"{path} ({', '.join(how) if isinstance(how, dict) else how})"


def lacking(status: dict[str, list[Any]]) -> set[str]:
    """Stages with an output that is neither here nor in the cache."""
    return {
        name
        for name, entries in status.items()
        for entry in entries
        if isinstance(entry, dict) and any(absent(how) for how in (entry.get("changed outs") or {}).values())
    }


def dvc(*arguments: str, folder: Path = Path(), remedy: str = "") -> None:
    """Run a DVC command in a checkout, its output shown; what fails names the remedy."""
    code = try_dvc(*arguments, folder=folder)
    if code:
        place = "" if folder == Path() else f"{folder}: "
        raise UserError(f"{place}`dvc {' '.join(arguments)}` failed, see above{remedy and f'; {remedy}'}")


def try_dvc(*arguments: str, folder: Path = Path()) -> int:
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=False).returncode
