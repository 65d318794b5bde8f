"""An answer as its caller reads it: parsed, made comparable, judged valid; and an endpoint's, brought into
the form that labelled answers have.
"""

import json
import re
from decimal import Decimal
from typing import Any

from slm.task.definition import Task

NOTHING = object()  # an answer that cannot be read
DEEPEST = 64
FINAL = "Answer:"  # what stands before a final answer
NUMBER = re.compile(r"[-+]?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?")


def parse(answer: str) -> Any:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):  # ValueError: also of a number with thousands of digits
        return NOTHING
    return NOTHING if deep(value) else value


def deep(value: Any, levels: int = DEEPEST) -> bool:
    """Whether lists and objects stand in one another deeper than anybody asks for: what reads them would not
    come to an end.
    """
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(deep(part, levels - 1) for part in parts)


def canonical(value: Any) -> Any:
    """Equal answers become equal values: key order, letter case, outer blanks and 21 against 21.0 do not
    matter.
    """
    if isinstance(value, dict):
        return {str(k).strip().casefold(): canonical(v) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [canonical(v) for v in value]
    if isinstance(value, str):
        return value.strip().casefold()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return ("bool", value) if isinstance(value, bool) else value  # True is not 1


def fields(value: Any, path: str = "") -> set[tuple[str, str]]:
    """Leaves of a canonical answer as (path, value)."""
    if isinstance(value, dict):
        return {leaf for k, v in value.items() for leaf in fields(v, f"{path}.{k}")}
    if isinstance(value, list):
        return {leaf for v in value for leaf in fields(v, f"{path}[]")}
    return {(path, json.dumps(value, sort_keys=True))}


def final_answer(answer: str) -> str | None:
    """What follows the last "Answer:"; None where nothing does, or more than one line."""
    _, mark, tail = answer.rpartition(FINAL)
    final = tail.strip()
    return final if mark and final and "\n" not in final else None


def same_value(one: str, other: str) -> bool:
    """Whether two final answers are the same: as numbers (1,200.50 is 1200.5), else letter by letter without
    case; a full stop at the end says nothing.
    """
    left, right = (text.strip().removesuffix(".").casefold() for text in (one, other))
    if NUMBER.fullmatch(left) and NUMBER.fullmatch(right):
        return Decimal(left.replace(",", "")) == Decimal(right.replace(",", ""))
    return left == right


def valid(task: Task, answer: str) -> bool:
    if task.kind == "json":
        if answer not in task.known_answers:
            value = parse(answer)
            task.known_answers[answer] = value is not NOTHING and task.validator.is_valid(value)
        return task.known_answers[answer]
    if task.kind == "label":
        return answer.strip().casefold() in {label.casefold() for label in task.labels}
    if task.kind == "reasoning":
        return final_answer(answer) is not None
    return bool(answer.strip())


def class_of(task: Task, answer: str) -> str | None:
    """The class of an answer, for the confusion table; None where the task has none."""
    if task.kind == "label":
        return answer.strip().casefold() if valid(task, answer) else "(invalid)"
    if task.kind != "json" or task.class_field is None:
        return None
    value = parse(answer)
    name = value.get(task.class_field) if isinstance(value, dict) else None
    return name if isinstance(name, str) else "(invalid)"


def normal(text: str) -> str:
    """Words only, lower case: what decides whether two requests are the same. A text without any is what it
    is.
    """
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def schema_error(task: Task, asked: str, answer: str) -> str | None:
    """What is wrong with an answer by the task's schema, or as an answer to this request; else None."""
    if task.kind == "label":
        return None if answer in task.labels else f"{answer!r} is none of the labels"
    if task.kind == "answer":
        quoted = f" {normal(answer)} " in f" {normal(asked)} "
        return (
            None
            if quoted or answer == task.no_answer
            else f"{answer[:80]!r} does not stand in the passage, word for word"
        )
    if task.kind == "reasoning":
        if final_answer(answer) is None:
            return f"no final answer: {answer[-80:]!r} does not end in a line with {FINAL!r} and the answer"
        thought = bool(answer.rpartition(FINAL)[0].strip())
        return (
            None
            if thought == task.rationale
            else f"{'a' if thought else 'no'} rationale before the final answer: {answer[:80]!r}"
        )
    if task.kind != "json":
        return None
    value = parse(answer)
    if value is NOTHING:
        return f"not JSON: {answer[:80]}"
    error = next(
        iter(sorted(task.validator.iter_errors(value), key=lambda e: len(e.path), reverse=True)), None
    )
    if error is None:
        return None
    if error.context:  # oneOf/anyOf: the branch that came furthest says what is wrong
        error = max(error.context, key=lambda e: (len(e.path), e.validator != "const"))
    return f"{'.'.join(map(str, error.absolute_path)) or 'answer'}: {error.message[:120]} in {answer[:120]}"


def tidied(task: Task, text: str) -> str:
    """An endpoint's answer in the form that the labelled answers have: JSON without a code fence around it,
    compact; no more than a final answer where the task asks for no rationale.
    """
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
