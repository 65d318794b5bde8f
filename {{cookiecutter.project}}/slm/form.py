"""The form of an endpoint's answer: JSON out of its code fence, read as others read it, written as the labelled answers are."""

import json
import re
from typing import Any

from slm.scoring import FINAL, final_answer
from slm.task import Task


def tidied(task: Task, text: str) -> str:
    """An endpoint's answer in the form that the labelled answers have: JSON without a code fence around it, compact; no more than a final answer
    where the task asks for no rationale."""
    if task.kind in ("label", "answer"):
        return text.strip()
    if task.kind == "reasoning" and not task.rationale and (final := final_answer(text)):
        return f"{FINAL} {final}"
    if task.kind != "json":
        return text
    try:
        return json.dumps(strict(unfenced(text)), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return text


def unfenced(text: str) -> str:
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", text, re.DOTALL)
    return fenced[1] if fenced else text


def strict(text: str) -> Any:
    """JSON as others read it too: no NaN, no key twice, no lone surrogates."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    def number(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    value = json.loads(text, object_pairs_hook=once, parse_constant=number)
    json.dumps(value, ensure_ascii=False).encode()
    return value
