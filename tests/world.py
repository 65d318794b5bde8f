"""A repository on a small GitHub: pushes, pull requests, and its workflows run for real by act, on this host.

One third-party action is one small stand-in below tests/actions; the workflow files, their shell and their Python are those of
the project. What act cannot show is listed in docs/workflows.md of the project.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bake import TEMPLATE
from tests.forge import Forge

ACTIONS = TEMPLATE / "tests" / "actions"
ADDRESS = "https://github.com/acme/slm"
SECRET = "ghs_planted0123456789"
LOCKED_S = 60  # of silence without a child
AUTHOR = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
Row = dict[str, Any]


@dataclass
class Run:
    """jobs: name -> succeeded, for the jobs that ran; log: all that act printed; number: of the run; stopped: it was cut short."""

    jobs: dict[str, bool]
    log: str
    number: int
    stopped: bool = False

    @property
    def passed(self) -> bool:
        return bool(self.jobs) and all(self.jobs.values()) and not self.stopped

    @property
    def stages(self) -> set[str]:
        """The pipeline's stages that it ran."""
        return set(re.findall(r"Running stage '([^']+)'", self.log))

    @property
    def summary(self) -> str:
        """What its steps wrote into the run's summary."""
        return "\n".join(re.findall(r"⚙  Summary - (.*(?:\n(?!\[|time=).*)*)", self.log))


class World:
    def __init__(self, base: Path, folder: Path) -> None:
        """base: what `build_base` made; folder: an empty one for this world."""
        self.folder = folder
        self.origin = folder / "origin.git"
        shutil.copytree(base / "origin.git", self.origin)
        share(base / "cache", folder / "cache")
        self.artifacts = folder / "artifacts"
        self.artifacts.mkdir()
        self.forge = Forge(self.artifacts)
        self.numbers = itertools.count(1)
        (folder / "home").mkdir()
        (folder / "bin").mkdir()
        program = folder / "bin" / "gh"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ACTIONS / "gh.py"}" "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        (folder / "home" / ".gitconfig").write_text(
            f'[url "{self.origin.as_uri()}"]\n\tinsteadOf = {ADDRESS}\n[safe]\n\tdirectory = *\n[protocol "file"]\n\tallow = always\n',
            encoding="utf-8",
        )

    def close(self) -> None:
        self.forge.shutdown()

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR") or k.startswith(("PIP_", "SSL_", "MALLOC_"))}
        tools = str(Path(sys.executable).parent)
        # Whoever has no keys is not to ask the address where a cloud's machines find theirs.
        away = {"AWS_EC2_METADATA_DISABLED": "true", "ACT_ATTESTATIONS": str(self.folder / "attestations")}
        paths = os.pathsep.join([str(self.folder / "bin"), kept["PATH"], tools])
        return kept | away | {"HOME": str(self.folder / "home"), "PATH": paths}

    def git(self, folder: Path, *arguments: str) -> str:
        command = ["git", *AUTHOR, *arguments]
        done = subprocess.run(command, cwd=folder, env=self.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    def attest(self, seal: bytes, sha: str) -> None:
        """Say that main.yml sealed these bytes for this commit, as the action does it."""
        row = {"sha256": hashlib.sha256(seal).hexdigest(), "workflow": "main", "ref": "refs/heads/main", "sha": sha}
        with (self.folder / "attestations").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row | {"repository": "acme/slm"}) + "\n")

    def clone(self, name: str, revision: str = "main") -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        self.git(self.folder, "clone", "--quiet", ADDRESS, str(folder))
        self.git(folder, "checkout", "--quiet", revision)
        return folder

    def tip(self, branch: str = "main") -> str:
        return self.git(self.origin, "rev-parse", branch)

    def push(self, edit: Callable[[Path], None], message: str = "Change", branch: str = "main", start: str = "main") -> str:
        """Commit an edit and push it to a branch; returns the commit."""
        folder = self.clone("edit", start)
        edit(folder)
        self.git(folder, "add", "--all")
        self.git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
        self.git(folder, "push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}")
        return self.git(folder, "rev-parse", "HEAD")

    def pull(self, edit: Callable[[Path], None], title: str = "Change", branch: str = "change", owner: str = "stranger") -> Row:
        """A pull request with one commit."""
        head = self.push(edit, title, branch)
        number = self.forge.new_id()
        self.git(self.origin, "update-ref", f"refs/pull/{number}/head", head)
        name = f"{owner}/slm"
        pull = {
            "number": number,
            "state": "open",
            "title": title,
            "body": "",
            "head": {"label": f"{owner}:{branch}", "ref": branch, "sha": head, "repo": {"full_name": name}},
            "base": {"ref": "main", "sha": self.tip()},
        }
        self.forge.pulls.append(pull)
        return pull

    def act(
        self,
        workflow: str,
        event: str,
        payload: Row,
        folder: Path,
        job: str = "",
        secrets: Row | None = None,
        runner: Row | None = None,
        stop: Callable[[str], bool] | None = None,
        **variables: str,
    ) -> Run:
        """Run one workflow file of the checkout in `folder`.

        runner: what a runner of one's own has in its environment; stop: told the log so far, says when the runner is to die.
        """
        run = next(self.numbers)
        payload = {"repository": {"default_branch": "main", "full_name": "acme/slm"}} | payload
        path = self.folder / f"event-{run}.json"
        path.write_text(json.dumps(payload), encoding="utf-8")
        command = ["act", event, "--eventpath", str(path), "--workflows", f".github/workflows/{workflow}"]
        for label in ("ubuntu-latest", "ubuntu-24.04"):
            command += ["--platform", f"{label}=-self-hosted"]
        for text in re.findall(r"uses: (actions/[\w/-]+@[0-9a-f]{40})", self._all_workflows(folder)):
            name, commit = text.split("@")
            root = "/".join(name.split("/")[:2])
            command += ["--local-repository", f"{root}@{commit}={ACTIONS / root.split('/')[1]}"]
        if job:
            command += ["--job", job]
        numbers = (runner or {}) | {"GITHUB_RUN_ID": str(run), "GITHUB_API_URL": self.forge.url, "ACT_SHIM": str(ACTIONS / "shim.py")}
        numbers |= {"ACT_CACHE": str(self.folder / "cache"), "ACT_ARTIFACTS": str(self.artifacts)}
        numbers |= {"ACT_ATTESTATIONS": str(self.folder / "attestations")}
        numbers |= {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.forge.url}/identity?v=1", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "may-ask"}
        for key, value in numbers.items():
            command += ["--env", f"{key}={value}"]
        for key, value in ({"SLM_SANDBOX": "namespaces"} | variables).items():  # there is no Docker on this host
            command += ["--var", f"{key}={value}"]
        for key, value in ({"GITHUB_TOKEN": SECRET} | (secrets or {})).items():
            command += ["--secret", f"{key}={value}"]
        command += ["--cache-server-addr", "127.0.0.1"]
        log, stopped = _watched(command, folder, self.environment(), self.folder / f"log-{run}", stop)
        jobs = {
            m[1].strip(): m[2] == "succeeded" for m in re.finditer(r"^\[[^/\]]+/([^\]]+)\].*🏁  Job (succeeded|failed)", log, re.MULTILINE)
        }
        done = Run(jobs, log, run, stopped)
        here = {"full_name": "acme/slm"}
        self.forge.runs[run] = {
            "path": f".github/workflows/{workflow}",
            "event": event,
            "head_branch": "main",
            "conclusion": "success" if done.passed else "failure",
            "repository": here,
            "head_repository": here,
        }
        return done

    def _all_workflows(self, folder: Path) -> str:
        paths = [*(folder / ".github").rglob("*.yml")]
        return "\n".join(p.read_text(encoding="utf-8") for p in paths)

    def check(self, pull: Row, job: str = "", **options: Any) -> Run:
        """pr.yml, on the merge of the pull request into main, as GitHub checks it out.

        Of the body's tests one file runs: tests/test_chain.py runs them all, which takes minutes.
        """
        options["runner"] = {"PYTEST_ADDOPTS": "tests/test_scoring.py"} | (options.get("runner") or {})
        folder = self.clone(f"merge-{pull['number']}")
        self.git(folder, "fetch", "--quiet", "origin", f"refs/pull/{pull['number']}/head")
        self.git(folder, "merge", "--quiet", "--no-ff", "--no-edit", "FETCH_HEAD")
        event = {"action": "opened", "number": pull["number"], "pull_request": pull}
        return self.act("pr.yml", "pull_request", event, folder, job, **options)

    def opened(self, pull: Row) -> Run:
        """verdict.yml, as GitHub starts it when a pull request is opened or pushed to."""
        return self.act("verdict.yml", "pull_request_target", {"action": "opened", "pull_request": pull}, self.clone("opened"))

    def workflow_run(self, pull: Row, run: Run) -> Row:
        owner = pull["head"]["label"].split(":")[0]
        return {
            "id": run.number,
            "event": "pull_request",
            "conclusion": "cancelled" if run.stopped else "success" if run.passed else "failure",
            "head_sha": pull["head"]["sha"],
            "head_branch": pull["head"]["ref"],
            "head_repository": {"id": 7, "full_name": f"{owner}/slm", "owner": {"login": owner}},
        }

    def judge(self, pull: Row, run: Run, **variables: str) -> Run:
        """verdict.yml, on main, after a run of pr.yml."""
        folder = self.clone(f"judge-{pull['number']}")
        return self.act("verdict.yml", "workflow_run", {"workflow_run": self.workflow_run(pull, run)}, folder, **variables)

    def offer(self, model: Path | None) -> Run:
        """A run of pr.yml that left the files of `model` as its package, whatever it did."""
        run = next(self.numbers)
        if model is not None:
            target = self.artifacts / str(run)
            target.mkdir()
            shutil.make_archive(str(target / "candidate"), "zip", model)
        return Run({"pass": True}, "", run)

    def lock(self, run: Run) -> bytes:
        """dvc.lock as a run has left it for the author."""
        with zipfile.ZipFile(self.artifacts / str(run.number) / "lock.zip") as zipped:
            assert zipped.namelist() == ["dvc.lock"]
            return zipped.read("dvc.lock")

    def status(self, pull: Row) -> str | None:
        rows = self.forge.statuses.get(pull["head"]["sha"])
        return rows[0]["state"] if rows else None

    def comment(self, pull: Row) -> str:
        rows = self.forge.comments.get(pull["number"], [])
        return rows[-1]["body"] if rows else ""


def _watched(
    command: list[str], folder: Path, environment: Row, path: Path, stop: Callable[[str], bool] | None, again: bool = True
) -> tuple[str, bool]:
    """The output of a command, and whether it was killed with all that it had started, as when a runner dies.

    act can lock itself up when a step's terminal is closed (seen once in some thousand runs): it has no child, and says nothing more. Then it
    is killed and begins again, once.
    """
    stopped, locked, said, heard = False, False, 0, time.monotonic()
    with path.open("wb") as stream, subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=stream) as process:
        runner = psutil.Process(process.pid)
        while not (stopped or locked) and process.poll() is None:
            time.sleep(0.1)
            size = path.stat().st_size
            if size > said:
                said, heard = size, time.monotonic()
            elif time.monotonic() - heard > LOCKED_S:
                heard = time.monotonic()
                if locked := not runner.children():
                    runner.kill()
            if stop and (stopped := stop(path.read_text(encoding="utf-8", errors="replace"))):
                for one in (runner, *runner.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
    log = path.read_text(encoding="utf-8", errors="replace")
    if locked:
        assert again, f"act locked itself up twice:\n{log[-2000:]}"
        return _watched(command, folder, environment, path, stop, again=False)
    return log, stopped


def share(source: Path, target: Path) -> None:
    """A copy that shares its bytes where the file system lets it."""
    done = subprocess.run(["cp", "--archive", "--link", str(source), str(target)], capture_output=True, check=False)
    if done.returncode:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "--archive", str(source), str(target)], check=True)


def build_base(project: Path, base: Path, gates: str) -> None:
    """The repository of a project whose pipeline has run: origin, and the caches that its main branch has left."""
    base.mkdir(parents=True)
    seed = base / "seed"
    run = lambda *words, cwd=seed: subprocess.run(words, cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()  # noqa: E731
    run("git", "clone", "--quiet", str(project), str(seed), cwd=base)
    shutil.copyfile(project / "dvc.lock", seed / "dvc.lock")
    (seed / "gates.yaml").write_text(gates, encoding="utf-8")
    run("git", "add", "--all")
    run("git", *AUTHOR, "commit", "--quiet", "--message", "The first model")
    run("git", "clone", "--quiet", "--bare", str(seed), str(base / "origin.git"), cwd=base)
    cache = base / "cache"
    cache.mkdir()
    paths = [*sorted((seed / "requirements").glob("*.txt")), seed / ".dvc" / "config", seed / "bootstrap.py"]
    joined = b"".join(p.read_bytes() for p in paths)
    (cache / f"environment-Linux-{_arch()}-here-{_short(joined)}").symlink_to(project / ".venv")
    (cache / f"base-{_short((seed / 'params.yaml').read_bytes())}").symlink_to(project / ".cache")
    dvc = cache / f"dvc-{_short((seed / 'dvc.lock').read_bytes())}"
    share(project / ".dvc" / "cache", dvc)


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _arch() -> str:
    return {"x86_64": "X64", "aarch64": "ARM64"}[os.uname().machine]
