"""Who may import whom (pyproject.toml, `tool.importlinter`): the code keeps it, and a break is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("slm", "pipeline"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=lambda folder, names: {"__pycache__"} & {*names})
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def test_the_code_keeps_its_layers():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


# A line that breaks a rule, its file, and its honest twin: the same import where it may stand.
PLANTED = {
    "up a layer": ("slm/task/records.py", "import slm.verdict.gate", "import slm.config.params"),
    "up a layer in a function": (
        "slm/config/loader.py",
        "def late() -> None:\n    import slm.task.records",
        "def late() -> None:\n    import slm.files",
    ),
    "between siblings": (
        "slm/quality/frame.py",
        "import slm.modeling.loss",
        "import slm.task.metrics",
    ),
    "between modules at the root": ("slm/tables.py", "import slm.files", "import slm.errors"),
    "a stage from slm": ("slm/ci/plan.py", "import pipeline.check", "import slm.verdict.gate"),
    "a stage from a stage": ("pipeline/check.py", "import pipeline.teach", "import slm.experiments.seeds"),
    "the verdict from a stage": ("pipeline/package.py", "import slm.verdict.rows", "import slm.tables"),
    "a circle in a package": ("slm/task/definition.py", "import slm.task.answers", "import slm.errors"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_broken_layer_is_found(fault: str, copy: Path):
    name, broken, honest = PLANTED[fault]
    text = (copy / name).read_text(encoding="utf-8")
    for line, refused in ((broken, True), (honest, False)):
        (copy / name).write_text(f"{text}\n\n{line}\n", encoding="utf-8")
        done = lint_imports(copy)
        assert done.returncode == refused, done.stdout + done.stderr
        assert (Path(name).stem in done.stdout) == refused, done.stdout


def test_a_new_package_must_take_its_place(copy: Path):
    (copy / "slm/elsewhere").mkdir()
    (copy / "slm/elsewhere/__init__.py").write_text("", encoding="utf-8")
    done = lint_imports(copy)
    assert done.returncode == 1 and "elsewhere" in done.stdout, done.stdout + done.stderr
