"""The cost of requests: an estimate before the first one, and a budget that is never exceeded. The budget
counts requests under way too.

A request is sent only if the budget also covers its worst case: a token for each byte of its text (no
tokenizer makes more), and its full `max_tokens`. When the answer arrives, the usage that the endpoint reports
replaces the worst case. A request that was sent and got no answer counts as its worst case, since it may have
been billed.
"""

import asyncio
import json
import math
import os
import sys
from dataclasses import dataclass
from typing import Any

from slm.config.synthesis import LIMITS_OF_ANSWER, Endpoint, Synthesize
from slm.errors import UserError
from slm.teacher.rationale import TOKENS
from slm.teacher.store import Spent, Store

MESSAGE_TOKENS = 16  # what a chat template puts around a message, at most
APPROVAL = "TEACHER_SPEND_USD"
NOTHING_SPENT = Spent()


@dataclass(frozen=True)
class Cost:
    """Of one request, at worst or as billed."""

    tokens_in: int
    tokens_out: int
    usd: float

    def spent(self) -> Spent:
        return Spent(1, self.tokens_in + self.tokens_out, self.usd)


def dollars(settings: Endpoint, tokens_in: float, tokens_out: float) -> float | None:
    price = settings.price
    if price.input is None or price.output is None:
        return None
    return (
        (tokens_in * price.input + tokens_out * price.output) / 1e6 * (price.batch if settings.batch else 1)
    )


def text_bytes(request: dict[str, Any]) -> int:
    texts = sum(
        len((m["content"] or json.dumps(m.get("tool_calls", ""), ensure_ascii=False)).encode())
        for m in request["messages"]
    )
    return texts + (len(json.dumps(request["response_format"])) if "response_format" in request else 0)


def most_tokens(settings: Synthesize) -> int:
    return settings.max_new_tokens + (TOKENS if settings.endpoint.rationale else 0)


def allowed_tokens(settings: Synthesize, request: dict[str, Any]) -> int:
    """The most that the answer to a request may have; the settings' own limit where `extra` took the
    request's out.
    """
    limits = [request.get(name) or 0 for name in LIMITS_OF_ANSWER]
    return max(limits) or most_tokens(settings)


def worst_case(settings: Synthesize, request: dict[str, Any]) -> Cost:
    tokens_in = text_bytes(request) + MESSAGE_TOKENS * (len(request["messages"]) + 1)
    tokens_out = allowed_tokens(settings, request)
    return Cost(tokens_in, tokens_out, dollars(settings.endpoint, tokens_in, tokens_out) or 0.0)


class Budget:
    def __init__(self, settings: Endpoint, before: Spent, earlier: Spent = NOTHING_SPENT) -> None:
        """before: by all runs; earlier: what of it the earlier rounds of this run asked and have no answer
        to.
        """
        self._limits, self._before, self._earlier = settings.budget, before, earlier
        self.paid = Spent()  # in this run
        self.unanswered = Spent()  # asked, and no answer came: worst case
        self._under_way = Spent()
        self._changed = asyncio.Event()

    def lost(self) -> Spent:
        """What a kill at this moment would leave unanswered of this run."""
        lost = Spent()
        for part in (self._earlier, self.unanswered, self._under_way):
            _add(lost, part)
        return lost

    def _total(self, field: str) -> float:
        return sum(getattr(s, field) for s in (self._before, self.paid, self.unanswered, self._under_way))

    def _too_much(self, cost: Cost) -> str | None:
        more = cost.spent()
        for field in ("usd", "tokens", "requests"):
            limit = getattr(self._limits, field)
            if limit is not None and self._total(field) + getattr(more, field) > limit + 1e-9:
                return field
        return None

    def take(self, cost: Cost) -> None:
        """Reserve the worst case of one more request, or raise UserError."""
        if field := self._too_much(cost):
            raise UserError(self._message(field, cost))
        _add(self._under_way, cost.spent())

    async def reserve(self, cost: Cost) -> None:
        """Wait until the budget has room for the worst case of one more request.

        Raises:
            UserError: it has none, and nothing is under way that could leave some.
        """
        while self._too_much(cost) and self._under_way.requests:
            self._changed.clear()
            await self._changed.wait()
        self.take(cost)

    def _message(self, field: str, cost: Cost) -> str:
        used, limit = self._total(field), getattr(self._limits, field)
        unit = {"usd": "USD", "tokens": "tokens", "requests": "requests"}[field]
        form = ",.4f" if field == "usd" else ",.0f"
        return (
            f"the budget is used up: {used:{form}} of {limit:{form}} {unit}, and the next request may cost "
            f"{getattr(cost.spent(), field):{form}}; "
            f"all answers so far are kept: raise synthesize.endpoint.budget.{field} in params.yaml and run "
            "again"
        )

    def answered(self, cost: Cost, billed: Cost) -> None:
        self._settle(cost)
        _add(self.paid, billed.spent())

    def not_served(self, cost: Cost) -> None:
        """Refused before any work was done: it costs nothing."""
        self._settle(cost)

    def no_answer(self, cost: Cost) -> None:
        """Sent, and perhaps billed."""
        self._settle(cost)
        _add(self.unanswered, cost.spent())

    def _settle(self, cost: Cost) -> None:
        _add(self._under_way, cost.spent(), -1)
        self._changed.set()


def _add(to: Spent, more: Spent, sign: int = 1) -> None:
    to.requests += sign * more.requests
    to.tokens += sign * more.tokens
    to.usd += sign * more.usd


@dataclass
class Estimate:
    """Of all requests that are not in the store. `*_most`: cannot be more, unless answers are lost on the
    way.
    """

    requests: int
    stored: int
    tokens_in: float
    tokens_out: float
    usd: float | None
    usd_most: float | None
    minutes: float | None  # None: in batches, which take what they take
    later: int = 0  # requests of the rounds after this one, in usd_most

    def __str__(self) -> str:
        money = (
            "price unknown (synthesize.endpoint.price)"
            if self.usd is None
            else f"about {self.usd:.2f} USD, at most {self.usd_most:.2f} USD"
        )
        money += f" with up to {self.later:,} requests of the rounds after this one" if self.later else ""
        if self.minutes is None:
            time = "in batches, which mostly take less than 24 hours"
        else:
            time = (
                f"about {self.minutes:.0f} minutes"
                if self.minutes >= 1.5
                else f"about {self.minutes * 60:.0f} seconds"
            )
        return (
            f"{self.requests:,} requests to send, {self.stored:,} answers are in the store; "
            f"about {self.tokens_in:,.0f} tokens in and {self.tokens_out:,.0f} out; {money}; {time}"
        )


def estimate(
    settings: Endpoint,
    max_tokens: float,
    store: Store,
    requests: int,
    stored: int,
    most_in: int,
    later: Spent = NOTHING_SPENT,
) -> Estimate:
    """Of one round; what it may cost at most, with all rounds after it.

    Answers are reckoned as long as those so far, or as long as allowed; for text, a quarter of the worst case
    is the rule of thumb for English.

    Args:
        max_tokens: of an answer, the mean of what is allowed.
        most_in: the requests' worst-case tokens.
        later: the worst case of the rounds after it.
    """
    mean_out, seconds = store.means(settings.model)
    seconds = seconds or 0.5 + max_tokens / 50  # a hosted model writes some 50 tokens a second
    tokens_in, tokens_out = most_in / 4, requests * min(mean_out or max_tokens, max_tokens)
    most = dollars(settings, most_in, requests * max_tokens)
    return Estimate(
        requests=requests,
        stored=stored,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        usd=dollars(settings, tokens_in, tokens_out),
        usd_most=None if most is None else most + later.usd,
        minutes=None if settings.batch else requests * seconds / settings.concurrency / 60,
        later=later.requests,
    )


def approve(settings: Endpoint, planned: Estimate) -> None:
    """Ask the person at the terminal, if it may cost more than `ask_above_usd` or nobody knows what.

    Raises:
        UserError: nobody is there to ask, or the answer is no.
    """
    limit, most = settings.ask_above_usd, planned.usd_most
    if limit is None or (most is not None and most <= limit):
        return
    approved = os.environ.get(APPROVAL, "")
    try:
        allowed = float(approved) if approved else -1.0
    except ValueError:
        raise UserError(f"{APPROVAL} is {approved[:20]!r}, not an amount in USD such as 12.50") from None
    if allowed >= (most or 0.0):
        return
    cost = (
        "an unknown sum, because synthesize.endpoint.price is null"
        if most is None
        else f"up to {most:.2f} USD"
    )
    if sys.stdin.isatty() and sys.stderr.isatty():
        print(f"This may cost {cost}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().casefold() in ("y", "yes"):
            return
        raise UserError("stopped: you answered no; nothing was spent")
    remedy = (
        "set the price (0 for your own server)"
        if most is None
        else f"raise ask_above_usd (now {limit:g}) in params.yaml"
    )
    raise UserError(
        f"asking the endpoint may cost {cost}, and nobody is at the terminal to agree; {remedy}, or export "
        f"{APPROVAL}={math.ceil((most or 1) * 100) / 100:.2f} for this run"
    )
