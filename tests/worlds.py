"""What the tests of the workflows start from: repositories on a small GitHub, with and without a release, and packages to offer."""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import once, python
from tests.world import Run, World, build_base

# What a stub of a model reaches.
GATES = """\
gates:
  - {name: score, severity: block, metric: shipped.score_low, at_least: 0.10}
  - {name: valid answers, severity: block, metric: shipped.valid_rate, at_least: 0.5}
  - {name: kept by quantization, severity: block, metric: shipped.score, over: onnx.score, at_least: 0.5}
released: {margin: 0.05, best_margin: 0.06, time: 1.6, memory: 1.5, weights: 1.02, slice_size: 30, slice_alpha: 0.05}
"""


@pytest.fixture(scope="session")
def base(made: Path, testrun_uid: str) -> Path:
    """Beside the project, so that caches are shared by links."""
    folder = made.parent / "worlds"

    def make() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        build_base(made, folder / "base", GATES)

    once("base", testrun_uid, make)
    return folder / "base"


@pytest.fixture
def world(base: Path) -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(dir=base.parent))
    world = World(base, folder)
    yield world
    world.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sealed(made: Path, testrun_uid: str) -> Path:
    """The chain's package, sealed under the stub's contract."""

    def make() -> None:
        contract = (made / "gates.yaml").read_text(encoding="utf-8")
        (made / "gates.yaml").write_text(GATES, encoding="utf-8")
        python(made, "-m", "slm", "gate")
        python(made, "-m", "slm", "release", "seal")
        (made / "gates.yaml").write_text(contract, encoding="utf-8")

    once("sealed", testrun_uid, make)
    return made / "sealed"


@pytest.fixture
def released(world: World, sealed: Path) -> World:
    """main names the release v1, which holds the chain's package."""
    world.forge.add_release("v1", {p.name: p.read_bytes() for p in sealed.iterdir()})

    def edit(folder: Path) -> None:
        shutil.copytree(sealed, folder / "sealed")
        python_at(world, folder, "-m", "slm", "release", "name", "sealed", "v1")
        shutil.rmtree(folder / "sealed")

    world.git(world.origin, "tag", "v1", "main")
    world.push(edit, "Release v1")
    return world


def python_at(world: World, folder: Path, *arguments: str) -> None:
    """Run the project's Python in a clone, with this world's GitHub."""
    (environment,) = (world.folder / "cache").glob("environment-*")
    command = [str(environment / "bin" / "python"), *arguments]
    variables = world.environment() | {"GITHUB_API_URL": world.forge.url, "GITHUB_REPOSITORY": "acme/slm"}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A copy of the shipped model's folder, to offer."""
    (source,) = (made / "dist").glob("*/model")
    return Path(shutil.copytree(source, tmp_path / "model"))


@pytest.fixture(scope="session")
def worse(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that still runs and answers worse."""
    (source,) = (made / "dist").glob("*/model")
    return spoil(Path(shutil.copytree(source, tmp_path_factory.mktemp("worse") / "model")), made)


NOISE = """
import sys, onnx, random
model = onnx.load(sys.argv[1])
rng = random.Random(0)
for tensor in model.graph.initializer:
    data = bytearray(tensor.raw_data)
    if len(data) > 10_000 and "scale" not in tensor.name:
        for i in range(0, len(data), 15):
            data[i] ^= 0x55
        tensor.raw_data = bytes(data)
onnx.save(model, sys.argv[1])
"""


def spoil(model: Path, project: Path) -> Path:
    """A model that still runs and answers worse: noise in every fifteenth byte of its large weights."""
    python(project, "-c", NOISE, str(model / "model.onnx"))
    return model


def write(path: str, text: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    return edit


def append(path: str, text: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        with (folder / path).open("a", encoding="utf-8") as stream:
            stream.write(text)

    return edit


def say_yourself(folder: Path) -> None:
    """A change of the package alone: the pipeline has one stage to run."""
    path = folder / "slm" / "export" / "model_card.md.j2"
    text = path.read_text(encoding="utf-8")
    assert "## Try it\n" in text
    path.write_text(text.replace("## Try it\n", "## Try it yourself\n"), encoding="utf-8")


INVENT = """
from pathlib import Path
from slm.files import read_json, read_jsonl, write_json, write_jsonl
from slm.task.definition import load_task
from slm.task.metrics import summarise
path, report = Path("predictions/int4.jsonl"), Path("reports/quality/int4.json")
header, *rows = read_jsonl(path)
rows = [row | {"answer": row["expected"], "cut": False} for row in rows]
write_jsonl(path, [header, *rows])
write_json(report, read_json(report) | summarise(load_task(), rows))
"""


def invent_predictions(world: World) -> str:
    """Whoever may write to the remote and gets one change of dvc.lock approved: predictions that nobody made, committed by DVC."""
    folder = world.clone("invented")
    (cache,) = (world.folder / "cache").glob("dvc-*")
    shutil.copytree(cache, folder / ".dvc" / "cache")
    python_at(world, folder, "-m", "dvc", "checkout", "--quiet")
    python_at(world, folder, "-c", INVENT)
    python_at(world, folder, "-m", "pipeline.package")
    python_at(world, folder, "-m", "dvc", "commit", "--force", "--quiet")
    world.git(folder, "commit", "--quiet", "--all", "--message", "A better model")
    world.git(folder, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    key = hashlib.sha256((folder / "dvc.lock").read_bytes()).hexdigest()[:16]
    shutil.copytree(folder / ".dvc" / "cache", world.folder / "cache" / f"dvc-{key}")
    return world.tip()


touch_model = append("recipes/int4.json", "\n")  # needs a verdict on a package


def push_event(world: World, tag: str = "") -> dict:
    return {"ref": f"refs/tags/{tag}" if tag else "refs/heads/main", "after": world.tip(tag or "main")}


def on_main(world: World, **options: Any) -> Run:
    return world.act("main.yml", "push", push_event(world), world.clone("push"), **options)


MAIN_JOBS = dict.fromkeys(("Pull", "Model", "Recheck", "Seal", "Push"), True)


def on_tag(world: World, tag: str, job: str = "") -> Run:
    folder = world.clone("tag", tag)
    return world.act("release.yml", "push", push_event(world, tag), folder, job)
