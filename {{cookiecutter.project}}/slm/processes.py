"""One stage in many processes: it starts itself again under Accelerate's launcher, each process with its part of every batch."""

import os
import subprocess
import sys
from pathlib import Path

from slm.config.params import Params
from slm.errors import UserError
from slm.modeling.checkpoints import device_of


def spread(module: str, params: Params) -> bool:
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
            f"params.yaml: compute.accelerate is {config}, and there is no such file; `accelerate config --config_file {config}` makes one"
        )
    # `--cpu` would start one process alone unless there is MPI; `--multi_gpu` names the launcher, and without a GPU they talk by gloo.
    plain = ["--multi_gpu", "--num_machines", "1", "--dynamo_backend", "no", "--main_process_port", "0"]
    options = ["--config_file", config] if config else plain
    options += ["--mixed_precision", "bf16" if params.compute.precision == "bfloat16" else "no"]  # params.yaml decides
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))} if device_of(params) == "cpu" else {}
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "--num_processes", str(count), "-m", module]
    if subprocess.run(command, env=threads | os.environ, check=False).returncode:
        raise UserError(f"{module}: one of {count} processes failed and the others were stopped; the first error above says why")
    return True
