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
                f"{', '.join(answers.names)}: give at least two models that answer differently, for example "
                "two seeds"
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


def calibrate(answers: Answers, released: Released) -> dict[str, Any]:
    """What the limits of a contract cost with these models and this test set, and limits to match.

    A worse candidate has lost the contract's `margin`; three releases that add up, its `best_margin`
    together.
    """
    weakest, most = float(answers.scores.mean(axis=1).min()), max(released.margin, released.best_margin)
    if weakest <= most:
        raise UserError(
            f"{answers.names}: a model with a score of {weakest:.3f} cannot lose {most}; give models that "
            "work"
        )
    size, simulation = answers.scores.shape[1], Simulation(answers, released.slice_size)
    return stated(simulation, released, size) | proposals(simulation, released, size)


def stated(simulation: Simulation, released: Released, size: int) -> dict[str, Any]:
    """Rates at the limits of the contract."""
    drop, total = released.margin, released.best_margin
    equal, worse = simulation.by_pair(size, RUNS), simulation.by_pair(size, RUNS, drop)
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
    for share in shares_of(simulation):
        if share is None:
            same, less = joined(list(equal.values())), joined(list(worse.values()))
        else:
            same = simulation.candidates(size, RUNS, 0.0, share)
            less = simulation.candidates(size, RUNS, drop, share)
        by_share.append({"share": share} | rates_of(same, less, released))
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


def shares_of(simulation: Simulation) -> tuple[float | None, ...]:
    """Shares of answers that differ, to be tried; scores that can be partly right are taken as they were
    observed.
    """
    return SHARES if simulation.answers.binary else (None,)


def rates_of(same: Evidence, less: Evidence, released: Released) -> dict[str, dict[str, float]]:
    """How often equal candidates are refused or warned of, and worse ones caught."""
    return {
        "false_alarm": rate(same.refused(released)),
        "warned": rate(same.warned(released)),
        "caught": rate(less.refused(released)),
        "caught_or_warned": rate(less.refused(released) | less.warned(released)),
    }


def proposals(simulation: Simulation, released: Released, size: int) -> dict[str, Any]:
    """Tables of what other limits and other sizes would cost, and the choice that they lead to."""
    one, two = simulation.candidates(size, RUNS), simulation.after(2, size, RUNS)
    alphas = try_error_rates(simulation, released, size, one, two)
    fit = [
        a for a in alphas if max(a["false_alarm"]["high"], a["false_alarm_two_releases"]["high"]) <= ALARMS
    ]
    best = (fit or alphas[:1])[-1]
    chosen = released.model_copy(update={name: best[name] for name in SPLIT})
    margins = try_margins(simulation, chosen, size, one, two)
    sizes = try_sizes(simulation, chosen, size)

    def first(rows: Table, name: str, value: Callable[[dict[str, Any]], float]) -> Any:
        return next((row[name] for row in rows if value(row) >= CAUGHT), None)

    choice = {
        **{name: getattr(chosen, name) for name in SPLIT},
        "margin": first(margins, "drop", lambda r: r["caught"]["rate"]),
        "best_margin": first(margins, "drop", lambda r: r["small_drops_caught"]["rate"]),
        "test_examples": first(sizes, "examples", lambda r: r["caught"]["None"]["rate"]),
    }
    return {"alphas": alphas, "margins": margins, "sizes": sizes, "proposal": choice}


def try_error_rates(
    simulation: Simulation, released: Released, size: int, one: Evidence, two: Evidence
) -> Table:
    """What other error rates cost; `one` and `two` are equal candidates after no release, and after two."""
    worse = simulation.candidates(size, RUNS, released.margin)
    falling = simulation.declines(released.best_margin / SMALL_LOSSES, size, FEWER)
    rows: Table = []
    for error in TOTALS:
        parts = {name: round(error * part, 4) for name, part in SPLIT.items()}
        limits = released.model_copy(update=parts)
        rows.append(
            {
                **parts,
                "false_alarm": rate(one.refused(limits)),
                "false_alarm_two_releases": rate(two.refused(limits)),
                "caught": rate(worse.refused(limits)),
                "small_drops_caught": rate(np.any([e.refused(limits) for e in falling], axis=0)),
            }
        )
    return rows


def try_margins(simulation: Simulation, chosen: Released, size: int, one: Evidence, two: Evidence) -> Table:
    """Which losses this test set guards against, from small to large, until they are caught often enough."""
    rows: Table = []
    for lost in DROPS:
        if lost >= simulation.answers.scores.mean(axis=1).min():
            break
        falling = simulation.declines(lost / SMALL_LOSSES, size, FEWER)
        rows.append(
            {
                "drop": lost,
                "caught": rate(simulation.candidates(size, FEWER, lost).refused(chosen)),
                "small_drops_caught": rate(np.any([e.refused(chosen) for e in falling], axis=0)),
                "equal_warned": rate(one.low < -lost),
                "equal_warned_best": rate(two.low_best < -lost),
            }
        )
        if min(rows[-1]["caught"]["rate"], rows[-1]["small_drops_caught"]["rate"]) >= CAUGHT:
            break
    return rows


def try_sizes(simulation: Simulation, chosen: Released, size: int) -> Table:
    """What another number of test examples would give."""
    rows: Table = []
    for examples in sorted({*SIZES, size}):
        caught = {
            str(share): rate(simulation.candidates(examples, FEWER, chosen.margin, share).refused(chosen))
            for share in shares_of(simulation)
        }
        equal = rate(simulation.candidates(examples, FEWER).refused(chosen))
        rows.append({"examples": examples, "false_alarm": equal, "caught": caught})
    return rows
