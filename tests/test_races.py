"""What happens at the same time, half-way, or in another order than one thinks: runs, merges, releases; and the lock that a run leaves.

`world` has no release yet, `released` has v1.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.world import Row, Run, World
from tests.worlds import GATES, MAIN_JOBS, on_main, python_at, say_yourself, touch_model, write

pytestmark = [pytest.mark.full, pytest.mark.skipif(sys.platform != "linux", reason="act runs on Linux here")]


def without_lock(folder: Path) -> None:
    """A change of the student that nobody trained."""
    path = folder / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("top_k: 8", "top_k: 4"), encoding="utf-8")


# Two at once
def test_two_pull_requests_at_once_get_each_its_own_verdict(world: World):
    """Two runs of pr.yml side by side, then two of verdict.yml: one change is good, one brings no package."""
    good = world.pull(say_yourself, branch="good", owner="one")
    bad = world.pull(without_lock, branch="bad", owner="two")

    def both(pull: Row) -> tuple[Run, Run]:
        run = world.check(pull, "candidate", PR_BUDGET_MINUTES="1")
        return run, world.judge(pull, run)

    with ThreadPoolExecutor(2) as pool:
        (good_run, good_verdict), (bad_run, bad_verdict) = pool.map(both, (good, bad))
    assert good_run.jobs == {"Candidate": True} and good_run.stages == {"package"}, good_run.log[-4000:]
    assert bad_run.jobs == {"Candidate": False} and not bad_run.stages, bad_run.log[-4000:]
    assert good_verdict.jobs == {"Judge": True, "Report": True} and bad_verdict.jobs == {"Judge": False, "Report": True}
    assert (world.status(good), world.status(bad)) == ("success", "failure")
    assert world.comment(good).startswith("## ✅ The model passes its gates.")
    assert "made no package" in world.comment(bad)
    artifacts = {p.parent.name for p in world.artifacts.rglob("candidate.zip")}
    assert artifacts == {str(good_run.number)}


# Half-way
def test_a_run_that_dies_half_way_leaves_nothing_and_passes_when_run_again(world: World):
    """The runner of pr.yml dies while a stage writes: no package, no cache, no verdict; the next run is green."""
    pull = world.pull(say_yourself)
    world.opened(pull)
    caches = {p.name for p in (world.folder / "cache").iterdir()}
    dead = world.check(pull, "candidate", stop=lambda log: "Running stage 'package'" in log)
    assert dead.stopped and not dead.jobs
    assert not (world.artifacts / str(dead.number)).exists()
    assert {p.name for p in (world.folder / "cache").iterdir()} == caches
    assert not world.judge(pull, dead).jobs, "a run that was cut short is not judged"
    assert world.status(pull) == "pending" and not world.comment(pull)
    run = world.check(pull, "candidate")
    assert run.jobs == {"Candidate": True} and run.stages == {"package"}, run.log[-4000:]
    assert world.judge(pull, run).passed
    assert world.status(pull) == "success"


def test_a_seal_that_dies_half_way_is_completed_by_the_next_run(world: World):
    """The runner of main.yml dies while it uploads: the draft has a hole and the commit no verdict; the next run fills it."""
    world.forge.hold = "facts.tar.gz"
    dead = on_main(world, stop=lambda _: world.forge.held.is_set())
    assert dead.stopped
    (draft,) = world.forge.releases
    assert draft["draft"] and {"starter"} < {a["state"] for a in draft["assets"]} | {"uploaded"}
    assert world.tip() not in world.forge.statuses
    world.forge.hold = ""
    run = on_main(world)
    assert run.jobs == MAIN_JOBS, run.log[-4000:]
    tag = world.forge.statuses[world.tip()][0]["description"].split("(")[1].rstrip(")")
    draft = world.forge.release(tag)
    assert draft
    assert {a["state"] for a in draft["assets"]} == {"uploaded"}
    names = [a["name"] for a in draft["assets"]]
    assert len(names) == len(set(names))
    sealed = assets(world, draft, world.folder / "assembled")
    python_at(
        world,
        world.clone("read"),
        "-c",
        f"from pathlib import Path; from slm.verdict.released import read_seal; read_seal(Path({str(sealed)!r}))",
    )
    assert world.forge.statuses[world.tip()][0]["state"] == "success"


def assets(world: World, release: Row, folder: Path) -> Path:
    folder.mkdir()
    for asset in release["assets"]:
        (folder / asset["name"]).write_bytes(world.forge.files[asset["id"]])
    return folder


# The base moves
def test_a_verdict_is_by_the_main_of_its_moment(world: World, model: Path):
    """A pull request was green; main asks more since: its next verdict is by the newer contract, and it is not called a loosening."""
    pull = world.pull(touch_model)
    run = world.offer(model)
    assert world.judge(pull, run).passed
    assert world.status(pull) == "success"
    world.push(write("gates.yaml", GATES.replace("at_least: 0.10", "at_least: 0.999")), "Ask more")
    verdict = world.judge(pull, run)
    assert verdict.jobs == {"Judge": False, "Report": True}, verdict.log[-4000:]
    assert world.status(pull) == "failure"
    comment = world.comment(pull)
    assert comment.startswith("## ❌ The model is refused") and "0.999" in comment.replace("&#46;", ".")
    assert "The contract is loosened" not in comment and "the contract&#41;" not in comment
    assert len(world.forge.comments[pull["number"]]) == 1


def test_a_pull_request_is_checked_as_it_would_be_merged(world: World):
    """main has a change of its own since: it is in what is checked, and is not taken for the pull request's."""
    pull = world.pull(touch_readme)
    world.push(say_yourself, "Another wording")
    run = world.check(pull)
    assert run.jobs == {"Lint, data, lock, tests": False, "Candidate": True, "pass": False}, run.log[-4000:]
    assert not run.stages, "words change no model, whatever main's lock says"
    assert "package: slm/export/model_card.md.j2 (modified)" in run.log, "the lock that main lacks is named"
    world.judge(pull, run)
    assert world.comment(pull).startswith("## ✅ This change does not touch the model.")


def touch_readme(folder: Path) -> None:
    with (folder / "README.md").open("a", encoding="utf-8") as stream:
        stream.write("\nMore words.\n")


# Releases
def make_release(world: World, sealed: Path, tag: str, score: float) -> Path:
    """A published release whose seal says this score, on a commit of main of its own."""
    world.push(write(f"docs/{tag}.md", tag), tag)
    world.git(world.origin, "tag", tag, "main")
    folder = Path(shutil.copytree(sealed, world.folder / f"sealed-{tag}"))
    seal = json.loads((folder / "SEAL.json").read_text(encoding="utf-8"))
    seal["figures"] |= {"score": score, "score_low": score - 0.005}  # so that what scores better is clearly better
    (folder / "SEAL.json").write_text(json.dumps(seal), encoding="utf-8")
    world.forge.add_release(tag, {p.name: p.read_bytes() for p in folder.iterdir()})
    return folder


def announce(world: World, sealed: Path, tag: str, folder: Path | None = None) -> Run:
    """Job `announce` of release.yml, after the jobs that it needs have left their artifacts."""
    folder = folder or world.clone(f"announce-{tag}")
    path = folder / ".github" / "workflows" / "release.yml"
    path.write_text(path.read_text(encoding="utf-8").replace("    needs: [publish]\n", ""), encoding="utf-8")
    store = world.artifacts / str(next(world.numbers) + 1)
    store.mkdir()
    shutil.make_archive(str(store / "sealed"), "zip", sealed)
    # The runner here takes the folder's commit for the event's.
    world.attest((sealed / "SEAL.json").read_bytes(), world.git(folder, "rev-parse", "HEAD"))
    with zipfile.ZipFile(store / "card.zip", "w") as zipped:
        zipped.writestr("README.md", f"# Card of {tag}\n")
    return world.act("release.yml", "push", {"ref": f"refs/tags/{tag}", "after": world.tip(tag)}, folder, "announce")


def proposed(world: World) -> tuple[Row, dict[str, Any]]:
    """The one open pull request of releases, and what it names."""
    (pull,) = (p for p in world.forge.pulls if p["head"]["ref"] == "released" and p["state"] == "open")
    assert world.git(world.origin, "diff", "--name-only", "main...released") == "released.json"
    text = (world.clone("read", "released") / "released.json").read_text(encoding="utf-8")
    return pull, {name: entry["tag"] for name, entry in json.loads(text).items()}


def test_a_second_release_does_not_undo_a_first_that_waits(released: World, sealed: Path):
    """v2 scored best and waits for its merge; v3 comes: one pull request, v3 is named, v2 stays the best, and the text says so."""
    v2, v3 = make_release(released, sealed, "v2", 0.99), make_release(released, sealed, "v3", 0.98)
    assert announce(released, v2, "v2").jobs == {"Move released.json": True}
    assert proposed(released)[1] == {"released": "v2", "best": "v2"}
    run = announce(released, v3, "v3")
    assert run.jobs == {"Move released.json": True}, run.log[-3000:]
    pull, named = proposed(released)
    assert named == {"released": "v3", "best": "v2"}
    assert "This pull request named v2 until now, which was not merged" in pull["body"] and "# Card of v3" in pull["body"]


def test_a_first_release_that_comes_late_takes_nothing_back(released: World, sealed: Path):
    """v3 waits for its merge; the run of v2, an earlier commit, is done again: v3 stays, and v2 counts as the best that it is."""
    v2, v3 = make_release(released, sealed, "v2", 0.99), make_release(released, sealed, "v3", 0.98)
    assert announce(released, v3, "v3").passed
    run = announce(released, v2, "v2")
    assert run.passed and "v3 is of a later commit than v2 and stays the released model" in run.log, run.log[-3000:]
    pull, named = proposed(released)
    assert named == {"released": "v3", "best": "v2"}
    assert "v2 was released after v3" in pull["body"]
    tip = released.tip("released")
    assert "already says all of it" in announce(released, v2, "v2").log
    assert released.tip("released") == tip


def test_a_release_whose_pull_request_was_closed_is_not_taken_up(released: World, sealed: Path):
    """A person refused v2's entry: v3's is made from main."""
    v2, v3 = make_release(released, sealed, "v2", 0.99), make_release(released, sealed, "v3", 0.98)
    assert announce(released, v2, "v2").passed
    released.forge.pulls[-1]["state"] = "closed"
    assert announce(released, v3, "v3").passed
    pull, named = proposed(released)
    assert named["released"] == "v3" and named["best"] != "v2" and "v2" not in pull["body"]


def test_two_releases_at_the_same_moment_do_not_overwrite_each_other(released: World, sealed: Path):
    """Both have looked before either pushed: the later push is refused, the run is red and says what to do, and that helps."""
    v2, v3 = make_release(released, sealed, "v2", 0.99), make_release(released, sealed, "v3", 0.98)
    slow = released.clone("slow")
    shutil.copytree(v2, slow / "sealed")
    write("release/README.md", "# Card of v2\n")(slow)
    # Between the look and the push of v2's run, v3's runs from start to end.
    path = slow / "slm" / "ci" / "steps.py"
    text = path.read_text(encoding="utf-8")
    assert text.count("    released.name(SEALED, tag)\n") == 1
    waits = "    Path('looked').touch()\n    while not Path('go').exists():\n        __import__('time').sleep(0.1)\n    released.name(SEALED, tag)\n"
    path.write_text(text.replace("    released.name(SEALED, tag)\n", waits), encoding="utf-8")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(_announce_at, released, slow, "v2")
        while not (slow / "looked").exists():
            assert not second.done(), second.result().stderr
        assert announce(released, v3, "v3").passed
        (slow / "go").touch()
        done = second.result()
    assert done.returncode == 2 and "run this job again" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert proposed(released)[1] == {"released": "v3", "best": "v3"}
    assert announce(released, v2, "v2").passed
    assert proposed(released)[1] == {"released": "v3", "best": "v2"}


def _announce_at(world: World, folder: Path, tag: str) -> subprocess.CompletedProcess:
    output = world.folder / "output"
    variables = world.environment() | {"GITHUB_API_URL": world.forge.url, "GITHUB_REPOSITORY": "acme/slm", "GITHUB_OUTPUT": str(output)}
    command = ["python3", "-m", "slm.ci.steps", "announce", tag]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


# The lock that a run leaves
def test_the_lock_of_a_run_makes_the_next_run_green(world: World):
    """Who did not run the pipeline at home takes dvc.lock from the run's artifact `lock`: it is the one that this merge makes."""
    pull = world.pull(say_yourself)
    run = world.check(pull)
    assert run.jobs == {"Lint, data, lock, tests": False, "Candidate": True, "pass": False}, run.log[-4000:]
    assert "dvc.lock is not in sync with the files" in run.summary and "(or take the one that this run made)" in run.summary
    lock = world.lock(run)
    before = (world.clone("read") / "dvc.lock").read_bytes()
    changed = {line for line in lock.decode().splitlines() if line not in before.decode().splitlines()}
    assert changed and all(line.strip().startswith(("md5: ", "size: ")) for line in changed), "only hashes and sizes differ"

    def take(folder: Path) -> None:
        (folder / "dvc.lock").write_bytes(lock)

    head = world.push(take, "Take the lock", "change", "change")
    world.git(world.origin, "update-ref", f"refs/pull/{pull['number']}/head", head)
    pull["head"]["sha"] = head
    run = world.check(pull)
    assert run.jobs == {"Lint, data, lock, tests": True, "Candidate": True, "pass": True}, run.log[-4000:]
    assert run.stages == {"package"}, "nobody has its bytes yet; they are made again"
    assert world.lock(run) == lock
    world.judge(pull, run)
    assert world.status(pull) == "success"
