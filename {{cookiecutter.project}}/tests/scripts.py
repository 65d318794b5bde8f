"""The same kinds of sentences in twelve scripts (scripts.json), for tests of all that reads text."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Script:
    """
    text: a request of everyday length.
    near: the same with one word more.
    other: another request of the same kind.
    quoted: words that stand in the text; absent: words that do not.
    typo: two spellings of a word with one slip; None where one character can be a word.
    masks: letters, each with how it can be written to look the same; None where the script has none.
    """

    name: str
    text: str
    near: str
    other: str
    quoted: str
    absent: str
    typo: list[str] | None
    masks: dict[str, str] | None


SCRIPTS = [
    Script(**row) for row in json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
]
