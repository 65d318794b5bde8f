"""From chat messages to token ids, the same way in training, evaluation and the package."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from slm.task.records import Record

IGNORE = -100

# ChatML without the base model's default system prompt and without the names of the roles: a taught model
# does not need to be told who it is or whose turn it is, and every prompt token costs time, in training and
# on the device. Two tokens stand around a request in place of eight. A system message begins with two start
# tokens, which no plain text of a user can say.
SHORT_CHATML = Path(__file__).with_name("chatml.jinja")


def use_short_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a ChatML tokenizer the short template; other families keep theirs."""
    if "<|im_start|>" in tokenizer.get_vocab():
        tokenizer.chat_template = SHORT_CHATML.read_text(encoding="utf-8")


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_answer(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    return [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def encode_example(tokenizer: PreTrainedTokenizerBase, record: Record) -> dict[str, Any]:
    return {
        "prompt_ids": encode_prompt(tokenizer, record.prompt),
        "answer_ids": encode_answer(tokenizer, record.answer),
    }


def collate(examples: list[dict[str, Any]], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad on the left, so that all answers end in the same column.

    The model then computes its output head on the last columns only (`logits_to_keep`): the head is a quarter
    of a small model's cost. Positions are relative (RoPE), so padding on the left shifts nothing.

    Returns:
        input_ids, attention_mask [batch, tokens]; labels [batch, answer tokens], `IGNORE` where there is
        none; and, if any example has the teacher's distribution, topk_ids (int64) and topk_logprobs (float32)
        [batch, answer tokens, k], log-probability -inf where there is none.
    """
    width = max(len(e["prompt_ids"]) + len(e["answer_ids"]) for e in examples)
    keep = max(len(e["answer_ids"]) for e in examples)
    batch = {
        "input_ids": torch.full((len(examples), width), pad_id),
        "attention_mask": torch.zeros((len(examples), width), dtype=torch.long),
        "labels": torch.full((len(examples), keep), IGNORE),
    }
    k = max((len(e["topk_ids"][0]) for e in examples if e.get("topk_ids") is not None), default=0)
    if k:
        batch["topk_ids"] = torch.zeros((len(examples), keep, k), dtype=torch.long)
        batch["topk_logprobs"] = torch.full((len(examples), keep, k), -torch.inf)
    for i, example in enumerate(examples):
        ids = example["prompt_ids"] + example["answer_ids"]
        answer = len(example["answer_ids"])
        batch["input_ids"][i, width - len(ids) :] = torch.tensor(ids)
        batch["attention_mask"][i, width - len(ids) :] = 1
        batch["labels"][i, keep - answer :] = torch.tensor(example["answer_ids"])
        if example.get("topk_ids") is not None:
            batch["topk_ids"][i, keep - answer :] = torch.as_tensor(example["topk_ids"], dtype=torch.long)
            batch["topk_logprobs"][i, keep - answer :] = torch.as_tensor(
                example["topk_logprobs"], dtype=torch.float32
            )
    return batch
