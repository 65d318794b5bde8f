"""What servers say when they do not answer: their own words, what these mean, and what to set.

The same words come with an HTTP status of 400 and more, in a reply with status 200, and in the files of a
batch.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from slm.config.synthesis import LIMITS_OF_ANSWER

# Words that say one thing alone. They count where the status says less: with 400 and 403 servers refuse many
# things.
NO_CREDIT = (
    r"insufficient.?(quota|balance|funds|credit)|(no|out of) credit|arrears|payment required"
    r"|(balance|credit)s?\b.{0,40}(insufficient|not enough|too low|exhausted|used up)"
)
NO_MODEL = (
    r"model.?not.?(found|exist)|no such model|unknown model|invalid model( id| name)?\b|not a valid model"
    r"|model\b.{0,80}(do(es)? ?n[o']t exist|(is|was|be) not found)"
)
WRONG_KEY = (
    r"(api.?key|access.?token|credential)s?\b.{0,60}(invalid|incorrect|expired|missing|not |wrong|revoked)"
    r"|(invalid|incorrect|expired|missing|wrong|revoked).{0,20}(api.?key|access.?token|credential)"
    r"|api.?key.?invalid|authenti|unauthori"
)
MEANT = ((NO_CREDIT, 402), (NO_MODEL, 404), (WRONG_KEY, 401))
# Words in the code and type of an error, else in its message, and the status that they stand for where the
# reply came with status 200. The first that fits counts.
STATUS_OF_WORDS = (
    (rf"{NO_CREDIT}|billing|payment|balance", 402),
    (r"rate.?limit|too.?many", 429),
    (r"api.?key|access.?token|authenti|unauthori|credential|permission|forbidden", 401),
    (rf"{NO_MODEL}|not_found|does not exist", 404),
    (r"overload|unavailable|capacity|busy|try again", 503),
    (r"content.?(filter|policy)|moderation|invalid|bad.?request|unsupported|context.?length|validation", 400),
)
FILTERED = re.compile(
    r"content.?filter|content.?management.?policy|content.?policy|responsible.?ai|moderation|flagged"
    r"|data.?inspection|content exists risk|safety.(system|policy|filter|setting)|inappropriate content"
    r"|usage polic(y|ies)|prohibited.content|敏感内容|不安全",
    re.IGNORECASE,
)
ABOUT_FORMAT = re.compile(
    r"response.?format|json.?(schema|object|mode)|schema|structured.?output|guided|grammar", re.IGNORECASE
)
STREAMS_ONLY = re.compile(
    r"only supports? (the )?stream|stream(ing)? (mode )?(is |must be )?(required|set to true)"
    r"|must (be|use|enable) stream|enable (the )?stream|stream must be|stream\W{0,4}true"
    r"|non.?stream\w*( \w+)? (is |are )?(not|un)|(not|n't) support(ed)? non.?stream",
    re.IGNORECASE,
)
UNSUPPORTED = re.compile(
    r"unsupported|n[o']t support|unrecogni[sz]ed|unknown|unexpected|only the default|extra.?(inputs|fields)"
    r"|not (permitted|allowed|accepted|recogni[sz]ed|available)|forbidden|deprecated|cannot be (used|set)",
    re.IGNORECASE,
)
OUT_OF_RANGE = re.compile(
    r"must be (strictly |a )?(in|greater|between|less|lower|at (least|most)|above|below|within|positive|[<>])"
    r"|should be (in|greater|between|less|at (least|most)|within|[<>])|strictly positive|out of range"
    r"|too (large|high|big|small|low)|cannot be (greater|larger|less|lower|zero)|not in (the )?range",
    re.IGNORECASE,
)
# No format of an answer is at fault there.
ABOUT_PROMPT = re.compile(
    r"context.?(length|window|size|limit)|too (long|large)|reduce (the|your)|too many \w*tokens|\blength\b"
    r"|token.{0,20}(limit|exceed)|exceed.{0,40}token|\broles?\b|system (message|prompt|instruction)",
    re.IGNORECASE,
)
THINKS_IN_STREAMS = re.compile(r"enable_thinking.*stream|stream.*enable_thinking", re.IGNORECASE | re.DOTALL)
HTML = re.compile(r"\s*<(!doctype html|html|head|body)", re.IGNORECASE)
OTHER_LIMIT = re.compile(r"max_?completion_?tokens", re.IGNORECASE)
# Where an error has its message: OpenAI's names first, then those of MiniMax, Baidu and others.
MESSAGES = (
    *("message", "msg", "detail", "error", "error_description", "reason"),
    *("error_msg", "error_message", "status_msg"),
)
SPOKEN = ("errors", "message", "detail", "msg", "error_msg", "error_message", "status_msg", "error_code")
SUCCESS = ("0", "200", "ok", "success")
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
    def text(self) -> str:
        return f"{self.marks} {self.said}"

    @property
    def means(self) -> int:
        """The status, or the one that its words stand for where many things are refused with one."""
        if self.status not in (400, 403):
            return self.status
        if self.status == 403 and _status_of(self.marks, self.said) == 402:
            return 402
        meant = (status for words, status in MEANT if re.search(words, self.text, re.IGNORECASE))
        return next(meant, self.status)

    @property
    def no_credit(self) -> bool:
        return self.means == 402 or "insufficient_quota" in self.marks

    @property
    def says_nothing(self) -> bool:
        """Its words name no cause, so that the form of the answer may be one."""
        known = _status_of(self.marks, self.said) != 500 or ABOUT_PROMPT.search(self.text)
        return self.status in (400, 422) and not known

    @property
    def filtered(self) -> bool:
        """A filter of contents refused this very prompt."""
        return self.status in OF_THE_REQUEST and bool(FILTERED.search(self.text))

    @property
    def about_format(self) -> bool:
        return bool(ABOUT_FORMAT.search(self.text))

    @property
    def streams_only(self) -> bool:
        return bool(STREAMS_ONLY.search(self.said))

    @property
    def thinks_in_streams(self) -> bool:
        """Whole answers have no thoughts there: these must be off."""
        return bool(THINKS_IN_STREAMS.search(self.said))

    @property
    def out_of_range(self) -> bool:
        """The server takes the field, with another value."""
        return bool(OUT_OF_RANGE.search(self.said))

    @property
    def names_other_limit(self) -> bool:
        return bool(OTHER_LIMIT.search(self.said)) and not self.out_of_range

    def refused_field(self, names: Iterable[str]) -> str | None:
        """The field of a request that the server does not take: the first of these that it names."""
        text, long = self.text, re.search(r"context.?(length|window)", self.text, re.IGNORECASE)
        refused = UNSUPPORTED.search(text) or (self.out_of_range and not long)
        if self.status not in (400, 403, 422) or not refused:
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
        return f"refused with {self.status}: {said}{f'; set {self.remedy(field, tokens)}' if field else ''}"

    def remedy(self, field: str, tokens: int) -> str:
        """What to write into params.yaml, so that the server takes the request."""
        if self.out_of_range and field in LIMITS_OF_ANSWER:
            return "synthesize.max_new_tokens to a number that the server takes"
        return setting_without(field, tokens)


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
    named = [body.get(name) for name in ("error", "errors", "base_resp")] if isinstance(body, dict) else []
    error = next((each for each in named if each), body)
    error = error[0] if isinstance(error, list) and error else error
    # Its lines stay until the key is out: it could be cut by their ends.
    words = "\n".join(" ".join(line.split()) for line in words_of(error)[:MOST_WORDS].splitlines())
    said = MASKED.sub("[…]", words) or "no reason given"
    if not isinstance(error, dict):
        return Complaint(status or _status_of("", said), said, "")
    inner = error.get("innererror")
    more = [inner.get("code")] if isinstance(inner, dict) else []
    marks = [error.get(name) for name in ("param", "code", "type", "error_code")] + more
    kept = " ".join(str(mark) for mark in marks if isinstance(mark, str | int))[:500]
    numbers = [str(error.get(name, "")) for name in ("status", "status_code", "http_code", "code")]
    number = next((int(n) for n in numbers if re.fullmatch("[45][0-9][0-9]", n)), None)
    return Complaint(status or number or _status_of(kept, said), said, kept)


def _status_of(marks: str, said: str) -> int:
    if FILTERED.search(f"{marks} {said}"):
        return 400
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
    for name in MESSAGES:
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
    spoken = value.get("success") is False or _told(value.get("base_resp"))
    spoken = spoken or any(value.get(name) for name in SPOKEN)
    return complaint_of(value) if spoken and not choices else None


def _told(error: Any) -> bool:
    """Whether an error says anything: some servers send one of nothing, or of success, with each good
    answer.
    """
    if not isinstance(error, dict):
        return bool(error)
    codes = [error[name] for name in ("code", "status_code", "status") if error.get(name) is not None]
    return any(error.values()) and not (codes and all(str(code).casefold() in SUCCESS for code in codes))
