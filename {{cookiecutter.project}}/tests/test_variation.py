"""More labelled examples out of those that there are: which texts may change places, and what becomes of
request and label.
"""

import json

from slm.config.params import Augment
from slm.task.augmentation import DISTINCT, open_slots, vary
from slm.task.records import Record

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
