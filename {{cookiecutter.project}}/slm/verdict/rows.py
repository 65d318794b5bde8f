"""The form of a verdict (contracts/verdict.schema.json): its rows, what they add up to, and how they are
shown.
"""

from typing import Any

from slm.evaluation.ladder import ladder_table
from slm.tables import markdown

Row = dict[str, Any]


def row(name: str, severity: str, passed: bool | None, value: Any, limit: Any, why: str) -> Row:
    return {
        "name": name,
        "severity": severity,
        "passed": passed,
        "value": value,
        "limit": limit,
        "why": why,
        "waived": None,
    }


def refuses(r: Row) -> bool:
    return r["severity"] == "block" and r["passed"] is False and not r["waived"]


def verdict(
    rows: list[Row], candidate: dict[str, Any], baseline: dict[str, Any] | None, weakened: list[str]
) -> dict[str, Any]:
    return {
        "passed": not any(map(refuses, rows)),
        "candidate": candidate,
        "baseline": baseline,
        "gates": rows,
        "weakened": weakened,
    }


def mark(r: Row) -> str:
    if r["passed"] is False:
        return "waived" if r["waived"] else "warn" if r["severity"] == "warn" else "FAIL"
    return "pass" if r["passed"] else "–"


def brief(text: str, longest: int) -> str:
    """Any text on one line, without what a terminal would act on."""
    flat = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())
    return flat if len(flat) <= longest else f"{flat[:longest]}…"


def by_whom(r: Row) -> str:
    owner, until, reason = (" ".join(r["waived"][k].split()) for k in ("owner", "until", "reason"))
    return f"waived by {owner} until {until}: {reason}"


def rows_of(result: Row) -> list[list[str]]:
    """The table of a verdict, the header first."""
    rows = [["gate", "verdict", "value", "limit", "why"]]
    for r in result["gates"]:
        why = f"{r['why']} ({by_whom(r)})" if r["waived"] else r["why"]
        rows.append(
            [r["name"], mark(r), *("–" if r[k] is None else str(r[k]) for k in ("value", "limit")), why]
        )
    return rows


def waivers_of(result: Row) -> list[str]:
    """Each waiver in force, as a sentence."""
    return [f"{r['name']}: {by_whom(r)}" for r in result["gates"] if r["waived"]]


def headline(result: Row) -> str:
    if not result["passed"]:
        return f"The model is refused: {', '.join(r['name'] for r in result['gates'] if refuses(r))}."
    waived = [r["name"] for r in result["gates"] if r["waived"]]
    return (
        f"The model passes its gates, but for what is waived: {', '.join(waived)}."
        if waived
        else "The model passes its gates."
    )


def as_markdown(result: Row, ladder: dict[str, Any]) -> str:
    gates = [[" ".join(cell.replace("|", "\\|").split()) for cell in cells] for cells in rows_of(result)]
    parts = [
        f"# {headline(result)}\n",
        "## The ladder\n",
        markdown(ladder_table(ladder)),
        "## The gates\n",
        markdown(gates),
    ]
    for title, lines in {
        "Waived": waivers_of(result),
        "The contract was loosened": result["weakened"],
    }.items():
        if lines:
            parts += [f"## {title}\n", "".join(f"- {line}\n" for line in lines)]
    return "\n".join(parts)
