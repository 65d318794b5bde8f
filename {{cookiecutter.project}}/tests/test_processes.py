"""More than one process: the same batches, the same curve, one set of outputs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from slm.chat import encode_example
from slm.errors import UserError
from slm.files import read_json, write_text
from slm.models import load_tokenizer
from slm.params import load_params, rewrite
from slm.processes import spread
from slm.records import TASK, read_records
from slm.training import _Sampler, train

# As gradients are summed in another order, the last bits differ; a high learning rate would make more of them.
TOLERANCE = 1e-4


def distill(project: Path, processes: int, **environment: str) -> subprocess.CompletedProcess:
    rewrite({"compute": {"processes": processes, "device": "cpu"}}, project / "params.yaml")
    shell = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")} | environment
    return subprocess.run(
        [sys.executable, "-m", "pipeline.distill"],
        cwd=project,
        env=shell | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def made(project: Path) -> list[str]:
    return sorted(p.relative_to(project).as_posix() for name in ("models", "reports") for p in (project / name).rglob("*"))


@pytest.mark.slow
def test_two_processes_draw_the_curve_of_one_and_write_once(project: Path):
    rewrite({"distill": {"epochs": 3, "learning_rate": 1e-3}}, project / "params.yaml")  # 23 examples in batches of 4: the last is not full
    one = distill(project, 1)
    assert one.returncode == 0, one.stderr[-3000:]
    files, curve = made(project), read_json(project / "reports/curves/distill.json")
    weights, facts = load_file(project / "models/distilled/model.safetensors"), read_json(project / "reports/distill.json")

    two = distill(project, 2)
    assert two.returncode == 0, two.stderr[-3000:]
    assert two.stdout.count('{"stage": "distill"') == 1
    assert made(project) == files and not list((project / ".resume").iterdir())
    again = read_json(project / "reports/curves/distill.json")
    assert [row["step"] for row in again] == [row["step"] for row in curve] == [5, 10, 15]
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [row[name] for row in again] == pytest.approx([row[name] for row in curve], rel=TOLERANCE), name
    assert read_json(project / "reports/distill.json")["layers"] == facts["layers"]
    for name, value in load_file(project / "models/distilled/model.safetensors").items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=TOLERANCE)


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
    assert done.stderr.strip().splitlines()[-1].startswith("error: pipeline.distill: one of 2 processes failed and the others were stopped")
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
        train("distill", model, tokenizer, examples, params.distill, params, {}, Path("curve.json"))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="FSDP leaves each process a part of the weights"):
        spread("pipeline.distill", params)
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    rewrite({"compute": {"processes": 2, "accelerate": "none.yaml"}})
    with pytest.raises(UserError, match=r"compute\.accelerate is none\.yaml, and there is no such file"):
        spread("pipeline.distill", load_params())
