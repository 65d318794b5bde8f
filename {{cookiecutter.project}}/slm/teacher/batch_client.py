"""The batch interface of an endpoint (POST /files, POST /batches), by the official client. Calls are retried,
and replies are not trusted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import IO, Annotated, Any, TypeVar

import aiohttp
import httpx2
import openai
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from slm.config.synthesis import Endpoint
from slm.errors import UserError
from slm.teacher import client as endpoint
from slm.teacher.client import Again, Session, hopeless, retry_after, root, said_by

PATH = "/v1/chat/completions"  # of each request of a batch, whatever the address of the server
NEWEST_PAGES = 20  # of the endpoint's list, with 100 batches each
LONGEST_PAUSE = 60.0  # seconds between two looks at a batch
BATCH_ENDED = {"completed", "expired", "cancelled", "failed"}
Result = TypeVar("Result")

BatchName = Annotated[str, Field(max_length=200)]
# it becomes part of an address
Identifier = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$")]
# Azure writes "" for none
Perhaps = Annotated[Identifier | None, BeforeValidator(lambda value: value or None)]


class Fault(BaseModel):
    code: str | None = None
    message: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        return f"{place}{self.message or self.code or 'no reason given'}"


class Faults(BaseModel):
    data: list[Fault] = []


class File(BaseModel):
    id: Identifier
    status: BatchName | None = None


class RequestCounts(BaseModel):
    completed: int = Field(0, ge=0)
    failed: int = Field(0, ge=0)


class Batch(BaseModel):
    id: Identifier
    status: BatchName
    input_file_id: Identifier
    output_file_id: Perhaps = None
    error_file_id: Perhaps = None
    errors: Faults | None = None
    request_counts: RequestCounts | None = None


class Page(BaseModel):
    data: list[Batch]
    has_more: bool = False


class Refused(UserError):
    """A call that would be refused again."""


class BatchApi(Session):
    """`async with BatchApi(…) as api`. Every call raises UserError where no repetition helps, or none did."""

    def __init__(self, settings: Endpoint, most_bytes: int) -> None:
        super().__init__(settings, most_bytes)
        self.settings, self.stop = settings, asyncio.Event()

    async def upload(self, lines: IO[bytes]) -> str:
        """Returns the file's identifier, once the endpoint has looked at it."""

        async def send() -> File:
            lines.seek(0)
            sent = await self._client.files.with_raw_response.create(
                file=("requests.jsonl", lines), purpose="batch"
            )
            return read_batch_reply(File, sent.content)

        file = await self._surely(send, "a server without batches needs synthesize.endpoint.batch: false")
        self._without_key(file.id)
        while file.status in ("pending", "running"):  # Azure takes a batch only of a file that it has read
            await self.rest(1.0)
            file = await self._get(f"/files/{file.id}", File)
        if file.status in ("error", "failed"):
            raise UserError(
                f"{self.settings.base_url}: cannot read the uploaded requests ({file.id}); nothing was "
                "asked or charged: run again"
            )
        return file.id

    async def batch_of(self, file: str) -> str:
        """The batch of an uploaded file: the one that there is, else a new one."""

        async def find_or_make() -> Batch:
            # Before each attempt: the reply to an earlier one may have been lost on its way, or we were
            # killed meanwhile.
            async for batch in self._newest():
                if batch.input_file_id == file:
                    return batch
            body = {"input_file_id": file, "endpoint": PATH, "completion_window": "24h"}
            return read_batch_reply(
                Batch, (await self._client.post("/batches", cast_to=httpx2.Response, body=body)).content
            )

        made = await self._surely(
            find_or_make,
            "no batch was made, nothing was paid; correct that, or set synthesize.endpoint.batch: false",
        )
        return self._without_key(made.id)

    def _without_key(self, name: str) -> str:
        """A name that is stored and shown, and that we cannot change."""
        if self.credential.redacted(name) != name:
            raise UserError(
                f"{self.settings.base_url}: names a file or a batch after your key; do not use this server, "
                "and replace the key"
            )
        return name

    async def _newest(self) -> AsyncIterator[Batch]:
        params: dict[str, Any] = {"limit": 100}
        for _ in range(NEWEST_PAGES):
            page = read_batch_reply(
                Page,
                (
                    await self._client.get("/batches", cast_to=httpx2.Response, options={"params": params})
                ).content,
            )
            for batch in page.data:
                yield batch
            if not page.has_more or not page.data:
                return
            params = {"limit": 100, "after": page.data[-1].id}

    async def look(self, batch: str) -> Batch:
        return await self._get(f"/batches/{batch}", Batch)

    async def fetch(self, file: str, batch: str, into: IO[bytes]) -> None:
        async def fetch() -> None:
            into.seek(0)
            into.truncate()
            async with self._client.files.with_streaming_response.content(file) as response:
                async for chunk in response.iter_bytes(65_536):
                    into.write(chunk)

        await self._surely(fetch, gone(batch))

    async def rest(self, seconds: float) -> None:
        """Sleep, but not past Ctrl-C."""
        try:
            await asyncio.wait_for(self.stop.wait(), min(seconds, LONGEST_PAUSE))
        except TimeoutError:
            return
        raise self.stopped()

    def stopped(self) -> UserError:
        return UserError(
            f"stopped; batches that are under way at {self.settings.base_url} go on and are billed: run "
            "again to take their answers"
        )

    async def _get(self, path: str, form: type[Any]) -> Any:
        async def get() -> Any:
            return read_batch_reply(form, (await self._client.get(path, cast_to=httpx2.Response)).content)

        return await self._surely(get, gone(path.rpartition("/")[2]))

    async def _surely(self, call: Callable[[], Awaitable[Result]], remedy: str) -> Result:
        faults = 0

        def enough(state: RetryCallState) -> bool:
            nonlocal faults
            error = state.outcome.exception() if state.outcome else None
            faults += not (isinstance(error, Again) and error.congested)
            return (
                faults >= self.settings.attempts
                or (state.seconds_since_start or 0.0) > self.settings.patience_s
            )

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            jittered = wait_random_exponential(multiplier=0.5, max=endpoint.LONGEST_WAIT)(state)
            return max(jittered, getattr(error, "wait", None) or 0.0)

        async def once() -> Result:
            try:
                return await call()
            except openai.APIStatusError as error:
                raise self._refused(error, remedy) from None
            except (openai.APIConnectionError, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
                cause = root(error)
                raise Again(
                    self.credential.redacted(f"cannot be reached ({type(cause).__name__}: {cause})")
                ) from None

        again = retry_if_exception_type(Again)
        try:
            return await AsyncRetrying(stop=enough, wait=wait, retry=again, sleep=self.rest, reraise=True)(
                once
            )
        except Again as error:
            raise UserError(
                f"{self.settings.base_url}: {error}; batches that are under way go on: run again to wait "
                "for them"
            ) from None

    def _refused(self, error: openai.APIStatusError, remedy: str) -> Exception:
        complaint = said_by(error)
        status, said = complaint.status, self.credential.redacted(complaint.said)[:200]
        if stops := hopeless(complaint, said, self.settings, self.credential):
            return stops
        if status in (408, 409, 425, 429) or status >= 500:
            return Again(
                f"{status}: {said}",
                congested=status in (429, 503, 529),
                wait=retry_after(error.response.headers),
            )
        return Refused(f"{self.settings.base_url}: refuses ({status}: {said}); {remedy}")


def gone(name: str) -> str:
    return f"if it is gone for good, `slm teacher forget {name}` and run again"


def read_batch_reply(form: type[Any], body: bytes) -> Any:
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Again(
            f"not a {form.__name__.lower()}: {'.'.join(map(str, first['loc']))} {first['msg']}"[:200]
        ) from None
