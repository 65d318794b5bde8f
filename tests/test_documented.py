"""Commands of README and docs that no other test runs, as a person types them, in a project whose pipeline has run."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import python, run

pytestmark = pytest.mark.slow


def slm(project: Path, *words: str, code: int = 0):
    done = python(project, "-m", "slm", *words, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_the_plan_is_empty_where_all_is_made(copy: Path):
    assert "to run: 0 stages" in slm(copy, "plan").stdout


def test_one_stage_runs_by_itself(copy: Path):
    said = slm(copy, "stage", "check").stdout.splitlines()[-1]
    assert json.loads(said)["stage"] == "check"
    assert "Invalid value for 'NAME'" in slm(copy, "stage", "chek", code=2).stderr


def test_schemas_and_reference_are_written_as_they_are_committed(copy: Path):
    before = {p: p.read_bytes() for folder in ("schemas", "docs/reference") for p in (copy / folder).iterdir()}
    for path in before:
        path.unlink()
    slm(copy, "schemas")
    # The quick project's own values stand in no page.
    assert {p: p.read_bytes() for p in before} == before


def test_weak_slices_are_written_into_the_parameters(copy: Path):
    slm(copy, "weak-slices")
    assert "slice_scores: {}" not in (copy / "params.yaml").read_text(encoding="utf-8")


def test_calibration_asks_for_models_that_work(copy: Path):
    """The quick models get next to nothing right: there is nothing to lose, and that is said."""
    done = python(copy, "-m", "slm", "calibrate", check=False)
    assert (done.returncode == 2 and "give models that work" in done.stderr) or "Proposed" in done.stdout


def test_a_batch_that_is_not_under_way_cannot_be_given_up(copy: Path):
    assert "no batch 'batch_1' is under way" in slm(copy, "teacher", "forget", "batch_1", code=2).stderr


def test_make_lists_its_targets_in_groups(copy: Path):
    said = run(copy, "make", "help").stdout
    assert re.search(r"^Verdict\n  gate ", said, re.MULTILINE)


def test_dvc_pushes_to_a_remote_and_pulls_from_it(copy: Path, tmp_path: Path):
    python(copy, "-m", "dvc", "remote", "add", "--force", "--default", "storage", str(tmp_path / "store"))
    python(copy, "-m", "dvc", "push")
    shutil.rmtree(copy / "predictions")
    python(copy, "-m", "dvc", "pull", "evaluate@int4")
    assert (copy / "predictions" / "int4.jsonl").exists()


def test_a_lock_can_be_written_without_running_anything(copy: Path):
    """After an update that moves code and changes no result (docs/updating.md)."""
    with (copy / "slm" / "task" / "metrics.py").open("a", encoding="utf-8") as stream:
        stream.write("# moved\n")
    assert "not in sync" in slm(copy, "locked", code=2).stderr
    models = (copy / "models").resolve()
    (copy / "models").unlink()
    shutil.copytree(models, copy / "models")  # DVC commits nothing that lies outside of the project
    python(copy, "-m", "dvc", "commit", "--force")
    assert "in sync" in slm(copy, "locked").stdout


def test_the_documentation_is_built_and_asks_for_nothing(copy: Path, project: Path):
    """Links are checked by the strict build; no page loads anything from elsewhere."""
    slm(project, "extra", "docs")
    slm(copy, "docs")
    pages = sorted((copy / "site").rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loads = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=[\"']?(https?:[^\"' >]+)", text)
        assert not [address for address in loads if "canonical" not in address], page
        assert not re.search(r"@import|url\(https?:", text), page
    for sheet in (copy / "site").rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:|@import [\"']?https?:", sheet.read_text(encoding="utf-8")), sheet
    assert os.environ.get("CI") is None or (copy / "site" / "search").exists()
