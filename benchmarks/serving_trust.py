"""Whom the server answers, and for whom it computes: attacks of tests/attacks.py against `python -m slm.serving.server`.

    .venv/bin/python benchmarks/serving_trust.py PROJECT       (with the project's Python; a minute)

The model is the package in dist/. Without one it is the small ONNX model of tests/test_control_tokens.py, in the same runtime.

attacks, attacks_through         requests that must be refused, and those that got what they asked for
twins, twins_refused             honest requests that differ in what is wrong alone, and those that got nothing
flood, flood_answered            requests at once beyond the queue, and those that were not told to come later (429)
longest_ms, single_ms            one longest answer, and one short request
after_hang_ups_ms                a short request right after ten clients asked for the longest answer and left
wait_ratio                       the latter by single_ms
client_works                     1: OpenAI's client gets an answer with the token
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(sys.argv[1]).resolve()
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import openai  # noqa: E402
from attacks import FRIEND, TOKEN, attacks, connect, exchange, read_answers, request, whole  # noqa: E402
from test_control_tokens import of, pack  # noqa: E402
from test_serving import free_port  # noqa: E402

SHORT = b'{"messages": [{"role": "user", "content": "light"}], "max_tokens": 8}'
LONGEST = b'{"messages": [{"role": "user", "content": "light"}]}'  # without a limit: up to the end of the context


def package(folder: Path) -> tuple[Path, str]:
    """A model, and which one it is."""
    if found := sorted(PROJECT.glob("dist/*/model")):
        return found[0], f"the package {found[0].parent.name}"
    folder.mkdir()
    return pack(of("chatml"), "chatml", folder), "the small model of the tests"


@contextlib.contextmanager
def served(model: Path, port: int) -> Iterator[None]:
    words = ["--model", str(model), "--port", str(port), "--allow-host", "friend", "--allow-origin", FRIEND]
    process = subprocess.Popen([sys.executable, "-m", "slm.serving.server", *words], cwd=PROJECT, env=os.environ | {"SLM_TOKEN": TOKEN})
    try:
        while True:
            with contextlib.suppress(OSError):
                connect(port).close()
                break
            assert process.poll() is None
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def asked_ms(port: int, body: bytes = SHORT) -> float:
    start = time.perf_counter()
    assert exchange(port, request(port, body=body))[0].status == 200
    return 1000 * (time.perf_counter() - start)


def leave(port: int, clients: int) -> list[int]:
    """Ask for so many longest answers at once; the statuses of those beyond the queue, before all others leave."""
    asking = [connect(port) for _ in range(clients)]
    for client in asking:
        client.sendall(request(port, body=LONGEST))
    time.sleep(0.2)
    told = [read_answers(whole(client))[0].status for client in asking[9:]]
    for client in asking:
        client.close()
    time.sleep(0.01)  # the ends arrive before the next request
    return told


def figures() -> dict[str, float]:
    """The names above, and their values."""
    with tempfile.TemporaryDirectory() as folder:
        model, kind = package(Path(folder) / "model")
        print(f"The model is {kind}.")
        port = free_port()
        with served(model, port):
            cases = attacks(port).values()
            got = [[answer.status for answer in exchange(port, raw)] for raw, _, _ in cases]
            twins = [[answer.status for answer in exchange(port, raw)] for _, _, raw in cases]
            single, longest = statistics.median(asked_ms(port) for _ in range(20)), asked_ms(port, LONGEST)
            leave(port, 10)
            after = asked_ms(port)
            flood = leave(port, 40)
            talk = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=TOKEN, max_retries=0).chat.completions
            said = talk.create(model="m", messages=[{"role": "user", "content": "light"}], max_tokens=8)
        through = sum(bool(statuses) and statuses[0] < 300 for statuses in got)
        times = {"longest_ms": longest, "single_ms": single, "after_hang_ups_ms": after, "wait_ratio": after / single}
        requests = {"attacks": len(got), "attacks_through": through, "twins": len(twins), "twins_refused": sum(t != [200] for t in twins)}
        floods = {"flood": len(flood), "flood_answered": sum(status != 429 for status in flood)}
        return requests | floods | times | {"client_works": float(bool(said.choices[0].message.content))}


if __name__ == "__main__":
    for name, value in figures().items():
        print(f"{name:<18} {value:>9.4g}")
