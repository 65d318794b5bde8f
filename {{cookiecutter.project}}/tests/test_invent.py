"""New requests: what a teacher is asked for them, and what of its reply is one."""

import json

import pytest
import test_asking

from slm.config.synthesis import Generate
from slm.errors import UserError
from slm.experiments.weak_slices import worst_first
from slm.task.definition import Task
from slm.task.records import Record
from slm.teacher.prompt_generation import RECIPES, calls_of, read_requests, records_by_slice

LABEL = Task(name="t", kind="label", instruction="Sort letters.", labels=["bill", "advert", "love"])
COUNTS = {"bill": 60, "advert": 30, "love": 6}


def labelled(counts: dict[str, int] = COUNTS) -> list[Record]:
    return [
        Record(
            f"{name}-{i}",
            [{"role": "user", "content": f"{name} {i}"}, {"role": "assistant", "content": name}],
            [f"tag {i % 2}"],
        )
        for name, count in counts.items()
        for i in range(count)
    ]


def wanted(**numbers: int) -> Generate:
    return Generate.model_validate(dict.fromkeys(RECIPES, 0) | numbers)


@pytest.mark.parametrize(
    ("text", "cut", "found"),
    [
        ('["one", " two "]', False, ["one", "two"]),
        ('```json\n["one",\n "two"]\n```', False, ["one", "two"]),
        ('Here you are:\n["one", {"request": "two"}, 3, "", "line\\nbreak"]', False, ["one", "line\nbreak"]),
        ('["one", "two", "thr', True, ["one", "two"]),
        ('["one" "two"]', False, ["one", "two"]),
        ('["\\ud800", "fine"]', False, ["fine"]),
        (
            '["turn\\u009f on", "turn\\ron", "\\u200b\\u2060", "a\\ufffe", "a\\u0000", "fine"]',
            False,
            ["fine"],
        ),
        ('["caf\\u0065\\u0301", "one\\r\\ntwo"]', False, ["café", "one\ntwo"]),
        ("turn\x9f on\ncafe\u0301\n\u2800\nfine", False, ["café", "fine"]),
        ('["a' + "\u0301" * 90_000 + '", "fine"]', False, ["fine"]),
        ('Sure, here they are:\n1. one\n2) "two"\n- three\n\n* four', False, ["one", "two", "three", "four"]),
        ("one\ntwo\nthr", True, ["one", "two"]),
        ("20 minutes for the eggs", False, ["20 minutes for the eggs"]),
        ("I'm sorry, but I can't help with that.", False, []),
        ('{"requests": ["one"]}', False, ["one"]),
        ('{"requests": "one"}', False, []),
        ("[" * 100_000, False, []),
        ('["' + "[" * 100_000, False, []),
        ("", False, []),
    ],
)
def test_what_of_a_reply_is_a_request(text: str, cut: bool, found: list[str]):
    assert read_requests(text, cut) == found


def test_more_calls_and_more_examples_leave_the_others_as_they_were():
    few = calls_of(LABEL, wanted(self_instruct=30, evolve=30, persona=30, out_of_scope=30), {}, labelled())
    many = calls_of(LABEL, wanted(self_instruct=60, evolve=60, persona=60, out_of_scope=60), {}, labelled())
    assert [c for c in many if c in few] == few and len({c.id for c in many}) == len(many)
    one_more = calls_of(LABEL, wanted(evolve=30), {}, [*labelled(), *labelled({"bill": 61})[-1:]])
    assert sum(c in few for c in one_more) >= 9


def test_each_call_shows_the_job_and_its_seeds():
    settings = test_asking.settings("http://127.0.0.1:9").endpoint
    for call in calls_of(LABEL, Generate.model_validate(dict.fromkeys(RECIPES, 5)), {}, labelled()):
        system, user = call.request(settings, LABEL)["messages"]
        assert (
            "Sort letters." in system["content"]
            and f"list of {RECIPES[call.recipe].asked} texts" in system["content"]
        )
        assert "{" not in system["content"]
        assert [e["request"] for e in json.loads(user["content"])] == [r.text for r in call.parents] and len(
            call.parents
        ) == RECIPES[call.recipe].seeds


def test_weak_slices_are_those_of_the_worst_scores():
    scores = {"class:bill": 0.5, "class:advert": 0.99, "class:love": 1.0, "tag:unknown": 0.0}
    calls = calls_of(LABEL, wanted(weak_slices=400), scores, labelled())
    chosen = [c.detail["slice"] for c in calls]
    assert (
        len(chosen) == 40
        and chosen.count("class:bill") > 30
        and set(chosen) <= {"class:bill", "class:advert"}
    )
    assert all(r.answer == c.detail["slice"].removeprefix("class:") for c in calls for r in c.parents)
    assert {c.detail["weak_by"] for c in calls} == {"score on validation data"}


def test_without_scores_the_rare_classes_are_weak():
    calls = calls_of(LABEL, wanted(weak_slices=400), {}, labelled())
    chosen = [c.detail["slice"] for c in calls]
    assert chosen.count("class:love") > 20 > chosen.count("class:bill") and {
        c.detail["weak_by"] for c in calls
    } == {"rarity"}


def test_free_text_without_tags_has_no_slices():
    task = Task(name="t", kind="text", instruction="i")
    plain = [Record(r.id, r.messages) for r in labelled()]
    assert (
        set(records_by_slice(task, labelled())) == {"tag:tag 0", "tag:tag 1"}
        and records_by_slice(task, plain) == {}
    )
    with pytest.raises(UserError, match="weak_slices to 0"):
        calls_of(task, wanted(weak_slices=1), {}, plain)


def test_slices_of_some_size_count_the_worst_first():
    facts = {
        "slices": {
            "class:a": {"n": 8, "score": 0.9},
            "tag:b": {"n": 40, "score": 0.5},
            "tag:c": {"n": 7, "score": 0.0},
        }
    }
    assert list(worst_first(facts).items()) == [("tag:b", 0.5), ("class:a", 0.9)]
