"""Compare a candidate with the released model: quality example by example, cost as shares of the released
model's cost in the same run.
"""

from collections import defaultdict
from dataclasses import replace

from slm.errors import brief
from slm.task.answers import class_of
from slm.task.definition import Task
from slm.task.metrics import score_one
from slm.task.records import Prediction
from slm.verdict.contract import Contract
from slm.verdict.registry import AGAINST_RELEASED, NO_SLICE_WORSE, NOT_WORSE, WITHIN_MARGIN
from slm.verdict.rows import Row
from slm.verdict.statistics import paired, slices_worse

UNRELEASED = "no baseline: nothing is released yet"


def judge_baseline(
    contract: Contract, task: Task, candidate: list[Prediction], baselines: dict[str, list[Prediction] | None]
) -> list[Row]:
    """Paired comparisons with the released model and with the best release so far.

    A loss that is shown blocks; one that is not shown but cannot be ruled out warns. docs/verdict-method.md
    says why. `slm calibrate` says how often each is wrong; its simulation follows these rules.

    Args:
        candidate: rows of a prediction file (id, expected, answer, tags).
        baselines: the same of `released` and `best`; None where there is none.
    """
    limits, rows = contract.released, []
    same = baselines.get("released") == baselines.get("best")
    alphas = {
        "released": limits.alpha + limits.best_alpha if same else limits.alpha,
        "best": limits.best_alpha,
    }
    margins = {"released": limits.margin, "best": limits.best_margin}
    for name, baseline in baselines.items():
        alpha, margin = alphas[name], margins[name]
        worse, unseen = NOT_WORSE[name], WITHIN_MARGIN[name]
        if baseline is None:
            rows += [worse.row(None, None, alpha, UNRELEASED), unseen.row(None, None, -margin, UNRELEASED)]
        elif name == "best" and same:
            why = "the best release so far is the released model: see there"
            rows += [worse.row(None, None, None, why), unseen.row(None, None, None, why)]
        else:
            before, after = _pairs(task, candidate, baseline)
            rows += _compare(name, before, after, alpha, margin)
            if name == "released" and before:
                rows.append(_judge_slices(contract, task, candidate, baseline))
    if baselines.get("released") is None:
        rows.append(NO_SLICE_WORSE.row(None, None, None, UNRELEASED))
    return rows


def _compare(name: str, before: list[float], after: list[float], alpha: float, margin: float) -> list[Row]:
    """Is the candidate shown to be worse, and can a loss of `margin` be ruled out?"""
    worse, unseen = NOT_WORSE[name], WITHIN_MARGIN[name]
    if not before:
        return [worse.row(False, None, alpha, f"the {name} model's predictions share no example with these")]
    p = paired(before, after, alpha)
    why = (
        f"{p['difference']:+.3f} on {len(before)} common examples: {p['losses']} lost, {p['wins']} won, "
        f"chance alone does that with p = {p['p']:.2g}, and p <= {alpha:g} blocks; "
        f"with {p['flipped']:.0%} of the answers changed, a loss of {p['detectable']:.3f} is caught nine "
        "times in ten"
    )
    shown = worse.row(p["p"] > alpha, round(p["p"], 4), alpha, why)
    why = (
        f"the true difference is surely (95%) above {p['low']:+.3f}, and should surely be above "
        f"{-margin:+.3f}"
    )
    if p["low"] < -margin:
        why += ": so large a loss cannot be ruled out; more test examples would tell"
    return [shown, unseen.row(p["low"] >= -margin, round(p["low"], 4), -margin, why)]


def flips(
    task: Task, before: list[Prediction], after: list[Prediction], figure: str = "score"
) -> list[Prediction]:
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


def blame(rows: list[Row], changed: list[tuple[str, str, str]]) -> list[Row]:
    """The rows; the `why` of each comparison that is lost to the released model ends with what was changed
    since, three parameters at most.

    Args:
        changed: (name, before, after); may be a stranger's text.
    """
    if not changed:
        return rows
    said = [
        f"{brief(name, 80)} changed from {brief(before, 40)} to {brief(after, 40)}"
        for name, before, after in changed[:3]
    ]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    because = f"; after {', '.join(said)}{more}"
    lost = {gate.name for gate in AGAINST_RELEASED}
    return [
        replace(row, why=row.why + because) if row.name in lost and row.passed is False else row
        for row in rows
    ]


def _pairs(
    task: Task, candidate: list[Prediction], baseline: list[Prediction]
) -> tuple[list[float], list[float]]:
    """Scores before and after on the examples whose request and expected answer are the same in both."""
    known = {(r["id"], r["prompt"]): r for r in baseline}
    before, after = [], []
    for r in candidate:
        old = known.get((r["id"], r["prompt"]))
        if old is not None:
            before.append(score_one(task, r["expected"], old["answer"])["score"])
            after.append(score_one(task, r["expected"], r["answer"])["score"])
    return before, after


def slices_of(task: Task, r: Prediction) -> list[str]:
    name = class_of(task, r["expected"])
    return [f"tag {t}" for t in r["tags"]] + ([] if name is None else [f"class {name}"])


def scores_by_slice(
    task: Task, candidate: list[Prediction], baseline: list[Prediction]
) -> dict[str, tuple[list[float], list[float]]]:
    """Scores before and after by tag and by expected class."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for r in candidate:
        for name in slices_of(task, r):
            groups[name].append(r)
    return {name: _pairs(task, rows, baseline) for name, rows in groups.items()}


def _judge_slices(
    contract: Contract, task: Task, candidate: list[Prediction], baseline: list[Prediction]
) -> Row:
    worse = slices_worse(
        scores_by_slice(task, candidate, baseline),
        contract.released.slice_size,
        contract.released.slice_alpha,
    )
    why = (
        "; ".join(f"{w['slice']}: {w['losses']} lost, {w['wins']} won of {w['n']}" for w in worse)
        or "no slice lost more than chance would take"
    )
    return NO_SLICE_WORSE.row(not worse, len(worse), 0, why)
