"""The response store keeps what was paid, says what it cost, and goes from one machine to another."""

import contextlib
import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from slm.errors import UserError
from slm.teacher.ledger import ledger_table
from slm.teacher.store import Spent, Store, compressed
from slm.teacher.transfer import export, read_export


def answer(text: str, usd: float | None = 0.5) -> dict[str, Any]:
    return {
        "text": text,
        "cut": False,
        "model": "big",
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        "usd": usd,
        "seconds": 0.2,
    }


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path / "answers.sqlite")
    yield store
    store.close()


def test_an_answer_is_never_replaced(store: Store):
    store.put({"a": answer("one")})
    store.put({"a": answer("two"), "b": answer("three")})
    found = store.get("a")
    assert (
        found and found["text"] == "one" and store.has("b") and not store.has("c") and store.get("c") is None
    )
    assert store.spent() == Spent(2, 30, 1.0)


def test_what_was_asked_and_never_answered_counts_after_a_kill(store: Store, tmp_path: Path):
    store.put({"a": answer("one")}, Spent(3, 300, 0.25))
    again = Store(tmp_path / "answers.sqlite")  # the other one is not closed: as after a kill
    assert again.spent() == Spent(4, 315, 0.75)
    again.close()


def test_a_local_teachers_answers_cost_nothing(store: Store):
    store.put({"a": {"text": "one", "token_ids": [1]}})
    assert store.spent() == Spent() and store.ledger() == [] and list(store.paid()) == []


def test_a_store_from_before_prices_keeps_its_answers(tmp_path: Path):
    old = sqlite3.connect(tmp_path / "answers.sqlite")
    old.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    old.execute("INSERT INTO answers VALUES ('a', ?)", (compressed(answer("one")),))
    old.commit()
    old.close()
    store = Store(tmp_path / "answers.sqlite")
    found = store.get("a")
    store.put({"b": answer("two")})
    assert found and found["text"] == "one" and store.has("b")
    store.close()


def test_an_export_is_the_same_bytes_and_comes_in_again(store: Store, tmp_path: Path):
    store.put({"b": answer("zwei"), "a": answer("naïve 🙂")})
    one, two = tmp_path / "one.jsonl.gz", tmp_path / "two.jsonl.gz"
    other = Store(tmp_path / "other.sqlite")
    assert export(store, one) == 2 and other.add(read_export(one)) == 2 and other.add(read_export(one)) == 0
    assert export(other, two) == 2 and one.read_bytes() == two.read_bytes()
    assert other.get("a") == answer("naïve 🙂") and other.spent() == store.spent()
    other.close()


@pytest.mark.parametrize("text", ["[]\n", "{}\n", "no json\n"])
def test_what_is_no_export_is_refused(store: Store, tmp_path: Path, text: str):
    path = tmp_path / "bad.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write(text)
    with pytest.raises(UserError, match=r"bad.jsonl.gz:1: .*export again"):
        store.add(read_export(path))
    path.write_bytes(b"not gzip")
    with pytest.raises(UserError, match="cannot be read"):
        store.add(read_export(path))
    assert store.spent() == Spent()


def packed_row(**changes: Any) -> bytes:
    row = {"key": "k", "value": answer("hi"), "time": "t", "run": "r", "model": "big"}
    row |= {"tokens_in": 1, "tokens_out": 1, "usd": 0.1, "seconds": 1}
    return json.dumps(row | changes).encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (packed_row(key=[1]), "key Input should be a valid string"),
        (packed_row(key=None), "key "),
        (packed_row(usd={}), "usd "),
        (packed_row(usd="0.1"), "usd "),
        (packed_row(tokens_in=10**30), "tokens_in "),
        (packed_row(tokens_out=-1), "tokens_out "),
        (packed_row(tokens_in=True), "tokens_in "),
        (packed_row(model=None), "model "),
        (packed_row(other=1), "other "),
        (packed_row(value={"a": 1}), "value.text Field required"),
        (packed_row(value=answer("hi") | {"text": None}), "value.text "),
        (packed_row(value=answer("hi") | {"text": 5}), "value.text "),
        (packed_row(value=answer("hi") | {"cut": "no"}), "value.cut "),
        (packed_row(value=answer("hi") | {"finish_reason": 5}), "value.finish_reason "),
        (packed_row(usd="@").replace(b'"@"', b"NaN"), "NaN is no JSON"),
        (packed_row().replace(b'"hi"', b'"\\ud800"'), "half a character"),
        (packed_row().replace(b'"hi"', b'"\xe9"'), "not UTF-8"),
        (packed_row().replace(b'"key"', b'"run": 1, "key"'), "'run' stands twice"),
        (b"nonsense\n", "not JSON"),
        (b"\n", "not JSON"),
    ],
)
def test_a_line_that_is_no_answer_is_named_and_nothing_comes_in(
    store: Store, tmp_path: Path, line: bytes, said: str
):
    path = tmp_path / "bad.jsonl.gz"
    path.write_bytes(gzip.compress(packed_row(key="a") + line))
    with pytest.raises(UserError) as error:
        store.add(read_export(path))
    assert f"{path}:2: not an answer that" in str(error.value) and said in str(error.value)
    assert store.spent() == Spent()


def test_any_answer_that_was_stored_comes_in(store: Store, tmp_path: Path):
    path = tmp_path / "good.jsonl.gz"
    odd = answer("a\0b\u2028c", None) | {"seconds": None, "tool_calls": [{"name": "a", "arguments": {}}]}
    lines = [packed_row(), packed_row(key="a", value=odd, usd=None, time=None), packed_row(key="b", usd=0)]
    path.write_bytes(gzip.compress(b"".join(lines)))
    assert store.add(read_export(path)) == 3 and store.get("a") == odd


def test_spoilt_bytes_are_no_export(store: Store, tmp_path: Path):
    path, whole = (
        tmp_path / "bad.jsonl.gz",
        gzip.compress(b"".join(packed_row(key=f"{i}") for i in range(50))),
    )
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        with contextlib.suppress(UserError):  # some bytes, such as the time, mean nothing
            store.add(read_export(path))
    for rest in (whole[:-20], b""):
        path.write_bytes(rest)
        with pytest.raises(UserError, match="cannot be read"):
            store.add(read_export(path))
    path.write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot be read"):
        store.add(read_export(path))


def test_the_ledger_sums_by_run(store: Store, tmp_path: Path):
    store.put({"a": answer("one"), "b": answer("two")}, Spent(1, 100, 0.1), hits=3)
    other = Store(tmp_path / "answers.sqlite")
    other.run = "2030-01-01T00:00:00-1"
    other.put({"c": answer("three", None)}, hits=2)
    other.close()
    text = ledger_table(store.ledger())
    rows = [line.split() for line in text.splitlines()]
    assert rows[1][2:7] == ["big", "2", "20", "10", "1.0000"] and rows[1][-2:] == ["3", "1"]
    assert rows[2][2:7] == ["big", "1", "10", "5", "unknown"]
    assert rows[3][:5] == ["all", "3", "30", "15", "1.0000"] and rows[3][-2:] == ["5", "1"]
