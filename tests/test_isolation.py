"""Jobs that hold a token or a key run Python isolated: a file of the checkout stands before no library.

Each such line of the baked workflows is run in a checkout whose root is full of planted modules.
"""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from tests.bake import bake

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the lines are those of Linux runners")
PLANTED = ["base64", "json", "ssl", "sitecustomize", "usercustomize", "slm", "pathlib", "argparse", "urllib", "simplejson", "typer", "pip"]
FOLDERS = ["zipfile", "http", "re", "logging", "dvc", "colorama"]
PYTHON = re.compile(r"(?:\S*/)?python3?(?= )[^|&\n]*")
ISOLATED = re.compile(r"(?:\.venv/bin/)?python3? -I (?:\.github/steps\.py slm[\w.]*(?: |$)|-m pip install |bootstrap\.py$)")


def holding(project: Path) -> list[tuple[str, str, str]]:
    """(workflow, job, `run`) of the steps of jobs that may write, or hold a secret or a token; with those of the set-up action."""
    found = []
    for path in sorted((project / ".github").glob("workflows/*.yml")):
        for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items():
            if "write" in (job.get("permissions") or {}).values() or re.search(r"secrets\.|github\.token", str(job)):
                found += [(path.name, name, step["run"]) for step in job.get("steps", []) if "run" in step]
    action = yaml.safe_load((project / ".github/actions/setup/action.yml").read_text(encoding="utf-8"))
    return found + [("action.yml", "", step["run"]) for step in action["runs"]["steps"] if "run" in step]


def lines(project: Path) -> set[str]:
    return {line.strip() for _, _, text in holding(project) for line in PYTHON.findall(text)}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bake whose root holds modules that leave a mark when they are imported; its environment is that of these tests."""
    project = bake(tmp_path_factory.mktemp("isolation") / "project")
    venv.create(project / ".venv", with_pip=False)
    (packages,) = (project / ".venv").glob("lib/python*/site-packages")
    own = next(p for p in sys.path if p.endswith("site-packages"))
    (packages / "own.pth").write_text(f"{own}\n", encoding="utf-8")
    mark = "import os\nopen(os.environ['MARKS'] + '/' + {name!r}, 'w').close()\n"
    for name in PLANTED:
        (project / f"{name}.py").write_text(mark.format(name=name), encoding="utf-8")
    for name in FOLDERS:
        (project / name).mkdir()
        (project / name / "__init__.py").write_text(mark.format(name=name), encoding="utf-8")
    return project


def run(project: Path, marks: Path, line: str) -> subprocess.CompletedProcess:
    """A line as a runner starts it, with a token and without anything that answers; PYTHONPATH is what a job may have set."""
    marks.mkdir(exist_ok=True)
    token = {"GITHUB_TOKEN": "planted", "GITHUB_API_URL": "http://127.0.0.1:9", "GITHUB_REPOSITORY": "acme/slm", "GITHUB_SHA": "0" * 40}
    variables = {k: os.environ[k] for k in ("PATH", "LANG", "HOME") if k in os.environ} | token
    variables |= {"MARKS": str(marks), "PYTHONPATH": str(project), "PYTHONSTARTUP": str(project / "base64.py"), "GITHUB_REF_NAME": "v1"}
    variables |= {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}  # nothing is installed
    return subprocess.run(["bash", "-c", line], cwd=project, env=variables, capture_output=True, text=True, timeout=120, check=False)


def test_every_line_is_isolated(planted: Path):
    found = holding(planted)
    assert {name for name, _, _ in found} == {p.name for p in planted.glob(".github/workflows/*.yml")} | {"action.yml"}
    assert len(lines(planted)) > 20 and not [line for line in lines(planted) if not ISOLATED.match(line)]
    # `make` starts Python without -I. The jobs of pr.yml and `verify` of release.yml have no secret, and tokens that read.
    assert {(name, job) for name, job, text in found if re.search(r"\bmake\b", text)} <= {
        ("pr.yml", "candidate"),
        ("release.yml", "verify"),
    }


@pytest.mark.attack
def test_no_planted_module_is_imported(planted: Path, tmp_path: Path):
    """As they stand, the lines end where nothing answers; with --help they do their honest work."""
    for line in sorted(lines(planted)):
        if " pip " in line:  # these would install
            honest = line.split("install")[0] + "--version"
        elif "bootstrap" in line:
            honest = f"{line} --help"
        else:
            run(planted, tmp_path / "marks", line)
            honest = re.match(r"\S+ -I \.github/steps\.py slm\S*", line)[0] + " --help"
        done = run(planted, tmp_path / "marks", honest)
        lacks_runtime = "slm.ci.device" in line and "No module named 'onnxruntime_genai'" in done.stderr
        assert (done.returncode == 0 and done.stdout) or lacks_runtime, f"{honest}: {done.stdout}{done.stderr}"
        found = sorted(p.name for p in (tmp_path / "marks").iterdir())
        assert not found, f"{line} imported {found}"


@pytest.mark.parametrize("line", ["python3 -m slm.ci.steps --help", "python3 bootstrap.py --help", "python3 -I .github/steps.py os --help"])
def test_without_isolation_a_planted_module_is_seen(line: str, planted: Path, tmp_path: Path):
    done = run(planted, tmp_path / "marks", line)
    assert list((tmp_path / "marks").iterdir()) or "the form is" in done.stderr


@pytest.mark.attack
def test_the_launcher_is_refused_without_isolation(planted: Path, tmp_path: Path):
    done = run(planted, tmp_path / "marks", "env -u PYTHONPATH python3 -s -P .github/steps.py slm.ci.steps summary")
    assert done.returncode and "`-I` is needed" in done.stderr


SPAWNS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from slm.files import sha256_json


def main():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        print(len(pool.submit(sha256_json, {}).result()))
"""


def test_a_process_that_a_line_spawns_has_the_checkouts_package(planted: Path, tmp_path: Path):
    (planted / "slm" / "spawns.py").write_text(SPAWNS, encoding="utf-8")
    done = run(planted, tmp_path / "marks", "python3 -I .github/steps.py slm.spawns")
    assert done.stdout.strip() == "64", done.stderr
    assert not list((tmp_path / "marks").iterdir())
