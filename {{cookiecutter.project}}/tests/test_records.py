"""Every malformed record is refused with its file, line, value and a remedy."""

from pathlib import Path

import pytest

from slm.errors import UserError
from slm.task.records import Record, prediction, read_records

GOOD = {"id": "1", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "{}"}]}


def but(**changes: object) -> dict:
    return GOOD | changes


FAULTS = {
    "not JSON": ('{"id": "1", "messages": [', "not JSON"),
    "a list": ([1, 2], "no JSON object"),
    "unknown key": (but(mesages=[]), "unknown key 'mesages'"),
    "no id": (but(id=""), "id ''"),
    "number as id": (but(id=7), "id 7"),
    "tags no list": (but(tags="typo"), "tags 'typo'"),
    "no messages": (but(messages=[]), "messages []"),
    "wrong role": (but(messages=[{"role": "human", "content": "hi"}]), "role 'human'"),
    "empty content": (but(messages=[{"role": "user", "content": " "}]), "content ' '"),
    "extra key in a message": (but(messages=[{"role": "user", "content": "hi", "name": "x"}]), "other keys"),
    "no answer": (but(messages=[{"role": "user", "content": "hi"}]), "the last role is 'user'"),
    "answer to nobody": (
        but(messages=[{"role": "system", "content": "x"}, {"role": "assistant", "content": "y"}]),
        "no user message",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named_with_line_and_remedy(name, write):
    row, message = FAULTS[name]
    path = write(but(id="first"), row)
    with pytest.raises(UserError) as error:
        read_records(path, answered=True)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}:2: ")
    assert "; " in str(error.value)


def test_duplicate_id_names_both_lines(write):
    with pytest.raises(UserError, match=r":2: id '1' is already used in line 1"):
        read_records(write(GOOD, GOOD), answered=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xef\xbb\xbf{}\n", ":1: begins with a byte-order mark"),
        (b"{}\n\xff\n", ":2: byte b'\\xff' is not UTF-8"),
        (b"{}\r\n", ":1: carriage return"),
        (b"", "no records"),
    ],
)
def test_bad_bytes(data: bytes, message: str, tmp_path: Path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_records(path, answered=True)
    assert message in str(error.value)


def test_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        read_records(tmp_path / "nothing.jsonl", answered=True)


def test_good_record(write):
    (record,) = read_records(write(but(tags=["typo"])), answered=True)
    assert (record.text, record.answer, record.tags, record.line) == ("hi", "{}", ["typo"], 1)


def test_a_prediction_keeps_the_whole_conversation():
    turns = [
        {"role": "user", "content": "turn it on"},
        {"role": "assistant", "content": "what?"},
        {"role": "user", "content": "the lamp"},
    ]
    answered = Record("1", [*turns, {"role": "assistant", "content": "on"}], ["t"])
    row = prediction(answered, "off", cut=False)
    assert row["messages"] == turns and (row["expected"], row["answer"], row["cut"], row["tags"]) == (
        "on",
        "off",
        False,
        ["t"],
    )
    assert row["prompt"] == "user: turn it on\nassistant: what?\nuser: the lamp"
    assert answered.asked == "turn it on\nwhat?\nthe lamp"
    assert (
        prediction(Record("2", turns[:1]), "off", cut=False)["prompt"]
        == Record("2", turns[:1]).asked
        == "turn it on"
    )
