"""The verdict: one comparison of facts with the contract. It measures nothing and decides everything.

python -m slm.gate      prints a table, writes reports/verdict.json and verdict.md, exits 1 if a blocking gate fails
"""

import argparse
import json
import math
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from slm.contract import CONTRACT, Contract, Gate, load_contract, loosened
from slm.errors import UserError, stage
from slm.files import folder_sha256, read_json, read_jsonl, sha256_file, weights_sha256, write_json, write_text
from slm.ladder import markdown, plain, table
from slm.params import load_params
from slm.records import TASK
from slm.released import RELEASED, predictions_of
from slm.scoring import class_of, score_one
from slm.statistics import paired, slices_worse
from slm.task import Task, load_task

REPORTS = Path("reports")
Row = dict[str, Any]


def row(name: str, severity: str, passed: bool | None, value: Any, limit: Any, why: str) -> Row:
    return {"name": name, "severity": severity, "passed": passed, "value": value, "limit": limit, "why": why, "waived": None}


def judge_metric(gate: Gate, ladder: dict[str, Any], shipped: str, absent: dict[str, str]) -> Row:
    """One gate of the contract against the ladder; a figure that is missing or no finite number fails.

    Args:
        absent: rungs that by nature lack figures, with the reason; a gate over one of those does not apply.
    """
    figures = {r["name"]: r for r in ladder["rungs"]}
    sign = ">=" if gate.at_least is not None else "<="

    def read(metric: str) -> float | None:
        rung, figure = metric.split(".")
        value = figures.get(shipped if rung == "shipped" else rung, {}).get(figure)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None

    for metric in (gate.metric, gate.over):
        rung = metric.split(".")[0] if metric else ""
        if rung in absent and read(metric) is None:
            return row(gate.name, gate.severity, None, None, gate.limit, f"does not apply: {absent[rung]}")
    value = read(gate.metric)
    what = gate.metric
    if gate.over is not None:
        divisor = read(gate.over)
        value = value / divisor if value is not None and divisor else None
        what = f"{gate.metric} / {gate.over}"
    if value is None:
        return row(gate.name, gate.severity, False, None, gate.limit, f"{what} is missing or no finite number")
    passed = gate.holds(value)
    return row(gate.name, gate.severity, passed, round(value, 4), gate.limit, f"{what} is {value:.3f}, must be {sign} {gate.limit}")


def judge_integrity(facts: dict[str, Any]) -> list[Row]:
    """What is judged is what ships, on this test set, by this scorer. These gates cannot be switched off.

    Args:
        facts: `header` (of the predictions), `quality`, `ladder_row`, `package_folder_sha256`, `package_weights_sha256`,
            `cost_folder_sha256`, `test_sha256`, `test_ids`, `answered_ids`, `rescored`; see `judge`.
    """
    header, quality, ladder = facts["header"], facts["quality"], facts["ladder_row"]

    def same(name: str, claimed: Any, true: Any, why: str) -> Row:
        return row(name, "block", claimed == true and true is not None, str(claimed)[:12], str(true)[:12], why)

    bytes_scored = same(
        "bytes scored", header.get("folder_sha256"), facts["package_folder_sha256"], "the predictions come from the bytes in the package"
    )
    bytes_timed = same(
        "bytes timed", facts["cost_folder_sha256"], facts["package_folder_sha256"], "time and memory are of the bytes in the package"
    )
    weights = same(
        "weights", ladder.get("weights_sha256"), facts["package_weights_sha256"], "the ladder speaks of the weights in the package"
    )
    test = same("test set", header.get("test_sha256"), facts["test_sha256"], "the predictions answer the test set of this checkout")
    size = row(
        "whole test set",
        "block",
        facts["answered_ids"] == facts["test_ids"] and bool(facts["test_ids"]),
        len(facts["answered_ids"]),
        len(facts["test_ids"]),
        "every test example was asked, in order, and none beside",
    )
    claimed = (quality.get("score"), ladder.get("score"))
    rescored = facts["rescored"]
    score = row(
        "score",
        "block",
        all(isinstance(c, float) and math.isclose(c, rescored, abs_tol=1e-9) for c in claimed),
        claimed[1],
        rescored,
        "scoring the predictions again gives the score that is claimed",
    )
    rows = [bytes_scored, bytes_timed, weights, test, size, score]
    for r in rows:
        r["name"] = f"integrity: {r['name']}"
    return rows


def judge_baseline(contract: Contract, task: Task, candidate: list[Row], baselines: dict[str, list[Row] | None]) -> list[Row]:
    """Paired comparisons with the released model and with the best release so far.

    Args:
        candidate: prediction rows (id, expected, answer, tags).
        baselines: the same of `released` and `best`; None where there is none.
    """
    rows = []
    margins = {"released": contract.released.margin, "best": contract.released.best_margin}
    for name, baseline in baselines.items():
        margin = -margins[name]
        label = f"not worse than {name}"
        if baseline is None:
            rows.append(row(label, "block", None, None, margin, "no baseline: nothing is released yet"))
            continue
        before, after = _pairs(task, candidate, baseline)
        if not before:
            rows.append(row(label, "block", False, None, margin, f"the {name} model's predictions share no example with these"))
            continue
        p = paired(before, after)
        why = (
            f"{p['difference']:+.3f} on {len(before)} common examples (surely no less than {p['low']:+.3f}); {p['flipped']:.0%} of the answers changed, "
            f"so a drop of {p['detectable']:.3f} would show four times in five"
        )
        rows.append(row(label, "block", p["low"] >= margin, round(p["low"], 4), margin, why))
        if name == "released":
            rows.append(_judge_slices(contract, task, candidate, baseline))
    if baselines.get("released") is None:
        rows.append(row("no slice worse", "block", None, None, None, "no baseline: nothing is released yet"))
    return rows


def judge_cost(contract: Contract, candidate: dict[str, float], released: dict[str, float] | None) -> list[Row]:
    """Time, memory and weights of a candidate as shares of the released model's, measured in one run on one machine."""
    rows = []
    figures = {"time": "request_ms_p50", "memory": "rss_mb", "weights": "weights_mb"}
    for name, figure in figures.items():
        limit, label = getattr(contract.released, name), f"{name} of released"
        if released is None:
            rows.append(row(label, "block", None, None, limit, "no baseline: nothing is released yet"))
            continue
        share = candidate[figure] / released[figure] if released[figure] else math.inf
        passed = math.isfinite(share) and share <= limit
        why = f"{figure} is {candidate[figure]:.4g}, the released model's is {released[figure]:.4g} beside it: a share of {share:.3f}"
        rows.append(row(label, "block", passed, round(share, 4) if math.isfinite(share) else None, limit, f"{why}, must be <= {limit}"))
    return rows


def _pairs(task: Task, candidate: list[Row], baseline: list[Row]) -> tuple[list[float], list[float]]:
    """Scores before and after on the examples whose request and expected answer are the same in both."""
    known = {(r["id"], r["prompt"]): r for r in baseline}
    before, after = [], []
    for r in candidate:
        old = known.get((r["id"], r["prompt"]))
        if old is not None:
            before.append(score_one(task, r["expected"], old["answer"])["score"])
            after.append(score_one(task, r["expected"], r["answer"])["score"])
    return before, after


def _judge_slices(contract: Contract, task: Task, candidate: list[Row], baseline: list[Row]) -> Row:
    groups: dict[str, list[Row]] = defaultdict(list)
    for r in candidate:
        for name in [f"tag {t}" for t in r["tags"]] + [f"class {class_of(task, r['expected'])}"]:
            groups[name].append(r)
    worse = slices_worse(
        {name: _pairs(task, rows, baseline) for name, rows in groups.items()}, contract.released.slice_size, contract.released.slice_alpha
    )
    why = (
        "; ".join(f"{w['slice']}: {w['losses']} lost, {w['wins']} won of {w['n']}" for w in worse)
        or "no slice lost more than chance would take"
    )
    return row("no slice worse", "block", not worse, len(worse), 0, why)


def verdict(rows: list[Row], candidate: dict[str, Any], baseline: dict[str, Any] | None, weakened: list[str]) -> dict[str, Any]:
    failed = [r for r in rows if r["severity"] == "block" and r["passed"] is False and not r["waived"]]
    return {"passed": not failed, "candidate": candidate, "baseline": baseline, "gates": rows, "weakened": weakened}


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8", check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _weakened(contract: Contract, revision: str | None) -> list[str]:
    """How gates.yaml is looser than at the baseline revision (the released one, else the first commit that has it)."""
    if revision is None:
        log = _git("log", "--format=%H", "--diff-filter=A", "--", str(CONTRACT))
        revision = log.splitlines()[-1] if log else None
    text = _git("show", f"{revision}:./{CONTRACT}") if revision else None
    if text is None:
        return []
    before = Path(REPORTS / ".gates-before.yaml")
    write_text(before, text + "\n")
    try:
        return loosened(load_contract(before), contract)
    finally:
        before.unlink()


def judge() -> dict[str, Any]:
    """Read the facts of this checkout and judge them."""
    params, task, contract = load_params(), load_task(), load_contract()
    shipped = params.package.variant
    needed = ("ladder.json", "cost.json", f"quality/{shipped}.json", f"../predictions/{shipped}.jsonl")
    missing = [REPORTS / name for name in needed if not (REPORTS / name).exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; run `dvc repro` first (or `dvc pull`)")
    ladder = read_json(REPORTS / "ladder.json")
    released = read_json(RELEASED)
    header, *predictions = read_jsonl(Path("predictions") / f"{shipped}.jsonl")
    package = Path("dist") / params.package.name / "model"
    test_ids = [json.loads(line)["id"] for line in (TASK / "test.jsonl").read_text(encoding="utf-8").splitlines() if line]

    scores = [score_one(task, p["expected"], p["answer"])["score"] for p in predictions]
    facts = {
        "header": header,
        "quality": read_json(REPORTS / "quality" / f"{shipped}.json"),
        "ladder_row": next((r for r in ladder["rungs"] if r["name"] == shipped), {}),
        "package_folder_sha256": folder_sha256(package) if package.exists() else None,
        "package_weights_sha256": weights_sha256(package) if package.exists() else None,
        "cost_folder_sha256": read_json(REPORTS / "cost.json")["rungs"].get(shipped, {}).get("folder_sha256"),
        "test_sha256": sha256_file(TASK / "test.jsonl"),
        "test_ids": test_ids,
        "answered_ids": [p["id"] for p in predictions],
        "rescored": sum(scores) / len(scores) if scores else 0.0,
    }
    baselines = {name: predictions_of(released.get(name)) for name in ("released", "best")}
    rows = judge_integrity(facts)
    endpoint = params.synthesize.teacher == "endpoint"
    absent = {"teacher": "the teacher is an endpoint, without time, memory and weights of its own here"} if endpoint else {}
    rows += [judge_metric(gate, ladder, shipped, absent) for gate in contract.gates]
    rows += judge_baseline(contract, task, predictions, baselines)
    candidate = {
        "revision": _git("rev-parse", "HEAD"),
        "weights_sha256": facts["package_weights_sha256"],
        "folder_sha256": facts["package_folder_sha256"],
    }
    baseline = released.get("released")
    return verdict(rows, candidate, baseline, _weakened(contract, baseline["revision"] if baseline else None))


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


def as_markdown(result: dict[str, Any], ladder: dict[str, Any]) -> str:
    parts = [f"# {headline(result)}\n", "## The ladder\n", markdown(table(ladder)), "## The gates\n", markdown(rows_of(result))]
    if result["weakened"]:
        parts += ["## The contract was loosened\n", "".join(f"- {line}\n" for line in result["weakened"])]
    return "\n".join(parts)


@stage
def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    result = judge()
    ladder = read_json(REPORTS / "ladder.json")
    write_json(REPORTS / "verdict.json", result)
    write_text(REPORTS / "verdict.md", as_markdown(result, ladder))
    print(plain(table(ladder)))
    print("\n".join("  ".join([r[0].ljust(26), r[1].ljust(7), r[4]]) for r in rows_of(result)))
    for line in result["weakened"]:
        print(f"loosened: {line}")
    print(f"\n{headline(result)}")
    if not result["passed"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
