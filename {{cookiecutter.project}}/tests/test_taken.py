"""What a job that may write takes from an artifact, and from which runs: checked files, and nothing else."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from slm.ci.taken import check_main_run, take
from slm.errors import UserError

LOCK = "schema: '2.0'\nstages:\n  a:\n    cmd: python -m pipeline.a\n    params:\n      x.yaml: {}\n"
PARAMS = "# Why\nseed: 1\n\nmodels:  # which\n  source: wheel\n"
NAMES = ["reports/verdict.md", "dvc.lock", "params.yaml"]


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a run leaves it, beside a checkout that is the current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("params.yaml").write_text(PARAMS, encoding="utf-8")
    folder = tmp_path / "artifact"
    (folder / "reports").mkdir(parents=True)
    (folder / "reports" / "verdict.md").write_text("## ✅ passes\n| a | b |\n", encoding="utf-8")
    (folder / "dvc.lock").write_text(LOCK, encoding="utf-8")
    (folder / "params.yaml").write_text(PARAMS.replace("1", "2"), encoding="utf-8")
    return folder


@pytest.mark.twin
def test_three_files_are_taken_and_no_other(artifact: Path):
    (artifact / "slm" / "ci").mkdir(parents=True)
    (artifact / "slm" / "ci" / "steps.py").write_text("raise SystemExit", encoding="utf-8")
    (artifact / "base64.py").write_text("", encoding="utf-8")
    take(artifact, NAMES)
    assert sorted(p.as_posix() for p in Path().rglob("*") if p.is_file()) == sorted(NAMES)
    assert "seed: 2" in Path("params.yaml").read_text(encoding="utf-8")


def replace_by_link(path: Path) -> None:
    shutil.copyfile(path, path.with_name("real"))
    path.unlink()
    path.symlink_to("real")


FAULTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("dvc.lock", lambda p: p.unlink(), "is not there as a plain file"),
    "a link": ("dvc.lock", replace_by_link, "is not there as a plain file"),
    "a folder": ("dvc.lock", lambda p: (p.unlink(), p.mkdir()), "is not there as a plain file"),
    "huge": ("params.yaml", lambda p: p.write_bytes(bytes(5_000_001)), "is larger than"),
    "a long verdict": ("reports/verdict.md", lambda p: p.write_text("x" * 60_001), "is larger than"),
    "no text": ("reports/verdict.md", lambda p: p.write_bytes(b"\xff"), "not UTF-8"),
    "a control character": ("params.yaml", lambda p: p.write_text(f"{PARAMS}\x1b[31m"), r"U\+001B"),
    "an override of direction": (
        "dvc.lock",
        lambda p: p.write_text(f"{LOCK}# \u202e", encoding="utf-8"),
        r"U\+202E",
    ),
    "no lock": ("dvc.lock", lambda p: p.write_text("nonsense\n"), "is not what DVC writes"),
    "an empty lock": ("dvc.lock", lambda p: p.write_text(""), "is not what DVC writes"),
    "more than a lock": ("dvc.lock", lambda p: p.write_text(f"{LOCK}vars: [x]\n"), "is not what DVC writes"),
    "other parameters": ("params.yaml", lambda p: p.write_text("x: 1\n"), "its sections are not those"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.attack
def test_a_file_that_is_another_is_refused_and_nothing_taken(fault: str, artifact: Path):
    name, plant, said = FAULTS[fault]
    plant(artifact / name)
    with pytest.raises(UserError, match=said):
        take(artifact, NAMES)
    assert [p.name for p in Path().iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("name", ["../x.md", "/etc/passwd", "reports/../../x.md"])
@pytest.mark.attack
def test_a_name_that_leads_out_is_refused(name: str, artifact: Path):
    (artifact.parent / "x.md").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="leads out of"):
        take(artifact, [name])


# A run of main
GOOD = {
    "path": ".github/workflows/main.yml",
    "head_branch": "main",
    "event": "push",
    "conclusion": "success",
    "repository": {"full_name": "acme/slm"},
    "head_repository": {"full_name": "acme/slm"},
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a GitHub on loopback says of run 12."""
    answer = dict(GOOD)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/repos/acme/slm/actions/runs/12"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/slm")
    yield answer
    server.shutdown()


@pytest.mark.parametrize(
    "change", [{}, {"event": "workflow_dispatch"}, {"path": ".github/workflows/main.yml@refs/heads/main"}]
)
@pytest.mark.twin
def test_a_green_run_of_main_is_taken(change: dict[str, Any], run: dict[str, Any]):
    run.update(change)
    check_main_run("12", "main")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": ".github/workflows/pr.yml"}, "its workflow is '.github/workflows/pr.yml'"),
        ({"path": ".github/workflows/main.yml/../pr.yml"}, "its workflow is"),
        ({"path": None}, "its workflow is"),
        ({"head_branch": "change"}, "its branch is 'change', not main"),
        ({"event": "pull_request"}, "its event is 'pull_request'"),
        ({"event": "workflow_run"}, "its event is"),
        ({"conclusion": "failure"}, "its conclusion is 'failure'"),
        ({"conclusion": None}, "its conclusion is None"),
        ({"repository": {"full_name": "evil/slm"}}, "its repository is 'evil/slm'"),
        ({"head_repository": {"full_name": "evil/slm"}}, "its repository of the commit is 'evil/slm'"),
        ({"head_repository": None}, "its repository of the commit is None"),
    ],
)
@pytest.mark.attack
def test_any_other_run_is_refused(change: dict[str, Any], said: str, run: dict[str, Any]):
    run.update(change)
    with pytest.raises(UserError, match=said):
        check_main_run("12", "main")


@pytest.mark.parametrize("number", ["", "12/../13", "12 ", "-1", "١٢", "1" * 20, "12\n"])
@pytest.mark.attack
def test_what_is_no_number_is_not_asked_for(number: str, run: dict[str, Any]):
    with pytest.raises(UserError, match="is no ID of a run"):
        check_main_run(number, "main")
