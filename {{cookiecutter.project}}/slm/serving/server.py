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
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from slm.errors import UserError, exit_on_user_error
from slm.inference.genai import GenAI

LONGEST_BODY = 1 << 20


class RequestMessage(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: str = Field(pattern="^(system|user|assistant)$")
    content: str = Field(max_length=100_000)


class CompletionRequest(BaseModel):
    """The part of OpenAI's request that a greedy model of one task has a use for; the rest is ignored."""

    model_config = ConfigDict(extra="ignore")

    messages: list[RequestMessage] = Field(min_length=1, max_length=100)
    max_tokens: int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    stream: bool = False

    @property
    def limit(self) -> int:
        return self.max_completion_tokens or self.max_tokens or 256


def error_response(message: str, code: int = 400) -> JSONResponse:
    return JSONResponse(
        {"error": {"message": message, "type": "invalid_request_error", "code": None, "param": None}}, code
    )


def application(folder: Path, name: str) -> Starlette:
    """Routes /v1/chat/completions, /v1/models and /health for one model folder."""
    runtime, turn = GenAI(folder), asyncio.Lock()

    async def answer(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LONGEST_BODY:
                return error_response("the request is larger than 1 MB", 413)
        try:
            wanted = CompletionRequest.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            return error_response(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
        async with turn:
            ids = runtime.encode([m.model_dump() for m in wanted.messages])
            reply = await asyncio.to_thread(runtime.ask, ids, wanted.limit)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        reason = "length" if reply.cut else "stop"
        if wanted.stream:
            return StreamingResponse(_events(head, reply.text, reason), media_type="text/event-stream")
        usage = {
            "prompt_tokens": len(ids),
            "completion_tokens": len(reply.token_ids),
            "total_tokens": len(ids) + len(reply.token_ids),
        }
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text},
            "finish_reason": reason,
            "logprobs": None,
        }
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def models(_: Request) -> JSONResponse:
        return JSONResponse(
            {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "here"}]}
        )

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "model": name})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", answer, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ]
    )


async def _events(head: dict[str, Any], text: str, reason: str) -> AsyncIterator[str]:
    """The answer as server-sent events: it is short, and comes whole."""
    for delta, end in (({"role": "assistant", "content": text}, None), ({}, reason)):
        chunk = {
            **head,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
        }
        yield f"data: {json.dumps(chunk)}\n\n"
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
