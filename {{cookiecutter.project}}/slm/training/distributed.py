"""Run one stage in many processes. The stage starts itself again under Accelerate's launcher, and each
process takes its part of every batch.

FSDP and DeepSpeed's ZeRO also divide the weights among the processes. They are joined to a whole model here.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from slm.config.params import Params, Training
from slm.errors import UserError
from slm.modeling.checkpoints import device_of


def launch_processes(module: str, params: Params) -> bool:
    """Run the stage `module` in `compute.processes` processes, unless this is one of them.

    Returns:
        whether that was done, and this process has nothing left to do.

    Raises:
        UserError: a process failed, and the launcher has stopped the others.
    """
    count, config = params.compute.processes, params.compute.accelerate
    if count == 1 or "LOCAL_RANK" in os.environ:
        return False
    if config is not None and not Path(config).is_file():
        raise UserError(
            f"params.yaml: compute.accelerate is {config}, and there is no such file; `accelerate config "
            f"--config_file {config}` makes one"
        )
    # `--cpu` would start one process alone unless there is MPI; `--multi_gpu` names the launcher, and without
    # a GPU they talk by gloo.
    plain = ["--multi_gpu", "--num_machines", "1", "--dynamo_backend", "no", "--main_process_port", "0"]
    options = ["--config_file", config] if config else plain
    # params.yaml decides
    options += ["--mixed_precision", "bf16" if params.compute.precision == "bfloat16" else "no"]
    threads = (
        {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))} if device_of(params) == "cpu" else {}
    )
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *options,
        "--num_processes",
        str(count),
        "-m",
        module,
    ]
    if subprocess.run(command, env=threads | os.environ, check=False).returncode:
        raise UserError(
            f"{module}: one of {count} processes failed and the others were stopped; the first error above "
            "says why"
        )
    return True


def processes() -> int:
    """How many train together, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharding() -> str | None:
    """What Accelerate's launcher was asked for: FSDP, DEEPSPEED or neither."""
    return next(
        (
            kind
            for kind in ("FSDP", "DEEPSPEED")
            if os.environ.get(f"ACCELERATE_USE_{kind}", "false").lower() == "true"
        ),
        None,
    )


def checkpoint_form() -> list[str | None]:
    """What must be the same for a checkpoint to be read: DeepSpeed's are of one stage and so many processes,
    FSDP's can be divided anew.
    """
    kind = sharding()
    return (
        [kind, os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE"), os.environ.get("WORLD_SIZE")]
        if kind == "DEEPSPEED"
        else [kind]
    )


def check_sharding(stage: str, settings: Training, precision: str, model: Any) -> None:
    """Refuse what would go wrong in the middle or at the end, and let ZeRO-3 give its weights back, which it
    does not unless asked.
    """
    kind = sharding()
    if kind == "DEEPSPEED":
        # whatever its name says: here they are fp32
        os.environ["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] = "true"
    if kind == "DEEPSPEED" and precision != "float32":
        raise UserError(
            f"params.yaml: compute.precision is {precision}, and DeepSpeed would hold the weights in it too; "
            "take float32, or FSDP"
        )
    if kind == "DEEPSPEED" and os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        raise UserError(
            "a separate DeepSpeed file (deepspeed_config_file) is not supported: write zero_stage and the "
            "rest into the file that "
            "compute.accelerate names, under deepspeed_config"
        )
    if kind == "FSDP" and os.environ.get("FSDP_VERSION", "1") == "1":
        raise UserError(
            "FSDP of version 1 is not supported: set fsdp_version: 2 in the file that compute.accelerate "
            "names"
        )
    if kind and settings.patience:
        raise UserError(
            f"params.yaml: {stage}.patience needs a whole model to score, and {kind} gives each process only "
            "a part of it; set it to null"
        )
    if kind and getattr(settings, "method", None) == "qlora":
        raise UserError(
            f"params.yaml: {stage}.method is qlora, and {kind} cannot divide its 4-bit weights here; take "
            "lora"
        )
    if kind == "FSDP" and any("trainable_tokens" in name for name, _ in model.named_parameters()):
        raise UserError(
            f"params.yaml: {stage}.method is {getattr(settings, 'method', None)}, and FSDP cannot divide "
            "an embedding when only the "
            "phrases' rows are trained; take method: full, DeepSpeed, or models.phrases: 0"
        )


def hollow(model: Any) -> Any:
    """A copy of the model's structure that holds none of its weights."""
    empty = {
        id(p): torch.nn.Parameter(p.to("meta"), requires_grad=p.requires_grad) for p in model.parameters()
    }
    return copy.deepcopy(model, memo=empty)


def filled(model: Any, state: dict[str, torch.Tensor]) -> Any:
    """A hollow model with weights; those that are tied may be there once."""
    named = list(model.named_parameters(remove_duplicate=False))
    weights = {
        id(p): torch.nn.Parameter(state[name], requires_grad=p.requires_grad)
        for name, p in named
        if name in state
    }
    missing = [name for name, p in named if id(p) not in weights]
    assert not missing, f"weights that no process gave: {missing}"
    return copy.deepcopy(model, memo=weights)
