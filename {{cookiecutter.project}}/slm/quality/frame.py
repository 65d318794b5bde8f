"""Records as the table that Great Expectations judges, one row each, and what is in them."""

from collections import Counter
from typing import Any

import pandas as pd

from slm.quality.markers import marker_in
from slm.quality.similarity import NEAR, Index
from slm.task.answers import class_of, schema_error
from slm.task.definition import Task
from slm.task.records import Record
from slm.task.text import graphemes, normal, words


def frame(task: Task, records: list[Record], held_out: Index | None) -> pd.DataFrame:
    """One row for each record, the columns that the suites in task/expectations speak of."""
    rows = []
    for record in records:
        asked = record.asked
        leak = held_out.nearest(asked) if held_out else (None, 0.0)
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
                "schema_error": _answer_error(task, asked, record.answer) if record.answer else None,
                "tags": len(record.tags),
                "leak": f"{asked} ~ {leak[0]}" if leak[1] > NEAR else None,
            }
        )
    return pd.DataFrame(rows).astype({"schema_error": object, "leak": object})


def _answer_error(task: Task, asked: str, answer: str) -> str | None:
    if mark := marker_in(answer):
        return f"{mark!r} is a mark of chat models, which an answer must not teach: {answer[:80]}"
    return schema_error(task, asked, answer)


def summary(task: Task, records: list[Record]) -> dict[str, Any]:
    classes = Counter(class_of(task, r.answer) or "" for r in records if r.answer)
    return {
        "records": len(records),
        "words_mean": sum(len(words(r.asked)) for r in records) / len(records),
        "classes": dict(sorted(classes.items())),
        "tags": dict(sorted(Counter(t for r in records for t in r.tags).items())),
    }
