"""How near requests are to each other: copies, copies with a typo, nearest records of another split."""

import pandas as pd
import regex
from sklearn.feature_extraction.text import TfidfVectorizer

from slm.task.records import Record
from slm.task.text import graphemes, normal, runs, units

LONG = 200  # characters of a text above which one typo leaves most of its runs of words alone
NEAR = 0.7  # Jaccard similarity of runs of three words above which two requests count as the same
LONG_WORD = 5  # characters; a change in a shorter word makes another word


def grams(text: str) -> set[tuple[str, ...]]:
    """Runs of three words; of a shorter text, all of it."""
    return set(runs(text, 3)) or {tuple(units(text)) or (normal(text),)}


def typos(text: str) -> set[str]:
    """A short text, and it with any one character of a long word left out: two texts that differ by one typo
    (a character missing, added, changed, or swapped with its neighbour) share one of these. Short words and
    numbers stay: 7 am and 7 pm, 20 and 21 are no typo. Nor is one character of Chinese or Japanese.
    """
    plain = normal(text)
    found = {plain}
    if len(plain) > LONG:  # runs of words find its copies
        return found
    said = units(text)
    for place, word in enumerate(said):
        letters = graphemes(word)
        if len(letters) < LONG_WORD or not regex.fullmatch(r"[\p{L}\p{M}]+", word):
            continue
        for i in range(len(letters)):
            shorter = "".join((*letters[:i], *letters[i + 1 :]))
            found.add(" ".join((*said[:place], shorter, *said[place + 1 :])))
    return found


class Index:
    """Finds the record whose runs of three words overlap most (Jaccard). A copy with one typo counts as the
    same.
    """

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
    vectorizer = TfidfVectorizer(
        tokenizer=lambda text: units(text) or [normal(text)],
        token_pattern=None,
        ngram_range=(1, 2),
        sublinear_tf=True,
    )
    known = vectorizer.fit_transform([r.asked for r in reference])
    nearest = (vectorizer.transform([r.asked for r in asked]) @ known.T).max(axis=1).toarray().ravel()
    series = pd.Series(nearest)
    return {
        "mean": float(series.mean()),
        "p50": float(series.median()),
        "p95": float(series.quantile(0.95)),
        "max": float(series.max()),
    }
