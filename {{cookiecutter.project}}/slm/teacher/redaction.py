"""Takes secrets out of what a server sends, in each form in which it may write them.

A server that got a key can send it back whole, cut off, encoded, reversed or wrapped over lines. Two steps
find it: the text is read as one without escapes and line breaks, and the forms of each secret are looked up
in that. What is found is replaced where it stands in the text as it came.
"""

import base64
import re
from collections.abc import Iterator
from string import ascii_lowercase, ascii_uppercase
from typing import Any

REDACTED = "[the endpoint's key]"
LEAST = 8  # characters from the beginning or the end of a secret that give it away
INSIDE = 16  # characters from its middle that do
# Line breaks with the blanks around them, as such or as `\n`; characters that nobody sees.
# The look-behinds let a search begin where blanks or backslashes begin: its time stays linear.
BREAK = r"(?:\r?\n|(?<!\\)(?:\\+r)?\\+n)[ \t]*"
UNSEEN_SIGNS = r"[\u00ad\u200b-\u200f\u2060\ufeff]"
WRAP = rf"(?<![ \t])[ \t]*(?:{BREAK})+|{UNSEEN_SIGNS}+"
ESCAPED = re.compile(
    rf"(?P<wrap>{WRAP})"
    r"|(?<!\\)\\+(?:u(?P<u>[0-9a-f]{4})|x(?P<x>[0-9a-f]{2})|(?P<itself>[/\"']))|\\(?P<slash>\\)"
    r"|%(?:25)*(?P<url>[0-9a-f]{2})"
    r"|&\#x0*(?P<html>[0-9a-f]{1,4});|&\#0*(?P<decimal>[0-9]{1,5});",
    re.IGNORECASE,
)
LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)  # keeps the length of every text


def lowered(text: str) -> str:
    return text.translate(LOWER)


def unescaped(text: str) -> tuple[str, list[int], list[int]]:
    """A text without escapes and line breaks; where each of its characters begins and ends in what came."""
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    done = 0
    for match in [*ESCAPED.finditer(text), None]:
        begin = match.start() if match else len(text)
        pieces.append(text[done:begin])
        starts.extend(range(done, begin))
        ends.extend(range(done + 1, begin + 1))
        if match and (character := character_of(match)):
            pieces.append(character)
            starts.append(begin)
            ends.append(match.end())
        done = match.end() if match else begin
    return "".join(pieces), starts, ends


def character_of(match: re.Match[str]) -> str:
    """What an escape stands for; nothing, in place of a line break and of what nobody sees."""
    code = match["u"] or match["x"] or match["url"] or match["html"]
    if code or match["decimal"]:
        character = chr(int(code, 16) if code else int(match["decimal"]))
    else:
        character = match["itself"] or match["slash"] or ""
    return "" if character in "\r\n" or re.match(UNSEEN_SIGNS, character) else character


def forms_of(secret: str) -> Iterator[tuple[str, int, int]]:
    """Each form of a secret, with how much of its ends and of its middle gives it away."""
    for form in (secret, secret[::-1]):
        yield form, LEAST, INSIDE
    raw = secret.encode()
    yield raw.hex(), 2 * LEAST, 2 * INSIDE
    # Base64 writes three bytes as four characters. What stands before the secret, such as `Bearer `, moves it
    # by up to two bytes. Of characters that hold bits of something else nothing is known.
    for before, first in ((0, 0), (1, 2), (2, 3)):
        whole = (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            written = encode(bytes(before) + raw).decode()[first:whole]
            yield written, LEAST * 8 // 6, INSIDE * 8 // 6


class Secrets:
    """Secrets of this run, and a text without them.

    Of a secret of fewer than 8 characters only the whole word is known, and only if it has a digit: servers
    that need no key are given words such as `none` or `EMPTY`, which answers hold too.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._ends: set[tuple[str, int]] = set()
        self._inside: dict[int, set[str]] = {}
        self._words: list[re.Pattern[str]] = []

    def add(self, secret: str) -> None:
        if secret in self._known:
            return
        self._known.add(secret)
        if len(secret) < LEAST:
            if re.search(r"\d", secret):
                self._words.append(re.compile(rf"(?<!\w){re.escape(lowered(secret))}(?!\w)"))
            return
        for form, least, inside in forms_of(secret):
            form = lowered(form)
            self._ends.add((form, least))
            grams = self._inside.setdefault(inside, set())
            grams.update(form[i : i + inside] for i in range(len(form) - inside + 1))

    def redacted(self, value: Any) -> Any:
        """A JSON value without the secrets, wherever in it they stand."""
        if isinstance(value, str):
            return self._without(value)
        if isinstance(value, list):
            return [self.redacted(v) for v in value]
        if isinstance(value, dict):
            return {self.redacted(k): self.redacted(v) for k, v in value.items()}
        return value

    def _without(self, text: str) -> str:
        if len(text) < LEAST and not self._words:
            return text
        spans = list(self._found(lowered(text)))
        if ESCAPED.search(text):
            plain, starts, ends = unescaped(text)
            spans += [(starts[start], ends[end - 1]) for start, end in self._found(lowered(plain))]
        parts, done = [], 0
        for start, end in sorted(spans):
            if start >= done:
                parts += [text[done:start], REDACTED]
            done = max(done, end)
        return "".join([*parts, text[done:]]) if parts else text

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        for word in self._words:
            yield from (match.span() for match in word.finditer(text))
        backwards = text[::-1]
        for form, least in self._ends:
            yield from _heads(text, form, least)
            for start, end in _heads(backwards, form[::-1], least):
                yield len(text) - end, len(text) - start
        for size, grams in self._inside.items():
            for run in re.finditer(rf"\S{{{size},}}", text):
                for i in range(run.start(), run.end() - size + 1):
                    if text[i : i + size] in grams:
                        yield i, i + size


def _heads(text: str, form: str, least: int) -> Iterator[tuple[int, int]]:
    """Where the beginning of a form stands, as far as it goes on."""
    start = text.find(form[:least])
    while start >= 0:
        end = start + least
        while end < len(text) and end - start < len(form) and text[end] == form[end - start]:
            end += 1
        yield start, end
        start = text.find(form[:least], end)
