"""Make candidates whose true quality is known from the answers of real models, and judge them by the gate.

Two models of equal quality: on each example a coin decides whether the outcomes of two real models change
places. Both then have the same true score. As many answers differ between them as between the real models,
on the same kind of examples. A model that is worse by a known amount: some of its right answers, drawn by
chance, are made wrong. Another test set of the same kind: examples are drawn with replacement.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from statsmodels.stats.proportion import proportion_confint

from slm.errors import UserError
from slm.files import read_jsonl
from slm.task.definition import Task
from slm.task.metrics import score_one
from slm.verdict.baseline import slices_of
from slm.verdict.contract import Released
from slm.verdict.statistics import bounds, chance, chance_of_drop

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What real models scored on one test set."""

    names: list[str]
    scores: Array  # model, example
    members: Array  # example, slice: 1 where the example belongs to the slice

    @property
    def binary(self) -> bool:
        return bool(np.isin(self.scores, (0.0, 1.0)).all())


def read_answers(task: Task, paths: list[Path]) -> Answers:
    tables = {path: [row for row in read_jsonl(path) if "answer" in row] for path in paths}
    first = tables[paths[0]]
    for path, rows in tables.items():
        if [(r["id"], r["prompt"], r["expected"]) for r in rows] != [
            (r["id"], r["prompt"], r["expected"]) for r in first
        ]:
            raise UserError(
                f"{path}: answers other examples than {paths[0]}; give models that answered the same test set"
            )
    scores = np.array(
        [[score_one(task, r["expected"], r["answer"])["score"] for r in rows] for rows in tables.values()]
    )
    groups: dict[str, list[int]] = defaultdict(list)
    for i, r in enumerate(first):
        for name in slices_of(task, r):
            groups[name].append(i)
    members = np.zeros((len(first), len(groups)))
    for column, indices in enumerate(groups.values()):
        members[indices, column] = 1
    names = [path.stem if len({p.stem for p in paths}) == len(paths) else str(path) for path in paths]
    return Answers(names, scores, members)


@dataclass(frozen=True)
class Draw:
    """Simulated comparisons, one a row: the examples drawn, and what each model scored on them."""

    index: NDArray[np.int64]
    candidate: Array
    released: Array
    best: Array


@dataclass(frozen=True)
class Evidence:
    """What the gate's rule looks at, for each simulated comparison; see
    `slm.verdict.baseline.judge_baseline`.
    """

    p: Array
    p_best: Array
    # the smallest, times the number of slices: Holm's first step, which decides whether any slice is refused
    p_slices: Array
    low: Array
    low_best: Array
    same: NDArray[np.bool_]  # the best release is the released one: one comparison, not two

    def refused(self, r: Released) -> NDArray[np.bool_]:
        whole = np.where(
            self.same, self.p <= r.alpha + r.best_alpha, (self.p <= r.alpha) | (self.p_best <= r.best_alpha)
        )
        return whole | (self.p_slices <= r.slice_alpha)

    def warned(self, r: Released) -> NDArray[np.bool_]:
        return (self.low < -r.margin) | (self.low_best < -r.best_margin) & ~self.same


def evidence(draw: Draw, members: Array, smallest: int) -> Evidence:
    change = draw.candidate - draw.released
    same = (draw.released == draw.best).all(axis=1)
    from_best = change if same.all() else draw.candidate - draw.best
    runs, examples = len(change), len(members)
    cell = np.arange(runs)[:, None] * examples + draw.index

    def by_slice(counted: NDArray[np.bool_]) -> Array:
        return np.bincount(cell[counted], minlength=runs * examples).reshape(runs, examples) @ members

    large = by_slice(np.ones(change.shape, bool)) >= smallest
    p_slices = np.where(large, chance(by_slice(change < 0), by_slice(change > 0)), 1.0)
    return Evidence(
        p=chance_of_drop(change),
        p_best=chance_of_drop(from_best),
        p_slices=p_slices.min(axis=1, initial=1.0) * large.sum(axis=1),
        low=bounds(change)[0],
        low_best=bounds(from_best)[0],
        same=same,
    )


def joined(parts: list[Evidence]) -> Evidence:
    return Evidence(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in Evidence.__dataclass_fields__)
    )


def _weights(differ: Array, share: float | None) -> Array:
    """Probability of each example to be drawn, so that `share` of the answers differ.

    Args:
        differ: probability that two models made here score differently on an example.
        share: None draws all examples alike.
    """
    if share is None:
        return np.full(len(differ), 1 / len(differ))
    some = differ > 0
    mass = share / differ[some].mean()
    return np.where(some, mass / some.sum(), (1 - mass) / (~some).sum())


def _share_before(scores: Array, drop: float, share: float) -> float:
    """The share of changed answers to start from: it is `share` once right answers were made wrong."""
    alike = scores[0] == scores[1]
    right = scores[0, alike].mean()

    def after(start: float) -> float:
        both = right * (1 - start)
        lost = drop / (both + start / 2)
        return start - lost * start / 2 + lost * both - share

    return float(brentq(after, 0, 1))


def _worse(scores: Array, true_score: float, drop: float, rng: np.random.Generator) -> Array:
    """Answers made wrong by chance, so that the expected score falls by exactly `drop`."""
    return scores * (rng.random(scores.shape, dtype=np.float32) >= drop / true_score)


def pair(
    scores: Array,
    size: int,
    runs: int,
    rng: np.random.Generator,
    drop: float = 0.0,
    share: float | None = None,
) -> Draw:
    """A candidate that is truly worse than the released model by `drop` (equal: 0); the released model is the
    best so far.

    Args:
        scores: of two real models.
        size: examples of the test set.
        share: of answers that differ in the end; None: as between the two real models, and those made wrong
            beside.
    """
    start = share if share is None or not drop else _share_before(scores, drop, share)
    weights = _weights((scores[0] != scores[1]).astype(float), start)
    index = rng.choice(scores.shape[1], (runs, size), p=weights)
    swapped = rng.integers(2, size=index.shape, dtype=np.int8)
    released, candidate = scores[swapped, index], scores[1 - swapped, index]
    if drop:
        candidate = _worse(candidate, float((scores.mean(0) * weights).sum()), drop, rng)
    return Draw(index, candidate, released, released)


def _models(
    scores: Array, number: int, size: int, runs: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], list[Array], float]:
    """Any number of equally good models: each takes the outcome of a real model, drawn anew on each example;
    their true score.

    As many answers differ between two of them as between two real models, on average.
    """
    models = len(scores)
    differ = sum((scores != scores[i]).sum(0) for i in range(models)) / models**2
    share = differ.mean() * models / (models - 1)
    weights = _weights(differ, share if share < differ[differ > 0].mean() else None)
    index = rng.choice(scores.shape[1], (runs, size), p=weights)
    made = [scores[rng.integers(models, size=index.shape, dtype=np.int8), index] for _ in range(number)]
    return index, made, float((scores.mean(0) * weights).sum())


def _best(best: Array, new: Array) -> Array:
    """As `slm.verdict.released` has it: a new release is the best so far if the lower end of its interval is
    above the other's score.
    """
    low, _ = proportion_confint(new.sum(1), new.shape[1], alpha=0.05, method="wilson")
    return np.where((low > best.mean(1))[:, None], new, best)


def history(scores: Array, releases: int, size: int, runs: int, rng: np.random.Generator) -> Draw:
    """A candidate as good as the `releases` before it. The best-scoring release is the best so far."""
    index, (first, *others), _ = _models(scores, releases + 1, size, runs, rng)
    best, released = first, first
    for released in others[:-1]:
        best = _best(best, released)
    return Draw(index, others[-1], released, best)


def decline(
    scores: Array, step: float, releases: int, size: int, runs: int, rng: np.random.Generator
) -> list[Draw]:
    """Releases that are each truly worse by `step` than the last, the gate being overruled each time."""
    index, (first, *others), true_score = _models(scores, releases + 1, size, runs, rng)
    best, released, whole, draws = first, first, np.ones(first.shape), []
    for i, model in enumerate(others):
        whole = _worse(whole, true_score - i * step, step, rng)
        draws.append(Draw(index, model * whole, released, best))
        best, released = _best(best, model * whole), model * whole
    return draws
