"""What must not stand in synthetic data: refusals, secrets and personal data."""

import re
from collections.abc import Callable

from stdnum import iban, luhn

REFUSALS = re.compile(
    r"^\W*((i'?m|i am) (very |really |truly )?(sorry|afraid)|sorry,"
    r"|i (can'?t|cannot|can not|won'?t|am unable|am not able)\b|as an ai\b|unfortunately,? i\b"
    r"|es tut mir leid|ich kann (das|dabei|ihnen|dir) (leider )?nicht|je suis désolé|lo siento)",
    re.IGNORECASE,
)
SECRETS = {
    "private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
    "API key": r"\b(?:sk|rk|pk)[-_](?:live|test|proj|ant|or)?[-_A-Za-z0-9]{16,}",
    "AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "Google key": r"\bAIza[0-9A-Za-z_-]{35}",
    "Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/@]+@",
    "the endpoint's key": r"\[the endpoint's key\]",
}
PERSONAL = {
    "e-mail address": r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b",
    "card number": r"\b(?:\d[ -]?){12,18}\d\b",
    "bank account": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b",
    "social security number": r"\b(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b",
}


def is_card(text: str) -> bool:
    """Whether the check digit of a card number is right. One digit repeated is not a card."""
    digits = re.sub(r"\D", "", text)
    return luhn.is_valid(digits) and len(set(digits)) > 1


CHECKS: dict[str, Callable[[str], bool]] = {"card number": is_card, "bank account": iban.is_valid}


def found(patterns: dict[str, str], texts: list[str]) -> str | None:
    """The kind of the first thing found; never the thing itself."""
    for text in texts:
        for name, pattern in patterns.items():
            if any(CHECKS.get(name, bool)(match[0]) for match in re.finditer(pattern, text)):
                return name
    return None
