"""Read the responses of an endpoint without trust: a whole answer of the expected structure, or no answer."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, WrapValidator


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
ReplyName = Annotated[str, Field(max_length=200)]


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


class ReplyMessage(BaseModel):
    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    message: ReplyMessage
    finish_reason: ReplyName | None = None
    logprobs: Annotated[LogProbabilities | None, WrapValidator(or_none)] = None


class Completion(BaseModel):
    """What we rely on of an answer: all the rest is ignored."""

    id: Annotated[ReplyName | None, WrapValidator(or_none)] = None
    model: ReplyName | None = None
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
        answer["logprobs"] = [
            [t.token, t.logprob, [[a.token, a.logprob] for a in t.top_logprobs]]
            for t in choice.logprobs.content
        ]
    return answer
