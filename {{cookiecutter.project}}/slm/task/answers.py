"""An answer as its caller reads it: parsed, made comparable, judged valid; and an endpoint's, brought into
the form that labelled answers have.
"""

import json
from collections import Counter
from typing import Any

import numpy as np
import regex
from scipy.optimize import linear_sum_assignment

from slm.task.definition import Task
from slm.task.numbers import number_of
from slm.task.strict import Unreadable, composed, strict_json
from slm.task.text import folded, nfc, stands_in, unusual

NOTHING = object()  # an answer that cannot be read
ENDED = regex.compile(r"[\p{Sentence_Terminal}--[!?！？]]+$", regex.V1)  # the full stops of all scripts
FINAL = "Answer:"  # what stands before a final answer


def parse(answer: str) -> Any:
    """The JSON value of an answer; NOTHING if others would read it otherwise, or not at all."""
    try:
        return strict_json(answer)
    except Unreadable:
        return NOTHING


def canonical(value: Any, cased: frozenset[str] = frozenset()) -> Any:
    """Equal answers become equal values: key order, outer blanks, letter case and 21 against 21.0 do not
    matter.

    Args:
        cased: texts that only letter case tells apart (`Task.cased`): these stay as they are.
    """
    if isinstance(value, dict):
        return {nfc(str(k)): canonical(v, cased) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [canonical(v, cased) for v in value]
    if isinstance(value, str):
        text = nfc(value).strip()
        return text if text in cased else nfc(text.casefold())
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return ("bool", value) if isinstance(value, bool) else value  # True is not 1


def count_fields(value: Any) -> int:
    """Leaves of a canonical answer; an empty list or object is one."""
    if isinstance(value, dict | list) and value:
        return sum(count_fields(v) for v in (value.values() if isinstance(value, dict) else value))
    return 1


def count_equal_fields(want: Any, got: Any) -> int:
    """Leaves that two canonical answers share. The members of two lists are paired so that the most are
    equal, in any order: a field counts for the object that it stands in.
    """
    if isinstance(want, dict) and isinstance(got, dict) and (want or got):
        return sum(count_equal_fields(want[k], got[k]) for k in want.keys() & got.keys())
    if isinstance(want, list) and isinstance(got, list) and (want or got):
        if not any(isinstance(v, dict | list) for v in (*want, *got)):
            return (Counter(want) & Counter(got)).total()
        equal = np.array([[count_equal_fields(one, other) for other in got] for one in want])
        return int(equal[linear_sum_assignment(equal, maximize=True)].sum()) if equal.size else 0
    return int(type(want) is type(got) and want == got)


def final_answer(answer: str) -> str | None:
    """What follows the last "Answer:"; None where nothing does, or more than one line."""
    _, mark, tail = answer.rpartition(FINAL)
    final = tail.strip()
    return final if mark and final and "\n" not in final else None


def same_value(one: str, other: str) -> bool:
    """Whether two final answers are the same: as numbers in any written form (slm/task/numbers.py), else
    letter by letter without case; a full stop at the end says nothing.
    """
    left, right = (ENDED.sub("", folded(text).strip()).strip() for text in (one, other))
    values = number_of(left), number_of(right)
    return values[0] == values[1] if None not in values else left == right


def valid(task: Task, answer: str) -> bool:
    """Whether the caller of the model can read its answer."""
    if task.kind == "json":
        if answer not in task.known_answers:
            value = parse(answer)
            task.known_answers[answer] = value is not NOTHING and task.validator.is_valid(value)
        return task.known_answers[answer]
    if task.kind == "label":
        return nfc(answer).strip() in task.labels
    if task.kind == "reasoning":
        return final_answer(answer) is not None
    return bool(answer.strip())


def class_of(task: Task, answer: str) -> str | None:
    """The class of an answer, for the confusion table; None where the task has none."""
    if task.kind == "label":
        return nfc(answer).strip() if valid(task, answer) else "(invalid)"
    if task.kind != "json" or task.class_field is None:
        return None
    value = parse(answer)
    name = value.get(task.class_field) if isinstance(value, dict) else None
    return nfc(name) if isinstance(name, str) else "(invalid)"


def schema_error(task: Task, asked: str, answer: str) -> str | None:
    """What is wrong with an answer by the task's schema, or as an answer to this request; else None."""
    if task.kind == "label":
        return None if answer in task.labels else f"{answer!r}{_seen(answer)} is none of the labels"
    if task.kind == "answer":
        return (
            None
            if answer == task.no_answer or stands_in(answer, asked)
            else f"{answer[:80]!r}{_seen(answer)} does not stand in the passage, word for word"
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
    try:
        value = strict_json(answer)
    except Unreadable as fault:
        return f"{fault.what}: {answer[:80]}"
    error = next(
        iter(sorted(task.validator.iter_errors(value), key=lambda e: len(e.path), reverse=True)), None
    )
    if error is None:
        return None
    if error.context:  # oneOf/anyOf: the branch that came furthest says what is wrong
        error = max(error.context, key=lambda e: (len(e.path), e.validator != "const"))
    return f"{'.'.join(map(str, error.absolute_path)) or 'answer'}: {error.message[:120]} in {answer[:120]}"


def _seen(text: str) -> str:
    """What a reader cannot see of a text that looks right."""
    return f" (with {found})" if (found := unusual(text)) else ""


def tidied(task: Task, text: str) -> str:
    """An endpoint's answer in the form that the labelled answers have: composed, without blanks around it;
    JSON without a code fence, compact; no more than a final answer where the task asks for no rationale.
    """
    text = nfc(text.replace("\r\n", "\n")).strip()
    if task.kind == "reasoning" and not task.rationale and (final := final_answer(text)):
        return f"{FINAL} {final}"
    if task.kind != "json":
        return text
    try:
        # Once more: JSON may write a letter and its accent as escapes.
        value = composed(strict_json(unfenced(text)))
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except Unreadable:
        return text


def unfenced(text: str) -> str:
    """The text within a code fence around all of it."""
    first, _, rest = text.strip().partition("\n")
    fence, language = first[:3], first[3:].strip().casefold()
    if fence not in ("```", "~~~") or language not in ("", "json") or not rest.endswith(fence):
        return text
    return rest.removesuffix(fence).strip()
