"""The endpoint teacher through the stage's door, against a local OpenAI-compatible server: paid answers are kept, keys are written nowhere."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.bake import TEMPLATE
from tests.conftest import copy_of, environment, install_extra, python, run

pytestmark = pytest.mark.slow
KEY = "sk-planted-by-the-template"
Serve = Callable[..., "Server"]


class Server:
    """The body's own test server, in a process of its own."""

    def __init__(self, *flags: str) -> None:
        path = TEMPLATE / "{{cookiecutter.project}}" / "tests" / "teacher_server.py"
        self.process = subprocess.Popen([sys.executable, str(path), *flags], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())

    def stats(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats") as response:
            return json.load(response)


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(*flags: str) -> Server:
        servers.append(Server(*flags))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def asked(project: Path, tmp_path: Path) -> Path:
    """A copy of the baked project, in which nothing was run: the stage needs the task alone."""
    copy = copy_of(project, tmp_path / "copy")
    shutil.rmtree(copy / "data", ignore_errors=True)  # left by the chain, which shares the project
    return copy


def point_to(copy: Path, port: int, **changes: Any) -> None:
    yaml = YAML()
    params = yaml.load((copy / "params.yaml").read_text(encoding="utf-8"))
    params["synthesize"]["teacher"] = "endpoint"
    local = {"base_url": f"http://127.0.0.1:{port}/v1", "model": "big", "api_key_env": "PLANTED_KEY", "concurrency": 4, "attempts": 2}
    params["synthesize"]["endpoint"].update(local | {"price": {"input": 1.0, "output": 2.0}} | changes)
    yaml.dump(params, copy / "params.yaml")


def synthesize(copy: Path, key: str | None = KEY):
    os.environ.pop("PLANTED_KEY", None)
    if key:
        os.environ["PLANTED_KEY"] = key
    assert ("PLANTED_KEY" in environment()) == bool(key)
    return python(copy, "-m", "pipeline.synthesize", check=False)


def records(copy: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (copy / "data" / "synthetic.jsonl").read_text(encoding="utf-8").splitlines()]


def assert_no_key(copy: Path, *said: str) -> None:
    for path in copy.rglob("*"):
        if path.is_file() and ".venv" not in path.parts and not path.is_symlink():
            assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in "".join(said)


def test_answers_are_recorded_kept_and_never_asked_again(asked: Path, serve: Serve):
    server = serve("--faults", '["ok", "ok", "429_wait"]')
    point_to(asked, server.port)
    done = synthesize(asked)
    assert done.returncode == 0, done.stderr
    rows = records(asked)
    assert server.stats()["refused"] == 1 and server.stats()["asked"] == len(rows) + 1
    assert all(r["provenance"]["model"] == "big" and r["provenance"]["request_id"].startswith("chatcmpl-") for r in rows)
    assert all(r["provenance"]["usage"]["completion_tokens"] == 5 and r["dropped"] is None for r in rows)
    assert f"{len(rows)} requests to send" in done.stderr and "at most 0." in done.stderr
    before = (asked / "data" / "synthetic.jsonl").read_bytes()
    server.process.kill()
    again = synthesize(asked, key=None)  # a replay: no key, no server
    assert again.returncode == 0, again.stderr
    assert (asked / "data" / "synthetic.jsonl").read_bytes() == before
    ledger = python(asked, "-m", "slm", "teacher", "ledger").stdout.splitlines()
    assert ledger[-1].split()[1:4] == [str(len(rows)), str(10 * len(rows)), str(5 * len(rows))] and f"{len(rows)}" in ledger[-2].split()
    assert_no_key(asked, done.stdout, done.stderr)


def test_answers_go_to_another_machine(asked: Path, serve: Serve, tmp_path: Path, project: Path):
    point_to(asked, serve().port)
    assert synthesize(asked).returncode == 0
    python(asked, "-m", "slm", "teacher", "export", "answers/teacher.jsonl.gz")
    other = copy_of(project, tmp_path / "other")
    run(other, "cp", "-r", str(asked / "answers"), str(asked / "params.yaml"), ".")
    assert "new answers" in python(other, "-m", "slm", "teacher", "import", "answers/teacher.jsonl.gz").stdout
    assert synthesize(other, key=None).returncode == 0
    assert records(other) == records(asked)


def test_missing_key_dead_server_and_unknown_price_say_what_to_do(asked: Path, serve: Serve):
    server = serve()
    point_to(asked, server.port)
    done = synthesize(asked, key=None)
    assert done.returncode == 2 and "export PLANTED_KEY=" in done.stderr and "Traceback" not in done.stderr
    point_to(asked, server.port, price={"input": None, "output": None})
    done = synthesize(asked)
    assert done.returncode == 2 and "TEACHER_SPEND_USD" in done.stderr and server.stats()["asked"] == 0
    point_to(asked, 9)
    done = synthesize(asked)
    assert done.returncode == 2 and "cannot be reached" in done.stderr and "Traceback" not in done.stderr
    assert not (asked / "data" / "synthetic.jsonl").exists()


@pytest.mark.parametrize(
    ("fault", "code"),
    [("500_key", 2), ("401", 2), ("key_in_answer", 0), ("key_in_id", 0), ("wrong_schema", 0), ("refusal", 0), ("injection", 0)],
)
def test_what_an_endpoint_should_not_say_goes_no_further(asked: Path, serve: Serve, fault: str, code: int):
    point_to(asked, serve("--always", fault).port)
    os.environ["OPENAI_LOG"] = "debug"
    try:
        done = synthesize(asked)
    finally:
        del os.environ["OPENAI_LOG"]
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    if code == 0 and fault != "key_in_id":
        assert all(row["dropped"] for row in records(asked))
    assert_no_key(asked, done.stdout, done.stderr)


def test_a_budget_stops_the_stage_and_raising_it_goes_on(asked: Path, serve: Serve):
    server = serve()
    point_to(asked, server.port, budget={"usd": None, "tokens": None, "requests": 10})
    done = synthesize(asked)
    assert done.returncode == 2 and "raise synthesize.endpoint.budget.requests" in done.stderr and server.stats()["answered"] == 10
    point_to(asked, server.port, budget={"usd": None, "tokens": None, "requests": None})
    assert synthesize(asked).returncode == 0 and server.stats()["answered"] == len(records(asked))


def test_ctrl_c_keeps_what_is_paid(asked: Path, serve: Serve):
    server = serve("--latency", "0.3")
    point_to(asked, server.port, concurrency=2)
    command = [str(asked / ".venv" / "bin" / "python"), "-m", "pipeline.synthesize"]
    process = subprocess.Popen(command, cwd=asked, env=environment() | {"PLANTED_KEY": KEY}, stderr=subprocess.PIPE, text=True)
    while server.stats()["answered"] < 4:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate()
    paid = server.stats()["answered"]
    assert process.returncode == 2 and "run again" in said and "Traceback" not in said
    assert synthesize(asked).returncode == 0 and server.stats()["answered"] == len(records(asked)) and paid >= 4


def test_a_real_small_model_behind_an_endpoint_says_what_it_says_as_the_local_teacher(copy: Path):
    """The whole way with nothing recorded: a server over the project's own teacher answers, one over its base model writes new prompts."""
    local = {r["provenance"]["prompt"]: r["messages"][-1]["content"] for r in records(copy)}
    command = [str(copy / ".venv" / "bin" / "python"), str(TEMPLATE / "benchmarks" / "teacher" / "model_server.py"), str(copy)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            point_to(copy, int(server.stdout.readline()), response_format="none", price={"input": 0, "output": 0}, timeout_s=600)
            python(copy, "-c", "from slm.config.edit import rewrite; rewrite({'synthesize': {'generate': {'self_instruct': 10}}})")
            done = synthesize(copy)
        finally:
            server.kill()
    assert done.returncode == 0, done.stderr[-3000:]
    said = {r["provenance"]["prompt"]: r for r in records(copy) if "invented" not in r["provenance"]}
    assert set(said) == set(local)
    # A batch of other requests sums in another order: a stub of a model is undecided often enough for one answer to change.
    same = sum(said[name]["messages"][-1]["content"] == text for name, text in local.items())
    assert same >= 0.9 * len(local)
    assert all(r["provenance"]["usage"]["completion_tokens"] > 0 for r in said.values())
    written = [json.loads(line) for line in (copy / "data" / "invented.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written and all(row["provenance"]["usage"]["prompt_tokens"] > 100 for row in written)


@pytest.mark.full
@pytest.mark.parametrize(
    ("extra", "tests"),
    [
        ("entra", ["tests/test_asking.py", "-k", "entra or token or sign"]),
        ("ray", ["tests/test_engine.py"]),
        ("deepspeed", ["tests/test_processes.py", "-m", "slow", "-k", "ZeRO"]),
    ],
    ids=["entra", "ray", "deepspeed"],
)
def test_what_needs_packages_of_its_own(asked: Path, tmp_path: Path, extra: str, tests: list[str]):
    """The body's tests of it, which are skipped where requirements/*.txt of it are not installed."""
    target = tmp_path / "extra"
    install_extra(extra, asked, target)
    command = [str(asked / ".venv" / "bin" / "python"), "-m", "pytest", "-q", *tests]
    done = subprocess.run(command, cwd=asked, env=environment() | {"PYTHONPATH": str(target)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout[-3000:]
