"""Every malformed record is refused with its file, line, value and a remedy."""

import json
from pathlib import Path

import pytest

from slm.errors import UserError
from slm.files import write_text
from slm.task.records import DATA_ERRORS, Record, prediction, read_files, read_records, refuse
from slm.task.strict import answer_of_calls

CALL = {"id": "c", "type": "function", "function": {"name": "light", "arguments": '{"on": true}'}}
GOOD = {"id": "1", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "{}"}]}


def but(**changes: object) -> dict:
    return GOOD | changes


def tool(name: str, **function: object) -> dict:
    return {"type": "function", "function": {"name": name, **function}}


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
    "key twice": (
        '{"id":"5","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],'
        '"messages":[]}',
        "the key 'messages' stands twice",
    ),
    "too deep": (f'{{"id": "5", "messages": {"[" * 5000}{"]" * 5000}}}', "more than 64 deep"),
    "a number without end": (f'{{"id": {"7" * 5000}}}', "a number of 5000 digits"),
    "NUL": (
        but(messages=[{"role": "user", "content": "a\0b"}, GOOD["messages"][1]]),
        "content 'a\\x00b' holds U+0000 NULL (character 2)",
    ),
    "NUL in an id": (but(id="a\0"), "U+0000 NULL"),
    "nobody sees the request": (
        but(messages=[{"role": "user", "content": "\u200b\ufeff"}, GOOD["messages"][1]]),
        "U+200B ZERO WIDTH SPACE (character 1)",
    ),
    "nobody sees the answer": (
        but(messages=[GOOD["messages"][0], {"role": "assistant", "content": "\u3164"}]),
        "U+3164 HANGUL FILLER",
    ),
    "half a character": (but(id="\ud800"), "U+D800 LONE SURROGATE"),
    "tag of nothing": (but(tags=["\u00ad"]), "U+00AD SOFT HYPHEN"),
    "tools no list": (but(tools={}), "tools {} is no list"),
    "tool without a name": (but(tools=[{"type": "function"}]), "is no function"),
    "tool of another type": (but(tools=[{"type": "retrieval", "function": {"name": "f"}}]), "is no function"),
    "tool of no name": (but(tools=[tool("")]), "tool name '' is empty"),
    "tool with a NUL": (but(tools=[tool("a\0b")]), "tool name 'a\\x00b' holds U+0000 NULL"),
    "tool that nobody sees": (but(tools=[tool("\u200b")]), "U+200B ZERO WIDTH SPACE"),
    "tool described by a NUL": (
        but(tools=[tool("f", description="a\0")]),
        "U+0000 NULL (character 2) in desc",
    ),
    "tool with a NUL as a key": (
        but(tools=[tool("f", parameters={"properties": {"a\x9f": {}}})]),
        "tool 'f' holds U+009F CONTROL CHARACTER (character 2) in parameters.properties",
    ),
    "tool of a list": (
        but(tools=[tool("f", parameters=[1])]),
        "parameters [1] of tool 'f' are no JSON object",
    ),
    "tool of no schema": (but(tools=[tool("f", parameters=None)]), "parameters None of tool 'f'"),
    "two tools of one name": (but(tools=[tool("f"), tool("g"), tool("f")]), "two tools are called 'f'"),
    "weight": (
        but(messages=[GOOD["messages"][0], {"role": "assistant", "content": "b", "weight": 1}]),
        "other keys than role and content: 'weight'",
    ),
    "a user calls": (
        but(messages=[{"role": "user", "content": "a", "tool_calls": [CALL]}, GOOD["messages"][1]]),
        "tool_calls of the role user",
    ),
    "a call without arguments": (
        but(
            messages=[GOOD["messages"][0], {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]
        ),
        "arguments None of 'f'",
    ),
    "an answer to a tool that nobody asked": (
        but(messages=[{"role": "tool", "content": "x"}, {"role": "assistant", "content": "y"}]),
        "no user message",
    ),
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
        (b"{}\n" + b"\0" * 9, ":2: holds NUL bytes"),
        (
            '{"id": "é"}\n{}\n'.encode("utf-16"),
            ":1: holds NUL bytes: it is UTF-16, or damaged; save the file as",
        ),
        ('{"id": "é"}\n{}\n'.encode("utf-16-le"), ":1: holds NUL bytes"),
        ('{"id": "é"}\n{}\n'.encode("utf-16-be"), ":1: holds NUL bytes"),
        ('{"id": "é"}\n{}\n'.encode("utf-32-le"), ":1: holds NUL bytes"),
        (b'{"messages": [{"content": "\\ud800"}]}', ":1: messages[0].content: U+D800 LONE SURROGATE is half"),
        (b'{"id": 1, "id": 2}', ":1: the key 'id' stands twice"),
    ],
)
def test_bad_bytes(data: bytes, message: str, tmp_path: Path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_records(path, answered=True)
    assert message in str(error.value)


def test_what_is_no_file_is_named(tmp_path: Path):
    for name, said in (("folder.jsonl", "cannot be read (Is a directory)"), ("none.jsonl", "no such file")):
        path = tmp_path / name
        if name == "folder.jsonl":
            path.mkdir()
        with pytest.raises(UserError) as error:
            read_records(path, answered=True)
        assert f"{path}: {said}; " in str(error.value)


def test_tools_are_kept_as_they_are(write):
    tools = [tool("f", description="say é", parameters={"type": "object"}), {"function": {"name": "g"}}]
    (record,) = read_records(write(but(tools=tools)), answered=True)
    assert record.tools == tools


def test_all_errors_of_all_lines_are_shown(write):
    both = but(id=7, messages=[{"role": "human", "content": "a"}, {"role": "assistant", "content": " "}])
    path = write("nonsense", but(id="1"), both, but(id="1"), "[1]")
    with pytest.raises(UserError) as error:
        read_records(path, answered=True)
    lines = str(error.value).split("\n")
    assert [line.removeprefix(f"{path}:")[0] for line in lines] == ["1", "3", "3", "3", "4", "5"]
    assert all("; " in line for line in lines) and not DATA_ERRORS.exists()


def test_more_errors_than_ten_are_written_to_a_file(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = write(*(but(id=f"{i}", messages="\u2028") for i in range(12)))
    with pytest.raises(UserError) as error:
        read_records(path, answered=True)
    lines = str(error.value).splitlines()
    assert len(lines) == 11 and lines[-1] == f"and 2 more; all of them are in {DATA_ERRORS}"
    written = DATA_ERRORS.read_text(encoding="utf-8").split("\n")
    assert written[:10] == lines[:10] and len(written) == 13 and written[11].startswith(f"{path}:12: ")
    with pytest.raises(UserError):
        read_records(write("nonsense"), answered=True)
    assert not DATA_ERRORS.exists()  # its errors are those of another run


def test_what_a_message_cuts_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    refuse([])
    with pytest.raises(UserError) as error:
        refuse(["suite:\n  one\n  … and 1 more"], ["suite:\n  one\n  two"])
    assert str(error.value) == f"suite:\n  one\n  … and 1 more\nall of them are in {DATA_ERRORS}"
    assert DATA_ERRORS.read_text(encoding="utf-8") == "suite:\n  one\n  two\n"
    with pytest.raises(UserError, match=r"\Asuite: one\Z"):
        refuse(["suite: one"], ["suite: one"])
    assert not DATA_ERRORS.exists()


def test_what_unicode_calls_a_line_end_is_data(tmp_path: Path):
    said = "first\u2028second\u2029third\u0085fourth"
    row = but(messages=[{"role": "user", "content": said}, GOOD["messages"][1]])
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    (record,) = read_records(path, answered=True)
    assert record.text == said


def test_composed_and_apart_are_equal(write):
    rows = [
        {
            "id": f"{n}{word}",
            "messages": [{"role": "user", "content": word}, {"role": "assistant", "content": word}],
            "tags": [word],
        }
        for n, word in enumerate(("caf\u00e9", "cafe\u0301"))
    ]
    one, other = read_records(write(*rows), answered=True)
    assert (one.messages, one.tags, one.id[1:]) == (other.messages, other.tags, other.id[1:])
    with pytest.raises(UserError, match="already used"):
        read_records(write(but(id="caf\u00e9"), but(id="cafe\u0301")), answered=True)


def test_a_call_is_the_answer(write):
    tools = [{"type": "function", "function": {"name": "light", "parameters": {"type": "object"}}}]
    turns = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "light"},
        {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
        {"role": "assistant", "tool_calls": [CALL]},
    ]
    (record,) = read_records(write(but(messages=turns, tools=tools)), answered=True)
    assert record.answer == answer_of_calls([CALL]) == '{"name":"light","arguments":{"on":true}}'
    assert [m["role"] for m in record.prompt] == ["system", "user", "assistant", "tool"]
    assert all(m.keys() == {"role", "content"} for m in record.messages)
    assert record.prompt[2]["content"] == f"[{record.answer},{record.answer}]"
    assert record.text == "light" and record.tools == tools and record.asked.startswith("light\n[{")
    (prompt,) = read_records(write(but(messages=turns[:-1])), answered=False)
    assert prompt.answer == "" and prompt.prompt[-1] == {"role": "tool", "content": "done"}


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


def test_what_is_wrong_in_several_files_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [Path(name) for name in ("train.jsonl", "test.jsonl")]
    for path in paths:
        write_text(path, "no json\n" * 6)
    with pytest.raises(UserError) as caught:
        read_files({**dict.fromkeys(paths, True), Path("lost.jsonl"): True})
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("train.jsonl:1: ") and lines[9].startswith("test.jsonl:4: ")
    assert lines[10] == f"and 3 more; all of them are in {DATA_ERRORS}"
    written = DATA_ERRORS.read_text(encoding="utf-8")
    assert "test.jsonl:6: " in written and "lost.jsonl: no such file" in written
