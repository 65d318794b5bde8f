"""A task of four examples and a model of a few thousand weights, made here: no test needs the pipeline's outputs."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from slm.task import Task

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
            "properties": {"name": {"enum": ["a", "b"]}, "arguments": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        },
    )


@pytest.fixture(scope="session")
def tiny() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random Llama of 4 layers and a byte-level BPE tokenizer trained on the texts above."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator(TEXTS * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>")
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
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
        return path

    return write
