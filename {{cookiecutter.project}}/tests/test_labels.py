"""Labels that were made wrong are found, and nothing is said where there is nothing to find."""

import json
import random

from slm.quality.label_errors import doubtful_labels
from slm.task.records import Record

SAID = {
    "set_light": ["turn on the {} lamp", "lights up in the {}", "dim the {} light", "make the {} brighter"],
    "lock_door": [
        "lock the {} door",
        "is the {} door shut? lock it",
        "bolt the {} door",
        "secure the {} entrance",
    ],
    "set_timer": [
        "timer for {} minutes",
        "count down {} minutes",
        "wake me in {} minutes",
        "start a {} minute timer",
    ],
}
PLACES = ["kitchen", "hall", "attic", "front", "back", "garage", "ten", "five", "twenty", "thirty"]


def examples(task) -> list[Record]:
    rows = []
    for name, forms in SAID.items():
        for form in forms:
            for place in PLACES:
                answer = json.dumps({"name": name, "arguments": {}})
                rows.append(
                    Record(
                        str(len(rows)),
                        [
                            {"role": "user", "content": form.format(place)},
                            {"role": "assistant", "content": answer},
                        ],
                        [],
                        len(rows) + 1,
                    )
                )
    return rows


def test_wrong_labels_are_found(task):
    rows = examples(task)
    wrong = set(random.Random(0).sample(range(len(rows)), 8))
    names = list(SAID)
    for i in wrong:
        other = names[(names.index(json.loads(rows[i].answer)["name"]) + 1) % 3]
        rows[i].messages[1]["content"] = json.dumps({"name": other, "arguments": {}})
    found = doubtful_labels(task, {"train": rows})
    assert found["looked_at"] == 120
    shown = {r["line"] - 1 for r in found["shown"]}
    assert len(shown & wrong) >= 7
    assert len(shown - wrong) <= 2
    assert {r["file"] for r in found["shown"]} == {"task/train.jsonl"}


def test_right_labels_are_left_in_peace(task):
    assert doubtful_labels(task, {"train": examples(task)})["found"] == 0


def test_too_few_examples_and_answers_without_a_class_say_nothing(task):
    nothing = {"looked_at": 0, "found": 0, "shown": []}
    assert doubtful_labels(task, {"train": examples(task)[:4]}) == nothing


def test_examples_that_share_no_word_say_nothing(task):
    """Six requests, each one word of its own: a vectorizer that wants words seen twice has none left."""
    texts = ["abcde", "fghij", "klmno", "pqrst", "uvwxy", "zäöüß"]
    rows = [
        Record(
            str(i),
            [
                {"role": "user", "content": text},
                {"role": "assistant", "content": json.dumps({"name": name, "arguments": {}})},
            ],
        )
        for i, (text, name) in enumerate(zip(texts, ["set_light", "lock_door"] * 3, strict=True))
    ]
    assert doubtful_labels(task, {"train": rows}) == {"looked_at": 0, "found": 0, "shown": []}
