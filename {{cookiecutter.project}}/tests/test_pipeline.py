"""The pipeline's own order: stages do not know each other, and DVC knows all that a stage reads from slm/."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
STAGES = sorted(p.stem for p in (ROOT / "pipeline").glob("*.py") if p.stem != "__init__")
# Every stage imports these; they say how files are written and errors shown, and change no result.
PLUMBING = {"slm/errors.py", "slm/files.py", "slm/config/loader.py", "slm/config/params.py", "slm/progress.py", "slm/config/synthesis.py"}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def modules_of(path: Path) -> set[str]:
    """Files of slm/ that a stage imports itself."""
    return {f"{name.replace('.', '/')}.py" for name in imports(path) if name.startswith("slm.")}


def test_slm_knows_no_stage():
    for path in (ROOT / "slm").glob("*.py"):
        assert not any(name.startswith("pipeline") for name in imports(path)), path


@pytest.mark.parametrize("stage", STAGES)
def test_stage_knows_no_stage_and_is_short(stage: str):
    path = ROOT / "pipeline" / f"{stage}.py"
    assert not any(name.startswith("pipeline") for name in imports(path))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_knows_what_a_stage_imports(stage: str):
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == [s for s in stages if s in STAGES] and set(stages) == set(STAGES)
    deps = set((stages[stage].get("do") or stages[stage])["deps"])
    assert f"pipeline/{stage}.py" in deps
    missing = modules_of(ROOT / "pipeline" / f"{stage}.py") - deps - PLUMBING
    assert not missing, f"dvc.yaml: {stage} lacks deps {sorted(missing)}"


def test_files_are_short():
    for path in [*(ROOT / "slm").glob("*.py"), *(ROOT / "pipeline").glob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path


def test_olive_still_needs_its_overlay():
    """When this fails, Olive and the runtime agree again: delete the overlay from slm/export/olive.py, the Makefile and requirements/."""
    module = "onnxruntime_genai.models.quantized_model"
    olive = find_spec("olive")
    assert olive and olive.origin
    assert module in (Path(olive.origin).parent / "passes" / "onnx" / "model_builder.py").read_text(encoding="utf-8")
    assert find_spec(module) is None
