"""What an endpoint sends, read with distrust: a whole answer of the expected form or none, and never the key that we sent."""

import os
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, WrapValidator

from slm.errors import UserError
from slm.params import Endpoint

REDACTED = "[the endpoint's key]"


class NotAnAnswer(Exception):
    """Says in what the body differs from an answer, and quotes nothing of it."""


def or_none(value: Any, handler: Any) -> Any:
    """A field that is good to have: what makes no sense is left out, and the answer stays."""
    try:
        return handler(value)
    except ValidationError:
        return None


Count = Annotated[int, Field(ge=0, lt=10**9, strict=True)]
LogProbability = Annotated[float, Field(le=0.001)]
Name = Annotated[str, Field(max_length=200)]


class Alternative(BaseModel):
    token: str
    logprob: LogProbability


class Token(Alternative):
    top_logprobs: list[Alternative] = []


class LogProbabilities(BaseModel):
    content: list[Token]


class Usage(BaseModel):
    prompt_tokens: Count
    completion_tokens: Count


class Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    message: Message
    finish_reason: Name | None = None
    logprobs: Annotated[LogProbabilities | None, WrapValidator(or_none)] = None


class Completion(BaseModel):
    """What we rely on of an answer: all the rest is ignored."""

    id: Annotated[Name | None, WrapValidator(or_none)] = None
    model: Name | None = None
    choices: list[Choice] = Field(min_length=1, max_length=1)
    usage: Annotated[Usage | None, WrapValidator(or_none)] = None


def read_reply(body: bytes, asked: str) -> dict[str, Any]:
    """An answer as it is stored, without what it cost.

    Args:
        asked: the model that was asked, where the endpoint does not say which one answered.

    Raises:
        NotAnAnswer: another form, not UTF-8, not whole.
    """
    try:
        whole = Completion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise NotAnAnswer(f"not an answer: {'.'.join(map(str, first['loc']))} {first['msg']}"[:200]) from None
    choice = whole.choices[0]
    answer = {
        "text": choice.message.content or "",
        "cut": choice.finish_reason == "length",
        "finish_reason": choice.finish_reason,
        "refusal": choice.message.refusal,
        "model": whole.model or asked,
        "request_id": whole.id,
        "usage": whole.usage.model_dump() if whole.usage else None,
    }
    if choice.logprobs:
        answer["logprobs"] = [[t.token, t.logprob, [[a.token, a.logprob] for a in t.top_logprobs]] for t in choice.logprobs.content]
    return answer


def secret_of(settings: Endpoint) -> str:
    """The key, from the environment; no message ever holds it."""
    key, name = os.environ.get(settings.api_key_env, ""), settings.api_key_env
    if not key:
        raise UserError(f"the endpoint's key is not set: export {name}=… (params.yaml: synthesize.endpoint.api_key_env)")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"{name} holds a blank, a line break or another character that no key has; export it again, without")
    return key


def redacted(value: Any, secret: str) -> Any:
    """A JSON value without the key, wherever in it the key stands."""
    if isinstance(value, str):
        return value.replace(secret, REDACTED)
    if isinstance(value, list):
        return [redacted(v, secret) for v in value]
    if isinstance(value, dict):
        return {redacted(k, secret): redacted(v, secret) for k, v in value.items()}
    return value
