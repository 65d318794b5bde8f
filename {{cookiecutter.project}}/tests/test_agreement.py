"""Of several answers the one is kept that the others say too, however they write it."""

import pytest

from slm.task.definition import Task
from slm.teacher.self_consistency import agreed

LABEL = Task(name="t", kind="label", instruction="i", labels=["a", "b"])
TEXT = Task(name="t", kind="text", instruction="i")


def test_json_is_counted_by_what_it_says(task: Task):
    written = [
        '{"name":"b"}',
        '{"name":"a","arguments":{"n":1}}',
        '{"arguments": {"n": 1.0}, "name": "a"}',
        "no json",
        None,
    ]
    assert agreed(task, written) == (1, 2 / 5)


@pytest.mark.parametrize(
    ("texts", "kept", "share"),
    [
        (["a", "b", "b ", "b"], 1, 3 / 4),
        (["a", "b"], 0, 1 / 2),  # the first of equals: it is the likeliest answer
        (["b", "a", "b", "a"], 0, 1 / 2),
        ([None, "a", None], 1, 1 / 3),
        ([None, None], 0, 0.0),
    ],
)
def test_labels_are_counted(texts: list[str | None], kept: int, share: float):
    assert agreed(LABEL, texts) == (kept, share)


def test_json_that_cannot_be_read_agrees_with_nothing(task: Task):
    assert agreed(task, ["oops", "oops", '{"name":"a"}']) == (0, 1 / 3)


def test_text_is_kept_that_is_nearest_to_the_others():
    texts = ["buy a goat", "turn the lamp on now", "turn the lamp on", "turn the lamp on please", None]
    kept, share = agreed(TEXT, texts)
    assert kept == 2 and share == pytest.approx((0 + 8 / 9 + 8 / 9) / 4)
    assert agreed(TEXT, [None, "a b"]) == (1, 0.0)
