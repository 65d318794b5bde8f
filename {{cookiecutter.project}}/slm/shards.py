"""Weights that lie in parts in many processes (FSDP, DeepSpeed's ZeRO), and how they become a whole model again."""

import copy
import os
from typing import Any

import torch

from slm.config.params import Training
from slm.errors import UserError


def sharding() -> str | None:
    """What Accelerate's launcher was asked for: FSDP, DEEPSPEED or neither."""
    return next((kind for kind in ("FSDP", "DEEPSPEED") if os.environ.get(f"ACCELERATE_USE_{kind}", "false").lower() == "true"), None)


def checkpoint_form() -> list[str | None]:
    """What must be the same for a checkpoint to be read: DeepSpeed's are of one stage and so many processes, FSDP's can be divided anew."""
    kind = sharding()
    return [kind, os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE"), os.environ.get("WORLD_SIZE")] if kind == "DEEPSPEED" else [kind]


def check_sharding(stage: str, settings: Training, precision: str, model: Any) -> None:
    """Refuse what would go wrong in the middle or at the end, and let ZeRO-3 give its weights back, which it does not unless asked."""
    kind = sharding()
    if kind == "DEEPSPEED":
        os.environ["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] = "true"  # whatever its name says: here they are fp32
    if kind == "DEEPSPEED" and precision != "float32":
        raise UserError(
            f"params.yaml: compute.precision is {precision}, in which DeepSpeed would hold the weights too; take float32, or FSDP"
        )
    if kind == "DEEPSPEED" and os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        raise UserError(
            "a file of DeepSpeed's own (deepspeed_config_file) is not supported: write zero_stage and the rest into the file that "
            "compute.accelerate names, under deepspeed_config"
        )
    if kind == "FSDP" and os.environ.get("FSDP_VERSION", "1") == "1":
        raise UserError("FSDP of version 1 is not supported: set fsdp_version: 2 in the file that compute.accelerate names")
    if kind and settings.patience:
        raise UserError(
            f"params.yaml: {stage}.patience needs a whole model to ask, and {kind} leaves each process a part of it; set it to null"
        )
    if kind and getattr(settings, "method", None) == "qlora":
        raise UserError(f"params.yaml: {stage}.method is qlora, whose 4-bit weights {kind} does not divide here; take lora")
    if kind == "FSDP" and any("trainable_tokens" in name for name, _ in model.named_parameters()):
        raise UserError(
            f"params.yaml: {stage}.method is {getattr(settings, 'method', None)}, and FSDP does not divide an embedding of which only the "
            "phrases' rows are trained; take method: full, DeepSpeed, or models.phrases: 0"
        )


def hollow(model: Any) -> Any:
    """A copy of the model's structure that holds none of its weights."""
    empty = {id(p): torch.nn.Parameter(p.to("meta"), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, memo=empty)


def filled(model: Any, state: dict[str, torch.Tensor]) -> Any:
    """A hollow model with weights; those that are tied may be there once."""
    named = list(model.named_parameters(remove_duplicate=False))
    weights = {id(p): torch.nn.Parameter(state[name], requires_grad=p.requires_grad) for name, p in named if name in state}
    missing = [name for name, p in named if id(p) not in weights]
    assert not missing, f"weights that no process gave: {missing}"
    return copy.deepcopy(model, memo=weights)
