"""How much of a batch a training step holds at once: all of it where that fits into memory, else parts whose gradients are summed."""

from typing import Any

import psutil
import torch

from slm.chat import collate
from slm.errors import UserError

SHARE = 0.8  # of what is free; the rest is for what nobody counted
ADAM = 12  # bytes of a trained fp32 weight beside itself: its gradient and Adam's two moments
GB = 1e9


def free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def kept_for_backward(model: Any, batch: dict[str, torch.Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward pass, counted in one (torch's saved-tensor hooks); weights not among them."""
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        batch = {name: value.to(model.device) for name, value in batch.items()}
        ids, mask = batch["input_ids"], batch["attention_mask"]
        out = model(input_ids=ids, attention_mask=mask, logits_to_keep=batch["labels"].shape[1] + 1, use_cache=False)
        out.logits.float().log_softmax(-1)
    return sum(kept.values())


def fit(stage: str, model: Any, examples: list[dict[str, Any]], pad_id: int, batch_size: int) -> tuple[int, bool]:
    """Rows of a batch that fit at once, a divisor of `batch_size`, and whether activations must be computed twice for it (gradient
    checkpointing, Chen et al., arXiv 1604.06174: of each layer only its input is kept).

    Raises:
        UserError: not even one row fits.
    """
    longest = max(examples, key=lambda e: len(e["prompt_ids"]) + len(e["answer_ids"]))
    batch = collate([longest], pad_id)
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    row = kept_for_backward(model, batch)
    sparse_row = row // layers + 4 * layers * width * batch["input_ids"].shape[1]
    state = ADAM * sum(p.numel() for p in model.parameters() if p.requires_grad)
    room = SHARE * free_bytes(model.device) - state
    divisors = [n for n in range(batch_size, 0, -1) if batch_size % n == 0]
    for each, twice in ((row, False), (sparse_row, True)):
        for rows in divisors:
            if rows * each <= room:
                return rows, twice
    raise UserError(
        f"{stage}: training needs {(state + sparse_row) / GB:.1f} GB beside the model's weights, and {SHARE:.0%} of the free "
        f"{free_bytes(model.device) / GB:.1f} GB may be used; free memory, take a smaller model, or train adapters (method: lora) where the stage has them"
    )
