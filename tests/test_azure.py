"""The training job on Azure ML: its files by Azure's own loader, what is uploaded by Azure's own list, and train.yml with a stand-in for `az`.

Nothing here has an Azure account; docs/workflows.md of the project says what that leaves unknown.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bake import bake
from tests.test_bake import read_yaml
from tests.world import World
from tests.worlds import write

pytestmark = pytest.mark.filterwarnings("ignore")  # hundreds, of Azure's client about itself

VARIABLES = ("CLIENT_ID", "TENANT_ID", "SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE", "COMPUTE")
CLIENT_OF = {"2.43.0": "1.33.0"}  # the Azure CLI's extension `ml`, and the azure-ai-ml that is bundled in it
REMOTE = "[core]\n    remote = storage\n['remote \"storage\"']\n    url = azure://models/dvc\n    account_name = acme\n"


@pytest.fixture
def baked(tmp_path: Path) -> Path:
    return bake(tmp_path / "my-slm", data_remote="azure")


def job(path: Path):
    from azure.ai.ml import load_job  # takes seconds

    # What slm/ci/azureml.py gives `az ml job create` by --set is this to the loader.
    sets = {"compute": "azureml:my-cluster", "environment_variables.PROFILE": "full", "tags.commit": "abc"}
    loaded = load_job(path, params_override=[{key: value} for key, value in sets.items()])
    assert loaded._validate().passed
    return loaded


def test_azure_loads_the_job_and_its_environment(baked: Path):
    from azure.ai.ml import load_environment

    loaded = job(baked / "azureml" / "job.yml")
    assert loaded.compute == "my-cluster" and loaded.environment_variables["PROFILE"] == "full" and loaded.tags == {"commit": "abc"}
    assert Path(loaded.base_path, loaded.component.code).resolve() == baked.resolve()
    # The loader does not look into the command.
    assert re.findall(r"\$\{\{(.+?)\}\}", loaded.command) == [f"outputs.{name}" for name in loaded.outputs]
    assert (baked / loaded.command.split()[1]).is_file()
    environment = load_environment(baked / "azureml" / "environment.yml")
    dockerfile = Path(environment.base_path, environment.build.path, environment.build.dockerfile_path)
    # One image, pinned by hash, for this and for the container that serves.
    image = re.search(r"^FROM (.+@sha256:[0-9a-f]{64})$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
    assert image and f"FROM {image[1]}\n" in (baked / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("job.yml", "command: bash", "comand: bash", r'"comand": .*Unknown field'),
        ("job.yml", "limits:", "limit:", r'"limit": .*Unknown field'),
        ("job.yml", "timeout: 20400", "timeout: long", "Not a valid integer"),
        ("job.yml", "type: uri_folder", "type: folder", "'folder' passed is not in set"),
        ("job.yml", "type: managed", "type: mangaed", "'mangaed' passed is not in set"),
        ("job.yml", "code: ..", "code: ../nowhere", "Can't find directory or file"),
        ("job.yml", "file:environment.yml", "file:nowhere.yml", "No such file or directory"),
        ("environment.yml", "dockerfile_path:", "dockerfile_pth:", r'"dockerfile_pth": .*Unknown field'),
        ("environment.yml", "path: image", "path: nowhere", "Can't find directory or file"),
    ],
)
def test_azure_refuses_what_is_wrong(name: str, old: str, new: str, said: str, baked: Path):
    from azure.ai.ml import load_environment

    path = baked / "azureml" / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(Exception, match=re.compile(said.replace('"', r'\\?"'), re.DOTALL)):
        load_environment(path) if name == "environment.yml" else job(path)


def uploaded(baked: Path) -> list[str]:
    """The files that Azure's client takes from a project, by its own reading of .amlignore."""
    from azure.ai.ml._utils._asset_utils import get_ignore_file, get_upload_files_from_folder

    return [name for _, name in get_upload_files_from_folder(baked, ignore_file=get_ignore_file(baked))]


def test_what_is_uploaded_is_the_repository_and_no_cache(baked: Path, tmp_path: Path):
    kept = ".cache/released/package"
    secret_or_large = [
        ".venv/bin/python",
        ".cache/base/model.gguf",
        ".cache/ready",
        ".dvc/cache/files/md5/aa/bb",
        ".dvc/config.local",
        ".dvc/tmp/lock",
        ".resume/state",
        "slm/__pycache__/azure.pyc",
        "my_slm.egg-info/PKG-INFO",
        *(f"{name}/file" for name in ("models", "data", "predictions", "reports", "dist", "sealed", "logs", "released", "image", "site")),
    ]
    for name in (kept, *secret_or_large):
        (baked / name).parent.mkdir(parents=True, exist_ok=True)
        (baked / name).write_text("x", encoding="utf-8")
    names = uploaded(baked)
    tracked = subprocess.run(["git", "ls-files"], cwd=baked, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {n for n in names if not n.startswith(".git/")} == {*tracked, kept}
    # What arrives is a repository that git and DVC can work in.
    for name in names:
        (tmp_path / "job" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(baked / name, tmp_path / "job" / name)
    status = subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path / "job", capture_output=True, text=True, check=True)
    assert status.stdout == ""


# A stand-in for the Azure CLI: it takes the calls that are written here and no others, and runs the job's own command on what it is given.
AZ = """#!{python}
import json, os, pathlib, re, shutil, subprocess, sys

home = pathlib.Path({home!r})
words = [w for w in sys.argv[1:] if w != "--only-show-errors"]
with (home / "calls").open("a", encoding="utf-8") as stream:
    stream.write(json.dumps(words) + "\\n")
place = "--resource-group my-RESOURCE_GROUP --workspace-name my-WORKSPACE"
said = " ".join(words)


def taken(pattern):
    return re.fullmatch(pattern.replace("PLACE", place), said)


def once(name):
    try:
        (home / name).touch(exist_ok=False)
        return True
    except FileExistsError:
        return False


name = "--name (train-\\\\d+-\\\\d+)"
if taken("login --service-principal --username my-CLIENT_ID --tenant my-TENANT_ID --federated-token signed-\\\\d+ --output none"):
    pass
elif taken("account set --subscription my-SUBSCRIPTION_ID"):
    pass
elif taken("extension add --name ml --version [0-9.]+ --yes"):
    pass
elif taken(f"ml job create --file azureml/job.yml {{name}} --set compute=azureml:my-COMPUTE --set environment_variables.PROFILE=default "
           "--set tags.commit=[0-9a-f]{{40}} PLACE --output none"):
    job, out = home / "job", home / "named-outputs" / "proposal"
    shutil.copytree(".", job)
    text = (job / "azureml" / "job.yml").read_text(encoding="utf-8")
    command = re.search("^command: (.+)$", text, re.MULTILINE)[1].replace("${{{{outputs.proposal}}}}", str(out))
    variables = {{"PATH": f"{{home / 'bin'}}:/usr/bin:/bin", "HOME": str(home), "PROFILE": "default", "BUDGET": "330"}}
    done = subprocess.run(["bash", "-c", command], cwd=job, env=variables)
    (home / "status").write_text("Failed" if done.returncode else "Completed", encoding="utf-8")
elif taken(f"ml job stream {{name}} PLACE"):
    if once("streamed"):
        sys.exit("ERROR: AADSTS700024: Client assertion is not within its valid time range")
elif taken(f"ml job show {{name}} PLACE --query status --output tsv"):
    print("Running" if once("asked") else (home / "status").read_text(encoding="utf-8"))
elif match := taken(f"ml job download {{name}} PLACE --output-name proposal --download-path (.+)"):
    shutil.copytree(home / "named-outputs", pathlib.Path(match[2]) / "named-outputs")
else:
    sys.exit(f"ERROR: unrecognized arguments: {{said}}")
"""
# The job's `slm`, whose commands other tests run: a model that changes the lock, or one that the gate refuses.
COMMAND = """#!/bin/sh
case "$1" in
  restore) mkdir -p reports && printf '| rung |\\n' > reports/verdict.md && echo '  # made on Azure' >> dvc.lock ;;
  gate) exit {code} ;;
esac
"""


@pytest.fixture
def azure(world: World, monkeypatch: pytest.MonkeyPatch):
    """The world's project has a remote on Azure, its runners have `az`; returns a function that runs train.yml there."""
    world.push(write(".dvc/config", REMOTE))
    monkeypatch.setenv("PATH", str(world.folder / "tools"), prepend=":")
    programs = {
        "tools/az": AZ.format(python=sys.executable, home=str(world.folder / "azure")),
        "azure/bin/python3": "#!/bin/sh\n",  # set-up, which other tests run
        "azure/bin/slm": COMMAND.format(code=0),
    }
    for name, text in programs.items():
        write(name, text)(world.folder)
        (world.folder / name).chmod(0o755)

    def train(**variables: str):
        inputs = {"profile": "default", "target": "azureml", "runner": "ubuntu-latest", "reason": ""}
        given = {f"AZURE_{name}": f"my-{name}" for name in VARIABLES} | variables
        return world.act("train.yml", "workflow_dispatch", {"inputs": inputs}, world.clone("train"), **given)

    return train


def calls(world: World) -> list[list[str]]:
    path = world.folder / "azure" / "calls"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


linux = pytest.mark.skipif(sys.platform != "linux", reason="act runs on Linux here")


@linux
@pytest.mark.slow
def test_a_model_made_on_azure_is_proposed(world: World, azure):
    run = azure()
    assert run.jobs == {"Azure ML": True, "Propose": True}, run.log[-4000:]
    (pull,) = world.forge.pulls
    assert pull["head"]["ref"] == "model-update" and "| rung |" in pull["body"]
    assert world.git(world.origin, "diff", "--name-only", "main", "model-update") == "dvc.lock"
    # A login whose hour is over is renewed, with another token; no token is in the log.
    tokens = [c[c.index("--federated-token") + 1] for c in calls(world) if c[0] == "login"]
    assert len(tokens) == len(set(tokens)) == 3
    assert not any(token in run.log.replace(f"::add-mask::{token}", "") for token in tokens)


@linux
@pytest.mark.slow
def test_a_model_that_is_refused_on_azure_is_not_proposed(world: World, azure):
    write("azure/bin/slm", COMMAND.format(code=1))(world.folder)
    run = azure()
    assert run.jobs == {"Azure ML": False}, run.log[-4000:]
    assert "ended as Failed" in run.log and not world.forge.pulls


@linux
@pytest.mark.slow
@pytest.mark.parametrize("missing", ["AZURE_WORKSPACE", "remote"])
def test_what_is_missing_is_named_before_anything_starts(missing: str, world: World, azure):
    if missing == "remote":
        world.push(write(".dvc/config", "[core]\n    analytics = false\n"))
        run = azure()
        assert ".dvc/config: no DVC remote" in run.log
    else:
        run = azure(**{missing: ""})
        assert f"error: not set: {missing}; add it to the repository" in run.log
    assert run.jobs == {"Azure ML": False}, run.log[-4000:]
    assert not calls(world) and not world.forge.pulls and "Traceback" not in run.log


@linux
@pytest.mark.slow
def test_no_value_becomes_code(world: World, azure):
    run = azure(AZURE_COMPUTE="$(touch PWNED)`touch PWNED`';touch PWNED;'")
    assert run.jobs == {"Azure ML": False}  # the stand-in knows no such compute
    assert any("touch PWNED" in " ".join(c) for c in calls(world))
    assert not list(world.folder.rglob("PWNED*"))


def test_the_pins_are_one(baked: Path):
    """The extension that the workflow installs brings the client that these tests load the job with."""
    import azure.ai.ml

    extension = re.search(r'^EXTENSION = "(.+?)"', (baked / "slm" / "ci" / "azureml.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert extension and CLIENT_OF[extension[1]] == azure.ai.ml.__version__
    assert set(read_yaml(baked / ".github" / "workflows" / "train.yml")["jobs"]["azure"]["env"]) == {f"AZURE_{n}" for n in VARIABLES}
