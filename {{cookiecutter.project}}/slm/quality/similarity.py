"""How near requests are to each other: copies, copies with a typo, nearest records of another split."""

import re

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from slm.task.answers import normal
from slm.task.records import Record

LONG = 200  # letters of a text above which one typo leaves most of its word 3-grams alone
NEAR = 0.7  # word 3-gram Jaccard above which two requests count as the same


def grams(text: str) -> set[tuple[str, ...]]:
    words = normal(text).split()
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def typos(text: str) -> set[str]:
    """A short text, and it with any one letter of a long word left out: two texts that differ by one typo (a
    letter missing, added, changed, or swapped with its neighbour) share one of these. Short words and numbers
    stay: 7 am and 7 pm, 20 and 21 are no typo.
    """
    plain = normal(text)
    if len(plain) > LONG:  # word 3-grams find its copies
        return {plain}
    words = [m.span() for m in re.finditer(r"[^\W\d_]{5,}", plain)]
    return {plain} | {plain[:i] + plain[i + 1 :] for start, end in words for i in range(start, end)}


class Index:
    """Finds the record whose word 3-grams overlap most (Jaccard); a copy with one typo counts as the same."""

    def __init__(self, named: list[tuple[str, str]]) -> None:
        self._grams = [(name, grams(text)) for name, text in named]
        self._typos: dict[str, int] = {}
        for i, (_, text) in enumerate(named):
            for typo in typos(text):
                self._typos.setdefault(typo, i)
        self._where: dict[tuple[str, ...], list[int]] = {}
        for i, (_, found) in enumerate(self._grams):
            for gram in found:
                self._where.setdefault(gram, []).append(i)

    def nearest(self, text: str, before: int | None = None) -> tuple[str | None, float]:
        """The nearest record's name and similarity; `before` looks only at that many first records."""
        same = min((self._typos[t] for t in typos(text) if t in self._typos), default=None)
        if same is not None and (before is None or same < before):
            return self._grams[same][0], 1.0
        mine = grams(text)
        best: tuple[str | None, float] = (None, 0.0)
        for i in {i for gram in mine for i in self._where.get(gram, ())}:
            if before is not None and i >= before:
                continue
            name, other = self._grams[i]
            similarity = len(mine & other) / len(mine | other)
            if similarity > best[1]:
                best = (name, similarity)
        return best


def similarity(reference: list[Record], asked: list[Record]) -> dict[str, float]:
    """How near the nearest record of `reference` is to each of `asked`: cosine of TF-IDF over words and word
    pairs.
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    known = vectorizer.fit_transform([r.asked for r in reference])
    nearest = (vectorizer.transform([r.asked for r in asked]) @ known.T).max(axis=1).toarray().ravel()
    series = pd.Series(nearest)
    return {
        "mean": float(series.mean()),
        "p50": float(series.median()),
        "p95": float(series.quantile(0.95)),
        "max": float(series.max()),
    }
