"""A project of the previous version, with its user's edits, takes this one by the guide (docs/updating.md of the project).

Run by `make update-test`: it sets a project up and runs its linters and unit tests, some ten minutes.
"""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.bake import TEMPLATE
from tests.conftest import environment, run

pytestmark = pytest.mark.full
# The last commit before the modules of slm/ went into packages.
PREVIOUS = "43d9da16d8aa8e9d658e1b43920703bb79ce26d4"
AUTHOR = ("-c", "user.name=t", "-c", "user.email=t@localhost")
# What a user may have changed: a file, what stood there, what stands there now.
EDITS = {
    "the task": ("task/task.yaml", "You control a smart home.", "You control my smart home."),
    "a parameter": ("params.yaml", "epochs: 1.8", "epochs: 1.9"),
    "a limit": ("gates.yaml", "at_least: 0.60}", "at_least: 0.55}"),
    "a module": (
        "slm/scoring.py",
        "    if isinstance(value, str):\n        return value.strip().casefold()",
        '    if isinstance(value, str):\n        return value.strip().rstrip(".").casefold()',
    ),
}
NEW_PLACE, RENAMED = "slm/task/answers.py", "slm/task/metrics.py"


def git(folder: Path, *words: str, check: bool = True) -> str:
    return subprocess.run(["git", *AUTHOR, *words], cwd=folder, check=check, capture_output=True, text=True).stdout


def commit(folder: Path, revision: str, message: str) -> None:
    """The template as it is in a commit, or (empty) in the work tree, as the next commit of a repository of its own."""
    git(folder, "rm", "-r", "--quiet", "--ignore-unmatch", ".")
    if revision:
        packed = subprocess.run(["git", "archive", revision], cwd=TEMPLATE, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(folder, filter="data")
    else:
        for name in git(TEMPLATE, "ls-files", "-z", "-co", "--exclude-standard").split("\0"):
            if name and (TEMPLATE / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((TEMPLATE / name).read_bytes())
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, name
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after `cruft update`, its conflicts not resolved yet."""
    if subprocess.run(["git", "cat-file", "-e", PREVIOUS], cwd=TEMPLATE, capture_output=True, check=False).returncode:
        pytest.skip("this clone has no history: git fetch --unshallow")
    base = tmp_path_factory.mktemp("update")
    template = base / "template"
    template.mkdir()
    git(template, "init", "--quiet", "--initial-branch", "main")
    commit(template, PREVIOUS, "previous")
    cruft = [sys.executable, "-m", "cruft"]
    subprocess.run([*cruft, "create", str(template), "--no-input", "--default-config"], cwd=base, check=True, capture_output=True)
    project = base / "my-slm"
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "cruft")
    for name, old, new in EDITS.values():
        edit(project, name, old, new)
    git(project, "commit", "--quiet", "--all", "--message", "Edits of the user")
    commit(template, "", "this version")
    done = subprocess.run([*cruft, "update", "--skip-apply-ask"], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return project


def conflicts(project: Path) -> set[str]:
    return set(git(project, "diff", "--name-only", "--diff-filter=U").split())


def test_edits_survive_and_what_conflicts_is_marked(updated: Path):
    assert conflicts(updated) == {"gates.yaml", RENAMED}
    for name, _, new in (EDITS["the task"], EDITS["a parameter"]):
        assert new in (updated / name).read_text(encoding="utf-8")
    # No edit is lost: those that conflict stand between marks.
    assert "at_least: 0.55}" in (updated / "gates.yaml").read_text(encoding="utf-8")
    assert 'rstrip(".")' in (updated / RENAMED).read_text(encoding="utf-8")
    assert not list(updated.rglob("*.rej"))


def test_the_guide_leads_to_a_project_that_passes_its_tests(updated: Path):
    """What docs/updating.md says, word for word."""
    git(updated, "checkout", "--theirs", "gates.yaml", RENAMED)
    edit(updated, *EDITS["a limit"])
    assert git(updated, "grep", "-n", "def canonical", "slm").startswith(f"{NEW_PLACE}:")
    edit(updated, NEW_PLACE, *EDITS["a module"][1:])
    git(updated, "add", "--all")
    git(updated, "commit", "--quiet", "--message", "Update")
    assert not conflicts(updated)
    # Nothing of the old layout is left beside the new one.
    there = {path.name for path in (updated / "slm").glob("*.py")}
    assert there == {path.name for path in (TEMPLATE / "{{cookiecutter.project}}" / "slm").glob("*.py")}
    run(updated, "python3", "bootstrap.py")
    slm = str(updated / ".venv" / "bin" / "slm")
    run(updated, slm, "lint")
    run(updated, slm, "test")
    assert environment().get("PATH") and os.access(slm, os.X_OK)
