"""Rates of false alarms and misses of the gate's comparisons, from candidates of known quality
(slm/verdict/calibration/simulation.py), and limits to match.
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from slm.errors import UserError
from slm.verdict.calibration.simulation import (
    Answers,
    Draw,
    Evidence,
    decline,
    evidence,
    history,
    joined,
    pair,
)
from slm.verdict.contract import Released

RUNS = 6000  # simulated comparisons behind each stated rate, over all pairs of models
FEWER = 4000  # behind each line of the tables of proposals
SEED = 0
CELLS = 2_000_000  # answers held at once
SHARES = (None, 0.10, 0.15, 0.20, 0.25)  # of answers that differ; None: as between the real models
SIZES = (200, 400, 600, 1000, 1500, 2000)
SPLIT = {"alpha": 0.5, "best_alpha": 0.3, "slice_alpha": 0.2}  # of the error rate of all comparisons together
TOTALS = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10)
DROPS = tuple(round(0.02 + 0.005 * i, 3) for i in range(17))
ALARMS, CAUGHT = 0.05, 0.90  # what the proposals keep to
SMALL_LOSSES = 3  # releases over which a small loss adds up

Table = list[dict[str, Any]]


def rate(events: NDArray[np.bool_]) -> dict[str, float]:
    """A rate with its one-sided 95% bounds (Clopper-Pearson)."""
    count, runs = int(events.sum()), len(events)
    low, high = proportion_confint(count, runs, alpha=0.10, method="beta")
    return {"rate": count / runs, "low": float(low), "high": float(high), "runs": runs}


class Simulation:
    """Evidence about candidates of known quality, drawn in blocks that fit into memory."""

    def __init__(self, answers: Answers, smallest: int):
        self.answers, self.smallest = answers, smallest
        self.rng = np.random.default_rng(SEED)
        scores = answers.scores
        self.pairs = {
            f"{answers.names[a]}, {answers.names[b]}": scores[[a, b]]
            for a, b in combinations(range(len(scores)), 2)
            if (scores[a] != scores[b]).any()
        }
        if not self.pairs:
            raise UserError(
                f"{', '.join(answers.names)}: give at least two models that answer differently, for example two seeds"
            )

    def _blocks(self, size: int, runs: int, draw: Callable[[int], Draw]) -> Evidence:
        block = max(1, CELLS // size)
        return joined(
            [
                evidence(draw(min(block, runs - at)), self.answers.members, self.smallest)
                for at in range(0, runs, block)
            ]
        )

    def by_pair(
        self, size: int, runs: int, drop: float = 0.0, share: float | None = None
    ) -> dict[str, Evidence]:
        each = -(-runs // len(self.pairs))
        return {
            name: self._blocks(size, each, partial(pair, scores, size, rng=self.rng, drop=drop, share=share))
            for name, scores in self.pairs.items()
        }

    def candidates(self, size: int, runs: int, drop: float = 0.0, share: float | None = None) -> Evidence:
        return joined(list(self.by_pair(size, runs, drop, share).values()))

    def after(self, releases: int, size: int, runs: int) -> Evidence:
        return self._blocks(size, runs, lambda n: history(self.answers.scores, releases, size, n, self.rng))

    def declines(self, step: float, size: int, runs: int) -> list[Evidence]:
        block = max(1, CELLS // size)
        parts = [
            [
                evidence(d, self.answers.members, self.smallest)
                for d in decline(
                    self.answers.scores, step, SMALL_LOSSES, size, min(block, runs - at), self.rng
                )
            ]
            for at in range(0, runs, block)
        ]
        return [joined(list(releases)) for releases in zip(*parts, strict=True)]


def stated(
    simulation: Simulation, released: Released, size: int, drop: float, total: float
) -> dict[str, Any]:
    """Rates at the limits of the contract.

    Args:
        drop: what a worse candidate has lost.
        total: what three releases have lost together.
    """
    shares = SHARES if simulation.answers.binary else (None,)
    equal = simulation.by_pair(size, RUNS)
    worse = simulation.by_pair(size, RUNS, drop)
    pairs = [
        {
            "models": name,
            "differ": float((simulation.pairs[name][0] != simulation.pairs[name][1]).mean()),
            "false_alarm": rate(equal[name].refused(released)),
            "caught": rate(worse[name].refused(released)),
        }
        for name in simulation.pairs
    ]
    by_share = []
    for share in shares:
        same = (
            joined(list(equal.values())) if share is None else simulation.candidates(size, RUNS, 0.0, share)
        )
        less = (
            joined(list(worse.values())) if share is None else simulation.candidates(size, RUNS, drop, share)
        )
        by_share.append(
            {
                "share": share,
                "false_alarm": rate(same.refused(released)),
                "warned": rate(same.warned(released)),
                "caught": rate(less.refused(released)),
                "caught_or_warned": rate(less.refused(released) | less.warned(released)),
            }
        )
    releases = {n: simulation.after(n, size, RUNS) for n in (2, 5)}
    falling = simulation.declines(total / SMALL_LOSSES, size, RUNS)
    refused = np.array([e.refused(released) for e in falling])
    seen = refused | np.array([e.warned(released) for e in falling])
    return {
        "examples": size,
        "models": simulation.answers.names,
        "drop": drop,
        "sum_of_small_drops": total,
        "pairs": pairs,
        "by_share": by_share,
        "false_alarm_after_releases": {str(n): rate(e.refused(released)) for n, e in releases.items()},
        "small_drops": {
            "last": rate(refused[-1]),
            "by_the_last": rate(np.logical_or.reduce(refused)),
            "by_the_last_or_warned": rate(np.logical_or.reduce(seen)),
        },
    }


def split(released: Released, total: float) -> Released:
    return released.model_copy(update={name: round(total * part, 4) for name, part in SPLIT.items()})


def proposals(
    simulation: Simulation, released: Released, size: int, drop: float, total: float
) -> dict[str, Any]:
    """Tables of what other limits and other sizes would cost, and the choice that they lead to."""
    one, two = simulation.candidates(size, RUNS), simulation.after(2, size, RUNS)
    worse, falling = (
        simulation.candidates(size, RUNS, drop),
        simulation.declines(total / SMALL_LOSSES, size, FEWER),
    )
    alphas: Table = []
    for error in TOTALS:
        r = split(released, error)
        alphas.append(
            {
                **{name: getattr(r, name) for name in SPLIT},
                "false_alarm": rate(one.refused(r)),
                "false_alarm_two_releases": rate(two.refused(r)),
                "caught": rate(worse.refused(r)),
                "small_drops_caught": rate(np.any([e.refused(r) for e in falling], axis=0)),
            }
        )
    fit = [
        a for a in alphas if max(a["false_alarm"]["high"], a["false_alarm_two_releases"]["high"]) <= ALARMS
    ] or alphas[:1]
    chosen = released.model_copy(update={name: fit[-1][name] for name in SPLIT})

    margins: Table = []
    for lost in DROPS:
        if lost >= simulation.answers.scores.mean(axis=1).min():
            break
        falling = simulation.declines(lost / SMALL_LOSSES, size, FEWER)
        margins.append(
            {
                "drop": lost,
                "caught": rate(simulation.candidates(size, FEWER, lost).refused(chosen)),
                "small_drops_caught": rate(np.any([e.refused(chosen) for e in falling], axis=0)),
                "equal_warned": rate(one.low < -lost),
                "equal_warned_best": rate(two.low_best < -lost),
            }
        )
        if min(margins[-1]["caught"]["rate"], margins[-1]["small_drops_caught"]["rate"]) >= CAUGHT:
            break

    shares = SHARES if simulation.answers.binary else (None,)
    sizes: Table = []
    for examples in sorted({*SIZES, size}):
        caught = {
            str(s): rate(simulation.candidates(examples, FEWER, drop, s).refused(chosen)) for s in shares
        }
        sizes.append(
            {
                "examples": examples,
                "false_alarm": rate(simulation.candidates(examples, FEWER).refused(chosen)),
                "caught": caught,
            }
        )

    def first(rows: Table, name: str, value: Callable[[dict[str, Any]], float]) -> Any:
        return next((row[name] for row in rows if value(row) >= CAUGHT), None)

    choice = {
        **{name: getattr(chosen, name) for name in SPLIT},
        "margin": first(margins, "drop", lambda r: r["caught"]["rate"]),
        "best_margin": first(margins, "drop", lambda r: r["small_drops_caught"]["rate"]),
        "test_examples": first(sizes, "examples", lambda r: r["caught"]["None"]["rate"]),
    }
    return {"alphas": alphas, "margins": margins, "sizes": sizes, "proposal": choice}


def calibrate(
    answers: Answers, released: Released, drop: float | None = None, total: float | None = None
) -> dict[str, Any]:
    """All of it; `drop` and `total` are the contract's margins where not given."""
    drop, total = drop or released.margin, total or released.best_margin
    weakest = float(answers.scores.mean(axis=1).min())
    if weakest <= max(drop, total):
        raise UserError(
            f"{answers.names}: a model with a score of {weakest:.3f} has no {max(drop, total)} to lose; give models that work"
        )
    size, simulation = answers.scores.shape[1], Simulation(answers, released.slice_size)
    return stated(simulation, released, size, drop, total) | proposals(
        simulation, released, size, drop, total
    )
