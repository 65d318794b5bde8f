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
from collections.abc import Container, Iterator
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


def slots_of(answer: str, by: str | None) -> list[tuple[Slot, str]]:
    """Texts in an answer, each with its slot; none if the answer is not JSON."""
    try:
        value = strict_json(answer)
    except Unreadable:
        return []
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
    says a value twice, or not at all, keeps that value.
    """
    slots, draw, made = open_slots(records, settings.by), random.Random(seed), []
    said_words = {word for r in (*records, *unlabelled) for word in _plain_words(r.text)}
    pool = sorted(said_words - closed_words(records, settings.by, slots))
    # Where all labels are in lower case, so is what is copied into new ones.
    lower = {slot for slot, values in slots.items() if all(value == value.lower() for _, value in values)}
    for record in records:
        said_in = slots_of(record.answer, settings.by)
        found = [
            (slot, at) for slot, value in said_in if slot in slots and (at := find_once(record.text, value))
        ]
        found.sort(key=lambda pair: pair[1].start())
        if not found or any(a[1].end() > b[1].start() for a, b in itertools.pairwise(found)):
            continue
        asked = max(i for i, m in enumerate(record.prompt) if m["role"] == "user")
        for number in range(settings.variations):
            request, new = record.text, json.loads(record.answer)
            for slot, at in reversed(found):
                said, value = draw.choice(slots[slot])
                if pool and draw.random() < UNSEEN:
                    said = _replaced(said, pool, draw)
                    value = said.lower() if slot in lower else said
                request = request[: at.start()] + said + request[at.end() :]
                put(new, slot[1], value)
            text = json.dumps(new, ensure_ascii=False, separators=(",", ":"))
            messages = [*record.prompt, {"role": "assistant", "content": text}]
            messages[asked] = {"role": "user", "content": request}
            made.append(Record(f"{record.id}-{number + 1}", messages, record.tags, tools=record.tools))
    return made
