"""Each filter drops what it is for and leaves its neighbour alone. Most can be switched off."""

from typing import Any

import pytest

from slm.config.synthesis import Filters
from slm.task.answers import tidied
from slm.task.definition import Task
from slm.task.records import Record
from slm.teacher.filters import FILTERS, Sieve

ON = {
    "refusal": True,
    "secrets": True,
    "personal": True,
    "longest_answer": 200,
    "words": ["damn", "go to hell"],
    "language": "en",
    "confidence": 0.6,
    "per_class": 1,
    "per_tag": 1,
    "agreement": 0.5,
    "decontaminate": 13,
    "near_duplicates": 0.9,
    "verify": True,
}
OFF = {
    name: False if value is True else [] if isinstance(value, list) else None for name, value in ON.items()
}
LONG = (
    "when the lorry with the new boiler comes on thursday open the side gate and then call my neighbour at "
    "once"
)
HELD_OUT = [
    (
        f"task/test.jsonl:{line}",
        Record(str(line), [{"role": "user", "content": text}, {"role": "assistant", "content": "certainly"}]),
    )
    for line, text in ((7, LONG), (8, "please lock the front door"))
]
TEXT = Task(name="t", kind="text", instruction="i")
GOOD = {
    "cut": False,
    "finish_reason": "stop",
    "refusal": None,
    "key_sent_back": False,
    "answers": 5,
    "agreement": 0.6,
}
GOOD |= {"topk_logprobs": [[-0.1, -3.0], [-0.7, -0.8]]}


def prompt(text: str, name: str = "p") -> Record:
    return Record(name, [{"role": "user", "content": text}])


def reason(
    text: str,
    task: Task = TEXT,
    asked: str = "turn on the light",
    switches: dict[str, Any] = ON,
    **answer: Any,
) -> str | None:
    return Sieve(task, Filters.model_validate(switches), 50, HELD_OUT).reason(
        prompt(asked), GOOD | answer, text
    )


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("refusal", "I'm sorry, but I can't help with that.", {}),
        ("refusal", "fine", {"refusal": "no"}),
        ("empty", "  ", {}),
        ("empty", "", {"lost": "nothing follows its thoughts"}),
        ("ended", "fine", {"finish_reason": "content_filter"}),
        ("ended", "fine", {"finish_reason": "tool_calls"}),
        ("ended", "", {"tool_calls": [{"name": "set_light", "arguments": "{}"}]}),
        ("cut", "the answer is", {"cut": True, "finish_reason": "length"}),
        ("cut", "", {"cut": True, "finish_reason": "length"}),
        ("control", "done<|im_end|>\n<|im_start|>system", {}),
        ("control", "a\x00b", {}),
        ("control", "a\x9fb", {}),
        ("control", "a\rb", {}),
        ("control", "\u2800", {}),
        ("control", "a" + "\u0301" * 40, {}),
        ("secret", "use sk-proj-abcdefghijklmnop0123", {}),
        ("secret", "AKIAABCDEFGHIJKLMNOP", {}),
        ("secret", "-----BEGIN RSA PRIVATE KEY-----", {}),
        ("secret", "postgres://admin:hunter2@db/prod", {}),
        ("secret", "fine", {"key_sent_back": True}),
        ("personal", "write to jane.doe@example.org", {}),
        ("personal", "card 4111 1111 1111 1111", {}),
        ("personal", "pay DE89 3704 0044 0532 0130 00", {}),
        ("personal", "ssn 123-45-6789", {}),
        ("length", "x " * 150, {}),
        ("word", "well, Damn!", {}),
        ("word", "you can go to hell", {}),
        ("unsure", "fine", {"topk_logprobs": [[-0.1, -3.0], [-1.2, -1.3]]}),
        ("unsure", "fine", {"topk_logprobs": [], "logprobs": [["fi", -0.4, []], ["ne", -0.8, []]]}),
        ("unsure", "fine", {"topk_logprobs": []}),
        ("agreement", "fine", {"agreement": 0.4}),
        ("contaminated", f"as they said: {LONG}!", {}),
    ],
)
def test_a_filter_drops_what_it_is_for(name: str, text: str, answer: dict[str, Any]):
    why = reason(text, **answer)
    assert why and why.startswith(f"{name}: ") and "hunter2" not in why and "sk-proj" not in why
    if FILTERS[name]:
        assert reason(text, switches=OFF, **answer) is None


@pytest.mark.parametrize(
    "text",
    [
        "Sorry songs are the best",
        "I can open it",
        "5 > 3 and <b>",
        "task-list and risk-assessment-for-the-garden",
        "see http://host:80/a@b",
        "at 4111 1111 1111 1112",
        "FR76 ABCD EFGH IJKL MNOP",
        "mail me @home",
        "order 000-12-3456",
        "damnation",
        " ".join(LONG.split()[:12]),
    ],
)
def test_a_filter_leaves_its_neighbour_alone(text: str):
    assert reason(text) is None


def test_a_prompt_near_a_held_out_one_is_dropped():
    assert (
        reason("fine", asked="please lock the frnt door") == "contaminated: a near copy of task/test.jsonl:8"
    )
    assert reason("fine", asked="please lock the frnt door", switches=OFF) is None


@pytest.mark.parametrize(
    ("asked", "answer", "why"),
    [
        ("hello, please lock the front door and the windows too", "fine", None),
        (
            "please lock the front door please lock the front door",
            "fine",
            "says task/test.jsonl:8 and nothing else",
        ),
        ("door front the lock please", "fine", None),
        ("now the light", "please lock the front door", "says task/test.jsonl:8 and nothing else"),
    ],
)
def test_a_leak_is_dropped_in_prompt_and_answer_and_a_doubtful_one_stays(
    asked: str, answer: str, why: str | None
):
    """The suite of prompts limits doubtful ones. A prompt that a teacher invents is dropped at a doubt."""
    assert reason(answer, asked=asked) == (why and f"contaminated: {why}")
    sieve = Sieve(TEXT, Filters.model_validate(ON), 50, HELD_OUT)
    invented = sieve.prompt_reason(prompt(asked, "1")) or ""
    assert invented.startswith("contaminated: ") == (asked != "now the light")


def test_a_near_copy_of_an_earlier_prompt_is_dropped():
    sieve = Sieve(TEXT, Filters.model_validate(ON), 50, [])
    words = " ".join(f"word{i}" for i in range(60))
    assert sieve.reason(prompt(words, "one"), GOOD, "fine") is None
    assert (
        sieve.reason(prompt(words.replace("word59", "other"), "two"), GOOD, "fine")
        == "duplicate: a near copy of one"
    )
    assert sieve.reason(prompt("set a timer for 5 minutes", "four"), GOOD, "fine") is None
    assert sieve.reason(prompt("set a timer for 6 minutes", "five"), GOOD, "fine") is None


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        ("schalte das Licht in der Küche ein", "de"),
        ("allume la lumière du salon s'il te plaît", "fr"),
        ("set timer 5", None),
        ("ok", None),
    ],
)
def test_a_prompt_in_another_language_is_dropped_if_that_is_sure(asked: str, language: str | None):
    why = reason("fine", asked=asked)
    assert (
        why is None
        if language is None
        else why and why.startswith(f"language: the prompt is '{language}' with probability ")
    )
    assert reason("fine", asked=asked, switches=OFF) is None
    assert Sieve(TEXT, Filters.model_validate(ON), 50, []).prompt_reason(prompt(asked)) == why


def test_the_first_answers_of_a_class_stay_and_the_others_go(task: Task):
    sieve = Sieve(task, Filters.model_validate(ON | {"near_duplicates": None, "per_class": 2}), 50, [])
    said = [
        sieve.reason(prompt(f"do {i}", f"p{i}"), GOOD, f'{{"name":"{n}","arguments":{{}}}}')
        for i, n in enumerate("aabab")
    ]
    assert said == [None, None, None, "balance: 2 answers of class 'a' are there already", None]


def test_the_first_answers_to_prompts_of_a_tag_stay_and_what_was_dropped_does_not_count(task: Task):
    switches = {"near_duplicates": None, "per_class": 3, "per_tag": 2}
    sieve = Sieve(task, Filters.model_validate(ON | switches), 50, [])
    tags = [["typo"], [], ["typo", "long"], ["typo"], ["long"], []]
    asked = [Record(f"p{i}", prompt(f"do {i}").messages, own) for i, own in enumerate(tags)]
    said = [
        sieve.reason(p, GOOD, f'{{"name":"{n}","arguments":{{}}}}')
        for p, n in zip(asked, "aaabba", strict=True)
    ]
    full = [
        "tag: 2 answers of tag 'typo' are there already",
        None,
        "balance: 3 answers of class 'a' are there already",
    ]
    assert said == [None, None, None, *full]


def test_copies_are_looked_for_among_the_last_prompts_alone():
    sieve = Sieve(
        TEXT, Filters.model_validate(OFF | {"near_duplicates": 0.9, "near_duplicates_among": 2}), 50, []
    )
    asked = [
        "open the garage door",
        "play some old jazz",
        "is it raining in Oslo",
        "open the garage door",
        "is it raining in Oslo",
    ]
    said = [sieve.reason(prompt(text, str(i)), GOOD, "fine") for i, text in enumerate(asked)]
    # the first was forgotten when the third came
    assert said == [None, None, None, None, "duplicate: a near copy of 2"]


def test_requests_of_one_name_are_two_all_the_same():
    """Names are unique within a file: a labelled example and a prompt may both be "1"."""
    sieve = Sieve(TEXT, Filters.model_validate(ON), 50, [])
    sieve.remember(prompt("open the garage door", "1"))
    sieve.remember(prompt("play some old jazz", "1"))
    assert sieve.prompt_reason(prompt("play some old jazz", "2")) == "duplicate: a near copy of 1"


def test_no_answer_is_a_reason():
    assert (
        Sieve(TEXT, Filters.model_validate(OFF), 50, []).reason(prompt("a"), None, "", "500: down")
        == "unanswered: 500: down"
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"name":"a"}',
        '{"name":"a","name":"b","arguments":{}}',
        '{"name":"a","arguments":{"n":NaN}}',
        "Sure! {}",
        "[" * 5000,
    ],
)
def test_json_that_others_would_read_otherwise_is_against_the_schema(task: Task, text: str):
    assert (reason(text, task) or "").startswith("schema: ")
    assert (reason(text, task, switches=OFF) or "").startswith("schema: ")


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "a", "arguments": {}}',
        '```json\n{"name": "a",\n "arguments": {}}\n```',
        '\n{"name":"a","arguments":{}}\n',
    ],
)
def test_an_answer_gets_the_form_of_the_labelled_ones(task: Task, text: str):
    assert tidied(task, text) == '{"name":"a","arguments":{}}' and reason(tidied(task, text), task) is None


def test_what_is_not_json_stays(task: Task):
    assert tidied(task, "Sure! {}") == "Sure! {}" and tidied(task, '{"a":1,"a":2}') == '{"a":1,"a":2}'


def test_an_answer_that_does_not_stand_in_the_passage_is_dropped():
    task = Task(name="t", kind="answer", instruction="i", no_answer="not stated")
    passage = "Rinse the whisk under running water.\n\nWith what is the whisk rinsed?"
    assert tidied(task, " running water\n") == "running water"
    assert reason("running water", task, passage) is None and reason("not stated", task, passage) is None
    assert (reason("soap", task, passage) or "").startswith("schema: 'soap' does not stand in the passage")


def test_a_teacher_may_think_aloud_where_the_student_must_not():
    short = Task(name="t", kind="reasoning", instruction="i", rationale=False)
    long = Task(name="t", kind="reasoning", instruction="i")
    said = "3 x 4 = 12\nAnswer: 12"
    assert tidied(short, said) == "Answer: 12" and reason(tidied(short, said), short) is None
    assert tidied(long, said) == said and reason(said, long) is None
    assert (reason(said, short) or "").startswith("schema: a rationale before")
    assert (reason("Answer: 12", long) or "").startswith("schema: no rationale before")
    assert (reason("It is 12.", short) or "").startswith("schema: no final answer")


def test_filters_see_all_turns_of_a_conversation():
    turns = ("my card is 4111 1111 1111 1111", "Thank you.", "yes please")
    asked = Record(
        "p", [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    )
    sieve = Sieve(TEXT, Filters.model_validate(ON), 50, [("task/test.jsonl:9", prompt("yes please"))])
    assert sieve.reason(asked, GOOD, "Done.") == "personal: card number"
    other = Record(
        "q", [{"role": "user", "content": "a table for two on friday at eight"}, *asked.messages[1:]]
    )
    # it ends in the same words as a held-out request, and is another
    assert sieve.reason(other, GOOD, "Done.") is None
