"""Whose turn it is: one request at a time, a bounded queue, and an end for what nobody waits for."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from slm.serving.refusal import RequestError

READ_ON_S = 0.05

T = TypeVar("T")


class Turns:
    """Work runs in a thread, in the order of the requests; at most `queue` more requests wait."""

    def __init__(self, queue: int, timeout_s: float) -> None:
        self._queue, self._timeout_s = queue, timeout_s
        self._turn = asyncio.Lock()
        self._scopes: set[anyio.CancelScope] = set()
        self._mean_s = 1.0
        self._closing = False

    async def take(self, request: Request, work: Callable[[Callable[[], bool]], T]) -> T:
        """The result of `work(stop)`, which ends soon after `stop()` says so.

        Raises:
            RequestError: the queue is full (429), the time is over (504), or the server ends (503).
            ClientDisconnect: the client has left.
        """
        if len(self._scopes) > self._queue:
            raise RequestError(
                f"{self._queue} requests wait already; ask again later",
                code="rate_limit_exceeded",
                status=429,
                kind="requests",
                headers={"Retry-After": str(math.ceil(self._mean_s))},
            )
        over = threading.Event()
        with anyio.CancelScope(deadline=anyio.current_time() + self._timeout_s) as scope:
            self._scopes.add(scope)
            watcher = asyncio.create_task(_cancel_when_left(request, scope))
            try:
                async with self._turn:
                    start = time.perf_counter()
                    # anyio waits for the thread, cancelled or not: two never compute at once.
                    result = await anyio.to_thread.run_sync(
                        work, lambda: scope.cancel_called or over.is_set()
                    )
                    self._mean_s += (time.perf_counter() - start - self._mean_s) / 10
            finally:
                over.set()
                watcher.cancel()
                self._scopes.discard(scope)
            if not scope.cancel_called:
                return result
        if await request.is_disconnected():
            raise ClientDisconnect
        if self._closing:
            raise RequestError("the server is being stopped", status=503, kind="server_error")
        raise RequestError(
            f"no answer within {self._timeout_s:g} seconds; ask for fewer tokens",
            code="timeout",
            status=504,
            kind="server_error",
            headers={"x-should-retry": "false"},  # OpenAI's clients would ask for as much again, twice
        )

    def close(self) -> None:
        """End what runs and what waits."""
        self._closing = True
        for scope in self._scopes:
            scope.cancel()


async def _cancel_when_left(request: Request, scope: anyio.CancelScope) -> None:
    # Asked again and again: each time the server reads on from a client that sent more, up to its end.
    told: Message = {}
    while told.get("type") != "http.disconnect":
        with anyio.move_on_after(READ_ON_S):
            told = await request.receive()
    scope.cancel()
