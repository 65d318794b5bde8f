"""Ask an endpoint in batches. Files of requests are answered within about a day, and cost less than single
requests.

After a kill at any moment nothing is paid twice. Before a batch is created, the store knows the uploaded
file and each request in it. A run looks for an existing batch of that file before it creates one. Answers
come back in any order. Their key in the store, `custom_id`, tells them apart.
"""

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

from pydantic import BaseModel, ValidationError

from slm.config.synthesis import Synthesize
from slm.errors import UserError, brief
from slm.progress import bar
from slm.teacher.batch_client import BATCH_ENDED, PATH, Batch, BatchApi, Fault, Faults, Refused
from slm.teacher.budget import Budget, Cost, most_tokens, worst_case
from slm.teacher.client import ASKED_FIELDS, as_stored, longest_answer
from slm.teacher.response import Complained, NotAnAnswer, read_reply
from slm.teacher.server_errors import Complaint, complaint_of
from slm.teacher.signals import interrupted
from slm.teacher.store import Store

# Of one batch, by OpenAI's reference and by Azure's:
# learn.microsoft.com/azure/foundry/reference/rest/batches-create-batch
MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
BatchRequests = Iterable[tuple[str, dict[str, Any]]]


async def ask_in_batches(settings: Synthesize, store: Store, requests: BatchRequests) -> dict[str, str]:
    """Put the answers to all requests into the store; returns why, for the keys that have none.

    Args:
        requests: (key, request), read several times: a list, or an object that opens its file anew.

    Raises:
        UserError: the run stopped; batches that are under way go on, and the next run waits for them.
    """
    failures: dict[str, str] = {}
    async with BatchApi(settings.endpoint, MOST_REQUESTS * longest_answer(settings)) as api:
        with interrupted(api.stop.set):
            while True:  # mostly once; again where the budget does not hold the worst case of all together
                under_way, used_up = await _send(settings, store, api, requests, failures)
                if not under_way and used_up:
                    raise used_up
                if not under_way:
                    return failures
                for file in under_way:
                    failures |= await _receive(settings, store, api, file)


async def _send(
    settings: Synthesize, store: Store, api: BatchApi, requests: BatchRequests, failures: dict[str, str]
) -> tuple[list[str], UserError | None]:
    """Send what is neither answered nor under way, as far as the budget holds: the files to wait for, and
    what is used up.
    """
    budget, used_up = Budget(settings.endpoint, store.spent()), None
    under_way: dict[str, None] = {}
    worst: dict[str, tuple[int, int, float]] = {}
    with tempfile.TemporaryFile() as lines:
        for key, request in requests:
            if store.has(key) or key in failures or key in worst:
                continue
            if file := store.under_way(key):
                under_way[file] = None
                continue
            cost = worst_case(settings, request)
            try:
                budget.take(cost)
            except UserError as error:
                used_up = error
                continue
            line = (
                json.dumps({"custom_id": key, "method": "POST", "url": PATH, "body": request}).encode()
                + b"\n"
            )
            if worst and (len(worst) == MOST_REQUESTS or lines.tell() + len(line) > MOST_BYTES):
                under_way[await _submit(store, api, lines, worst)] = None
                worst = {}
                lines.seek(0)
                lines.truncate()
            lines.write(line)
            worst[key] = (cost.tokens_in, cost.tokens_out, cost.usd)
        if worst:
            under_way[await _submit(store, api, lines, worst)] = None
    return list(under_way), used_up


async def _submit(
    store: Store, api: BatchApi, lines: IO[bytes], worst: dict[str, tuple[int, int, float]]
) -> str:
    if api.stop.is_set():
        raise api.stopped()
    file = await api.upload(lines)
    store.begin_batch(file, worst)
    await _batch_of(store, api, file)
    return file


async def _batch_of(store: Store, api: BatchApi, file: str) -> str:
    known = store.batch(file)
    if known is None:
        try:
            known = await api.batch_of(file)
        except Refused:
            store.end_batch(file, ((key, None) for key in store.worst_of(file)))
            raise
        store.name_batch(file, known)
        print(
            f"{api.settings.base_url}: batch {known} is under way; it goes on if this run stops, and the "
            "next run waits for it",
            file=sys.stderr,
            flush=True,
        )
    return known


async def _receive(settings: Synthesize, store: Store, api: BatchApi, file: str) -> dict[str, str]:
    """Wait for a batch and store its answers; why, for its requests that have none."""
    where, name, worst = api.settings.base_url, await _batch_of(store, api, file), store.worst_of(file)
    batch = await _ended(api, name, len(worst))
    if batch.status == "failed":  # nothing of it was begun
        store.end_batch(file, ((key, None) for key in worst))
        said = api.credential.redacted("; ".join(map(str, (batch.errors or Faults()).data[:3])))[:300]
        raise UserError(
            f"{where}: did not begin batch {name} ({said or 'no reason given'}); nothing was charged: "
            "correct that and run again"
        )
    files = Files(settings, api, worst)
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as faults:
        for identifier, stream in ((batch.output_file_id, answers), (batch.error_file_id, faults)):
            if identifier:
                await api.fetch(identifier, name, stream)
        store.end_batch(file, files.outcomes(answers, faults))
    silent = f"the batch is {batch.status}, and its files say nothing of this request"
    failures = {key: files.failures.get(key, silent) for key in worst if not store.has(key)}
    odd = (
        f"; left out: {files.unreadable} lines that cannot be read, {files.strangers} of unknown requests"
        if files.odd
        else ""
    )
    print(
        f"{where}: batch {name} is {batch.status}: {len(worst) - len(failures)} of {len(worst)} have an "
        f"answer{odd}",
        file=sys.stderr,
    )
    # one request may be refused for what it says; all of them, for how we ask
    if failures and len(failures) == len(worst):
        raise UserError(
            f"{where}: no request of batch {name} has an answer; the first failed with: "
            f"{next(iter(failures.values()))}; correct that and run again "
            "(if the server does not take JSON schemas, set response_format: none)"
        )
    return failures


async def _ended(api: BatchApi, name: str, requests: int) -> Batch:
    pause = 1.0
    with bar(f"batch {name}", requests) as progress:
        while True:
            batch = await api.look(name)
            if counts := batch.request_counts:
                progress.n = min(requests, counts.completed + counts.failed)
                progress.refresh()
            if batch.status in BATCH_ENDED:
                return batch
            await api.rest(pause)
            pause *= 1.5


class Response(BaseModel):
    status_code: int
    body: Any = None


class Line(BaseModel):
    custom_id: str
    response: Response | None = None
    error: Fault | None = None


class Files:
    """What the files of a batch say: an answer, or none, for each of its requests."""

    def __init__(self, settings: Synthesize, api: BatchApi, worst: dict[str, tuple[int, int, float]]) -> None:
        self._api, self._worst, self._longest = api, worst, longest_answer(settings)
        self._tokens = most_tokens(settings)
        self.failures: dict[str, str] = {}
        self.unreadable = self.strangers = 0

    @property
    def odd(self) -> int:
        return self.unreadable + self.strangers

    def outcomes(self, *files: IO[bytes]) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """(key, answer), None for a request that was refused; nothing for what may have been billed and
        cannot be read.
        """
        for stream in files:
            stream.seek(0)
            # what is longer than any answer is cut, and then no JSON
            while raw := stream.readline(self._longest):
                try:
                    line = Line.model_validate_json(raw)
                except ValidationError:
                    self.unreadable += bool(raw.strip())
                    continue
                if line.custom_id not in self._worst:
                    self.strangers += 1
                elif line.response is None or line.response.status_code != 200:
                    self.failures[line.custom_id] = self._why(line)
                    yield line.custom_id, None
                else:
                    yield from self._answer(line.custom_id, line.response.body)

    def _why(self, line: Line) -> str:
        if line.response is None or line.error:
            return f"refused with {self._api.credential.redacted(str(line.error or 'no reason given'))[:200]}"
        return self._refused(complaint_of(line.response.body, line.response.status_code))

    def _refused(self, complaint: Complaint) -> str:
        said = brief(self._api.credential.redacted(complaint.said), 200)
        return complaint.as_failure(said, (*ASKED_FIELDS, *self._api.settings.extra), self._tokens)

    def _answer(self, key: str, body: Any) -> Iterator[tuple[str, dict[str, Any] | None]]:
        settings = self._api.settings
        try:
            reply = read_reply(json.dumps(body).encode(), settings.model)
        except Complained as error:
            self.failures[key] = self._refused(error.complaint)
            if not error.begun:
                yield key, None
        except NotAnAnswer as error:
            self.failures[key] = str(error)
        else:
            credential, worst = self._api.credential, Cost(*self._worst[key])
            yield key, as_stored(settings, credential, reply, worst, seconds=None, response_format=None)
