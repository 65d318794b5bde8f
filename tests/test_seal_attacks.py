"""Attacks on what the release takes: statuses, drafts and attestations that somebody else made, each beside its honest twin.

The steps run as the workflows run them, by the standard library alone, against the small GitHub of tests/forge.py.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bake import TEMPLATE
from tests.forge import Forge

BODY = TEMPLATE / "{{cookiecutter.project}}"
GH = TEMPLATE / "tests" / "actions" / "gh.py"
Edit = Callable[["Place"], None]


class Place:
    """A commit of main with its sealed package: as a draft release, with status and attestation."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.forge = folder, Forge(folder)
        (folder / "bin").mkdir()
        program = folder / "bin" / "gh"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{GH}" "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        self.git("init", "--quiet", "--initial-branch", "main", ".")
        self.git("-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--allow-empty", "--message", "One")
        self.commit = self.git("rev-parse", "HEAD")
        self.git("update-ref", "refs/remotes/origin/main", "HEAD")
        (folder / "release").mkdir()
        (folder / "release" / "README.md").write_text("card", encoding="utf-8")
        self.files = {"p.tar.gz": b"package", "predictions.jsonl": b"{}"}
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        self.content = {"commit": self.commit, "passed": True, "files": hashes}
        self.attested = {"workflow": "main", "ref": "refs/heads/main", "sha": self.commit, "repository": "acme/slm"}

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True, text=True).stdout.strip()

    def finish(self) -> None:
        """Publish seal, status and attestation as they stand now; an edit may then change what is there."""
        self.seal = json.dumps(self.content).encode()
        self.tag = f"sealed-{hashlib.sha256(self.seal).hexdigest()}"
        self.forge.add_release(self.tag, self.files | {"SEAL.json": self.seal}, draft=True)
        self.say("success", f"The model passes its gates ({self.tag})")
        self.attest(**self.attested)

    def say(self, state: str, description: str, by: str = "github-actions[bot]") -> None:
        row = {"context": "model-verdict", "state": state, "description": description, "creator": {"login": by}}
        self.forge.statuses[self.commit] = [row]

    def attest(self, **said: str) -> None:
        row = {"sha256": hashlib.sha256(self.seal).hexdigest(), **said}
        (self.folder / "attestations").write_text(json.dumps(row) + "\n", encoding="utf-8")

    def put(self, name: str, data: bytes) -> None:
        """Change an asset of the draft, or add one."""
        release = self.forge.release(self.tag)
        assert release
        found = next((a for a in release["assets"] if a["name"] == name), None)
        if found is None:
            found = {"id": self.forge.new_id(), "name": name, "size": len(data), "state": "uploaded"}
            release["assets"].append(found)
        self.forge.files[found["id"]] = data

    def step(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(BODY)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "GITHUB_API_URL": self.forge.url, "GITHUB_REPOSITORY": "acme/slm"}
        environment |= {"GITHUB_SHA": self.commit, "ACT_ATTESTATIONS": str(self.folder / "attestations")} | variables
        words = [sys.executable, "-m", "slm.ci.steps", *command]
        return subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.forge.shutdown()


def away(place: Place) -> None:
    """The tagged commit is on a branch of its own."""
    words = ["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--allow-empty", "--message", "Two"]
    place.git(*words)
    place.commit = place.git("rev-parse", "HEAD")
    place.content["commit"] = place.attested["sha"] = place.commit
    place.finish()


# What is there, and what is said of it: name -> (before it is published, after, what the step says)
TAKEN: dict[str, tuple[Edit | None, Edit | None, str]] = {
    "no status": (None, lambda p: p.forge.statuses.clear(), "has the verdict none"),
    "a red status": (None, lambda p: p.say("failure", f"no ({p.tag})"), "has the verdict failure"),
    "a status of somebody else": (None, lambda p: p.say("success", f"good ({p.tag})", "mallory"), "by mallory"),
    "a status of an app": (None, lambda p: p.say("success", f"good ({p.tag})", "other[bot]"), r"by other\[bot\]"),
    "a status without a seal": (None, lambda p: p.say("success", "good"), "has the verdict success"),
    "a short name": (None, lambda p: p.say("success", f"good ({p.tag[:23]})"), "has the verdict success"),
    "no draft": (None, lambda p: p.forge.releases.clear(), "there is no sealed package"),
    "another package": (None, lambda p: p.put("p.tar.gz", b"evil"), "is not the file that was sealed"),
    "other predictions": (None, lambda p: p.put("predictions.jsonl", b"[]"), "is not the file that was sealed"),
    "a file beside": (None, lambda p: p.put("more.sh", b"x"), "was not sealed"),
    "a file that is a path": (None, lambda p: p.put("../x", b"x"), "is a path"),
    "another seal": (None, lambda p: p.put("SEAL.json", p.seal + b" "), "is not the one that main.yml has sealed"),
    "a seal of another commit": (lambda p: p.content.update(commit="b" * 40), None, "is not the seal of a good package"),
    "a refused package": (lambda p: p.content.update(passed=False), None, "is not the seal of a good package"),
    "passed as a word": (lambda p: p.content.update(passed="yes"), None, "is not the seal of a good package"),
    "no attestation": (None, lambda p: (p.folder / "attestations").unlink(), "has not attested these bytes"),
    "attested by another workflow": (lambda p: p.attested.update(workflow="pr"), None, "has not attested these bytes"),
    "attested on another branch": (lambda p: p.attested.update(ref="refs/heads/x"), None, "has not attested these bytes"),
    "attested for another commit": (lambda p: p.attested.update(sha="b" * 40), None, "has not attested these bytes"),
    "attested by a fork": (lambda p: p.attested.update(repository="mallory/slm"), None, "has not attested these bytes"),
    "no program to verify": (None, lambda p: (p.folder / "bin" / "gh").unlink(), "could not be checked"),
    "a commit that is not on main": (None, away, "is not on main"),
}  # fmt: skip


@pytest.mark.attack
@pytest.mark.parametrize("name", TAKEN)
def test_a_release_takes_nothing_that_main_did_not_seal(name: str, place: Place):
    before, after, said = TAKEN[name]
    if before:
        before(place)
    place.finish()
    if after:
        after(place)
    done = place.step("sealed")
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.twin
def test_a_release_takes_what_main_sealed(place: Place):
    place.finish()
    done = place.step("sealed")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (place.folder / "sealed").iterdir()} == {*place.files, "SEAL.json"}


def leave(place: Place) -> None:
    """sealed/ on the runner, as the job before has left it."""
    place.seal = json.dumps(place.content).encode()
    place.tag = f"sealed-{hashlib.sha256(place.seal).hexdigest()}"
    (place.folder / "sealed").mkdir()
    for name, data in (place.files | {"SEAL.json": place.seal}).items():
        (place.folder / "sealed" / name).write_bytes(data)
    place.attest(**place.attested)


SQUATTED: dict[str, dict[str, bytes]] = {
    "another package under its name": {"p.tar.gz": b"evil"},
    "a file beside": {"install.sh": b"evil"},
    "another seal": {"SEAL.json": b"{}"},
}


@pytest.mark.attack
@pytest.mark.parametrize("name", SQUATTED)
@pytest.mark.parametrize("command", ["keep", "publish"])
def test_a_release_that_somebody_made_before_is_not_used(command: str, name: str, place: Place):
    leave(place)
    tag = place.tag if command == "keep" else "v1"
    place.forge.add_release(tag, SQUATTED[name], draft=True)
    done = place.step(command, *(["v1"] if command == "publish" else []), ATTESTED="success")
    assert done.returncode == 2 and "which this run did not make" in done.stderr, done.stdout + done.stderr
    release = place.forge.release(tag)
    assert release and release["draft"] and len(release["assets"]) == len(SQUATTED[name])
    assert not place.forge.statuses.get(place.commit)


@pytest.mark.twin
@pytest.mark.parametrize("there", [{}, {"p.tar.gz": b"package"}], ids=["nothing", "a part of it"])
def test_a_run_that_goes_on_keeps_what_it_made_before(there: dict[str, bytes], place: Place):
    leave(place)
    if there:
        place.forge.add_release(place.tag, there, draft=True)
    done = place.step("keep", ATTESTED="success")
    assert done.returncode == 0, done.stderr
    release = place.forge.release(place.tag)
    assert release and {a["name"] for a in release["assets"]} == {*place.files, "SEAL.json"}
    assert place.forge.statuses[place.commit][0]["state"] == "success"


@pytest.mark.attack
@pytest.mark.parametrize("outcome", ["failure", "skipped", ""])
def test_a_good_package_without_attestation_is_not_kept(outcome: str, place: Place):
    leave(place)
    done = place.step("keep", ATTESTED=outcome)
    assert done.returncode == 0 and not place.forge.releases
    assert place.forge.statuses[place.commit][0]["state"] == "error"


@pytest.mark.attack
def test_what_another_job_changed_after_the_verification_is_not_published(place: Place):
    leave(place)
    (place.folder / "sealed" / "p.tar.gz").write_bytes(b"evil")
    assert "is not the file that was sealed" in place.step("publish", "v1").stderr
    content = json.loads(place.seal)
    content["files"]["p.tar.gz"] = hashlib.sha256(b"evil").hexdigest()
    (place.folder / "sealed" / "SEAL.json").write_text(json.dumps(content), encoding="utf-8")
    assert "has not attested these bytes" in place.step("publish", "v1").stderr
    assert not place.forge.releases
