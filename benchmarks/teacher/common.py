"""What the parts of the benchmark share: the server, a project's parameters pointed at it, requests out of a file."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm.config.params import load_params
from slm.config.synthesis import Synthesize
from slm.task.definition import load_task
from slm.teacher.endpoint import EndpointTeacher, requests_of
from slm.teacher.store import Store
from teacher import PROJECT

OUTPUT = Path("build/bench/synthesis.json").resolve()

KEY = "sk-planted-0123456789"
SERVER = PROJECT / "tests" / "teacher_server.py"
Figures = dict[str, float]


class Server:
    def __init__(self, *flags: str) -> None:
        self._process = subprocess.Popen([sys.executable, str(SERVER), *flags], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def get(self, what: str) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}/{what}") as response:
            return json.load(response)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def settings(url: str, **endpoint: Any) -> Synthesize:
    """The project's own parameters, for the local server."""
    chosen = load_params(PROJECT / "params.yaml").synthesize.model_dump()
    chosen["endpoint"] |= {"base_url": f"{url}/v1", "model": "big", "api_key_env": "PLANTED_KEY", "ask_above_usd": None}
    chosen["endpoint"] |= {"response_format": "none", **endpoint}
    return Synthesize.model_validate(chosen | {"teacher": "endpoint"})


class File:
    """Requests of a file of prompts, one at a time, as often as they are asked for."""

    def __init__(self, path: Path, chosen: Synthesize) -> None:
        self._path, self._settings, self._task = path, chosen, load_task(PROJECT / "task" / "task.yaml")

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        with self._path.open(encoding="utf-8") as stream:
            for line in stream:
                yield requests_of(self._settings, self._task, [json.loads(line)["messages"]])[0]


def write_prompts(path: Path, count: int) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        for i in range(count):
            stream.write(
                json.dumps({"id": str(i), "messages": [{"role": "user", "content": f"turn on the light in room number {i}"}]}) + "\n"
            )
    return path


def teacher_of(chosen: Synthesize, store: Store) -> EndpointTeacher:
    return EndpointTeacher(chosen, load_task(PROJECT / "task" / "task.yaml"), store)


def ask(folder: Path, prompts: Path, url: str, **endpoint: Any) -> tuple[float, dict[str, str]]:
    """When all was on disk (seconds of the clock that the server uses), and why there is no answer."""
    chosen, store = settings(url, **endpoint), Store(folder / "answers.sqlite")
    try:
        failures = teacher_of(chosen, store).ask(File(prompts, chosen))
        return time.monotonic(), failures
    finally:
        store.close()


def child(code: str, **environment: str) -> subprocess.Popen[str]:
    head = f"import sys; sys.argv[1:] = [{str(PROJECT)!r}]; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\nfrom teacher.common import *\n"
    variables = os.environ | {"PLANTED_KEY": KEY} | environment
    return subprocess.Popen([sys.executable, "-c", head + code], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
