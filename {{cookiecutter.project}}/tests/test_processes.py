"""More than one process: the same batches, the same curve, one set of outputs."""

import contextlib
import copy
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from slm.config.edit import rewrite
from slm.config.params import load_params
from slm.errors import UserError
from slm.files import read_json, sha256_file, write_json, write_text
from slm.modeling.checkpoints import adapt, load_tokenizer, save_model
from slm.modeling.encoding import encode_example
from slm.modeling.vocabulary import add_phrases
from slm.task.records import TASK, read_records
from slm.training.distributed import check_sharding, launch_processes
from slm.training.trainer import TrainingRun, _Sampler, train

# As gradients are summed in another order, the last bits differ; a high learning rate would make more of
# them.
TOLERANCE = 1e-4
# What `accelerate config` writes, in short.
COMMON = {
    "compute_environment": "LOCAL_MACHINE",
    "num_machines": 1,
    "num_processes": 2,
    "mixed_precision": "no",
    "main_process_port": 0,
}
FSDP = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_cpu_ram_efficient_loading": False,
}
ZERO = {
    "gradient_accumulation_steps": 1,
    "gradient_clipping": 1.0,
    "zero3_init_flag": False,
    "zero3_save_16bit_model": False,
}
CONFIGS = {
    "DDP": None,
    "FSDP": COMMON | {"distributed_type": "FSDP", "fsdp_config": FSDP},
    "ZeRO-2": COMMON | {"distributed_type": "DEEPSPEED", "deepspeed_config": ZERO | {"zero_stage": 2}},
    "ZeRO-3": COMMON | {"distributed_type": "DEEPSPEED", "deepspeed_config": ZERO | {"zero_stage": 3}},
}
# Accelerate divides weights on GPUs alone. Here its processes take the CPU for one, and talk by gloo; all
# else is as it is there.
CPU_AS_GPU = """
import os
if "LOCAL_RANK" in os.environ and {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & set(os.environ):
    import torch
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType
    partial, whole = PartialState.__init__, AcceleratorState.__init__
    PartialState.__init__ = lambda self, cpu=False, **options: partial(self, cpu=False, **options)
    AcceleratorState.__init__ = lambda self, cpu=False, **options: whole(self, cpu=False, **options)
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
"""
# The second process is late to write its part of a checkpoint.
SLOW = """
if os.environ.get("RANK") == "1":
    import time
    from transformers import Trainer
    write = Trainer._save_rng_state
    Trainer._save_rng_state = lambda self, folder: (time.sleep(0.5), write(self, folder))
"""


def shell(**environment: str) -> dict[str, str]:
    return (
        {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        | environment
        | {"OMP_NUM_THREADS": "1"}
    )


def run(project: Path, name: str = "distill", **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"pipeline.{name}"]
    return subprocess.run(
        command, cwd=project, env=shell(**environment), capture_output=True, text=True, check=False
    )


def distill(project: Path, processes: int, **environment: str) -> subprocess.CompletedProcess:
    rewrite({"compute": {"processes": processes, "device": "cpu"}}, project / "params.yaml")
    return run(project, **environment)


def divided(kind: str, project: Path) -> dict[str, str]:
    """Let two processes train in the way of `kind`; what their environment needs for it."""
    if kind.startswith("ZeRO") and find_spec("deepspeed") is None:
        pytest.skip("`slm extra deepspeed` was not run")
    config = CONFIGS[kind]
    if config is not None:
        write_json(project / "accelerate.json", config)
    rewrite(
        {"compute": {"processes": 2, "device": "cpu", "accelerate": config and "accelerate.json"}},
        project / "params.yaml",
    )
    write_text(project / "planted/sitecustomize.py", CPU_AS_GPU)
    path = os.pathsep.join(filter(None, (str(project / "planted"), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "DS_ACCELERATOR": "cpu"}


def made(project: Path) -> list[str]:
    return sorted(
        p.relative_to(project).as_posix()
        for name in ("models", "reports")
        for p in (project / name).rglob("*")
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_two_processes_draw_the_curve_of_one_and_write_once(kind: str, project: Path):
    rewrite(
        {"distill": {"epochs": 3, "learning_rate": 1e-3, "save_steps": 50}}, project / "params.yaml"
    )  # 23 examples in batches of 4: the last is not full
    one = distill(project, 1)
    assert one.returncode == 0, one.stderr[-3000:]
    files, curve = made(project), read_json(project / "reports/curves/distill.json")
    weights, facts = (
        load_file(project / "models/distilled/model.safetensors"),
        read_json(project / "reports/distill.json"),
    )

    two = run(project, **divided(kind, project))
    assert two.returncode == 0, two.stderr[-3000:]
    assert two.stdout.count('{"stage": "distill"') == 1
    assert made(project) == files and not list((project / ".resume").iterdir())
    again = read_json(project / "reports/curves/distill.json")
    assert [row["step"] for row in again] == [row["step"] for row in curve] == [5, 10, 15]
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [row[name] for row in again] == pytest.approx([row[name] for row in curve], rel=TOLERANCE), (
            name
        )
    assert read_json(project / "reports/distill.json")["layers"] == facts["layers"]
    for name, value in load_file(project / "models/distilled/model.safetensors").items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_killed_in_the_middle_of_an_epoch_they_go_on_to_the_same_bytes(kind: str, project: Path):
    rounding = {"bits": 4, "group_size": 32}
    # six steps an epoch
    settings = {"epochs": 20, "learning_rate": 1e-3, "save_steps": 20, "rounding": rounding}
    rewrite({"distill": settings}, project / "params.yaml")
    environment = divided(kind, project)
    with (project / "planted/sitecustomize.py").open("a", encoding="utf-8") as stream:
        stream.write(SLOW)
    done = run(project, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    curve, weights = (
        read_json(project / "reports/curves/distill.json"),
        sha256_file(project / "models/distilled/model.safetensors"),
    )
    shutil.rmtree(project / "models/distilled")

    command, quiet = [sys.executable, "-m", "pipeline.distill"], subprocess.DEVNULL
    victim = subprocess.Popen(
        command, cwd=project, env=shell(**environment), stdout=quiet, stderr=quiet, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (whole := list((project / ".resume").glob("*/checkpoint-20/trainer_state.json"))):
        assert victim.poll() is None and time.monotonic() < deadline, (
            "it ended, or stands still, before it could be killed"
        )
        time.sleep(0.01)
    assert len(list(whole[0].parent.glob("rng_state_*.pth"))) == 2  # the slow one has written its part too
    family = psutil.Process(victim.pid).children(recursive=True)
    os.killpg(victim.pid, signal.SIGKILL)
    for process in family:  # the launcher gave each of them a group of its own
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    victim.wait()
    psutil.wait_procs(family)

    again = run(project, **environment)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "distill: resuming from" in again.stdout
    assert read_json(project / "reports/curves/distill.json") == curve
    assert sha256_file(project / "models/distilled/model.safetensors") == weights


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind != "DDP"])
def test_adapters_of_divided_weights_are_merged_whole(kind: str, project: Path, tiny):
    model, tokenizer = copy.deepcopy(tiny[0]), load_tokenizer(project / "models/teacher")
    # So many that ZeRO-3 divides the embedding too: what is smaller than 100,000 weights each process keeps
    # whole.
    add_phrases(model, tokenizer, [] if kind == "FSDP" else ["timer", *(f"<{i}>" for i in range(3200))])
    save_model(model, tokenizer, project / "models/distilled")
    rewrite(
        {
            "finetune": {"method": "lora", "rank": 4, "epochs": 6, "save_steps": 50},
            "compute": {"device": "cpu"},
        },
        project / "params.yaml",
    )
    one = run(project, "finetune")
    assert one.returncode == 0, one.stderr[-3000:]
    weights = load_file(project / "models/finetuned/model.safetensors") | load_file(
        project / "models/adapter/adapter_model.safetensors"
    )

    two = run(project, "finetune", **divided(kind, project))
    assert two.returncode == 0, two.stderr[-3000:]
    again = load_file(project / "models/finetuned/model.safetensors") | load_file(
        project / "models/adapter/adapter_model.safetensors"
    )
    assert again.keys() == weights.keys()
    for name, value in again.items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_without_a_gpu_to_divide_among_it_says_so(project: Path):
    divided("FSDP", project)
    done = run(project)  # with a CPU that is one
    assert (
        done.returncode == 2
        and "distill: FSDP divides weights among GPUs, and this training has no GPU" in done.stderr
    )


@pytest.mark.slow
def test_a_process_that_fails_stops_all_and_nothing_is_written(project: Path, tmp_path: Path):
    planted = """
import os, sys
def fail(event, args):
    if event == "open" and str(args[0]).endswith("synthetic.jsonl"):
        raise OSError("planted")
if os.environ.get("RANK") == "1":
    sys.addaudithook(fail)
"""
    write_text(tmp_path / "planted" / "sitecustomize.py", planted)
    before = made(project)
    done = distill(project, 2, PYTHONPATH=str(tmp_path / "planted"))
    assert done.returncode == 2
    assert "OSError: planted" in done.stderr
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("error: pipeline.distill: one of 2 processes failed and the others were stopped")
    )
    assert made(project) == before


def test_each_batch_is_divided_and_a_last_one_is_filled():
    one, many = _Sampler([5, 3, 9, 1, 7, 2, 8], 4, seed=3), _Sampler([5, 3, 9, 1, 7, 2, 8], 4, seed=3, fill=7)
    assert (len(one), len(many)) == (7, 8)
    assert [*one, 7] == list(many)
    assert list(_Sampler([1, 2], 2, seed=0, fill=2)) == list(_Sampler([1, 2], 2, seed=0))


def test_what_would_go_wrong_with_many_is_refused(project: Path, tiny, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    params = load_params()
    model, tokenizer = tiny[0], load_tokenizer(Path("models/teacher"))
    examples = [encode_example(tokenizer, r) for r in read_records(TASK / "train.jsonl", True)]

    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"distill\.batch_size is 4, which 3 processes cannot divide"):
        train(TrainingRun("distill", "three", params.distill, params), model, tokenizer, examples)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"set fsdp_version: 2 in the file that compute\.accelerate names"):
        check_sharding("distill", params.distill, "float32", model)
    monkeypatch.setenv("FSDP_VERSION", "2")
    check_sharding("distill", params.distill, "float32", model)
    with pytest.raises(
        UserError,
        match=r"distill\.patience needs a whole model to score, and FSDP gives each process only a part",
    ):
        check_sharding("distill", params.distill.model_copy(update={"patience": 3}), "float32", model)
    with pytest.raises(
        UserError, match=r"finetune\.method is qlora, and FSDP cannot divide its 4-bit weights"
    ):
        check_sharding("finetune", params.finetune.model_copy(update={"method": "qlora"}), "float32", model)
    phrased = copy.deepcopy(model)
    add_phrases(phrased, tokenizer, ["timer"])
    save_model(phrased, tokenizer, start := Path("phrased"))
    settings = params.finetune.model_copy(update={"method": "lora"})
    with pytest.raises(
        UserError, match="FSDP cannot divide an embedding when only the phrases' rows are trained"
    ):
        check_sharding("finetune", settings, "float32", adapt(start, settings, params))
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match="DEEPSPEED gives each process only a part of it"):
        check_sharding("distill", params.distill.model_copy(update={"patience": 3}), "float32", model)
    with monkeypatch.context() as set_by_launcher:
        set_by_launcher.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", "zero.json")
        with pytest.raises(UserError, match=r"deepspeed_config_file\) is not supported: write zero_stage"):
            check_sharding("distill", params.distill, "float32", model)
    with pytest.raises(
        UserError, match=r"compute\.precision is bfloat16, and DeepSpeed would hold the weights in it too"
    ):
        check_sharding("distill", params.distill, "bfloat16", model)
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    rewrite({"compute": {"processes": 2, "accelerate": "none.yaml"}})
    with pytest.raises(UserError, match=r"compute\.accelerate is none\.yaml, and there is no such file"):
        launch_processes("pipeline.distill", load_params())
