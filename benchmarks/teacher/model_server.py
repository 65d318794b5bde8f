"""A local OpenAI-compatible server over real small models: the project's taught teacher answers, its base model writes new requests.

    PROJECT/.venv/bin/python benchmarks/teacher/model_server.py PROJECT          prints its port, then answers until it is killed

The taught teacher was never told what its job is, so what a client tells it (the system message) is left out; the base model is told all of it. What
waits together is answered together, as a server on a GPU does.
"""

import argparse
import json
import queue
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOGETHER = 16


class Asked:
    def __init__(self, request: dict[str, Any]) -> None:
        self.request, self.done = request, threading.Event()
        self.writes = bool(re.search(r"JSON list of \d+ texts", request["messages"][0]["content"]))
        self.text, self.cut, self.usage, self.failed = "", False, (0, 0), ""


class Models:
    """Both models, and the one thread that asks them."""

    def __init__(self, project: Path) -> None:
        from slm.config.params import load_params
        from slm.modeling.checkpoints import load_model, load_tokenizer

        params = load_params(project / "params.yaml")
        folders = {False: project / "models" / "teacher", True: project / "models" / "base"}
        self.loaded = {writes: (load_model(folder, params).eval(), load_tokenizer(folder)) for writes, folder in folders.items()}
        self.waiting: queue.Queue[Asked] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            all_of_it = [self.waiting.get()]
            while not self.waiting.empty():
                all_of_it.append(self.waiting.get())
            for writes in (False, True):
                kind = [a for a in all_of_it if a.writes == writes]
                for start in range(0, len(kind), TOGETHER):
                    together = kind[start : start + TOGETHER]
                    try:
                        (self._write if writes else self._answer)(together)
                    except Exception as error:  # whatever it is: nobody may wait for ever
                        for asked in together:
                            asked.failed = repr(error)
                            asked.done.set()

    def _answer(self, batch: list[Asked]) -> None:
        from slm.modeling.encoding import encode_prompt
        from slm.modeling.generation import generate

        model, tokenizer = self.loaded[False]
        prompts = [encode_prompt(tokenizer, [m for m in a.request["messages"] if m["role"] != "system"]) for a in batch]
        limit = max(a.request["max_tokens"] for a in batch)
        for i, answer in generate(model, tokenizer, prompts, len(prompts), limit):
            self._say(batch[i], answer.text, answer.cut, (len(prompts[i]), len(answer.token_ids)))

    def _write(self, batch: list[Asked]) -> None:
        import torch

        model, tokenizer = self.loaded[True]
        texts = [tokenizer.apply_chat_template(a.request["messages"], add_generation_prompt=True, tokenize=False) for a in batch]
        given = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
        torch.manual_seed(batch[0].request.get("seed", 0))
        limit = max(a.request["max_tokens"] for a in batch)
        found = model.generate(**given, max_new_tokens=limit, do_sample=True, temperature=batch[0].request["temperature"] or 1.0)
        for row, prompt, asked in zip(found[:, given["input_ids"].shape[1] :], given["attention_mask"], batch, strict=True):
            ended = (row == tokenizer.eos_token_id).nonzero()
            ids = row[: ended[0, 0]] if len(ended) else row
            self._say(asked, tokenizer.decode(ids, skip_special_tokens=True), not len(ended), (int(prompt.sum()), len(ids)))

    @staticmethod
    def _say(asked: Asked, text: str, cut: bool, usage: tuple[int, int]) -> None:
        asked.text, asked.cut, asked.usage = text, cut, usage
        asked.done.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    models: Models
    number = 0

    def do_POST(self) -> None:
        asked = Asked(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.models.waiting.put(asked)
        asked.done.wait()
        Handler.number += 1
        read, written = asked.usage
        message = {"role": "assistant", "content": asked.text}
        body = {
            "id": f"chatcmpl-{self.number}", "object": "chat.completion", "created": 0, "model": asked.request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "length" if asked.cut else "stop"}],
            "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
        }  # fmt: skip
        content = json.dumps({"error": {"message": asked.failed}} if asked.failed else body).encode()
        self.send_response(500 if asked.failed else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: the client says what went wrong."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    arguments = parser.parse_args()
    project = arguments.project.resolve()
    sys.path.insert(0, str(project))
    Handler.models = Models(project)
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
