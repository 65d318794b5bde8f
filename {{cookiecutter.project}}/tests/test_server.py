"""The server answers as OpenAI's does: requests go through the one door for data, and what is wrong with one
is said, with a status of 400 to 413.
"""

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from slm.inference.genai import Reply
from slm.serving import server
from slm.serving.access import access_of
from slm.serving.turns import Turns

ASK = {"messages": [{"role": "user", "content": "light"}]}
CONTEXT = 128
ROUTE = "/v1/chat/completions"


class OneTokenACharacter:
    """In the runtime's place: it answers with what it was told, and refuses what the runtime refuses."""

    def __init__(self, folder: Path) -> None:
        self.context = CONTEXT
        self.told: list[dict[str, str]] = []

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        if messages[0]["role"] == "assistant":
            raise RuntimeError("conversation roles must alternate")
        self.told = messages
        return [ord(c) for c in "".join(m["content"] for m in messages)]

    def ask(
        self, prompt_ids: list[int], max_new_tokens: int, stop: Callable[[], bool] | None = None
    ) -> Reply:
        if len(prompt_ids) + max_new_tokens > CONTEXT:
            raise RuntimeError("max_length cannot be greater than model context_length")
        assert max_new_tokens > 0
        text = json.dumps(self.told, ensure_ascii=False)
        return Reply(text, [0] * min(max_new_tokens, 20), max_new_tokens < 20)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(server, "GenAI", OneTokenACharacter)
    access = access_of("127.0.0.1", 8000, (), (), None)
    return TestClient(
        server.application(tmp_path, "tiny", access, Turns(8, 60)),
        "http://127.0.0.1:8000",
        raise_server_exceptions=False,
        headers={"content-type": "application/json"},
    )


def told(response: Any) -> list[dict[str, str]]:
    assert response.status_code == 200, response.text
    return json.loads(response.json()["choices"][0]["message"]["content"])


def fault(response: Any, status: int = 400) -> dict[str, str | None]:
    """The error of a refused request, in OpenAI's form."""
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"} and error["message"]
    assert error["type"] == "invalid_request_error" and "Traceback" not in error["message"]
    return error


def said(content: Any, **others: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content, **others}]}


def test_an_answer_needs_no_limit_and_has_usage(client: TestClient):
    whole = client.post(ROUTE, json=ASK).json()
    assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": 20, "total_tokens": 25}
    assert whole["choices"][0]["finish_reason"] == "stop" and whole["model"] == "tiny"
    for limit in ("max_tokens", "max_completion_tokens"):
        short = client.post(ROUTE, json=ASK | {limit: 3}).json()
        assert (short["usage"]["completion_tokens"], short["choices"][0]["finish_reason"]) == (3, "length")


@pytest.mark.parametrize(
    ("words", "limit", "numbers"),
    [
        ("x" * 128, None, (129, 128, 1)),
        ("x" * 5000, None, (5001, 5000, 1)),
        ("x" * 100, 29, (129, 100, 29)),
        ("x", 10**300, (10**300 + 1, 1, 10**300)),
    ],
)
def test_more_than_the_context_is_refused_with_both_numbers(
    words: str, limit: int | None, numbers: tuple[int, ...], client: TestClient
):
    error = fault(client.post(ROUTE, json=said(words) | {"max_tokens": limit}))
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert f"{CONTEXT} tokens" in error["message"]
    assert "{} tokens ({} in the messages, {} in".format(*numbers) in error["message"]


def test_what_just_fits_is_answered(client: TestClient):
    assert client.post(ROUTE, json=said("x" * 100) | {"max_tokens": 28}).status_code == 200
    assert client.post(ROUTE, json=said("x" * 127)).json()["usage"]["completion_tokens"] == 1


FAULTY_CONTENT = {
    "NUL": ("a\0b", "U+0000 NULL (character 2)"),
    "escape": ("\x1b[0m", "U+001B ESCAPE"),
    "carriage return": ("a\rb", "U+000D CARRIAGE RETURN"),
    "half a character": ("\ud83d", "U+D83D LONE SURROGATE"),
    "nothing": ("", "is empty"),
    "blanks": (" \n", "says nothing that can be seen"),
    "invisible": ("\u200b\ufeff", "U+200B ZERO WIDTH SPACE (character 1)"),
    "no content": (None, "content None is no text"),
    "a number": (7, "content 7 is no text"),
    "an image": ([{"type": "image_url", "image_url": {"url": "x"}}], "a part of type 'image_url'"),
    "sound beside text": ([{"type": "text", "text": "a"}, {"type": "input_audio"}], "'input_audio'"),
    "too long": ("x" * 100_001, "longer than 100000 characters"),
    "marks without end": ("a" + "\u0301\u0323" * 5000, "more than 30 marks"),
}


@pytest.mark.parametrize("name", FAULTY_CONTENT)
def test_a_text_that_is_none_is_refused_with_its_field(name: str, client: TestClient):
    content, reason = FAULTY_CONTENT[name]
    error = fault(client.post(ROUTE, content=json.dumps(said(content))))
    assert reason in error["message"]
    assert error["param"] == "messages[0].content" or name == "marks without end"


FAULTY_BODIES = {
    "no JSON": (b"{", "not JSON", None),
    "nothing": (b"", "not JSON", None),
    "no object": (b"[]", "body: ", None),
    "not UTF-8": (b'{"messages": "\xff"}', "not UTF-8", None),
    "key twice": (b'{"messages": [], "messages": []}', "'messages' stands twice", None),
    "content twice": (
        b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
        "'content' stands twice",
        None,
    ),
    "deep": (b'{"messages": ' + b"[" * 100_000, "more than 64 deep", None),
    "a long number": (b'{"max_tokens": ' + b"9" * 5000 + b"}", "5000 digits", None),
    "a large number": (b'{"temperature": 1e999}', "1e999 is too large", None),
    "NaN": (b'{"temperature": NaN}', "NaN is no JSON", None),
    "no messages": (b"{}", "messages: ", "messages"),
    "messages as text": (b'{"messages": "hi"}', "messages: ", "messages"),
    "an empty list": (b'{"messages": []}', "messages: ", "messages"),
    "a message as text": (b'{"messages": ["hi"]}', "no JSON object", "messages[0]"),
    "role": (json.dumps(said("x", role="robot")).encode(), "role 'robot' is unknown", "messages[0].role"),
    "limit of nothing": (json.dumps(ASK | {"max_tokens": 0}).encode(), "max_tokens", "max_tokens"),
    "limit as text": (json.dumps(ASK | {"max_tokens": "9"}).encode(), "max_tokens", "max_tokens"),
    "stream as text": (json.dumps(ASK | {"stream": "yes"}).encode(), "stream", "stream"),
    "template": (
        json.dumps({"messages": [{"role": "assistant", "content": "x"}]}).encode(),
        "roles must alternate",
        "messages",
    ),
}


@pytest.mark.parametrize("name", FAULTY_BODIES)
def test_a_body_that_others_read_otherwise_is_refused(name: str, client: TestClient):
    body, reason, param = FAULTY_BODIES[name]
    error = fault(client.post(ROUTE, content=body))
    assert reason in error["message"] and error["param"] == param


def test_a_request_that_is_too_large(client: TestClient):
    assert "larger than 1 MB" in fault(client.post(ROUTE, content=b"x" * 2_000_000), 413)["message"]


def test_every_form_of_message_is_read(client: TestClient):
    call = {"id": "c", "type": "function", "function": {"name": "light", "arguments": '{"on": true}'}}
    messages = [
        {"role": "developer", "content": "brief", "name": "x"},
        {"role": "user", "content": [{"type": "text", "text": "cafe"}, {"type": "text", "text": "\u0301"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "cafe\u0301"},
    ]
    assert [(m["role"], m["content"]) for m in told(client.post(ROUTE, json={"messages": messages}))] == [
        ("system", "brief"),
        ("user", "café"),
        ("assistant", '{"name":"light","arguments":{"on":true}}'),
        ("tool", "café"),
    ]


def test_a_stream_ends_with_usage_if_it_is_asked_for(client: TestClient):
    def chunks(**options: Any) -> list[dict[str, Any]]:
        lines = client.post(ROUTE, json=ASK | {"stream": True, **options}).text.split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    plain = chunks()
    assert len(plain) == 2 and not any("usage" in chunk for chunk in plain)
    assert plain == [
        c | {"id": plain[0]["id"], "created": plain[0]["created"]} for c in chunks(stream_options=None)
    ]
    counted = chunks(stream_options={"include_usage": True})
    assert [chunk["usage"] and chunk["usage"]["total_tokens"] for chunk in counted] == [None, None, 25]
    assert counted[-1]["choices"] == [] and counted[1]["choices"][0]["finish_reason"] == "stop"


def test_models_and_unknown_routes(client: TestClient):
    (card,) = client.get("/v1/models").json()["data"]
    assert client.get("/v1/models/tiny").json() == card and card["id"] == "tiny"
    for name in ("gpt", "a/b", "%00", "%ff", "é"):
        error = fault(client.get(f"/v1/models/{name}"), 404)
        assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "/v1/embeddings" in fault(client.post("/v1/embeddings", json={}), 404)["message"]
    wrong = client.get(ROUTE)
    assert fault(wrong, 405) and wrong.headers["allow"] == "POST"
    assert fault(client.delete("/v1/models"), 405)
    assert client.get("/health").json() == {"status": "ok"}


PIECES: list[Any] = [
    *(None, True, 0, -1, 1.5, 10**30, "", "x", "cafe\u0301", "\0", "\ud800", "\u200b", "x" * 300, [], {}),
    *("user", "assistant", "tool", "developer", [{"type": "text", "text": "x"}], [{"type": "text"}], [[]]),
    [{"function": {"name": "f", "arguments": "{}"}}],
]
FIELDS = (
    "messages",
    "role",
    "content",
    "tool_calls",
    "max_tokens",
    "stream",
    "stream_options",
    "type",
    "text",
)


def grown(chance: random.Random, depth: int = 0) -> Any:
    """A random value that looks like parts of a request."""
    kind = chance.random()
    if depth > 4 or kind < 0.4:
        return chance.choice(PIECES)
    if kind < 0.6:
        return [grown(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return {chance.choice(FIELDS): grown(chance, depth + 1) for _ in range(chance.randint(0, 4))}


def spoilt(chance: random.Random) -> bytes:
    """A request of which some values are others, then perhaps some bytes."""
    request: Any = {"messages": [{"role": "user", "content": "light"}, {"role": "tool", "content": "on"}]}
    for _ in range(chance.randint(0, 3)):
        place = chance.choice((request, *(m for m in request["messages"] if isinstance(m, dict)), request))
        place[chance.choice(FIELDS)] = grown(chance)
        if not isinstance(request["messages"], list):
            break
    body = bytearray(json.dumps(request, ensure_ascii=chance.random() < 0.9).encode(errors="surrogatepass"))
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        body[chance.randrange(len(body))] = chance.randrange(256)
    return bytes(body)


def test_whatever_a_client_sends_is_answered_or_refused(client: TestClient):
    answered = 0
    for seed in range(800):
        body = spoilt(random.Random(seed))
        response = client.post(ROUTE, content=body)
        if response.status_code == 200:
            answered += 1
            assert unicodedata.is_normalized("NFC", response.text)
        else:
            assert fault(response)
    assert 50 < answered < 750  # neither all nor nothing comes through
