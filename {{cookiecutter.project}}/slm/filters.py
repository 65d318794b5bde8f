"""What a student must not learn from: each filter has a name, drops with a reason, and can be switched off in params.yaml (synthesize.filters).

Dropped records stay in data/synthetic.jsonl with `dropped: "name: reason"`; reports/synthetic.json counts them by name and shows samples. Nothing
that was paid for is deleted, so a filter that is switched off gives its records back without a request.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from datasketch import MinHash, MinHashLSH

from slm.quality import NEAR, Index, grams, normal, schema_error
from slm.records import Record
from slm.scoring import FINAL, final_answer
from slm.task import Task
from slm.teacher_params import Filters

# Each filter, in the order in which they judge, with its switch in params.yaml; without one: always on. After all of them, and at a price, the
# teacher itself is asked (slm/verify.py).
STEPS = {
    "unanswered": None,
    "refusal": "refusal",
    "cut": None,
    "schema": None,
    "control": None,
    "secret": "secrets",
    "personal": "personal",
    "length": "longest_answer",
    "agreement": "agreement",
    "contaminated": "decontaminate",
    "duplicate": "near_duplicates",
}
PERMUTATIONS = 128  # of a MinHash: 512 bytes a prompt; what it finds is compared exactly

REFUSALS = re.compile(
    r"^\W*((i'?m|i am) (very |really |truly )?(sorry|afraid)|sorry,|i (can'?t|cannot|can not|won'?t|am unable|am not able)\b"
    r"|as an ai\b|unfortunately,? i\b|es tut mir leid|ich kann (das|dabei|ihnen|dir) (leider )?nicht|je suis désolé|lo siento)",
    re.IGNORECASE,
)
CONTROL = re.compile(r"<\|[a-z_]{1,40}\|>|\[/?INST\]|<</?SYS>>|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", re.IGNORECASE)
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
Patterns = dict[str, re.Pattern[str]]
_SECRETS: Patterns = {name: re.compile(p) for name, p in SECRETS.items()}
_PERSONAL: Patterns = {name: re.compile(p) for name, p in PERSONAL.items()}


def tidied(task: Task, text: str) -> str:
    """An endpoint's answer in the form that the labelled answers have: JSON without a code fence around it, compact; no more than a final answer
    where the task asks for no rationale."""
    if task.kind in ("label", "answer"):
        return text.strip()
    if task.kind == "reasoning" and not task.rationale and (final := final_answer(text)):
        return f"{FINAL} {final}"
    if task.kind != "json":
        return text
    try:
        return json.dumps(strict(unfenced(text)), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return text


def unfenced(text: str) -> str:
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", text, re.DOTALL)
    return fenced[1] if fenced else text


def strict(text: str) -> Any:
    """JSON as others read it too: no NaN, no key twice, no lone surrogates."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key stands twice")
        return dict(pairs)

    def number(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    value = json.loads(text, object_pairs_hook=once, parse_constant=number)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def schema(task: Task, asked: str, text: str) -> str | None:
    if task.kind == "json":
        try:
            strict(text)
        except (ValueError, RecursionError) as error:
            if "twice" in str(error) or "no JSON" in str(error) or "surrogate" in str(error):
                return f"{error}: {text[:80]}"
    return schema_error(task, asked, text)


def luhn(digits: str) -> bool:
    values = [int(d) for d in digits if d.isdigit()]
    doubled = [v if i % 2 == 0 else sum(divmod(2 * v, 10)) for i, v in enumerate(reversed(values))]
    return sum(doubled) % 10 == 0 and len(set(values)) > 1


def iban(text: str) -> bool:
    plain = text.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


CHECKS: dict[str, Callable[[str], bool]] = {"card number": luhn, "bank account": iban}


def found(patterns: Patterns, texts: list[str]) -> str | None:
    """The kind of the first thing found; never the thing itself."""
    for text in texts:
        for name, pattern in patterns.items():
            if any(CHECKS.get(name, bool)(match[0]) for match in pattern.finditer(text)):
                return name
    return None


def leaves(value: Any) -> Iterator[str]:
    """Texts in a JSON value, without its keys, which all answers share."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)


def words_in_a_row(text: str, n: int) -> set[int]:
    words = normal(text).split()
    return {hash(tuple(words[i : i + n])) for i in range(len(words) - n + 1)}


class Sieve:
    """Judges records one after the other; remembers prompts, for near-duplicates."""

    def __init__(self, task: Task, settings: Filters, limit: int, held_out: list[tuple[str, Record]]) -> None:
        """held_out: (file:line, record) of validation and test; limit: synthesize.max_new_tokens, for the message."""
        self._task, self._settings, self._limit = task, settings, limit
        self._rows: dict[int, str] = {}
        if settings.decontaminate:
            for name, record in held_out:
                for text in (record.asked, *self._texts(record.answer)):
                    for row in words_in_a_row(text, settings.decontaminate):
                        self._rows.setdefault(row, name)
            self._near = Index([(name, record.asked) for name, record in held_out])
        if settings.near_duplicates:
            self._seen = MinHashLSH(threshold=settings.near_duplicates, num_perm=PERMUTATIONS)
            self._grams: dict[str, set[tuple[str, ...]]] = {}

    def _texts(self, answer: str) -> list[str]:
        if self._task.kind != "json":
            return [answer]
        try:
            return list(leaves(json.loads(answer)))
        except (ValueError, RecursionError):
            return []

    def reason(self, prompt: Record, answer: dict[str, Any] | None, text: str, why: str = "") -> str | None:
        """Why a student must not learn from this answer ("name: reason"); None if it may.

        Args:
            text: of the answer, tidied.
            why: it has none.
        """
        if answer is None:
            return f"unanswered: {why}"
        for name, switch in STEPS.items():
            if name == "unanswered" or (switch and not getattr(self._settings, switch)):
                continue
            if reason := getattr(self, f"_{name}")(prompt, answer, text):
                return f"{name}: {reason}"
        return None

    def remember(self, prompt: Record) -> None:
        """A request that is there already: its copies are duplicates."""
        if self._settings.near_duplicates:
            self._duplicate(prompt, {}, "")

    def prompt_reason(self, prompt: Record) -> str | None:
        """Why a request that a teacher wrote must not be asked: all that is said against its text, before it costs answers."""
        for name in ("control", "secret", "personal", "contaminated", "duplicate"):
            switch = STEPS[name]
            if (not switch or getattr(self._settings, switch)) and (reason := getattr(self, f"_{name}")(prompt, {}, prompt.text)):
                return f"{name}: {reason}"
        return None

    def _refusal(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        ended = answer.get("finish_reason")
        if answer.get("refusal"):
            return f"the teacher refused: {answer['refusal'][:60]}"
        if not text.strip():
            return "the answer is empty"
        if ended not in (None, "stop", "length"):
            return f"ended by {ended!r}"
        refused = self._task.kind != "label" and REFUSALS.match(text)
        return f"the teacher refused: {text[:60]}" if refused else None

    def _cut(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        return f"off after {self._limit} tokens (synthesize.max_new_tokens): {text[:60]}" if answer["cut"] else None

    def _schema(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        # A reply that does not keep reasoning and answer apart (slm/rationale.py) would teach the student to reason aloud.
        return f"no answer after a rationale: {text[:80]}" if answer.get("no_answer") else schema(self._task, prompt.asked, text)

    def _control(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        match = CONTROL.search(text)
        return f"a control sequence of chat models: {match[0]!r}" if match else None

    def _secret(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        if answer.get("key_sent_back"):
            return "the endpoint's key"
        return found(_SECRETS, [prompt.asked, text])

    def _personal(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        return found(_PERSONAL, [prompt.asked, text])

    def _length(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        most = self._settings.longest_answer
        return f"{len(text)} characters, more than {most}" if most and len(text) > most else None

    def _agreement(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        share, least = answer["agreement"], self._settings.agreement or 0
        return f"{share:.2f} between {answer['answers']} answers, less than {least:g}: {text[:60]}" if share < least else None

    def _contaminated(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        for own in (prompt.asked, *self._texts(text)):
            for row in words_in_a_row(own, self._settings.decontaminate or 1):
                if row in self._rows:
                    return f"{self._settings.decontaminate} words in a row are those of {self._rows[row]}"
        name, similarity = self._near.nearest(prompt.asked)
        return f"a near copy of {name}" if similarity > NEAR else None

    def _duplicate(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        mine = grams(" ".join(m["content"] for m in prompt.prompt))
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([" ".join(gram).encode() for gram in mine])
        for name in self._seen.query(sketch):
            other = self._grams[str(name)]
            if len(mine & other) / len(mine | other) >= (self._settings.near_duplicates or 1):
                return f"a near copy of {name}"
        self._seen.insert(prompt.id, sketch)
        self._grams[prompt.id] = mine
        return None
