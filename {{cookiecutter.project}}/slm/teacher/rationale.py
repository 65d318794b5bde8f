"""A teacher that reasons before it answers (Wei et al., arXiv 2201.11903). The reasoning is separated from
the answer, because a student learns only the answer.

If the reply is JSON, a field before the answer holds the reasoning. Otherwise a marked line separates them.
"""

import json
import re
from typing import Any

from slm.config.synthesis import Endpoint
from slm.task.answers import unfenced
from slm.task.definition import Task
from slm.task.strict import strict_json

TOKENS = 512  # for the reasoning, beside those of the answer
FIELD = (
    'Reason first. Reply with one JSON object, {"rationale": "your reasoning in a few sentences", '
    '"answer": …}, '
    "whose second field is the answer."
)
SECTION = (
    "Reason first: write your reasoning in a few sentences, then a line that begins with ANSWER: and after "
    "it the answer alone."
)
MARK = re.compile(r"^[*#\s]*ANSWER:[*\s]*", re.MULTILINE)


def in_json(settings: Endpoint, task: Task) -> bool:
    return settings.response_format == "json_object" or (
        settings.response_format != "none" and task.kind == "json"
    )


def instruction(settings: Endpoint, task: Task) -> str:
    """What the teacher is told: the task's own words, and how to reason."""
    return (
        f"{task.instruction}\n\n{FIELD if in_json(settings, task) else SECTION}"
        if settings.rationale
        else task.instruction
    )


def with_rationale(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of such a reply, out of the answer's own: definitions go to the root, where references look
    for them.
    """
    shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    answer = moved({name: value for name, value in schema.items() if name not in shared})
    fields = {"rationale": {"type": "string"}, "answer": answer}
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
        **moved(shared),
    }


def moved(value: Any) -> Any:
    """References to parts of the answer, which is no longer the root."""
    if isinstance(value, list):
        return [moved(v) for v in value]
    if not isinstance(value, dict):
        return value
    return {
        k: "#/properties/answer" + v[1:]
        if k == "$ref" and re.match(r"#(?!/\$defs/|/definitions/)", str(v))
        else moved(v)
        for k, v in value.items()
    }


def apart(settings: Endpoint, task: Task, text: str) -> tuple[str | None, str | None]:
    """Rationale and answer of a reply; no answer (None) where the two cannot be told apart for sure."""
    if not settings.rationale:
        return None, text
    if not in_json(settings, task):
        parts = MARK.split(text)
        return (parts[0].strip(), parts[1].strip()) if len(parts) == 2 and parts[1].strip() else (None, None)
    try:
        reply = strict_json(unfenced(text))
    except (ValueError, RecursionError):
        return None, None
    if (
        not isinstance(reply, dict)
        or reply.keys() != {"rationale", "answer"}
        or not isinstance(reply["rationale"], str)
    ):
        return None, None
    answer = reply["answer"]
    return reply["rationale"], answer if isinstance(answer, str) and task.kind != "json" else json.dumps(
        answer, ensure_ascii=False
    )
