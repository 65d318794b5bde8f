"""Send requests to an endpoint one by one, in bounded memory. Each paid answer is stored before a stop."""

import asyncio
import gc
from collections.abc import Iterable
from functools import partial
from typing import Any

from tqdm import tqdm

from slm.config.synthesis import Endpoint, Synthesize
from slm.errors import UserError
from slm.progress import bar
from slm.teacher.budget import Budget
from slm.teacher.client import Failure, Request, Teacher
from slm.teacher.signals import interrupted
from slm.teacher.store import Store

KeyedRequests = Iterable[tuple[str, Request]]


class OneModel:
    """One model answers, unless params.yaml accepts several: an endpoint may exchange it under the same name.

    first: the model that answered first, of this run and of what was stored before it; None: not known yet.
    """

    def __init__(self, settings: Endpoint) -> None:
        self._settings = settings
        self.first: str | None = None

    def check(self, answer: dict[str, Any]) -> None:
        """
        Raises:
            UserError: this answer is of another model, and params.yaml does not accept that.
        """
        settings, model = self._settings, answer["model"]
        self.first = self.first or model
        if model != self.first and settings.model_change == "stop":
            raise UserError(
                f"{settings.base_url}: {settings.model!r} was {self.first!r} at first and is {model!r} now; "
                "all answers are kept: "
                "name one of the two in synthesize.endpoint.model to ask it alone, or set model_change: "
                "accept to learn from both"
            )


async def ask_one_by_one(
    settings: Synthesize, store: Store, requests: KeyedRequests, missing: int, model: OneModel
) -> dict[str, str]:
    """Put the answers that are missing into the store; returns why, for the keys that have none.

    Raises:
        UserError: the run stopped; what was answered is in the store.
    """
    # What was imported stays. Looking through all of it for garbage, as Python does every few hundred
    # requests, keeps answers waiting for 0.1 s each time.
    gc.freeze()
    budget = Budget(settings.endpoint, store.spent(), store.unanswered())
    async with Teacher(settings, budget) as teacher, Writer(store, budget) as writer:
        with bar("answers", missing) as progress:
            sender = _Sender(teacher, writer, model, progress)
            with interrupted(lambda: sender.stop(UserError("stopped; answers so far are kept: run again"))):
                # Beside those under way there are some that wait to be sent again: they hold a task, and no
                # place.
                await sender.send(requests, store, at_once=2 * settings.endpoint.concurrency)
    if sender.stopped:
        raise sender.stopped[0]
    return sender.failures


class _Sender:
    """Many requests at once. failures: why there is no answer, by key; stopped: why nothing more is sent."""

    def __init__(self, teacher: Teacher, writer: "Writer", model: OneModel, progress: tqdm) -> None:
        self._teacher, self._writer, self._model, self._progress = teacher, writer, model, progress
        self.failures: dict[str, str] = {}
        self.stopped: list[UserError] = []

    def stop(self, why: UserError) -> None:
        self.stopped.append(why)
        self._teacher.stop(why)

    async def send(self, requests: KeyedRequests, store: Store, at_once: int) -> None:
        places = asyncio.Semaphore(at_once)
        under_way: dict[str, asyncio.Task[None]] = {}

        def home(key: str, _: object) -> None:
            del under_way[key]
            places.release()

        for key, request in requests:
            if key in under_way or store.has(key):
                continue
            await places.acquire()
            if self.stopped:
                break
            under_way[key] = asyncio.create_task(self._one(key, request))
            under_way[key].add_done_callback(partial(home, key))
        while under_way:  # also after a stop: what is under way is paid for
            await asyncio.wait(set(under_way.values()))

    async def _one(self, key: str, request: Request) -> None:
        try:
            answer = await self._teacher.ask(request)
            await self._writer.put(key, answer)
            self._progress.update()
            self._model.check(answer)
        except Failure as error:
            self.failures[key] = str(error)
        except UserError as error:
            self.stop(error)
        except Exception as error:
            # A fault of ours (or a full disk) must not cost what others of this run are waiting for.
            said = self._teacher.credential.redacted(str(error))
            self.stop(
                UserError(
                    f"asking stopped ({type(error).__name__}: {said}); answers so far are kept: run again"
                )
            )


class Writer:
    """Commits together what comes in while the disk is busy with the commit before: `put` returns when its
    answer is on disk.
    """

    def __init__(self, store: Store, budget: Budget) -> None:
        self._store, self._budget = store, budget
        self._batch: dict[str, Any] = {}
        self._done: asyncio.Future[None] | None = None
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Writer":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._work:
            await asyncio.wait([self._work])
        await asyncio.to_thread(self._store.put, {}, self._budget.lost())

    async def put(self, key: str, answer: dict[str, Any]) -> None:
        self._batch[key] = answer
        self._done = self._done or asyncio.get_running_loop().create_future()
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._commit())
        await asyncio.shield(self._done)

    async def _commit(self) -> None:
        while self._done is not None:
            batch, done = self._batch, self._done
            self._batch, self._done = {}, None
            try:
                await asyncio.to_thread(self._store.put, batch, self._budget.lost())
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(None)
