"""The one door for data: what is refused, why, and what else passes unharmed."""

import json
import random
import time
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest

from slm.task.strict import (
    Unreadable,
    answer_of_calls,
    composed,
    json_lines,
    order_fault,
    plain_message,
    strict_json,
    text_fault,
)

E_ACUTE, E_APART = "\u00e9", "e\u0301"

REFUSED_JSON = {
    "nothing": ("", "not JSON"),
    "two values": ("1 2", "Extra data at character 3"),
    "NaN": ('{"a": NaN}', "NaN is no JSON"),
    "infinity": ("-Infinity", "-Infinity is no JSON"),
    "key twice": ('{"a": 1, "b": 2, "a": 3}', "key 'a' stands twice"),
    "key twice below": ('[{"a": {"b": 1, "b": 1}}]', "key 'b' stands twice"),
    "key twice, composed and apart": (f'{{"{E_ACUTE}": 1, "{E_APART}": 2}}', "stands twice"),
    "key twice, one escaped": ('{"a": 1, "\\u0061": 2}', "key 'a' stands twice"),
    "half a character": ('{"a": ["\\ud800"]}', "U+D800 LONE SURROGATE"),
    "half a character in a key": ('{"\\udc00": 1}', "U+DC00"),
    "halves in the wrong order": ('"\\ude00\\ud83d"', "U+DE00"),
    "half a character, not escaped": ('"\ud83d"', "U+D83D"),
    "a long number": ("9" * 5000, "5000 digits"),
    "a longer number than doubles hold": ("-1" + "0" * 309, "311 digits"),
    "a large exponent": ('{"a": [1e999]}', "1e999 is too large"),
    "lists too deep": ("[" * 65 + "]" * 65, "more than 64 deep"),
    "objects too deep": ('{"a":' * 65 + "1" + "}" * 65, "more than 64 deep"),
    "depth that never ends": ("[" * 200_000, "more than 64 deep"),
    "depth after a text with a quote": ('["\\"", ' + "[" * 100_000, "more than 64 deep"),
    "a control character as it is": ('"a\x0bb"', "not JSON"),
    "marks without end in a key": ('{"a' + "\u0301\u0323" * 100 + '": 1}', "more than 30 marks"),
}


@pytest.mark.parametrize("name", REFUSED_JSON)
def test_json_that_others_read_otherwise_is_refused(name: str):
    text, reason = REFUSED_JSON[name]
    with pytest.raises(Unreadable) as error:
        strict_json(text)
    assert reason in str(error.value) and error.value.remedy and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        *("null", "[]", '"\\ud83d\\ude42"', '{"a": 1, "A": 2}', "1e308", "-0.0", "1" + "0" * 300),
        *("[" * 64 + "]" * 64, '"' + "[" * 1000 + '"', '["\\\\", "]]", "\\"[["]', '[{"a": 1}, {"a": 1}]'),
        '"a\u2028b\u0085c\u2029d\\u0000"',
    ],
)
def test_other_json_is_read_as_it_is(text: str):
    assert strict_json(text) == json.loads(text)


def test_any_text_is_read_like_json_or_refused():
    """Random pieces of JSON: never another error, never another value."""
    pieces = [*'[]{},:" \n\\', "\\u", "d83d", "0000", "1", "e9", "-", "NaN", "null", '"a"', "é", "e\u0301"]
    for seed in range(3000):
        chance = random.Random(seed)
        text = "".join(chance.choices(pieces, k=chance.randint(1, 12)))
        with suppress(Unreadable):
            assert strict_json(text) == json.loads(text)


def test_where_half_a_character_stands_is_named():
    with pytest.raises(Unreadable) as error:
        strict_json('{"messages": [{"content": "x"}, {"content": "\\udfff"}]}')
    assert error.value.where == "messages[1].content"


FAULTY_TEXT = {
    "": "is empty",
    "nice\0 view": "U+0000 NULL (character 5)",
    "a\r\nb": "U+000D CARRIAGE RETURN (character 2)",
    "a\x1b[31m": "U+001B ESCAPE",
    "\x0b": "U+000B LINE TABULATION",
    "a\x0cb": "U+000C FORM FEED",
    "a\x01b\x7f": "U+0001 CONTROL CHARACTER (character 2), U+007F DELETE (character 4)",
    "a\x9f": "U+009F CONTROL CHARACTER",
    "a\ud800": "U+D800 LONE SURROGATE (character 2)",
    "a\ufffe": "U+FFFE NONCHARACTER",
    "\ufdd0a": "U+FDD0 NONCHARACTER (character 1)",
    "a\U0010ffff": "U+10FFFF NONCHARACTER",
    "\0" * 7: "(character 5), 2 more",
    "a" + "\u0301\u0323" * 16: "more than 30 marks on one letter (character 2)",
}


@pytest.mark.parametrize("text", FAULTY_TEXT)
def test_what_is_no_text_is_named_with_its_place(text: str):
    assert FAULTY_TEXT[text] in (text_fault(text) or "")


@pytest.mark.parametrize(
    "text",
    [
        *(
            " ",
            "\n\t",
            "\u00a0\u3000\u2003",
            "\u200b",
            "\ufeff\u2060",
            "\u00ad",
            "\u200d\u200c",
            "\ufe0f\ufe0e",
        ),
        *("\u3164", "\u115f\u1160", "\uffa0", "\U000e0020\U000e007f", "\u200e\u200f\u202a\u2069\u061c"),
        *(
            "\u034f",
            "\u180e\u180b",
            "\u17b4",
            "\u2800",
            "\u2028\u2029\u0085",
            "\U000e0101",
            "\u206a",
            "\ufffb",
        ),
    ],
)
def test_a_text_that_nobody_sees_is_refused(text: str):
    fault = text_fault(text) or ""
    assert "says nothing that can be seen" in fault and f"U+{ord(text[0]):04X} " in fault


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a",
            ".",
            "0",
            "👍",
            "👩\u200d👩\u200d👧",
            "🏴\U000e0067\U000e0062\U000e007f",
            "❤\ufe0f",
            "1\ufe0f\u20e3",
        ),
        *(
            "नमस्ते",
            "می\u200cخواهم",
            "\u200fשלום\u200e",
            "first\u2028second\u0085third\tfourth\nfifth",
            "\ufeffx",
        ),
        *("soft\u00adware", "Z̷̢͎͝a̸l̵g̶o̷", "\ufffd", "\ue000"),
    ],
)
def test_what_people_write_is_text(text: str):
    assert text_fault(text) is None


def test_texts_and_keys_are_composed_at_every_depth():
    apart = {E_APART: [f"caf{E_APART}", {"a": (E_APART)}], "n": 1.5, "b": None}
    assert composed(apart) == {E_ACUTE: [f"caf{E_ACUTE}", {"a": E_ACUTE}], "n": 1.5, "b": None}


def test_no_text_takes_long_to_compose():
    hostile = "a" + "\u0301\u0323" * 200_000
    start = time.perf_counter()
    with pytest.raises(Unreadable, match="more than 30 marks"):
        composed([hostile])
    assert text_fault(hostile) and time.perf_counter() - start < 2


def test_a_line_ends_with_lf_alone(tmp_path: Path):
    texts = [f"a{end}b" for end in ("\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e")]
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(t, ensure_ascii=False) for t in texts[:3]] + [json.dumps(t) for t in texts[3:]]
    path.write_bytes("\n\n".join(lines).encode())
    assert list(json_lines(path)) == [(1 + 2 * i, text) for i, text in enumerate(texts)]


def test_a_line_that_cannot_be_read_hides_no_other(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf[1]\n{"a":1,"a":2}\n\r\n"\xff"\r\nnope\n' + E_APART.encode().join([b'"'] * 2)
    )
    found = [(n, str(v) if isinstance(v, Unreadable) else v) for n, v in json_lines(path)]
    assert [n for n, _ in found] == [1, 3, 1, 2, 4, 5, 6]
    assert "byte-order mark" in found[0][1] and "carriage return" in found[1][1]
    assert found[2][1] == [1] and "twice" in found[3][1] and "not UTF-8" in found[4][1]
    assert "not JSON" in found[5][1] and found[6][1] == E_ACUTE


def call(name: object, arguments: object) -> dict:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def nested(depth: int) -> dict:
    return {"a": nested(depth - 1)} if depth > 1 else {}


def test_calls_are_written_as_the_answer_that_is_taught():
    for arguments in ({E_APART: E_APART}, json.dumps({E_APART: E_APART})):
        text = answer_of_calls([call(f"caf{E_APART}", arguments)])
        assert text == f'{{"name":"café","arguments":{{"{E_ACUTE}":"{E_ACUTE}"}}}}'
    assert strict_json(answer_of_calls([call("a", nested(63))]))["arguments"] == nested(63)
    lamp, none = call("lamp", '{ "room": "caf\\u0065\\u0301" }'), call("none", {})
    assert answer_of_calls([lamp]) == '{"name":"lamp","arguments":{"room":"café"}}'
    assert (
        answer_of_calls([lamp, none])
        == '[{"name":"lamp","arguments":{"room":"café"}},{"name":"none","arguments":{}}]'
    )


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        ([], "no list of calls"),
        ({}, "no list of calls"),
        (["x"], "names no function"),
        ([{"function": "x"}], "names no function"),
        ([call("", "{}")], "names no function"),
        ([call("a", "{")], "arguments of 'a': not JSON"),
        ([call("a", '{"b":1,"b":2}')], "'b' stands twice"),
        ([call("a", "[1]")], "arguments [1] of 'a' are no JSON object"),
        ([call("a", None)], "arguments None"),
        ([call("a", "[" * 100_000)], "64 deep"),
        ([call("a", '{"b": "\\u0000"}')], "U+0000 NULL"),
        ([call("a", {"b": {"\x9f": 1}})], "U+009F CONTROL CHARACTER"),
        ([call("a", {"b": "a" + "\u0301" * 40})], "more than 30 marks"),
        ([call("a", nested(64))], "64 deep"),
        ([call("a", json.dumps(nested(64)))], "64 deep"),
        ([call("a", nested(63)), call("a", {})], "64 deep"),
    ],
)
def test_calls_without_a_form_are_refused(calls: object, reason: str):
    with pytest.raises(Unreadable) as error:
        answer_of_calls(calls)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        ({"role": "developer", "content": "x"}, ("system", "x")),
        ({"role": "tool", "content": "21 degrees", "tool_call_id": "c"}, ("tool", "21 degrees")),
        ({"role": "assistant", "content": "x", "tool_calls": []}, ("assistant", "x")),
        (
            {"role": "assistant", "tool_calls": [call("a", "{}")]},
            ("assistant", '{"name":"a","arguments":{}}'),
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "caf"}, {"type": "text", "text": E_APART}]},
            ("user", "café"),
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "e"}, {"type": "text", "text": "\u0301"}]},
            ("user", E_ACUTE),
        ),
    ],
)
def test_a_message_becomes_a_role_and_a_text(message: dict, plain: tuple[str, str]):
    assert plain_message(message) == dict(zip(("role", "content"), plain, strict=True))


@pytest.mark.parametrize(
    ("message", "where", "reason"),
    [
        ("x", "", "no JSON object"),
        ({"role": ["user"], "content": "x"}, "role", "is unknown"),
        ({"role": "function", "content": "x"}, "role", "role 'function' is unknown"),
        ({"role": "user", "content": None}, "content", "content None is no text"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "content", "content None is no text"),
        ({"role": "user", "content": []}, "content", "content [] is no text"),
        ({"role": "user", "content": ["x"]}, "content", "part of 'x'"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "content", "type 'image_url'"),
        ({"role": "user", "content": [{"type": "text"}]}, "content", "without text"),
        ({"role": "user", "content": [{"type": "text", "text": "\u200b"}]}, "content", "ZERO WIDTH SPACE"),
        ({"role": "user", "content": "x", "tool_calls": [1]}, "tool_calls", "of the role user"),
        ({"role": "assistant", "content": "x", "tool_calls": [1]}, "content", "beside tool_calls"),
    ],
)
def test_a_message_without_a_form_is_refused(message: object, where: str, reason: str):
    with pytest.raises(Unreadable) as error:
        plain_message(message)
    assert reason in str(error.value) and error.value.where == where and error.value.remedy


@pytest.mark.parametrize(
    ("roles", "answered", "fault"),
    [
        (["user"], False, None),
        (["system", "user", "assistant", "tool"], False, None),
        (["system", "user", "assistant"], True, None),
        (["system"], False, "no user message"),
        (["tool"], False, "no user message"),
        (["user", "system"], False, "no user message"),
        (["user", "assistant"], False, "the last role is 'assistant'"),
        (["user"], True, "the last role is 'user'"),
        (["user", "assistant", "assistant"], True, "no user message"),
    ],
)
def test_a_conversation_has_an_order(roles: list[str], answered: bool, fault: str | None):
    found = order_fault(roles, answered)
    assert found is None if fault is None else found and fault in str(found) and found.remedy


@pytest.mark.parametrize("unit", ["a\0", "\u200b", " ", "\x9f", "\ufffe"])
def test_many_faults_are_counted_in_a_moment(unit: str):
    start = time.perf_counter()
    fault = text_fault(unit * 1_000_000)
    assert (fault and fault.endswith(f"{1_000_000 - 5} more")) or "which is no text" in str(fault)
    assert "999995 more" in str(fault) and len(str(fault)) < 400 and time.perf_counter() - start < 3


def test_a_million_characters_of_json_are_read_in_a_moment():
    start = time.perf_counter()
    assert len(strict_json("{" + ",".join(f'"k{i}":1' for i in range(90_000)) + "}")) == 90_000
    assert time.perf_counter() - start < 3


def test_random_texts_are_judged_by_one_rule():
    """Whatever passes can be written to a file and read again, in the same form."""
    for seed in range(2000):
        chance = random.Random(seed)
        text = "".join(
            chr(chance.choice((chance.randrange(0x250), chance.randrange(0x110000)))) for _ in range(6)
        )
        if text_fault(text) is None:
            once = composed(text)
            assert composed(strict_json(json.dumps(once, ensure_ascii=False))) == once
            assert once.encode().decode() == once == unicodedata.normalize("NFC", once)
