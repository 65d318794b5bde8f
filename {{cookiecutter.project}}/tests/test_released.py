"""Which release is the best so far."""

import json
from pathlib import Path

import pytest

from slm.files import write_json
from slm.verdict import released


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Names a release with a score (and the lower end of its interval), and gives the tags of released and
    best.
    """
    monkeypatch.chdir(tmp_path)
    write_json(Path("released.json"), {"released": None, "best": None})
    seal: dict = {}
    monkeypatch.setattr(released, "read_seal", lambda folder: seal)
    monkeypatch.setattr(
        released, "entry_of", lambda seal, predictions, tag: seal | {"tag": tag, "revision": tag}
    )
    monkeypatch.setattr(released, "comes_before", lambda earlier, later: earlier < later)

    def name(tag: str, score: float, low: float, test: str = "t") -> tuple[str, str]:
        seal.update(figures={"score": score, "score_low": low}, test_sha256=test)
        released.name(tmp_path, tag)
        found = json.loads(Path("released.json").read_text(encoding="utf-8"))
        return found["released"]["tag"], found["best"]["tag"]

    return name


def test_the_best_moves_when_a_release_is_clearly_better(release):
    assert release("v1", 0.70, 0.67) == ("v1", "v1")
    assert release("v2", 0.71, 0.68) == ("v2", "v1")  # noise may do that
    assert release("v3", 0.74, 0.71) == ("v3", "v3")
    assert release("v4", 0.72, 0.69) == ("v4", "v3")


def test_on_another_test_set_the_best_begins_anew(release):
    release("v1", 0.90, 0.88)
    assert release("v2", 0.60, 0.56, test="harder") == ("v2", "v2")
