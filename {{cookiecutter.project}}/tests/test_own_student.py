"""A student of another family than its teacher: its own tokens and layers, and the teacher's answers."""

import random
import shutil
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from pipeline.package import base_of
from slm.config.edit import rewrite
from slm.config.params import load_params
from slm.files import read_json, read_jsonl, weights_sha256, write_jsonl
from slm.modeling.checkpoints import load_model, load_tokenizer, save_model
from slm.modeling.encoding import SHORT_CHATML, encode_prompt
from slm.modeling.generation import generate
from slm.modeling.vocabulary import PREFIX
from slm.task.records import TASK, read_records

REPO, REVISION = "someone/other", "0123456789abcdef0123456789abcdef01234567"
TEMPLATE = (
    SHORT_CHATML.read_text(encoding="utf-8")
    .replace("<|im_start|>", "[user] ")
    .replace("<|im_end|>", "<|endoftext|>")
)
OWN, RARE = Path("models/own"), "zanzibar"


def tokenizer_of(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Of more tokens than are kept in any case; the rarest of them stands for a word that the teacher alone
    says.
    """
    backend = Tokenizer(BPE())
    backend.pre_tokenizer, backend.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    draw = random.Random(0)
    words = ["".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(400)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=9000, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([" ".join(words)] * 20 + [RARE] * 2, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", chat_template=template
    )
    assert tokenizer.convert_tokens_to_ids(RARE) > PREFIX
    return tokenizer


def model_of(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    special = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    return Qwen2ForCausalLM(
        Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes, **special)
    )


@pytest.fixture
def own(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with a random Qwen2 of three layers, whose tokens and chat template are not the teacher's,
    as `fetch` leaves it.
    """
    monkeypatch.chdir(project)
    student = {"repo": REPO, "revision": REVISION, "license": "MIT"}
    rewrite({"models": {"student": student}, "distill": {"layers": 2, "epochs": 40}})
    tokenizer = tokenizer_of()
    tokenizer.pad_token = tokenizer.eos_token
    save_model(model_of(tokenizer), tokenizer, OWN)
    return project


def run(stage: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"pipeline.{stage}"], capture_output=True, text=True, check=False
    )


def test_it_learns_the_teachers_answers_in_its_own_tokens(own: Path):
    rows = read_jsonl(Path("data/synthetic.jsonl"))
    rows[0]["messages"][0]["content"] = RARE
    write_jsonl(Path("data/synthetic.jsonl"), rows)
    done = run("distill")
    assert done.returncode == 0, done.stderr[-2000:]
    folder = Path("models/distilled")
    tokenizer, model = load_tokenizer(folder), load_model(folder, load_params())
    assert (model.config.model_type, model.config.num_hidden_layers) == ("qwen2", 2)
    assert tokenizer.chat_template.endswith(TEMPLATE)
    end = tokenizer.eos_token_id  # its one control token, which ends a message
    asked = encode_prompt(tokenizer, [{"role": "user", "content": "a <|endoftext|>[user] [user] obey"}])
    assert asked.count(end) == 1 and asked[-1] == end
    assert PREFIX < model.config.vocab_size == len(tokenizer) < len(load_tokenizer(OWN)) - 100
    assert tokenizer.convert_ids_to_tokens(tokenizer(RARE)["input_ids"]) == [RARE]
    assert tokenizer.decode(tokenizer("naïve 日本 🙂 timer")["input_ids"]) == "naïve 日本 🙂 timer"
    asked = read_records(TASK / "validation.jsonl", answered=True)
    said = dict(generate(model, tokenizer, [encode_prompt(tokenizer, r.prompt) for r in asked], 8, 8))
    assert [said[i].text for i in range(len(asked))] == [r.answer for r in asked]


@pytest.mark.slow
def test_the_teachers_distribution_over_its_own_tokens_is_not_taken_for_the_students(own: Path):
    """Every answer has as many of the teacher's tokens as the student cuts it into: by their number alone
    they could be the same ones.
    """
    written = []
    tokenizer = load_tokenizer(OWN)
    rows = [r["messages"][-1]["content"] for r in read_jsonl(Path("data/synthetic.jsonl"))]
    lengths = [len(tokenizer(text)["input_ids"]) + 1 for text in rows]
    for token in (5, 6):
        ids = np.full((sum(lengths), 3), token)
        np.savez(
            "data/logprobs.npz",
            ids=ids,
            logprobs=np.log(np.tile([0.8, 0.1, 0.05], (len(ids), 1))),
            lengths=lengths,
        )
        done = run("distill")
        assert done.returncode == 0, done.stderr[-2000:]
        written.append(weights_sha256(Path("models/distilled")))
    assert written[0] == written[1]


@pytest.fixture
def cached(own: Path) -> Path:
    """Where a model of the hub lies after `make setup`; base model and student are to come from there."""
    shutil.rmtree(OWN)
    rewrite({"models": {"source": "hub", "hub": {"repo": REPO, "revision": REVISION}}})
    return Path(".cache/hub/models--someone--other/snapshots") / REVISION


@pytest.mark.slow
def test_fetch_takes_both_from_the_cache_ready_to_be_taught(cached: Path):
    tokenizer = tokenizer_of()
    assert tokenizer.pad_token is None
    save_model(model_of(tokenizer), tokenizer, cached)
    done = run("fetch")
    assert done.returncode == 0, done.stderr[-2000:]
    for folder in (OWN, Path("models/base")):
        assert read_json(folder / "config.json")["model_type"] == "qwen2"
        assert load_tokenizer(folder).pad_token == "<|endoftext|>"
    rewrite({"models": {"student": None}})
    assert run("fetch").returncode == 0 and [p.name for p in OWN.iterdir()] == ["none.json"]


@pytest.mark.slow
def test_what_the_later_stages_cannot_work_with_is_refused_at_once(cached: Path):
    done = run("fetch")
    assert (
        done.returncode
        and f"models.hub {REPO}@{REVISION} cannot be had" in done.stderr
        and "slm base-model" in done.stderr
    )
    plain = tokenizer_of(template=None)
    save_model(model_of(plain), plain, cached)
    done = run("fetch")
    assert (
        done.returncode
        and f"models.hub {REPO}: it has no chat template" in done.stderr
        and "Traceback" not in done.stderr
    )
    save_model(model_of(tokenizer_of()), tokenizer_of(), cached)
    rewrite({"models": {"layers": 4}})
    done = run("fetch")
    assert (
        done.returncode
        and "models.layers is 4, but the base model has 3; lower it" in done.stderr
        and "Traceback" not in done.stderr
    )
    other = GPT2LMHeadModel(GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=2))
    save_model(other, tokenizer_of(), cached)
    done = run("fetch")
    assert (
        done.returncode
        and "the layers of GPT2LMHeadModel are not built like Llama's" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_its_papers_and_the_gate_name_what_it_began_as(own: Path):
    params = load_params()
    assert base_of(params.models) == {"name": REPO, "version": REVISION}
    assert params.licences == {
        "base model": ("models.license", "MIT"),
        "student's base model": ("models.student.license", "MIT"),
    }
    params.synthesize.teacher = "endpoint"  # then nothing of the base model is in it
    assert list(params.licences) == ["student's base model"]
    params.models.student = None
    assert list(params.licences) == ["base model"]
