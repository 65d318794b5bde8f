"""The form of a verdict (contracts/verdict.schema.json): its rows, what they add up to, and how they are shown."""

from typing import Any

Row = dict[str, Any]


def row(name: str, severity: str, passed: bool | None, value: Any, limit: Any, why: str) -> Row:
    return {"name": name, "severity": severity, "passed": passed, "value": value, "limit": limit, "why": why, "waived": None}


def verdict(rows: list[Row], candidate: dict[str, Any], baseline: dict[str, Any] | None, weakened: list[str]) -> dict[str, Any]:
    failed = [r for r in rows if r["severity"] == "block" and r["passed"] is False and not r["waived"]]
    return {"passed": not failed, "candidate": candidate, "baseline": baseline, "gates": rows, "weakened": weakened}


MARKS = {True: "pass", False: "FAIL", None: "–"}


def rows_of(result: dict[str, Any]) -> list[list[str]]:
    rows = [["gate", "verdict", "value", "limit", "why"]]
    for g in result["gates"]:
        mark = "warn" if g["passed"] is False and g["severity"] == "warn" else MARKS[g["passed"]]
        rows.append([g["name"], mark, *("–" if g[k] is None else str(g[k]) for k in ("value", "limit")), g["why"]])
    return rows


def headline(result: dict[str, Any]) -> str:
    failed = [g["name"] for g in result["gates"] if g["passed"] is False and g["severity"] == "block" and not g["waived"]]
    return "The model passes its gates." if result["passed"] else f"The model is refused: {', '.join(failed)}."
