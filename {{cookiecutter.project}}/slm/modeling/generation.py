"""Greedy answers of a Transformers model, in batches, with the model's own top-k log-probabilities."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from slm.errors import UserError
from slm.modeling.encoding import IGNORE, collate


@dataclass
class Answer:
    """token_ids ends in the end token, unless the token limit cut the answer.

    topk_ids, topk_logprobs: [answer tokens][k], empty when k is 0.
    """

    text: str
    token_ids: list[int]
    cut: bool
    topk_ids: list[list[int]]
    topk_logprobs: list[list[float]]


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    batch_size: int,
    max_new_tokens: int,
    top_k: int = 0,
) -> Iterator[tuple[int, Answer]]:
    """Yield (index of the prompt, answer) as answers end, prompts of like length together.

    `model.generate` computes every row until the longest answer of its batch ends; here rows leave the batch
    when they end, which halves the time for answers of mixed length, and log-probabilities need no [batch,
    tokens, vocabulary].

    Raises:
        UserError: a prompt and its answer may be longer than the model's context, beyond which a model says
            what it never learnt.
    """
    context = getattr(model.config, "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0)
    if context and longest + max_new_tokens > context:
        raise UserError(
            f"a prompt of {longest} tokens and an answer of up to {max_new_tokens} are more than the model's "
            f"context of {context}; shorten the request or the limit of answers, or raise models.context of "
            "params.yaml"
        )
    model.eval()
    for rows in batches(prompts, batch_size):
        yield from _generate_batch(model, tokenizer, prompts, rows, max_new_tokens, top_k)


def batches(prompts: list[list[int]], batch_size: int) -> list[list[int]]:
    """Indices of the prompts of each batch, those of like length together."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    rows: list[int],
    max_new_tokens: int,
    top_k: int,
) -> Iterator[tuple[int, Answer]]:
    width = max(len(prompts[i]) for i in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, i in enumerate(rows):
        ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
        mask[row, width - len(prompts[i]) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    answers = {i: Answer("", [], True, [], []) for i in rows}
    cache = DynamicCache(config=model.config)
    for step in range(max_new_tokens):
        logits = (
            model(input_ids=ids, attention_mask=mask, past_key_values=cache, logits_to_keep=1)
            .logits[:, -1]
            .float()
        )
        chosen = logits.argmax(-1)
        top = torch.log_softmax(logits, dim=-1).topk(top_k, dim=-1) if top_k else None
        for row, i in enumerate(rows):
            answers[i].token_ids.append(int(chosen[row]))
            if top is not None:
                answers[i].topk_ids.append(top.indices[row].tolist())
                answers[i].topk_logprobs.append(top.values[row].tolist())
        ended = chosen == tokenizer.eos_token_id
        for row, i in enumerate(rows):
            if ended[row] or step == max_new_tokens - 1:
                answer = answers.pop(i)
                answer.cut = not bool(ended[row])
                answer.text = tokenizer.decode(answer.token_ids, skip_special_tokens=True)
                yield i, answer
        if not answers:
            return
        left = (~ended).nonzero().squeeze(-1)
        if len(left) < len(rows):
            rows = [rows[row] for row in left.tolist()]
            cache.batch_select_indices(left)
            mask, chosen = mask[left], chosen[left]
        ids = chosen.unsqueeze(-1)
        mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=-1)


@torch.inference_mode()
def perplexity(model: PreTrainedModel, examples: list[dict[str, Any]], pad_id: int, batch_size: int) -> float:
    """Perplexity of the expected answers, given their prompts (torchmetrics); examples as
    `slm.modeling.encoding.encode_example` makes them.
    """
    from torchmetrics.text import Perplexity

    model.eval()
    metric = Perplexity(ignore_index=IGNORE)
    order = sorted(examples, key=lambda e: len(e["prompt_ids"]) + len(e["answer_ids"]))
    for start in range(0, len(order), batch_size):
        batch = {
            name: value.to(model.device)
            for name, value in collate(order[start : start + batch_size], pad_id).items()
        }
        keep = batch["labels"].shape[1] + 1
        out = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            logits_to_keep=keep,
            use_cache=False,
        )
        metric.update(out.logits[:, :-1].float().cpu(), batch["labels"].cpu())
    return float(metric.compute())
