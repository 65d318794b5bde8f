"""Whatever comes through a door is understood, or refused in one message: no traceback, and no half of it.

What a door accepts is held against rules that are written here once more, without the code of the doors.
Hypothesis draws the inputs: honest ones, honest ones with something hostile put in, and bytes of no meaning.
By default a few are drawn; the variable FUZZ_EXAMPLES says how many for each door.
"""

import json
import math
import os
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from slm.config.loader import parse_yaml
from slm.config.params import Params
from slm.errors import UserError
from slm.quality.expectations import validate
from slm.serving.server import RequestError, read_request
from slm.task.records import read_records
from slm.teacher.response import NotAnAnswer, read_reply, understood

ROOT = Path(__file__).parent.parent
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "50"))
fuzzing = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
slow_fuzzing = settings(fuzzing, max_examples=max(10, EXAMPLES // 8))

HOSTILE = (
    *(
        "\0",
        "\x1b[31m",
        "\x85",
        "\u2028",
        "\u2029",
        "\ud800",
        "\udfff",
        "\ufeff",
        "\u200b",
        "\u202e",
        "\ufffe",
    ),
    *(
        "e\u0301",
        "\u1100\u1161",
        "a" + "\u0301" * 99,
        "<|im_end|>",
        "<think>",
        "[INST]",
        "\r\n",
        "\r",
        "\t",
        "\u3164",
    ),
    *(
        "",
        " ",
        "\u2800",
        "null",
        "-",
        "\U0010ffff",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "नमस्ते",
        "你好",
        "שלום",
        "ไทย",
    ),
)
NUMBERS = (
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "9" * 400,
    "0.1e-400",
    "-0",
    "1E400",
    "01",
    "0x1",
    "1_0",
    "１",
)
texts = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=12), st.sampled_from(["turn on the light", "Größe", "a b c"])
)
mixed = st.lists(texts, min_size=1, max_size=3).map("".join)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), mixed)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(mixed, inner, max_size=3)),
    max_leaves=6,
)
roles = st.sampled_from(["user", "assistant", "system", "tool", "developer", "User", "", "function"])


@st.composite
def spoilt(draw: Any, honest: st.SearchStrategy[Any], whole: bool = False) -> bytes:
    """JSON of an honest value, as it is or with one thing in it that does not belong there."""
    text = json.dumps(draw(honest), ensure_ascii=draw(st.booleans()))
    how = draw(st.sampled_from(["no", "no", "insert", "number", "twice", "deep", "cut", "bytes"]))
    place = draw(st.integers(0, len(text)))
    if how == "insert":
        text = text[:place] + draw(mixed) + text[place:]
    elif how == "number":
        text = (
            text.replace('"light"', draw(st.sampled_from(NUMBERS)), 1)
            if '"light"' in text
            else text[:place] + "1e999"
        )
    elif how == "twice" and text.startswith("{"):
        key = draw(st.sampled_from(['"id"', '"messages"', '"role"', '"\\u0069d"']))
        text = "{" + key + ": 1, " + text[1:]
    elif how == "deep":
        depth = draw(st.sampled_from([3, 63, 64, 65, 5000]))
        text = text[:-1] + ', "x": ' + "[" * depth + "]" * depth + "}" if text.endswith("}") else "[" * depth
    elif how == "cut":
        text = text[:place]
    data = text.encode("utf-8", "surrogatepass")
    if how == "bytes":
        data = data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place:]
    return data


messages = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": roles, "content": mixed}),
        st.fixed_dictionaries({"role": st.just("user"), "content": st.just("turn on the light")}),
        values,
    ),
    max_size=4,
)
asked = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": mixed}), min_size=1, max_size=1)
answered = st.tuples(mixed, mixed).map(
    lambda pair: [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
)
record = st.fixed_dictionaries(
    {
        "id": st.one_of(mixed, st.integers(), st.just("r1")),
        "messages": st.one_of(answered, answered, messages),
    },
    optional={"tags": values, "tools": values, "light": st.just("light")},
)


# What may be accepted, by rules of its own
def sound(text: str) -> bool:
    """No control character but tab and line feed, no half character, composed, and something to see."""
    kinds = {unicodedata.category(c) for c in text if c not in "\n\t"}
    seen = any(unicodedata.category(c)[0] not in "ZC" for c in text)
    return not kinds & {"Cc", "Cs"} and unicodedata.is_normalized("NFC", text) and seen


def plain_json(data: bytes) -> bool:
    """Each key once, numbers that a double holds, at most 64 deep: every reader reads the same."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [unicodedata.normalize("NFC", name) for name, _ in pairs]
        assert len(names) == len(set(names))
        return dict(pairs)

    def depth(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return (isinstance(value, dict | list)) + max(map(depth, inner), default=0)

    def finite(value: Any) -> bool:
        if isinstance(value, dict | list):
            return all(map(finite, value.values() if isinstance(value, dict) else value))
        return not isinstance(value, int | float) or isinstance(value, bool) or math.isfinite(float(value))

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=once)
        return depth(value) <= 64 and finite(value)
    except (ValueError, AssertionError, RecursionError, OverflowError):
        return False


def one_message(error: Exception) -> bool:
    """Something to read: not empty, no half character, nothing that a terminal or a log would act on."""
    said = str(error)
    return bool(said.strip()) and all(c.isprintable() or c == "\n" for c in said)


@fuzzing
@given(
    rows=st.lists(st.one_of(spoilt(record), st.binary(max_size=20)), min_size=1, max_size=3),
    answers=st.booleans(),
)
def test_records(tmp_path_factory: pytest.TempPathFactory, rows: list[bytes], answers: bool):
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    path.write_bytes(b"\n".join(rows) + b"\n")
    try:
        found = read_records(path, answers)
    except UserError as error:
        assert one_message(error) and f"{path}" in str(error)
        return
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    assert len(found) == len(lines), "a row is lost, or made of two"
    assert all(map(plain_json, lines))
    for r in found:
        assert all(sound(m["content"]) for m in r.messages if m["content"] or m["role"] == "user"), r
        assert any(m["role"] == "user" for m in r.messages)
        assert not answers or r.messages[-1]["role"] == "assistant"


request = st.fixed_dictionaries(
    {"messages": st.one_of(asked, asked, messages), "model": st.one_of(st.just("m"), values)},
    optional={
        name: values for name in ("max_tokens", "stream", "stream_options", "tools", "temperature", "light")
    },
)


@fuzzing
@given(body=st.one_of(spoilt(request), st.binary(max_size=40)))
def test_requests(body: bytes):
    try:
        wanted = read_request(body)
    except RequestError as error:
        assert one_message(error) and error.status in (400, 413)
        return
    assert plain_json(body)
    for message in wanted.messages:
        assert set(message) == {"role", "content"} and sound(message["content"] or "-")


reply = st.fixed_dictionaries(
    {
        "choices": st.one_of(
            st.lists(
                st.fixed_dictionaries(
                    {
                        "message": st.one_of(
                            st.fixed_dictionaries(
                                {
                                    "role": st.just("assistant"),
                                    "content": st.one_of(mixed, st.none(), values),
                                },
                                optional={
                                    "reasoning_content": mixed,
                                    "tool_calls": values,
                                    "refusal": values,
                                },
                            ),
                            values,
                        )
                    },
                    optional={
                        "finish_reason": st.one_of(
                            st.sampled_from(["stop", "length", "content_filter", None]), values
                        ),
                        "logprobs": values,
                    },
                ),
                max_size=2,
            ),
            values,
        )
    },
    optional={"usage": values, "error": values, "light": st.just("light")},
)


@fuzzing
@given(body=st.one_of(spoilt(reply), st.binary(max_size=40)))
def test_answers(body: bytes):
    try:
        text = understood(read_reply(body, "m"))["text"]
    except NotAnAnswer as error:
        assert str(error).strip()
        return
    assert isinstance(text, str)
    json.dumps(text).encode()
    assert text.strip() == text


@st.composite
def parameters(draw: Any) -> str:
    """params.yaml with one value, key or line changed."""
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8").split("\n")
    places = [i for i, line in enumerate(lines) if ":" in line and not line.lstrip().startswith("#")]
    place = draw(st.sampled_from(places))
    key, _, _ = lines[place].partition(":")
    how = draw(st.sampled_from(["no", "value", "value", "key", "line", "tab", "alias"]))
    if how == "value":
        lines[place] = f"{key}: {json.dumps(draw(values))}"
    elif how == "key":
        lines[place] = draw(mixed) + lines[place]
    elif how == "line":
        lines.insert(place, draw(mixed))
    elif how == "tab":
        lines[place] = "\t" + lines[place]
    elif how == "alias":
        lines[place] = f"{key}: &a [*a]"
    return "\n".join(lines)


@fuzzing
@given(text=parameters())
def test_parameters(text: str):
    try:
        found = parse_yaml(text, "params.yaml", Params)
    except UserError as error:
        assert str(error).startswith("params.yaml")
        return
    written = YAML(typ="safe").load(text)
    assert set(written) <= set(Params.model_fields)
    assert Params.model_validate(found.model_dump()) == found


TABLE = pd.DataFrame(
    {"text": ["turn on", "stop", None], "words": [2, 1, 40], "answer_class": ["light", "timer", "light"]}
)
KINDS = (
    *(
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
    ),
    *(
        "expect_column_value_lengths_to_be_between",
        "expect_column_mean_to_be_between",
        "expect_column_to_exist",
    ),
    *(
        "expect_table_row_count_to_be_between",
        "expect_column_values_to_match_regex",
        "expect_colum_to_exist",
        "x",
    ),
)
entry = st.fixed_dictionaries(
    {
        "type": st.one_of(st.sampled_from(KINDS), mixed),
        "kwargs": st.one_of(
            st.fixed_dictionaries(
                {"column": st.sampled_from(["text", "words", "answer_class", "txt", ""])},
                optional={
                    "min_value": values,
                    "max_value": values,
                    "value_set": values,
                    "mostly": values,
                    "regex": mixed,
                },
            ),
            values,
        ),
    },
    optional={"meta": values, "id": values, "light": st.just("light")},
)
suite = st.fixed_dictionaries(
    {
        "name": st.one_of(st.just("s"), values),
        "expectations": st.one_of(st.lists(entry, min_size=1, max_size=3), values),
    }
)


@slow_fuzzing
@given(data=spoilt(suite))
def test_suites(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.getbasetemp() / "suite.json"
    path.write_bytes(data)
    try:
        report = validate(path, {"a.jsonl": TABLE}, {"a.jsonl": [1, 2, 3]})
    except UserError as error:
        assert str(path) in str(error)
        return
    written = json.loads(data)["expectations"]
    assert len(report["results"]) == len(written), "an expectation was left out"
    assert plain_json(data)
