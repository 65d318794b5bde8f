"""How fast and in how much memory: against what a bare client gets, and against distilabel."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from slm.teacher.store import Store
from teacher.common import OUTPUT, Figures, File, Server, ask, child, settings, write_prompts

LATENCY = 0.2
# distilabel 1.5.3 is of January 2025: these are the majors that it was made for.
DISTILABEL = ("distilabel[openai]==1.5.3", "openai<2", "huggingface-hub<1", "datasets<4", "setuptools<81")


async def bare(port: int, prompts: Path, places: int) -> float:
    """Seconds that a client needs which only writes requests to sockets and reads the answers."""
    chosen = settings("http://127.0.0.1:1")
    bodies = iter([json.dumps(request).encode() for _, request in File(prompts, chosen)])

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in bodies:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(places)))
    return time.perf_counter() - start


def throughput(scratch: Path, places: int, seconds: float) -> Figures:
    count = int(places / LATENCY * seconds)
    prompts = write_prompts(scratch / f"{places}.jsonl", count)
    with Server("--latency", str(LATENCY), "--limit", str(places)) as server:
        ceiling = count / asyncio.run(bare(server.port, prompts, places))
    ideal = min(places / LATENCY, ceiling)
    figures = {f"bare_client_per_s_{places}": ceiling}
    # First with as many places as the server has; then with four times as many, so that it must find out.
    for name, most in ((f"throughput_fraction_of_ideal_{places}", places), (f"throughput_fraction_found_{places}", 4 * places)):
        with Server("--latency", str(LATENCY), "--limit", str(places)) as server, tempfile.TemporaryDirectory(dir=scratch) as folder:
            end, failures = ask(Path(folder), prompts, server.url, concurrency=most)
            assert not failures
            stats = server.get("stats")
            figures[name] = count / (end - stats["first"]) / ideal
            figures[f"{name}_refused_share"] = stats["refused"] / count
    return figures


def distilabel(scratch: Path, count: int) -> Figures:
    """Requests per second of ours and of distilabel, 64 at once, one request in twenty ten times as slow; distilabel in the better of two shapes."""
    python = OUTPUT.parent / "distilabel" / "bin" / "python"
    if not python.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", str(python.parent.parent)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *DISTILABEL], check=True)
    prompts, flags = write_prompts(scratch / "distilabel.jsonl", count), ("--latency", str(LATENCY), "--tail", "0.05", "--limit", "64")
    ideal = 64 / (LATENCY * (0.95 + 0.05 * 10))
    figures: Figures = {}
    with Server(*flags) as server, tempfile.TemporaryDirectory(dir=scratch) as folder:
        end, failures = ask(Path(folder), prompts, server.url, concurrency=64)
        assert not failures
        figures["long_tail_per_s"] = count / (end - server.get("stats")["first"])
    for batch, replicas in ((64, 1), (16, 4)):
        with Server(*flags) as server:
            command = [str(python), str(Path(__file__).with_name("distilabel_run.py")), server.url, str(prompts), str(batch), str(replicas)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
            # By the server's clock, from the first request to the last answer: its start takes seconds, and is not counted.
            figures[f"distilabel_per_s_{replicas}x{batch}"] = count / server.get("stats")["seconds"]
    best = max(value for name, value in figures.items() if name.startswith("distilabel"))
    shares = {"long_tail_fraction_of_ideal": figures["long_tail_per_s"] / ideal, "distilabel_fraction_of_ideal": best / ideal}
    return figures | shares | {"distilabel_ratio": figures["long_tail_per_s"] / best}


def dedup(count: int, among: int) -> Figures:
    """Minutes and peak memory of a process that looks for near copies in so many short prompts, among the last `among` of them."""
    code = f"""
import resource, sys
from slm.teacher.filters import Sieve
from slm.task.records import Record
off = {{"refusal": False, "secrets": False, "personal": False, "longest_answer": None, "agreement": None, "decontaminate": None, "verify": False}}
sieve = Sieve(load_task(PROJECT / "task" / "task.yaml"), Filters.model_validate(off | {{"near_duplicates": 0.9, "near_duplicates_among": {among}}}), 50, [])
words = [f"word{{i}}" for i in range(997)]
start, copies = time.monotonic(), 0
for i in range({count}):
    # Seven words and a number that no other prompt has, and every tenth prompt twice.
    n = i - (i % 10 == 9)
    said = " ".join(words[(n // 7**j * 31 + j) % 997] for j in range(7)) + f" number {{n}}"
    copies += sieve.prompt_reason(Record(str(i), [{{"role": "user", "content": said}}])) is not None
assert copies == {count} // 10, copies
print((time.monotonic() - start) / 60, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
"""
    process = child(
        "from slm.config.synthesis import Filters\nfrom slm.task.definition import load_task\nfrom teacher import PROJECT\n" + code
    )
    out, err = process.communicate()
    assert process.returncode == 0, err[-2000:]
    minutes, rss = map(float, out.split())
    return {f"dedup_minutes_{count}_among_{among}": minutes, f"dedup_rss_mb_{count}_among_{among}": rss}


def memory(scratch: Path, count: int) -> Figures:
    """Peak memory and time of a process that asks so many requests of a file, of a server that answers at once."""
    prompts = write_prompts(scratch / f"{count}.jsonl", count)
    with Server() as server, tempfile.TemporaryDirectory(dir=scratch) as folder:
        code = f"start = time.monotonic(); end, failures = ask(Path({folder!r}), Path({str(prompts)!r}), {server.url!r}, concurrency=64)\nassert not failures\n"
        code += "import resource; print(end - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)"
        process = child(code)
        out, err = process.communicate()
        assert process.returncode == 0, err[-2000:]
        took, rss = map(float, out.split())
        store = Store(Path(folder) / "answers.sqlite")
        assert store.spent().requests == count
        store.close()
        size = (Path(folder) / "answers.sqlite").stat().st_size
    prompts.unlink()
    return {f"rss_mb_{count}": rss, f"requests_per_s_{count}": count / took, f"store_bytes_per_answer_{count}": size / count}
