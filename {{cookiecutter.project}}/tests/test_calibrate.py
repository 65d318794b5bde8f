"""The simulation behind `slm calibrate`: its models are as good as it says, and
it judges as the gate does.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from slm.errors import UserError
from slm.files import write_jsonl
from slm.task.definition import Task
from slm.verdict.baseline import judge_baseline
from slm.verdict.calibration.proposal import calibration_report
from slm.verdict.calibration.rates import SPLIT, calibrate, rate
from slm.verdict.calibration.simulation import Answers, decline, evidence, history, pair, read_answers
from slm.verdict.contract import Contract, Gate, Released

LIMITS = Released(
    margin=0.065,
    best_margin=0.065,
    time=1.15,
    memory=1.15,
    weights=1.02,
    slice_size=30,
    alpha=0.1,
    best_alpha=0.05,
    slice_alpha=0.2,
)
TASK = Task(name="t", kind="label", instruction="i", labels=["a", "b"])


def answers(models: int = 3, examples: int = 400, seed: int = 0) -> Answers:
    """Models that are right on about 70% of the examples, and share most of their errors; slices: every
    eighth, the rest, all.
    """
    rng = np.random.default_rng(seed)
    hard = rng.random(examples) < 0.3
    scores = np.where(
        rng.random((models, examples)) < 0.15, rng.random((models, examples)) < 0.5, ~hard
    ).astype(float)
    tags = np.stack([np.arange(examples) % 8 == 0, np.arange(examples) % 8 != 0, np.ones(examples)], axis=1)
    return Answers([f"m{i}" for i in range(models)], scores, tags.astype(float))


def rows(scores: np.ndarray, index: np.ndarray) -> list[dict]:
    return [
        {
            "id": f"{i}-{k}",
            "prompt": f"p{i}-{k}",
            "expected": "a",
            "answer": "a" if s else "b",
            "tags": ["eighth" if i % 8 == 0 else "rest"],
        }
        for k, (i, s) in enumerate(zip(index, scores, strict=True))
    ]


def test_the_simulation_judges_as_the_gate_does(monkeypatch):
    """Draws of each kind, judged by the simulation and, written out as predictions, by the gate itself."""
    # statsmodels' multipletests calls it each time, which takes most of this test
    monkeypatch.setattr("gc.collect", lambda: 0)
    known, rng = answers(), np.random.default_rng(1)
    contract = Contract(
        gates=[Gate(name="g", severity="block", metric="shipped.score", at_least=0)], released=LIMITS
    )
    drawn = [
        pair(known.scores[:2], 300, 25, rng, 0.05),
        history(known.scores, 3, 300, 25, rng),
        decline(known.scores, 0.03, 2, 300, 25, rng)[1],
    ]
    outcomes = []
    for draw in drawn:
        found = evidence(draw, known.members, LIMITS.slice_size)
        for i, (refused, warned) in enumerate(zip(found.refused(LIMITS), found.warned(LIMITS), strict=True)):
            candidate, *before = (
                rows(s[i], draw.index[i]) for s in (draw.candidate, draw.released, draw.best)
            )
            gates = judge_baseline(
                contract, TASK, candidate, dict(zip(("released", "best"), before, strict=True))
            )
            assert refused == any(g.passed is False and g.severity == "block" for g in gates)
            assert warned == any(g.passed is False and g.severity == "warn" for g in gates)
            outcomes.append((bool(refused), bool(warned)))
    assert len(set(outcomes)) >= 3  # else the test compares nothing


@pytest.mark.parametrize("share", [None, 0.10, 0.25])
@pytest.mark.parametrize("drop", [0.0, 0.05])
def test_a_candidate_is_worse_by_what_is_said_and_differs_in_what_is_said(drop: float, share: float | None):
    known = answers(2)
    draw = pair(known.scores, 400, 500, np.random.default_rng(0), drop, share)
    change = draw.candidate - draw.released
    error = change.std() / np.sqrt(change.size)
    assert abs(change.mean() + drop) < 4 * error
    if share is not None:
        assert abs((change != 0).mean() - share) < 0.006
    elif not drop:
        assert abs((change != 0).mean() - (known.scores[0] != known.scores[1]).mean()) < 0.006


def test_each_release_of_a_decline_loses_one_step():
    draws = decline(answers().scores, 0.02, 3, 400, 500, np.random.default_rng(0))
    assert [round(float((d.candidate - draws[0].released).mean()), 2) for d in draws] == [-0.02, -0.04, -0.06]


def test_equal_releases_are_equal_and_the_best_of_them_is_hardly_ever_the_lucky_one():
    draw = history(answers().scores, 5, 400, 1000, np.random.default_rng(0))
    assert abs((draw.candidate - draw.released).mean()) < 0.004
    assert abs((draw.candidate - draw.best).mean()) < 0.006


def test_grades_between_right_and_wrong_lose_what_is_said_too():
    scores = np.random.default_rng(0).beta(4, 2, (2, 300))
    draw = pair(scores, 300, 500, np.random.default_rng(0), 0.05)
    assert abs((draw.candidate - draw.released).mean() + 0.05) < 0.005
    found = evidence(draw, np.ones((300, 1)), 30)
    assert 0.05 < found.refused(LIMITS).mean() < 1


def test_bounds_of_a_rate_hold_it():
    r = rate(np.array([True] * 5 + [False] * 95))
    assert r["low"] < r["rate"] == 0.05 < r["high"]
    assert rate(np.zeros(100, bool))["high"] == pytest.approx(1 - 0.05 ** (1 / 100))


def test_calibration_keeps_to_what_it_proposes_and_repeats_itself(monkeypatch):
    for name, value in {"RUNS": 400, "FEWER": 100, "SIZES": (200,), "DROPS": (0.05, 0.2)}.items():
        monkeypatch.setattr(f"slm.verdict.calibration.rates.{name}", value)
    known = answers()
    result = calibrate(known, LIMITS)
    assert json.dumps(result) == json.dumps(calibrate(known, LIMITS))
    chosen = next(a for a in result["alphas"] if all(a[n] == result["proposal"][n] for n in SPLIT))
    assert chosen["false_alarm"]["high"] <= 0.05
    # The limits above are loose on purpose: many false alarms, and the report says so.
    assert result["by_share"][0]["false_alarm"]["low"] > 0.05
    assert f"{result['by_share'][0]['false_alarm']['rate']:.3f}" in calibration_report(result)


def test_models_that_cannot_be_compared_are_refused(tmp_path: Path):
    known = answers(2)
    paths = []
    for name, scores in zip(("one", "other"), known.scores, strict=True):
        paths.append(tmp_path / f"{name}.jsonl")
        write_jsonl(paths[-1], [{"rung": name}, *rows(scores, np.arange(400))])
    read = read_answers(TASK, paths)
    assert (read.scores == known.scores).all()
    assert sorted(read.members.sum(axis=0)) == [50, 350, 400]
    with pytest.raises(UserError, match="at least two models that answer differently"):
        calibrate(read_answers(TASK, [paths[0], paths[0]]), LIMITS)
    write_jsonl(paths[1], [{"rung": "other"}, *rows(known.scores[1], np.arange(400))[1:]])
    with pytest.raises(UserError, match=r"other\.jsonl: answers other examples than .*one\.jsonl"):
        read_answers(TASK, paths)
