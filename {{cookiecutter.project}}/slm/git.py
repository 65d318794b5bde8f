"""What git knows of this checkout and its commits. Standard library only: a job that may write installs
nothing.
"""

import base64
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from slm.errors import UserError


def run_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a git command to its end; with the token of a workflow's job, where it has one: a private
    repository asks for it. A name that is no UTF-8 has U+FFFD for what cannot be read.
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
    return subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def git(*arguments: str) -> str:
    """Output of a git command."""
    done = run_git(*arguments)
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
    """Text of a file in a commit or a tree, or in this checkout (None); None where it is not there."""
    if revision is None:
        return Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).exists() else None
    done = run_git("cat-file", "blob", f"{revision}:./{path}")
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True)
class Merged:
    """What a merge of two commits would make. tree: its files; conflicts: paths that git cannot merge."""

    tree: str
    conflicts: list[str]


def merge_of(base: str, head: str) -> Merged:
    """Merge `head` into `base` as GitHub does, without a checkout; commits without a common history too."""
    command = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z")
    done = run_git(*command, "--allow-unrelated-histories", base, head)
    tree, *conflicts = [field for field in done.stdout.split("\0") if field] or [""]
    if done.returncode not in (0, 1) or not tree:
        raise UserError(
            f"git merge-tree: {done.stderr.strip()[-300:]}; git 2.38 or newer and both commits are needed"
        )
    return Merged(tree, sorted(set(conflicts)))


def changed_files(before: str, after: str) -> dict[str, bool]:
    """Paths that differ between two commits or trees, with whether each is a plain file on both sides where
    it is there: a link or a submodule is not. No attribute and no setting of the repository hides one.
    """
    fields = git(
        *("diff-tree", "-r", "--raw", "-z", "--no-renames", "--ignore-submodules=none", "--relative"),
        *(before, after),
    ).split("\0")
    plain = {"000000", "100644", "100755"}
    return {
        path: {*said.removeprefix(":").split(" ")[:2]} <= plain
        for said, path in zip(fields[::2], fields[1::2], strict=False)
    }


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
