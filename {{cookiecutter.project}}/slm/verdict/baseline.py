"""A candidate beside the released model: quality example by example, cost as shares of what was measured in
the same run.
"""

from collections import defaultdict

from slm.task.answers import class_of
from slm.task.definition import Task
from slm.task.metrics import score_one
from slm.verdict.contract import AGAINST_RELEASED, Contract
from slm.verdict.rows import Row, brief, row
from slm.verdict.statistics import paired, slices_worse


def judge_baseline(
    contract: Contract, task: Task, candidate: list[Row], baselines: dict[str, list[Row] | None]
) -> list[Row]:
    """Paired comparisons with the released model and with the best release so far.

    A loss that is shown blocks; one that is not shown but cannot be ruled out warns. Why so:
    docs/verdict-method.md of the template;
    how often each is wrong: `python -m slm.verdict.calibration.proposal`, whose simulation follows these
    rules.

    Args:
        candidate: prediction rows (id, expected, answer, tags).
        baselines: the same of `released` and `best`; None where there is none.
    """
    r, rows = contract.released, []
    same = baselines.get("released") == baselines.get("best")
    limits = {
        "released": (r.alpha + r.best_alpha if same else r.alpha, r.margin),
        "best": (r.best_alpha, r.best_margin),
    }
    for name, baseline in baselines.items():
        alpha, margin = limits[name]
        worse, unseen = f"not worse than {name}", f"within margin of {name}"
        if baseline is None:
            why = "no baseline: nothing is released yet"
            rows += [
                row(worse, "block", None, None, alpha, why),
                row(unseen, "warn", None, None, -margin, why),
            ]
            continue
        if name == "best" and same:
            why = "the best release so far is the released model: see there"
            rows += [row(worse, "block", None, None, None, why), row(unseen, "warn", None, None, None, why)]
            continue
        before, after = _pairs(task, candidate, baseline)
        if not before:
            rows.append(
                row(
                    worse,
                    "block",
                    False,
                    None,
                    alpha,
                    f"the {name} model's predictions share no example with these",
                )
            )
            continue
        p = paired(before, after, alpha)
        why = (
            f"{p['difference']:+.3f} on {len(before)} common examples: {p['losses']} lost, {p['wins']} won, chance alone does that with p = {p['p']:.2g}, "
            f"and p <= {alpha:g} blocks; with {p['flipped']:.0%} of the answers changed, a loss of {p['detectable']:.3f} is caught nine times in ten"
        )
        rows.append(row(worse, "block", p["p"] > alpha, round(p["p"], 4), alpha, why))
        why = f"the true difference is surely (95%) above {p['low']:+.3f}, and should surely be above {-margin:+.3f}"
        if p["low"] < -margin:
            why += ": so large a loss cannot be ruled out; more test examples would tell"
        rows.append(row(unseen, "warn", p["low"] >= -margin, round(p["low"], 4), -margin, why))
        if name == "released":
            rows.append(_judge_slices(contract, task, candidate, baseline))
    if baselines.get("released") is None:
        rows.append(row("no slice worse", "block", None, None, None, "no baseline: nothing is released yet"))
    return rows


def flips(task: Task, before: list[Row], after: list[Row], figure: str = "score") -> list[Row]:
    """Answers whose score (or validity) changed, on the examples whose request is the same in both; the
    largest losses first.

    Each is the row of `after` with `before` (that answer) and `change`.
    """
    old = {(r["id"], r["prompt"]): r["answer"] for r in before}
    rows = []
    for r in after:
        said = old.get((r["id"], r["prompt"]))
        if said is not None:
            change = float(score_one(task, r["expected"], r["answer"])[figure]) - float(
                score_one(task, r["expected"], said)[figure]
            )
            rows += [r | {"before": said, "change": change}] if change else []
    return sorted(rows, key=lambda r: r["change"])


def blame(rows: list[Row], changed: list[tuple[str, str, str]]) -> None:
    """End the `why` of each comparison that is lost to the released model with what was turned since: three
    knobs at most.

    Args:
        changed: (name, before, after); may be a stranger's text.
    """
    if not changed:
        return
    said = [
        f"{brief(name, 80)} changed from {brief(before, 40)} to {brief(after, 40)}"
        for name, before, after in changed[:3]
    ]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    for r in rows:
        if r["name"] in AGAINST_RELEASED and r["passed"] is False:
            r["why"] += f"; after {', '.join(said)}{more}"


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


def slices_of(task: Task, r: Row) -> list[str]:
    name = class_of(task, r["expected"])
    return [f"tag {t}" for t in r["tags"]] + ([] if name is None else [f"class {name}"])


def scores_by_slice(
    task: Task, candidate: list[Row], baseline: list[Row]
) -> dict[str, tuple[list[float], list[float]]]:
    """Scores before and after by tag and by expected class."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for r in candidate:
        for name in slices_of(task, r):
            groups[name].append(r)
    return {name: _pairs(task, rows, baseline) for name, rows in groups.items()}


def _judge_slices(contract: Contract, task: Task, candidate: list[Row], baseline: list[Row]) -> Row:
    worse = slices_worse(
        scores_by_slice(task, candidate, baseline),
        contract.released.slice_size,
        contract.released.slice_alpha,
    )
    why = (
        "; ".join(f"{w['slice']}: {w['losses']} lost, {w['wins']} won of {w['n']}" for w in worse)
        or "no slice lost more than chance would take"
    )
    return row("no slice worse", "block", not worse, len(worse), 0, why)
