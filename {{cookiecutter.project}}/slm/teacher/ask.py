"""Ask an endpoint what the store does not know yet: bounded memory, every paid answer on disk, a clean stop."""

import asyncio
import gc
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from slm.config.synthesis import Synthesize
from slm.errors import UserError
from slm.progress import bar
from slm.task.definition import Task
from slm.teacher.batch import ask_in_batches
from slm.teacher.budget import NOTHING_SPENT, Budget, approve, estimate, worst_case
from slm.teacher.client import Failure, Teacher, key_of, request_of
from slm.teacher.rationale import instruction
from slm.teacher.signals import interrupted
from slm.teacher.store import Spent, Store

KeyedRequests = Iterable[tuple[str, dict[str, Any]]]


def requests_of(
    settings: Synthesize, task: Task, prompts: Iterable[list[dict[str, str]]], answers: int = 1
) -> list[tuple[str, dict[str, Any]]]:
    """(key, request) for each prompt, as many in a row as it is to have answers; what the teacher is told
    goes before it.
    """
    system = {"role": "system", "content": instruction(settings.endpoint, task)}
    samples = (
        (request_of(settings, task, [system, *messages], i), i)
        for messages in prompts
        for i in range(answers)
    )
    return [(key_of(settings.endpoint, request, i), request) for request, i in samples]


def stored_answers(
    settings: Synthesize, store: Store, keys: Iterable[str]
) -> Iterator[dict[str, Any] | None]:
    """Answers in the order of the keys, None where there is none.

    Raises:
        UserError: they are of several models, and params.yaml does not accept that.
    """
    first: str | None = None
    for key in keys:
        answer = store.get(key)
        if answer is not None:
            first = first or answer["model"]
            one_model(settings, first, answer["model"])
        yield answer


def one_model(settings: Synthesize, first: str, other: str) -> None:
    if other != first and settings.endpoint.model_change == "stop":
        raise UserError(
            f"{settings.endpoint.base_url}: {settings.endpoint.model!r} was {first!r} at first and is {other!r} now; all answers are kept: "
            f"name one of the two in synthesize.endpoint.model to ask it alone, or set model_change: accept to learn from both"
        )


def ask_missing(
    settings: Synthesize,
    store: Store,
    requests: KeyedRequests,
    later: Spent = NOTHING_SPENT,
    agreed: bool = False,
) -> dict[str, str]:
    """Put the answers to all requests into the store; returns why, for the keys that have none.

    With all answers in the store no key and no network is needed.

    Args:
        requests: (key, request), read twice: a list, or an object that opens its file anew.
        later: what the rounds after this one cost at worst, to be agreed to with it.
        agreed: it was, in an earlier round.

    Raises:
        UserError: the run stopped; what was answered is in the store.
    """
    missing = hits = most_in = most_out = 0
    waiting: str | None = None
    model = None
    for key, request in requests:
        if store.has(key):
            model = model or store.get(key)["model"]
            hits += 1
        elif file := store.under_way(key):
            waiting = file
        else:
            missing += 1
            worst = worst_case(settings.endpoint, request)
            most_in, most_out = most_in + worst.tokens_in, most_out + worst.tokens_out
    store.put({}, hits=hits)
    if waiting and not settings.endpoint.batch:
        raise UserError(
            "requests are under way in a batch and would be paid twice: set synthesize.endpoint.batch: true to wait for it, or give it up "
            f"(`slm teacher forget {waiting}`)"
        )
    if not missing:
        return asyncio.run(ask_in_batches(settings, store, requests)) if waiting else {}
    planned = estimate(settings.endpoint, most_out / missing, store, missing, hits, most_in, later)
    print(
        f"{settings.endpoint.model} at {settings.endpoint.base_url}: {planned}", file=sys.stderr, flush=True
    )
    if not agreed:
        approve(settings.endpoint, planned)
    if settings.endpoint.batch:
        return asyncio.run(ask_in_batches(settings, store, requests))
    return asyncio.run(_ask_all(settings, store, requests, missing, model))


async def _ask_all(
    settings: Synthesize, store: Store, requests: KeyedRequests, missing: int, model: str | None
) -> dict[str, str]:
    # What was imported stays. Looking through all of it for garbage, as Python does every few hundred
    # requests, keeps answers waiting for 0.1 s each time.
    gc.freeze()
    budget = Budget(settings.endpoint, store.spent(), store.unanswered())
    failures: dict[str, str] = {}
    stopped: list[UserError] = []

    def stop(why: UserError) -> None:
        stopped.append(why)
        teacher.stop(why)

    async def one(key: str, request: dict[str, Any]) -> None:
        nonlocal model
        try:
            answer = await teacher.ask(request)
            await writer.put(key, answer)
            progress.update()
            model = model or answer["model"]
            one_model(settings, model, answer["model"])
        except Failure as error:
            failures[key] = str(error)
        except UserError as error:
            stop(error)
        except Exception as error:
            # A fault of ours (or a full disk) must not cost what others of this run are waiting for.
            said = teacher.credential.redacted(str(error))
            stop(
                UserError(
                    f"asking stopped ({type(error).__name__}: {said}); what was answered is kept, run again"
                )
            )

    async with Teacher(settings, budget) as teacher, Writer(store, budget) as writer:
        with (
            bar("answers", missing) as progress,
            interrupted(lambda: stop(UserError("stopped; what was answered is kept, run again"))),
        ):
            # Beside those under way there are some that wait to be sent again: they hold a task, and no
            # place.
            places = asyncio.Semaphore(2 * settings.endpoint.concurrency)
            under_way: dict[str, asyncio.Task[None]] = {}

            def home(key: str, _: object) -> None:
                del under_way[key]
                places.release()

            for key, request in requests:
                if key in under_way or store.has(key):
                    continue
                await places.acquire()
                if stopped:
                    break
                under_way[key] = asyncio.create_task(one(key, request))
                under_way[key].add_done_callback(partial(home, key))
            while under_way:  # also after a stop: what is under way is paid for
                await asyncio.wait(set(under_way.values()))
    if stopped:
        raise stopped[0]
    return failures


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
