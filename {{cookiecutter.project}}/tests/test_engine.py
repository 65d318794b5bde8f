"""A cluster's answers are those of this process, byte for byte, also when a worker is killed in the middle
(needs `slm extra ray`).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pipeline.synthesize import ask_local
from slm.config.params import Compute, Params, Synthesize
from slm.files import sha256_json
from slm.inference.engine import answer_all
from slm.modeling.checkpoints import load_tokenizer, save_model
from slm.modeling.encoding import encode_prompt, use_short_template
from slm.task.records import Record
from slm.teacher.store import Store, compressed

RECORDS = [
    Record(str(i), [{"role": "user", "content": f"turn on the {'kitchen ' * (i % 5)}light {i}"}])
    for i in range(62)
]

PROVENANCE = {"teacher": "local"}


def params(engine: str) -> Params:
    settings = Synthesize.model_construct(teacher="local", batch_size=4, max_new_tokens=24, top_k=3)
    return Params.model_construct(
        compute=Compute(device="cpu", engine=engine, processes=1, accelerate=None), synthesize=settings
    )


@pytest.fixture
def project(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the tiny model is the local teacher."""
    model, tokenizer = tiny
    use_short_template(tokenizer)
    monkeypatch.chdir(tmp_path)
    save_model(model, tokenizer, tmp_path / "models" / "teacher")
    return tmp_path


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two nodes on this machine, each with room for one worker; found by RAY_ADDRESS, as any other cluster
    is.
    """
    ray = pytest.importorskip("ray", reason="`slm extra ray` was not run")
    from ray.cluster_utils import Cluster

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = nodes.address
    yield
    ray.shutdown()
    nodes.shutdown()
    torch.set_num_threads(threads)
    del os.environ["RAY_ADDRESS"]
    if before:
        os.environ["RAY_ADDRESS"] = before


def workers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "ray::MapWorker" in " ".join(p.cmdline())]


class Watched(Store):
    """Notes what is written; after some answers it kills a worker, if told so."""

    def __init__(self, path: Path, kill: bool) -> None:
        super().__init__(path)
        self.written: list[str] = []
        self.kill, self.killed = kill, 0

    def put(self, answers: dict[str, Any], *rest: Any, **more: Any) -> None:
        super().put(answers, *rest, **more)
        self.written += answers
        if self.kill and not self.killed and len(self.written) >= 8:
            # the second may still be starting: then all that is under way is this one's
            self.killed = workers()[0].pid
            os.kill(self.killed, signal.SIGKILL)


def asked(path: Path, engine: str, kill: bool = False) -> tuple[Watched, list[bytes]]:
    store = Watched(path, kill)
    values = list(ask_local(RECORDS, PROVENANCE, params(engine), store))
    store.close()
    assert len(values) == len(RECORDS) and all(values)
    return store, [compressed(value) for value in values]


def test_a_worker_that_is_killed_loses_nothing_and_nothing_is_written_twice(project: Path, cluster):
    _, local = asked(project / "local.sqlite", "local")
    store, found = asked(project / "ray.sqlite", "ray", kill=True)
    assert store.killed and store.killed not in psutil.pids()
    assert found == local and len(store.written) == len(set(store.written)) == len(RECORDS)


def test_what_is_in_the_store_is_not_computed_again(project: Path, cluster):
    """The rest of a run that was stopped: whole batches are there, so the others are cut as before."""
    _, local = asked(project / "local.sqlite", "local")
    tokenizer = load_tokenizer(Path("models/teacher"))
    prompts = [encode_prompt(tokenizer, record.prompt) for record in RECORDS]
    keys = [sha256_json([PROVENANCE, 3, ids]) for ids in prompts]
    order = sorted(range(len(RECORDS)), key=lambda i: (len(prompts[i]), i))
    whole, half = Store(project / "local.sqlite"), Store(project / "half.sqlite")
    half.put({keys[i]: whole.get(keys[i]) for i in order[8:16]})
    for store in (whole, half):
        store.close()
    store, found = asked(project / "half.sqlite", "ray")
    assert found == local and len(store.written) == len(RECORDS) - 8


def test_a_rung_is_asked_as_by_this_process(project: Path, cluster):
    folder = Path("models/teacher")
    tokenizer = load_tokenizer(folder)
    ids = [encode_prompt(tokenizer, record.prompt) for record in RECORDS[:10]]
    local, found = (
        {i: vars(a) for i, a in answer_all(folder, tokenizer, ids, params(e), 4, 16)}
        for e in ("local", "ray")
    )
    assert found == local and all(a["topk_ids"] == [] for a in found.values())


def test_without_ray_the_stage_says_how_to_get_it():
    """In a process of its own, in which Ray cannot be found: whether it is installed or not."""
    code = """
import sys
sys.modules["ray"] = None
from pathlib import Path
from slm.inference.engine import answer_all
from slm.files import sha256_json
from slm.config.params import Compute, Params
params = Params.model_construct(compute=Compute(device="cpu", engine="ray", processes=1, accelerate=None))
list(answer_all(Path("models/teacher"), None, [[1]], params, 1, 1))
"""
    root = str(Path(__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode and "UserError" in done.stderr and "`slm extra ray`" in done.stderr
