"""Labelled examples, prompts and synthetic records: JSON lines in the chat format of the fine-tuning APIs.

    {"id": "train-0001", "messages": [{"role": "user", "content": "..."},
                                      {"role": "assistant", "content": "..."}], "tags": ["typo"]}

A prompt has no assistant message. Several turns are allowed; the last assistant message is the answer.
"""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm.errors import UserError

TASK = Path("task")
Prediction = dict[str, Any]  # a row of a predictions file, as `prediction` makes it


@dataclass(frozen=True)
class Record:
    id: str
    messages: list[dict[str, str]]
    tags: list[str] = field(default_factory=list)
    line: int = 0

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
        return self.prompt[-1]["content"]

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
        UserError: names the file, the line, the value and the remedy.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; create it as JSON lines (see docs/your-own-task.md)")
    raw = path.read_bytes()
    if raw.startswith(b"\xef\xbb\xbf"):
        raise UserError(f"{path}:1: begins with a byte-order mark; save the file as UTF-8 without BOM")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: byte {raw[error.start : error.start + 1]!r} is not UTF-8; save the file as UTF-8"
        ) from None
    if "\r" in text:
        line = text[: text.index("\r")].count("\n") + 1
        raise UserError(
            f"{path}:{line}: carriage return (Windows line end); save the file with LF line ends, so that "
            "hashes agree everywhere"
        )
    records: list[Record] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(text.split("\n"), 1):
        if not row:
            continue
        record = _parse(path, number, row, answered)
        if record.id in seen:
            raise UserError(
                f"{path}:{number}: id {record.id!r} is already used in line {seen[record.id]}; give each "
                "record its own id"
            )
        seen[record.id] = number
        records.append(record)
    if not records:
        raise UserError(f"{path}: no records; add at least one JSON line")
    return records


def read_prompts() -> list[Record]:
    """The task's requests without an answer; none if it has no such file."""
    path = TASK / "prompts.jsonl"
    return read_records(path, answered=False) if path.exists() else []


def _parse(path: Path, number: int, row: str, answered: bool) -> Record:
    def fail(what: str, remedy: str) -> UserError:
        return UserError(f"{path}:{number}: {what}; {remedy}")

    try:
        value: Any = json.loads(row)
    except json.JSONDecodeError as error:
        raise fail(
            f"not JSON ({error.msg} at column {error.colno}): {row[:80]!r}", "write one JSON object a line"
        ) from None
    if not isinstance(value, dict):
        raise fail(f"{row[:80]!r} is no JSON object", 'write {"id": …, "messages": […]}')
    unknown = value.keys() - {"id", "messages", "tags"}
    if unknown:
        raise fail(f"unknown key {sorted(unknown)[0]!r}", "allowed are id, messages, tags")
    identity, messages, tags = value.get("id"), value.get("messages"), value.get("tags", [])
    if not isinstance(identity, str) or not identity:
        raise fail(f"id {identity!r} is no non-empty text", "give each record an id")
    if not isinstance(tags, list) or not all(isinstance(t, str) for t in tags):
        raise fail(f"tags {tags!r} is no list of texts", 'write "tags": ["typo"]')
    if not isinstance(messages, list) or not messages:
        raise fail(f"messages {messages!r} is no list", "write the chat as a list of messages")
    for message in messages:
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            raise fail(
                f"message {str(message)[:80]} has other keys than role and content",
                "each message has exactly these two",
            )
        if message["role"] not in ("system", "user", "assistant"):
            raise fail(f"role {message['role']!r} is unknown", "use system, user or assistant")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise fail(f"content {message['content']!r} is no text", "every message says something")
    if (messages[-1]["role"] == "assistant") != answered:
        wanted = "must end in an assistant message" if answered else "must not end in an assistant message"
        raise fail(f"the last role is {messages[-1]['role']!r}", f"a record of this file {wanted}")
    if messages[-2 if answered else -1 :][0]["role"] != "user":
        raise fail("no user message before the answer", "the answer follows a user message")
    return Record(identity, messages, tags, number)


def fixed_sample(items: list[Any], count: int | None, seed: int) -> list[Any]:
    """The same `count` items for the same seed, in file order; all of them if there are no more or `count` is
    None.
    """
    if count is None or count >= len(items):
        return list(items)
    chosen = sorted(random.Random(seed).sample(range(len(items)), count))
    return [items[i] for i in chosen]
