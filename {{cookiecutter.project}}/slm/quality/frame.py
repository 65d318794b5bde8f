"""Records as the table that Great Expectations judges, one row each, and what is in them."""

from collections import Counter
from typing import Any

import pandas as pd

from slm.quality.leaks import Leaks
from slm.quality.markers import answer_fault
from slm.task.answers import class_of, schema_error
from slm.task.definition import Task
from slm.task.records import Record
from slm.task.text import graphemes, normal, words


def frame(task: Task, records: list[Record], held_out: Leaks | None) -> pd.DataFrame:
    """One row for each record, the columns that the suites in task/expectations speak of."""
    rows = []
    for record in records:
        asked = record.asked
        leak = held_out.found_in(record) if held_out else None
        found = f"{leak.said}: {asked}" if leak else None
        rows.append(
            {
                "id": record.id,
                "text": asked,
                "normal_text": normal(asked),
                "text_words": len(words(asked)),
                "text_characters": len(graphemes(asked)),
                "answer": record.answer,
                "answer_characters": len(graphemes(record.answer)),
                "answer_class": class_of(task, record.answer) if record.answer else None,
                "schema_error": _answer_error(task, record),
                "tags": len(record.tags),
                "leak": found if leak and leak.certain else None,
                "hidden_leak": found if leak and not leak.certain else None,
            }
        )
    return pd.DataFrame(rows).astype(dict.fromkeys(("schema_error", "leak", "hidden_leak"), object))


def hidden_leaks(file: str, records: list[Record], table: pd.DataFrame) -> list[str]:
    """Each record that may hide a held-out one, as "file:line: what: request"."""
    found = table["hidden_leak"]
    return [f"{file}:{r.line}: {leak}" for r, leak in zip(records, found, strict=True) if pd.notna(leak)]


def _answer_error(task: Task, record: Record) -> str | None:
    """What is wrong with the answer, or with what the assistant said before it."""
    for message in record.messages:
        said = message["content"]
        if message["role"] == "assistant" and said and (fault := answer_fault(task, said)):
            return f"{fault}: {said[:80]}"
    return schema_error(task, record.asked, record.answer) if record.answer else None


def summary(task: Task, records: list[Record]) -> dict[str, Any]:
    classes = Counter(class_of(task, r.answer) or "" for r in records if r.answer)
    return {
        "records": len(records),
        "words_mean": sum(len(words(r.asked)) for r in records) / len(records),
        "classes": dict(sorted(classes.items())),
        "tags": dict(sorted(Counter(t for r in records for t in r.tags).items())),
    }
