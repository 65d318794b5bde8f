"""A teacher behind any OpenAI-compatible endpoint, by the official client (which retries with jitter)."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import openai

from slm.errors import UserError
from slm.params import Synthesize


def request_of(settings: Synthesize, messages: list[dict[str, str]]) -> dict[str, Any]:
    """The whole request: what the answer depends on, and so the key under which it is stored."""
    return {
        "model": settings.endpoint.model,
        "messages": messages,
        "max_tokens": settings.max_new_tokens,
        "temperature": 0,
    }


async def _ask_all(settings: Synthesize, requests: dict[str, dict[str, Any]]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    key = os.environ.get(settings.endpoint.api_key_env)
    if not key:
        raise UserError(
            f"the endpoint's key is not set: export {settings.endpoint.api_key_env}=… (params.yaml: synthesize.endpoint.api_key_env)"
        )
    client = openai.AsyncOpenAI(base_url=settings.endpoint.base_url, api_key=key, max_retries=6, timeout=120)
    limit = asyncio.Semaphore(settings.endpoint.concurrency)

    async def ask(name: str, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        async with limit:
            response = await client.chat.completions.create(**request)
        choice = response.choices[0]
        usage = response.usage
        return name, {
            "text": choice.message.content or "",
            "cut": choice.finish_reason == "length",
            "request_id": response.id,
            "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens} if usage else None,
        }

    tasks = [asyncio.create_task(ask(name, request)) for name, request in requests.items()]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    except openai.APIConnectionError as error:
        raise UserError(
            f"{settings.endpoint.base_url}: cannot be reached ({error.__cause__ or error}); answers so far are kept, run again"
        ) from None
    except openai.APIStatusError as error:
        raise UserError(
            f"{settings.endpoint.base_url}: answered {error.status_code}: {error.message[:200]}; answers so far are kept, run again"
        ) from None
    finally:
        for task in tasks:
            task.cancel()
        await client.close()


def ask_all(settings: Synthesize, requests: dict[str, dict[str, Any]]) -> Any:
    """Yield (name, answer) as answers come in."""
    stream = _ask_all(settings, requests)
    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    yield runner.run(anext(stream))
                except StopAsyncIteration:
                    return
        finally:
            runner.run(stream.aclose())
