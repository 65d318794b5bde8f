"""Choose how much of a batch is held at once, in training and in generation. A batch that does not fit into
memory is divided.
"""

import math
from pathlib import Path
from typing import Any

import psutil
import torch

from slm.errors import UserError
from slm.modeling.encoding import collate

SHARE = 0.8  # of what is free; the rest is for what nobody counted
ADAM = 12  # bytes of a trained fp32 weight beside itself: its gradient and Adam's two moments
# times that a row's logits are held: themselves, those of answers, their logarithms, and both gradients
LOGITS = 5
GB = 1e9
CGROUP = Path("/sys/fs/cgroup")


def container_bytes() -> float:
    """What a container's limit leaves (cgroup v2); files that are only cached make room. Infinite where there
    is no limit.
    """
    try:
        limit = int((CGROUP / "memory.max").read_text())
        said = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return (
            limit
            - int((CGROUP / "memory.current").read_text())
            + int(said["inactive_file"])
            + int(said["active_file"])
        )
    except (OSError, ValueError, KeyError):  # ValueError: "max"
        return math.inf


def free_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return int(min(psutil.virtual_memory().available, container_bytes()))
    # by torch, for the next that asks
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def kept_for_backward(model: Any, batch: dict[str, torch.Tensor]) -> int:
    """Bytes that the layers keep of a forward pass for the backward pass, counted in one (torch's
    saved-tensor hooks), without the weights.
    """
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        batch = {name: value.to(model.device) for name, value in batch.items()}
        ids, mask = batch["input_ids"], batch["attention_mask"]
        model(input_ids=ids, attention_mask=mask, logits_to_keep=1, use_cache=False)
    return sum(kept.values())


def needs(model: Any, examples: list[dict[str, Any]], pad_id: int) -> tuple[int, int, int]:
    """Bytes that training needs beside the weights: once, for each row of a batch, and for each row if
    activations are computed twice (gradient checkpointing, Chen et al., arXiv 1604.06174: of each layer only
    its input is kept).
    """
    longest = max(examples, key=lambda e: len(e["prompt_ids"]) + len(e["answer_ids"]))
    tokens, config = len(longest["prompt_ids"]) + len(longest["answer_ids"]), model.config
    answer = max(len(e["answer_ids"]) for e in examples)  # the head computes as many columns for each row
    # What does not grow with the rows, such as weights that were rounded for this pass, is there with a
    # single token too.
    once = kept_for_backward(
        model, collate([{"prompt_ids": longest["prompt_ids"][:1], "answer_ids": []}], pad_id)
    )
    layers = kept_for_backward(model, collate([longest], pad_id)) - once
    head = LOGITS * 4 * config.vocab_size * (answer + 1)
    inputs = 4 * config.num_hidden_layers * config.hidden_size * tokens
    once += ADAM * sum(p.numel() for p in model.parameters() if p.requires_grad)
    return once, layers + head, layers // config.num_hidden_layers + inputs + head


def most_rows(batch_size: int, each: int, room: float) -> int:
    """The largest divisor of `batch_size` that fits; 0: none does."""
    return next((n for n in range(batch_size, 0, -1) if batch_size % n == 0 and n * each <= room), 0)


def rows_to_answer(model: Any, longest: int, limit: int, batch_size: int) -> int:
    """Prompts that can be answered together, a divisor of `batch_size`.

    A row holds keys and values of all its tokens, once more while they grow, and what a layer and the head
    compute while the prompt is read.

    Args:
        longest: tokens of the longest prompt.
        limit: tokens of an answer, at most.

    Raises:
        UserError: not even one fits.
    """
    config = model.config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    cache = (
        2
        * 2
        * config.num_hidden_layers
        * getattr(config, "num_key_value_heads", heads)
        * width
        * (longest + limit)
    )
    reading = longest * (3 * config.intermediate_size + 8 * config.hidden_size + heads * longest)
    each, free = 4 * (cache + reading + 3 * config.vocab_size), free_bytes(model.device)
    rows = most_rows(batch_size, each, SHARE * free)
    if not rows:
        raise UserError(
            f"an answer to a prompt of {longest} tokens needs {each / GB:.1f} GB beside the model's "
            f"weights, but only {SHARE:.0%} of the free {free / GB:.1f} GB may be used; free memory, or take "
            "a smaller model, shorter prompts or fewer new tokens"
        )
    if rows < batch_size:
        print(f"memory is short: {rows} of {batch_size} prompts at once")
    return rows


def fit(
    stage: str, model: Any, examples: list[dict[str, Any]], pad_id: int, batch_size: int
) -> tuple[int, bool]:
    """Rows of a batch that fit at once, a divisor of `batch_size`, and whether activations must be computed
    twice for it.

    Raises:
        UserError: not even one row fits.
    """
    once, row, sparse_row = needs(model, examples, pad_id)
    room = SHARE * free_bytes(model.device) - once
    for each, twice in ((row, False), (sparse_row, True)):
        if rows := most_rows(batch_size, each, room):
            return rows, twice
    raise UserError(
        f"{stage}: training needs {(once + sparse_row) / GB:.1f} GB beside the model's weights, but only "
        f"{SHARE:.0%} of the free "
        f"{free_bytes(model.device) / GB:.1f} GB may be used; free memory, take a smaller model or shorter "
        "examples, or train adapters (method: lora) if the stage can and does not yet"
    )
