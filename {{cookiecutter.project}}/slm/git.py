"""What git knows of this checkout and its commits. Standard library only: a job that may write installs
nothing.
"""

import base64
import os
import subprocess
from pathlib import Path

from slm.errors import UserError


def git(*arguments: str) -> str:
    """Output of a git command; with the token of a workflow's job, where it has one: a private repository
    asks for it.
    """
    environment = dict(os.environ)
    token = environment.get("GITHUB_TOKEN")
    if token:
        secret = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        environment |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{server}/.extraheader",
            "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {secret}",
        }
    command = ["git", "-c", "core.quotepath=off", *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout


def git_line(*arguments: str) -> str | None:
    """Output of a git command without outer blanks; None where git refuses."""
    try:
        return git(*arguments).strip()
    except UserError:
        return None


def file_at(revision: str | None, path: str) -> str | None:
    """Text of a file in a commit, or in this checkout (None); None where it is not there."""
    if revision is None:
        return Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).exists() else None
    done = subprocess.run(
        ["git", "show", f"{revision}:./{path}"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def changed_files(base: str, head: str) -> list[str]:
    """Paths that differ between the merge base and `head`."""
    return [
        p
        for p in git("diff", "--name-only", "--no-renames", "--relative", "-z", f"{base}...{head}").split(
            "\0"
        )
        if p
    ]


def differing(base: str, head: str | None, *paths: str) -> list[str]:
    """Files that git knows and that differ between `base` and `head`, or this checkout."""
    revisions = [base] if head is None else [base, head]
    return [
        p
        for p in git(
            "diff", "--name-only", "--no-renames", "--relative", "-z", *revisions, "--", *paths
        ).split("\0")
        if p
    ]
