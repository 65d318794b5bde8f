"""Leaks: held-out requests that stand in what a model learns from, as they are or hidden.

A near copy is symmetric (slm/quality/similarity.py). A leak is not: a held-out request stands whole in a
longer message, twice, with words between its words, or in another order. Honest requests contain short ones
too. So what counts is how much of the request is there, how close together, and how rare its words are. Texts
are compared as they look: letters in their usual width, look-alikes of Latin letters as these (Unicode
Technical Standard 39, by confusable_homoglyphs).

The limits below come from training against validation requests of the default task and from two public sets.
"""

import math
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from functools import cache, lru_cache
from typing import NamedTuple

from confusable_homoglyphs.confusables import confusables_data

from slm.quality.similarity import NEAR, Index
from slm.task.records import Record
from slm.task.text import units

# A word of 1 in 1024 or fewer counts 10 bits: a held-out set of some hundred requests cannot tell rarer ones.
RAREST = 1024
COVERED = 0.9  # of a request's bits that must be there
IN_ORDER = 0.9  # of its words that must stand in its order, unless there is nothing between them
CLOSE = 0.4  # words of the request for each word where it stands; one filler after each word gives 0.5
DENSE = 0.9  # the same for a request in another order
# Bits that a request must have. Below, honest requests say the same: "lock the door" is 20 to 30 bits.
ALONE = 20  # where all that was asked says nothing else
HIDDEN = 30  # where it stands in something longer, be it one turn of several, or the answer
CERTAIN = 60  # where it stands whole in a longer message, and chance is no explanation


class Leak(NamedTuple):
    """
    name: the held-out record, as file:line.
    kind: a key of LEAK_KINDS.
    certain: whether a single one must be refused. The others happen by chance, in less than 1% of honest
        requests.
    """

    name: str
    kind: str
    certain: bool

    @property
    def said(self) -> str:
        return LEAK_KINDS[self.kind].format(self.name)


LEAK_KINDS = {
    "near": "a near copy of {}",
    "spaced": "the letters of {} with other blanks",
    "alone": "says {} and nothing else",
    "whole": "contains {} whole",
    "between": "contains {} with other words between",
    "order": "has the words of {} in another order",
}


@cache
def _look_alikes() -> dict[int, str]:
    """Letters that look like a Latin one, in either case, each with that letter in lower case."""

    def latin(letter: str) -> str | None:
        alike = (entry["c"] for entry in confusables_data.get(letter, ()))
        return next((c.lower() for c in alike if len(c) == 1 and c.isascii() and c.isalpha()), None)

    letters = (c for c in confusables_data if len(c) == 1 and c.isalpha() and not c.isascii())
    found = {ord(c): latin(c.lower()) or latin(c.upper()) for c in letters}
    return {code: letter for code, letter in found.items() if letter}


def unmasked(text: str) -> str:
    """The text as it looks: letters in their usual form, look-alikes as the Latin letters."""
    return unicodedata.normalize("NFKC", text).translate(_look_alikes())


def _in_order(wanted: list[str], said: list[str]) -> int:
    """The length of the longest common subsequence (Hunt and Szymanski)."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, unit in enumerate(said):
        places[unit].insert(0, place)
    ends: list[int] = []
    for unit in wanted:
        for place in places.get(unit, ()):
            at = bisect_left(ends, place)
            ends[at : at + 1] = [place]
    return len(ends)


class Leaks:
    """Finds held-out requests in records that are trained on. The time is linear in their number: a request
    is looked at where one of its rarest words stands.
    """

    def __init__(self, held_out: list[tuple[str, Record]]) -> None:
        """
        Args:
            held_out: (file:line, record).
        """
        self._names = [name for name, _ in held_out]
        texts = [unmasked(record.asked) for _, record in held_out]
        self._near = Index(list(zip(self._names, texts, strict=True)))
        self._units = [units(text) for text in texts]
        self._bags = [Counter(said) for said in self._units]
        counts = Counter(unit for said in self._units for unit in said)
        total = max(counts.total(), RAREST)
        self._bits = {unit: math.log2(min(total / n, RAREST)) for unit, n in counts.items()}
        self._all_bits = [sum(self._bits[unit] for unit in said) for said in self._units]
        self._spaced = {"".join(said): i for i, said in reversed(list(enumerate(self._units)))}
        self._where: dict[str, list[int]] = {}
        for i, bag in enumerate(self._bags):
            # Without all of these, less than COVERED of the request is there
            left = (1 - COVERED) * self._all_bits[i]
            for unit in sorted(bag, key=lambda unit: (-self._bits[unit], unit)):
                self._where.setdefault(unit, []).append(i)
                left -= self._bits[unit] * bag[unit]
                if left < 0:
                    break
        self._hidden_in = lru_cache(maxsize=64)(self._hidden)  # system messages repeat

    def found_in(self, record: Record) -> Leak | None:
        """The held-out request that stands in any message of a record; a certain leak before others."""
        name, similarity = self._near.nearest(unmasked(record.asked))
        if name is not None and similarity > NEAR:
            return Leak(name, "near", True)
        least = {m["content"]: HIDDEN for m in record.messages} | {record.asked: ALONE}
        found = [leak for text, bits in least.items() if (leak := self._hidden_in(text, bits))]
        return min(found, key=lambda leak: not leak.certain, default=None)

    def _hidden(self, text: str, least: int) -> Leak | None:
        said = units(unmasked(text))
        bag = Counter(said)
        same = self._spaced.get("".join(said))
        if same is not None and self._all_bits[same] >= least and self._bags[same] != bag:
            return Leak(self._names[same], "spaced", True)
        uncertain = None
        for i in sorted({i for unit in bag for i in self._where.get(unit, ())}):
            if self._all_bits[i] < least or self._shared(i, bag) < COVERED * self._all_bits[i]:
                continue
            kind, certain = self._kind(i, said)
            if kind and certain:
                return Leak(self._names[i], kind, True)
            if kind and uncertain is None:
                uncertain = Leak(self._names[i], kind, False)
        return uncertain

    def _shared(self, i: int, bag: Counter[str]) -> float:
        return sum(min(n, bag[unit]) * self._bits[unit] for unit, n in self._bags[i].items()) + 1e-9

    def _kind(self, i: int, said: list[str]) -> tuple[str, bool]:
        """How held-out request i stands in a text that has its words ("" if by chance), and whether that is
        certain.
        """
        wanted, bits = self._units[i], self._all_bits[i]
        if said == wanted * (len(said) // len(wanted)):
            return "alone", True
        if Counter(said) == self._bags[i]:
            return "order", False
        if bits < HIDDEN:
            return "", False
        if f" {' '.join(wanted)} " in f" {' '.join(said)} ":
            return "whole", bits >= CERTAIN
        first, last = self._narrowest(i, said)
        near = said[max(0, first - len(wanted)) : last + len(wanted)]
        close = len(wanted) / (last - first)
        if close >= CLOSE and _in_order(wanted, near) >= IN_ORDER * len(wanted):
            return "between", False
        return ("order" if close >= DENSE else ""), False

    def _narrowest(self, i: int, said: list[str]) -> tuple[int, int]:
        """The shortest part of a text that has COVERED of the request's bits: first and behind the last."""
        wanted, goal = self._bags[i], COVERED * self._all_bits[i] - 1e-9
        have: Counter[str] = Counter()
        bits, first, best = 0.0, 0, (0, len(said))
        for last, unit in enumerate(said, 1):
            if unit not in wanted:
                continue
            have[unit] += 1
            bits += self._bits[unit] if have[unit] <= wanted[unit] else 0
            while bits >= goal:
                if last - first < best[1] - best[0]:
                    best = first, last
                gone = said[first]
                have[gone] -= 1
                bits -= self._bits[gone] if gone in wanted and have[gone] < wanted[gone] else 0
                first += 1
        return best
