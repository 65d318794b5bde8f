"""One gate of the contract against the ladder."""

import math
from typing import Any

from slm.verdict.contract import Gate
from slm.verdict.rows import Row


def judge_metric(gate: Gate, ladder: dict[str, Any], shipped: str, absent: dict[str, str]) -> Row:
    """One gate of the contract against the ladder; a figure that is missing or no finite number fails.

    Args:
        ladder: its rungs; `data` (slm/verdict/data_figures.py) and `package` may stand among them.
        absent: rungs, or single figures of one, that cannot exist here, with the reason. A gate over one of
            those does not apply.
    """
    figures = {r["name"]: r for r in ladder["rungs"]}
    sign = ">=" if gate.at_least is not None else "<="

    def read(metric: str) -> float | None:
        rung, figure = metric.split(".")
        value = figures.get(shipped if rung == "shipped" else rung, {}).get(figure)
        return (
            float(value)
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            else None
        )

    for metric in (gate.metric, gate.over):
        why = absent.get(metric or "") or absent.get((metric or "").split(".")[0])
        if metric and why and read(metric) is None:
            return Row(gate.name, gate.severity, None, None, gate.limit, f"does not apply: {why}")
    value = read(gate.metric)
    what = gate.metric
    if gate.over is not None:
        divisor = read(gate.over)
        value = value / divisor if value is not None and divisor else None
        what = f"{gate.metric} / {gate.over}"
    if value is None:
        return Row(
            gate.name, gate.severity, False, None, gate.limit, f"{what} is missing or no finite number"
        )
    passed = gate.holds(value)
    return Row(
        gate.name,
        gate.severity,
        passed,
        round(value, 4),
        gate.limit,
        f"{what} is {value:.3f}, must be {sign} {gate.limit}",
    )
