"""The runtime of the shipped variant: ONNX Runtime GenAI, on the CPU, greedy."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import onnxruntime_genai as og

from slm.errors import UserError

og.disable_telemetry_events()

LARGEST_BATCH = 32  # the runtime takes no larger one


@dataclass(frozen=True)
class Reply:
    """ttft_ms: prompt in to first token out; request_ms: whole answer (both None in a batch, whose rows share
    their time).
    """

    text: str
    token_ids: list[int]
    cut: bool
    ttft_ms: float | None = None
    request_ms: float | None = None


def context_length(folder: Path) -> int:
    """Tokens of prompt and answer together that a package takes."""
    config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    return int(config["model"]["context_length"])


class GenAI:
    def __init__(self, folder: Path, threads: int | None = None) -> None:
        config = og.Config(str(folder))
        if threads is not None:
            config.overlay(
                json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}})
            )
        self.model = og.Model(config)
        self.tokenizer = og.Tokenizer(self.model)
        self.end_ids = set(self.tokenizer.eos_token_ids.tolist())
        self.folder, self.context = folder, context_length(folder)

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of the prompt, by the package's own chat template and tokenizer."""
        text = self.tokenizer.apply_chat_template(
            json.dumps(messages, ensure_ascii=False), add_generation_prompt=True
        )
        return self.tokenizer.encode(text).tolist()

    def _generator(self, rows: int, max_length: int) -> og.Generator:
        if max_length > self.context:
            raise UserError(
                f"{self.folder}: prompt and answer may have {max_length} tokens, more than the context of "
                f"{self.context}; shorten the request, or raise models.context and make the model again"
            )
        params = og.GeneratorParams(self.model)
        params.set_search_options(do_sample=False, batch_size=rows, max_length=max_length)
        return og.Generator(self.model, params)

    def _reply(
        self, answer: list[int], ttft_ms: float | None = None, request_ms: float | None = None
    ) -> Reply:
        ended = answer[-1] in self.end_ids
        text = self.tokenizer.decode(answer[:-1] if ended else answer)
        return Reply(text, answer, not ended, ttft_ms, request_ms)

    def ask(
        self, prompt_ids: list[int], max_new_tokens: int, stop: Callable[[], bool] | None = None
    ) -> Reply:
        """One request, as a user makes it, with its times; cut after the token at which `stop` says so."""
        start = time.perf_counter()
        generator = self._generator(1, len(prompt_ids) + max_new_tokens)
        generator.append_tokens(prompt_ids)
        answer: list[int] = []
        first = start
        while len(answer) < max_new_tokens:
            generator.generate_next_token()
            answer.append(int(generator.get_next_tokens()[0]))
            if len(answer) == 1:
                first = time.perf_counter()
            if answer[-1] in self.end_ids or (stop is not None and stop()):
                break
        end = time.perf_counter()
        return self._reply(answer, 1000 * (first - start), 1000 * (end - start))

    def ask_all(
        self, prompts: list[list[int]], batch_size: int, max_new_tokens: int
    ) -> Iterator[tuple[int, Reply]]:
        """Yield (index of the prompt, reply): prompts of the same length share a batch, so that nothing is
        padded.
        """
        batch_size = min(batch_size, LARGEST_BATCH)
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        for length, group in groupby(order, key=lambda i: len(prompts[i])):
            indices = list(group)
            for start in range(0, len(indices), batch_size):
                rows = indices[start : start + batch_size]
                generator = self._generator(len(rows), length + max_new_tokens)
                generator.append_tokens([prompts[i] for i in rows])
                answers: dict[int, list[int]] = {i: [] for i in rows}
                running = set(rows)
                for _ in range(max_new_tokens):
                    generator.generate_next_token()
                    for i, token in zip(rows, generator.get_next_tokens(), strict=True):
                        if i in running:
                            answers[i].append(int(token))
                            if int(token) in self.end_ids:
                                running.discard(i)
                    if not running:
                        break
                for i in rows:
                    yield i, self._reply(answers[i])

    def first_logits(self, prompt_ids: list[int]) -> list[float]:
        """Logits of the first answer token: [vocabulary]."""
        generator = self._generator(1, len(prompt_ids) + 1)
        generator.append_tokens(prompt_ids)
        return generator.get_logits().reshape(-1).tolist()
