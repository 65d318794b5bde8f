"""More labelled examples out of those that there are: which texts may change places, and what becomes of
request and label.
"""

import json

import pytest

from slm.config.params import Augment
from slm.task.augmentation import DISTINCT, open_slots, vary
from slm.task.records import Record

HOURS = ("noon", "morning", "evening", "night", "dawn")
ITEMS = [f"Thing {chr(97 + i)}" for i in range(DISTINCT)]


def record(request: str, name: str, number: int = 0, **arguments: object) -> Record:
    answer = json.dumps({"name": name, "arguments": arguments}, separators=(",", ":"))
    return Record(
        f"{name}-{number}",
        [{"role": "user", "content": request}, {"role": "assistant", "content": answer}],
        ["plain"],
    )


def shopping() -> list[Record]:
    return [
        record(f"put {item} on the shopping list", "add", i, list="shopping", item=item.lower())
        for i, item in enumerate(ITEMS)
    ]


def test_free_text_is_what_requests_say_in_many_ways():
    lights = [record("light on in the kitchen", "light", i, room="kitchen") for i in range(30)]
    assert {path for _, path in open_slots(shopping() + lights, "name")} == {("arguments", "item")}


def test_request_and_label_change_alike_and_the_rest_stays():
    made = vary(shopping(), [], Augment(variations=3, by="name"), seed=0)
    assert len(made) == 3 * DISTINCT and len({r.id for r in made}) == len(made)
    for r in made:
        item = json.loads(r.answer)["arguments"]["item"]
        assert r.text.lower() == f"put {item} on the shopping list"
        assert r.answer == f'{{"name":"add","arguments":{{"list":"shopping","item":"{item}"}}}}'
        assert r.tags == ["plain"]
    assert len({r.text for r in made}) > DISTINCT / 2


def test_half_of_the_texts_are_of_other_examples_and_half_any_words_of_the_requests():
    unlabelled = [Record("1", [{"role": "user", "content": "weather in Timbuktu"}])]
    items = [
        json.loads(r.answer)["arguments"]["item"]
        for r in vary(shopping(), unlabelled, Augment(variations=20, by="name"), seed=0)
    ]
    known = sum(item.capitalize() in ITEMS for item in items)
    assert 0.4 < known / len(items) < 0.6
    # labels are in lower case
    assert any("timbuktu" in item for item in items) and not any("Timbuktu" in item for item in items)


def test_the_same_seed_varies_alike_and_another_does_not():
    settings = Augment(variations=2, by="name")
    assert (
        vary(shopping(), [], settings, 0)
        == vary(shopping(), [], settings, 0)
        != vary(shopping(), [], settings, 1)
    )


def test_text_moves_between_answers_of_one_kind_only():
    others = [
        record(f"text {item.replace('Thing', 'Person')} hello", "send", i, to=item.replace("Thing", "person"))
        for i, item in enumerate(ITEMS)
    ]
    slots = open_slots(shopping() + others, "name")
    assert {said for said, _ in slots["add", ("arguments", "item")]} == set(ITEMS)
    assert all(said.startswith("Person") for said, _ in slots["send", ("arguments", "to")])


def test_what_a_request_says_twice_or_not_at_all_stays():
    twice = record("Thing a, yes, Thing a on the list", "add", 90, list="shopping", item="thing a")
    unsaid = record("the usual on the list", "add", 91, list="shopping", item="thing b")
    assert not [
        r
        for r in vary([*shopping(), twice, unsaid], [], Augment(variations=1, by="name"), 0)
        if r.id.startswith(("add-90", "add-91"))
    ]


def test_answers_in_plain_text_are_not_varied():
    plain = [
        Record(str(i), [{"role": "user", "content": t}, {"role": "assistant", "content": t}])
        for i, t in enumerate(ITEMS)
    ]
    assert vary(plain, [], Augment(variations=3, by=None), 0) == []


def test_random_words_never_contradict_a_label():
    """Rooms are named in requests too, but a request that says another room than its label is wrong."""
    lights = [
        record(f"turn the {room} light on", "light", i, room=room)
        for i, room in enumerate(["kitchen", "Bathroom", "living room"] * 10)
    ]
    made = vary([*shopping(), *lights], [], Augment(variations=30, by="name"), seed=0)
    said = {word.lower() for r in made if r.id.startswith("add") for word in r.text.split()[1:-4]}
    assert len(said) > 5 and not said & {"kitchen", "bathroom", "living", "room", "shopping", "light"}


def random_words(made: list[Record], kind: str, field: str, known: set[str]) -> set[str]:
    """Words of the new values of a field that are no value of another example."""
    values = [json.loads(r.answer)["arguments"][field] for r in made if r.id.startswith(kind)]
    found = {word.lower() for value in values if value.lower() not in known for word in value.split()}
    assert len(found) > 3
    return found


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["on", "off"], [True, False]),
        (["five", "ten", "twenty"], [5, 10, 20]),
        (["half", "quarter"], [0.5, 0.25]),
        (["ON", "Off"], [{"deep": [1]}, {"deep": [False]}]),
    ],
    ids=str,
)
def test_words_that_say_a_number_or_a_boolean_are_no_random_words(words: list[str], values: list[object]):
    fans = [
        record(f"switch the fan {word}", "fan", i, value=value)
        for i, (word, value) in enumerate(zip(words, values, strict=True))
    ]
    unlabelled = [Record("1", [{"role": "user", "content": f"weather in Timbuktu {' '.join(words)}"}])]
    rows = vary([*shopping(), *fans], unlabelled, Augment(variations=30, by="name"), seed=0)
    said = random_words(rows, "add", "item", {item.lower() for item in ITEMS})
    assert not said & {*(word.lower() for word in words), "fan", "switch"}
    assert {"thing", "timbuktu", "weather"} <= said  # of the field itself, and of what says nothing


def test_words_of_another_open_field_are_no_random_words():
    days = [f"{day} {hour}" for day in ("Monday", "Tuesday", "Friday", "Sunday") for hour in HOURS]
    tasks = [f"water fern{chr(97 + i)}" for i in range(DISTINCT)]
    plain = [record(f"remind me to {task}", "remind", i, text=task) for i, task in enumerate(tasks)]
    timed = [
        record(f"remind me to {task} on {day}", "remind", 100 + i, text=task, time=day)
        for i, (task, day) in enumerate(zip(tasks, days, strict=True))
    ]
    made = vary([*plain, *timed, *shopping()], [], Augment(variations=20, by="name"), seed=0)
    said = random_words(made, "remind", "text", {*tasks})
    assert not said & {"monday", "tuesday", "friday", "sunday", *HOURS} and "water" in said
    assert not random_words(made, "add", "item", {item.lower() for item in ITEMS}) & {*HOURS, "ferna"}


@pytest.mark.parametrize(
    "greeting", ["Hello {}!", "hello {}", "MAIL_{}_NOW", "{}@example.org", "see {}, then go"]
)
def test_a_value_that_another_text_of_the_answer_says_stays(greeting: str):
    people = [f"Person {chr(97 + i)}" for i in range(DISTINCT)]
    rows = [
        record(f"send {name} my regards", "send", i, to=name, more=[greeting.format(name)])
        for i, name in enumerate(people)
    ]
    assert vary(rows, [], Augment(variations=2, by="name"), seed=0) == []
    # The twin: nothing else in the answer says it
    rows = [
        record(f"send {name} my regards", "send", i, to=name, more=[greeting.format("you")])
        for i, name in enumerate(people)
    ]
    assert len(vary(rows, [], Augment(variations=2, by="name"), seed=0)) == 2 * DISTINCT


@pytest.mark.parametrize(
    "other",
    [
        {"role": "user", "content": "who is {}?"},
        {"role": "assistant", "content": "I know {}."},
        {"role": "assistant", "content": '{"contact":"{}"}'},
        {"role": "system", "content": "The user's friend is {}."},
        {"role": "tool", "content": '{"contact": "P\\u00c9RSON {}"}'},
    ],
    ids=str,
)
def test_a_value_that_another_message_says_stays(other: dict[str, str]):
    def rows(said: str) -> list[Record]:
        found = []
        for i, name in enumerate(f"Pérson {chr(97 + i)}" for i in range(DISTINCT)):
            told = name[-1] if other["role"] == "tool" else name
            message = other | {"content": other["content"].replace("{}", said or told)}
            asked = [{"role": "user", "content": f"write to {name}"}]
            messages = [*asked, message] if other["role"] == "tool" else [message, *asked]
            answer = {"role": "assistant", "content": json.dumps({"name": "write", "to": name})}
            found.append(Record(str(i), [*messages, answer]))
        return found

    assert vary(rows(""), [], Augment(variations=1, by="name"), seed=0) == []
    assert len(vary(rows("Nobody"), [], Augment(variations=1, by="name"), seed=0)) == DISTINCT


def test_values_change_places_in_scripts_without_blanks():
    foods = [f"{first}{second}" for first in "米肉鱼茶" for second in "饭片汤叶包"]
    rows = [record(f"把{food}加到购物清单", "add", i, item=food) for i, food in enumerate(foods)]
    made = vary(rows, [], Augment(variations=5, by="name"), seed=0)
    assert len({r.text for r in made}) > len(rows)
    for r in made:
        assert r.text == f"把{json.loads(r.answer)['arguments']['item']}加到购物清单"


def test_bare_texts_lists_and_empty_values_stay():
    bare = [
        Record(
            str(i), [{"role": "user", "content": item}, {"role": "assistant", "content": json.dumps(item)}]
        )
        for i, item in enumerate(ITEMS)
    ]
    assert vary(bare, [], Augment(variations=1, by="name"), seed=0) == []
    named = [
        Record(
            str(i),
            [
                {"role": "user", "content": f"buy {item}"},
                {"role": "assistant", "content": json.dumps({"name": ["a"], "x": "", "item": item})},
            ],
        )
        for i, item in enumerate(ITEMS)
    ]
    made = vary(named, [], Augment(variations=1, by="name"), seed=0)
    assert made and all(json.loads(r.answer)["x"] == "" for r in made)


def test_what_a_tool_gave_back_stays_behind_the_request():
    rows = [
        Record(
            str(i),
            [
                {"role": "user", "content": f"buy {item}"},
                {"role": "assistant", "content": '{"name":"stock"}'},
                {"role": "tool", "content": "3 left"},
                {"role": "assistant", "content": json.dumps({"name": "buy", "item": item})},
            ],
            tools=[{"type": "function"}],
        )
        for i, item in enumerate(ITEMS)
    ]
    for r in vary(rows, [], Augment(variations=2, by="name"), seed=0):
        assert [m["role"] for m in r.messages] == ["user", "assistant", "tool", "assistant"]
        assert r.messages[0]["content"] == f"buy {json.loads(r.answer)['item']}"
        assert r.messages[2]["content"] == "3 left" and r.tools
