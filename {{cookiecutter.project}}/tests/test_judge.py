"""The judge's small parts: what must be made anew before it, and cost beside the released model."""

from slm.ci.plan import judgeable
from slm.dvc_cli import lacking, out_of_lock
from slm.verdict.contract import Contract, Gate, Released
from slm.verdict.cost import judge_cost

# The plan
STATUS = {
    "check": [{"changed deps": {"task/train.jsonl": "modified"}}],
    "teach": [
        {"changed outs": {"models/teacher": "not in cache"}},
        {"changed deps": {"models/base": "deleted", "params.yaml": {"teach.epochs": "modified"}}},
    ],
    "package": [{"changed outs": {"dist": "deleted"}}],
    "measure": ["changed command"],
}


def test_what_is_only_absent_is_no_change():
    assert out_of_lock(STATUS) == {
        "check": ["task/train.jsonl (modified)"],
        "teach": ["params.yaml (teach.epochs)"],
        "measure": ["changed command"],
    }
    assert lacking(STATUS) == {"teach", "package"}
    assert (
        judgeable({"teach", "convert@onnx"})
        and not judgeable({"evaluate@int4"})
        and not judgeable({"package"})
    )


def test_cost_is_judged_as_share_of_the_released_model():
    released = Released(
        margin=0.03, best_margin=0.04, time=1.2, memory=1.2, weights=1.02, slice_size=30, slice_alpha=0.05
    )
    contract = Contract(
        gates=[Gate(name="g", severity="block", metric="shipped.score", at_least=0.0)], released=released
    )
    old = {"request_ms_p50": 100.0, "rss_mb": 100.0, "weights_mb": 50.0}
    rows = judge_cost(contract, {"request_ms_p50": 125.0, "rss_mb": 110.0, "weights_mb": 50.0}, old)
    assert [r.passed for r in rows] == [False, True, True]
    assert [r.passed for r in judge_cost(contract, old, None)] == [None] * 3
    assert judge_cost(contract, old, old | {"rss_mb": 0.0})[1].passed is False
