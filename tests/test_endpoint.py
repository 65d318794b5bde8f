"""The endpoint teacher, against a local OpenAI-compatible server: paid answers are kept, keys are written nowhere."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import environment, run

pytestmark = pytest.mark.slow
KEY = "sk-planted-0123456789"


class Server(ThreadingHTTPServer):
    """Answers every request with one function call, and the third request first with 429."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = 0
        self.refused = False


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == f"Bearer {KEY}"
        self.server.asked += 1
        if self.server.asked == 3 and not self.server.refused:
            self.server.refused = True
            self.send_response(429)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        room = "kitchen" if len(request["messages"][-1]["content"]) % 2 else "office"
        name = {"name": "set_light", "arguments": {"room": room, "state": "on"}} if room == "kitchen" else {"name": "none", "arguments": {}}
        body = json.dumps(
            {
                "id": f"chatcmpl-{self.server.asked}",
                "object": "chat.completion",
                "created": 0,
                "model": request["model"],
                "choices": [{"index": 0, "message": {"role": "assistant", "content": json.dumps(name)}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def point_to(copy: Path, port: int) -> None:
    yaml = YAML()
    params = yaml.load((copy / "params.yaml").read_text(encoding="utf-8"))
    params["synthesize"]["teacher"] = "endpoint"
    params["synthesize"]["endpoint"].update(base_url=f"http://127.0.0.1:{port}/v1", model="big", api_key_env="PLANTED_KEY", concurrency=4)
    yaml.dump(params, copy / "params.yaml")


def synthesize(copy: Path, key: str | None = KEY):
    os.environ.pop("PLANTED_KEY", None)
    if key:
        os.environ["PLANTED_KEY"] = key
    assert ("PLANTED_KEY" in environment()) == bool(key)
    return run(copy, str(copy / ".venv" / "bin" / "python"), "-m", "pipeline.synthesize", check=False)


def test_answers_are_recorded_kept_and_never_asked_again(copy: Path, server: Server):
    point_to(copy, server.server_address[1])
    done = synthesize(copy)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (copy / "data" / "synthetic.jsonl").read_text(encoding="utf-8").splitlines()]
    assert server.refused and server.asked == len(rows) + 1
    assert all(r["provenance"]["model"] == "big" and r["provenance"]["request_id"].startswith("chatcmpl-") for r in rows)
    assert all(r["provenance"]["usage"]["completion_tokens"] == 5 and r["dropped"] is None for r in rows)
    asked, before = server.asked, (copy / "data" / "synthetic.jsonl").read_bytes()
    assert synthesize(copy).returncode == 0
    assert server.asked == asked
    assert (copy / "data" / "synthetic.jsonl").read_bytes() == before
    for path in copy.rglob("*"):
        if path.is_file() and ".venv" not in path.parts and not path.is_symlink():
            assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in done.stdout + done.stderr


def test_missing_key_and_dead_server_say_what_to_do(copy: Path, server: Server):
    point_to(copy, server.server_address[1])
    done = synthesize(copy, key=None)
    assert done.returncode == 2 and "export PLANTED_KEY=" in done.stderr and "Traceback" not in done.stderr
    point_to(copy, 9)
    before = (copy / "data" / "synthetic.jsonl").read_bytes()
    done = synthesize(copy)
    assert done.returncode == 2 and "cannot be reached" in done.stderr and "Traceback" not in done.stderr
    assert (copy / "data" / "synthetic.jsonl").read_bytes() == before
