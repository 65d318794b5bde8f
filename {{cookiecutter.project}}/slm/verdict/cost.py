"""What a model costs, judged: as shares of another model's, measured in one run on one machine."""

import math
from typing import Any

from slm.evaluation.cost import SPREAD, ratio_spread
from slm.files import Json
from slm.verdict.contract import Contract, Gate
from slm.verdict.registry import COST, ROUNDS_AGREE
from slm.verdict.rows import Row
from slm.verdict.statistics import ratio_interval


def share_interval(mine: Json, other: Json, figure: str) -> str:
    """How sure the ratio of two models' times is, as the end of a sentence; empty for what is no time of many
    requests.
    """
    quantile = {"request_ms_p50": 0.5, "request_ms_p95": 0.95}.get(figure)
    one, two = mine.get("request_ms") or [], other.get("request_ms") or []
    if quantile is None or [len(r) for r in one] != [len(r) for r in two] or not one or len(one[0]) < 2:
        return ""
    low, high = ratio_interval(one, two, quantile)
    return f" (95% interval {low:.3f} to {high:.3f}, over {len(one[0])} prompts, each asked {len(one)} times)"


def judge_cost(contract: Contract, candidate: Json, released: Json | None) -> list[Row]:
    """Time, memory and weights of a candidate as shares of the released model's, measured in one run on one
    machine.
    """
    rows = []
    figures = {"time": "request_ms_p50", "memory": "rss_mb", "weights": "weights_mb"}
    for name, figure in figures.items():
        gate, limit = COST[name], getattr(contract.released, name)
        if released is None:
            rows.append(gate.row(None, None, limit, "no baseline: nothing is released yet"))
            continue
        mine, other = candidate[figure], released[figure]
        share = mine / other if other else math.inf
        value = round(share, 4) if math.isfinite(share) else None
        sure = share_interval(candidate, released, figure)
        why = (
            f"{figure} is {mine:.4g}, the released model's is {other:.4g} beside it: a share of "
            f"{share:.3f}{sure}"
        )
        rows.append(
            gate.row(value is not None and share <= limit, value, limit, f"{why}, must be <= {limit}")
        )
    return rows


def judge_rounds(cost: dict[str, Any]) -> Row:
    """Whether the rounds of one measurement agree (the rule is in slm/evaluation/cost.py), by the ratios that
    it states.
    """
    ratios: dict[str, list[float]] = cost.get("ratios") or {}
    if not ratios:
        why = (
            "the measurement does not state the ratios of its rounds; "
            "run `dvc repro --force --single-item measure && slm repro`"
        )
        return ROUNDS_AGREE.row(False, None, SPREAD, why)
    worst = max(ratios, key=lambda n: ratio_spread(ratios[n]))
    found, first = ratio_spread(ratios[worst]), next(iter(ratios))
    value = round(found, 4) if math.isfinite(found) else None
    if found <= SPREAD:
        why = f"the ratio of two models' times differs between rounds by a factor of {found:.2f} at most"
        return ROUNDS_AGREE.row(True, value, SPREAD, why)
    by_round = ", ".join(f"{r:.3g}" for r in ratios[worst])
    why = (
        f"{worst} took {by_round} of {first}'s time in the rounds of the last of {cost['attempts']} "
        "attempts: "
        "another program kept the machine busy, and times measured so prove nothing; "
        "close other programs, or raise measure.rounds, and measure again"
    )
    return ROUNDS_AGREE.row(False, value, SPREAD, why)


def how_sure(gate: Gate, cost: dict[str, Any], shipped: str) -> str:
    """The interval of a ratio of times, as the end of its sentence; empty for other figures."""
    if gate.over is None:
        return ""
    (one, figure), (two, other) = (
        metric.replace("shipped.", f"{shipped}.").split(".") for metric in (gate.metric, gate.over)
    )
    mine, divisor = (
        cost["rungs"].get(rung, {}).get("by_threads", {}).get(str(cost["threads"]), {}) for rung in (one, two)
    )
    return share_interval(mine, divisor, figure) if figure == other else ""
