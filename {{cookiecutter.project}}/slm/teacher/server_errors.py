"""What servers say when they do not answer: their own words, what these mean, and what to set.

The same words come with an HTTP status of 400 and more, in a reply with status 200, and in the files of a
batch.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Words in the code and type of an error, else in its message, and the status that they stand for where the
# reply came with status 200. The first that fits counts.
STATUS_OF_WORDS = (
    (r"insufficient.?quota|billing|payment|no credit|balance", 402),
    (r"rate.?limit|too.?many", 429),
    (r"api.?key|authenti|unauthori|permission|forbidden", 401),
    (r"model.?not.?found|not_found|does not exist", 404),
    (r"overload|unavailable|capacity|busy|try again", 503),
    (r"content.?(filter|policy)|moderation|invalid|bad.?request|unsupported|context.?length|validation", 400),
)
FILTERED = re.compile(
    r"content.?filter|content.?management.?policy|content.?policy|responsible.?ai|moderation|flagged"
    r"|data.?inspection|content exists risk|safety.(system|policy|filter|setting)|inappropriate content"
    r"|usage polic(y|ies)|prohibited.content",
    re.IGNORECASE,
)
ABOUT_FORMAT = re.compile(
    r"response.?format|json.?(schema|object|mode)|schema|structured.?output|guided|grammar", re.IGNORECASE
)
STREAMS_ONLY = re.compile(
    r"only supports? (the )?stream|stream(ing)? (mode )?(is |must be )?(required|set to true)"
    r"|must (be|use|enable) stream|enable (the )?stream|stream must be",
    re.IGNORECASE,
)
UNSUPPORTED = re.compile(
    r"unsupported|n[o']t support|unrecogni[sz]ed|unknown|unexpected|only the default|extra.?(inputs|fields)"
    r"|not (permitted|allowed|accepted|recogni[sz]ed|available)|forbidden|deprecated|cannot be (used|set)",
    re.IGNORECASE,
)
OTHER_LIMIT = re.compile(r"max_?completion_?tokens", re.IGNORECASE)
MOST_WORDS = 4000  # characters of an error that are read
MASKED = re.compile(r"\S{0,80}\*{3,}\S{0,80}")  # "sk-pr****6789": what is left of a key is not repeated
SETTING_OF = {  # what takes a field out of the requests, where it is not `extra`
    "response_format": "synthesize.endpoint.response_format: none",
    "logprobs": "synthesize.endpoint.top_logprobs: null",
    "top_logprobs": "synthesize.endpoint.top_logprobs: null",
}
# Refusals with another status have a meaning of their own.
OF_THE_REQUEST = {400, 403, 413, 422, 451}


@dataclass(frozen=True)
class Complaint:
    """An error of a server. said: its words; marks: its code, type and parameter."""

    status: int
    said: str
    marks: str

    @property
    def no_credit(self) -> bool:
        return self.status == 402 or "insufficient_quota" in self.marks

    @property
    def filtered(self) -> bool:
        """A filter of contents refused this very prompt."""
        return self.status in OF_THE_REQUEST and bool(FILTERED.search(f"{self.marks} {self.said}"))

    @property
    def about_format(self) -> bool:
        return bool(ABOUT_FORMAT.search(f"{self.marks} {self.said}"))

    @property
    def streams_only(self) -> bool:
        return bool(STREAMS_ONLY.search(self.said))

    @property
    def names_other_limit(self) -> bool:
        return bool(OTHER_LIMIT.search(self.said))

    def refused_field(self, names: Iterable[str]) -> str | None:
        """The field of a request that the server does not take: the first of these that it names."""
        text = f"{self.marks} {self.said}"
        if self.status not in (400, 422) or not UNSUPPORTED.search(text):
            return None
        places = {}
        for name in names:
            written = re.escape(name).replace("_", "_?")  # Azure says MaxTokens
            pattern = rf"(?<![A-Za-z_]){written}(?![A-Za-z_])"
            if match := re.search(pattern, text, re.IGNORECASE):
                places[match.start()] = name
        return places[min(places)] if places else None

    def as_failure(self, said: str, names: Iterable[str], tokens: int) -> str:
        """Why this request has no answer, and what to set.

        Args:
            said: the words without our key.
            names: the fields of the request.
            tokens: the most that its answer may have.
        """
        if self.filtered:
            return f"the server's content filter refused this prompt ({self.status}: {said})"
        field = self.refused_field(names)
        return (
            f"refused with {self.status}: {said}{f'; set {setting_without(field, tokens)}' if field else ''}"
        )


def setting_without(field: str, tokens: int) -> str:
    """What to write into params.yaml for a server that does not take this field."""
    if field == "max_tokens":
        return f"synthesize.endpoint.extra: {{max_tokens: null, max_completion_tokens: {tokens}}}"
    return SETTING_OF.get(field, f"synthesize.endpoint.extra: {{{field}: null}}")


def complaint_of(body: Any, status: int | None = None) -> Complaint:
    """
    Args:
        body: JSON or text that came in place of an answer.
        status: of the reply; None: 200, so that the error itself must say what it is.
    """
    error = body.get("error") or body.get("errors") or body if isinstance(body, dict) else body
    error = error[0] if isinstance(error, list) and error else error
    words = " ".join(words_of(error)[:MOST_WORDS].split())
    said = MASKED.sub("[…]", words) or "no reason given"
    if not isinstance(error, dict):
        return Complaint(status or _status_of("", said), said, "")
    inner = error.get("innererror")
    more = [inner.get("code")] if isinstance(inner, dict) else []
    marks = [error.get(name) for name in ("param", "code", "type")] + more
    kept = " ".join(str(mark) for mark in marks if isinstance(mark, str | int))[:500]
    numbers = [str(error.get(name, "")) for name in ("status", "status_code", "http_code", "code")]
    number = next((int(n) for n in numbers if re.fullmatch("[45][0-9][0-9]", n)), None)
    return Complaint(status or number or _status_of(kept, said), said, kept)


def _status_of(marks: str, said: str) -> int:
    for text in (marks, said):
        for words, status in STATUS_OF_WORDS:
            if re.search(words, text, re.IGNORECASE):
                return status
    return 500  # it may pass


def words_of(error: Any) -> str:
    """The message in an error, whatever its form."""
    if isinstance(error, list) and error:
        return words_of(error[0])
    if not isinstance(error, dict):
        return error if isinstance(error, str) else json.dumps(error) if error else ""
    for name in ("message", "msg", "detail", "error", "error_description", "reason"):
        if error.get(name):
            # FastAPI says which field a message is about
            place = ".".join(map(str, error["loc"])) if isinstance(error.get("loc"), list) else ""
            return f"{place}: {words_of(error[name])}" if place else words_of(error[name])
    return json.dumps(error)


def complaint_inside(value: Any) -> Complaint | None:
    """The error that a reply with status 200 holds in place of an answer, or of a whole one."""
    if not isinstance(value, dict):
        return None
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if _told(value.get("error")) or value.get("object") == "error":
        return complaint_of(value)
    if isinstance(first, dict) and _told(first.get("error")):
        return complaint_of(first)
    spoken = any(value.get(name) for name in ("errors", "message", "detail"))
    return complaint_of(value) if spoken and not choices else None


def _told(error: Any) -> bool:
    """Whether an error says anything: some servers send one of nothing with each good answer."""
    return any(error.values()) if isinstance(error, dict) else bool(error)
