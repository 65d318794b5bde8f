"""The job that reports a verdict: it believes GitHub and the form of one file, and is run here as its workflow runs it, against a
small GitHub on loopback.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bake import bake
from tests.forge import Forge

HEAD, OTHER = "a" * 40, "b" * 40
ROW = {"name": "score", "severity": "block", "passed": True, "value": 0.9, "limit": 0.8, "why": "good: a@evil.com", "waived": None}
VERDICT: dict[str, Any] = {
    "passed": True,
    "gates": [ROW],
    "candidate": {"revision": HEAD, "weights_sha256": "0a"},
    "baseline": None,
    "weakened": [],
    "contract_sha256": "0b",
    "sandbox": "container",
    "changes": {"model": True, "judge": [], "params": []},
    "shown": None,
}
RUN = {"id": 1, "head_sha": HEAD, "head_branch": "change", "head_repository": {"full_name": "eve/slm", "owner": {"login": "eve"}}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bake(tmp_path_factory.mktemp("reporter") / "my-slm")


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    forge = Forge(tmp_path)
    for number, sha in ((7, HEAD), (8, OTHER)):
        head = {"label": "eve:change", "ref": "change", "sha": sha, "repo": {"full_name": "eve/slm"}}
        forge.pulls.append({"number": number, "state": "open", "head": head, "base": {"ref": "main", "sha": OTHER}})
    yield forge
    forge.shutdown()


@pytest.fixture
def report(project: Path, forge: Forge, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def report(verdict: Any = None, **beside: str) -> subprocess.CompletedProcess[str]:
        folder = project / "verdict"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        files = beside if verdict is None else {"verdict.json": json.dumps(verdict), **beside}
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        event = tmp_path / "event.json"
        event.write_text(json.dumps({"workflow_run": RUN}), encoding="utf-8")
        known = {"GITHUB_EVENT_PATH": str(event), "GITHUB_REPOSITORY": "acme/slm", "GITHUB_API_URL": forge.url, "PATH": os.environ["PATH"]}
        command = [sys.executable, "-S", "-m", "slm.ci.steps", "report"]
        return subprocess.run(command, cwd=project, env=known, capture_output=True, text=True, check=False)

    return report


def test_a_verdict_is_reported_to_the_pull_request_that_github_names(report: Callable, forge: Forge):
    """Files beside it name another pull request, and another text."""
    done = report(VERDICT, **{"pull.json": json.dumps({"number": 8, "head": HEAD}), "comment.md": "## forged\n"})
    assert done.returncode == 0, done.stderr
    (status,) = forge.statuses[HEAD]
    assert (status["state"], status["description"]) == ("success", "✅ The model passes its gates.")
    assert list(forge.comments) == [7]
    body = forge.comments[7][0]["body"]
    assert body.startswith("## ✅ The model passes its gates.") and "forged" not in body and "a@evil" not in body
    assert report(VERDICT | {"passed": False, "gates": [ROW | {"passed": False}]}).returncode == 0
    assert forge.statuses[HEAD][0]["state"] == "failure" and len(forge.comments[7]) == 1


@pytest.mark.parametrize(
    "verdict",
    [
        *(None, [], VERDICT | {"passed": False}, VERDICT | {"candidate": {"revision": OTHER}}, VERDICT | {"gates": 1}),
        *(VERDICT | {"gates": [ROW | {"passed": False}]}, VERDICT | {"html": "<b>"}, VERDICT | {"shown": {"processor": 1}}),
    ],
    ids=str,
)
def test_what_is_no_verdict_on_this_commit_is_an_error(verdict: Any, report: Callable, forge: Forge):
    done = report(verdict)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [row["state"] for row in forge.statuses[HEAD]] == ["error"]
    assert not forge.comments


def test_nobody_is_told_once_the_pull_request_has_moved_on(report: Callable, forge: Forge):
    forge.pulls[0]["head"]["sha"] = "c" * 40
    assert report(VERDICT).returncode == 0
    assert not forge.statuses and not forge.comments
