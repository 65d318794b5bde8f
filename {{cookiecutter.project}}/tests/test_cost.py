"""The rounds of a measurement agree, or nothing is concluded from them. What one process measures is faked;
the rule is not.
"""

import re
from itertools import chain, repeat
from pathlib import Path

import pytest

from pipeline import measure
from slm.config.params import Measure, load_params
from slm.evaluation import cost
from slm.evaluation.cost import ATTEMPTS, agree, ratio_spread, ratios_by_round, side_by_side
from slm.files import read_json, write_text
from slm.verdict import judge
from slm.verdict.cost import judge_rounds

ROOT = Path(__file__).parents[1]
FOLDERS = {"teacher": Path("teacher"), "int4": Path("int4")}
SETTINGS = Measure(prompts=1, rounds=3, threads=[1, 2], max_new_tokens=8)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine on which the teacher takes 400 ms, and int4 in its one-thread rounds what the test says."""

    def machine(times: list[float]) -> list[tuple[str, int]]:
        asked, ahead = [], chain(times, repeat(100.0))

        def run_once(
            folder: Path, prompts: list, threads: int, max_new_tokens: int, sandbox: str | None
        ) -> dict:
            asked.append((folder.name, threads))
            ms = 400.0 if folder.name == "teacher" else next(ahead) if threads == 1 else 60.0
            request = {"request_ms": ms, "ttft_ms": ms / 2, "prompt_tokens": 5, "answer_tokens": 5}
            return {"rss_mb": 50.0, "requests": [request]}

        monkeypatch.setattr(cost, "run_once", run_once)
        return asked

    return machine


def measured() -> dict:
    return side_by_side(FOLDERS, [[{"role": "user", "content": "x"}]], SETTINGS)


def test_rounds_that_agree_are_run_once(machine):
    asked = machine([100.0, 110.0, 124.0])
    found = measured()
    assert (found["agreed"], found["attempts"], len(asked)) == (True, 1, 8)
    assert found["ratios"] == {"teacher": [1.0, 1.0, 1.0], "int4": [0.25, 0.275, 0.31]}
    assert (
        found["figures"]["int4"]["1"]["request_ms_p50"] == 110.0
        and found["figures"]["int4"]["2"]["request_ms_p50"] == 60.0
    )
    assert judge_rounds(found).passed is True


def test_rounds_that_disagree_are_run_again_and_only_the_last_set_is_kept(machine):
    asked = machine([100.0, 100.0, 160.0, 90.0, 90.0, 90.0])
    found = measured()
    assert (found["agreed"], found["attempts"], len(asked)) == (True, 2, 16)
    assert found["figures"]["int4"]["1"]["request_ms_p50_by_round"] == [90.0, 90.0, 90.0]


def test_a_machine_that_stays_busy_breaks_nothing_and_is_refused_by_the_gate(machine):
    asked = machine([100.0, 100.0, 160.0] * 9)
    found = measured()
    assert (found["agreed"], found["attempts"], len(asked)) == (False, ATTEMPTS, 8 * ATTEMPTS)
    row = judge_rounds(found)
    assert (row.passed, row.severity, row.value, row.limit) == (False, "block", 1.6, 1.5)
    for said in (
        "int4 took 0.25, 0.25, 0.4 of teacher's time",
        "3 attempts",
        "close other programs, or raise measure.rounds",
    ):
        assert said in row.why


def test_measure_states_it_and_does_not_fail(machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    write_text(Path("params.yaml"), re.sub(r"rounds: \d+", "rounds: 3", params))
    write_text(Path("task/test.jsonl"), (ROOT / "task" / "test.jsonl").read_text(encoding="utf-8"))
    for name in ("teacher-onnx", "int4"):
        write_text(Path("models") / name / "genai_config.json", "{}")
    names = {"teacher-onnx": "teacher"}
    machine([100.0, 100.0, 160.0] * 9)
    faked = cost.run_once
    monkeypatch.setattr(
        cost, "run_once", lambda folder, *rest: faked(Path(names.get(folder.name, folder.name)), *rest)
    )
    measure.main()
    facts = read_json(Path("reports/cost.json"))
    assert (facts["agreed"], facts["attempts"]) == (False, ATTEMPTS)
    assert judge_rounds(facts).passed is False


def test_the_judge_holds_its_own_measurement_to_the_same_rule(
    machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    params = load_params()
    params = params.model_copy(update={"measure": SETTINGS})
    folders = (tmp_path / "int4", tmp_path / "teacher")
    for times, agreed in (([100.0] * 3, True), ([100.0, 100.0, 160.0] * 9, False)):
        machine(times)
        figures, row = judge.costs(*folders, params, "limits")
        assert row.passed is agreed and figures["candidate"]["request_ms_p50"] == 100.0


def test_a_slow_minute_of_all_models_is_no_disagreement():
    assert agree(ratios_by_round({"teacher": [400.0, 800.0], "int4": [100.0, 200.0]}))
    assert not agree(ratios_by_round({"teacher": [400.0, 800.0], "int4": [100.0, 100.0]}))


def test_one_model_or_one_round_agrees_and_a_time_of_zero_does_not():
    assert agree(ratios_by_round({"int4": [100.0, 300.0]})) and agree(
        ratios_by_round({"a": [1.0], "b": [9.0]})
    )
    assert ratio_spread([0.0, 1.0]) == float("inf") and ratio_spread([]) == float("inf")
    row = judge_rounds({"ratios": {"a": [1.0, 1.0], "b": [0.0, 1.0]}, "attempts": 3})
    assert row.passed is False and row.value is None


def test_a_measurement_that_hides_its_rounds_is_refused():
    for facts in ({}, {"agreed": True}, {"agreed": True, "ratios": {}}):
        assert judge_rounds(facts).passed is False
    # The gate reads the ratios, not what is said of them.
    assert (
        judge_rounds({"agreed": True, "ratios": {"a": [1.0, 1.0], "b": [1.0, 2.0]}, "attempts": 1}).passed
        is False
    )
