"""A task of four examples and a model of a few thousand weights, made here: no test needs the pipeline's
outputs.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from slm.config.edit import rewrite
from slm.files import write_json, write_jsonl, write_text
from slm.modeling.encoding import encode_answer, use_short_template
from slm.task.definition import Task

# The errors that tests provoke are none of the workflow's that runs them.
os.environ.pop("GITHUB_STEP_SUMMARY", None)

ROOT = Path(__file__).parent.parent
TEXTS = [
    "turn on the kitchen light",
    "set a timer for 5 minutes",
    '{"name":"set_light","arguments":{"room":"kitchen"}}',
    "naïve café 日本 🙂",
]


@pytest.fixture
def task() -> Task:
    return Task(
        name="t",
        kind="json",
        instruction="i",
        class_field="name",
        answer_schema={
            "type": "object",
            "required": ["name", "arguments"],
            "properties": {
                "name": {"enum": ["a", "b"]},
                "arguments": {"type": "object", "properties": {"n": {"type": "integer"}}},
            },
        },
    )


@pytest.fixture(scope="session")
def tiny() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random Llama of 4 layers and a byte-level BPE tokenizer trained on the texts above."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = BpeTrainer(
        vocab_size=2000,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


@pytest.fixture
def write(tmp_path: Path):
    def write(*rows: object) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_text(
            "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8"
        )
        return path

    return write


# What the tiny project's training needs: seconds, and a student that can learn its task by heart.
QUICK = {
    "models": {"source": "wheel", "license": "MIT", "hub": {"repo": "a/b", "revision": "main"}},
    "synthesize": {"teacher": "local"},
    "distill": {
        "layers": 3,
        "probe_examples": 2,
        "probe_rounds": 1,
        "epochs": 12,
        "batch_size": 4,
        "learning_rate": 0.01,
        "rounding": None,
    },
    "finetune": {"method": "full", "epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "rounding": None},
    "evaluate": {"max_new_tokens": 8},
    "package": {"name": "tiny"},
}


def labelled(name: str, count: int) -> list[dict]:
    places, rows = ("kitchen", "garden", "office", "hall", "bedroom"), []
    for i in range(count):
        request, answer = ("turn on the {} light", "light") if i % 2 else ("set a timer in the {}", "timer")
        messages = [("user", request.format(places[i % 5])), ("assistant", answer)]
        rows.append({"id": f"{name}-{i}", "messages": [{"role": r, "content": c} for r, c in messages]})
    return rows


@pytest.fixture
def project(tiny, tmp_path: Path) -> Path:
    """This project with a task of two labels, and what a student is made from as the stages before `distill`
    leave it: a tiny teacher and its answers.
    """
    from slm.modeling.checkpoints import save_model  # seconds, and few tests need it

    folder = tmp_path / "project"
    for name in ("pipeline", "slm", "recipes", "task/expectations"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copyfile(ROOT / name, folder / name)
    # Raw, the template's text asks for another test's names; baked, it is a project's own.
    rewrite(QUICK, folder / "params.yaml")
    write_text(folder / "task/task.yaml", "name: t\nkind: label\ninstruction: i\nlabels: [light, timer]\n")
    for split, count in (("train", 10), ("validation", 10), ("test", 4)):
        write_jsonl(folder / "task" / f"{split}.jsonl", labelled(split, count))
    write_jsonl(
        folder / "task/prompts.jsonl", [{"id": "p", "messages": [{"role": "user", "content": "light"}]}]
    )

    model, tokenizer = copy.deepcopy(tiny)
    use_short_template(tokenizer)
    save_model(model, tokenizer, folder / "models/teacher")
    write_json(folder / "models/base/config.json", {})
    write_json(folder / "models/own/none.json", {})
    synthetic = [row | {"dropped": None} for row in labelled("synthetic", 13)]
    write_jsonl(folder / "data/synthetic.jsonl", synthetic)
    write_jsonl(folder / "data/invented.jsonl", [])
    # The teacher's distribution is known for every other answer.
    answers = [
        encode_answer(tokenizer, row["messages"][-1]["content"]) if i % 2 else []
        for i, row in enumerate(synthetic)
    ]
    ids = np.array([[token, 0, 1] for answer in answers for token in answer])
    values = np.tile(np.log([0.8, 0.1, 0.05]), (len(ids), 1))
    np.savez(
        folder / "data/logprobs.npz", ids=ids, logprobs=values, lengths=[len(answer) for answer in answers]
    )
    for name in ("fetch", "data", "judged", "synthetic", "teach", "curves/teach"):
        write_json(folder / "reports" / f"{name}.json", {"parameters_m": 0.1})
    return folder


class Server:
    """tests/teacher_server.py, in a process of its own."""

    def __init__(self, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "teacher_server.py"), *flags],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def stats(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}/stats") as response:
            return json.load(response)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serve(*flags: str, faults: list[str] | None = None) -> Server:
        servers.append(Server(*flags, *(["--faults", json.dumps(faults)] if faults else [])))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()
