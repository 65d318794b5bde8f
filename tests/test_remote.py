"""The workflows against a data remote: what main gives it, what pull requests take from it, and what happens without it.

Nothing is trained. `stored` has an S3 on loopback as its remote, up and empty; `fill` pushes what main's lock names.
"""

import re
import sys
from pathlib import Path

import pytest

from tests.remotes import BUCKET, address, fill, folders, hashes, lacking, lose_caches, outputs, writes
from tests.storage import READER, SECRET, WRITER, Storage, keys
from tests.test_release import train
from tests.world import World
from tests.worlds import MAIN_JOBS, append, on_main, say_yourself

pytestmark = [pytest.mark.full, pytest.mark.skipif(sys.platform != "linux", reason="act runs on Linux here")]


UNREAD = {"down": "Could not connect to the endpoint URL", "no keys": "Unable to locate credentials"}


def main_names(world: World) -> set[str]:
    return hashes(world.clone("read") / "dvc.lock")


def package_of(project: Path) -> str:
    """Hash of the package's folder."""
    return next(out["md5"] for out in outputs(project / "dvc.lock") if out["path"] == "dist")


# main gives
def test_main_pushes_what_its_lock_names(stored: World, s3: Storage):
    """Only main's job has the keys; the second push finds everything there."""
    run = on_main(stored, secrets=keys(WRITER))
    assert run.jobs == MAIN_JOBS, run.log[-4000:]
    assert not run.stages
    assert not lacking(s3, main_names(stored))
    assert {key for method, _, key in s3.requests if method == "PUT"} == {WRITER}
    assert SECRET not in run.log
    s3.requests.clear()
    assert on_main(stored, secrets=keys(WRITER)).passed
    assert not writes(s3)


def test_main_without_keys_goes_by_its_cache(stored: World, s3: Storage):
    """A remote that only people push to asks nothing of the workflows."""
    run = on_main(stored)
    assert run.jobs == MAIN_JOBS, run.log[-4000:]
    assert not run.stages and not s3.requests


@pytest.mark.parametrize("when", ["before", "half-way"])
def test_a_remote_that_goes_down_leaves_nothing_half_written(when: str, stored: World, s3: Storage):
    """The model is judged and sealed all the same; the run is red and says why; the next one completes the remote."""
    if when == "before":
        s3.stop()
    else:
        s3.writes_left = 20
    run = on_main(stored, secrets=keys(WRITER))
    assert run.jobs == MAIN_JOBS | {"Push": False}, run.log[-4000:]
    assert "data and models could not be pushed to the DVC remote" in run.summary
    assert "Traceback" not in run.log
    assert stored.forge.statuses[stored.tip()][0]["state"] == "success"
    s3.writes_left = None
    s3.start()
    if when == "before":
        assert not s3.objects(BUCKET)
    else:
        assert s3.objects(BUCKET)
        assert not lacking(s3, folders(s3)), "a folder is listed in the remote and its files are not there"
    run = on_main(stored, secrets=keys(WRITER))
    assert run.passed, run.log[-4000:]
    assert not lacking(s3, main_names(stored))


def test_training_pushes_before_it_proposes(stored: World, s3: Storage):
    stored.push(say_yourself)
    run = train(stored, secrets=keys(WRITER))
    assert run.jobs == {"Pull": True, "Model": True, "Push": True, "Propose": True}, run.log[-4000:]
    assert [p["head"]["ref"] for p in stored.forge.pulls] == ["model-update"]
    proposed = hashes(stored.clone("read", "model-update") / "dvc.lock")
    assert proposed != main_names(stored)
    assert not lacking(s3, proposed)


def test_training_that_cannot_push_proposes_nothing(stored: World, s3: Storage):
    """A pull request whose data nobody can fetch is worth nothing."""
    s3.stop()
    stored.push(say_yourself)
    run = train(stored, secrets=keys(WRITER))
    assert run.jobs == {"Pull": True, "Model": True, "Push": False}, run.log[-4000:]
    assert "data and models could not be pushed to the DVC remote" in run.summary
    assert not stored.forge.pulls
    assert "model-update" not in stored.git(stored.origin, "branch", "--list")


# others take
def test_main_with_its_caches_lost_takes_all_from_the_remote(stored: World, s3: Storage, project_s3: Path):
    fill(s3, project_s3)
    lose_caches(stored)
    run = on_main(stored, secrets=keys(WRITER), MAIN_BUDGET_MINUTES="0")
    assert run.jobs == MAIN_JOBS, run.log[-4000:]
    assert not run.stages and "to run: 0 stages" in run.log
    assert stored.forge.statuses[stored.tip()][0]["state"] == "success"
    assert not writes(s3)
    assert list((stored.folder / "cache").glob("dvc-*")), "the cache is kept again"


def test_a_pull_request_on_a_runner_that_may_read_takes_all_from_the_remote(stored: World, s3: Storage, project_s3: Path):
    fill(s3, project_s3)
    lose_caches(stored)
    run = stored.check(stored.pull(append("params.yaml", "# words\n")), "candidate", runner=keys(READER), PR_BUDGET_MINUTES="0")
    assert run.jobs == {"Candidate": True}, run.log[-4000:]
    assert not run.stages and "to run: 0 stages" in run.log
    assert not writes(s3)
    assert stored.judge(stored.pull(append("params.yaml", "# words\n")), run).jobs["Report"]


def test_data_that_was_not_pushed_is_named_by_the_candidate(stored: World, s3: Storage):
    """The lock is in sync with the files, so the check of the lock passes; the bytes that it names are nowhere."""
    lose_caches(stored)
    pull = stored.pull(append("params.yaml", "# words\n"))
    run = stored.check(pull, runner=keys(READER), PR_BUDGET_MINUTES="1")
    assert run.jobs == {"Lint, data, lock, tests": True, "Candidate": False, "pass": False}, run.log[-4000:]
    assert "dvc.lock is in sync with the files" in run.log
    assert re.search(
        r"error: dvc\.lock names outputs that are neither in the cache nor in the DVC remote \(.*package.*\): run `slm push`", run.summary
    )
    assert not run.stages
    verdict = stored.judge(pull, run)
    assert verdict.jobs == {"Judge": False, "Report": True}
    assert stored.status(pull) == "failure"
    assert "made no package" in stored.comment(pull)


def test_one_package_that_was_not_pushed_is_made_again_and_named(stored: World, s3: Storage, project_s3: Path):
    """Within the budget the run goes on, to the bytes that the lock names, and its log says what somebody forgot."""
    fill(s3, project_s3)
    lose_caches(stored)
    s3.remove(BUCKET, address(package_of(project_s3)))
    run = stored.check(stored.pull(append("params.yaml", "# words\n")), "candidate", runner=keys(READER), PR_BUDGET_MINUTES="1")
    assert run.jobs == {"Candidate": True}, run.log[-4000:]
    assert run.stages == {"package"}
    assert "dvc.lock names outputs that are neither in the cache nor in the DVC remote (package)" in run.log
    assert stored.lock(run) == (project_s3 / "dvc.lock").read_bytes()


def test_what_the_cache_has_is_not_asked_of_the_remote(stored: World, s3: Storage):
    """A fork has no keys, or the remote is down: nobody notices while main's cache is there."""
    s3.stop()
    pull = stored.pull(say_yourself, owner="fork")
    run = stored.check(pull, "candidate")
    assert run.jobs == {"Candidate": True} and run.stages == {"package"}, run.log[-4000:]
    assert "remote could not be read" not in run.log
    stored.judge(pull, run)
    assert stored.status(pull) == "success"


@pytest.mark.parametrize("why", ["down", "no keys"])
def test_what_the_cache_lacks_is_made_again_without_the_remote(why: str, stored: World, s3: Storage, project_s3: Path):
    """Within the budget, and to the bytes that the lock names."""
    fill(s3, project_s3)
    for path in (stored.folder / "cache").glob(f"dvc-*/files/md5/{package_of(project_s3)[:2]}/{package_of(project_s3)[2:]}"):
        path.unlink()
    if why == "down":
        s3.stop()
    pull = stored.pull(append("params.yaml", "# words\n"), owner="fork")
    run = stored.check(pull, "candidate", runner=keys(READER) if why == "down" else None, PR_BUDGET_MINUTES="1")
    assert run.jobs == {"Candidate": True} and run.stages == {"package"}, run.log[-4000:]
    assert re.search(f"the DVC remote could not be read; what the cache lacks is made anew: .*{UNREAD[why]}", run.log)
    assert stored.lock(run) == (project_s3 / "dvc.lock").read_bytes()
    assert not [key for _, _, key in s3.requests if key], "no key was sent"
    stored.judge(pull, run)
    assert stored.status(pull) == "success"


@pytest.mark.parametrize("why", ["down", "no keys"])
def test_without_remote_and_cache_the_error_is_in_the_summary(why: str, stored: World, s3: Storage, project_s3: Path):
    fill(s3, project_s3)
    lose_caches(stored)
    if why == "down":
        s3.stop()
    pull = stored.pull(append("params.yaml", "# words\n"), owner="fork")
    run = stored.check(pull, "candidate", runner=keys(READER) if why == "down" else None, PR_BUDGET_MINUTES="1")
    assert run.jobs == {"Candidate": False}, run.log[-4000:]
    assert re.search(
        rf"error: about \d+ minutes are needed, and this run has 1: the DVC remote could not be read .*{UNREAD[why]}", run.summary
    )
    assert "Traceback" not in run.log and not run.stages
    assert not (stored.artifacts / str(run.number)).exists(), "no artifact of a run that made nothing"
    stored.judge(pull, run)
    assert stored.status(pull) == "failure" and "made no package" in stored.comment(pull)
