"""The one door for data: what a person, a teacher or a client of the server sends is read by these rules.

JSON is read as others read it too, each text is composed (NFC) and holds only what a model can be told, and a
message of the OpenAI form becomes the role and the text that a model reads. The server's image holds this
file and little else: it imports no more than the errors.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import regex

from slm.errors import brief

DEEPEST_JSON = 64
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# `developer` is what the role system is called for newer models.
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
NAMED_FAULTS = 5

_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
# U+0085 ends a line, as U+2028 does: it is the one control character besides tab and newline that is text.
_NO_TEXT = regex.compile(r"[[\p{Cc}--[\t\n\x85]]\p{Cs}\p{Noncharacter_Code_Point}]", regex.V1)
# U+2800 is the one blank that Unicode counts as a picture.
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{White_Space}\p{Cc}\p{Cf}\u2800]")
# No language needs more marks on one letter than Unicode's Stream-Safe Text Format allows, and the time that
# composing takes grows with the square of their number.
_PILED_MARKS = regex.compile(r"[^\p{Canonical_Combining_Class=0}]{31}")
_SURROGATE = regex.compile(r"\p{Cs}")
# Unicode gives control characters no names of their own, only aliases; these are the ones that people meet.
_CONTROLS = {
    unicodedata.lookup(alias): alias
    for alias in ("NULL", "BACKSPACE", "LINE TABULATION", "FORM FEED", "CARRIAGE RETURN", "ESCAPE", "DELETE")
}


class Unreadable(ValueError):
    """What is wrong with a value, and the remedy; `where` is the path to it inside the JSON that was sent."""

    def __init__(self, what: str, remedy: str, where: str = "") -> None:
        super().__init__(what)
        # A key may hold anything, and a message is one line of text.
        self.what, self.remedy, self.where = what, remedy, brief(where, 100)


def shortly(value: Any) -> str:
    """A value as a message quotes it: on one line, the beginning alone if it is long."""
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 100 else f"{text[:97]}…"


def strict_json(text: str) -> Any:
    """JSON as others read it too: no NaN, no key twice, no lone surrogates, no number without bounds.

    Raises:
        Unreadable: says why.
    """
    _limit_depth(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_int=_whole_number,
            parse_float=_finite_number,
            parse_constant=_no_number,
        )
    except json.JSONDecodeError as error:
        raise Unreadable(
            f"not JSON ({error.msg} at character {error.pos + 1}): {shortly(text)}",
            "write JSON, in a file one object a line",
        ) from None
    for where, said in texts_in(value):
        if lone := _SURROGATE.search(said):
            raise Unreadable(
                f"{named_character(lone[0])} is half a character",
                "write both halves, or the character itself",
                where,
            )
    return value


def _limit_depth(text: str) -> None:
    """Refuse what stands too deep, before the parser goes down there."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        if depth > DEEPEST_JSON:
            raise Unreadable(
                f"lists and objects stand in one another more than {DEEPEST_JSON} deep", "write it flatter"
            )


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, refused if a key stands in it twice."""
    seen: set[str] = set()
    for key, _ in pairs:
        name = composed(key)
        if name in seen:
            raise Unreadable(f"the key {shortly(name)} stands twice in one object", "keep one of the two")
        seen.add(name)
    return dict(pairs)


def _whole_number(digits: str) -> int:
    # Others read a number as a double, and Python itself reads no more than some thousand digits.
    if math.isinf(float(digits)):
        raise Unreadable(f"a number of {len(digits)} digits is too large", "write a smaller one, or a text")
    return int(digits)


def _finite_number(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise Unreadable(f"the number {digits[:40]} is too large", "write a smaller one, or a text")
    return value


def _no_number(name: str) -> Any:
    raise Unreadable(f"{name} is no JSON", "write a number or null")


def texts_in(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """All texts of a JSON value, keys too, each with the path to it, such as messages[0].content."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from texts_in(part, f"{where}[{i}]")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield where, key
            yield from texts_in(part, f"{where}.{key}" if where else key)


def composed(value: Any) -> Any:
    """A JSON value with every text and key in Unicode's composed form (NFC): an accent typed apart equals one
    typed together.

    Raises:
        Unreadable: more marks are piled on one letter than any language does.
    """
    if isinstance(value, str):
        if value.isascii():
            return value
        if piled := _PILED_MARKS.search(value):
            raise Unreadable(
                f"more than 30 marks on one letter (character {piled.start() + 1}): {shortly(value)}",
                "remove them",
            )
        return unicodedata.normalize("NFC", value)
    if isinstance(value, list):
        return [composed(part) for part in value]
    if isinstance(value, dict):
        return {composed(key): composed(part) for key, part in value.items()}
    return value


def text_fault(text: str) -> str | None:
    """What is wrong with a text that a person, a teacher or a client sends; None where nothing is."""
    if not text:
        return "is empty"
    if found := no_text_in(text):
        return f"holds {found}, which is no text"
    if not _INVISIBLE.sub("", text):
        return f"says nothing that can be seen: {_characters(text, _INVISIBLE)}"
    if piled := _PILED_MARKS.search(text):
        return f"has more than 30 marks on one letter (character {piled.start() + 1})"
    return None


def no_text_in(text: str) -> str:
    """The characters of a text that are no text, such as NUL, as a message names them; "" without any."""
    return _characters(text, _NO_TEXT)


def _characters(text: str, pattern: regex.Pattern[str]) -> str:
    """The characters that match, each by code, name and position; the first few of many."""
    found = [
        f"{named_character(m[0])} (character {m.start() + 1})"
        for m in islice(pattern.finditer(text), NAMED_FAULTS)
    ]
    if len(found) == NAMED_FAULTS and (more := pattern.subn("", text)[1] - NAMED_FAULTS):
        found.append(f"{more} more")
    return ", ".join(found)


def named_character(character: str) -> str:
    """A character as a message shows it: U+200B ZERO WIDTH SPACE."""
    kinds = {"Cc": "CONTROL CHARACTER", "Cs": "LONE SURROGATE", "Cn": "NONCHARACTER"}
    kind = kinds.get(unicodedata.category(character), "WITHOUT A NAME")
    return f"U+{ord(character):04X} {_CONTROLS.get(character) or unicodedata.name(character, kind)}"


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The lines of a file, as `json_rows` reads them."""
    return json_rows(path.read_bytes())


def json_rows(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (line, value), composed, for each line that is not empty; in place of a value that cannot be read
    stands the `Unreadable` that says why.

    A line ends with LF alone: what else Unicode calls a line end is data inside a text.
    """
    if raw.startswith(BYTE_ORDER_MARK):
        yield 1, Unreadable("begins with a byte-order mark", "save the file as UTF-8 without BOM")
        raw = raw.removeprefix(BYTE_ORDER_MARK)
    if b"\r" in raw:
        first = raw[: raw.index(b"\r")].count(b"\n") + 1
        yield (
            first,
            Unreadable(
                "carriage return (Windows line end)",
                "save the file with LF line ends, so that hashes agree everywhere",
            ),
        )
    if b"\0" in raw:
        yield (
            raw[: raw.index(b"\0")].count(b"\n") + 1,
            Unreadable("holds NUL bytes: it is UTF-16, or damaged", "save the file as UTF-8"),
        )
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.strip(b"\r") and b"\0" not in line:
            yield number, _value_of(line)


def _value_of(line: bytes) -> Any:
    try:
        return composed(strict_json(line.decode("utf-8")))
    except UnicodeDecodeError as error:
        byte = line[error.start : error.start + 1]
        return Unreadable(f"byte {byte!r} is not UTF-8", "save the file as UTF-8")
    except Unreadable as fault:
        return Unreadable(f"{fault.where}: {fault.what}" if fault.where else fault.what, fault.remedy)


def plain_message(message: Any) -> dict[str, str]:
    """A message of the OpenAI form as the role and the text that a model reads: `developer` is system, parts
    are joined, and an assistant's calls are written as the answer that is taught.

    Raises:
        Unreadable: its `where` is the key that is wrong.
    """
    if not isinstance(message, dict):
        raise Unreadable(f"message {shortly(message)} is no JSON object", "write role and content")
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if not isinstance(role, str) or role not in ROLES:
        raise Unreadable(f"role {shortly(role)} is unknown", f"use {', '.join(ROLES)}", "role")
    if calls is None or calls == []:
        text = _content_text(content)
    elif role != "assistant":
        raise Unreadable(f"tool_calls of the role {role}", "only an assistant calls", "tool_calls")
    elif content and not (isinstance(content, str) and not content.strip()):
        raise Unreadable(
            f"content {shortly(content)} beside tool_calls", "an answer is one of the two", "content"
        )
    else:
        text = answer_of_calls(calls)
    text = text.replace("\r\n", "\n")  # as browsers and Windows send the end of a line
    if fault := text_fault(text):
        raise Unreadable(
            f"content {shortly(text)} {fault}", "every message says something in text", "content"
        )
    return {"role": ROLES[role], "content": text}


def order_fault(roles: list[str], answered: bool = False) -> Unreadable | None:
    """What is wrong with the order of a conversation, by its roles as `plain_message` gives them; None where
    nothing is.

    Args:
        answered: whether it must end in the assistant's answer, or must not.
    """
    if (roles[-1] == "assistant") != answered:
        wanted = "must end in an assistant message" if answered else "must not end in an assistant message"
        return Unreadable(f"the last role is {roles[-1]!r}", f"this conversation {wanted}")
    asked = roles[:-1] if answered else roles
    if "user" not in asked or asked[-1] not in ("user", "tool"):
        return Unreadable(
            "no user message before the answer", "the answer follows a user message, or what a tool said"
        )
    return None


def _content_text(content: Any) -> str:
    """Content as one text: a text, or parts of the type text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise Unreadable(f"content {shortly(content)} is no text", "every message says something", "content")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            named = f"type {shortly(kind)}" if isinstance(kind, str) else shortly(part)
            raise Unreadable(f"content has a part of {named}", 'only {"type": "text", …} is read', "content")
        if not isinstance(part.get("text"), str):
            raise Unreadable(f"content has a part {shortly(part)} without text", "give it a text", "content")
    # A letter may stand in one part, and its accent in the next.
    return composed("".join(part["text"] for part in content))


def answer_of_calls(tool_calls: Any) -> str:
    """Calls as the answer that is taught, compact JSON: one call as {"name":…,"arguments":{…}}, several as a
    list of these.

    Raises:
        Unreadable: a call without a name, or whose arguments are no JSON object.
    """
    if not isinstance(tool_calls, list) or not tool_calls:
        raise Unreadable(
            f"tool_calls {shortly(tool_calls)} is no list of calls", "give at least one call", "tool_calls"
        )
    calls = [_call(call) for call in tool_calls]
    text = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False, separators=(",", ":"))
    try:
        _limit_depth(text)  # a call stands one level deeper in the answer, and one of several two
    except Unreadable as fault:
        raise Unreadable(f"arguments: {fault.what}", fault.remedy, "tool_calls") from None
    return text


def _call(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or text_fault(name):
        raise Unreadable(
            f"the call {shortly(call)} names no function",
            'write {"type": "function", "function": {"name": …, "arguments": …}}',
            "tool_calls",
        )
    arguments = function.get("arguments")
    try:
        arguments = composed(strict_json(arguments) if isinstance(arguments, str) else arguments)
    except Unreadable as fault:
        raise Unreadable(f"arguments of {shortly(name)}: {fault.what}", fault.remedy, "tool_calls") from None
    if not isinstance(arguments, dict):
        raise Unreadable(
            f"arguments {shortly(arguments)} of {shortly(name)} are no JSON object",
            "write {} for none",
            "tool_calls",
        )
    for _, text in texts_in(arguments):
        if found := no_text_in(text):
            raise Unreadable(f"arguments of {shortly(name)} hold {found}", "remove it", "tool_calls")
    return {"name": composed(name), "arguments": arguments}
