"""The shipped model behind an OpenAI-compatible address, on this machine or in a container.

    python -m slm.serving.server                          the package in dist/, on http://127.0.0.1:8000/v1
    python -m slm.serving.server --model DIR --host 0.0.0.0 --port 80

One request is answered at a time, in the order in which they come: a small model on a few cores gains nothing
from two at once.
"""

import argparse
import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from slm.errors import UserError, exit_on_user_error
from slm.inference.genai import GenAI, Reply
from slm.task.strict import Unreadable, composed, plain_message, strict_json

LONGEST_BODY = 1 << 20
LONGEST_CONTENT = 100_000


class RequestError(Exception):
    """A fault of the request, in OpenAI's words: the field (param), and a code that clients compare."""

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


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


def application(folder: Path, name: str) -> Starlette:
    """Routes /v1/chat/completions, /v1/models and /health for one model folder."""
    runtime, turn = GenAI(folder), asyncio.Lock()

    async def answer(request: Request) -> Response:
        wanted = read_request(await _body(request))
        async with turn:
            try:
                ids = await asyncio.to_thread(runtime.encode, wanted.messages)
            except RuntimeError as error:  # a template of another family may ask for an order of roles
                raise RequestError(
                    f"messages: the model's chat template does not take them: {error}", "messages"
                ) from None
            limit = answer_limit(wanted, len(ids), runtime.context)
            reply = await asyncio.to_thread(runtime.ask, ids, limit)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        usage = {
            "prompt_tokens": len(ids),
            "completion_tokens": len(reply.token_ids),
            "total_tokens": len(ids) + len(reply.token_ids),
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
        return JSONResponse({"status": "ok", "model": name})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", answer, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{model:path}", model),
            Route("/health", health),
        ],
        exception_handlers={RequestError: _refuse, HTTPException: _refuse_route, ClientDisconnect: _left},
    )


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            raise RequestError("the request is larger than 1 MB", status=413)
    return body


async def _refuse(_: Request, error: Any) -> JSONResponse:
    fault = {
        "message": error.message,
        "type": "invalid_request_error",
        "param": error.param,
        "code": error.code,
    }
    return JSONResponse({"error": fault}, error.status)


async def _refuse_route(request: Request, error: Any) -> JSONResponse:
    """No such path, or not by this method; the headers say which methods there are."""
    what = f"{request.method} {request.url.path}: {error.detail}"
    response = await _refuse(request, RequestError(what, status=error.status_code))
    response.headers.update(error.headers or {})
    return response


async def _left(request: Request, _: Any) -> JSONResponse:
    """Nobody reads this: the client closed the connection before its request was whole."""
    return await _refuse(request, RequestError("the request is not whole"))


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


def serve(model: Path | None, host: str, port: int) -> None:
    """Answer requests until stopped; without `model`, the package in dist/."""
    folder = model or packed()
    name = folder.resolve().parent.name if folder.name == "model" else folder.resolve().name
    uvicorn.run(application(folder, name), host=host, port=port, log_level="warning")


@exit_on_user_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, help="folder of a model; without it the package in dist/")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    serve(arguments.model, arguments.host, arguments.port)


if __name__ == "__main__":
    main()
