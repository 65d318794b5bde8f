"""From chat messages to token ids, the same way in training, evaluation and the package."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from slm.errors import UserError
from slm.task.records import Record

IGNORE = -100

# ChatML without the base model's default system prompt and without the names of the roles: a taught model
# does not need to be told who it is or whose turn it is, and every prompt token costs time, in training and
# on the device. Two tokens stand around a request in place of eight. A system message begins with two start
# tokens, which no plain text of a user can say. An unknown role, such as a tool's, speaks as the user does.
SHORT_CHATML = Path(__file__).with_name("chatml.jinja")
# Goes before the template of every family. (Transformers' own `sanitize_control_tokens` works in Transformers
# only, where it cuts the same text otherwise than the runtimes would.)
PLAIN_CONTENTS = Path(__file__).with_name("plain_contents.jinja")


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Tokens by which a model knows who speaks and where a message ends, by id: those that the tokenizer
    calls special, and those that its chat template writes (DeepSeek's `<｜User｜>` is not called special).
    """
    found = set(tokenizer._get_control_tokens(tokenizer.chat_template or ""))
    return {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.content in found}


def use_short_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a ChatML tokenizer the short template; other families keep theirs. In all of them, what a message
    says becomes plain text.
    """
    if "<|im_start|>" in tokenizer.get_vocab():
        tokenizer.chat_template = SHORT_CHATML.read_text(encoding="utf-8")
    keep_contents_plain(tokenizer)


def keep_contents_plain(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the chat template read control tokens in a message as plain text.

    Raises:
        UserError: a request could still hold a control token.
    """
    template = tokenizer.chat_template = tokenizer.get_chat_template()  # a family may have several
    plain = [{"role": "user", "content": "a plain request"}]
    before = encode_prompt(tokenizer, plain)
    tokens = control_tokens(tokenizer)
    tokenizer.chat_template = _plain_contents(tokens.values()) + template

    # Try it: all control tokens one after the other, and what a normalizer may make into them, full-width or
    # in the other letter case.
    written = "".join(tokens.values())
    wide = written.translate({code: code + 0xFEE0 for code in range(ord("!"), ord("~") + 1)})
    spoken = plain[0]["content"] + written + wide + written.swapcase()
    ids = encode_prompt(tokenizer, [{"role": "user", "content": spoken}])
    extra = Counter(i for i in ids if i in tokens) - Counter(before)
    if extra or encode_prompt(tokenizer, plain) != before:
        raise UserError(
            f"the base model's tokenizer reads {[tokens[i] for i in extra] or 'a plain request'} in a "
            "request otherwise than as plain text, so a user could speak as the system; take another base "
            "model"
        )


def _plain_contents(tokens: Iterable[str]) -> str:
    """The beginning of a chat template, for these control tokens.

    None of them stands in it as a whole: what a template holds counts as part of prompts.
    """
    rests: dict[str, list[str]] = {}
    for token in tokens:
        if len(token) < 2 or " " in token:
            raise UserError(
                f"the base model's control token {token!r} cannot be broken by a blank, so a user could "
                "speak as the system; take another base model"
            )
        # The blank breaks the tokens that overlap this one too, but for one that begins with its last
        # character, as in `|x|x|`: that is found when the token is looked for again.
        rests.setdefault(token[-1], []).extend([token[:-1]] * (2 if token[0] == token[-1] else 1))
    listed = json.dumps([[last, found] for last, found in rests.items()], ensure_ascii=False)
    return PLAIN_CONTENTS.read_text(encoding="utf-8").rstrip().replace("CONTROL_TOKENS", listed)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """Raises UserError where the family's chat template does not take these roles in this order."""
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(
            f"the model's chat template does not take a conversation of {roles}: {error}; write the "
            "conversation without these roles, or take another base model"
        ) from None
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_plain(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Ids of each text, in which a control token is letters like any others."""
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def encode_answer(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    return [*encode_plain(tokenizer, [answer])[0], tokenizer.eos_token_id]


def encode_example(tokenizer: PreTrainedTokenizerBase, record: Record) -> dict[str, Any]:
    return {
        "prompt_ids": encode_prompt(tokenizer, record.prompt),
        "answer_ids": encode_answer(tokenizer, record.answer),
    }


def too_long(
    tokenizer: PreTrainedTokenizerBase, context: int, limit: tuple[int, str], named: list[tuple[str, Record]]
) -> list[str]:
    """What is wrong with requests that leave no room for an answer in a context of so many tokens, or that
    the chat template does not take.

    Args:
        limit: tokens of an answer that a model gives, and the parameter that says so. A labelled answer may
            be longer: it is learnt as a whole.
        named: (file:line, record).
    """
    faults = []
    for name, record in named:
        try:
            tokens = len(encode_prompt(tokenizer, record.prompt))
        except UserError as error:
            faults.append(f"{name}: {error}")
            continue
        room, why = limit[0], f"may have {limit[0]} ({limit[1]})"
        labelled = len(encode_answer(tokenizer, record.answer)) if record.answer else 0
        if labelled > room:
            room, why = labelled, f"has {labelled}"
        if tokens + room > context:
            faults.append(
                f"{name}: the request has {tokens} tokens and its answer {why}, more than the context of "
                f"{context}; shorten it, or raise models.context of params.yaml"
            )
    return faults


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
