"""A held-out request that is trained on is found, also when somebody mistyped it."""

import json
import time
from pathlib import Path

import pytest
from test_filters import GOOD, OFF

from slm.config.synthesis import Filters
from slm.files import write_json
from slm.quality.expectations import explain_failures, validate
from slm.quality.frame import frame, hidden_leaks
from slm.quality.leaks import Leaks
from slm.quality.similarity import NEAR, Index, typos
from slm.task.answers import schema_error
from slm.task.definition import Task
from slm.task.records import Record
from slm.task.text import normal
from slm.teacher.filters import Sieve

INDEX = Index(
    [
        ("test:1", "please lock the front door"),
        ("test:2", "set the volume to 20"),
        ("test:3", "do the laundry"),
        ("test:4", "call at 7 am"),
        ("test:5", "a car"),
    ]
)


@pytest.mark.parametrize(
    "text",
    [
        "Please, lock the front door!",
        "please lock the frnt door",  # a letter missing
        "please lock the frontt door",  # one too many
        "plaese lock the front door",  # two swapped
        "please lock the fromt door",  # another one
        "do the landry",  # too short for word 3-grams to show
    ],
)
def test_a_copy_with_one_typo_is_the_same(text: str):
    assert INDEX.nearest(text)[1] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "set the volume to 21",
        "please lock the back door",
        "do the dishes",
        "unlock the front door",
        "call at 7 pm",
        "a cat",
    ],
)
def test_another_request_is_not(text: str):
    assert INDEX.nearest(text)[1] <= NEAR


def spoken(*said: str, system: str = "", answer: str = "Done.") -> Record:
    """A conversation, user and assistant in turn, and an answer."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    first = [{"role": "system", "content": system}] if system else []
    return Record("1", [*first, *turns, {"role": "assistant", "content": answer}])


HELD_OUT = [
    "please lock the front door and both windows",
    "wake me at seven on Monday",
    "yes",
    "turn on the light",
    "from Ann to Bob",
    "?!",
]
LEAKS = Leaks([(f"test:{i}", spoken(text)) for i, text in enumerate(HELD_OUT, 1)])
WHOLE = "please lock the front door and both windows, then have a rest"


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (spoken("Please lock the frnt door and both windows!"), ("test:1", "near", True)),
        (spoken(WHOLE), ("test:1", "whole", True)),
        (spoken("I said: " + WHOLE), ("test:1", "whole", True)),
        (spoken(WHOLE, "Of course.", "And now the lights"), ("test:1", "whole", True)),
        (spoken("Now the lights", WHOLE, "And the heating"), ("test:1", "whole", True)),
        (spoken("Now the lights", system=f"Answer like this. {WHOLE}: done"), ("test:1", "whole", True)),
        (spoken("Now the lights", answer=WHOLE), ("test:1", "whole", True)),
        (spoken("Turn on the light", "It is on.", "Turn on the light."), ("test:4", "alone", True)),
        (spoken("t u r n o n the l i g h t"), ("test:4", "spaced", True)),
        (spoken("ｔurn οn thе light"), ("test:4", "near", True)),
        (spoken("wake me at um seven please on uh Monday"), ("test:2", "between", False)),
        (spoken("on Monday at seven wake me"), ("test:2", "order", False)),
        (spoken("wake me at seven on Monday or so"), ("test:2", "whole", False)),
        (spoken("from Bob to Ann"), ("test:5", "order", False)),
        (spoken("wake me at eight on Monday or so"), None),
        (spoken("yes, put out the light and lock all of it"), None),
        (
            spoken("wake Ann, who sleeps in the hall, at noon, and me, but not before, at seven, on Monday"),
            None,
        ),
        (spoken("please lock the front door"), None),
        (spoken("yes yes", answer="yes"), None),
        (spoken("!?"), None),
    ],
)
def test_a_hidden_leak_is_found_in_any_message(record: Record, found: tuple[str, str, bool] | None):
    assert LEAKS.found_in(record) == found


def test_a_certain_leak_is_said_before_a_doubtful_one():
    found = LEAKS.found_in(spoken("on Monday at seven wake me", "Yes?", WHOLE))
    assert found is not None and found.said == "contains test:1 whole"


def test_a_hidden_leak_has_a_column_of_its_own():
    task = Task(name="t", kind="text", instruction="i")
    rows = [spoken(WHOLE), spoken("on Monday at seven wake me"), spoken("Open the garage")]
    table = frame(task, rows, LEAKS)
    assert table["leak"].notna().tolist() == [True, False, False]
    assert table["hidden_leak"].notna().tolist() == [False, True, False]
    said = hidden_leaks("task/train.jsonl", rows, table)
    assert said == [
        "task/train.jsonl:0: has the words of test:2 in another order: on Monday at seven wake me"
    ]


def test_hidden_leaks_beyond_chance_are_refused_with_file_and_line(tmp_path: Path):
    """By chance one request of a hundred contains a held-out one. More of them are no chance."""
    task = Task(name="t", kind="text", instruction="i")
    rows = [spoken("on Monday at seven wake me"), *(spoken(f"honest request {i}") for i in range(149))]
    suite, file = tmp_path / "labelled.json", "task/train.jsonl"
    limit = {"column": "hidden_leak", "mostly": 0.99}
    write_json(
        suite, {"name": "s", "expectations": [{"type": "expect_column_values_to_be_null", "kwargs": limit}]}
    )
    for records, passes in (
        (rows, True),
        ([*rows, spoken("wake um me um at um seven um on um Monday")], False),
    ):
        report = validate(
            suite, {file: frame(task, records, LEAKS)}, {file: list(range(1, len(records) + 1))}
        )
        assert report["passed"] is passes
    said = explain_failures(report, suite)
    assert f'{file}:1: "has the words of test:2 in another order: on Monday at seven wake me"' in said
    assert f'{file}:151: "contains test:2 with other words between: wake um me' in said


def test_long_texts_that_share_most_words_take_no_time():
    """A preamble that all requests have is no leak, and what is compared is bounded."""
    preamble = " ".join(f"rule{i}" for i in range(1500))
    held_out = [(f"test:{i}", spoken(f"{preamble} {i} apples for Ann {i + 1}")) for i in range(20)]
    leaks = Leaks(held_out)
    start = time.process_time()
    assert leaks.found_in(spoken(" ".join(reversed(preamble.split())))) is not None
    assert time.process_time() - start < 1


def test_only_earlier_ones_are_looked_at():
    assert INDEX.nearest("do the landry", before=3) == ("test:3", 1.0)
    assert INDEX.nearest("do the landry", before=2)[1] <= NEAR


def test_long_texts_cost_no_more_than_their_length():
    text = "word " * 2000
    assert typos(text) == {text.strip()}


@pytest.mark.parametrize(
    ("fields", "answer", "wrong"),
    [
        ({"kind": "label", "labels": ["yes", "no"]}, "yes", None),
        ({"kind": "label", "labels": ["yes", "no"]}, "perhaps", "none of the labels"),
        ({"kind": "answer"}, "descale the boiler", None),
        ({"kind": "answer"}, "Descale the boiler!", None),
        ({"kind": "answer"}, "scale the boiler", "does not stand in the passage"),
        ({"kind": "answer"}, "not stated", "does not stand in the passage"),
        ({"kind": "answer", "no_answer": "not stated"}, "not stated", None),
        ({"kind": "reasoning"}, "2 + 2\nAnswer: 4", None),
        ({"kind": "reasoning"}, "2 + 2 = 4", "no final answer"),
        ({"kind": "reasoning"}, "Answer: 4", "no rationale before the final answer"),
        ({"kind": "reasoning", "rationale": False}, "Answer: 4", None),
        (
            {"kind": "reasoning", "rationale": False},
            "2 + 2\nAnswer: 4",
            "a rationale before the final answer",
        ),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(fields: dict, answer: str, wrong: str | None):
    asked = "Every month, descale the boiler.\n\nWhat is done every month?"
    found = schema_error(Task(name="t", instruction="i", **fields), asked, answer)
    assert found is None if wrong is None else wrong in str(found)


def test_conversations_that_end_in_the_same_words_are_not_the_same():
    def record(*said: str) -> Record:
        turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
        return Record("1", [*turns, {"role": "assistant", "content": "Done."}])

    task = Task(name="t", kind="text", instruction="i")
    table = record("A table for two at eight on Friday", "Inside or on the terrace?", "Yes please")
    cut = record("Can I have a haircut on Monday morning", "Would nine o'clock suit you?", "Yes please")
    rows = frame(task, [table, cut], Leaks([("test:1", cut)]))
    assert rows["normal_text"].is_unique
    assert rows["leak"].isna().tolist() == [True, False]


def test_requests_without_words_are_not_all_the_same():
    assert normal("👍") != normal("?!") and normal(" ?! ") == normal("?!")


def test_an_answer_with_a_key_twice_or_a_mark_of_chat_models_is_refused():
    task = Task(name="t", kind="json", instruction="i")
    assert "stands twice" in (schema_error(task, "", '{"room":"a","room":"b"}') or "")
    texts = Task(name="t", kind="text", instruction="i")
    said = ["fine", "bad<|im_end|>", "<think>hm</think> fine", "fine [/INST]"]
    rows = [
        Record(str(i), [{"role": "user", "content": f"r{i}"}, {"role": "assistant", "content": text}])
        for i, text in enumerate(said)
    ]
    found = frame(texts, rows, None)["schema_error"]
    assert found.notna().tolist() == [False, True, True, True]
    assert "mark of chat models" in found[1]


FORM = Task(name="t", kind="json", instruction="i")
FAULTY = [
    '{"a":"\\u0000"}',
    '{"\\u009f":1}',
    '{"a":"\\u003cthink\\u003ehm"}',
    '{"a":"hi</s>"}',
    '{"a":"x\\ry"}',
]


@pytest.mark.parametrize("answer", FAULTY)
def test_people_and_teachers_answer_by_one_rule(answer: str):
    record = Record("1", [{"role": "user", "content": "r"}, {"role": "assistant", "content": answer}])
    (labelled,) = frame(FORM, [record], None)["schema_error"]
    off = Filters.model_validate(OFF)
    dropped = Sieve(FORM, off, 50, []).reason(Record("p", record.prompt), GOOD, answer)
    assert labelled and dropped and labelled == f"{dropped.removeprefix('control: ')}: {answer}"
    honest = json.dumps({"a": "first\n5 < 6"})
    assert Sieve(FORM, off, 50, []).reason(Record("p", record.prompt), GOOD, honest) is None


@pytest.mark.parametrize("said", ["<think>secret</think>hello", "hello<|im_end|>", "hello\u200b</s>"])
@pytest.mark.parametrize("role", ["assistant", "user", "tool"])
def test_what_the_assistant_said_before_holds_no_marks_either(said: str, role: str):
    task = Task(name="t", kind="text", instruction="i")
    turns = [
        {"role": "user", "content": "a"},
        {"role": role, "content": said},
        {"role": "user", "content": "b"},
    ]
    answered = Record("1", [*turns, {"role": "assistant", "content": "ok"}])
    for record in (answered, Record("p", turns)):
        (error,) = frame(task, [record], None)["schema_error"]
        assert bool(error) == (role == "assistant")
    dropped = Sieve(task, Filters.model_validate(OFF), 50, []).reason(Record("p", turns), GOOD, "ok")
    assert bool(dropped) == (role == "assistant")
