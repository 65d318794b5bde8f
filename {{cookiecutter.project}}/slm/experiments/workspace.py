"""Copies of this checkout, in which a student is made with other parameters, by the stages themselves;
nothing of the checkout changes.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from slm.config.edit import rewrite
from slm.dvc_cli import DVC, dvc
from slm.files import replacing

RETRY = "run the same command again: it goes on where it stopped"
# What a student is made from: these stages' outputs come out of DVC's cache, and are made anew in no copy.
GIVEN = ("fetch", "check", "teach", "synthesize", "validate")


def copy(target: Path, overrides: dict[str, Any], without: Path | None = None) -> Path:
    """A copy of this checkout: its files as they are, and what a student is made from.

    Args:
        target: where; one that is already there is taken as it is.
        overrides: parameters that differ, nested as in params.yaml.
        without: a file that the copy does not get.
    """
    if target.exists():
        return target
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    where = subprocess.run(
        [*DVC, "cache", "dir"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    with replacing(target) as folder:
        for name in listed.stdout.split("\0"):
            if name and Path(name) != without and Path(name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(name, folder / name)
        dvc("config", "--local", "core.no_scm", "true", folder=folder, remedy=RETRY)
        dvc("cache", "dir", "--local", os.path.abspath(where.stdout.strip()), folder=folder, remedy=RETRY)
        lacking = "what the student is made from is not in DVC's cache: run `slm pull` or `slm repro`"
        dvc("checkout", "--quiet", *GIVEN, folder=folder, remedy=lacking)
        rewrite(overrides, folder / "params.yaml")
    return target
