"""The one definition of text, for every script: what a word is, and when two texts say the same.

Words are letters with their marks, and numbers. Signs and emoji that change the meaning count as words: "12 +
7" is not "12 - 7", and thumbs up is not thumbs down. Thai, Lao, Khmer and Burmese are written without blanks:
ICU's dictionaries find their words (Unicode Standard Annex 29, by icu4py). Chinese and Japanese are compared
by characters. Classes of characters are those of the library regex.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import regex
from icu4py.breakers import WordBreaker

from slm.task.strict import Unreadable, composed, named_character

# Zero-width characters, variation selectors, fillers: no reader sees them. A joiner within an emoji and the
# tags behind a flag make another sign, so they stay.
_UNSEEN = regex.compile(
    r"(?!\u200D\p{Extended_Pictographic})"
    r"(?!(?<=\U0001F3F4[\U000E0020-\U000E007F]{0,7})[\U000E0020-\U000E007F])"
    r"\p{Default_Ignorable_Code_Point}"
)
_EMOJI = (
    r"\p{RI}\p{RI}|\p{Extended_Pictographic}\p{EMod}?"
    r"(?:\u200D\p{Extended_Pictographic}\p{EMod}?|[\U000E0020-\U000E007F])*"
)
_NUMBER_OR_WORD = (
    r"(?:(?<![\p{L}\p{M}\p{N}_])\.(?=\p{Nd}))?"
    r"[\p{L}\p{M}\p{N}_]+(?:(?<=\p{Nd})[.,٫٬](?=\p{Nd})[\p{L}\p{M}\p{N}_]+)*"
)
# A hyphen is a sign before a number or an amount of money, but not inside a word, and between blanks after a
# number. Other punctuation changes no meaning, but for "!=" and the faces :) and :(.
_SIGN = (
    r"!(?==)|[:;]-?[()DP](?!\w)|[\p{Sm}\p{Sc}\p{So}^#%‰٪&@*/\\]|(?<=\p{N}\s)-(?=\s)"
    r"|(?<![[\p{L}\p{M}]--[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Han}\p{Hiragana}\p{Katakana}]])"
    r"-(?=\s*[\p{N}\p{Sc}])"
)
_TOKEN = regex.compile(f"{_EMOJI}|{_NUMBER_OR_WORD}|{_SIGN}", regex.V1)
_SCORED = regex.compile(rf"{_EMOJI}|[\p{{L}}\p{{M}}\p{{N}}]+")
_DASHES = regex.compile(r"[\u2010-\u2015\u2212\uFE58\uFE63\uFF0D]")
_BY_DICTIONARY = regex.compile(r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_BY_CHARACTER = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}ー]")
_PART = regex.compile(
    r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{M}]+|[\p{Han}\p{Hiragana}\p{Katakana}ー]\p{M}*"
    r"|[^\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Han}\p{Hiragana}\p{Katakana}ー]+"
)
WORD_CHARACTER = r"[\p{L}\p{M}\p{N}_]"
# Three words are about four characters of Chinese or Japanese.
CHARACTERS_PER_WORD = 4 / 3


def nfc(text: str) -> str:
    """Unicode's composed form: an accent typed apart equals one typed together. A text that piles more marks
    on a letter than any language does stays as it is: to compose it would take minutes.
    """
    try:
        return composed(text)
    except Unreadable:
        return text


def folded(text: str) -> str:
    """As texts are compared: composed, without letter case and without what nobody sees."""
    return nfc(_UNSEEN.sub("", nfc(text).casefold()))


def graphemes(text: str) -> list[str]:
    """What a reader takes for one character each."""
    return regex.findall(r"\X", text)


@lru_cache(maxsize=4096)
def _by_dictionary(text: str) -> tuple[str, ...]:
    return tuple(WordBreaker(text, "en"))


def script_parts(token: str) -> Iterable[str]:
    """A token of one script is one unit; of scripts without blanks, a word or a character is."""
    if not _BY_DICTIONARY.search(token) and not _BY_CHARACTER.search(token):
        return (token,)
    found: list[str] = []
    for part in _PART.findall(token):
        found += _by_dictionary(part) if _BY_DICTIONARY.search(part) else (part,)
    return found


def units(text: str) -> list[str]:
    """What two texts are compared by: words and signs; of Chinese and Japanese, characters."""
    plain = _DASHES.sub("-", folded(text))
    return [part for token in _TOKEN.findall(plain) for part in script_parts(token)]


def words(text: str) -> list[str]:
    """The words of a text as a person counts them, in any script (ICU)."""
    return [part for part in _by_dictionary(nfc(text)) if regex.search(r"[\p{L}\p{N}]", part)]


def scored_units(text: str) -> list[str]:
    """What figures of text count: words, numbers, emoji, characters of Chinese and Japanese. Of a text that
    has none of these, all that is no blank.
    """
    plain = folded(text)
    found = [part for token in _SCORED.findall(plain) for part in script_parts(token)]
    return found or [c for c in graphemes(plain) if not c.isspace()]


def normal(text: str) -> str:
    """What decides whether two requests are the same. A text without words and signs is what it is."""
    return " ".join(units(text)) or folded(text).strip()


def runs(text: str, n: int) -> list[tuple[str, ...]]:
    """All runs of n words, or of as many characters as n words have where a script has no blanks. None in a
    shorter text.
    """
    found = units(text)
    if sum(bool(_BY_CHARACTER.match(unit)) for unit in found) > len(found) / 2:
        n = round(n * CHARACTERS_PER_WORD)
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def bounded(texts: Iterable[str], attached: str = "") -> str:
    """A pattern that finds one of these texts where it is a whole word.

    Scripts without blanks have no bounds to look for.

    Args:
        attached: classes of more scripts to look for within words, such as those that join particles to them.
    """
    open_script = (
        rf"[\p{{Thai}}\p{{Lao}}\p{{Khmer}}\p{{Myanmar}}\p{{Han}}\p{{Hiragana}}\p{{Katakana}}{attached}]"
    )
    before = rf"(?<!(?!{open_script}){WORD_CHARACTER})"
    after = rf"(?!(?!{open_script}){WORD_CHARACTER})"
    found = []
    for text in texts:
        begins, ends = (not regex.match(open_script, edge) for edge in (text[:1], text[-1:]))
        number = (r"(?<!\p{N}[.,٫٬])", r"(?![.,٫٬]\p{N})")
        left = (before if begins else "") + (number[0] if regex.match(r"\p{N}", text) else "")
        right = (after if ends else "") + (number[1] if regex.search(r"\p{N}$", text) else "")
        found.append(f"{left}{regex.escape(text)}{right}")
    return "|".join(found)


def stands_in(quoted: str, text: str) -> bool:
    """Whether a text says these very words: as they are written, or but for punctuation and letter case.
    Korean, Hebrew and Arabic join particles to a word.
    """
    whole, part = (" ".join(folded(t).split()) for t in (text, quoted))
    if part and regex.search(bounded([part], r"\p{Hangul}\p{Hebrew}\p{Arabic}"), whole):
        return True
    said = normal(quoted)
    return bool(said) and f" {said} " in f" {normal(text)} "


def script_of(text: str) -> str:
    """How most letters of a text are written: "latin", "chinese", "unspaced" (no blanks between words),
    "other".
    """
    kinds = Counter(
        "unspaced"
        if _BY_DICTIONARY.match(c) or regex.match(r"[\p{Hiragana}\p{Katakana}ー]", c)
        else "chinese"
        if _BY_CHARACTER.match(c)
        else "latin"
        if regex.match(r"\p{Latin}", c)
        else "other"
        for c in text
        if c.isalpha()
    )
    if kinds["unspaced"] and kinds["chinese"]:  # Japanese
        kinds["unspaced"] += kinds.pop("chinese")
    return kinds.most_common(1)[0][0] if kinds else "latin"


def unusual(text: str) -> str:
    """Characters that look like others or like nothing, each by its name: of another script than most of the
    text's letters, or unseen. Empty where there is none.
    """
    scripts = [_script(c) for c in text if c.isalpha()]
    main = max(set(scripts), key=scripts.count) if scripts else ""
    found = [
        c
        for c in dict.fromkeys(text)
        if _UNSEEN.match(c) or (c.isalpha() and _script(c) != main) or (c.isspace() and c not in " \n\t")
    ]
    return ", ".join(map(named_character, found[:5]))


def _script(character: str) -> str:
    """The first word of a letter's name, such as LATIN or CYRILLIC; one for those that Japanese mixes."""
    name = unicodedata.name(character, "?").split()[0]
    return "CJK" if name in ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else name
