"""A student of another family than its teacher: its own tokens and layers, and the teacher's answers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from pipeline.package import base_of
from slm.chat import encode_prompt
from slm.files import read_jsonl, weights_sha256
from slm.generation import generate
from slm.models import load_model, load_tokenizer, save_model
from slm.params import load_params, rewrite
from slm.records import TASK, read_records

REPO, REVISION = "someone/other", "0123456789abcdef0123456789abcdef01234567"
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"


@pytest.fixture
def hub(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with a random Qwen2 of three layers, whose tokens and chat template are not the teacher's; the project's student is to be one of it."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(["the quick brown fox", "a light in the garden"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1}
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes, **special))
    save_model(model, tokenizer, tmp_path / "hub" / "models--someone--other" / "snapshots" / REVISION)
    rewrite(
        {"models": {"student": {"repo": REPO, "revision": REVISION, "license": "MIT"}}, "distill": {"layers": 2, "epochs": 40}},
        project / "params.yaml",
    )
    monkeypatch.chdir(project)
    return tmp_path / "hub"


def distill(cache: Path) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-m", "pipeline.distill"], env=variables, capture_output=True, text=True, check=False)


def test_it_learns_the_teachers_answers_in_its_own_tokens(hub: Path):
    done = distill(hub)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = Path("models/distilled")
    tokenizer, model = load_tokenizer(folder), load_model(folder, load_params())
    assert (model.config.model_type, model.config.num_hidden_layers, tokenizer.chat_template) == ("qwen2", 2, TEMPLATE)
    # The synthetic answers' tokens stay whole, though this tokenizer never saw them and the embedding was cut.
    assert tokenizer.decode(tokenizer("naïve 日本 🙂 timer")["input_ids"]) == "naïve 日本 🙂 timer"
    asked = read_records(TASK / "validation.jsonl", answered=True)
    said = dict(generate(model, tokenizer, [encode_prompt(tokenizer, r.prompt) for r in asked], 8, 8))
    assert [said[i].text for i in range(len(asked))] == [r.answer for r in asked]


def test_the_teachers_distribution_over_its_own_tokens_is_not_taken_for_the_students(hub: Path):
    """Every answer has as many of the teacher's tokens as the student cuts it into: by their number alone they could be the same ones."""
    written = []
    tokenizer = load_tokenizer(hub / "models--someone--other" / "snapshots" / REVISION)
    rows = [r["messages"][-1]["content"] for r in read_jsonl(Path("data/synthetic.jsonl"))]
    lengths = [len(tokenizer(text)["input_ids"]) + 1 for text in rows]
    for token in (5, 6):
        ids = np.full((sum(lengths), 3), token)
        np.savez("data/logprobs.npz", ids=ids, logprobs=np.log(np.tile([0.8, 0.1, 0.05], (len(ids), 1))), lengths=lengths)
        done = distill(hub)
        assert done.returncode == 0, done.stderr[-2000:]
        written.append(weights_sha256(Path("models/distilled")))
    assert written[0] == written[1]


def test_one_that_is_not_in_the_cache_is_named_with_the_remedy(hub: Path, tmp_path: Path):
    done = distill(tmp_path / "empty")
    assert done.returncode and f"models.student {REPO}@{REVISION}" in done.stderr and "make setup" in done.stderr


def test_its_papers_name_what_it_began_as(hub: Path):
    models = load_params().models
    assert base_of(models) == {"name": REPO, "version": REVISION, "sha256": REVISION}
    assert models.shipped_license == ("models.student.license", "MIT")
    rewrite({"models": {"student": None}})
    assert load_params().models.shipped_license[0] == "models.license"
