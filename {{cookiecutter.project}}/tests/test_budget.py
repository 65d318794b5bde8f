"""What asking may cost is known, and agreed to, before the first request."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from test_asking import settings as asked

from slm.config.synthesis import Endpoint
from slm.errors import UserError
from slm.teacher.budget import Budget, Estimate, approve, estimate, worst_case
from slm.teacher.store import Spent, Store

REQUEST = {"model": "big", "messages": [{"role": "user", "content": "naïve"}], "max_tokens": 100}


def endpoint(**changes: Any) -> Endpoint:
    base = {
        "base_url": "http://127.0.0.1/v1",
        "model": "big",
        "api_key_env": "KEY",
        "concurrency": 10,
        "timeout_s": 2,
        "attempts": 3,
        "patience_s": 5,
        "answers": 1,
        "rationale": False,
        "response_format": "none",
        "top_logprobs": None,
        "model_change": "stop",
        "extra": {},
        "price": {"input": 1.0, "output": 2.0},
        "budget": {"usd": None, "tokens": None, "requests": None},
        "ask_above_usd": 1.0,
    }
    return Endpoint.model_validate(base | changes)


def planned(usd_most: float | None) -> Estimate:
    return Estimate(10, 0, 100, 100, usd_most, usd_most, 1.0)


def test_the_worst_case_is_a_token_for_each_byte_and_the_full_answer():
    cost = worst_case(asked("https://x"), REQUEST)
    assert (cost.tokens_in, cost.tokens_out) == (6 + 2 * 16, 100) and cost.usd == pytest.approx(238e-6)
    longer = worst_case(
        asked("https://x"),
        REQUEST | {"max_completion_tokens": 300, "response_format": {"type": "json_object"}},
    )
    assert longer.tokens_out == 300 and longer.tokens_in > cost.tokens_in


def test_a_limit_that_is_taken_out_is_reckoned_with_all_the_same():
    request = {name: value for name, value in REQUEST.items() if name != "max_tokens"}
    assert worst_case(asked("https://x"), request).tokens_out == 50  # max_new_tokens
    assert worst_case(asked("https://x", rationale=True), request).tokens_out == 50 + 512
    assert worst_case(asked("https://x"), request | {"max_completion_tokens": 300}).tokens_out == 300


@pytest.mark.parametrize("limit", ["100", 0, -5, 1.5, True])
def test_a_limit_that_is_no_number_of_tokens_is_refused(limit: Any):
    with pytest.raises(ValueError, match=r"extra.max_tokens is .*: write a whole number of tokens, or null"):
        endpoint(extra={"max_tokens": limit})


@pytest.mark.parametrize(("field", "limit"), [("requests", 2), ("tokens", 300), ("usd", 0.0005)])
def test_no_more_is_let_out_than_the_worst_case_allows(field: str, limit: float):
    async def run() -> None:
        settings = asked("https://x", budget={"usd": None, "tokens": None, "requests": None} | {field: limit})
        budget, cost = Budget(settings.endpoint, Spent()), worst_case(settings, REQUEST)
        await budget.reserve(cost)
        await budget.reserve(cost)
        third = asyncio.create_task(budget.reserve(cost))  # it waits for what the others really cost
        await asyncio.sleep(0)
        assert not third.done() and budget.lost().requests == 2
        budget.not_served(cost)
        await asyncio.wait_for(third, 1)
        budget.no_answer(cost)
        budget.no_answer(cost)
        with pytest.raises(UserError, match=rf"synthesize.endpoint.budget.{field}"):
            await budget.reserve(cost)

    asyncio.run(run())


def test_what_earlier_runs_spent_counts():
    async def run() -> None:
        settings = asked("https://x", budget={"usd": None, "tokens": None, "requests": 5})
        with pytest.raises(UserError, match="5 of 5 requests"):
            await Budget(settings.endpoint, Spent(5, 0, 0.0)).reserve(worst_case(settings, REQUEST))

    asyncio.run(run())


def test_an_estimate_learns_from_earlier_answers(tmp_path: Path):
    store = Store(tmp_path / "answers.sqlite")
    first = estimate(endpoint(), 100, store, requests=1000, stored=0, most_in=400_000)
    assert (
        first.usd == pytest.approx(0.1 + 0.2)
        and first.usd_most == pytest.approx(0.4 + 0.2)
        and first.minutes == pytest.approx(1000 * 2.5 / 10 / 60)
    )
    store.put(
        {
            "a": {
                "text": "x",
                "model": "big",
                "usage": {"prompt_tokens": 9, "completion_tokens": 20},
                "usd": 0.1,
                "seconds": 0.5,
            }
        }
    )
    second = estimate(endpoint(), 100, store, requests=1000, stored=1, most_in=400_000)
    assert second.tokens_out == 20_000 and second.minutes == pytest.approx(1000 * 0.5 / 10 / 60)
    assert "at most 0.60 USD" in str(second) and "1 answers are in the store" in str(second)
    assert "price unknown" in str(
        estimate(endpoint(price={"input": None, "output": 1.0}), 100, store, 1, 0, 1)
    )
    store.close()


def test_a_small_sum_needs_no_yes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TEACHER_SPEND_USD", raising=False)
    approve(endpoint(), planned(0.99))
    approve(endpoint(ask_above_usd=None), planned(None))


@pytest.mark.parametrize("most", [1.01, 500.0, None])
def test_a_large_or_unknown_sum_stops_where_nobody_can_say_yes(
    monkeypatch: pytest.MonkeyPatch, most: float | None
):
    monkeypatch.delenv("TEACHER_SPEND_USD", raising=False)
    with pytest.raises(UserError, match="TEACHER_SPEND_USD="):
        approve(endpoint(), planned(most))
    monkeypatch.setenv("TEACHER_SPEND_USD", "500")
    approve(endpoint(), planned(most))
    monkeypatch.setenv("TEACHER_SPEND_USD", "lots")
    with pytest.raises(UserError, match="not an amount"):
        approve(endpoint(), planned(most))


def test_the_sum_that_is_named_is_enough(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TEACHER_SPEND_USD", raising=False)
    with pytest.raises(UserError) as refused:
        approve(endpoint(), planned(8.1307))
    monkeypatch.setenv("TEACHER_SPEND_USD", str(refused.value).split("TEACHER_SPEND_USD=")[1].split()[0])
    approve(endpoint(), planned(8.1307))


@pytest.mark.parametrize(("line", "fine"), [("y\n", True), ("n\n", False), ("", False)])
def test_a_person_is_asked(monkeypatch: pytest.MonkeyPatch, line: str, fine: bool):
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return line

        def write(self, _: str) -> None: ...

        def flush(self) -> None: ...

    monkeypatch.delenv("TEACHER_SPEND_USD", raising=False)
    monkeypatch.setattr("slm.teacher.budget.sys.stdin", Terminal())
    monkeypatch.setattr("slm.teacher.budget.sys.stderr", Terminal())
    if fine:
        approve(endpoint(), planned(20.0))
    else:
        with pytest.raises(UserError, match="nothing was spent"):
            approve(endpoint(), planned(20.0))


@pytest.mark.parametrize(
    "url",
    [
        "https://user:key@host/v1",
        "https://host/v1?key=1",
        "host/v1",
        "https://host/v1#x",
        "file:///etc",
        "https://ho st/",
    ],
)
def test_an_address_holds_no_key(url: str):
    with pytest.raises(ValueError, match="base_url"):
        endpoint(base_url=url)


def test_a_budget_in_money_needs_prices():
    with pytest.raises(ValueError, match="both prices"):
        endpoint(price={"input": None, "output": 1.0}, budget={"usd": 1.0, "tokens": None, "requests": None})
