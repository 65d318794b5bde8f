"""The way to Azure ML and back, with a stand-in for `az`: what is refused before anything starts, what is
brought, what is not.
"""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from slm.ci import azureml as azure
from slm.errors import UserError

ROOT = Path(__file__).parent.parent
REMOTE = (
    "[core]\n    remote = storage\n['remote \"storage\"']\n    url = azure://models/dvc\n    account_name "
    "= acme\n"
)


class Azure:
    """Answers for `az`: the states in which the job is found, and the files that it has handed back."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.states = ["Running", "Completed"]
        self.files = dict.fromkeys(azure.PROPOSAL, "new\n")

    def __call__(self, *arguments: str, check: bool = True, show: bool = False) -> str:
        self.calls.append(arguments)
        if arguments[:3] == ("ml", "job", "show"):
            return self.states.pop(0)
        if arguments[:3] == ("ml", "job", "download"):
            folder = Path(arguments[arguments.index("--download-path") + 1]) / "named-outputs" / "proposal"
            for name, text in self.files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
        return ""

    def said(self, *words: str) -> list[tuple[str, ...]]:
        return [c for c in self.calls if c[: len(words)] == words]


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Azure:
    """A project with a remote in the current folder, a job of a workflow around it, and Azure behind `az`."""
    az = Azure()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(REMOTE, encoding="utf-8")
    (tmp_path / "dvc.lock").write_text("old\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in azure.VARIABLES:
        monkeypatch.setenv(name, f"my-{name.removeprefix('AZURE_').lower()}")
    for name, value in {
        "GITHUB_RUN_ID": "7",
        "GITHUB_RUN_ATTEMPT": "2",
        "RUNNER_TEMP": ".",
        "GITHUB_OUTPUT": "output",
    }.items():
        monkeypatch.setenv(name, value)
    tokens = (f"token{i}" for i in range(9))
    monkeypatch.setattr(azure, "identity_token", lambda: next(tokens))
    monkeypatch.setattr(azure, "az", az)
    monkeypatch.setattr(azure, "PAUSE_S", 0)
    return az


@pytest.mark.parametrize("name", azure.VARIABLES)
def test_a_missing_variable_is_named_and_nothing_starts(
    name: str, az: Azure, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, " ")
    with pytest.raises(UserError, match=f"^not set: {name}; add it to the repository"):
        azure.submit()
    assert az.calls == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    remote = storage\n", "", "no DVC remote"),
        ("azure://models", "s3://models", "remote 'storage' is s3://models/dvc"),
        ("    account_name = acme\n", "", "remote 'storage' has no account_name"),
    ],
)
def test_a_remote_that_the_job_cannot_open_is_refused_and_nothing_starts(
    old: str, new: str, said: str, az: Azure
):
    assert old in REMOTE
    azure.DVC_CONFIG.write_text(REMOTE.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=said) as error:
        azure.submit()
    assert "dvc remote modify" in str(error.value)
    assert az.calls == []


def test_a_job_is_started_followed_with_new_tokens_and_its_files_brought(
    az: Azure, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PROFILE", "full")
    azure.submit()
    (create,) = az.said("ml", "job", "create")
    assert {
        "compute=azureml:my-compute",
        "environment_variables.PROFILE=full",
        "train-7-2",
        "my-workspace",
        "my-resource_group",
    } < set(create)
    assert [c[c.index("--federated-token") + 1] for c in az.said("login")] == ["token0", "token1", "token2"]
    assert len(az.said("ml", "job", "stream")) == 2  # the first broke off while the job was running
    assert all(Path(name).read_text(encoding="utf-8") == "new\n" for name in azure.PROPOSAL)
    assert Path("output").read_text(encoding="utf-8") == "verdict=yes\n"


def test_of_a_failed_job_only_the_verdict_is_brought(az: Azure):
    az.states = ["Failed"]
    with pytest.raises(UserError, match=r"train-7-2 ended as Failed: .*nothing is proposed"):
        azure.submit()
    assert Path(azure.VERDICT_MARKDOWN).read_text(encoding="utf-8") == "new\n"
    assert Path("dvc.lock").read_text(encoding="utf-8") == "old\n"


def test_a_job_that_hands_back_too_little_is_refused(az: Azure):
    del az.files["dvc.lock"]
    with pytest.raises(UserError, match=r"handed back no dvc\.lock; nothing is proposed"):
        azure.submit()


@pytest.mark.parametrize(
    ("started", "state", "ends"),
    [(False, "Running", 0), (True, "Running", 1), (True, "Failed", 0), (True, "", 0)],
)
def test_a_job_that_still_runs_is_ended(started: bool, state: str, ends: int, az: Azure):
    if started:
        azure.started().touch()
    az.states = [state]
    azure.cancel()
    assert len(az.said("ml", "job", "cancel")) == ends
    assert bool(az.calls) == started


def test_without_the_right_to_a_token_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL", raising=False)
    with pytest.raises(UserError, match="permissions: id-token: write"):
        azure.identity_token()


def test_the_token_is_asked_for_azure_and_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"value": "signed"}')

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            f"http://127.0.0.1:{server.server_address[1]}/token?api-version=2.0",
        )
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "bearer")
        assert azure.identity_token() == "signed"
        server.shutdown()
    assert asked == [("/token?api-version=2.0&audience=api%3A%2F%2FAzureADTokenExchange", "Bearer bearer")]
    assert capsys.readouterr().out == "::add-mask::signed\n"


COMMAND = """#!/bin/sh
echo "$*" >> calls
case "$1" in
  restore) mkdir -p reports && echo verdict > reports/verdict.md && echo lock > dvc.lock ;;
  gate) exit "$REFUSED" ;;
esac
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Azure ML runs it on Linux")
@pytest.mark.parametrize(
    ("refused", "calls"),
    [
        (0, ["bootstrap.py", "profile", "restore", "gate", "push"]),
        (1, ["bootstrap.py", "profile", "restore", "gate"]),
    ],
)
def test_the_job_hands_back_what_passed_and_of_the_rest_the_verdict(
    refused: int, calls: list[str], tmp_path: Path
):
    for name in ("python3", "slm"):
        stub = tmp_path / "bin" / name
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(COMMAND, encoding="utf-8")
        stub.chmod(0o755)
    (tmp_path / "params.yaml").touch()
    variables = {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "REFUSED": str(refused),
    }
    command = ["bash", str(ROOT / "azureml" / "train.sh"), str(tmp_path / "out")]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=variables | {"PROFILE": "full", "BUDGET": "330"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == refused, done.stderr
    said = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in said] == calls
    assert {"profile full", "restore --budget 330"} < set(said)
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == ({azure.VERDICT_MARKDOWN} if refused else set(azure.PROPOSAL))
