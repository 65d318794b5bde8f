"""The pipeline's own order: stages do not know each other, and DVC knows all that a stage reads from slm/."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
STAGES = sorted(p.stem for p in (ROOT / "pipeline").glob("*.py") if p.stem != "__init__")
# Every stage uses these; they say how files are written and read and errors shown, and change no result.
PLUMBING = {
    "slm/errors.py",
    "slm/files.py",
    "slm/processes.py",
    "slm/progress.py",
    "slm/stage.py",
    "slm/config/loader.py",
    "slm/config/params.py",
    "slm/config/synthesis.py",
}
# How much an endpoint may cost, how fast it is asked and how a run is stopped: none of it changes an answer.
PACE = {"slm/teacher/budget.py", "slm/teacher/concurrency.py", "slm/teacher/signals.py"}
# What a process that a stage starts reads, and no import shows.
STARTED = {stage: {"slm/inference/asker.py", "slm/inference/confine.py"} for stage in ("evaluate", "measure")}
# What a stage depends on and does not use, since its folder is named whole or a file is imported for a
# constant's sake.
ADDED = {"finetune": {"slm/modeling/vocabulary.py", "slm/task/augmentation.py"}}
SPARED = {
    "fetch": {
        *("slm/modeling/encoding.py", "slm/modeling/loss.py", "slm/task/records.py", "slm/task/strict.py"),
    }
}


def imports(path: Path) -> set[str]:
    """Names of modules that a file imports anywhere, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def used(path: Path) -> set[str]:
    """Files of slm/ that a file imports, and that these import."""
    seen: set[str] = set()
    waiting = [path]
    while waiting:
        for name in imports(waiting.pop()):
            file = f"{name.replace('.', '/')}.py"
            if name.startswith("slm.") and file not in seen and (ROOT / file).exists():
                seen.add(file)
                waiting.append(ROOT / file)
    return seen


def named(stage: str) -> set[str]:
    """Files of slm/ that dvc.yaml names for a stage, those of whole folders too."""
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = (stages[stage].get("do") or stages[stage])["deps"]
    assert f"pipeline/{stage}.py" in deps
    files: set[str] = set()
    for dep in deps:
        if dep.startswith("slm/"):
            path = ROOT / dep
            assert path.exists(), f"dvc.yaml: {stage} depends on {dep}, which is not there"
            inside = [p for p in path.rglob("*.py") if p.stem != "__init__"] if path.is_dir() else [path]
            files |= {p.relative_to(ROOT).as_posix() for p in inside}
    return {f for f in files if f.endswith(".py")}


def test_the_pipeline_is_imported_by_nothing():
    for path in (ROOT / "slm").rglob("*.py"):
        assert not any(name.split(".")[0] == "pipeline" for name in imports(path)), path


def test_dvc_runs_the_stages_that_there_are():
    assert set(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]) == set(
        STAGES
    )


@pytest.mark.parametrize("stage", STAGES)
def test_stage_knows_no_stage(stage: str):
    assert not any(name.split(".")[0] == "pipeline" for name in imports(ROOT / "pipeline" / f"{stage}.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_knows_what_a_stage_uses_and_no_more(stage: str):
    needs = used(ROOT / "pipeline" / f"{stage}.py") - PLUMBING - PACE - SPARED.get(
        stage, set()
    ) | STARTED.get(stage, set())
    found = named(stage)
    assert not needs - found, f"dvc.yaml: {stage} lacks deps {sorted(needs - found)}"
    assert found - needs == ADDED.get(stage, set()), (
        f"dvc.yaml: {stage} would run for nothing after an edit of {sorted(found - needs)}"
    )


def test_olive_still_needs_its_overlay():
    """When this fails, Olive and the runtime agree again: delete the overlay from slm/export/olive.py,
    bootstrap.py and requirements/.
    """
    module = "onnxruntime_genai.models.quantized_model"
    olive = find_spec("olive")
    assert olive and olive.origin
    assert module in (Path(olive.origin).parent / "passes" / "onnx" / "model_builder.py").read_text(
        encoding="utf-8"
    )
    assert find_spec(module) is None
