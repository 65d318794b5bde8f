"""The baked project's workflows, run by act: what passes, what is refused and why, and what a stranger cannot do.

Nothing here is trained: the pull requests change what needs no training, or bring a package. `world` has no release yet,
`released` has v1.
"""

import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import can_isolate
from tests.world import SECRET, Run, World
from tests.worlds import GATES, MAIN_JOBS, append, invent_predictions, on_main, on_tag, python_at, say_yourself, touch_model, write

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="act runs on Linux here")]


# A pull request's own checks
@pytest.mark.twin
def test_docs_change_is_checked_and_passes_without_a_model(world: World):
    pull = world.pull(append("README.md", "\nMore words.\n"))
    run = world.check(pull)
    assert run.jobs == {"Lint, data, lock, tests": True, "Candidate": True, "pass": True}, run.log[-4000:]
    assert not list(world.artifacts.rglob("candidate.zip"))
    verdict = world.judge(pull, run)
    assert verdict.passed, verdict.log[-4000:]
    assert world.status(pull) == "success"
    assert world.comment(pull).startswith("## ✅ This change does not touch the model.")


def test_a_loosened_contract_recomputes_nothing_and_is_named(world: World):
    pull = world.pull(lambda f: write("gates.yaml", GATES.replace("at_least: 0.10", "at_least: 0.01"))(f))
    run = world.check(pull, "candidate")
    assert run.passed, run.log[-3000:]
    assert "Running stage" not in run.log
    world.judge(pull, run)
    assert world.status(pull) == "success"
    assert "gates&#46;yaml" in world.comment(pull) or "gates.yaml" in world.comment(pull)
    assert "The contract is loosened" in world.comment(pull)


def test_what_the_lock_does_not_know_is_refused_with_the_remedy(world: World):
    def edit(folder: Path) -> None:
        path = folder / "params.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace("top_k: 8", "top_k: 4"), encoding="utf-8")

    pull = world.pull(edit)
    run = world.check(pull, PR_BUDGET_MINUTES="1")
    assert run.jobs == {"Lint, data, lock, tests": False, "Candidate": False, "pass": False}, run.log[-3000:]
    assert "dvc.lock is not in sync with the files: run `slm repro` and commit dvc.lock" in run.log
    assert re.search(r"minutes are needed, and this run has 1: run `slm repro && slm push` at home", run.log)
    verdict = world.judge(pull, run)
    assert verdict.jobs == {"Judge": False, "Report": True}
    assert world.status(pull) == "failure"
    assert "made no package" in world.comment(pull)


@pytest.mark.parametrize("fault", ["leak", "lint", "test"])
def test_faults_of_the_change_are_named(fault: str, world: World):
    def leak(folder: Path) -> None:
        row = json.loads((folder / "task" / "test.jsonl").read_text(encoding="utf-8").splitlines()[0])
        append("task/train.jsonl", json.dumps(row | {"id": "leaked"}) + "\n")(folder)

    faults = {
        "leak": (leak, r"task/train\.jsonl:\d+: "),
        "lint": (append("slm/task/metrics.py", "import os\n"), "F401|E402"),
        "test": (append("tests/test_scoring.py", "\n\ndef test_planted():\n    assert 1 == 2\n"), "test_planted"),
    }
    edit, said = faults[fault]
    run = world.check(world.pull(edit), "check")
    assert run.jobs == {"Lint, data, lock, tests": False}
    assert re.search(said, run.log), run.log[-3000:]


def test_a_change_of_the_package_alone_is_made_again_and_judged(released: World):
    """The whole way: the pipeline runs what changed, the package is uploaded, judged beside the released one, reported."""
    pull = released.pull(say_yourself)
    run = released.check(pull, "candidate")
    assert run.passed, run.log[-4000:]
    assert set(re.findall(r"Running stage '([^']+)'", run.log)) == {"package"}
    verdict = released.judge(pull, run)
    assert verdict.passed, verdict.log[-4000:]
    assert released.status(pull) == "success"
    comment = released.comment(pull)
    assert comment.startswith("## ✅ The model passes its gates.")
    assert "```mermaid" in comment and "| released |" in comment and "| candidate |" in comment
    assert SECRET not in run.log + verdict.log


# The judge, offered packages
def judged(world: World, edit: Callable[[Path], None], package: Path | None, **variables: str) -> tuple[str | None, str, Run]:
    pull = world.pull(edit)
    run = world.judge(pull, world.offer(package), **variables)
    return world.status(pull), world.comment(pull), run


@pytest.mark.twin
def test_first_model_is_judged_by_its_floors(world: World, model: Path):
    status, comment, run = judged(world, touch_model, model)
    assert status == "success", run.log[-4000:]
    assert "no baseline: nothing is released yet" in plain(comment)


def test_a_worse_model_is_refused_with_the_answers_that_it_lost(released: World, worse: Path):
    status, comment, run = judged(released, touch_model, worse)
    assert status == "failure", run.log[-4000:]
    assert comment.startswith("## ❌ The model is refused")
    assert re.search(r"[1-9]\d* answers lost: <code>", comment) and re.search(r"Validation data: \d+ of \d+ answers lost", comment)
    tests = [json.loads(line) for line in (released.clone("read") / "task" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [row["messages"][0]["content"] for row in tests]
    assert not [text for text in asked if len(text) > 12 and text in plain(comment)]


CHEATS = {
    "gate returns 0": (write("slm/verdict/gate.py", "def main():\n    return 0\n"), "slm/verdict/gate.py"),
    "scorer always right": (write("slm/task/metrics.py", "def score_one(*_):\n    return {'score': 1.0}\n"), "slm/task/metrics.py"),
    "evaluate copies the answers": (append("pipeline/evaluate.py", "\n# answers = expected\n"), "pipeline/evaluate.py"),
    "contract loosened": (write("gates.yaml", GATES.replace("0.10", "0.0").replace("0.05,", "0.2,")), "gates.yaml"),
    "workflow edited": (write(".github/workflows/verdict.yml", "name: verdict\non: push\njobs: {}\n"), ".github/workflows/verdict.yml"),
    "gold answers as predictions": (write("predictions/int4.jsonl", "{}\n"), None),
    "hard tests deleted": (
        lambda f: (f / "task" / "test.jsonl").write_text(
            "\n".join((f / "task" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:20]) + "\n", encoding="utf-8"
        ),
        "task/test.jsonl",
    ),
    "released.json emptied": (write("released.json", '{"released": null, "best": null}\n'), "released.json"),
}


@pytest.mark.parametrize("name", [*list(CHEATS)[:2], *(pytest.param(n, marks=pytest.mark.full) for n in list(CHEATS)[2:])])
@pytest.mark.attack
def test_a_cheat_gains_nothing_and_is_named(name: str, released: World, worse: Path):
    edit, named = CHEATS[name]

    def both(folder: Path) -> None:
        touch_model(folder)
        edit(folder)

    status, comment, run = judged(released, both, worse)
    assert status == "failure", run.log[-4000:]
    assert comment.startswith("## ❌ The model is refused")
    if named:
        assert "changes what models are judged by" in comment
        assert named in plain(comment)
    if name == "hard tests deleted":
        assert re.search(r"lost \d+ of \d+ examples", comment)


WAIVER = 'waivers:\n  - {gate: score, owner: ada, reason: "known, mended soon", until: %s}\n'


@pytest.mark.full
def test_a_waiver_counts_once_it_is_on_main_and_until_its_day(world: World, model: Path):
    """Refused; refused with a waiver of its own, which is named; passed by a waiver on main, which is shown; refused from the day after."""
    world.push(write("gates.yaml", GATES.replace("at_least: 0.10", "at_least: 0.999")), "Ask more")
    status, comment, run = judged(world, touch_model, model)
    assert status == "failure", run.log[-4000:]

    def with_own_waiver(folder: Path) -> None:
        touch_model(folder)
        write("waivers.yaml", WAIVER % "2999-01-31")(folder)

    status, comment, run = judged(world, with_own_waiver, model)
    assert status == "failure", run.log[-4000:]
    assert "waivers.yaml" in plain(comment) and "gate 'score' is waived until 2999-01-31" in plain(comment)

    world.push(write("waivers.yaml", WAIVER % "2999-01-31"), "Waive")
    status, comment, run = judged(world, touch_model, model)
    assert status == "success", run.log[-4000:]
    assert "waived by ada until 2999-01-31: known, mended soon" in plain(comment)

    world.push(write("waivers.yaml", WAIVER % "2020-01-01"), "An old waiver")
    status, comment, run = judged(world, touch_model, model)
    assert status == "failure", run.log[-4000:]
    assert "the waiver of ada ended on 2020-01-01" in plain(comment)


def plain(comment: str) -> str:
    """A comment as it is shown: characters that Markdown would act on are written as numbers."""
    return re.sub(r"&#(\d+);", lambda m: chr(int(m[1])), comment.replace("<!-- -->", ""))


def forge_zip(names: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as zipped:
            for name, data in names.items():
                zipped.writestr(name, data)

    return make


def zeros(path: Path) -> None:
    """2 GB of zeros in 2 MB."""
    block = bytes(1 << 24)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped, zipped.open("model.onnx", "w", force_zip64=True) as stream:
        for _ in range(125):
            stream.write(block)


ARTIFACTS = {
    "a path that leads out": (forge_zip({"../../pwned": b"x"}), "is not a model file"),
    "an absolute path": (forge_zip({"/tmp/pwned": b"x"}), "is not a model file"),
    "a library": (forge_zip({"model.onnx": b"x", "libevil.so": b"x"}), "is not a model file"),
    "2 GB of zeros": (zeros, "larger than 500 MB unpacked"),
    "no archive": (lambda p: p.write_bytes(b"PK nonsense"), "not a complete archive"),
    "nothing of a model": (forge_zip({"genai_config.json": b"{}"}), "model.onnx is missing"),
    "another compression": (forge_zip({"genai_config.json": b"{}"}, zipfile.ZIP_LZMA), "compressed by method 14"),
}


@pytest.mark.parametrize(
    "name",
    [
        "a path that leads out",
        "2 GB of zeros",
        *(pytest.param(n, marks=pytest.mark.full) for n in list(ARTIFACTS)[1:3] + list(ARTIFACTS)[4:]),
    ],
)
@pytest.mark.attack
def test_a_forged_artifact_is_refused_and_leaves_nothing(name: str, world: World):
    make, said = ARTIFACTS[name]
    run = world.offer(None)
    (world.artifacts / str(run.number)).mkdir()
    make(world.artifacts / str(run.number) / "candidate.zip")
    pull = world.pull(touch_model)
    verdict = world.judge(pull, run, CANDIDATE_LIMIT_MB="500")
    assert world.status(pull) == "failure", verdict.log[-3000:]
    assert said in plain(world.comment(pull))
    assert not list(world.folder.rglob("pwned")) and not Path("/tmp/pwned").exists()


def evil_config(model: Path) -> None:
    path = model / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["decoder"]["session_options"]["custom_ops_library"] = "/tmp/evil.so"
    path.write_text(json.dumps(config), encoding="utf-8")


def cut_weights(model: Path) -> None:
    path = model / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:1000])


def evil_template(model: Path) -> None:
    """A chat template that never ends, and a name that the runtime would format."""
    (model / "chat_template.jinja").write_text("{% for i in range(99999) %}" * 3 + "x" + "{% endfor %}" * 3, encoding="utf-8")


def evil_name(model: Path) -> None:
    path = model / "genai_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("present.%d.key", "::add-mask::%n"), encoding="utf-8")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (evil_config, "is not allowed in a package"),
        (evil_template, "no answer in time"),
        pytest.param(evil_name, "is not allowed in a package", marks=pytest.mark.full),
        pytest.param(cut_weights, "tokenizer.json is not JSON", marks=pytest.mark.full),
    ],
)
@pytest.mark.attack
def test_a_package_that_would_do_more_than_compute_is_refused(edit: Callable, said: str, world: World, model: Path):
    edit(model)
    status, comment, run = judged(world, touch_model, model)
    assert status == "failure", run.log[-3000:]
    assert said in plain(comment) and "%n" not in comment


def test_a_new_head_waits_for_its_verdict(world: World):
    """Before anything of the pull request has run, the required status exists and is not green."""
    pull = world.pull(touch_model)
    assert world.opened(pull).jobs == {"Pending": True}
    assert world.status(pull) == "pending"


@pytest.mark.attack
def test_a_module_at_the_root_stands_before_no_library(world: World):
    """Jobs that hold a token run Python isolated, whatever lies beside them."""

    def plant(folder: Path) -> None:
        for name in ("base64", "json", "ssl", "sitecustomize", "typer"):
            (folder / f"{name}.py").write_text(f"open({str(world.folder / f'ran-{name}')!r}, 'w')\n", encoding="utf-8")

    world.push(plant, "Plant")
    pull = world.pull(append("README.md", "x\n"))
    assert world.opened(pull).passed
    run = world.judge(pull, world.offer(None))
    assert run.passed and world.status(pull) == "success", run.log[-4000:]
    assert not list(world.folder.glob("ran-*"))


def test_who_has_moved_on_gets_no_verdict(world: World, model: Path):
    pull = world.pull(touch_model)
    run = world.offer(model)
    tested = json.loads(json.dumps(pull))
    pull["head"]["sha"] = world.push(touch_model, "Newer", "change")
    world.judge(tested, run)
    assert not world.forge.statuses and not world.forge.comments


@pytest.mark.attack
def test_a_forged_number_is_not_read(world: World, model: Path):
    """Another pull request's number inside the package's artifact changes nothing: the number is asked of GitHub."""
    other = world.pull(append("README.md", "x\n"), branch="other", owner="victim")
    pull = world.pull(touch_model)
    run = world.offer(model)
    (world.artifacts / str(run.number) / "pull.zip").write_bytes(b"")
    (world.artifacts / str(run.number) / "pull").write_text(str(other["number"]), encoding="utf-8")
    world.judge(pull, run)
    assert world.status(pull) == "success" and world.status(other) is None
    assert other["number"] not in world.forge.comments


def test_a_second_verdict_updates_the_comment_and_leaves_those_of_people(world: World):
    pull = world.pull(append("README.md", "x\n"))
    world.forge.comments[pull["number"]] = [{"id": 1, "body": "mine <!-- model-verdict -->", "user": {"type": "User"}}]
    for _ in range(2):
        world.judge(pull, world.offer(None))
    bodies = [c["body"] for c in world.forge.comments[pull["number"]]]
    assert len(bodies) == 2 and bodies[0] == "mine <!-- model-verdict -->"


def test_with_github_down_nothing_passes(world: World, model: Path):
    pull = world.pull(touch_model)
    world.forge.down = True
    run = world.judge(pull, world.offer(model))
    assert not run.passed
    assert "GitHub answers 503" in run.log and "Traceback" not in run.log
    assert world.status(pull) is None


# main and release
@pytest.mark.twin
def test_main_seals_once_and_says_so_on_the_commit(world: World):
    for _ in range(2):
        run = on_main(world)
        assert run.passed, run.log[-4000:]
        assert world.forge.statuses[world.tip()][0]["state"] == "success"
        world.push(append("README.md", "x\n"))
    assert len(world.forge.releases) == 2, "each commit has a seal of its own"
    for release in world.forge.releases:
        assert release["draft"] and re.fullmatch("sealed-[0-9a-f]{64}", release["tag_name"])
        assert {"SEAL.json", "facts.tar.gz", "findings.json", "predictions.jsonl"} < {a["name"] for a in release["assets"]}


@pytest.mark.attack
def test_what_nobody_asked_is_not_sealed(world: World):
    """Lock, remote and reports agree, every gate of the run passes without running a stage, and the package never said so."""
    commit = invent_predictions(world)
    run = on_main(world)
    assert run.jobs == MAIN_JOBS | {"Recheck": False}, run.log[-4000:]
    assert not run.stages and "The model passes its gates" in run.log
    (status, *_) = world.forge.statuses[commit]
    assert status["state"] == "failure" and "answers as offered" in status["description"]
    assert not world.forge.releases
    world.git(world.origin, "tag", "v2", "main")
    assert "has the verdict failure" in on_tag(world, "v2", "take").log


@pytest.mark.full
@pytest.mark.twin
def test_main_asks_the_hidden_exam(world: World):
    """Encrypted in the repository, asked without its answers, scored in a job of its own; no artifact holds a text of it."""
    folder = world.clone("exam")
    shutil.copy(folder / "task" / "validation.jsonl", folder / "hidden.jsonl")
    lines = (folder / "hidden.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    texts = [json.loads(line)["messages"] for line in lines]
    rows = [{"id": f"e{i}", "messages": [{**m[0], "content": f"{m[0]['content']} now"}, *m[1:]]} for i, m in enumerate(texts)]
    (folder / "hidden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    python_at(world, folder, "-m", "slm", "exam", "new", "hidden.jsonl")
    secrets = {f"EXAM_{part.upper()}_KEY": (folder / ".exam" / f"{part}.key").read_text() for part in ("requests", "answers")}
    (folder / "hidden.jsonl").unlink()
    world.git(folder, "add", "exam")
    world.git(folder, "commit", "--quiet", "--message", "A hidden exam")
    world.git(folder, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    # Without the keys nothing good is sealed.
    assert on_main(world).jobs["Seal"] is False
    assert world.forge.statuses[world.tip()][0]["state"] == "error"
    run = on_main(world, secrets=secrets)
    assert run.jobs == MAIN_JOBS | {"Exam": True}, run.log[-4000:]
    assert world.forge.statuses[world.tip()][0]["state"] == "success"
    said = [row["messages"][0]["content"] for row in rows]
    for archive in (world.artifacts / str(run.number)).glob("*.zip"):
        with zipfile.ZipFile(archive) as zipped:
            held = b"".join(zipped.read(name) for name in zipped.namelist()).decode("utf-8", "replace")
        assert not [text for text in said if text in held], archive
    assert not [text for text in said if text in run.log]


def test_main_with_its_caches_lost_says_what_it_would_take(world: World):
    for path in (world.folder / "cache").glob("dvc-*"):
        shutil.rmtree(path)
    run = on_main(world, MAIN_BUDGET_MINUTES="1")
    assert run.jobs["Model"] is False
    assert "minutes are needed, and this run has 1" in run.log
    assert world.forge.statuses[world.tip()][0]["state"] == "error"


@pytest.mark.attack
def test_a_refused_model_is_not_released(world: World):
    world.push(write("gates.yaml", GATES.replace("at_least: 0.10", "at_least: 0.999")))
    run = on_main(world)
    assert run.jobs == MAIN_JOBS | {"Model": False, "Recheck": False}, run.log[-3000:]
    assert world.forge.statuses[world.tip()][0]["state"] == "failure"
    world.git(world.origin, "tag", "v2", "main")
    run = on_tag(world, "v2", "take")
    assert run.jobs == {"Take the sealed package": False}
    assert "has the verdict failure" in run.log


@pytest.mark.attack
def test_a_tag_on_a_commit_without_verdict_releases_nothing(world: World):
    world.git(world.origin, "tag", "v2", "main")
    run = on_tag(world, "v2", "take")
    assert run.jobs == {"Take the sealed package": False}
    assert "has the verdict none" in run.log
    assert not world.forge.releases


@pytest.mark.attack
def test_one_changed_byte_of_the_sealed_package_is_refused(world: World):
    assert on_main(world).passed
    world.git(world.origin, "tag", "v2", "main")
    asset = next(a for a in world.forge.releases[0]["assets"] if a["name"].endswith("slm.tar.gz"))
    data = bytearray(world.forge.files[asset["id"]])
    data[len(data) // 2] ^= 1
    world.forge.files[asset["id"]] = bytes(data)
    run = on_tag(world, "v2", "verify")
    assert run.jobs == {"Take the sealed package": False}
    assert "is not the file that was sealed" in run.log


@pytest.mark.skipif(not can_isolate(), reason="no user namespaces here")
def test_tokens_reach_only_the_jobs_that_need_them(world: World, model: Path):
    """The step that loads a stranger's model has no token in its environment, and no log holds one."""
    pull = world.pull(touch_model)
    run = world.judge(pull, world.offer(model))
    assert SECRET not in run.log
    text = (world.clone("read") / ".github" / "workflows" / "verdict.yml").read_text(encoding="utf-8")
    step = text[text.index("- name: Judge\n") : text.index("- name: Keep the verdict")]
    assert "token" not in step.lower().replace("without a token", "")
