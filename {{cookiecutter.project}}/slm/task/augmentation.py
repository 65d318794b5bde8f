"""More labelled examples out of those that there are: the values that answers copy from requests change
places.

"remind me to water the ferns" and "remind me to call the plumber on Friday" make "remind me to call the
plumber" and "remind me to water the ferns on Friday", with the labels to match: entity replacement, one of
the simple augmentations that still help where labels are few (Dai and Adel, COLING 2020, arXiv 2010.11683).
Every other time the words themselves are any words of the task's requests: what a model must learn here is to
copy what it has never seen in this place, and a small one takes a name that it knows for one that it does
not.
"""

import itertools
import json
import random
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from typing import Any

import regex

from slm.config.params import Augment
from slm.task.records import Record
from slm.task.strict import Unreadable, strict_json
from slm.task.text import bounded, script_of, units, words

# A field is open, its values free text, if so many different ones were copied, and so large a share of all.
# Rooms and states are not.
DISTINCT, COPIED = 20, 0.5
UNSEEN = 0.5  # share of values that are any words
SPACED = ("latin", "other")  # scripts with blanks between words
Path = tuple[str | int, ...]
Slot = tuple[Any, Path]  # the kind of answer, and where it holds the text


def texts(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Texts in an answer, each with where it stands."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts(inner, (*path, key))


def _json_of(text: str) -> Any:
    """What a text holds; nothing if it is not JSON."""
    try:
        return strict_json(text)
    except Unreadable:
        return None


def slots_of(answer: str, by: str | None) -> list[tuple[Slot, str]]:
    """Texts in an answer, each with its slot; none if the answer is not JSON."""
    value = _json_of(answer)
    name = value.get(by) if isinstance(value, dict) else None
    kind = name if isinstance(name, str) else None
    return [((kind, path), text) for path, text in texts(value) if path]


def find_once(request: str, value: str) -> regex.Match[str] | None:
    """Where a request says a value, if just once."""
    found = list(regex.finditer(bounded([value]), request, regex.IGNORECASE)) if value else []
    return found[0] if len(found) == 1 else None


def open_slots(records: list[Record], by: str | None) -> dict[Slot, list[tuple[str, str]]]:
    """Fields of free text, each with its different values: as requests write them, as answers do."""
    seen: dict[Slot, int] = defaultdict(int)
    copied: dict[Slot, list[tuple[str, str]]] = defaultdict(list)
    for record in records:
        for slot, value in slots_of(record.answer, by):
            seen[slot] += 1
            if found := find_once(record.text, value):
                copied[slot].append((found[0], value))
    return {
        s: sorted(set(v))
        for s, v in copied.items()
        if len({value for _, value in v}) >= DISTINCT and len(v) >= COPIED * seen[s]
    }


def closed_words(records: list[Record], by: str | None, open_ones: Container[Slot]) -> set[str]:
    """Words of values that are not open, such as rooms and states. A request that said one of them at random
    would contradict its label.
    """
    closed = {value for r in records for slot, value in slots_of(r.answer, by) if slot not in open_ones}
    named = {
        word for value in closed for word in (value, *_plain_words(value), *units(value.replace("_", " ")))
    }
    return {form for word in named for form in (word, word.lower(), word.capitalize(), word.upper())}


def word_pools(
    records: list[Record], unlabelled: list[Record], by: str | None, slots: dict[Slot, list[tuple[str, str]]]
) -> dict[Slot, list[str]]:
    """Words that a value of each slot may be replaced by: those of its own values, and those of any request.

    A word is left out where it could say another field than this one: words of closed values, of other open
    fields, and of requests whose answer holds a number or a boolean, which are said in words of their own.
    """
    closed = {word.casefold() for word in closed_words(records, by, slots)}
    own = {slot: _words_of(said for said, _ in values) for slot, values in slots.items()}
    counted = {w.casefold() for r in records if _counts(_json_of(r.answer)) for w in _around(r, by, slots)}
    said = _words_of(r.text for r in (*records, *unlabelled))
    pools = {}
    for slot in slots:
        others = {other: {w.casefold() for w in found} for other, found in own.items() if other != slot}
        beside = set().union(*(found for other, found in others.items() if other[0] == slot[0]))
        elsewhere = counted.union(*others.values())
        inside = {word for word in own[slot] if word.casefold() not in beside}
        anywhere = {word for word in said if word.casefold() not in elsewhere}
        pools[slot] = sorted(word for word in inside | anywhere if word.casefold() not in closed)
    return pools


def _words_of(said: Iterable[str]) -> set[str]:
    return {word for text in said for word in _plain_words(text)}


def _counts(value: Any) -> bool:
    """Whether a value is a number or a boolean, or holds one."""
    if isinstance(value, dict | list):
        return any(map(_counts, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float)


def _around(record: Record, by: str | None, open_ones: Container[Slot]) -> list[str]:
    """Words of a request outside its open values."""
    request = record.text
    for slot, value in slots_of(record.answer, by):
        if slot in open_ones and (at := find_once(request, value)):
            request = f"{request[: at.start()]} {request[at.end() :]}"
    return _plain_words(request)


def stands_elsewhere(record: Record, path: Path, value: str) -> bool:
    """Whether a value also stands in another text of the answer, or in another message: these would keep the
    old value.
    """
    asked = _asked(record)
    others = [text for i, m in enumerate(record.prompt) if i != asked for text in _said_in(m["content"])]
    others += [text for at, text in texts(_json_of(record.answer)) if at != path]
    wanted = regex.compile(bounded([_joined(value)]))
    return any(wanted.search(_joined(text)) for text in others)


def _asked(record: Record) -> int:
    """The message that is the request."""
    return max(i for i, m in enumerate(record.prompt) if m["role"] == "user")


def _said_in(content: str) -> list[str]:
    """A message, and the texts in it if it is JSON, which may write them with escapes."""
    return [content, *(text for _, text in texts(_json_of(content)))]


def _joined(text: str) -> str:
    """Small letters, and one blank for all between words: "water_ferns" is "water ferns"."""
    return regex.sub(r"[\W_]+", " ", text).strip().casefold()


def _plain_words(text: str) -> list[str]:
    """Words of three letters or more; all of them in scripts that put no blanks between words."""
    found = regex.findall(r"[\p{L}\p{M}]+", text)
    return [
        part
        for word in found
        for part in ((word,) if script_of(word) in SPACED else words(word))
        if len(part) >= 3 or script_of(word) not in SPACED
    ]


def _replaced(said: str, pool: list[str], draw: random.Random) -> str:
    """As many words of the pool as a value has."""
    spaced = script_of(said) in SPACED
    count = len(said.split()) if spaced else len(words(said))
    return (" " if spaced else "").join(draw.choice(pool) for _ in range(count))


def put(answer: Any, path: Path, value: str) -> None:
    for key in path[:-1]:
        answer = answer[key]
    answer[path[-1]] = value


def vary(records: list[Record], unlabelled: list[Record], settings: Augment, seed: int) -> list[Record]:
    """`settings.variations` of each labelled example that has open fields: all of these get values of other
    examples, or as many words of any requests.

    Deterministic for a seed. Answers are written compactly, as labelled ones are; an example whose request
    says a value twice, or not at all, keeps that value. So does one whose answer, or whose other messages,
    say it once more.
    """
    slots, draw, made = open_slots(records, settings.by), random.Random(seed), []
    pools = word_pools(records, unlabelled, settings.by, slots)
    # Where all labels are in lower case, so is what is copied into new ones.
    lower = {slot for slot, values in slots.items() if all(value == value.lower() for _, value in values)}
    for record in records:
        said_in = slots_of(record.answer, settings.by)
        found = [
            (slot, at)
            for slot, value in said_in
            if slot in slots
            and (at := find_once(record.text, value))
            and not stands_elsewhere(record, slot[1], value)
        ]
        found.sort(key=lambda pair: pair[1].start())
        if not found or any(a[1].end() > b[1].start() for a, b in itertools.pairwise(found)):
            continue
        asked = _asked(record)
        for number in range(settings.variations):
            request, new = record.text, json.loads(record.answer)
            for slot, at in reversed(found):
                said, value = draw.choice(slots[slot])
                if pools[slot] and draw.random() < UNSEEN:
                    said = _replaced(said, pools[slot], draw)
                    value = said.lower() if slot in lower else said
                request = request[: at.start()] + said + request[at.end() :]
                put(new, slot[1], value)
            text = json.dumps(new, ensure_ascii=False, separators=(",", ":"))
            messages = [*record.prompt, {"role": "assistant", "content": text}]
            messages[asked] = {"role": "user", "content": request}
            made.append(Record(f"{record.id}-{number + 1}", messages, record.tags, tools=record.tools))
    return made
