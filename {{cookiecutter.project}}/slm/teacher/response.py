"""Read the replies of an endpoint without trust: a whole answer of the expected structure, or no answer.

`read_reply` takes a body apart, for the store. `understood` says what a stored reply means, whenever it was
stored: its text without thoughts and outer blanks, and how it ended.
"""

import json
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import from_json

from slm.quality.markers import THOUGHT_CLOSES, THOUGHT_OPENS
from slm.task.answers import schema_error
from slm.task.definition import Task
from slm.task.strict import BYTE_ORDER_MARK, Unreadable, answer_of_calls, unique_keys
from slm.teacher.server_errors import HTML, Complaint, complaint_inside

# How servers say that an answer ended by itself, that its tokens were used up, that it is a tool call, that
# they could not go on: in small letters, without blanks and marks between the words.
WHOLE = {
    *("", "stop", "stopsequence", "stoptoken", "stopword", "eos", "eostoken", "end", "endturn", "endofturn"),
    *("complete", "completed", "done", "finish", "finished", "null", "none"),
    *("endoftext", "imend", "eotid", "eot", "eom", "endofsentence", "s"),
}
TOO_LONG = {
    *("length", "modellength", "maxtokens", "maxlength", "maxnewtokens", "maxoutputtokens"),
    *("maxcompletiontokens", "tokenlimit", "contextlength", "contextlengthexceeded"),
    *("modelcontextwindowexceeded", "contextwindowexceeded", "maxcontextlength"),
}
THOUGHTS = ("thinking", "redacted_thinking", "reasoning")  # types of parts
CALLED = {"toolcalls", "toolcall", "tooluse", "functioncall"}
BROKEN_OFF = {"insufficientsystemresource", "abort", "aborted", "error", "servererror", "internalerror"}
BLANKS = "".join(chr(c) for c in range(0x3001) if chr(c).isspace()) + "\u200b\u2060\ufeff"
MOST_OF_CHUNK = 1000  # characters in which a piece of an answer says that it is one
STREAM = re.compile(rb"\s*(data|event|id|retry)?:")  # lines of server-sent events
KEPT_ALIVE = re.compile(
    rb"\A(\s*:[^\n]*\n)+"
)  # their comments, which some servers send before a whole answer
MOST_QUOTED, MOST_OF_KEY = 80, 4000  # characters


class NotAnAnswer(Exception):
    """Says in what the body differs from an answer. begins: what it begins with, where it is no JSON; our
    key may be in it.
    """

    def __init__(self, what: str, begins: str = "") -> None:
        super().__init__(what)
        self.begins = begins

    def quoted(self, redacted: Callable[[str], str]) -> str:
        """What is added to the message.

        Args:
            redacted: takes our key out of a text.
        """
        if self.begins.lstrip()[:1] in ("", "{", "["):  # an answer that broke off
            return ""
        # A web page came in place of the API
        remedy = "; correct synthesize.endpoint.base_url" if HTML.match(self.begins) else ""
        words = " ".join(redacted(self.begins).split())[:MOST_QUOTED]
        return f"; it begins with {words!r}{remedy}"


class Streamed(NotAnAnswer):
    """The answer comes in pieces."""


class Complained(NotAnAnswer):
    """An error stands where an answer should. begun: an answer had begun, and may be billed."""

    def __init__(self, complaint: Complaint, begun: bool) -> None:
        super().__init__(complaint.said)
        self.complaint, self.begun = complaint, begun


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


def refusal_of(value: Any) -> str | None:
    """A refusal as text. Some servers send false where there is none."""
    return None if not value else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def reason_of(value: Any) -> Any:
    """How an answer ended, as a text, whatever type it is sent as."""
    named = value.get("type") or value.get("reason") if isinstance(value, dict) else value
    return named if named is None or isinstance(named, str) else json.dumps(named)[:200]


def part_of(value: Any) -> Any:
    """A part of a message in pieces: its text. Thoughts and refusals are none of it."""
    if not isinstance(value, dict):
        raise ValueError("a part of the content is no object")
    kind = value.get("type", "text")
    if kind in (*THOUGHTS, "refusal"):
        return ""
    if kind not in ("text", "output_text"):
        raise ValueError("a part of the content is no text")
    return value.get("text")


class ToolCall(BaseModel):
    name: ReplyName
    arguments: Any = None  # JSON as text, or an object already


Part = Annotated[str, BeforeValidator(part_of)]
Called = Annotated[
    ToolCall, BeforeValidator(lambda call: call.get("function", call) if isinstance(call, dict) else call)
]


class ReplyMessage(BaseModel):
    content: str | list[Part] | None = None
    refusal: Annotated[str | None, BeforeValidator(refusal_of)] = None
    tool_calls: Annotated[list[Called] | None, WrapValidator(or_none)] = None
    function_call: Annotated[ToolCall | None, WrapValidator(or_none)] = None  # as OpenAI had it first
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None

    @model_validator(mode="before")
    @classmethod
    def from_parts(cls, message: Any) -> Any:
        """What parts say that are no text has a field of its own."""
        content = message.get("content") if isinstance(message, dict) else None
        parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
        refused = [part.get("refusal") or "a refusal" for part in parts if part.get("type") == "refusal"]
        if refused and not message.get("refusal"):
            message = message | {"refusal": refused[0]}
        return message | {"reasoning": True} if any(p.get("type") in THOUGHTS for p in parts) else message


class Choice(BaseModel):
    message: ReplyMessage
    finish_reason: Annotated[ReplyName | None, BeforeValidator(reason_of)] = None
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
        Complained: an error of the server in place of an answer.
        Streamed: an answer in pieces.
        NotAnAnswer: another form, not UTF-8, not whole.
    """
    whole = _completion(body)
    choice = whole.choices[0]
    message, content = choice.message, choice.message.content
    answer = {
        "text": content if isinstance(content, str) else "".join(content or []),
        "cut": ending_of(choice.finish_reason) == "length",
        "finish_reason": choice.finish_reason,
        "refusal": message.refusal,
        "model": whole.model or asked,
        "request_id": whole.id,
        "usage": whole.usage.model_dump() if whole.usage else None,
    }
    if calls := message.tool_calls or ([message.function_call] if message.function_call else []):
        answer["tool_calls"] = [call.model_dump() for call in calls]
    if not answer["text"] and (message.reasoning_content or message.reasoning or message.reasoning_details):
        answer["thoughts"] = True
    if choice.logprobs:
        answer["logprobs"] = [
            [t.token, t.logprob, [[a.token, a.logprob] for a in t.top_logprobs]]
            for t in choice.logprobs.content
        ]
    return answer


def _completion(body: bytes) -> Completion:
    body = KEPT_ALIVE.sub(b"", body.lstrip().removeprefix(BYTE_ORDER_MARK))
    try:
        value = from_json(body)
        json.loads(body, object_pairs_hook=unique_keys)
    except ValueError as error:
        if STREAM.match(body):
            _stop_at_complaint(body)
            raise Streamed("the answer comes in pieces") from None
        begins = body[:MOST_OF_KEY].decode(errors="replace")
        raise NotAnAnswer(f"not an answer: invalid JSON: {error}"[:200], begins) from None
    if complaint := complaint_inside(value):
        raise Complained(complaint, begun=bool(value.get("choices") or value.get("usage")))
    try:
        return Completion.model_validate(value)
    except ValidationError as error:
        if '"delta"' in json.dumps(value)[:MOST_OF_CHUNK]:
            raise Streamed("the answer comes in pieces") from None
        errors = error.errors(include_input=False, include_url=False)
        # Of a content that is neither text nor parts, the last says most
        said = [each for each in errors if each["loc"][:4] == errors[0]["loc"][:4]][-1]
        place = ".".join(str(part).partition("[")[0] for part in said["loc"])  # without names of our own
        raise NotAnAnswer(f"not an answer: {place} {said['msg']}"[:200]) from None


def _stop_at_complaint(stream: bytes) -> None:
    """
    Raises:
        Complained: a piece of the answer is an error.
    """
    begun = False
    for line in stream.splitlines():
        try:
            value = from_json(line.removeprefix(b"data:")) if line.startswith(b"data:") else None
        except ValueError:
            continue
        if complaint := complaint_inside(value):
            raise Complained(complaint, begun)
        begun = begun or value is not None


def ending_of(finish_reason: str | None) -> str:
    """How an answer ended: "stop", "length", "tool_calls", or as the server says it."""
    said, name = (finish_reason or "").strip(), _plain_name(finish_reason)
    if name in WHOLE:
        return "stop"
    return "length" if name in TOO_LONG else "tool_calls" if name in CALLED else said


def broke_off(finish_reason: str | None) -> bool:
    """The server could not go on, and may if it is asked again."""
    return _plain_name(finish_reason) in BROKEN_OFF


def _plain_name(finish_reason: str | None) -> str:
    name = re.sub(r"[-_\s<>|/\[\]]", "", (finish_reason or "").rpartition(".")[2].casefold())
    return name.removeprefix("finishreason")


def understood(reply: dict[str, Any]) -> dict[str, Any]:
    """A stored reply with the text that counts. lost: why there is none after its thoughts."""
    text, lost = without_thoughts(reply["text"])
    cut = reply["cut"] or ending_of(reply.get("finish_reason")) == "length"
    return reply | {"text": text, "cut": cut} | ({"lost": lost} if lost else {})


def without_thoughts(text: str) -> tuple[str, str]:
    """What follows the thoughts that a text begins with, without outer blanks; and why there is nothing.

    Thoughts in the middle of an answer stay, for the filter of marks to find.
    """
    rest, thought = text.strip(BLANKS), False
    while opened := THOUGHT_OPENS.match(rest):
        closed = THOUGHT_CLOSES.search(rest, opened.end())
        if not closed:
            return "", f"its thoughts never end: {rest[:60]}"
        rest, thought = rest[closed.end() :].strip(BLANKS), True
    # Chat templates such as R1's write the opening tag into the prompt, so that only the closing one is sent.
    ends = list(THOUGHT_CLOSES.finditer(rest))
    quoted = bool(ends) and rest[: ends[0].start()].endswith(("`", "'", '"'))
    if not thought and len(ends) == 1 and not quoted and not THOUGHT_OPENS.search(rest):
        rest, thought = rest[ends[0].end() :].strip(BLANKS), True
    return rest, "nothing follows its thoughts" if thought and not rest else ""


def is_call(reply: dict[str, Any]) -> bool:
    """Whether a tool call stands in place of an answer in words."""
    ending = ending_of(reply.get("finish_reason"))
    return ending == "tool_calls" or (bool(reply.get("tool_calls")) and not reply["text"])


def call_as_answer(task: Task, reply: dict[str, Any]) -> str | None:
    """A tool call as the answer that it stands for: {"name", "arguments"}, compact, or a list of them. None
    where the task's schema takes neither.
    """
    if task.kind != "json" or not is_call(reply):
        return None
    calls = reply.get("tool_calls") or []
    # Some servers send nothing, or blanks, where a function has no arguments.
    given = [
        call["arguments"].strip() if isinstance(call["arguments"], str) else call["arguments"]
        for call in calls
    ]
    functions = [
        {"name": call["name"], "arguments": said or {}} for call, said in zip(calls, given, strict=True)
    ]
    try:
        text = answer_of_calls([{"function": function} for function in functions])
    except Unreadable:
        return None
    written = (text, f"[{text}]") if len(calls) == 1 else (text,)
    return next((answer for answer in written if schema_error(task, "", answer) is None), None)


def why_silent(reply: dict[str, Any]) -> str:
    """Why a reply that was understood has no text."""
    if reply.get("cut"):
        return "its tokens ended before an answer began: a model that reasons spends them on thoughts first"
    if is_call(reply):
        return "the server answered with a tool call"
    if reply.get("lost"):
        return reply["lost"]
    if reply.get("refusal"):
        return f"the server's own refusal came instead: {reply['refusal'][:60]}"
    return "the server sent thoughts alone" if reply.get("thoughts") else "the answer is empty"
