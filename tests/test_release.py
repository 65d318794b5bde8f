"""From main to a release and back, model updates by the workflow, and strings that try to be code."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bake import TEMPLATE
from tests.conftest import once, python
from tests.world import SECRET, Run, World
from tests.worlds import GATES, append, on_main, on_tag, python_at, say_yourself, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def signer(made: Path, testrun_uid: str) -> Path:
    """The signing program in the environment of its lock, and a key in place of the workflow's identity."""
    folder = made.parent / "signer"

    def make() -> None:
        folder.mkdir(exist_ok=True)
        lock = TEMPLATE / "{{cookiecutter.project}}" / "requirements" / "signing.txt"
        environment = folder / "environment"
        for command in (
            [sys.executable, "-m", "uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)],
            [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(environment), "--require-hashes", "-r", str(lock)],
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(folder / "key.pem")],
            ["openssl", "ec", "-in", str(folder / "key.pem"), "-pubout", "-out", str(folder / "key.pub")],
        ):
            subprocess.run(command, check=True, capture_output=True)

    once("signer", testrun_uid, make)
    return folder


def publish(world: World, tag: str, signer: Path) -> None:
    """What release.yml does, job by job, but for the container and the devices: docker and Windows are not here."""
    key = f"'sealed'), Path('release/sealed.sig'), Path('{signer / 'key.pem'}'"
    sign = f'python3 -c "from pathlib import Path; from slm.ci.signing import sign_folder; sign_folder(Path({key}))"'
    for job in ("publish", "announce"):
        folder = world.clone("tag", tag)
        path = folder / ".github" / "workflows" / "release.yml"
        text = path.read_text(encoding="utf-8")
        for old, new in {
            "needs: [verify, container, devices]": "needs: [verify]",
            "run: python3 -I .github/steps.py slm.ci.steps sign": f"run: ln -s {signer / 'environment'} .signing && {sign}",
        }.items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        run = world.act("release.yml", "push", {"ref": f"refs/tags/{tag}", "after": world.tip(tag)}, folder, job)
        assert run.passed, run.log[-4000:]


def test_a_good_tag_is_released_named_and_taken_back(world: World, signer: Path):
    assert on_main(world).passed
    world.git(world.origin, "tag", "v1", "main")
    publish(world, "v1", signer)
    release = world.forge.release("v1")
    assert release and not release["draft"]
    names = {a["name"] for a in release["assets"]}
    assert {"SEAL.json", "findings.json", "facts.tar.gz", "predictions.jsonl", "sbom.cdx.json", "SHA256SUMS", "sealed.sig"} <= names
    # released.json moves by a pull request.
    assert [p["head"]["ref"] for p in world.forge.pulls] == ["released"]
    folder = world.clone("read", "released")
    entry = json.loads((folder / "released.json").read_text(encoding="utf-8"))["released"]
    assert entry["tag"] == "v1" and entry["revision"] == world.tip("v1")
    # The bytes come back, are those of the tagged commit, and main sealed and the release signed them.
    (folder / ".signing").symlink_to(signer / "environment")
    verify = ("-m", "slm", "release", "verify", "v1", "--public-key", str(signer / "key.pub"))
    python_at(world, folder, *verify)
    # Signed by another, or not attested: an error.
    asset = next(a for a in release["assets"] if a["name"] == "sealed.sig")
    signature = json.loads(world.forge.files[asset["id"]])
    world.forge.files[asset["id"]] = json.dumps(signature | {"dsseEnvelope": None}).encode()
    with pytest.raises(AssertionError, match="no valid signature"):
        python_at(world, folder, *verify)
    (world.folder / "attestations").unlink()
    with pytest.raises(AssertionError, match="has not attested these bytes"):
        python_at(world, folder, *verify)
    # A second release, then the first again.
    world.git(folder, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    python_at(world, folder, "-m", "slm.verdict.released")
    python_at(world, folder, "-m", "slm", "release", "rollback", "v1")
    assert json.loads((folder / "released.json").read_text(encoding="utf-8"))["released"] == entry


def test_a_changed_byte_of_a_release_is_found(released: World):
    assets = {a["name"]: a["id"] for a in released.forge.release("v1")["assets"]}
    released.attest(released.forge.files[assets["SEAL.json"]], released.tip("v1"))
    released.forge.files[assets["predictions.jsonl"]] += b" "
    with pytest.raises(AssertionError, match="is not the file that was sealed"):
        python_at(released, released.clone("read"), "-m", "slm", "release", "verify", "v1")


def test_a_device_says_what_the_package_said_and_how_fast_it_is_beside_another_rung(sealed: Path, made: Path, tmp_path: Path):
    facts = json.loads(python(made, "-m", "slm", "device", "test", str(sealed), "--examples", "20").stdout)
    assert (facts["asked"], facts["flipped"]) == (20, 0)
    assert facts["time_share"]["of"] == "int8" and facts["time_share"]["here"] > 0
    other = Path(shutil.copytree(sealed, tmp_path / "sealed"))
    header, *rows = (other / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    changed = [json.dumps(json.loads(r) | {"answer": "something else"}) for r in rows[:10]] + rows[10:]
    (other / "predictions.jsonl").write_text("\n".join([header, *changed]) + "\n", encoding="utf-8")
    done = python(made, "-m", "slm", "device", "test", str(other), check=False)
    assert done.returncode == 1
    assert re.search(r"\d+ of \d+ answers are not those of the machine that judged", done.stderr), done.stderr
    assert "assumed, there is no devices.json yet" in done.stderr


@pytest.mark.full
def test_the_devices_workflow_asks_the_sealed_package(world: World, tmp_path: Path):
    """On the one kind of runner that is here, with an environment that has the runtime and nothing else."""
    main = on_main(world)
    assert main.passed
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "device")], check=True)
    path = f"{tmp_path / 'device' / 'bin'}{os.pathsep}{world.environment()['PATH']}"
    event = {"inputs": {"run": str(main.number)}}

    def devices(name: str) -> Run:
        folder = world.clone(name)
        file = folder / ".github" / "workflows" / "devices.yml"
        text, found = re.subn(r"os: \[ubuntu-24\.04, .*\]", "os: [ubuntu-24.04]", file.read_text(encoding="utf-8"))
        assert found == 1
        file.write_text(text, encoding="utf-8")
        return world.act("devices.yml", "workflow_dispatch", event, folder, runner={"PATH": path})

    run = devices("devices")
    assert run.passed, run.log[-4000:]
    assert '"flipped": 0' in run.log
    # The first run says how many answers may differ on a device, for a person to merge; what is said already is not said again.
    (pull,) = world.forge.pulls
    assert pull["head"]["ref"] == "devices" and "| device | asked | differ | may differ |" in pull["body"]
    world.git(world.origin, "update-ref", "refs/heads/main", world.tip("devices"))
    stated = json.loads((world.clone("read") / "devices.json").read_text(encoding="utf-8"))
    assert 0 < stated["tolerance"] <= 0.2 and len(stated["devices"]) == 1
    world.forge.pulls.clear()
    run = devices("again")
    assert run.passed and not world.forge.pulls, run.log[-4000:]


def test_every_changed_byte_of_a_package_is_found(sealed: Path, made: Path, tmp_path: Path):
    """Single-byte changes over every sealed file and every file of the package: none passes."""
    from tests.tamper import tampered

    tried, caught = tampered(made, sealed, tmp_path, 24)
    assert tried >= 24 and caught == tried


def train(world: World, **options: Any) -> Run:
    inputs = {"profile": "default", "runner": "ubuntu-latest", "reason": ""}
    return world.act("train.yml", "workflow_dispatch", {"inputs": inputs}, world.clone("train"), **options)


def test_training_that_changes_nothing_proposes_nothing(world: World):
    run = train(world)
    assert run.jobs == {"Pull": True, "Model": True, "Push": True, "Propose": True}, run.log[-4000:]
    assert not world.forge.pulls
    assert "nothing changed: no pull request" in run.log


def test_training_that_changes_the_package_proposes_it_once(world: World):
    world.push(say_yourself)
    for _ in range(2):
        run = train(world)
        assert run.jobs == {"Pull": True, "Model": True, "Push": True, "Propose": True}, run.log[-4000:]
    (pull,) = world.forge.pulls
    assert pull["head"]["ref"] == "model-update" and "| rung |" in pull["body"]
    assert world.git(world.origin, "diff", "--name-only", "main", "model-update") == "dvc.lock"


def test_training_that_makes_a_worse_model_proposes_nothing(world: World):
    world.push(write("gates.yaml", GATES.replace("at_least: 0.10", "at_least: 0.999")))
    run = train(world)
    assert run.jobs == {"Pull": True, "Model": False}
    assert not world.forge.pulls


def test_a_branch_that_another_run_moved_meanwhile_is_not_overwritten(world: World):
    """This run saw no branch `model-update`; since then another has pushed one."""
    other = world.push(append("params.yaml", "# theirs\n"), branch="model-update")
    folder = world.clone("late")
    append("params.yaml", "# mine\n")(folder)
    code = "from slm.ci.steps import propose; propose('model-update', 'Update', '', ['params.yaml'], seen='')"
    with pytest.raises(AssertionError, match="if another run moved the branch model-update meanwhile, run this job again"):
        python_at(world, folder, "-c", code)
    assert world.tip("model-update") == other and not world.forge.pulls


# Strings that try to be code, wherever a stranger can put one
PAYLOADS = [
    "$(touch PWNED)",
    "`touch PWNED`",
    "';touch PWNED;'",
    '";touch PWNED;"',
    "${{ github.token }}",
    "${IFS}touch${IFS}PWNED",
    "&&touch PWNED",
    "|touch PWNED",
    "\ntouch PWNED\n",
    "::set-output name=number::1",
    "::add-mask::x",
    "%0Atouch PWNED",
    "x\nnumber=1\nhead=evil",
    "<<EOF\ntouch PWNED\nEOF",
]


def ref(text: str) -> str:
    """The payload as git lets it stand in a branch's name."""
    safe = re.sub(r"[\s~^:?*\[\\]|\.\.|@\{|[\x00-\x1f]", "-", text).strip("/.") or "x"
    return f"x{safe}".replace(".lock", "-lock").replace("//", "/")


@pytest.mark.parametrize("payload", [*PAYLOADS[:2], *(pytest.param(p, marks=pytest.mark.full) for p in PAYLOADS[2:])], ids=repr)
def test_no_string_of_a_stranger_becomes_code(payload: str, world: World, record_property: Callable[[str, object], None]):
    """Title, body, branch, commit message, file name, file content: six places for each payload."""
    record_property("injections", 6)

    def edit(folder: Path) -> None:
        name = re.sub(r"[/\x00]", "-", payload)[:80]
        write(f"docs/{name}.md", payload)(folder)
        write(f"slm/{name}.py", "")(folder)
        append("params.yaml", f"# {payload!r}\n")(folder)

    pull = world.pull(edit, title=payload, branch=ref(payload))
    pull["body"] = payload
    run = world.check(pull, "candidate", PR_BUDGET_MINUTES="0")
    verdict = world.judge(pull, run)
    assert verdict.jobs["Report"], verdict.log[-3000:]
    assert world.status(pull) == "success"  # its package is the one that main has
    assert not list(world.folder.rglob("PWNED*"))
    assert not [p for p in Path("/tmp").glob("PWNED*")]
    assert SECRET not in run.log + verdict.log + world.comment(pull)
    assert set(world.forge.statuses) == {pull["head"]["sha"]} and set(world.forge.comments) == {pull["number"]}


def test_a_tag_that_tries_to_be_code_is_only_a_tag(world: World):
    tag = "v1$(touch${IFS}PWNED)"
    world.git(world.origin, "tag", tag, "main")
    run = on_tag(world, tag, "take")
    assert run.jobs == {"Take the sealed package": False}
    assert "has the verdict none" in run.log
    assert not list(world.folder.rglob("PWNED*"))
