"""Figures of the data that a model is made from, for gates such as `metric: data.synthetic_share`."""

from collections import Counter
from typing import Any

from scipy.spatial.distance import jensenshannon

from slm.errors import UserError
from slm.task.answers import class_of
from slm.task.definition import Task
from slm.task.records import TASK
from slm.task.strict import json_rows, plain_message

CountsByName = dict[str, int]


def data_figures(
    task: Task, data: dict[str, Any], synthetic: dict[str, Any] | None, released_train: str | None
) -> dict[str, float]:
    """What the reports of `check` and `validate` say, in one number each.

    Args:
        data, synthetic: reports/data.json and reports/synthetic.json.
        released_train: train.jsonl of the released commit; None where there is none.

    Returns:
        records           labelled examples to train on
        synthetic_share   share of the student's examples whose answer a teacher wrote
        provenance        share of those that say which teacher gave them for which prompt
        largest_class     share of the commonest class among those examples (where answers have classes)
        fewest_examples   examples to train on of the rarest class that the test set asks for (the same)
        doubtful_labels   share of all labelled examples whose class looks wrong (slm/quality/label_errors.py)
        drift             Jensen-Shannon distance, 0 to 1, of classes or tags (the larger) from those that the
                          released model was trained on
    """
    train, test = data["splits"]["train"], data["splits"]["test"]
    classes = {name: n for name, n in train["classes"].items() if name}
    figures = {"records": float(train["records"])}
    if synthetic:
        figures["provenance"] = (
            synthetic.get("with_provenance", 0) / synthetic["kept"] if synthetic["kept"] else 1.0
        )
        figures["synthetic_share"] = synthetic["kept"] / (synthetic["kept"] + train["records"])
    if classes:
        figures["largest_class"] = max(classes.values()) / sum(classes.values())
        figures["fewest_examples"] = float(min(classes.get(name, 0) for name in test["classes"] if name))
    if data.get("doubtful", {}).get("looked_at"):
        figures["doubtful_labels"] = data["doubtful"]["found"] / data["doubtful"]["looked_at"]
    before = _contents(task, released_train)
    if before:
        figures["drift"] = max(
            distance(old, new) for old, new in zip(before, (classes, train["tags"]), strict=True)
        )
    return figures


def distance(one: CountsByName, other: CountsByName) -> float:
    """How differently two sets of examples are distributed over names: 0 alike, 1 nothing in common."""
    names = sorted({*one, *other})
    if not names or not sum(one.values()) or not sum(other.values()):
        return float(bool(one) != bool(other))
    return float(jensenshannon([one.get(n, 0) for n in names], [other.get(n, 0) for n in names], base=2))


def _contents(task: Task, text: str | None) -> tuple[CountsByName, CountsByName] | None:
    """Classes and tags of labelled examples in another commit; None where there are none."""
    if not text:
        return None
    classes: Counter[str | None] = Counter()
    tags: Counter[str] = Counter()
    read = 0
    for _, row in json_rows(text.encode()):
        try:
            answer, tagged = plain_message(row["messages"][-1])["content"], Counter(row.get("tags", []))
        except (ValueError, LookupError, TypeError, AttributeError):
            continue  # a commit that an older reader took cannot be mended
        classes[class_of(task, answer)] += 1
        tags += tagged
        read += 1
    if not read:
        raise UserError(
            f"{TASK}/train.jsonl of the released commit cannot be read: none of its lines is a record"
        )
    return {c: n for c, n in classes.items() if c is not None}, dict(tags)
