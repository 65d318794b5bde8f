"""A teacher behind any OpenAI-compatible endpoint, by the official client over aiohttp.

The client sends and reads. We decide on retries (tenacity), pace and budget, because each attempt may cost
money. A response is accepted only if it is a whole answer of bounded size;
slm/teacher/filters.py judges its content later. The key or token (slm/teacher/auth.py) is removed from
everything that the endpoint sends before other code sees it.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

import aiohttp
import httpx2
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from slm.config.synthesis import Endpoint, Synthesize
from slm.errors import UserError, brief
from slm.files import sha256_json
from slm.task.definition import Task
from slm.teacher.auth import Credential
from slm.teacher.budget import Budget, Cost, allowed_tokens, dollars, most_tokens, worst_case
from slm.teacher.concurrency import Pace, retry_after
from slm.teacher.conversation import with_calls
from slm.teacher.rationale import with_rationale
from slm.teacher.response import Complained, NotAnAnswer, Streamed, broke_off, read_reply
from slm.teacher.server_errors import OF_THE_REQUEST, Complaint, complaint_of

Request = dict[str, Any]
LONGEST_WAIT = 30.0  # seconds between two attempts, if the endpoint names none
SAMPLED = 0.7  # temperature where answers are to differ, as in arXiv 2203.11171 and 2212.10560
OF_ANSWERS = {"response_format", "logprobs", "top_logprobs"}
ASKED_FIELDS = ("max_tokens", "max_completion_tokens", "temperature", "seed", *sorted(OF_ANSWERS))
UNLIMITED = 32_768  # tokens of an answer that is read, where `extra` takes the limit out of the request


class Failure(Exception):
    """One request has no answer."""


class Filtered(Failure):
    """The server refused this prompt for what it says, which is no fault of how we ask."""


class Again(Failure):
    """It may have one if asked again; congested: the endpoint has too much to do, which is no fault of the
    request.
    """

    def __init__(self, why: str, congested: bool = False, wait: float | None = None) -> None:
        super().__init__(why)
        self.congested, self.wait = congested, wait


def request_of(settings: Synthesize, task: Task, messages: list[dict[str, str]], sample: int = 0) -> Request:
    """The whole request: what the answer depends on, and so the key under which it is stored.

    sample: 0 is the likeliest answer; the others are drawn, each with its own seed.
    """
    endpoint = settings.endpoint
    request: Request = {
        "model": endpoint.model,
        "messages": with_calls(messages),
        "max_tokens": most_tokens(settings),
        "temperature": 0,
    }
    if sample:
        request |= {"temperature": SAMPLED, "seed": sample}
    if endpoint.response_format == "json_object":
        request["response_format"] = {"type": "json_object"}
    elif endpoint.response_format != "none" and task.kind == "json" and task.answer_schema:
        schema = with_rationale(task.plain_schema) if endpoint.rationale else task.plain_schema
        request["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        }
    if endpoint.top_logprobs is not None:
        request |= {"logprobs": True, "top_logprobs": endpoint.top_logprobs}
    return {name: value for name, value in (request | endpoint.extra).items() if value is not None}


def text_request(
    settings: Endpoint, messages: list[dict[str, str]], max_tokens: int, sample: int = 0
) -> Request:
    """A request whose reply is not an answer of the task. It has no schema and no log-probabilities."""
    drawn = {"temperature": SAMPLED, "seed": sample} if sample else {"temperature": 0}
    request = {"model": settings.model, "messages": messages, "max_tokens": max_tokens, **drawn}
    extra = {name: value for name, value in settings.extra.items() if name not in OF_ANSWERS}
    return {name: value for name, value in (request | extra).items() if value is not None}


def parameters_of(request: Request) -> dict[str, Any]:
    """What an answer's provenance says of its request: all but the messages, and of a schema only that there
    was one.
    """
    said = {name: value for name, value in request.items() if name not in ("messages", "model")}
    return said | {
        name: said[name]["type"]
        for name in ("response_format",)
        if isinstance(said.get(name), dict) and "type" in said[name]
    }


def key_of(settings: Endpoint, request: Request, sample: int = 0) -> str:
    """sample: in the key too, for servers that take no seed (extra: {seed: null})."""
    return sha256_json([settings.base_url, request, *([sample] if sample else [])])


class Bounded(httpx2.AsyncByteStream):
    """The bytes of a response, up to a limit: a server cannot fill our memory."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._left = stream, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise Again("the answer is larger than the request allows")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def longest_answer(settings: Synthesize) -> int:
    """Bytes: generous for all tokens of a reply as escaped text, with their log-probabilities."""
    per_token, extra = 128 * (2 + (settings.endpoint.top_logprobs or 0)), settings.endpoint.extra
    free = "max_tokens" in extra and not (extra["max_tokens"] or extra.get("max_completion_tokens"))
    tokens = max(most_tokens(settings), UNLIMITED if free else allowed_tokens(settings, extra))
    return 65_536 + tokens * per_token


def client_of(settings: Endpoint, credential: Credential, most_bytes: int) -> openai.AsyncOpenAI:
    """The official client, which sends the key where params.yaml says and nowhere else, and reads no more
    than so many bytes of a response.
    """

    async def bound(response: httpx2.Response) -> None:
        response.stream = Bounded(response.stream, most_bytes)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Again("the answer is compressed, although the request did not allow that")

    transport = openai.DefaultAioHttpClient(
        limits=httpx2.Limits(
            max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency
        ),
        timeout=httpx2.Timeout(settings.timeout_s, connect=min(10.0, settings.timeout_s)),
        follow_redirects=False,
        event_hooks={"response": [bound]},
    )
    return openai.AsyncOpenAI(
        base_url=settings.base_url,
        api_key=credential,
        max_retries=0,
        http_client=transport,
        default_headers={"Accept-Encoding": "identity"},  # a packed answer could unpack to any size
    )


class Session:
    """The official client of an endpoint, signed in, for the length of an `async with`."""

    def __init__(self, settings: Endpoint, most_bytes: int) -> None:
        self.credential = Credential(settings)
        self._client = client_of(settings, self.credential, most_bytes)

    async def __aenter__(self) -> Self:
        try:
            await self.credential()  # who cannot sign in learns it once, and before anything is sent
        except UserError:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._client.close(), self.credential.close())


def fields_of(request: Request) -> list[str]:
    """Those that a server may refuse to take."""
    return [name for name in request if name not in ("model", "messages")]


def said_by(error: openai.APIStatusError) -> Complaint:
    return complaint_of(error.message if error.body is None else error.body, error.status_code)


def hopeless(complaint: Complaint, said: str, settings: Endpoint, credential: Credential) -> UserError | None:
    """What stops a run, if this status does: no request will be answered before somebody mends something."""
    status, where = complaint.status, settings.base_url
    if complaint.means in (401, 403):
        fault, remedy = credential.refused
        return UserError(f"{where}: {fault} ({status}: {said}); answers so far are kept: {remedy}")
    if complaint.no_credit:
        return UserError(
            f"{where}: the account has no credit ({status}: {said}); answers so far are kept: top it up and "
            "run again"
        )
    if status < 400:
        return UserError(
            f"{where}: redirects elsewhere ({status}), and your key is not sent there; write the final "
            "address into base_url"
        )
    return None


def as_stored(
    settings: Endpoint, credential: Credential, reply: dict[str, Any], cost: Cost, **more: Any
) -> dict[str, Any]:
    """A reply without our key in it, with what it cost: by its own usage, or at worst where it says none.

    Log-probabilities whose tokens spell the key are left out.
    """
    answer = credential.redacted(reply)
    if any(credential.redacted(text) != text for text in texts_of_tokens(reply.get("logprobs") or [])):
        del answer["logprobs"]
    usage = answer["usage"] or {
        "prompt_tokens": cost.tokens_in,
        "completion_tokens": cost.tokens_out,
        "estimated": True,
    }
    usd = dollars(settings, usage["prompt_tokens"], usage["completion_tokens"])
    return answer | {"usd": usd, **more, "key_sent_back": answer != reply, "usage": usage}


def texts_of_tokens(tokens: list[Any]) -> Iterator[str]:
    """What the tokens of an answer say together; then the likeliest alternatives of each, the next ones …"""
    yield "".join(token for token, _, _ in tokens)
    for rank in range(max((len(others) for _, _, others in tokens), default=0)):
        yield "".join(others[rank][0] for _, _, others in tokens if rank < len(others))


class Teacher(Session):
    """One endpoint for the length of a run: `async with Teacher(…) as teacher: answer = await
    teacher.ask(request)`.
    """

    def __init__(self, settings: Synthesize, budget: Budget) -> None:
        super().__init__(settings.endpoint, longest_answer(settings))
        self._all, self._settings, self._budget = settings, settings.endpoint, budget
        self.pace = Pace(
            settings.endpoint.concurrency, settings.endpoint.patience_s, settings.endpoint.base_url
        )
        self._formatted: bool | None = None  # whether the server takes `response_format`: not known yet
        self._newer = False  # it takes max_completion_tokens, and no max_tokens
        self._stopped: UserError | None = None

    def stop(self, why: UserError) -> None:
        """Send nothing more; what is under way may come home."""
        self._stopped = self._stopped or why
        self.pace.stop()

    async def ask(self, request: Request) -> dict[str, Any]:
        """The answer to one request, however often it must be sent.

        Raises:
            Failure: this request has no answer.
            UserError: no request will have one; what to do.
        """
        faults = 0

        def enough(state: RetryCallState) -> bool:
            nonlocal faults
            error = state.outcome.exception() if state.outcome else None
            faults += not (isinstance(error, Again) and error.congested)
            return faults >= self._settings.attempts

        def wait(state: RetryCallState) -> float:
            # Too many at once is for the pace to mend: the request itself may go again soon, or the last ones
            # would sleep while all is free.
            error = state.outcome.exception() if state.outcome else None
            longest = min(0.5, LONGEST_WAIT) if isinstance(error, Again) and error.congested else LONGEST_WAIT
            return wait_random_exponential(multiplier=0.5, max=longest)(state)

        retrying = AsyncRetrying(
            stop=enough, wait=wait, retry=retry_if_exception_type(Again), sleep=self.pace.rest, reraise=True
        )
        try:
            return await retrying(self._attempt, request)
        except Failure as error:
            # One request may be refused for what it says; if nothing but refusals has come yet, it is how we
            # ask.
            how_we_ask = not self.pace.ever_answered and not isinstance(error, Filtered)
            if isinstance(error, Again) or how_we_ask:
                self.pace.gave_up(str(error))
            raise

    def _as_taken(self, request: Request) -> Request:
        """The request in the form that the server takes, by what it has refused so far."""
        if self._formatted is False:
            request = {name: value for name, value in request.items() if name != "response_format"}
        if self._newer and "max_tokens" in request:
            limit = {"max_completion_tokens": request["max_tokens"]}
            request = limit | {name: value for name, value in request.items() if name != "max_tokens"}
        return request

    async def _attempt(self, request: Request) -> dict[str, Any]:
        request = self._as_taken(request)
        cost = worst_case(self._all, request)
        async with self.pace.place() as sent:
            await self._budget.reserve(cost)
            if self._stopped:
                self._budget.not_served(cost)
                raise self._stopped
            settle: Callable[[Cost], None] | None = self._budget.no_answer  # unless we learn better
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    response = await self._client.post(
                        "/chat/completions", cast_to=httpx2.Response, body=request
                    )
                reply = read_reply(response.content, request.get("model") or self._settings.model)
                if broke_off(reply["finish_reason"]):
                    said = self.credential.redacted(repr(reply["finish_reason"]))
                    raise Again(f"the server broke off its answer (finish_reason {said})")
                settle = None
            except Complained as error:
                settle = self._budget.no_answer if error.begun else self._budget.not_served
                raise self._refused(error.complaint, response.headers, request, sent) from None
            except NotAnAnswer as error:
                streamed = "event-stream" in response.headers.get("content-type", "")
                if streamed or isinstance(error, Streamed):
                    raise self._only_streams(
                        "sends its answer in pieces, though a whole one is asked for"
                    ) from None
                said = self.credential.redacted(str(error))
                raise Again(f"{said}{error.quoted(self.credential.redacted)}") from None
            except UserError:  # nobody is signed in: nothing was sent
                settle = self._budget.not_served
                raise
            except openai.APIStatusError as error:
                settle = self._budget.not_served
                raise self._refused(said_by(error), error.response.headers, request, sent) from None
            except TimeoutError:
                self.pace.slow_down(sent, None)
                raise Again(
                    f"no whole answer within {self._settings.timeout_s:g} s", congested=False
                ) from None
            except openai.APIConnectionError as error:
                cause = root(error)
                if isinstance(cause, ConnectionRefusedError):
                    settle = self._budget.not_served
                raise Again(
                    self.credential.redacted(f"cannot be reached ({type(cause).__name__}: {cause})")
                ) from None
            except (OSError, httpx2.HTTPError, aiohttp.ClientError) as error:
                raise Again(
                    self.credential.redacted(f"the connection broke ({type(error).__name__})")
                ) from None
            finally:
                if settle:
                    settle(cost)
        self.pace.answered()
        if "response_format" in request:
            self._formatted = True
        took = {"seconds": round(time.monotonic() - sent, 3), "response_format": "response_format" in request}
        answer = as_stored(self._settings, self.credential, reply, cost, **took)
        usage = answer["usage"]
        self._budget.answered(
            cost, Cost(usage["prompt_tokens"], usage["completion_tokens"], answer["usd"] or 0.0)
        )
        return answer

    def _refused(
        self, complaint: Complaint, headers: httpx2.Headers, request: Request, sent: float
    ) -> Exception:
        """What an error means: try again, give this request up, or stop the run."""
        status, where = complaint.status, self._settings.base_url
        said = brief(self.credential.redacted(complaint.said), 200)
        if complaint.filtered:
            return Filtered(complaint.as_failure(said, request, 0))
        if status in OF_THE_REQUEST and complaint.thinks_in_streams:
            return UserError(
                f"{where}: thinks in streams alone ({said}); set synthesize.endpoint.extra: "
                "{enable_thinking: false}"
            )
        if status in OF_THE_REQUEST and complaint.streams_only:
            return self._only_streams(f"answers in streams alone ({said})", refused=True)
        # What is said of a field, or of the schema, may hold any word
        formed = complaint.about_format and "response_format" in request and status in (400, 422)
        if formed or complaint.refused_field(fields_of(request)):
            return self._not_taken(complaint, said, request)
        if stops := hopeless(complaint, said, self._settings, self.credential):
            return stops
        if complaint.means == 404:
            return UserError(
                f"{where}: does not know this address or model {self._settings.model!r} ({said}); "
                "correct synthesize.endpoint"
            )
        if status in (429, 503, 529):
            wait = retry_after(headers)
            self.pace.slow_down(sent, wait, f"{status}: {said}")
            return Again(f"{status}: {said}", congested=True, wait=wait)
        if status >= 500 or status in (408, 409, 425):
            return Again(f"{status}: {said}")
        return self._not_taken(complaint, said, request)

    def _not_taken(self, complaint: Complaint, said: str, request: Request) -> Exception:
        """A request is refused for its form or for what it says, mostly with status 400 or 422."""
        status, where = complaint.status, self._settings.base_url
        names = fields_of(request)
        field, tokens = complaint.refused_field(names), allowed_tokens(self._all, request)
        if field == "max_tokens" and complaint.names_other_limit:
            if not self._newer:
                print(
                    f"{where}: takes no max_tokens; asking with max_completion_tokens ({said})",
                    file=sys.stderr,
                )
            self._newer = True
            return Again(f"{status}: {said}", congested=True)
        if (
            field in (None, "response_format")
            and complaint.about_format
            and status in (400, 422)
            and "response_format" in request
            and self._formatted is not True
            and self._settings.response_format == "auto"
        ):
            if self._formatted is None:
                print(f"{where}: does not take response_format; asking without it ({said})", file=sys.stderr)
            self._formatted = False
            return Again(f"{status}: {said}", congested=True)
        if field and not self.pace.ever_answered:
            return UserError(
                f"{where}: does not take {'this ' if complaint.out_of_range else ''}{field} "
                f"({status}: {said}); set {complaint.remedy(field, tokens)}"
            )
        mute = "response_format" in request and self._formatted is None and complaint.says_nothing
        hint = "; if it takes no JSON schema, set synthesize.endpoint.response_format: none" if mute else ""
        return Failure(complaint.as_failure(said, names, tokens) + hint)

    def _only_streams(self, what: str, refused: bool = False) -> UserError:
        """
        Args:
            refused: the server has said that it gives no whole answer.
        """
        asked = self._settings.extra.get("stream")
        remedy = (
            "take `stream` out of synthesize.endpoint.extra"
            if asked
            else "use a server, or a model, that answers whole"
            if asked is False or refused
            else "set synthesize.endpoint.extra: {stream: false}, or use a server that answers whole"
        )
        return UserError(f"{self._settings.base_url}: {what}; {remedy}; answers so far are kept")


def root(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error
