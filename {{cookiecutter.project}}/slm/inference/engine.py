"""A model's answers, by this process or by a Ray cluster (`compute.engine: ray`): the same batches, so the
same bytes.

What shares a batch decides how an answer's sums round; so batches are cut here, and a worker computes whole
ones. They come back in their order to the one process that writes. Ray gives the batches of a worker that
died to another.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from slm.config.params import Params
from slm.errors import UserError
from slm.modeling.checkpoints import load_model, load_tokenizer
from slm.modeling.generation import Answer, batches, generate
from slm.modeling.memory import rows_to_answer

# The package slm as a whole: what Ray's workers get.
SLM_FOLDER = Path(__file__).parents[1]


def answer_all(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    params: Params,
    batch_size: int,
    limit: int,
    top_k: int = 0,
) -> Iterator[tuple[int, Answer]]:
    """Yield (index of the prompt, answer), as `slm.modeling.generation.generate` does.

    Args:
        limit: tokens of an answer, at most.

    Raises:
        UserError: Ray is not installed, or its cluster cannot be reached or gave up.
    """
    if params.compute.engine == "local":
        model = load_model(folder, params)
        rows = rows_to_answer(model, max(map(len, prompts), default=0), limit, batch_size)
        return generate(model, tokenizer, prompts, rows, limit, top_k)
    return _on_ray(folder, prompts, params, batch_size, limit, top_k)


class Worker:
    """A process of the cluster, which loads the model once. It may be on another machine: the folder's files
    come to it through Ray.
    """

    def __init__(self, files: Any, params: Params, threads: int, limit: int, top_k: int) -> None:
        import ray

        torch.set_num_threads(threads)
        self._limit, self._top_k = limit, top_k
        with tempfile.TemporaryDirectory() as name:
            for path, content in ray.get(files).items():
                target = Path(name, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            self._tokenizer, self._model = load_tokenizer(Path(name)), load_model(Path(name), params)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        prompts = json.loads(row["prompts"])
        rows = rows_to_answer(self._model, max(map(len, prompts)), self._limit, len(prompts))
        found = generate(self._model, self._tokenizer, prompts, rows, self._limit, self._top_k)
        # JSON keeps every bit of a float
        return {"answers": json.dumps([(i, vars(answer)) for i, answer in found])}


def _on_ray(
    folder: Path, prompts: list[list[int]], params: Params, batch_size: int, limit: int, top_k: int
) -> Iterator[tuple[int, Answer]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError(
            "params.yaml: compute.engine: ray needs Ray; run `slm extra ray`, on each machine of the cluster"
        ) from None
    _connect(ray)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False  # the caller has one

    cut = batches(prompts, batch_size)
    files = ray.put(
        {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
    )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = ([int(node.get(kind, 0)) for node in nodes] for kind in ("CPU", "GPU"))
    on_gpus = params.compute.device != "cpu" and sum(gpus) > 0
    # as here: sums of two threads may round otherwise than those of one
    threads = min(torch.get_num_threads(), max(cpus))
    if params.compute.device == "cuda" and not on_gpus:
        raise UserError(
            "params.yaml: compute.device is cuda, but no node of the Ray cluster has a GPU; set it to auto "
            "or cpu"
        )
    workers = sum(gpus) if on_gpus else sum(count // threads for count in cpus)
    rows = ray.data.from_items(
        [{"prompts": json.dumps([prompts[i] for i in batch])} for batch in cut], override_num_blocks=len(cut)
    )
    answered = rows.map(
        Worker,
        fn_constructor_args=(files, params, threads, limit, top_k),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(cut))),
        **({"num_gpus": 1} if on_gpus else {"num_cpus": threads}),
    )
    try:
        for batch, row in zip(cut, answered.iter_rows(), strict=True):
            for i, answer in json.loads(row["answers"]):
                yield batch[i], Answer(**answer)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # what happened; of a worker that did not start, why
        why = " … ".join(dict.fromkeys((lines[0], lines[-1])))[:400]
        raise UserError(f"the Ray cluster gave up ({why}); answers so far are kept: run again") from None


def _connect(ray: Any) -> None:
    """To the cluster of RAY_ADDRESS, or to one of this machine's own."""
    if ray.is_initialized():
        return
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    runtime = {"py_modules": [str(SLM_FOLDER)], "env_vars": quiet}
    try:
        ray.init(runtime_env=runtime, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = os.environ.get("RAY_ADDRESS")
        if not where:
            raise UserError(
                f"Ray could not be started on this machine ({error}); set compute.engine: local, or run again"
            ) from None
        raise UserError(
            f"RAY_ADDRESS={where}: this machine has not joined a Ray cluster there ({error}); let it join "
            "(`ray start --address=HEAD:6379`), or unset RAY_ADDRESS"
        ) from None
