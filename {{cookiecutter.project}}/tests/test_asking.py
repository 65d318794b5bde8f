"""The endpoint teacher against a local server with faults to order: no fault is believed, no paid answer is
lost, no key is written.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from teacher_server import BAD, HARMLESS, IDENTITY, TOKEN

from slm.config.synthesis import Synthesize
from slm.errors import UserError
from slm.task.definition import Task
from slm.teacher import concurrency as pace
from slm.teacher.concurrency import retry_after
from slm.teacher.endpoint import EndpointTeacher, requests_of
from slm.teacher.prompt_generation import RECIPES
from slm.teacher.store import Store

KEY = "sk-planted-0123456789"
SERVER = Path(__file__).parent / "teacher_server.py"
FORM = {
    "type": "object",
    "required": ["name", "arguments"],
    "properties": {"name": {"enum": ["set_light", "none"]}},
}
TASK = Task(name="t", kind="json", instruction="Answer as JSON.", answer_schema=FORM)
Ask = Callable[..., dict[str, str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and waits of milliseconds between attempts."""
    monkeypatch.setenv("PLANTED_KEY", KEY)
    monkeypatch.setattr("slm.teacher.client.LONGEST_WAIT", 0.02)


def settings(url: str, **endpoint: Any) -> Synthesize:
    base = {
        "base_url": f"{url}/v1",
        "model": "big",
        "api_key_env": "PLANTED_KEY",
        "concurrency": 4,
        "timeout_s": 2,
        "attempts": 3,
        "patience_s": 5,
        "answers": 1,
        "rationale": False,
        "response_format": "auto",
        "top_logprobs": None,
        "model_change": "stop",
        "extra": {},
        "price": {"input": 1.0, "output": 2.0},
        "budget": {"usd": None, "tokens": None, "requests": None},
        "ask_above_usd": None,
    }
    off = {"refusal": False, "secrets": False, "personal": False, "longest_answer": None, "agreement": None}
    off |= {"decontaminate": None, "near_duplicates": None, "verify": False}
    stage = {"teacher": "endpoint", "prompts": 9, "batch_size": 1, "max_new_tokens": 50, "top_k": 1}
    return Synthesize.model_validate(
        stage
        | {
            "endpoint": base | endpoint,
            "generate": dict.fromkeys(RECIPES, 0),
            "slice_scores": {},
            "filters": off,
        }
    )


def prompts(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"turn the light on, number {i}"}] for i in range(count)]


def ask(
    tmp_path: Path, url: str, count: int = 8, **endpoint: Any
) -> tuple[list[dict[str, Any] | None], dict[str, str]]:
    chosen = settings(url, **endpoint)
    store = Store(tmp_path / "answers.sqlite")
    try:
        requests, teacher = requests_of(chosen, TASK, prompts(count)), EndpointTeacher(chosen, TASK, store)
        failures = teacher.ask(requests)
        return list(teacher.replies(key for key, _ in requests)), failures
    finally:
        store.close()


def written(tmp_path: Path) -> bytes:
    """All files; and what the stores among them hold, which is compressed there."""
    held = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for path in tmp_path.rglob("*.sqlite"):
        store = Store(path)
        held += json.dumps([row["value"] for row in store.paid()], ensure_ascii=False).encode(
            "utf-8", "replace"
        )
        store.close()
    return held


def test_what_is_stored_is_never_asked_again_and_needs_no_key(tmp_path: Path, serve, monkeypatch):
    server = serve("--remember")
    answers, failures = ask(tmp_path, server.url)
    assert not failures and all(
        a and json.loads(a["text"]) and a["model"] == "big" and a["usd"] == pytest.approx(20e-6)
        for a in answers
    )
    server.close()
    monkeypatch.delenv("PLANTED_KEY")
    assert ask(tmp_path, server.url) == (answers, {})


@pytest.mark.parametrize(
    "fault",
    [
        "429",
        "429_wait",
        "429_date",
        "500",
        "503",
        "529",
        "reset",
        "truncated",
        "empty_choices",
        "invalid_utf8",
        "huge",
        "wrong_length",
    ],
)
def test_a_passing_fault_is_asked_again(tmp_path: Path, serve, fault: str):
    server = serve(faults=["ok", fault, fault, "ok"])
    answers, failures = ask(tmp_path, server.url)
    assert not failures and all(a and json.loads(a["text"])["name"] in ("set_light", "none") for a in answers)
    assert server.stats()["asked"] == 10


@pytest.mark.slow
def test_a_late_answer_is_given_up(tmp_path: Path, serve):
    server = serve(faults=["hang", "drip"])
    answers, failures = ask(tmp_path, server.url, timeout_s=2)
    assert not failures and all(answers) and server.stats()["asked"] >= 10  # both once more


def test_only_so_many_as_the_server_allows(tmp_path: Path, serve):
    server = serve("--limit", "5", "--latency", "0.02")
    answers, failures = ask(tmp_path, server.url, count=200, concurrency=32)
    stats = server.stats()
    assert not failures and all(answers) and stats["most"] == 5 and stats["refused"] < 150


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("401", "export a valid key"),
        ("402", "no credit"),
        ("429_quota", "no credit"),
        ("404", "correct synthesize.endpoint"),
        ("302", "final address"),
        ("429_day", "run again later"),
        ("500", "in a row got no answer"),
        ("500_key", "in a row got no answer"),
        ("500_huge", "in a row got no answer"),
        ("empty_choices", "in a row got no answer"),
    ],
)
def test_a_broken_endpoint_stops_the_run_and_the_answers_stay(
    tmp_path: Path, serve, fault: str, says: str, capfd
):
    server = serve("--always", fault, faults=["ok"] * 10)
    with pytest.raises(UserError, match=says) as caught:
        ask(tmp_path, server.url, count=60)
    assert KEY not in str(caught.value) + "".join(capfd.readouterr()) and KEY.encode() not in written(
        tmp_path
    )
    server.close()
    server = serve("--remember")
    store = Store(tmp_path / "answers.sqlite")
    assert store.spent().requests >= 10
    store.close()


def test_a_dead_server_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"127.0.0.1:9/v1: 5 requests in a row .*cannot be reached"):
        ask(tmp_path, "http://127.0.0.1:9")


def test_a_refused_request_costs_the_others_nothing(tmp_path: Path, serve):
    answers, failures = ask(
        tmp_path, serve(faults=["ok", "400", "ok", "413"]).url, concurrency=1, response_format="none"
    )
    assert (
        len(failures) == 2
        and sum(a is None for a in answers) == 2
        and all("refused with 4" in why for why in failures.values())
    )


def test_a_server_without_response_format_is_asked_without(tmp_path: Path, serve, capfd):
    server = serve("--always", "no_format")
    answers, failures = ask(tmp_path, server.url)
    assert not failures and all(a and a["response_format"] is False for a in answers)
    assert "does not take response_format" in capfd.readouterr().err
    with pytest.raises(UserError, match=r"set synthesize.endpoint.response_format: none"):
        ask(tmp_path / "strict", server.url, response_format="json_schema")


def test_log_probabilities_are_kept(tmp_path: Path, serve):
    answers, _ = ask(tmp_path, serve().url, count=1, top_logprobs=2)
    assert answers[0] and answers[0]["logprobs"][0] == ['{"na', -0.1, [["x", -2.5], ["x", -2.5]]]


def test_another_model_under_the_same_name_stops_the_run(tmp_path: Path, serve):
    url = serve("--always", "model_changes").url
    for _ in range(2):  # also when run again
        with pytest.raises(UserError, match="was 'big' at first and is 'small' now"):
            ask(tmp_path, url, count=60)
    answers, _ = ask(tmp_path, url, count=60, model_change="accept")
    assert {a["model"] for a in answers if a} == {"big", "small"}


@pytest.mark.parametrize("fault", sorted(BAD))
def test_no_bad_body_does_harm(tmp_path: Path, serve, fault: str, capfd):
    """Whatever comes, the run ends in time, the key stays secret, and only whole answers are stored."""
    try:
        answers, _ = ask(tmp_path, serve("--always", fault).url, count=2, timeout_s=0.4, attempts=2)
    except UserError:
        answers = []
    assert KEY.encode() not in written(tmp_path) and KEY not in "".join(capfd.readouterr())
    good = [a for a in answers if a and a["finish_reason"] == "stop" and not a["key_sent_back"]]
    if fault in {
        "truncated",
        "empty_body",
        "invalid_utf8",
        "empty_choices",
        "two_choices",
        "content_list",
        "huge",
        "reset",
        "drip",
        "gzip",
    }:
        assert not good


def test_harmless_bodies_are_taken(tmp_path: Path, serve):
    for fault in sorted(HARMLESS):
        answers, failures = ask(tmp_path / fault, serve("--always", fault).url, count=1)
        assert not failures and answers[0] and 0 <= answers[0]["usage"]["prompt_tokens"] < 10**9
    assert KEY.encode() not in written(tmp_path)


@pytest.mark.parametrize("key", ["", "sk-1\n", "sk 1", "schlüssel"])
def test_a_key_that_is_none_is_not_quoted(tmp_path: Path, serve, monkeypatch, key: str):
    monkeypatch.setenv("PLANTED_KEY", key)
    with pytest.raises(UserError) as caught:
        ask(tmp_path, serve().url)
    assert "PLANTED_KEY" in str(caught.value) and (not key or key not in str(caught.value))


@pytest.mark.parametrize(
    "budget", [{"requests": 11}, {"tokens": 1200}, {"usd": 0.0008}, {"requests": 0}], ids=str
)
def test_a_budget_is_never_exceeded(tmp_path: Path, serve, budget: dict[str, float]):
    limits = {"usd": None, "tokens": None, "requests": None} | budget
    server = serve("--latency", "0.02", faults=["ok", "429", "500", "ok", "truncated"])
    for _ in range(3):  # it is for all runs together
        with pytest.raises(UserError, match="budget is used up"):
            ask(tmp_path, server.url, count=200, budget=limits, response_format="none")
    store = Store(tmp_path / "answers.sqlite")
    spent = store.spent()
    store.close()
    assert server.stats()["answered"] == spent.requests
    assert all(limit is None or getattr(spent, name) <= limit for name, limit in limits.items())


def test_what_an_earlier_round_of_a_run_lost_still_counts(tmp_path: Path, serve):
    """Rounds of a run share its store: requests that may have been billed stay in the budget when the next
    round writes its own.
    """
    store = Store(tmp_path / "answers.sqlite")
    server = serve(faults=["ok", "empty_choices", "empty_choices", "empty_choices", "ok", "ok"])
    chosen = settings(server.url, concurrency=1)
    for count in (2, 3):
        EndpointTeacher(chosen, TASK, store).ask(requests_of(chosen, TASK, prompts(count)))
        assert store.unanswered().requests == 3
    assert store.spent().requests == 3 + 3
    store.close()


@pytest.mark.slow
def test_a_kill_loses_no_acknowledged_answer(tmp_path: Path, serve):
    server = serve("--remember", "--latency", "0.01")
    code = f"""
import sys
sys.path[:0] = {[str(SERVER.parent), str(SERVER.parent.parent)]!r}
from pathlib import Path
from test_asking import ask
ask(Path({str(tmp_path)!r}), {server.url!r}, count=400)
"""
    done = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {"PLANTED_KEY": KEY}, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and server.stats()["answered"] < done + 40:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = Store(tmp_path / "answers.sqlite")
        # of 40 answers, at most 8 are asked again and 8 not yet on disk
        assert store.spent().requests >= done + 20
        done = server.stats()["answered"]
        store.close()
    answers, _ = ask(tmp_path, server.url, count=400)
    # under way or not yet on disk when it was killed, and nothing else
    assert all(answers) and server.stats()["repeated"] <= 3 * 8


def test_tokens_of_entra_are_renewed_and_written_nowhere(tmp_path: Path, serve, monkeypatch, capfd, caplog):
    """Azure's own library asks a local server as it asks a managed identity's; each token ends after two
    seconds.
    """
    pytest.importorskip("azure.identity", reason="`slm extra entra` was not run")
    monkeypatch.delenv("PLANTED_KEY")
    server = serve("--tokens", "2", "--latency", "0.1", faults=["ok", "500_key"])
    signed_in(monkeypatch, server.url)
    with caplog.at_level(logging.DEBUG):
        answers, failures = ask(tmp_path, server.url, count=120, concurrency=2, timeout_s=60, auth="entra")
    assert not failures and all(answers) and server.stats()["keys"] >= 3
    assert TOKEN not in "".join(capfd.readouterr()) + caplog.text and TOKEN.encode() not in written(tmp_path)


@pytest.mark.parametrize("fault", ["key_in_answer", "key_in_id", "500_key"])
def test_a_token_that_is_sent_back_goes_no_further(tmp_path: Path, serve, monkeypatch, capfd, fault: str):
    pytest.importorskip("azure.identity", reason="`slm extra entra` was not run")
    server = serve("--tokens", "60", "--always", fault)
    signed_in(monkeypatch, server.url)
    answers, failures = ask(tmp_path, server.url, count=2, attempts=2, timeout_s=60, auth="entra")
    assert len(failures) == 2 or all(a and a["key_sent_back"] for a in answers)
    assert TOKEN not in str(failures) + "".join(capfd.readouterr()) and TOKEN.encode() not in written(
        tmp_path
    )


def test_who_cannot_sign_in_or_may_not_ask_learns_what_to_do(tmp_path: Path, serve, monkeypatch):
    pytest.importorskip("azure.identity", reason="`slm extra entra` was not run")
    server = serve("--tokens", "60", "--always", "403")
    signed_in(monkeypatch, server.url)
    with pytest.raises(UserError, match="role Cognitive Services OpenAI User"):
        ask(tmp_path, server.url, auth="entra")
    assert server.stats()["asked"] > 0
    server = serve("--tokens", "60")
    signed_in(monkeypatch, server.url, identity="another")
    with pytest.raises(UserError, match=r"Entra ID gives no token: .*az login"):
        ask(tmp_path, server.url, auth="entra")
    assert server.stats()["asked"] == 0


def test_entra_without_its_library_says_how_to_get_it(tmp_path: Path, serve):
    """In a process of its own, in which the library cannot be found: whether it is installed or not."""
    code = f"""
import sys
sys.path[:0] = {[str(SERVER.parent), str(SERVER.parent.parent)]!r}
sys.modules["azure"] = None
from pathlib import Path
from test_asking import ask
ask(Path({str(tmp_path)!r}), {serve().url!r}, auth="entra")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode and "UserError" in done.stderr and "`slm extra entra`" in done.stderr


def signed_in(monkeypatch: pytest.MonkeyPatch, url: str, identity: str = IDENTITY) -> None:
    """As on a machine of Azure App Service, and nothing else to sign in with."""
    for name, value in {
        "IDENTITY_ENDPOINT": f"{url}/token",
        "IDENTITY_HEADER": identity,
        "PATH": "",
        "HOME": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)


def test_the_pace_finds_its_limit_and_returns():
    steps = pace.Pace(64, 60, "here")
    for _ in range(200):
        steps.answered()
    assert steps.limit == 64
    for _ in range(60):
        steps.slow_down(time.monotonic(), None)
        time.sleep(0.001)
    assert steps.limit == 1
    for _ in range(3000):
        steps.answered()
    assert steps.limit == 64


def test_however_often_in_vain_the_wait_has_an_end():
    steps = pace.Pace(1, 1e9, "here")
    for _ in range(1100):
        steps.slow_down(time.monotonic(), None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "2"}, 2),
        ({"date": "Thu, 26 Oct 2006 10:00:00 GMT", "retry-after": "Thu, 26 Oct 2006 10:00:30 GMT"}, 30),
        ({"date": "Thu, 26 Oct 2006 10:00:00 GMT", "retry-after": "Thu, 26 Oct 2006 09:00:00 GMT"}, 0),
        ({"retry-after": "Thu, 26 Oct 2006 10:00:30 GMT"}, None),  # by which clock?
        ({"date": "Thu, 26 Oct 2006 10:00:00", "retry-after": "Thu, 26 Oct 2006 10:00:30 GMT"}, None),
        ({"date": "today", "retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_goes_by_the_endpoints_own_clock(headers: dict[str, str], seconds: float | None):
    assert retry_after(httpx2.Headers(headers)) == seconds
