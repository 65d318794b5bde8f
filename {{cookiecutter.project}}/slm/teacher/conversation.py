"""Messages of a record as an OpenAI-compatible endpoint takes them: the way back from slm/task/strict.py."""

import json
from itertools import takewhile
from typing import Any

from slm.task.strict import Unreadable, strict_json


def with_calls(messages: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Messages as an endpoint takes them: what a tool said must answer a call, by its id. So the calls before
    it, which a student reads as an answer, become calls again; where they cannot, the user says it.
    """
    sent: list[dict[str, Any]] = []
    said = 0  # of the messages that are read
    while said < len(messages):
        message = messages[said]
        tools = list(takewhile(lambda m: m["role"] == "tool", messages[said + 1 :]))
        calls = _calls_in(message["content"]) if message["role"] == "assistant" and tools else []
        if calls and len(calls) == len(tools):
            ids = [f"call_{len(sent)}_{i}" for i in range(len(calls))]
            listed = [
                {"id": name, "type": "function", "function": call}
                for name, call in zip(ids, calls, strict=True)
            ]
            sent.append({"role": "assistant", "content": None, "tool_calls": listed})
            sent += [tool | {"tool_call_id": name} for name, tool in zip(ids, tools, strict=True)]
            said += len(tools)
        else:
            sent.append(message | {"role": "user"} if message["role"] == "tool" else message)
        said += 1
    return sent


def _calls_in(answer: str) -> list[dict[str, str]]:
    """The calls that an answer of `answer_of_calls` stands for; none where it is another text."""
    try:
        value = strict_json(answer)
    except Unreadable:
        return []
    calls = value if isinstance(value, list) else [value]
    if not all(
        isinstance(call, dict)
        and call.keys() == {"name", "arguments"}
        and isinstance(call["name"], str)
        and isinstance(call["arguments"], dict)
        for call in calls
    ):
        return []
    return [
        {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
        for call in calls
    ]
