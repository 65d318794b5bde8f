"""No finding by any linter, over every bake and over the template's own workflows."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bake import TEMPLATE, bake
from tests.test_bake import SUPPORTED

TOOLS = Path(sys.executable).parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="actionlint and shellcheck come for Linux here")


def lint(folder: Path, *command: str) -> None:
    tool, *arguments = command
    environment = {"PATH": f"{TOOLS}:/usr/bin:/bin"}
    done = subprocess.run([str(TOOLS / tool), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{tool}: {done.stdout}{done.stderr}"


def content(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted((folder / ".github").rglob("*")) if p.is_file())


@linux
def test_workflows_have_no_findings(tmp_path: Path):
    """The template's own, and each different set of files that a supported bake has."""
    bakes = {content(folder): folder for folder in (bake(tmp_path / f"b{i}" / "my-slm", **a) for i, a in enumerate(SUPPORTED))}
    for folder in (TEMPLATE, *bakes.values()):
        check(folder)


def check(folder: Path) -> None:
    workflows = sorted((folder / ".github" / "workflows").glob("*.yml"))
    assert workflows
    lint(folder, "actionlint", *map(str, workflows))
    lint(folder, "zizmor", "--offline", "--pedantic", "--no-progress", str(folder / ".github"))
    lint(folder, "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, workflows))
    for action in (folder / ".github").glob("actions/*/action.yml"):
        lint(folder, "check-jsonschema", "--builtin-schema", "vendor.github-actions", str(action))


@linux
def test_the_linters_lint(tmp_path: Path):
    """Each tool finds what is planted for it."""
    folder = bake(tmp_path / "planted")
    path = folder / ".github" / "workflows" / "pr.yml"
    good = path.read_text(encoding="utf-8")
    plants = {
        "actionlint": (good.replace("needs.check.result", "needs.chek.result"), [str(path)]),
        "zizmor": (
            good.replace("run: make lint", 'run: echo "${{ github.head_ref }}"'),
            ["--offline", "--pedantic", str(folder / ".github")],
        ),
        "check-jsonschema": (
            good.replace("timeout-minutes: 5", "timeout-mintes: 5"),
            ["--builtin-schema", "vendor.github-workflows", str(path)],
        ),
    }
    for tool, (text, arguments) in plants.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(AssertionError, match=tool):
            lint(folder, tool, *arguments)


def test_an_ignore_has_a_reason():
    for path in TEMPLATE.rglob(".github/**/*.yml"):
        if {".venv", "build"} & set(path.parts):
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if "zizmor: ignore" in line:
                reason = line.split("]", 1)[1].strip() or lines[number - 1].strip()
                assert len(reason.lstrip("# ")) > 20, f"{path}:{number + 1}"
