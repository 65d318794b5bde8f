"""What a refused gate is explained with, from a tiny checkout in a real repository; and what a lost
comparison blames.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slm.cli.app import app
from slm.config.params import load_params
from slm.errors import UserError
from slm.files import sha256_file, write_json, write_jsonl, write_text
from slm.verdict import gate
from slm.verdict.baseline import blame, flips
from slm.verdict.changes import parameters_diff
from slm.verdict.explain import explain_gate
from slm.verdict.rows import Row, Verdict

ROOT = Path(__file__).parents[1]
GATES = """\
gates:
  - {name: score, severity: block, metric: shipped.score_low, at_least: 0.9}
  - {name: valid answers, severity: block, metric: shipped.valid_rate, at_least: 0.99}
  - {name: kept, severity: block, metric: shipped.score, over: teacher.score, at_least: 0.99}
  - {name: time, severity: block, metric: shipped.request_ms_p50, over: teacher.request_ms_p50, at_most: 0.1}
released: {margin: 0.03, best_margin: 0.04, time: 1.1, memory: 1.1, weights: 1.1,
  slice_size: 10, slice_alpha: 0.05}
"""
COUNT = 40


def git(*words: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def answers(*right: bool | None, tag: str = "plain") -> list[dict[str, Any]]:
    """Rows whose answer is right, wrong or (None) no label at all."""
    words = {True: "on", False: "off", None: "\x1b[31m?"}
    return [
        {
            "id": f"t{i}",
            "prompt": f"request {i}",
            "expected": "on",
            "answer": words[r],
            "tags": [tag if i < 20 else "other"],
        }
        for i, r in enumerate(right)
    ]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is released. The student has 5 wrong answers and one that is no label; the teacher has 2 wrong
    ones.
    """
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    write_text(Path("gates.yaml"), GATES)
    write_text(
        Path("task/task.yaml"), "name: lamp\nkind: label\ninstruction: On or off?\nlabels: ['on', 'off']\n"
    )
    write_text(Path("task/train.jsonl"), "1\n")
    write_text(Path("recipes/int4.json"), '{"passes": {"round": {"bits": 4}}}')
    write_text(Path("slm/training/trainer.py"), "x = 1\n")
    write_text(Path("dvc.yaml"), "stages: {}\n")
    write_text(Path(".gitignore"), "/reports\n/predictions\n.cache\n")
    write_json(Path("released.json"), {"released": None, "best": None})
    shipped = load_params().package.variant
    right = {"teacher": [False] * 2 + [True] * 38, shipped: [None] + [False] * 5 + [True] * 34}
    for rung, values in right.items():
        write_jsonl(Path("predictions") / f"{rung}.jsonl", [{"rung": rung}, *answers(*values)])
    figures = {"score": 0.85, "request_ms_p50": 100.0}
    write_json(
        Path("reports/ladder.json"),
        {"rungs": [{"name": "teacher", **figures, "request_ms_p50": 400.0}, {"name": shipped, **figures}]},
    )
    measured = {
        "by_threads": {"1": {"request_ms_p50": 100.0, "request_ms_p50_by_round": [98.0, 100.0, 131.0]}}
    }
    write_json(Path("reports/cost.json"), {"threads": 1, "rungs": {shipped: measured}})
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "x")
    return tmp_path


def result(name: str, baseline: dict[str, Any] | None = None) -> Verdict:
    return Verdict([Row(name, "block", False, 0.5, 0.9, "too low")], {}, baseline)


def release(values: list[bool]) -> dict[str, Any]:
    """Name the present commit as released, with these answers."""
    path = Path(".cache/old.jsonl")
    write_jsonl(path, [{"rung": "int4"}, *answers(*values)])
    entry = {
        "tag": "v1",
        "revision": git("rev-parse", "HEAD"),
        "predictions": str(path),
        "predictions_sha256": sha256_file(path),
    }
    write_json(Path("released.json"), {"released": entry, "best": None})
    return entry


def test_without_a_release_the_worst_answers_are_shown(checkout: Path):
    text = explain_gate("score", result("score"))
    assert text.startswith("score: FAIL (severity block)\n  value 0.5, limit 0.9\n  too low")
    assert "Wrong answers: 6 of 40; 6 shown" in text
    assert text.index("t0\n") < text.index("t1\n")  # what cannot be read comes first
    assert "\x1b" not in text and "\ufffd[31m?" in text
    assert "nothing is released yet" in text
    assert (
        'Again: dvc repro --force --single-item evaluate@int4 && slm repro && slm gate --explain "score"'
        in text
    )


def test_with_a_release_the_flipped_answers_are_shown(checkout: Path):
    entry = release([True] * 30 + [False] * 10)
    for name in ("score", "not worse than released", "within margin of released"):
        text = explain_gate(name, result(name, entry))
        assert "from released (v1) (before) to int4 (after): 6 lost, 10 won; 16 shown, losses first" in text
        assert "    expected  on\n    before    on\n    after     off" in text
        assert text.index("t5\n") < text.index("t30\n")
        assert "t29\n" not in text
    assert "1 lost, 0 won; 1 shown" in explain_gate("valid answers", result("valid answers", entry))


def test_at_most_twenty_examples_are_shown(checkout: Path):
    entry = release([True] * 6 + [False] * 34)
    text = explain_gate("score", result("score", entry))
    assert "6 lost, 34 won; 20 shown" in text
    assert text.count("    expected  on") == 20


def test_a_slice_is_shown_with_its_losses(checkout: Path):
    text = explain_gate("no slice worse", result("no slice worse", release([True] * 40)))
    assert text.index("tag plain: 6 lost, 0 won of 20") < text.index("tag other: 0 lost, 0 won of 20")
    write_json(Path("released.json"), {"released": None, "best": None})
    assert "tag plain: score 0.700 (" in explain_gate("no slice worse", result("no slice worse"))


def test_a_ratio_is_shown_with_both_figures(checkout: Path):
    text = explain_gate("time", result("time"))
    assert (
        "int4.request_ms_p50 = 100 (by round: 98, 100, 131)" in text
        and "teacher.request_ms_p50 = 400" in text
    )
    assert "--single-item measure &&" in text and "request 1" not in text
    kept = explain_gate("kept", result("kept"))
    assert "int4.score = 0.85" in kept and "from teacher (before) to int4 (after): 4 lost, 0 won" in kept
    assert "--single-item evaluate@int4 evaluate@teacher &&" in kept


def test_what_changed_since_the_release_is_named(checkout: Path):
    entry = release([True] * 40)
    assert "What changed since v1" in explain_gate("score", result("score", entry))
    params = Path("params.yaml").read_text(encoding="utf-8")
    write_text(Path("params.yaml"), params.replace("kl_weight: 0.7", "kl_weight: 0.1"))
    write_text(Path("recipes/int4.json"), '{"passes": {"round": {"bits": 3}}}')
    write_text(Path("task/train.jsonl"), "1\n2\n3\n")
    write_text(Path("slm/training/trainer.py"), "x = 2\n")
    text = explain_gate("score", result("score", entry))
    for line in (
        "distill.kl_weight: 0.7 -> 0.1",
        "recipes/int4.json: passes.round.bits: 4 -> 3",
        "data: task/train.jsonl (+2 -0 lines)",
        "code: slm/training/trainer.py (+1 -1 lines)",
    ):
        assert f"  {line}\n" in text
    gone = entry | {"revision": "0" * 40}
    assert "git fetch --unshallow" in explain_gate("score", result("score", gone))


def test_what_the_pipeline_made_anew_is_named(checkout: Path):
    def dvc(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *words], check=True, capture_output=True)

    dvc("init", "--quiet")
    for name in ("kept", "changed"):
        write_text(Path(f"models/{name}/weights"), name)
        dvc("add", "--quiet", f"models/{name}")
    git("add", "--all")
    git("commit", "--quiet", "--message", "models")
    entry = release([True] * 40)
    write_text(Path("models/changed/weights"), "other")
    text = explain_gate("score", result("score", entry))
    assert "made anew by the pipeline: models/changed\n" in text and "models/kept" not in text


def test_an_unknown_gate_is_refused_with_the_names(checkout: Path):
    with pytest.raises(UserError, match=r"no gate 'scroe'; there are: score"):
        explain_gate("scroe", result("score"))
    with pytest.raises(UserError, match=r"slm judge"):
        explain_gate("time of released", result("score"))


# The command line
@pytest.fixture
def judged(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    found = result("score")
    rung = {
        "score_low": 0.1,
        "score_high": 0.9,
        "n": 40,
        "valid_rate": 1.0,
        "rss_mb": None,
        "weights_mb": None,
    }
    ladder = json.loads(Path("reports/ladder.json").read_text(encoding="utf-8"))
    write_json(Path("reports/ladder.json"), {"rungs": [r | rung for r in ladder["rungs"]]})
    monkeypatch.setattr(gate, "collect_facts", lambda: None)
    monkeypatch.setattr(gate, "judge", lambda facts: found)
    return found


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["slm", "gate", *words])
    with pytest.raises(SystemExit) as stopped:
        app()
    return int(stopped.value.code or 0)


def test_json_and_markdown_are_printed_alone(
    judged, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, "--json") == 1
    assert json.loads(capsys.readouterr().out) == judged.to_json()
    assert run(monkeypatch, "--markdown") == 1
    assert capsys.readouterr().out == Path("reports/verdict.md").read_text(encoding="utf-8")
    assert run(monkeypatch) == 1 and "The model is refused: score." in capsys.readouterr().out
    assert run(monkeypatch, "--json", "--markdown") == 2


def test_an_explanation_judges_nothing(
    judged, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, "--explain", "score") == 0
    assert capsys.readouterr().out.startswith("score: FAIL")
    assert not Path("reports/verdict.json").exists()
    assert run(monkeypatch, "--explain", "scroe") == 2


# The why
def test_a_lost_comparison_ends_with_what_was_turned(checkout: Path):
    base = git("rev-parse", "HEAD")
    assert parameters_diff(base, None) == []
    params = Path("params.yaml").read_text(encoding="utf-8")
    write_text(Path("params.yaml"), params.replace("kl_weight: 0.7", "kl_weight: 0.1"))
    write_text(Path("recipes/int4.json"), '{"passes": {"round": {"bits": 3}}}')
    git("commit", "--quiet", "--all", "--message", "turn")
    for head in (None, git("rev-parse", "HEAD")):
        rows = blame([Row(n, "block", ok, 0, 0, "w") for n, ok in WHO], parameters_diff(base, head))
        said = (
            "w; after distill.kl_weight changed from 0.7 to 0.1, recipes/int4.json: passes.round.bits "
            "changed from 4 to 3"
        )
        assert [row.why for row in rows] == [said, said, "w", "w", "w"]
    assert parameters_diff("0" * 40, None) == []


WHO = (
    ("not worse than released", False),
    ("time of released", False),
    ("no slice worse", True),
    ("not worse than best", False),
    ("score", False),
)


def test_three_parameters_are_named_and_a_strangers_text_stays_short():
    rows = blame(
        [Row("not worse than released", "block", False, 0, 0, "w")],
        [("a", "1", "2"), ("b", "\x1b[31m\n", "x" * 5000), ("c", "1", "2"), ("d", "1", "2"), ("e", "1", "2")],
    )
    why = rows[0].why
    assert why.startswith(
        "w; after a changed from 1 to 2, b changed from \ufffd[31m to xxx"
    ) and why.endswith("c changed from 1 to 2 and 2 more")
    assert "\x1b" not in why and "\n" not in why and len(why) < 200


def test_only_common_examples_flip(task):
    right, wrong = '{"name":"a","arguments":{}}', "no JSON"
    before = [{"id": "1", "prompt": "p", "answer": right}, {"id": "2", "prompt": "old", "answer": right}]
    after = [{"id": i, "prompt": "p", "expected": right, "answer": wrong} for i in ("1", "2")]
    assert [(r["id"], r["before"], r["change"]) for r in flips(task, before, after)] == [("1", right, -1.0)]
    assert flips(task, before, [r | {"answer": right} for r in after]) == []
