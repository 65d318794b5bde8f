"""The teacher behind an endpoint, as a stage uses it. Stored answers are not requested again, all answers are
read in one way, and one model gives them.
"""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from slm.config.synthesis import Synthesize
from slm.errors import UserError
from slm.task.answers import tidied
from slm.task.definition import Task
from slm.teacher.ask import KeyedRequests, OneModel, ask_one_by_one
from slm.teacher.batch import ask_in_batches
from slm.teacher.budget import NOTHING_SPENT, approve, estimate, worst_case
from slm.teacher.client import Request, key_of, parameters_of, request_of
from slm.teacher.rationale import apart, instruction
from slm.teacher.response import BLANKS, call_as_answer, understood
from slm.teacher.store import Spent, Store

# An answer with what is known of it, None if there is none; and then why.
AnswerOrWhy = tuple[dict[str, Any] | None, str]


def requests_of(
    settings: Synthesize, task: Task, prompts: Iterable[list[dict[str, str]]], each: int = 1
) -> list[tuple[str, Request]]:
    """(key, request) for each prompt, as many in a row as it is to have answers; what the teacher is told
    goes before it.
    """
    system = {"role": "system", "content": instruction(settings.endpoint, task)}
    samples = (
        (request_of(settings, task, [system, *messages], i), i) for messages in prompts for i in range(each)
    )
    return [(key_of(settings.endpoint, request, i), request) for request, i in samples]


@dataclass
class _Found:
    """What the store knows of a round's requests. waiting: the file of a batch that is under way."""

    stored: int = 0
    missing: int = 0
    most_in: int = 0
    most_out: int = 0
    waiting: str | None = None


class EndpointTeacher:
    """Asked through the store, for the length of a stage: to what it may cost a person agrees once."""

    def __init__(self, settings: Synthesize, task: Task, store: Store) -> None:
        self._settings, self._task, self._store = settings, task, store
        self._model, self._agreed = OneModel(settings.endpoint), False

    def answers(
        self, prompts: Iterable[list[dict[str, str]]], each: int = 1, later: Spent = NOTHING_SPENT
    ) -> Iterator[AnswerOrWhy]:
        """To each prompt so many answers, in a row, in the form that the labelled ones have.

        An answer is its reply with the text tidied, the rationale apart, and the parameters of its request.
        One that cannot be told from its rationale keeps its text as it came, and says no_answer.

        Args:
            later: what the rounds after this one cost at worst, to be agreed to with it.

        Raises:
            UserError: the run stopped, or another model answered; what was answered is in the store.
        """
        requests = requests_of(self._settings, self._task, prompts, each)
        failures = self.ask(requests, later)
        keys = [key for key, _ in requests]
        for (key, request), reply in zip(requests, self.replies(keys), strict=True):
            if reply is None:
                yield None, failures.get(key, "")
            else:
                yield self._read(reply) | {"parameters": parameters_of(request)}, ""

    def _read(self, reply: dict[str, Any]) -> dict[str, Any]:
        if called := call_as_answer(self._task, reply):
            # from here on an answer like any other
            rest = {name: value for name, value in reply.items() if name != "tool_calls"}
            return rest | {"text": called, "finish_reason": "stop"}
        rationale, answer = apart(self._settings.endpoint, self._task, reply["text"])
        if answer is None:
            return reply | {"no_answer": True}
        known = {} if rationale is None else {"rationale": rationale}
        return reply | {"text": tidied(self._task, answer).strip(BLANKS)} | known

    def replies(self, keys: Iterable[str]) -> Iterator[dict[str, Any] | None]:
        """What is stored under these keys, in their order and read as of today; None where there is nothing.

        Raises:
            UserError: they are of several models, and params.yaml does not accept that.
        """
        for key in keys:
            reply = self._store.get(key)
            if reply is not None:
                self._model.check(reply)
            yield reply and understood(reply)

    def ask(self, requests: KeyedRequests, later: Spent = NOTHING_SPENT) -> dict[str, str]:
        """Put the answers to all requests into the store; returns why, for the keys that have none.

        With all answers in the store no key and no network is needed.

        Args:
            requests: (key, request), read twice: a list, or an object that opens its file anew.
            later: what the rounds after this one cost at worst, to be agreed to with it.

        Raises:
            UserError: the run stopped; what was answered is in the store.
        """
        settings = self._settings
        found = self._look_up(requests)
        self._store.put({}, hits=found.stored)
        if found.waiting and not settings.endpoint.batch:
            raise UserError(
                "requests are under way in a batch and would be paid twice: set synthesize.endpoint.batch: "
                "true to wait for it, or give it up "
                f"(`slm teacher forget {found.waiting}`)"
            )
        if found.missing:
            self._agree(found, later)
        self._agreed |= bool(found.missing or found.waiting)  # to a batch: before it was sent
        if settings.endpoint.batch and (found.missing or found.waiting):
            return asyncio.run(ask_in_batches(settings, self._store, requests))
        if found.missing:
            return asyncio.run(ask_one_by_one(settings, self._store, requests, found.missing, self._model))
        return {}

    def _look_up(self, requests: KeyedRequests) -> _Found:
        found = _Found()
        for key, request in requests:
            if self._store.has(key):
                self._model.first = self._model.first or self._store.get(key)["model"]
                found.stored += 1
            elif file := self._store.under_way(key):
                found.waiting = file
            else:
                found.missing += 1
                worst = worst_case(self._settings, request)
                found.most_in += worst.tokens_in
                found.most_out += worst.tokens_out
        return found

    def _agree(self, found: _Found, later: Spent) -> None:
        """Say what it may cost, before the first request; a person agrees to it once, for all rounds."""
        endpoint = self._settings.endpoint
        planned = estimate(
            endpoint,
            found.most_out / found.missing,
            self._store,
            found.missing,
            found.stored,
            found.most_in,
            later,
        )
        print(f"{endpoint.model} at {endpoint.base_url}: {planned}", file=sys.stderr, flush=True)
        if not self._agreed:
            approve(endpoint, planned)
