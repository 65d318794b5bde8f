"""Filters for what a student must not learn from. Each has a name and drops with a reason; most can be
switched off in params.yaml (synthesize.filters).

Dropped records stay in data/synthetic.jsonl with `dropped: "name: reason"`; reports/synthetic.json counts
them by name and shows samples. Nothing that was paid for is deleted, so a filter that is switched off gives
its records back without a request.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import regex
from datasketch import MinHash, MinHashLSH

from slm.config.synthesis import LIMITS_OF_ANSWER, Filters
from slm.quality.leaks import Leaks
from slm.quality.markers import answer_fault
from slm.quality.similarity import grams
from slm.task.answers import class_of, schema_error
from slm.task.definition import Task
from slm.task.records import Record
from slm.task.strict import Unreadable, strict_json
from slm.task.text import bounded, nfc, runs
from slm.teacher.patterns import PERSONAL, REFUSALS, SECRETS, found
from slm.teacher.rationale import TOKENS
from slm.teacher.response import ending_of, is_call, why_silent

# Each filter with its parameter in params.yaml; None: always on. They judge in this order. The method
# `_name` of Sieve gives the reason, or None. Put yours before `duplicate`, which remembers every prompt
# that it sees. After all of them, the teacher itself can be asked, at a price (slm/teacher/verification.py).
FILTERS = {
    "unanswered": None,
    "cut": None,
    "ended": None,
    "refusal": "refusal",
    "empty": None,
    "control": None,
    "schema": None,
    "secret": "secrets",
    "personal": "personal",
    "length": "longest_answer",
    "word": "words",
    "language": "language",
    "unsure": "confidence",
    "agreement": "agreement",
    "contaminated": "decontaminate",
    "duplicate": "near_duplicates",
    "balance": "per_class",
    "tag": "per_tag",
}
# probability from which a prompt counts as being in another language: short ones could be in several
FOREIGN = 0.8
PERMUTATIONS = 128  # of a MinHash: 512 bytes a prompt; what it finds is compared exactly


def leaves(value: Any) -> Iterator[str]:
    """Texts in a JSON value, without its keys, which all answers share."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)


def words_in_a_row(text: str, n: int) -> set[int]:
    return {hash(run) for run in runs(text, n)}


@cache
def identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # loads for a second

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class Sieve:
    """Judges records one after the other; remembers prompts, for near-duplicates, and counts classes and
    tags.
    """

    def __init__(self, task: Task, settings: Filters, limit: int, held_out: list[tuple[str, Record]]) -> None:
        """
        Args:
            limit: synthesize.max_new_tokens, which the message of `cut` names.
            held_out: (file:line, record) of validation and test.
        """
        self._task, self._settings, self._limit = task, settings, limit
        self._rows: dict[int, str] = {}
        self._kept: Counter[str] = Counter()  # by class and by tag
        self._words = regex.compile(bounded(map(nfc, settings.words)), regex.IGNORECASE)
        if settings.decontaminate:
            for name, record in held_out:
                for text in (record.asked, *self._texts(record.answer)):
                    for row in words_in_a_row(text, settings.decontaminate):
                        self._rows.setdefault(row, name)
            self._leaks = Leaks(held_out)
        if settings.near_duplicates:
            self._seen = MinHashLSH(threshold=settings.near_duplicates, num_perm=PERMUTATIONS)
            # names of the prompts and what they say, in the order in which they came
            self._said: dict[int, tuple[str, str]] = {}
            self._came = 0

    def _texts(self, answer: str) -> list[str]:
        if self._task.kind != "json":
            return [answer]
        try:
            return list(leaves(strict_json(answer)))
        except Unreadable:
            return []

    def reason(self, prompt: Record, answer: dict[str, Any] | None, text: str, why: str = "") -> str | None:
        """Why a student must not learn from this answer ("name: reason"); None if it may.

        Args:
            text: the answer as `slm.task.answers.tidied` returns it.
            why: the reason there is no answer, where `answer` is None.
        """
        if answer is None:
            return f"unanswered: {why}"
        for name, switch in FILTERS.items():
            if name == "unanswered" or (switch and not getattr(self._settings, switch)):
                continue
            if reason := getattr(self, f"_{name}")(prompt, answer, text):
                return f"{name}: {reason}"
        self._kept.update(self._slices(prompt, text))
        return None

    def _slices(self, prompt: Record, text: str) -> list[str]:
        name = class_of(self._task, text)
        return [*([] if name is None else [f"class:{name}"]), *(f"tag:{tag}" for tag in prompt.tags)]

    def remember(self, prompt: Record) -> None:
        """Register a request that exists already, so that its copies are dropped as duplicates."""
        if self._settings.near_duplicates:
            self._duplicate(prompt, {}, "")

    def prompt_reason(self, prompt: Record) -> str | None:
        """Why a request that a teacher wrote must not be asked, before it costs answers.

        Runs the filters that can judge a request without an answer. Add yours here if it can.
        """
        for name in ("control", "secret", "personal", "word", "language", "contaminated", "duplicate"):
            switch = FILTERS[name]
            if (not switch or getattr(self._settings, switch)) and (
                reason := getattr(self, f"_{name}")(prompt, {}, prompt.text)
            ):
                return f"{name}: {reason}"
        return None

    def _refusal(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        if answer.get("refusal"):
            return f"the server's own refusal: {answer['refusal'][:60]}"
        refused = self._task.kind != "label" and REFUSALS.match(text)
        return f"the teacher refused: {text[:60]}" if refused else None

    def _empty(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        return None if text.strip() else why_silent(answer | {"text": ""})

    def _ended(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        if is_call(answer | {"text": text.strip()}):
            names = ", ".join(repr(call["name"]) for call in answer.get("tool_calls") or []) or "not named"
            schema_says = ", which is no answer by the task's schema" if self._task.kind == "json" else ""
            return f"the server answered with a tool call ({names}){schema_says}"
        ending = ending_of(answer.get("finish_reason"))
        said = f": {text[:60]}" if text.strip() else ""
        return None if ending in ("stop", "length") else f"by {ending[:60]!r} (finish_reason){said}"

    def _cut(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        if not answer["cut"]:
            return None
        asked = answer.get("parameters", {})
        limit = max((asked.get(name) or 0 for name in LIMITS_OF_ANSWER), default=0) or self._limit
        own = limit in (self._limit, self._limit + TOKENS)
        where = "synthesize.max_new_tokens" if own else "synthesize.endpoint.extra"
        if text.strip():
            return f"off after {limit} tokens ({where}): {text[:60]}"
        return (
            f"off after {limit} tokens ({where}) before an answer began: a model that reasons spends them on "
            "thoughts first; raise synthesize.max_new_tokens, or max_tokens in synthesize.endpoint.extra"
        )

    def _schema(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        # A reply that does not keep reasoning and answer apart (slm/teacher/rationale.py) would teach the
        # student to reason aloud.
        return (
            f"no answer after a rationale: {text[:80]}"
            if answer.get("no_answer")
            else schema_error(self._task, prompt.asked, text)
        )

    def _control(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        # A student reads its own earlier turns too.
        before = [m["content"] for m in prompt.prompt if m["role"] == "assistant"]
        return next((fault for said in (*before, text) if (fault := answer_fault(self._task, said))), None)

    def _secret(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        if answer.get("key_sent_back"):
            return "the endpoint's key"
        return found(SECRETS, [prompt.asked, text])

    def _personal(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        return found(PERSONAL, [prompt.asked, text])

    def _length(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        most = self._settings.longest_answer
        return f"{len(text)} characters, more than {most}" if most and len(text) > most else None

    def _word(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        match = self._words.search(prompt.asked) or self._words.search(text)
        return f"{match[0]!r} (synthesize.filters.words)" if match else None

    def _language(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        language, probability = identifier().classify(prompt.text)
        foreign = language != self._settings.language and probability >= FOREIGN
        return (
            f"the prompt is {language!r} with probability {probability:.2f}, not {self._settings.language!r}"
            if foreign
            else None
        )

    def _unsure(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        # Log-probabilities of the answer's own tokens. A local teacher's first alternative is that token.
        said = [row[0] for row in answer.get("topk_logprobs", [])] or [
            token[1] for token in answer.get("logprobs", [])
        ]
        if not said:
            return "no log-probabilities came with the answer"
        likelihood, least = math.exp(sum(said) / len(said)), self._settings.confidence or 0
        return (
            f"the teacher gives its tokens {likelihood:.2f} on average, less than {least:g}: {text[:60]}"
            if likelihood < least
            else None
        )

    def _agreement(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        share, least = answer["agreement"], self._settings.agreement or 0
        return (
            f"{share:.2f} between {answer['answers']} answers, less than {least:g}: {text[:60]}"
            if share < least
            else None
        )

    def _contaminated(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        said = {"role": "assistant", "content": text}
        for own in (prompt.asked, *self._texts(text)):
            for row in words_in_a_row(own, self._settings.decontaminate or 1):
                if row in self._rows:
                    return f"{self._settings.decontaminate} words in a row are those of {self._rows[row]}"
        leak = self._leaks.found_in(replace(prompt, messages=[*prompt.prompt, said]))
        # A prompt that a teacher invented has no answer yet, and another costs little: no doubt is allowed
        return leak.said if leak and (leak.certain or not answer) else None

    def _duplicate(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        said = " ".join(m["content"] for m in prompt.prompt)
        mine = grams(said)
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([" ".join(gram).encode() for gram in mine])
        for number in self._seen.query(sketch):
            name, text = self._said[int(number)]
            other = grams(text)
            if len(mine & other) / len(mine | other) >= (self._settings.near_duplicates or 1):
                return f"a near copy of {name}"
        if len(self._said) == self._settings.near_duplicates_among:
            oldest = next(iter(self._said))
            self._seen.remove(oldest)
            del self._said[oldest]
        self._came += 1
        self._seen.insert(self._came, sketch)
        self._said[self._came] = (prompt.id, said)
        return None

    def _balance(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        return self._full("class", self._settings.per_class or 0, self._slices(prompt, text))

    def _tag(self, prompt: Record, answer: dict[str, Any], text: str) -> str | None:
        return self._full("tag", self._settings.per_tag or 0, self._slices(prompt, text))

    def _full(self, kind: str, most: int, slices: list[str]) -> str | None:
        for name in slices:
            if name.startswith(f"{kind}:") and self._kept[name] >= most:
                return f"{most} answers of {kind} {name.partition(':')[2]!r} are there already"
        return None
