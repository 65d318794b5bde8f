"""Records as the table that Great Expectations judges, one row each, and what is in them."""

from collections import Counter
from typing import Any

import pandas as pd

from slm.quality.similarity import NEAR, Index
from slm.task.answers import class_of, normal, schema_error
from slm.task.definition import Task
from slm.task.records import Record


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
                "text_words": len(asked.split()),
                "text_characters": len(asked),
                "answer": record.answer,
                "answer_characters": len(record.answer),
                "answer_class": class_of(task, record.answer) if record.answer else None,
                "schema_error": schema_error(task, asked, record.answer) if record.answer else None,
                "tags": len(record.tags),
                "leak": f"{asked} ~ {leak[0]}" if leak[1] > NEAR else None,
            }
        )
    return pd.DataFrame(rows).astype({"schema_error": object, "leak": object})


def summary(task: Task, records: list[Record]) -> dict[str, Any]:
    classes = Counter(class_of(task, r.answer) or "" for r in records if r.answer)
    return {
        "records": len(records),
        "words_mean": sum(len(r.asked.split()) for r in records) / len(records),
        "classes": dict(sorted(classes.items())),
        "tags": dict(sorted(Counter(t for r in records for t in r.tags).items())),
    }
