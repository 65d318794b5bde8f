"""Batches against a local server with faults to order: nothing is paid twice, whatever the files say and
whenever we are killed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from teacher_server import REFUSAL
from test_asking import KEY, SERVER, TASK, ask, prompts, settings, written

from slm.errors import UserError
from slm.teacher.budget import worst_case
from slm.teacher.endpoint import requests_of
from slm.teacher.ledger import ledger_table
from slm.teacher.store import Spent, Store


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and waits of milliseconds."""
    monkeypatch.setenv("PLANTED_KEY", KEY)
    monkeypatch.setattr("slm.teacher.client.LONGEST_WAIT", 0.02)
    monkeypatch.setattr("slm.teacher.batch_client.LONGEST_PAUSE", 0.02)


def batch(
    tmp_path: Path, url: str, count: int = 8, **endpoint: Any
) -> tuple[list[dict[str, Any] | None], dict[str, str]]:
    price = {"input": 1.0, "output": 2.0, "batch": 0.5}
    return ask(
        tmp_path, url, count, **({"batch": True, "response_format": "none", "price": price} | endpoint)
    )


def spent(tmp_path: Path) -> Spent:
    store = Store(tmp_path / "answers.sqlite")
    try:
        return store.spent()
    finally:
        store.close()


@pytest.mark.parametrize("flags", [(), ("--azure",)], ids=["openai", "azure"])
def test_a_batch_brings_the_answers_that_single_requests_bring_at_its_price(
    tmp_path: Path, serve, flags, capfd
):
    server = serve("--remember", *flags)
    answers, failures = batch(tmp_path, server.url)
    single, _ = ask(tmp_path / "single", server.url, response_format="none")
    said = capfd.readouterr().err
    assert not failures and [a and a["text"] for a in answers] == [a and a["text"] for a in single]
    assert all(
        a and a["usd"] == pytest.approx(10e-6) and a["seconds"] is None and a["model"] == "big"
        for a in answers
    )
    assert "8 requests to send" in said and "in batches" in said and "8 of 8 have an answer" in said
    assert server.stats()["batches"] == 1
    server.close()
    assert batch(tmp_path, server.url) == (answers, {})  # no server is needed any more


def test_the_estimate_is_at_the_price_of_a_batch(tmp_path: Path, serve, monkeypatch):
    monkeypatch.delenv("TEACHER_SPEND_USD", raising=False)
    most = sum(
        worst_case(settings("https://x", price={"input": 1.0, "output": 2.0}), r).usd for r in requests(8)
    )
    server = serve()
    with pytest.raises(UserError, match="nobody is at the terminal"):
        batch(tmp_path, server.url, ask_above_usd=most * 0.49)
    assert server.stats()["batches"] == 0
    assert not batch(tmp_path, server.url, ask_above_usd=most * 0.51)[1]


def requests(count: int) -> list[dict[str, Any]]:
    return [
        request
        for _, request in requests_of(settings("https://x", response_format="none"), TASK, prompts(count))
    ]


@pytest.mark.parametrize(
    "fault", ["shuffled", "strangers", "duplicates", "not_json_line", "huge_line", "lost_reply"]
)
def test_odd_files_bring_each_request_its_own_answer(tmp_path: Path, serve, fault: str, capfd):
    server = serve("--batch-faults", json.dumps([fault]), "--remember")
    answers, failures = batch(tmp_path, server.url, count=20)
    expected, _ = batch(tmp_path / "plain", serve().url, count=20)
    assert not failures and [a and a["text"] for a in answers] == [a and a["text"] for a in expected]
    assert len({a["text"] for a in answers if a}) == 2  # or order would not matter
    assert server.stats()["batches"] == 1 and server.stats()["repeated"] == 0
    said = capfd.readouterr().err
    assert ("lines that cannot be read" in said) == (fault in ("strangers", "not_json_line", "huge_line"))
    assert spent(tmp_path) == Spent(20, 300, pytest.approx(200e-6))


@pytest.mark.parametrize("fault", ["expired", "cancelled", "partly", "short_file"])
def test_what_has_no_answer_is_said_and_asked_again_by_the_next_run(tmp_path: Path, serve, fault: str, capfd):
    server = serve("--batch-faults", json.dumps([fault]), "--remember")
    answers, failures = batch(tmp_path, server.url)
    missing = sum(a is None for a in answers)
    assert missing == len(failures) == (2 if fault == "short_file" else 4) and server.stats()["batches"] == 1
    assert all(
        "files say nothing of this" in why if fault == "short_file" else "refused with" in why
        for why in failures.values()
    )
    costs = spent(tmp_path)
    if fault == "short_file":  # it was billed, perhaps: at its worst
        assert costs.requests == 8 and costs.usd > 80e-6
    else:
        assert costs == Spent(4, 60, pytest.approx(40e-6))
    again, failures = batch(tmp_path, server.url)
    assert not failures and all(again) and server.stats()["batches"] == 2
    assert server.stats()["repeated"] == (2 if fault == "short_file" else 0)
    assert KEY not in "".join(capfd.readouterr()) + str(failures) and KEY.encode() not in written(tmp_path)


@pytest.mark.parametrize(
    ("fault", "says"),
    [("failed", "line 1: no model big for"), ("refused", "refuses .400"), ("all_refused", "no request of")],
)
def test_a_batch_that_brings_nothing_stops_the_run_and_costs_nothing(
    tmp_path: Path, serve, fault: str, says: str, capfd
):
    server = serve("--batch-faults", json.dumps([fault]))
    with pytest.raises(UserError, match=says) as caught:
        batch(tmp_path, server.url)
    assert spent(tmp_path) == Spent() and KEY not in str(caught.value) + "".join(capfd.readouterr())
    answers, failures = batch(tmp_path, server.url)  # once it is mended
    assert not failures and all(answers)


@pytest.mark.parametrize(
    "fault",
    [
        "empty_choices",
        "content_list",
        "not_json",
        "truncated",
        "key_in_answer",
        "key_in_id",
        "refusal",
        "usage_huge",
    ],
)
def test_bad_answers_in_a_file_do_no_harm(tmp_path: Path, serve, fault: str, capfd):
    server = serve("--batch-faults", json.dumps([fault]))
    try:
        answers, failures = batch(tmp_path, server.url)
    except UserError as error:
        answers, failures = [], {"": str(error)}
    assert KEY.encode() not in written(tmp_path) and KEY not in "".join(capfd.readouterr()) + str(failures)
    if fault in ("key_in_answer", "key_in_id"):
        assert all(a and a["key_sent_back"] for a in answers)
    if fault == "refusal":
        assert all(a and a["text"] == REFUSAL for a in answers)
    if fault in ("empty_choices", "content_list", "not_json"):
        assert not any(answers) and spent(tmp_path).requests == 8  # billed, perhaps


@pytest.mark.parametrize(
    "faults",
    [["500", "429", "ok", "503", "500", "ok", "429", "ok", "500"], ["429_wait"]],
    ids=["many", "wait"],
)
def test_a_passing_fault_is_asked_again(tmp_path: Path, serve, faults: list[str]):
    server = serve(faults=faults)
    answers, failures = batch(tmp_path, server.url)
    assert not failures and all(answers) and server.stats()["batches"] == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("401", "export a valid key"),
        ("402", "no credit"),
        ("404", "batch: false"),
        ("302", "final address"),
        ("500_key", "run again"),
    ],
)
def test_an_endpoint_without_batches_says_what_to_do(tmp_path: Path, serve, fault: str, says: str):
    with pytest.raises(UserError, match=says) as caught:
        batch(tmp_path, serve("--always", fault).url)
    assert KEY not in str(caught.value)


def test_many_requests_go_in_several_batches_of_bounded_size(tmp_path: Path, serve, monkeypatch):
    monkeypatch.setattr("slm.teacher.batch.MOST_REQUESTS", 3)
    server = serve("--remember")
    answers, failures = batch(tmp_path, server.url)
    assert (
        not failures and all(answers) and server.stats()["batches"] == 3 and server.stats()["repeated"] == 0
    )
    monkeypatch.setattr("slm.teacher.batch.MOST_REQUESTS", 50_000)
    monkeypatch.setattr("slm.teacher.batch.MOST_BYTES", 800)  # a line is 300 bytes
    server = serve("--remember")
    assert not batch(tmp_path / "bytes", server.url)[1] and server.stats()["batches"] == 4


def test_a_budget_holds_the_worst_case_of_all_that_is_under_way(tmp_path: Path, serve):
    """So many at a time as the budget would hold at their worst, as often as what they really cost leaves
    room.
    """
    server = serve()
    worst = worst_case(settings("https://x", response_format="none"), requests(1)[0])
    limits = {"usd": None, "tokens": 3 * (worst.tokens_in + worst.tokens_out), "requests": None}
    with pytest.raises(UserError, match="budget is used up"):
        batch(tmp_path, server.url, count=40, budget=limits)
    costs = spent(tmp_path)
    assert (
        server.stats()["batches"] > 1
        and costs.requests == server.stats()["answered"] > 3
        and costs.tokens <= limits["tokens"]
    )
    assert not batch(tmp_path, server.url, count=40)[1] and server.stats()["answered"] == 40


CHILD = """
import os, signal, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from slm.teacher.store import Store
name, when = {point!r}
if name:
    called = getattr(Store, name)
    def killed(*arguments):
        if when == "after":
            called(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(Store, name, killed)
from test_batch import batch
batch(Path({folder!r}), {url!r}, count=20)
"""


def child(tmp_path: Path, url: str, point: tuple[str, str] = ("", "")) -> subprocess.Popen[str]:
    code = CHILD.format(
        paths=[str(SERVER.parent), str(SERVER.parent.parent)], folder=str(tmp_path), url=url, point=point
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PLANTED_KEY": KEY}, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["begin_batch", "name_batch", "end_batch"])
def test_a_kill_at_any_step_pays_nothing_twice(tmp_path: Path, serve, name: str, when: str):
    server = serve("--remember")
    assert child(tmp_path, server.url, (name, when)).wait() == -signal.SIGKILL
    answers, failures = batch(tmp_path, server.url, count=20)
    assert not failures and all(answers) and len(answers) == 20
    assert server.stats()["batches"] == 1 and server.stats()["repeated"] == 0
    assert spent(tmp_path) == Spent(20, 300, pytest.approx(200e-6))


@pytest.mark.slow
def test_a_kill_while_waiting_leaves_the_batch_to_the_next_run(tmp_path: Path, serve):
    server = serve("--remember", "--batch-s", "8")
    process = child(tmp_path, server.url)
    while server.stats()["batches"] < 1 or spent(tmp_path).requests < 20:  # under way, at its worst
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    store = Store(tmp_path / "answers.sqlite")
    under_way, ledger = store.spent(), ledger_table(store.ledger())
    store.close()
    assert under_way.tokens > 300 and ledger.splitlines()[-1].split()[-1] == "20"
    with pytest.raises(UserError, match="would be paid twice"):  # one by one instead
        ask(tmp_path, server.url, count=20, response_format="none")
    answers, failures = batch(tmp_path, server.url, count=25)  # of which five are new
    assert (
        not failures and all(answers) and server.stats()["batches"] == 2 and server.stats()["repeated"] == 0
    )
    assert spent(tmp_path) == Spent(25, 375, pytest.approx(250e-6))


@pytest.mark.slow
def test_ctrl_c_leaves_the_batch_and_says_how_to_go_on(tmp_path: Path, serve):
    server = serve("--remember", "--batch-s", "4")
    process = child(tmp_path, server.url)
    while server.stats()["batches"] < 1:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert "UserError: stopped; batches" in said and "run again" in said and "batch_1 is under way" in said
    answers, failures = batch(tmp_path, server.url, count=20)
    assert not failures and all(answers) and server.stats()["batches"] == 1


@pytest.mark.slow
def test_a_batch_that_is_gone_can_be_given_up(tmp_path: Path, serve):
    process = child(tmp_path, serve("--batch-s", "60").url)
    while spent(tmp_path).requests < 20:
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    process.wait()
    worst = spent(tmp_path)
    store = Store(tmp_path / "answers.sqlite")
    with pytest.raises(UserError, match="no batch 'batch_7'"):
        store.forget_batch("batch_7")
    assert store.forget_batch("batch_1") == 20
    assert store.spent() == Spent(20, worst.tokens, pytest.approx(worst.usd))  # it counts as paid
    with pytest.raises(UserError):
        store.forget_batch("batch_1")
    store.close()
