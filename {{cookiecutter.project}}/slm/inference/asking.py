"""Ask a model whose process is another than this one: its answers come as lines, and each is checked."""

import math
import os
import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files import read_json
from slm.inference.genai import Reply
from slm.inference.sandbox import RUN_MODULE, SLM, Child, Kind, limits_for

LONGEST_ANSWER = 100_000  # characters
SLACK_MS = 50.0  # between two clocks, and for what is not part of a request
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Answered:
    """prompt_tokens: of the request; rss_mb: peak of the process so far, beyond what the runtime itself
    takes, in 10^6 bytes.
    """

    reply: Reply
    prompt_tokens: int
    rss_mb: float


class Asker:
    """A model in a process of its own; a context that ends it.

    Args:
        folder: of the model.
        threads: that it computes on.
        sandbox: for a model that strangers made.
    """

    def __init__(self, folder: Path, threads: int, max_new_tokens: int, sandbox: Kind | None = None) -> None:
        module = ["-c", RUN_MODULE, str(SLM.parent), "slm.inference.asker", str(folder.resolve())]
        arguments = [*module, "--threads", str(threads), "--max-new-tokens", str(max_new_tokens)]
        limits = limits_for(folder, line_s=10 + 0.25 * max_new_tokens)
        self._folder, self._tokens, self._asked, self._ready = folder, max_new_tokens, 0, False
        self._child = Child(arguments, limits, [folder], sandbox)
        model = read_json(folder / "genai_config.json")["model"]
        self._vocabulary, self._context = model["vocab_size"], model["context_length"]

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *problem: object) -> None:
        self._child.__exit__(*problem)

    def ask(self, messages: Messages) -> Answered:
        """One request, as a user makes it.

        Raises:
            UserError: the model cannot be loaded or asked, or its process said what no model says.
        """
        try:
            if not self._ready:
                self._child.hear()
                self._ready = True
            start = time.perf_counter()
            self._child.tell({"id": self._asked, "messages": messages})
            said = self._child.hear()
            took_ms = 1000 * (time.perf_counter() - start)
        except UserError as error:
            raise UserError(f"{self._folder}: the model cannot be asked: {error}") from None
        if isinstance(said, dict) and isinstance(said.get("error"), str):
            raise UserError(said["error"][:500])
        self._asked += 1
        return self._checked(said, took_ms)

    def _checked(self, said: Any, took_ms: float) -> Answered:
        """The answer, if it has the form of one and the clock of this process does not contradict it."""
        keys = {"id", "prompt_tokens", "rss_mb", "text", "token_ids", "cut", "ttft_ms", "request_ms"}
        if not isinstance(said, dict) or set(said) != keys or said["id"] != self._asked - 1:
            raise self._forged("form")
        tokens, text = said["token_ids"], said["text"]
        if not isinstance(tokens, list) or not 1 <= len(tokens) <= self._tokens:
            raise self._forged("number of tokens")
        if not all(type(t) is int and 0 <= t < self._vocabulary for t in tokens):
            raise self._forged("tokens")
        if not isinstance(text, str) or len(text) > LONGEST_ANSWER or type(said["cut"]) is not bool:
            raise self._forged("text")
        if type(said["prompt_tokens"]) is not int or not 1 <= said["prompt_tokens"] <= self._context:
            raise self._forged("prompt")
        figures = [said[key] for key in ("ttft_ms", "request_ms", "rss_mb")]
        if not all(type(f) is float and math.isfinite(f) and f >= 0 for f in figures):
            raise self._forged("figures")
        first, whole, memory = figures
        if not first <= whole <= took_ms + SLACK_MS:
            raise self._forged("times")
        reply = Reply(text, tokens, said["cut"], first, whole)
        return Answered(reply, said["prompt_tokens"], memory)

    def _forged(self, what: str) -> UserError:
        return UserError(f"{self._folder}: the model cannot be asked: its process gave no answer's {what}")


def ask_singly(
    folder: Path, prompts: list[Messages], max_new_tokens: int, sandbox: Kind | None = None
) -> Iterator[tuple[int, Reply]]:
    """Yield (index of the prompt, reply), each asked alone and on one thread, as a small device does.

    Quantized kernels round differently in a batch, and with another number of threads: this is what a user
    gets. As many processes as cores answer side by side; threads would not, since the runtime holds Python's
    lock while it computes.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores, len(prompts))
    if not count:
        return
    idle: queue.SimpleQueue[Asker] = queue.SimpleQueue()

    def ask(messages: Messages) -> Reply:
        asker = idle.get()
        try:
            return asker.ask(messages).reply
        finally:
            idle.put(asker)

    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        for _ in range(count):
            idle.put(stack.enter_context(Asker(folder, 1, max_new_tokens, sandbox)))
        try:
            yield from enumerate(pool.map(ask, prompts))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
