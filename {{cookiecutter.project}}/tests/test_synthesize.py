"""The stage itself with an endpoint teacher, from a task and params.yaml to its records, against the local server."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import test_asking
from ruamel.yaml import YAML
from teacher_server import answer_of

from pipeline import synthesize
from slm.asking import requests_of
from slm.errors import UserError
from slm.files import read_jsonl, write_jsonl, write_text
from slm.params import load_params
from slm.store import Store
from slm.task import load_task

ROOT = Path(__file__).parents[1]
serve, quick = test_asking.serve, test_asking.quick  # the local server, a key, and short waits
FORM = """\
name: lamps
kind: json
class_field: name
instruction: Answer as JSON.
answer_schema: {type: object, required: [name, arguments], properties: {name: {enum: [set_light, none]}, arguments: {type: object}}}
"""
JOBS = ["switch the {} lamp on", "please dim what hangs in the {}", "is it dark outside the {} yet", "sing me a song about the {}"]
PLACES = ["kitchen", "office", "garage", "attic", "cellar", "shed"]


def chat(text: str, answer: str | None = None) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}] + ([{"role": "assistant", "content": answer}] if answer else [])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task of a few lamps and the parameters of this project."""
    monkeypatch.chdir(tmp_path)
    write_text(Path("task/task.yaml"), FORM)
    answers = ('{"name":"set_light","arguments":{"room":"%s"}}', '{"name":"none","arguments":{}}')
    for split, places in {"train": PLACES[:4], "validation": PLACES[4:5], "test": PLACES[5:]}.items():
        rows = [(job.format(place), answers[j > 1].replace("%s", place), j) for place in places for j, job in enumerate(JOBS)]
        write_jsonl(
            Path(f"task/{split}.jsonl"),
            [{"id": f"{split}-{i}", "messages": chat(t, a), "tags": [f"job{j}"]} for i, (t, a, j) in enumerate(rows)],
        )
    write_jsonl(
        Path("task/prompts.jsonl"), [{"id": f"p{i}", "messages": chat(f"I want light number {i} on" + "!" * (i % 2))} for i in range(12)]
    )
    return tmp_path


def point_to(
    server: test_asking.Server, filters: dict[str, Any] | None = None, generate: dict[str, Any] | None = None, **endpoint: Any
) -> None:
    """params.yaml as it ships, with the endpoint at the local server."""
    yaml = YAML()
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["models"] |= {"source": "wheel", "license": "Apache-2.0"}  # in the template these are not written yet
    params["package"]["name"] = "lamps"
    chosen = params["synthesize"]
    chosen |= {"teacher": "endpoint"}
    local = {"base_url": f"{server.url}/v1", "model": "big", "api_key_env": "PLANTED_KEY", "concurrency": 4, "timeout_s": 5, "attempts": 2}
    chosen["endpoint"] |= local | {"price": {"input": 1.0, "output": 2.0}} | endpoint
    chosen["filters"] |= filters or {}
    if generate:
        chosen["generate"] |= generate
    yaml.dump(params, Path("params.yaml"))


def run(capfd: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], str]:
    """The records, and what was said."""
    synthesize.main()
    return read_jsonl(synthesize.RECORDS), capfd.readouterr().err


def test_the_answer_that_most_agree_on_is_kept(project: Path, serve, capfd):
    server = serve("--remember", "--waver", "0.3")
    point_to(server, answers=5)
    rows, said = run(capfd)
    assert server.stats()["asked"] == 60 and server.stats()["repeated"] == 0  # five requests to each prompt, no two the same
    assert "60 requests to send" in said
    likeliest = []
    for row in rows:
        asked = requests_of(load_params().synthesize, load_task(), [row["messages"][:1]], 5)
        given = [answer_of(request, 0.3) for _, request in asked]
        ((most, count),) = Counter(given).most_common(1)
        assert row["messages"][1]["content"] == most and row["dropped"] is None
        assert (row["provenance"]["answers"], row["provenance"]["agreement"]) == (5, count / 5)
        likeliest.append(given[0] == most)
    assert set(likeliest) == {True, False}  # it is not always the first
    before, logprobs = synthesize.RECORDS.read_bytes(), synthesize.LOGPROBS.read_bytes()

    # A replay: no key, no server, the same bytes. And a filter, switched on and off again, needs no request either.
    server.close()
    del os.environ["PLANTED_KEY"]
    assert run(capfd)[0] == rows and (synthesize.RECORDS.read_bytes(), synthesize.LOGPROBS.read_bytes()) == (before, logprobs)
    point_to(server, answers=5, filters={"agreement": 0.7})
    dropped = {r["provenance"]["prompt"]: r["dropped"] for r in run(capfd)[0] if r["dropped"]}
    assert set(dropped) == {r["provenance"]["prompt"] for r in rows if r["provenance"]["agreement"] < 0.7}
    assert all(why.startswith("agreement: 0.60 between 5 answers, less than 0.7") for why in dropped.values())


def test_fewer_answers_are_taken_from_those_that_are_paid(project: Path, serve, capfd):
    server = serve("--remember")
    point_to(server)
    first, _ = run(capfd)
    assert "agreement" not in first[0]["provenance"]
    point_to(server, answers=3)
    assert run(capfd)[0] != first and server.stats()["asked"] == 36  # the likeliest answer was there
    point_to(server, answers=2)
    run(capfd)
    assert server.stats()["asked"] == 36


def test_answers_are_told_apart_where_the_server_takes_no_seed(project: Path, serve, capfd):
    server = serve()
    point_to(server, answers=3, extra={"seed": None})
    run(capfd)
    assert server.stats()["asked"] == 36


def test_a_budget_counts_every_answer(project: Path, serve, capfd):
    server = serve()
    point_to(server, answers=4, budget={"usd": None, "tokens": None, "requests": 30})
    with pytest.raises(SystemExit):
        run(capfd)
    assert server.stats()["answered"] == 30 and "budget.requests" in capfd.readouterr().err
    store = Store()
    assert store.spent().requests == 30
    store.close()


def test_agreement_of_one_answer_is_refused(project: Path, serve):
    point_to(serve(), filters={"agreement": 0.5})
    with pytest.raises(UserError, match="answers of 2 or more"):
        load_params()
