"""What is lost by kill -9, what is believed of a hostile endpoint, where the key shows up, and whether a budget holds."""

import base64
import json
import random
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

from slm.errors import UserError
from slm.task.answers import tidied
from slm.task.definition import load_task
from slm.task.records import Record
from slm.teacher.filters import Sieve
from slm.teacher.store import Store
from teacher import PROJECT
from teacher.common import KEY, Figures, File, Server, ask, child, settings, teacher_of, write_prompts
from teacher_server import BAD, HARMLESS, name_of

ACKNOWLEDGE = """
import os
put, log = Store.put, os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def acknowledged(self, answers, *rest, **more):
    put(self, answers, *rest, **more)
    os.write(log, "".join(key + chr(10) for key in answers).encode())
Store.put = acknowledged
ask(Path({folder!r}), Path({prompts!r}), {url!r}, concurrency=32)
"""


def kills(scratch: Path, times: int, count: int = 10_000) -> Figures:
    """Kill -9 at random points; then go on to the end. Repeated: asked although it was in the store when the process started."""
    prompts, randomness = write_prompts(scratch / "kills.jsonl", count), random.Random(0)
    log, repeated, killed, under_way = scratch / "acknowledged", 0, 0, 0
    with Server("--latency", "0.02", "--remember") as server:
        names = {key: name_of(request).hex() for key, request in File(prompts, settings(server.url))}
        code = ACKNOWLEDGE.format(log=str(log), folder=str(scratch), prompts=str(prompts), url=server.url)
        while killed <= times:
            store = Store(scratch / "answers.sqlite")
            stored, before = {key for key in names if store.has(key)}, server.get("times")
            store.close()
            process = child(code)
            if killed < times:
                while server.get("times") == before and process.poll() is None:
                    time.sleep(0.01)
                time.sleep(randomness.uniform(0, 0.6))
                process.kill()
                assert process.wait() == -9, "all was asked before the last kill: more requests are needed"
                killed += 1
            else:
                assert process.wait() == 0, process.stderr and process.stderr.read()[-2000:]
                killed += 1
            after = server.get("times")
            repeated += sum(after[names[key]] - before.get(names[key], 0) for key in stored)
        under_way = sum(n - 1 for n in server.get("times").values())
    store = Store(scratch / "answers.sqlite")
    acknowledged = log.read_text().split()
    lost = sum(not store.has(key) for key in acknowledged) + sum(not store.has(key) for key in names)
    store.close()
    return {"kills": times, "repeated_requests": repeated, "lost_records": lost, "answers_under_way_when_killed": under_way}


def needles() -> list[bytes]:
    """The key as it might be written."""
    forms = [KEY, urllib.parse.quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode(), KEY.encode().hex(), json.dumps(KEY)[1:-1]]
    return [form.encode() for form in dict.fromkeys(forms)]


def occurrences(*places: Path | str) -> int:
    texts = [p.encode() if isinstance(p, str) else p.read_bytes() for p in places if isinstance(p, str) or p.is_file()]
    return sum(text.count(needle) for text in texts for needle in needles())


def hostile(scratch: Path) -> Figures:
    """Each bad body, alone: is any of it kept for the student? And is the key anywhere in what was written or said, with the client's own log on?"""
    tried = accepted = secrets = 0
    task, limit = load_task(PROJECT / "task" / "task.yaml"), 4
    for fault in [*sorted(set(BAD) - HARMLESS), "500_key", "500_huge", "401", "400", "429_quota", "model_changes"]:
        folder = scratch / fault
        folder.mkdir()
        count = 30 if fault == "model_changes" else 3
        prompts = write_prompts(folder / "prompts.jsonl", count)
        with Server("--always", fault) as server:
            code = f"ask(Path({str(folder)!r}), Path({str(prompts)!r}), {server.url!r}, timeout_s={limit}, attempts=2, price=dict(input=1, output=1))"
            process = child(code, OPENAI_LOG="debug")
            out, err = process.communicate()
            chosen, store = settings(server.url), Store(folder / "answers.sqlite")
            sieve = Sieve(task, chosen.filters, chosen.max_new_tokens, [])
            rows = []
            try:
                keys = [key for key, _ in File(prompts, chosen)]
                for i, answer in enumerate(teacher_of(chosen, store).replies(keys)):
                    text = tidied(task, answer["text"]) if answer else ""
                    reason = sieve.reason(Record(str(i), [{"role": "user", "content": f"{fault} {i}"}]), answer, text)
                    rows.append({"text": text, "dropped": reason, "answer": answer})
            except UserError as error:  # of several models: nothing is taken
                rows = [{"dropped": str(error)}]
            store.close()
            (folder / "records.json").write_text(json.dumps(rows), encoding="utf-8")
        tried += 1
        accepted += any(row["dropped"] is None for row in rows)
        secrets += occurrences(out, err, *folder.iterdir())
        if any(row["dropped"] is None for row in rows):
            print(f"accepted: {fault}: {rows[0]}", file=sys.stderr)
    return {"hostile_answers_tried": tried, "hostile_answers_accepted": accepted, "secrets_found": secrets}


def budgets(scratch: Path) -> Figures:
    """Requests that the server answered beyond what the budget allows, over faults, places and kinds of budget."""
    overrun = tried = 0
    prompts = write_prompts(scratch / "budget.jsonl", 600)
    faults = json.dumps([f for f in ("ok", "500", "truncated", "429", "reset", "ok") for _ in range(8)])
    for places, ordered in ((1, "[]"), (16, "[]"), (64, "[]"), (16, faults), (64, faults)):
        for budget in ({"requests": 100}, {"tokens": 6_000}, {"usd": 0.008}):
            with Server("--latency", "0.02", "--faults", ordered) as server, tempfile.TemporaryDirectory(dir=scratch) as folder:
                limits = {"usd": None, "tokens": None, "requests": None} | budget
                for _ in range(2):
                    try:
                        ask(Path(folder), prompts, server.url, concurrency=places, budget=limits, price={"input": 1.0, "output": 2.0})
                    except UserError as error:
                        assert "budget" in str(error), error
                    else:
                        raise AssertionError("the budget was never reached")
                answered = server.get("stats")["answered"]
                # What an answer costs by the server's own count: 10 tokens in, 5 out.
                used = {"requests": answered, "tokens": answered * 15, "usd": answered * 20e-6}
                overrun += sum(max(0, round((used[name] - limit) / used[name] * answered)) for name, limit in budget.items() if answered)
                tried += 1
    return {"budgets_tried": tried, "budget_overrun_requests": overrun}
