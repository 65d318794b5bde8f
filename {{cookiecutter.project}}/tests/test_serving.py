"""The server in a network: who may ask, what is refused, and what ends when the client leaves."""

import asyncio
import contextlib
import inspect
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import openai
import pytest
from attacks import (
    BODY,
    FRIEND,
    TOKEN,
    Answer,
    OneTokenEach5Ms,
    attacks,
    connect,
    exchange,
    read_answers,
    request,
    whole,
)
from typer.testing import CliRunner

from slm.ci import container
from slm.cli.app import app as command_line
from slm.cli.model import serve_command
from slm.errors import UserError
from slm.serving import connection, server
from slm.serving.access import access_of, read_token
from slm.serving.turns import Turns

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def served(queue: int = 8, timeout_s: float = 60, token: str | None = TOKEN) -> Iterator[int]:
    """The port of a server in a thread."""
    port, turns = free_port(), Turns(queue, timeout_s)
    access = access_of("127.0.0.1", port, ("friend",), (FRIEND,), token)
    service = connection.Service(server.application(Path(), "tiny", access, turns), turns, "127.0.0.1", port)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        while not service.started:
            time.sleep(0.01)
        yield port
    finally:
        service.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GenAI", OneTokenEach5Ms)
    monkeypatch.delenv("SLM_TOKEN", raising=False)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connection, server):
        monkeypatch.setattr(module, "READ_S", 0.2)


@pytest.fixture
def tracebacks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What anything logs with a traceback."""
    found: list[str] = []
    handle = logging.Logger.handle

    def kept(self: logging.Logger, record: logging.LogRecord) -> None:
        if record.exc_info:
            found.append(logging.Formatter().format(record))
        handle(self, record)

    monkeypatch.setattr(logging.Logger, "handle", kept)
    return found


def asking(tokens: int) -> bytes:
    return json.dumps(json.loads(BODY) | {"max_tokens": tokens}).encode()


def error_of(answer: Answer) -> dict[str, Any]:
    assert answer.is_in_form
    return json.loads(answer.body)["error"]


@pytest.mark.attack
def test_every_attack_is_refused_and_its_twin_answered(hurry: None, tracebacks: list[str]):
    with served() as port:
        for name, (attack, status, twin) in attacks(port).items():
            answers = exchange(port, attack)
            assert answers and answers[0].status == status, name
            assert attack.startswith(b"HEAD") or all(a.is_in_form for a in answers), name
            assert b"Traceback" not in answers[0].body
            assert [a.status for a in exchange(port, twin)] == [200], name
        assert len(attacks(port)) > 60
    assert not tracebacks


def test_a_refusal_says_what_to_do():
    with served() as port:
        (refused,) = exchange(port, request(port, Authorization=None))
        assert refused.headers["www-authenticate"] == "Bearer"
        error = error_of(refused)
        assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")
        assert TOKEN not in refused.body.decode()
        for said, changed in (("--allow-host", {"Host": "evil"}), ("--allow-origin", {"Origin": "null"})):
            assert said in error_of(exchange(port, request(port, **changed))[0])["message"]


@pytest.mark.twin
def test_a_page_that_is_allowed_can_read_its_answers_and_its_errors():
    with served() as port:
        for changed, status in (({}, 200), ({"Authorization": None}, 401)):
            (answer,) = exchange(port, request(port, Origin=FRIEND, Sec_Fetch_Site="cross-site", **changed))
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, FRIEND)
        asked = {
            "Access_Control_Request_Method": "POST",
            "Access_Control_Request_Headers": "authorization, x-y",
        }
        (answer,) = exchange(port, request(port, "OPTIONS", Origin=FRIEND, Authorization=None, **asked))
        assert answer.headers["access-control-allow-headers"] == "authorization, x-y"
        (plain,) = exchange(port, request(port))
        assert "access-control-allow-origin" not in plain.headers


@pytest.mark.twin
def test_openais_client_has_the_token_and_its_errors():
    with served(queue=0) as port:
        address = f"http://127.0.0.1:{port}/v1"
        messages: Any = [{"role": "user", "content": "light"}]
        client = openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=0)
        assert client.models.list().data[0].id == "tiny"
        whole = client.chat.completions.create(model="tiny", messages=messages, max_tokens=2)
        assert whole.choices[0].message.content == "xx"
        parts = client.chat.completions.create(model="tiny", messages=messages, max_tokens=2, stream=True)
        assert "".join(p.choices[0].delta.content or "" for p in parts) == "xx"
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
            openai.OpenAI(base_url=address, api_key="x", max_retries=0).models.list()
        with connect(port) as busy:
            busy.sendall(request(port, body=asking(100)))
            time.sleep(0.1)
            with pytest.raises(openai.RateLimitError) as full:
                client.chat.completions.create(model="tiny", messages=messages)
            assert (full.value.code, full.value.response.headers["retry-after"]) == (
                "rate_limit_exceeded",
                "1",
            )
            patient = openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=3)
            patient.chat.completions.create(model="tiny", messages=messages, max_tokens=1)


def test_a_bug_is_no_traceback_for_the_client(tracebacks: list[str]):
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 13}]}).encode()
    with served() as port:
        (answer,) = exchange(port, request(port, body=body))
        assert (answer.status, error_of(answer)["type"]) == (500, "server_error")
        assert "bug" not in answer.body.decode() and "a bug" in "".join(tracebacks)
        assert exchange(port, request(port))[0].status == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.attack
def test_whoever_hangs_up_is_computed_for_no_more(stream: bool):
    """Ten ask for the longest answer and leave: one while it is answered, eight in the queue."""
    long = json.dumps(json.loads(BODY) | {"max_tokens": 2040, "stream": stream}).encode()
    with served() as port:
        clients = [connect(port) for _ in range(10)]
        for client in clients:
            client.sendall(request(port, body=long))
        time.sleep(0.3)
        for client in clients:
            client.close()
        time.sleep(0.05)
        start = time.perf_counter()
        assert exchange(port, request(port))[0].status == 200
        assert time.perf_counter() - start < 1
        assert len(OneTokenEach5Ms.asked) == 2  # the eight have never begun
        assert 1 < OneTokenEach5Ms.asked[0] < 100 and OneTokenEach5Ms.asked[1] == 3


@pytest.mark.attack
def test_a_client_that_sends_more_and_hangs_up_is_noticed():
    """With a second request in the buffer, the server does not read, and would not see the end."""
    with served() as port:
        with connect(port) as client:
            for _ in range(2):
                client.sendall(request(port, body=asking(2000), Connection="keep-alive"))
                time.sleep(0.1)
        assert exchange(port, request(port))[0].status == 200
        assert OneTokenEach5Ms.asked[0] < 100


@pytest.mark.attack
def test_the_queue_is_bounded_and_keeps_its_order():
    with served(queue=3) as port:
        clients = [connect(port) for _ in range(9)]
        for client in clients:
            client.sendall(request(port, body=asking(60)))
            time.sleep(0.02)
        answers = [read_answers(whole(client))[0] for client in clients]
        assert [a.status for a in answers] == [200] * 4 + [429] * 5
        error = error_of(answers[-1])
        assert (error["code"], error["type"]) == ("rate_limit_exceeded", "requests")
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert exchange(port, request(port))[0].status == 200


@pytest.mark.attack
def test_a_request_ends_in_time():
    with served(timeout_s=0.2) as port:
        start = time.perf_counter()
        (answer,) = exchange(port, request(port, body=asking(2000)))
        assert time.perf_counter() - start < 0.5
        assert (answer.status, answer.headers["x-should-retry"]) == (504, "false")
        assert error_of(answer)["code"] == "timeout"
        assert exchange(port, request(port))[0].status == 200


@pytest.mark.parametrize(
    ("cut", "statuses"),
    [(0, []), (10, [408]), (150, [408]), (-5, [408])],
    ids=["none", "line", "head", "body"],
)
@pytest.mark.attack
def test_a_slow_client_is_cut_off(cut: int, statuses: list[int], hurry: None):
    """It sends one byte at a time, which each for itself comes soon enough."""
    with served() as port:
        raw, start = request(port), time.perf_counter()
        with connect(port) as client, contextlib.suppress(OSError):
            client.sendall(raw[:cut] if cut else b"")
            for byte in (raw[cut:] if cut else b"") * 3:
                time.sleep(0.08)
                client.sendall(bytes([byte]))
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if client.recv(1, socket.MSG_PEEK) is not None:
                        break
                client.setblocking(True)
            client.settimeout(5)
            assert [a.status for a in read_answers(whole(client))] == statuses
        assert time.perf_counter() - start < 1


@pytest.mark.attack
def test_a_connection_that_goes_on_sending_after_its_answer_is_closed(hurry: None):
    with served() as port, connect(port) as client:
        client.sendall(
            request(port, Content_Length=None, Transfer_Encoding="chunked", Content_Type="x", body=b"")
        )
        start = time.perf_counter()
        with pytest.raises(OSError):
            while time.perf_counter() - start < 3:
                client.sendall(b"1\r\nx\r\n")
                time.sleep(0.01)
        assert time.perf_counter() - start < 1


@pytest.mark.attack
def test_requests_that_nobody_has_read_do_not_fill_the_memory():
    with served() as port, connect(port) as client:
        client.sendall(request(port, body=asking(2000), Connection="keep-alive"))
        with pytest.raises(OSError):
            for _ in range(200):
                client.sendall(b"x" * 50_000)
                time.sleep(0.01)


def test_requests_in_a_row_are_answered_in_a_row():
    with served() as port:
        raw = request(port, Connection="keep-alive") * 3 + request(port)
        assert [a.status for a in exchange(port, raw)] == [200] * 4


@pytest.mark.attack
def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 5)
    with served() as port:
        idle = [connect(port) for _ in range(5)]
        time.sleep(0.1)
        (answer,) = exchange(port, b"")
        assert answer.status == 503 and error_of(answer)["type"] == "server_error"
        for client in idle:
            client.close()
        time.sleep(0.1)
        assert exchange(port, request(port))[0].status == 200


STARTED = """
import sys, time
sys.path.insert(0, "tests")
import attacks
from slm.serving import server
server.GenAI = attacks.OneTokenEach5Ms
server.main()
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals")
def test_a_signal_ends_it_within_a_second(sent: signal.Signals, tmp_path: Path):
    port = free_port()
    command = [sys.executable, "-c", STARTED, "--model", str(tmp_path), "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while True:
            with contextlib.suppress(OSError):
                connect(port).close()
                break
            assert process.poll() is None
            time.sleep(0.1)
        long, part = connect(port), connect(port)
        long.sendall(request(port, body=asking(5000)))
        part.sendall(request(port)[:-5])
        time.sleep(0.2)
        start = time.perf_counter()
        process.send_signal(sent)
        answer = read_answers(whole(long))[0]
        assert process.wait(5) == 0 and time.perf_counter() - start < 2
        assert (answer.status, error_of(answer)["type"]) == (503, "server_error")
        part.close()
        assert process.stderr and "Traceback" not in process.stderr.read()


# Where it may start
@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "model.example.org", "", "127.0.0.1.evil.com"]
)
@pytest.mark.attack
def test_an_address_of_others_needs_a_token(host: str, tmp_path: Path):
    with pytest.raises(UserError, match="SLM_TOKEN or name a file with --token-file"):
        server.serve(tmp_path, server.Terms(host=host, port=free_port()))
    assert access_of(host, 80, (), (), TOKEN).token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LocalHost"])
@pytest.mark.twin
def test_an_address_of_this_machine_needs_none(host: str):
    assert access_of(host, 80, (), (), None).token is None


@pytest.mark.twin
def test_a_token_comes_from_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert read_token(None) is None
    monkeypatch.setenv("SLM_TOKEN", "x" * 16)
    assert read_token(None) == "x" * 16
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n", encoding="utf-8")
    assert read_token(file) == TOKEN
    for bad in ("", "short", "two words of a token", "ü" * 20, f"{TOKEN}\n{TOKEN}"):
        file.write_text(bad, encoding="utf-8")
        with pytest.raises(UserError, match=re.escape(f"{file}: a token has at least 16 characters")):
            read_token(file)
        monkeypatch.setenv("SLM_TOKEN", bad)
        with pytest.raises(UserError, match="SLM_TOKEN: a token has at least 16"):
            read_token(None)
    with pytest.raises(UserError, match="cannot be read"):
        read_token(tmp_path / "none")


@pytest.mark.parametrize("name", ["*", "", "http://a", "a/b", "a b", "a:b", "a:123456", "user@a", "::1"])
def test_a_host_that_is_none_is_refused(name: str):
    with pytest.raises(UserError, match="not the name of a host"):
        access_of("127.0.0.1", 80, (name,), (), None)


@pytest.mark.parametrize(
    "url", ["*", "null", "", "a.org", "https://a.org/", "https://a.org/b", "https://u@a.org"]
)
def test_an_origin_that_is_none_is_refused(url: str):
    with pytest.raises(UserError, match="not the origin of a page"):
        access_of("127.0.0.1", 80, (), (url,), None)


def test_options_are_those_of_the_command_and_of_the_module(monkeypatch: pytest.MonkeyPatch):
    told: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda *given: told.append(given))
    words = (
        "--model m --host h --port 1 --allow-host a --allow-host b --allow-origin c --token-file t --queue 2"
    )
    for given in ([], [*words.split(), "--timeout", "3"]):
        assert CliRunner().invoke(command_line, ["serve", *given]).exit_code == 0
        monkeypatch.setattr(sys, "argv", ["server", *given])
        server.main()
    assert told[0] == told[1] == (None, server.Terms())
    assert told[2] == told[3]
    assert told[2][1] == server.Terms("h", 1, ("a", "b"), ("c",), Path("t"), 2, 3)
    assert len(inspect.signature(serve_command).parameters) == 1 + len(fields(server.Terms))


def test_no_option_holds_a_token():
    help_text = CliRunner().invoke(command_line, ["serve", "--help"]).output
    assert "--token-file" in help_text and "--token " not in help_text


# The image
def image(folder: Path) -> list[str]:
    """What the Dockerfile copies of the code, in this folder; returns the command that the image runs."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    for *paths, where in (line.split()[1:] for line in lines if line.startswith("COPY slm/")):
        (folder / where).mkdir(parents=True, exist_ok=True)
        for path in paths:
            shutil.copy(ROOT / path, folder / where)
    (folder / "model").mkdir()
    return next(json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith("ENTRYPOINT "))


def test_the_image_has_all_that_it_imports_and_starts_with_a_token_alone(tmp_path: Path):
    python, *words = image(tmp_path)
    assert python == "python"
    command = [sys.executable, *words, "--port", str(free_port())]
    bare = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SLM_TOKEN")}

    def start(variables: dict[str, str]) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=bare | variables, capture_output=True, text=True, check=False
        )
        assert done.returncode, done.stdout
        return done.stderr

    assert "--host 0.0.0.0: others can reach this address, so the server needs a token" in start({})
    with_token = start({"SLM_TOKEN": TOKEN})
    assert "model" in with_token and "token" not in with_token  # the folder is empty
    assert "ModuleNotFoundError" not in with_token


DOCKER = """#!/bin/sh
echo "$@" >> "$CALLS"
echo "SLM_TOKEN=$SLM_TOKEN" >> "$CALLS"
echo id
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for docker")
def test_the_image_is_asked_with_a_token_that_no_command_line_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    calls, program, told = tmp_path / "calls", tmp_path / "docker", []
    program.write_text(DOCKER, encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.delenv("REGISTRY_TOKEN", raising=False)
    monkeypatch.setattr(container, "prepare_context", lambda: "tiny")
    monkeypatch.setattr(container, "ask_container", lambda *given: told.append(given))
    container.make_image("a:b")
    build, _, run, variable, stop, _ = calls.read_text(encoding="utf-8").splitlines()
    ((address, token),) = told
    assert (address, variable) == ("http://127.0.0.1:8000", f"SLM_TOKEN={token}")
    assert len(token) > 32 and token not in build + run + stop + capsys.readouterr().out
    assert run.endswith("--env SLM_TOKEN a:b")


def test_the_image_answers_who_asks_with_the_token(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(OneTokenEach5Ms, "token_s", 0)
    with served() as port:
        assert container.ask_container(f"http://127.0.0.1:{port}", TOKEN).startswith("x")
        with pytest.raises(UserError, match="does not answer: HTTP Error 401"):
            container.ask_container(f"http://127.0.0.1:{port}", TOKEN[1:], patience_s=0)


# Whatever comes
PIECES = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b":",
        b"\xff",
        b"\xc3",
        b"{",
        b"}",
        b"[" * 70,
        b'"',
        b"\\ud800",
        b"0",
    ),
    *(b"HTTP/1.0", b"HTTP/9.9", b"GET", b"OPTIONS", b"*", b"//", b"%00", b"?", b"#", b"Host: x\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 7\r\n", b"Expect: 100-continue\r\n", b"9" * 30),
    *(b"Connection: keep-alive\r\n", b"Upgrade: websocket\r\n", b"X: " + b"x" * 17_000 + b"\r\n", b"null"),
    *(
        b'"max_tokens": 0,',
        b'"messages": [],',
        b"1e999",
        b"NaN",
        b"0\r\n\r\n",
        b"fffffffff\r\n",
        b"/v1/models/",
    ),
]


def mangled(chance: random.Random, port: int) -> bytes:
    """An honest request, in which pieces of it were put elsewhere, others put in, or bytes changed."""
    raw = request(
        port,
        chance.choice(("POST", "POST", "GET")),
        chance.choice(("/health", "/v1/models", *["/v1/chat/completions"] * 3)),
    )
    for _ in range(chance.randint(0, 4)):
        at, end = chance.randrange(len(raw)), chance.randrange(len(raw))
        match chance.randrange(5):
            case 0:
                raw = raw[:at] + chance.choice(PIECES) + raw[at:]
            case 1:
                raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
            case 2:
                raw = raw[:at] + raw[at + chance.randint(1, 20) :]
            case 3:
                raw = raw[:at] + raw[min(at, end) : max(at, end)] + raw[at:]
            case _:
                lines = raw.split(b"\r\n")
                lines.insert(chance.randrange(len(lines)), chance.choice(PIECES))
                raw = b"\r\n".join(lines)
    return raw or b"x"


@pytest.mark.attack
def test_whatever_bytes_come_the_answers_are_in_form(monkeypatch: pytest.MonkeyPatch, tracebacks: list[str]):
    for module in (connection, server):
        monkeypatch.setattr(module, "READ_S", 0.1)
    monkeypatch.setattr(OneTokenEach5Ms, "token_s", 0)
    seen: dict[int, int] = {}

    async def send_all(port: int) -> None:
        places = asyncio.Semaphore(60)

        async def send(raw: bytes) -> None:
            async with places:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(raw)
                try:
                    told = await asyncio.wait_for(reader.read(), 10)
                except ConnectionResetError:
                    told = b""  # it closed before it had read all, as it may
                writer.close()
            for answer in read_answers(told, "POST"):
                seen[answer.status] = seen.get(answer.status, 0) + 1
                assert answer.is_in_form, (raw, answer)
                assert answer.status < 500 or answer.status == 501, (raw, answer)

        await asyncio.gather(*(send(mangled(random.Random(seed), port)) for seed in range(2000)))

    with served(queue=100) as port:
        asyncio.run(send_all(port))
        assert exchange(port, request(port))[0].status == 200
    assert not tracebacks
    assert {200, 400, 401, 404, 405, 408, 415, 421} <= seen.keys(), seen
