"""Requests that a page of another site, or anybody in the network, can send to the server, and for each an
honest twin that differs in what is wrong alone.
"""

import contextlib
import io
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from slm.inference.genai import Reply

ROUTE = "/v1/chat/completions"
TOKEN = "a token of the tests, 32 of them".replace(" ", "-")
FRIEND = "https://app.example.org"
BODY = json.dumps({"messages": [{"role": "user", "content": "light"}], "max_tokens": 3}).encode()


class Whole(io.BytesIO):
    """What a server has sent, in a socket's place."""

    def makefile(self, *_: Any) -> "Whole":
        return self

    def close(self) -> None:
        """The next answer stands behind this one."""


class OneTokenEach5Ms:
    """In the runtime's place: `asked` tells its answers, and how many tokens each of them took."""

    asked: list[int]
    token_s = 0.005

    def __init__(self, folder: Path) -> None:
        self.context = 10_000
        OneTokenEach5Ms.asked = []

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        return [0] * sum(len(m["content"]) for m in messages)

    def ask(self, prompt_ids: list[int], max_new_tokens: int, stop: Callable[[], bool]) -> Reply:
        if len(prompt_ids) == 13:
            raise ValueError("a bug")
        answer: list[int] = []
        while len(answer) < max_new_tokens and not (answer and stop()):
            time.sleep(self.token_s)
            answer.append(0)
        self.asked.append(len(answer))
        return Reply("x" * len(answer), answer, len(answer) == max_new_tokens)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_in_form(self) -> bool:
        """An answer to what was asked, or an error in OpenAI's form."""
        if self.status < 300:
            return True
        error = json.loads(self.body)["error"]
        return error.keys() == {"message", "type", "param", "code"} and bool(error["message"])


def read_answers(raw: bytes, method: str = "POST") -> list[Answer]:
    """All answers that stand in what a server sent.

    Raises:
        HTTPException: that is no HTTP.
    """
    stream, found = Whole(raw), []
    while stream.tell() < len(raw):
        response = HTTPResponse(stream, method=method)  # type: ignore[arg-type]
        response.begin()
        body = response.read()
        if response.length:
            raise HTTPException("the answer is not whole")
        found.append(Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body))
    return found


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def whole(client: socket.socket) -> bytes:
    """What the server sends until it closes."""
    told = b""
    with client, contextlib.suppress(ConnectionResetError):  # it may close before it has read all
        while piece := client.recv(1 << 16):
            told += piece
    return told


def exchange(port: int, raw: bytes) -> list[Answer]:
    """Send this, and read until the server closes."""
    client = connect(port)
    client.sendall(raw)
    return read_answers(whole(client), raw.partition(b" ")[0].decode("latin-1"))


def request(
    port: int, method: str = "POST", target: str = ROUTE, body: bytes = BODY, **changed: Any
) -> bytes:
    """An honest request with other headers: None leaves one out, a tuple sends it more than once."""
    headers: dict[str, Any] = {
        "Host": f"127.0.0.1:{port}",
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "application/json",
        "Content-Length": len(body),
        "Connection": "close",
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    lines = [f"{method} {target} HTTP/1.1"]
    for name, values in headers.items():
        values = values if isinstance(values, tuple) else (values,)
        lines += [f"{name}: {value}" for value in values if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def of_hosts(port: int) -> dict[str, tuple[bytes, int, bytes]]:
    def ask(**changed: Any) -> bytes:
        return request(port, **changed)

    honest, models = ask(), {"method": "GET", "target": "/v1/models", "body": b""}
    return {
        "DNS rebinding": (ask(Host=f"evil.com:{port}"), 421, ask(Host=f"localhost:{port}")),
        "another port in Host": (ask(Host=f"localhost:{port + 1}"), 421, ask(Host=f"LOCALHOST:{port}")),
        "Host without port": (ask(Host="127.0.0.1"), 421, ask(Host=f"[::1]:{port}")),
        "Host that begins like ours": (ask(Host=f"localhost.evil.com:{port}"), 421, ask(Host="friend:1")),
        "user in Host": (ask(Host=f"localhost:{port}@evil.com"), 421, ask(Host="FRIEND")),
        "broken Host": (ask(Host="["), 421, honest),
        "Host twice": (ask(Host=(f"localhost:{port}", "evil.com")), 400, honest),
        "no Host": (ask(Host=None), 400, honest),
        "absolute target": (ask(target=f"http://evil.com{ROUTE}"), 400, honest),
        "X-Forwarded-Host": (
            ask(Host="evil.com", X_Forwarded_Host=f"localhost:{port}"),
            421,
            ask(X_Forwarded_Host="evil.com"),
        ),
        "foreign Origin": (ask(Origin="https://evil.com"), 403, ask(Origin=FRIEND)),
        "Origin null": (ask(Origin="null"), 403, honest),
        "empty Origin": (ask(Origin=""), 403, honest),
        "Origin twice": (ask(Origin=(FRIEND, "https://evil.com")), 403, honest),
        "another port's page": (ask(Origin=f"http://localhost:{port + 1}"), 403, honest),
        "a page of rebinding": (ask(Origin=f"http://evil.com:{port}", Host=f"evil.com:{port}"), 421, honest),
        "picture of another site": (
            ask(Sec_Fetch_Site="cross-site", **models),
            403,
            ask(Sec_Fetch_Site="none", **models),
        ),
        "picture of another port": (
            ask(Sec_Fetch_Site="same-site", **models),
            403,
            ask(Sec_Fetch_Site="same-origin", **models),
        ),
        "preflight": (
            ask(method="OPTIONS", Origin="https://evil.com", Access_Control_Request_Method="POST"),
            403,
            ask(method="OPTIONS", Origin=FRIEND, Access_Control_Request_Method="POST", Authorization=None),
        ),
        "preflight of a method that is none": (
            ask(method="OPTIONS", Origin=FRIEND, Access_Control_Request_Method="TRACE"),
            400,
            ask(method="OPTIONS", Origin=FRIEND, Access_Control_Request_Method="GET"),
        ),
    }


def of_forms_and_tokens(port: int) -> dict[str, tuple[bytes, int, bytes]]:
    def ask(**changed: Any) -> bytes:
        return request(port, **changed)

    honest, part = ask(), "multipart/form-data; boundary=x"
    kinds = {
        "form as text/plain": ("text/plain", "application/json;charset=utf-8"),
        "multipart": (part, "Application/JSON"),
        "urlencoded": ("application/x-www-form-urlencoded", "application/json ; x=y"),
        "no Content-Type": (None, "application/json"),
        "JSON by its parameter": ("text/plain; application/json", "application/json; text/plain"),
        "two Content-Types": (("application/json", "text/plain"), "application/json"),
    }
    tokens = {
        "no token": None,
        "wrong token": "Bearer " + "x" * len(TOKEN),
        "part of the token": f"Bearer {TOKEN[:-1]}",
        "more than the token": f"Bearer {TOKEN}x",
        "token in another case": f"Bearer {TOKEN.upper()}",
        "token by Basic": f"Basic {TOKEN}",
        "token without scheme": TOKEN,
        "empty token": "Bearer ",
        "letters beyond ASCII": f"Bearer {TOKEN}\xff",
        "two tokens": (f"Bearer {TOKEN}", "Bearer x"),
    }
    lower = ask(Authorization=f"bearer {TOKEN}")
    query, target = f"{ROUTE}?api_key={TOKEN}", {"method": "GET", "body": b""}
    return {
        **{k: (ask(Content_Type=bad), 415, ask(Content_Type=good)) for k, (bad, good) in kinds.items()},
        **{k: (ask(Authorization=bad), 401, lower) for k, bad in tokens.items()},
        "token in the query": (ask(Authorization=None, target=query), 401, ask(target=f"{ROUTE}?a=b")),
        "token in a cookie": (ask(Authorization=None, Cookie=f"token={TOKEN}"), 401, honest),
        "past /health": (
            ask(Authorization=None, target="/health/../v1/models", **target),
            401,
            ask(Authorization=None, Host="10.0.0.5", target="/health", **target),
        ),
        "health with a slash": (ask(target="/health/", **target), 404, ask(target="/health", **target)),
    }


def of_bytes(port: int) -> dict[str, tuple[bytes, int, bytes]]:
    def ask(**changed: Any) -> bytes:
        return request(port, **changed)

    honest, get = ask(), {"method": "GET", "body": b""}
    chunked = {"Content_Length": None, "Transfer_Encoding": "chunked"}
    whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    large = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    return {
        "huge header": (ask(X="x" * 60_000), 431, ask(X="x" * 8_000)),
        "many headers": (
            ask(**{f"X{i}": "x" for i in range(9000)}),
            431,
            ask(**{f"X{i}": "x" for i in range(99)}),
        ),
        "huge target": (ask(target="/" + "x" * 70_000), 431, ask(target=f"{ROUTE}?{'x' * 8000}")),
        "large body": (ask(body=b"x" * 1_100_000), 413, honest),
        "a large body is promised": (ask(Content_Length=10**12), 413, honest),
        "large body in chunks": (ask(body=large * 2, **chunked), 413, ask(body=whole, **chunked)),
        "broken chunk": (ask(body=b"zz\r\n", **chunked), 400, ask(body=whole, **chunked)),
        "chunks beside a length": (ask(body=whole, Transfer_Encoding="chunked"), 400, honest),
        "two lengths": (ask(Content_Length=(3, len(BODY))), 400, honest),
        "length that is none": (ask(Content_Length="-1"), 400, honest),
        "unknown coding": (ask(body=whole, Content_Length=None, Transfer_Encoding="gzip"), 501, honest),
        "less than the body": (ask(Content_Length=9), 400, honest),
        "GET": (ask(**get), 405, honest),
        "HEAD": (ask(**get | {"method": "HEAD"}), 405, honest),
        "TRACE": (ask(**get | {"method": "TRACE"}), 405, honest),
        "OPTIONS": (ask(**get | {"method": "OPTIONS"}), 405, honest),
        "OPTIONS of all": (ask(**get | {"method": "OPTIONS", "target": "*"}), 400, honest),
        "CONNECT": (ask(**get | {"method": "CONNECT", "target": "evil.com:443"}), 400, honest),
        "//": (ask(target="//v1/models", **get), 404, ask(target="/v1/models", **get)),
        "..": (ask(target="/v1/../v1/models", **get), 404, ask(target="/v1/models", **get)),
        "escaped ..": (ask(target="/v1/%2e%2e/health", **get), 404, ask(target="/health", **get)),
        "escaped NUL": (ask(target="/v1%00/models%ff", **get), 404, honest),
        "websocket": (
            ask(Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key="x" * 22 + "==", **get),
            405,
            honest,
        ),
        "NUL in a header": (ask(X="a\0b"), 400, honest),
        "line end in a header": (ask(X="a\r\n b\rc"), 400, honest),
        "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, honest),
        "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, honest),
        "HTTP/0.9": (b"GET /health\r\n\r\n", 400, honest),
    }


def attacks(port: int) -> dict[str, tuple[bytes, int, bytes]]:
    """By name: what is sent, the status that refuses it, and the twin that gets an answer."""
    return of_hosts(port) | of_forms_and_tokens(port) | of_bytes(port)
