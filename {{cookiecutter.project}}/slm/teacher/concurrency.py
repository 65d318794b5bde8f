"""The number of requests under way. It rises while answers come, and falls when the endpoint sends 429 or is
late.

This is additive increase and multiplicative decrease, as in TCP. Until the first "slow down" each answer adds
one place. Later each full round adds one. A "slow down" removes a tenth, once for all requests of a round. A
`Retry-After` puts all of them off together.
TCP removes a half, because a queue must drain. An endpoint limits a number of places or a rate. It refuses at
once and has no queue, so a tenth is enough.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime

import httpx2
from anyio import CapacityLimiter

from slm.errors import UserError

START = 16
DECREASE = 0.9
BREAKER = 5  # requests in a row that were given up: the endpoint is broken, not a request


class Pace:
    def __init__(self, most: int, patience: float, where: str) -> None:
        self._limiter = CapacityLimiter(min(START, most))
        self._exact, self._most, self._patience, self._where = float(min(START, most)), most, patience, where
        self._refused_at, self._until, self._failures, self._in_vain = 0.0, 0.0, 0, 0
        self._answered_at, self.ever_answered = time.monotonic(), False
        self._stop = asyncio.Event()

    @property
    def limit(self) -> int:
        return int(self._limiter.total_tokens)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[float]:
        """Wait for a place; yields the time at which the request goes out."""
        async with self._limiter:
            while (wait := self._until - time.monotonic()) > 0 and not self._stop.is_set():
                await self.rest(wait * (1 + random.random() / 10))  # not all at once
            yield time.monotonic()

    async def rest(self, seconds: float) -> None:
        """Sleep, but not past the end of the run."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def stop(self) -> None:
        self._stop.set()

    def answered(self) -> None:
        self._failures, self._in_vain, self._answered_at, self.ever_answered = 0, 0, time.monotonic(), True
        if self._exact < self._most:
            self._exact = min(self._most, self._exact + (1 / self._exact if self._refused_at else 1))
            self._limiter.total_tokens = int(self._exact)

    def slow_down(self, sent: float, wait: float | None, said: str = "too late") -> None:
        """The endpoint has refused or kept waiting a request that went out at `sent`, and asks to come again
        after `wait` seconds.

        Args:
            said: its status and words, without our key.

        Raises:
            UserError: it has put us off for too long.
        """
        now = time.monotonic()
        # What is under way beside the refused one found a place: the endpoint has that many.
        under_way = float(max(1, self._limiter.borrowed_tokens - 1))
        self._exact = min(self._exact, under_way)
        if sent >= self._refused_at:
            self._exact, self._refused_at = max(1.0, self._exact * DECREASE), now
        self._limiter.total_tokens = int(self._exact)
        if wait is None and self._exact < 2:  # even one at a time is too much: wait longer each time
            wait, self._in_vain = min(30.0, 0.1 * 2**self._in_vain), min(self._in_vain + 1, 10)
        self._until = max(self._until, now + (wait or 0))
        if max(now, self._until) - self._answered_at > self._patience:
            raise UserError(
                f"{self._where}: keeps all requests waiting, the last: {said}; has not answered for "
                f"{now - self._answered_at:.0f} s and wants "
                f"{max(0.0, self._until - now):.0f} s more; answers so far are kept: run again later, or "
                "raise synthesize.endpoint.patience_s"
            )

    def gave_up(self, why: str) -> None:
        """A request got no answer in all its attempts.

        Raises:
            UserError: so did the ones before it.
        """
        self._failures += 1
        if self._failures >= BREAKER:
            raise UserError(
                f"{self._where}: {BREAKER} requests in a row got no answer, the last: {why}; answers so far "
                "are kept: run again"
            )


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds. A date counts from the endpoint's own `Date`: its clock and ours need not agree."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < 1e9:
            return seconds
    try:
        until, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
        return max(0.0, (until - now).total_seconds())
    except (KeyError, ValueError, TypeError):  # TypeError: one of them without a time zone
        return None
