"""The gate, with faults planted in the facts: each is caught by the gate that should catch it, and by no
other.
"""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from slm.verdict.baseline import judge_baseline
from slm.verdict.contract import Contract, Gate, Released
from slm.verdict.cost import how_sure
from slm.verdict.facts import Facts
from slm.verdict.gate import judge
from slm.verdict.integrity import judge_integrity
from slm.verdict.limits import judge_metric
from slm.verdict.policy import judge_data, judge_licences
from slm.verdict.registry import BUILT_IN
from slm.verdict.rows import Row, Verdict
from slm.verdict.statistics import bounds, chance, paired
from tests.verdict_facts import WRONG, honest_facts

RUNG = {"name": "int4", "score": 0.7, "score_low": 0.66, "request_ms_p50": 100.0, "weights_sha256": "w"}
LADDER = {"rungs": [{"name": "teacher", "score": 0.75, "request_ms_p50": 500.0}, RUNG]}
CONTRACT = Contract(
    gates=[Gate(name="score", severity="block", metric="shipped.score_low", at_least=0.6)],
    released=Released(
        margin=0.05,
        best_margin=0.045,
        time=1.15,
        memory=1.15,
        weights=1.02,
        slice_size=30,
        alpha=0.025,
        best_alpha=0.015,
        slice_alpha=0.01,
    ),
)


def gate(**limits: Any) -> Gate:
    return Gate(name="g", severity="block", **limits)


def test_floor_ceiling_and_ratio():
    assert judge_metric(gate(metric="shipped.score_low", at_least=0.66), LADDER, "int4", {}).passed
    assert not judge_metric(gate(metric="shipped.score_low", at_least=0.67), LADDER, "int4", {}).passed
    row = judge_metric(
        gate(metric="shipped.request_ms_p50", over="teacher.request_ms_p50", at_most=0.3), LADDER, "int4", {}
    )
    assert (row.passed, row.value) == (True, 0.2)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "0.9", True])
def test_what_is_no_finite_number_fails(value: Any):
    ladder = copy.deepcopy(LADDER)
    ladder["rungs"][1]["score_low"] = value
    row = judge_metric(gate(metric="shipped.score_low", at_least=-10.0), ladder, "int4", {})
    assert row.passed is False
    assert "missing or no finite number" in row.why


def test_missing_rung_and_zero_divisor_fail():
    assert judge_metric(gate(metric="int8.score", at_least=0.0), LADDER, "int4", {}).passed is False
    ladder = copy.deepcopy(LADDER)
    ladder["rungs"][0]["request_ms_p50"] = 0.0
    assert (
        judge_metric(
            gate(metric="shipped.request_ms_p50", over="teacher.request_ms_p50", at_most=1.0),
            ladder,
            "int4",
            {},
        ).passed
        is False
    )


def test_an_endpoint_teacher_has_a_score_and_no_cost():
    ladder = {
        "rungs": [
            {"name": "teacher", "score": 0.8, "rss_mb": None},
            {"name": "int4", "score": 0.76, "rss_mb": 100.0},
        ]
    }
    memory = gate(metric="shipped.rss_mb", over="teacher.rss_mb", at_most=0.5)
    assert judge_metric(memory, ladder, "int4", {}).passed is False
    assert judge_metric(memory, ladder, "int4", {"teacher": "it is far away"}).passed is None
    kept = gate(metric="shipped.score", over="teacher.score", at_least=0.9)
    assert judge_metric(kept, ladder, "int4", {"teacher": "it is far away"}).passed is True


def rung(facts: Facts) -> dict[str, Any]:
    return next(r for r in facts.ladder["rungs"] if r["name"] == facts.shipped)


def shipped_answers(facts: Facts) -> list[dict[str, Any]]:
    return facts.predictions[facts.shipped]


FAULTS: dict[str, tuple[Callable[[Facts], Any], set[str]]] = {
    "predictions of other bytes": (
        lambda f: shipped_answers(f)[0].update(folder_sha256="x"),
        {"bytes scored"},
    ),
    "timed other bytes": (lambda f: f.cost["rungs"]["int4"].update(folder_sha256="x"), {"bytes timed"}),
    "one weight swapped": (
        lambda f: replace(f, package=replace(f.package, folder_sha256="x", weights_sha256="x")),
        {"bytes scored", "bytes timed", "weights"},
    ),
    "no package": (
        lambda f: replace(f, package=replace(f.package, folder_sha256=None, weights_sha256=None)),
        {"bytes scored", "bytes timed", "weights"},
    ),
    "test set swapped": (lambda f: replace(f, test_sha256="x"), {"test set"}),
    "hard examples left out": (lambda f: shipped_answers(f).pop(1), {"whole test set", "score"}),
    "easy examples twice": (
        lambda f: shipped_answers(f).insert(3, dict(shipped_answers(f)[2])),
        {"whole test set", "score"},
    ),
    "empty test set": (lambda f: replace(f, test_ids=[]), {"whole test set"}),
    "score claimed, not reached": (lambda f: shipped_answers(f)[2].update(answer=WRONG), {"score"}),
    "score is NaN": (lambda f: f.quality["int4"].update(score=math.nan), {"score"}),
    "score of the ladder is NaN": (lambda f: rung(f).update(score=math.nan), {"score"}),
}


def test_honest_facts_pass(task):
    assert all(row.passed for row in judge_integrity(honest_facts(task)))
    verdict = judge(honest_facts(task))
    assert verdict.passed and {row.passed for row in verdict.gates} == {True, None}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_caught_by_its_gate(task, name: str):
    plant, wanted = FAULTS[name]
    facts = honest_facts(task)
    planted = plant(facts)
    facts = planted if isinstance(planted, Facts) else facts
    failed = {row.name.removeprefix("integrity: ") for row in judge_integrity(facts) if not row.passed}
    assert failed == wanted
    assert not judge(facts).passed


def test_a_verdict_has_no_gate_but_those_of_contract_and_registry(task):
    """Each row's name and severity are those that the registry says."""
    facts = honest_facts(
        task,
        contract=STRICT,
        licences={
            "base model": ("models.license", "MIT"),
            "student's base model": ("models.student.license", "MIT"),
        },
    )
    for row in judge(facts).gates:
        known = BUILT_IN.get(row.name) or next(g for g in STRICT.gates if g.name == row.name)
        assert known.severity == row.severity, row.name


def test_a_verdict_is_the_same_when_it_was_stored(task):
    verdict = judge(honest_facts(task))
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


STRICT = CONTRACT.model_copy(
    update={"allowed_licences": ["Apache-2.0", "MIT"], "required_expectations": ["leak"]}
)


def test_a_licence_that_the_contract_does_not_name_is_refused():
    for licence, passed in (
        ("MIT", True),
        ("mit", False),
        ("MIT OR GPL-3.0-only", False),
        ("LicenseRef-of-the-base-model", False),
    ):
        model, data = judge_licences(STRICT, {"base model": ("models.license", licence)}, "MIT")
        assert (model.passed, data.passed) == (passed, True), licence
        model, data = judge_licences(STRICT, {"base model": ("models.license", "MIT")}, licence)
        assert (model.passed, data.passed) == (True, passed), licence
    both = {
        "base model": ("models.license", "MIT"),
        "student's base model": ("models.student.license", "GPL-3.0-only"),
    }
    base, own, _ = judge_licences(STRICT, both, "MIT")
    assert {base.name, own.name} < {*CONTRACT.names}  # so a waiver can name them
    assert (base.passed, own.passed) == (
        True,
        False,
    ) and "models.student.license of params.yaml is GPL-3.0-only" in own.why
    assert judge_licences(STRICT, {"base model": ("models.license", "MIT")}, None)[1].passed is False
    assert judge_licences(CONTRACT, {"base model": ("models.license", "GPL-3.0-only")}, None) == []


RUNGS = {
    "rungs": [*LADDER["rungs"], {"name": "data", "synthetic_share": 0.5}, {"name": "package", "mb": 12.0}]
}


def test_data_and_package_have_figures_too():
    assert judge_metric(gate(metric="data.synthetic_share", at_most=0.5), RUNGS, "int4", {}).passed
    assert not judge_metric(gate(metric="package.mb", at_most=11.0), RUNGS, "int4", {}).passed
    drift = gate(metric="data.drift", at_most=0.2)
    assert judge_metric(drift, RUNGS, "int4", {}).passed is False
    assert judge_metric(drift, RUNGS, "int4", {"data.drift": "nothing is released yet"}).passed is None


def test_a_ratio_of_times_says_how_sure_it_is():
    rng = np.random.default_rng(0)
    slow = (100 + rng.normal(0, 5, (3, 12))).tolist()
    cost = {
        "threads": 1,
        "rungs": {
            n: {"by_threads": {"1": {"request_ms": t}}}
            for n, t in (("int4", [[t / 4 for t in r] for r in slow]), ("teacher", slow))
        },
    }
    time = gate(metric="shipped.request_ms_p50", over="teacher.request_ms_p50", at_most=0.3)
    assert (
        how_sure(time, cost, "int4") == " (95% interval 0.250 to 0.250, over 12 prompts, each asked 3 times)"
    )
    del cost["rungs"]["teacher"]
    assert how_sure(time, cost, "int4") == ""
    assert how_sure(gate(metric="shipped.score", at_least=0.3), cost, "int4") == ""


def data(**changes: Any) -> dict[str, Any]:
    """A data report; changes to its check of the test set for leaks."""
    splits = ("train", "validation", "test")
    null = {"expectation": "expect_column_values_to_be_null", "column": "leak", "passed": True, "limits": {}}
    results = [null | {"file": f"task/{s}.jsonl"} for s in splits]
    beside = changes.pop("beside", None)
    results += [results[-1] | beside] if beside else []
    results[len(splits) - 1].update(changes)
    return {"suites": [{"suite": "labelled", "results": results}]}


def test_data_that_were_checked_pass():
    (found,) = judge_data(STRICT, data())
    assert (found.passed, found.value, found.limit) == (True, 3, 3)
    assert judge_data(CONTRACT, None) == []
    for beside in (
        {"expectation": "expect_column_to_exist"},
        {"limits": {"row_condition": "text_words > 3"}},
        {"expectation": None, "column": None},
    ):
        (found,) = judge_data(STRICT, data(beside=beside))
        assert found.passed, beside


def test_other_columns_are_judged_by_what_looks_at_each_record():
    strict = CONTRACT.model_copy(update={"required_expectations": ["text_words"]})
    for kind, passed in (("column_values_to_be_between", True), ("column_mean_to_be_between", False)):
        report = data()
        for result in report["suites"][0]["results"]:
            result |= {"column": "text_words", "expectation": f"expect_{kind}"}
        assert judge_data(strict, report)[0].passed is passed


@pytest.mark.parametrize(
    "fault",
    [
        {"column": "tags"},
        {"file": "task/prompts.jsonl"},
        {"passed": False},
        {"limits": {"mostly": 0.1}},
        {"limits": {"mostly": {"$PARAMETER": "share"}}},
        {"limits": {"row_condition": "text_words > 3"}},
        {"beside": {"limits": {"mostly": 0.1}}},
        # They look at no record, or hold for any text
        {"expectation": "expect_column_to_exist"},
        {"expectation": "expect_column_value_lengths_to_be_between", "limits": {"min_value": 0}},
        {"expectation": "expect_column_values_to_match_regex"},
        {"expectation": "expect_column_unique_value_count_to_be_between"},
        {"expectation": "expect_column_values_to_not_be_null"},
    ],
)
def test_an_expectation_that_is_gone_fails_or_allows_exceptions_is_missed(fault: dict[str, Any]):
    (found,) = judge_data(STRICT, data(**fault))
    assert (found.passed, found.value) == (False, 2)
    assert "leak of task/test.jsonl" in found.why and "leak of task/train.jsonl" not in found.why


def test_a_data_report_that_is_missing_fails():
    assert judge_data(STRICT, None)[0].passed is False


def predictions(scores: list[int], tag: str = "plain") -> list[dict[str, Any]]:
    right, wrong = '{"name":"a","arguments":{}}', '{"name":"b","arguments":{}}'
    return [
        {
            "id": str(i),
            "prompt": f"p{i}",
            "expected": right,
            "answer": right if s else wrong,
            "tags": [tag if i < 40 else "other"],
        }
        for i, s in enumerate(scores)
    ]


def test_no_baseline_says_so_and_does_not_fail(task):
    rows = judge_baseline(CONTRACT, task, predictions([1] * 50), {"released": None, "best": None})
    assert {r.passed for r in rows} == {None}
    assert Verdict(rows, {}).passed


def test_equal_model_passes_and_five_points_less_fails(task):
    before = [1] * 560 + [0] * 240
    same = judge_baseline(
        CONTRACT, task, predictions(before), {"released": predictions(before), "best": None}
    )
    assert next(r for r in same if r.name == "not worse than released").passed
    worse = [0] * 60 + [1] * 500 + [0] * 220 + [1] * 20
    rows = judge_baseline(CONTRACT, task, predictions(worse), {"released": predictions(before), "best": None})
    assert next(r for r in rows if r.name == "not worse than released").passed is False


def compared(
    task, after: list[int], released: list[int], best: list[int] | None = None
) -> dict[str, bool | None]:
    known = {"released": predictions(released), "best": predictions(released if best is None else best)}
    return {r.name: r.passed for r in judge_baseline(CONTRACT, task, predictions(after), known)}


def test_a_loss_that_is_not_shown_but_cannot_be_ruled_out_warns(task):
    before = [1] * 140 + [0] * 60
    after = [0] * 20 + [1] * 120 + [1] * 14 + [0] * 46
    passed = compared(task, after, before)
    assert passed["not worse than released"] is True
    assert passed["within margin of released"] is False


def test_the_released_model_being_the_best_is_compared_once_at_both_error_rates(task):
    before = [1] * 560 + [0] * 240
    # 75 lost, 52 won: p = 0.025 by McNemar's exact test, between alpha and the sum
    after = [0] * 75 + [1] * 485 + [1] * 52 + [0] * 188
    assert 0.025 < paired(before, after, 0.025)["p"] < 0.04
    passed = compared(task, after, before)
    assert (passed["not worse than released"], passed["not worse than best"]) == (False, None)
    other = [*before[:-1], 1]
    assert compared(task, after, before, other)["not worse than released"] is True


def test_small_losses_add_up_against_the_best(task):
    best = [1] * 560 + [0] * 240
    released = [0] * 50 + [1] * 510 + [0] * 210 + [1] * 30
    after = [0] * 75 + [1] * 485 + [0] * 195 + [1] * 45
    passed = compared(task, after, released, best)
    assert passed["not worse than released"] is True
    assert passed["not worse than best"] is False


def test_a_ruined_slice_is_named_though_the_mean_holds(task):
    before, after = [1] * 40 + [0] * 40 + [1] * 720, [0] * 40 + [1] * 760
    rows = judge_baseline(
        CONTRACT, task, predictions(after, "typo"), {"released": predictions(before, "typo"), "best": None}
    )
    by_name = {r.name: r for r in rows}
    assert by_name["not worse than released"].passed
    assert by_name["no slice worse"].passed is False
    assert "tag typo: 40 lost" in by_name["no slice worse"].why


def test_baseline_that_shares_no_example_fails(task):
    other = [p | {"prompt": "x" + p["prompt"]} for p in predictions([1] * 50)]
    rows = judge_baseline(CONTRACT, task, predictions([1] * 50), {"released": other, "best": None})
    assert next(r for r in rows if r.name == "not worse than released").passed is False


def test_warning_does_not_refuse_but_block_does():
    warn = Row("w", "warn", False, 0, 1, "")
    assert Verdict([warn], {}).passed
    assert not Verdict([replace(warn, severity="block")], {}).passed


def test_detectable_drop_shrinks_with_examples():
    few, many = paired([1, 0] * 50, [0, 0] * 50, 0.025), paired([1, 0] * 500, [0, 0] * 500, 0.025)
    assert many["detectable"] < few["detectable"]
    assert few["low"] < few["difference"] == -0.5 < few["high"]


def test_no_change_in_few_examples_is_no_certainty():
    few, many = paired([1.0] * 10, [1.0] * 10, 0.025), paired([1.0] * 1000, [1.0] * 1000, 0.025)
    assert few["low"] < -0.1 < many["low"] < 0
    assert few["p"] == many["p"] == 1


def test_exact_test_agrees_with_scipy_and_interval_covers():
    assert chance(7, 2) == pytest.approx(binomtest(7, 9, 0.5, alternative="greater").pvalue)
    assert chance(0, 0) == 1
    rng = np.random.default_rng(0)
    for drop in (0.0, 0.05):
        drawn = rng.choice([-1.0, 0.0, 1.0], size=(20_000, 200), p=[0.1 + drop / 2, 0.8, 0.1 - drop / 2])
        low, high = bounds(drawn)
        assert 0.94 < (low <= -drop).mean() < 0.965
        assert 0.94 < (high >= -drop).mean() < 0.965


def test_scores_between_nothing_and_all_are_compared_too():
    before = list(np.linspace(0.2, 0.9, 200))
    assert paired(before, [b - 0.05 + 0.1 * (i % 2) for i, b in enumerate(before)], 0.025)[
        "p"
    ] == pytest.approx(0.5)
    assert paired(before, [b - 0.05 + 0.06 * (i % 2) for i, b in enumerate(before)], 0.025)["p"] < 0.001
