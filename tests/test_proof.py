"""The proof that a move changed nothing (benchmarks/proof.py): each change of what is made is seen, and prose may change."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.proof import TEMPLATE, compare, facts_of


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def arrays(path: Path, value: str) -> None:
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(zipfile.ZipInfo("ids.npy"), value)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A project as `make repro gate` leaves it, in small."""
    folder = tmp_path / "before" / "my-slm"
    package = folder / "dist" / "my-slm"
    for name in ("teacher", "int4"):
        write(folder / "models" / name / "model.onnx", name)
        write(folder / "models" / name / "config.json", "{}")
    write(package / "model" / "model.onnx", "int4")
    write(package / "README.md", "# Card\n")
    write(package / "sbom.cdx.json", "{}")
    write(package / "task.yaml", "kind: label # of one\n")
    write(package / "SHA256SUMS", "1  README.md\n2  model/model.onnx\n3  task.yaml\n")
    with tarfile.open(folder / "dist" / "my-slm.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("my-slm"), io.BytesIO())
    write(folder / "predictions" / "int4.jsonl", '{"rung": "int4"}\n{"id": "1", "answer": "a"}\n')
    write(folder / "data" / "synthetic.jsonl", "{}\n")
    arrays(folder / "data" / "logprobs.npz", "1")
    write(folder / "reports" / "quality" / "int4.json", '{"score": 1}')
    write(folder / "gates.yaml", "gates:\n- {name: score, metric: score}\n- {name: time, metric: request_ms_p50}\n")
    rung = {"name": "int4", "score": 0.9, "request_ms_p50": 20.0, "rss_mb": 100.0}
    write(folder / "reports" / "ladder.json", json.dumps({"profile": "quick", "machine": {"cores": 2}, "rungs": [rung]}))
    cost = {"folder_sha256": "f", "weights_mb": 1.0, "by_threads": {"1": {"request_ms_p50": 20.0}}}
    write(folder / "reports" / "cost.json", json.dumps({"rungs": {"int4": cost}}))
    gates = [
        {"name": name, "severity": "block", "passed": True, "value": value, "limit": 0.5, "why": "is good", "waived": None}
        for name, value in (("score", 0.9), ("time", 0.2))
    ]
    candidate = {"revision": "r1", "weights_sha256": "w", "folder_sha256": "f"}
    write(folder / "reports" / "verdict.json", json.dumps({"candidate": candidate, "gates": gates}))
    return folder


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        write(folder / name, text.replace(old, new, 1))

    return edit


VERDICT, LADDER, PACKAGE = "reports/verdict.json", "reports/ladder.json", "dist/my-slm"
CHANGES = {
    "weights": (replace("models/int4/model.onnx", "4", "5"), {"models/int4: folder", "models/int4: weights"}),
    "a tokenizer": (replace("models/teacher/config.json", "{", "{ "), {"models/teacher: folder"}),
    "an answer": (replace("predictions/int4.jsonl", '"a"', '"b"'), {"predictions/int4.jsonl"}),
    "synthetic data": (replace("data/synthetic.jsonl", "{", "{ "), {"data/synthetic.jsonl"}),
    "log-probabilities": (lambda f: arrays(f / "data/logprobs.npz", "2"), {"data/logprobs.npz: ids.npy"}),
    "quality": (replace("reports/quality/int4.json", "1", "2"), {"reports/quality/int4.json"}),
    "a gate's figure": (replace(VERDICT, "0.9", "0.8"), {"verdict: gate 0, value and outcome"}),
    "a gate's limit": (replace(VERDICT, "0.5", "0.4"), {"verdict: gate 0, severity and limit"}),
    "a gate's outcome": (replace(VERDICT, "true", "false"), {"verdict: gate 0, value and outcome"}),
    "the ladder": (replace(LADDER, "0.9", "0.8"), {"ladder: int4"}),
    "what was timed": (replace("reports/cost.json", '"f"', '"g"'), {"cost: int4, what was timed"}),
    "the package's model": (replace(f"{PACKAGE}/model/model.onnx", "4", "5"), {"package: model"}),
    "what the task says": (replace(f"{PACKAGE}/task.yaml", "label", "text"), {"package: task.yaml as read"}),
    "a checksum": (replace(f"{PACKAGE}/SHA256SUMS", "2 ", "4 "), {"package: checksums but of the prose"}),
    "a lost file": (lambda f: (f / "predictions/int4.jsonl").unlink(), {"predictions/int4.jsonl"}),
}
PROSE = {
    "nothing": lambda f: None,
    "the model card": replace(f"{PACKAGE}/README.md", "Card", "Model card"),
    "its checksum": replace(f"{PACKAGE}/SHA256SUMS", "1 ", "4 "),
    "a comment": replace(f"{PACKAGE}/task.yaml", "of one", "one of several"),
    "a reason": replace(VERDICT, "is good", "is above its floor"),
    "a time": replace(VERDICT, "0.2", "0.3"),
    "a time of the ladder": replace(LADDER, "20.0", "30.0"),
    "memory": replace(LADDER, "100.0", "90.0"),
    "the commit": replace(VERDICT, "r1", "r2"),
}


def changed(finished: Path, edit: Callable[[Path], None]) -> set[str]:
    after = Path(shutil.copytree(finished, finished.parents[1] / "after" / "my-slm"))
    edit(after)
    return set(compare(facts_of(finished)["facts"], facts_of(after)["facts"])[2])


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_is_made_is_seen(change: str, finished: Path):
    edit, expected = CHANGES[change]
    assert changed(finished, edit) == expected


@pytest.mark.parametrize("change", PROSE)
def test_prose_and_time_may_change(change: str, finished: Path):
    assert changed(finished, PROSE[change]) == set()


def test_projects_of_two_machines_are_not_compared(finished: Path):
    other = Path(shutil.copytree(finished, finished.parents[1] / "other"))
    replace(LADDER, '"cores": 2', '"cores": 4')(other)
    command = [sys.executable, "-m", "benchmarks.proof", "--before-project", str(finished), "--after-project", str(other)]
    done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("not one machine"), done.stderr
