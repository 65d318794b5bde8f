"""The shipped model behind an OpenAI-compatible address, on this machine or in a container.

    python -m slm.serving.server                          the package in dist/, on http://127.0.0.1:8000/v1
    python -m slm.serving.server --model DIR --host 0.0.0.0 --port 80

One request is answered at a time, in the order in which they come: a small model on a few cores gains nothing
from two at once. The token, if there is one, comes from --token-file or from the variable SLM_TOKEN.
"""

import argparse
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from slm.errors import UserError, exit_on_user_error
from slm.inference.genai import GenAI, Reply
from slm.serving.access import Access, access_of, guards, read_token
from slm.serving.connection import READ_S, Service
from slm.serving.refusal import RequestError, refusal
from slm.serving.turns import Turns
from slm.task.strict import Unreadable, composed, plain_message, strict_json

LONGEST_BODY = 1 << 20
LONGEST_DROPPED = 16 * LONGEST_BODY  # what is read of a larger one, so that its client reads the answer
LONGEST_CONTENT = 100_000


@dataclass(frozen=True)
class Terms:
    """Where the server listens and whom it answers: the options of `slm serve`.

    A request of a small model takes a second or a few. The eighth that waits is answered within half a
    minute, which clients and proxies bear. Nothing lasts longer than `timeout_s`, waiting included.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    token_file: Path | None = None
    queue: int = 8
    timeout_s: float = 120


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = None


class CompletionRequest(BaseModel):
    """The part of OpenAI's request that a greedy model of one task has a use for; the rest is ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    messages: list[Any] = Field(min_length=1, max_length=100)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def counts(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


def read_request(body: bytes) -> CompletionRequest:
    """A request by the rules of slm/task/strict.py, its messages as the model reads them.

    Raises:
        RequestError: names the field and what is wrong with it.
    """
    try:
        wanted = CompletionRequest.model_validate(composed(strict_json(body.decode("utf-8"))))
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise RequestError(f"{field or 'body'}: {first['msg']}", field or None) from None
    except Unreadable as fault:
        raise RequestError(f"{fault.where or 'body'}: {fault.what}", fault.where or None) from None
    for i, message in enumerate(wanted.messages):
        try:
            wanted.messages[i] = plain_message(message)
        except Unreadable as fault:
            field = f"messages[{i}].{fault.where}".rstrip(".")
            raise RequestError(f"{field}: {fault.what}; {fault.remedy}", field) from None
        if len(wanted.messages[i]["content"]) > LONGEST_CONTENT:
            field = f"messages[{i}].content"
            raise RequestError(f"{field}: longer than {LONGEST_CONTENT} characters", field)
    return wanted


def answer_limit(wanted: CompletionRequest, prompt_tokens: int, context: int) -> int:
    """How many tokens an answer may have: as many as the request asks for, else what the prompt leaves.

    Raises:
        RequestError: prompt and answer are longer than the model's context.
    """
    left = context - prompt_tokens
    limit = wanted.max_completion_tokens or wanted.max_tokens or max(left, 1)
    if limit > left:
        raise RequestError(
            f"This model's maximum context length is {context} tokens. However, you requested "
            f"{prompt_tokens + limit} tokens ({prompt_tokens} in the messages, {limit} in the completion). "
            "Please reduce the length of the messages or completion.",
            "messages",
            "context_length_exceeded",
        )
    return limit


def application(folder: Path, name: str, access: Access, turns: Turns) -> Starlette:
    """Routes /v1/chat/completions, /v1/models and /health for one model folder."""
    runtime = GenAI(folder)

    async def answer(request: Request) -> Response:
        wanted = read_request(await _body(request))
        prompt_tokens, reply = await turns.take(request, partial(_reply, runtime, wanted))
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(reply.token_ids),
            "total_tokens": prompt_tokens + len(reply.token_ids),
        }
        if wanted.stream:
            events = _events(head, reply, usage if wanted.counts else None)
            return StreamingResponse(events, media_type="text/event-stream")
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text},
            "finish_reason": _reason(reply),
            "logprobs": None,
        }
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    card = {"id": name, "object": "model", "created": 0, "owned_by": "here"}

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [card]})

    async def model(request: Request) -> JSONResponse:
        asked = request.path_params["model"]
        if asked != name:
            raise RequestError(
                f"The model {asked!r} does not exist; this server has {name!r}",
                "model",
                "model_not_found",
                404,
            )
        return JSONResponse(card)

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", answer, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{model:path}", model),
            Route("/health", health),
        ],
        middleware=guards(access),
        exception_handlers={
            RequestError: _refuse,
            HTTPException: _refuse_route,
            ClientDisconnect: _left,
            Exception: _fail,
        },
    )
    app.router.redirect_slashes = False
    return app


def _reply(runtime: GenAI, wanted: CompletionRequest, stop: Callable[[], bool]) -> tuple[int, Reply]:
    """Number of prompt tokens, and the answer; the latter is not whole if `stop` ended it."""
    try:
        ids = runtime.encode(wanted.messages)
    except RuntimeError as error:  # a template of another family may ask for an order of roles
        raise RequestError(
            f"messages: the model's chat template does not take them: {error}", "messages"
        ) from None
    return len(ids), runtime.ask(ids, answer_limit(wanted, len(ids), runtime.context), stop)


async def _body(request: Request) -> bytes:
    """Raises:
    RequestError: not JSON by its type, which a page of another site may not send unasked (415); too large
        (413); too slow (408).
    """
    kinds = request.headers.getlist("content-type")
    if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != "application/json":
        raise RequestError(
            f"the Content-Type is {', '.join(kinds)[:100] or 'missing'}; send application/json", status=415
        )
    body, size = bytearray(), 0
    too_slow = RequestError(f"the request was not whole within {READ_S} seconds", status=408)
    too_large = RequestError("the request is larger than 1 MB", status=413)
    if int(request.headers.get("content-length", 0)) > LONGEST_DROPPED:
        raise too_large
    try:
        with anyio.fail_after(READ_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > LONGEST_DROPPED:
                    raise too_large
                if size <= LONGEST_BODY:
                    body += chunk
    except TimeoutError:
        raise (too_slow if size <= LONGEST_BODY else too_large) from None
    if size > LONGEST_BODY:
        raise too_large
    return bytes(body)


async def _refuse(_: Request, error: Any) -> JSONResponse:
    return refusal(error)


async def _refuse_route(request: Request, error: Any) -> JSONResponse:
    """No such path, or not by this method; the headers say which methods there are."""
    what = f"{request.method} {request.scope['path'][:100]}: {error.detail}"
    return refusal(RequestError(what, status=error.status_code, headers=error.headers))


async def _fail(_: Request, __: Any) -> JSONResponse:
    """A bug: the log has its traceback, the client has none."""
    return refusal(RequestError("the server failed; its log says why", status=500, kind="server_error"))


async def _left(_: Request, __: Any) -> JSONResponse:
    """Nobody reads this: the client closed the connection."""
    return refusal(RequestError("the client has left"))


def _reason(reply: Reply) -> str:
    return "length" if reply.cut else "stop"


async def _events(head: dict[str, Any], reply: Reply, usage: dict[str, int] | None) -> AsyncIterator[str]:
    """The answer as server-sent events: it is short, and comes whole. The last has the usage, if it is asked
    for; those before it then say that they have none, as OpenAI's do.
    """
    head = {**head, "object": "chat.completion.chunk", **({} if usage is None else {"usage": None})}
    for delta, end in (({"role": "assistant", "content": reply.text}, None), ({}, _reason(reply))):
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
    if usage is not None:
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"


def packed() -> Path:
    found = sorted(Path("dist").glob("*/model"))
    if not found:
        raise UserError("dist/ holds no package: run `slm repro`, or name a folder with --model")
    return found[0]


def serve(model: Path | None, terms: Terms) -> None:
    """Answer requests until stopped; without `model`, the package in dist/."""
    access = access_of(
        terms.host, terms.port, terms.allow_hosts, terms.allow_origins, read_token(terms.token_file)
    )
    folder = model or packed()
    name = folder.resolve().parent.name if folder.name == "model" else folder.resolve().name
    turns = Turns(terms.queue, terms.timeout_s)
    Service(application(folder, name, access, turns), turns, terms.host, terms.port).run()


@exit_on_user_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    usual = Terms()
    parser.add_argument("--model", type=Path, help="folder of a model; without it the package in dist/")
    parser.add_argument("--host", default=usual.host, help="off loopback a token is needed")
    parser.add_argument("--port", type=int, default=usual.port)
    parser.add_argument("--allow-host", action="append", default=[], help="a Host to answer; again for more")
    parser.add_argument(
        "--allow-origin", action="append", default=[], help="a site whose pages may ask; again for more"
    )
    parser.add_argument("--token-file", type=Path, help="a file with the token that clients must send")
    parser.add_argument("--queue", type=int, default=usual.queue, help="how many requests may wait")
    parser.add_argument("--timeout", type=float, default=usual.timeout_s, help="seconds for one request")
    given = parser.parse_args()
    serve(
        given.model,
        Terms(
            given.host,
            given.port,
            tuple(given.allow_host),
            tuple(given.allow_origin),
            given.token_file,
            given.queue,
            given.timeout,
        ),
    )


if __name__ == "__main__":
    main()
