"""Labelled examples, prompts and synthetic records: JSON lines in the chat format of the fine-tuning APIs.

    {"id": "train-0001", "messages": [{"role": "user", "content": "..."},
                                      {"role": "assistant", "content": "..."}], "tags": ["typo"]}

A prompt has no assistant message. Several turns are allowed; the last assistant message is the answer.

A file holds OpenAI's form of messages, inside there is one `Record`, whose messages have a role and a content
each and no more:

- `developer` is read as system. Content as parts of the type text is read as one text.
- An assistant may call in place of saying something: `tool_calls`, without content. Its content is then what
  `answer_of_calls` writes, so a call is taught and scored like any other answer.
- A message of the role `tool` is what a call brought back: context, by its text.
- `tools`, the schemas of the functions, stay with the record. A student learns them from the answers.

What is read goes through slm/task/strict.py, like the server's requests: all texts are composed (NFC).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files import write_text
from slm.task.strict import (
    Unreadable,
    json_lines,
    no_text_in,
    order_fault,
    plain_message,
    shortly,
    text_fault,
    texts_in,
)

TASK = Path("task")
DATA_ERRORS = Path("reports/data-errors.txt")  # all of them, where they are too many for a message
FIRST_ERRORS = 10
KEYS = ("id", "messages", "tags", "tools")
# Besides role and content. A call's id and a tool's name say which call an answer belongs to: the order does.
MESSAGE_KEYS = {"assistant": {"tool_calls"}, "tool": {"tool_call_id", "name"}}
Prediction = dict[str, Any]  # a row of a predictions file, as `prediction` makes it


@dataclass(frozen=True)
class Record:
    id: str
    messages: list[dict[str, str]]
    tags: list[str] = field(default_factory=list)
    line: int = 0
    tools: list[dict[str, Any]] = field(default_factory=list)

    @property
    def prompt(self) -> list[dict[str, str]]:
        """All messages before the answer."""
        return self.messages[:-1] if self.messages[-1]["role"] == "assistant" else self.messages

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"] if self.messages[-1]["role"] == "assistant" else ""

    @property
    def text(self) -> str:
        """What the user said last."""
        return next(m["content"] for m in reversed(self.prompt) if m["role"] == "user")

    @property
    def asked(self) -> str:
        """All that both sides said before the answer, by which records differ. For one turn, its text."""
        return "\n".join(m["content"] for m in self.prompt if m["role"] != "system")

    @property
    def shown(self) -> str:
        """The prompt for a person: the text alone, or the turns with who said them."""
        turns = self.prompt
        return self.text if len(turns) == 1 else "\n".join(f"{m['role']}: {m['content']}" for m in turns)


def prediction(record: Record, answer: str, cut: bool) -> Prediction:
    """A row of a predictions file: the prompt to ask again (messages), the same to show and to compare by
    (prompt), and both answers.
    """
    row = {
        "id": record.id,
        "prompt": record.shown,
        "messages": record.prompt,
        "expected": record.answer,
        "answer": answer,
    }
    return row | {"cut": cut, "tags": record.tags}


def read_records(path: Path, answered: bool) -> list[Record]:
    """Read and check a JSON-lines file written by people.

    Args:
        answered: whether each record must end in an assistant message (labelled) or must not (a prompt).

    Raises:
        UserError: as `read_files`.
    """
    return read_files({path: answered})[path]


def read_files(files: dict[Path, bool]) -> dict[Path, list[Record]]:
    """Read and check several JSON-lines files, so that all that is wrong in them is said at once.

    Args:
        files: each with whether its records must end in an assistant message.

    Raises:
        UserError: names the file, the line, the value and the remedy of each error; of more than ten, the
            first ten, and all are in reports/data-errors.txt.
    """
    read = {path: _read(path, answered) for path, answered in files.items()}
    refuse([error for _, found in read.values() for error in found])
    return {path: records for path, (records, _) in read.items()}


def refuse(errors: list[str], whole: list[str] | None = None) -> None:
    """Say what is wrong with data; nothing where there are no errors. What a message has no room for is in
    reports/data-errors.txt, which belongs to the last refusal alone.

    Args:
        whole: the same errors without cuts, where `errors` are cut already; absent: the first ten are shown.

    Raises:
        UserError: there are errors.
    """
    if not errors:
        return
    shown, whole = (errors, whole) if whole else (errors[:FIRST_ERRORS], errors)
    if shown == whole:
        DATA_ERRORS.unlink(missing_ok=True)
    else:
        write_text(DATA_ERRORS, "\n".join(whole) + "\n")
        more = f"and {len(errors) - len(shown)} more; " if len(errors) > len(shown) else ""
        shown = [*shown, f"{more}all of them are in {DATA_ERRORS}"]
    raise UserError("\n".join(shown))


def _read(path: Path, answered: bool) -> tuple[list[Record], list[str]]:
    """The records of a file that are right, and what is wrong with the others."""
    if not path.exists():
        return [], [f"{path}: no such file; create it as JSON lines (see docs/your-own-task.md)"]
    records: list[Record] = []
    faults: list[tuple[int, Unreadable]] = []
    seen: dict[str, int] = {}
    try:
        lines = list(json_lines(path))
    except OSError as error:
        return [], [f"{path}: cannot be read ({error.strerror}); create it as a file of JSON lines"]
    for number, value in lines:
        found = [value] if isinstance(value, Unreadable) else list(_faults(value, answered))
        identity = value.get("id") if isinstance(value, dict) else None
        if isinstance(identity, str) and seen.setdefault(identity, number) != number:
            found.append(
                Unreadable(
                    f"id {shortly(identity)} is already used in line {seen[identity]}",
                    "give each record its own id",
                )
            )
        if not found:
            messages = [plain_message(message) for message in value["messages"]]
            records.append(
                Record(value["id"], messages, value.get("tags", []), number, value.get("tools", []))
            )
        faults += [(number, fault) for fault in found]
    faults.sort(key=lambda fault: fault[0])
    errors = [f"{path}:{number}: {fault.what}; {fault.remedy}" for number, fault in faults]
    if not records and not errors:
        errors = [f"{path}: no records; add at least one JSON line"]
    return records, errors


def read_prompts() -> list[Record]:
    """The task's requests without an answer; none if it has no such file."""
    path = TASK / "prompts.jsonl"
    return read_records(path, answered=False) if path.exists() else []


def _faults(value: Any, answered: bool) -> Iterator[Unreadable]:
    """All that is wrong with a record."""
    if not isinstance(value, dict):
        yield Unreadable(f"{shortly(value)} is no JSON object", 'write {"id": …, "messages": […]}')
        return
    for key in sorted(value.keys() - {*KEYS}):
        yield Unreadable(f"unknown key {shortly(key)}", f"allowed are {', '.join(KEYS)}")
    identity, messages, tags = value.get("id"), value.get("messages"), value.get("tags", [])
    if not isinstance(identity, str) or not identity:
        yield Unreadable(f"id {shortly(identity)} is no non-empty text", "give each record an id")
    elif fault := text_fault(identity):
        yield Unreadable(f"id {shortly(identity)} {fault}", "give each record an id that people can read")
    if not isinstance(tags, list) or not all(isinstance(t, str) for t in tags):
        yield Unreadable(f"tags {shortly(tags)} is no list of texts", 'write "tags": ["typo"]')
    else:
        for tag in tags:
            if fault := text_fault(tag):
                yield Unreadable(f"tag {shortly(tag)} {fault}", "write a name that people can read")
    yield from _tool_faults(value.get("tools", []))
    if not isinstance(messages, list) or not messages:
        yield Unreadable(f"messages {shortly(messages)} is no list", "write the chat as a list of messages")
    else:
        yield from _message_faults(messages, answered)


def _tool_faults(tools: Any) -> Iterator[Unreadable]:
    if not isinstance(tools, list):
        yield Unreadable(f"tools {shortly(tools)} is no list", "write the functions' schemas as a list")
        return
    names: set[str] = set()
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if (
            not isinstance(function, dict)
            or tool.get("type", "function") != "function"
            or not isinstance(name, str)
        ):
            yield Unreadable(
                f"tool {shortly(tool)} is no function",
                'write {"type": "function", "function": {"name": …, "parameters": …}}',
            )
            continue
        if fault := text_fault(name):
            yield Unreadable(f"tool name {shortly(name)} {fault}", "give each function a name to call it by")
        elif name in names:
            yield Unreadable(f"two tools are called {shortly(name)}", "give each function its own name")
        names.add(name)
        if not isinstance(function.get("parameters", {}), dict):
            yield Unreadable(
                f"parameters {shortly(function['parameters'])} of tool {shortly(name)} are no JSON object",
                "write the JSON schema of the arguments, or leave the key out",
            )
        for where, text in texts_in(function):
            if where != "name" and (found := no_text_in(text)):
                yield Unreadable(f"tool {shortly(name)} holds {found} in {where or 'a key'}", "remove it")


def _message_faults(messages: list[Any], answered: bool) -> Iterator[Unreadable]:
    """What is wrong with each message, or, where nothing is, with their order."""
    roles = []
    for message in messages:
        try:
            roles.append(plain_message(message)["role"])
        except Unreadable as fault:
            yield fault
            continue
        others = sorted(message.keys() - {"role", "content"} - MESSAGE_KEYS.get(message["role"], set()))
        if others:
            yield Unreadable(
                f"message {shortly(message)} has other keys than role and content: {shortly(others[0])}",
                "remove it; only an assistant's has tool_calls besides, and a tool's tool_call_id and name",
            )
    if len(roles) < len(messages):
        return
    if disorder := order_fault(roles, answered):
        yield disorder


def fixed_sample(items: list[Any], count: int | None, seed: int) -> list[Any]:
    """The same `count` items for the same seed, in file order; all of them if there are no more or `count` is
    None.
    """
    if count is None or count >= len(items):
        return list(items)
    chosen = sorted(random.Random(seed).sample(range(len(items)), count))
    return [items[i] for i in chosen]
