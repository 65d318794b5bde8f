"""Numbers as people write them, in any script: "1,200.50", "1.200,50", "1 200,5", "−5", "50 %", "1½", "3/4",
"१२".
"""

import unicodedata
from fractions import Fraction

import regex

LONGEST_NUMBER = 200  # characters; a longer one is compared as text
_SPACES = " \u00a0\u2009\u202f"
_GROUPS = (
    r"[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"
    rf"|[1-9][0-9]{{0,2}}(?:[{_SPACES}'’][0-9]{{3}})+"
)
# Each way to write the amount, with its decimal mark. A comma before exactly three digits parts thousands, as
# in English; a point never does, unless two stand in the number or a comma follows.
_FORMS = (
    (regex.compile(rf"(?:[0-9]+|{_GROUPS})?(?:\.[0-9]+)?"), "."),
    (regex.compile(r"[1-9][0-9]{0,2}(?:\.[0-9]{3})+,[0-9]+|[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}"), ","),
    (regex.compile(rf"(?:[0-9]+|[1-9][0-9]{{0,2}}(?:[{_SPACES}'’][0-9]{{3}})+)?,[0-9]+"), ","),
)
_FRACTION = regex.compile(rf"(?:([0-9]+)[{_SPACES}]+)?([0-9]+)[{_SPACES}]*/[{_SPACES}]*([0-9]+)")
_PERCENT = {"%": 100, "‰": 1000}
_WRITTEN = str.maketrans("٪％٫٬⁄∕−﹣－＋．，‐‑‒–—", "%%.,//---+.,-----")


def number_of(text: str) -> Fraction | None:
    """The value of a text that is one number; None if it is not. 50% is a half."""
    text = "".join(_ascii(c) for c in text.translate(_WRITTEN)).strip()
    if not text or len(text) > LONGEST_NUMBER:
        return None
    divisor = _PERCENT.get(text[-1], 1)
    body = (text[:-1] if divisor > 1 else text).rstrip()
    if text[0] == "%" and divisor == 1:  # as in Turkish
        divisor, body = 100, text[1:].lstrip()
    sign = -1 if body.startswith("-") else 1
    value = _amount(body[1:].lstrip() if body.startswith(("+", "-")) else body)
    return None if value is None else sign * value / divisor


def _ascii(character: str) -> str:
    """Digits of every script as 0 to 9; ½ as a fraction after a blank."""
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    if unicodedata.category(character) == "No" and "FRACTION" in unicodedata.name(character, ""):
        value = Fraction(unicodedata.numeric(character)).limit_denominator(100)
        return f" {value.numerator}/{value.denominator}"
    return character


def _amount(body: str) -> Fraction | None:
    if match := _FRACTION.fullmatch(body):
        whole, over, under = (int(part or 0) for part in match.groups())
        return whole + Fraction(over, under) if under else None
    for form, mark in _FORMS:
        if body and form.fullmatch(body):
            before, _, after = body.rpartition(mark) if mark in body else (body, "", "")
            digits = regex.sub(r"[^0-9]", "", before)
            return Fraction(int(digits + after), 10 ** len(after)) if digits + after else None
    return None
