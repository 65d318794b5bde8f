"""Statistics of the verdict, by scipy and statsmodels. docs/verdict-method.md says why these were chosen."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, bootstrap, norm
from statsmodels.stats.multitest import multipletests

CONFIDENCE = 0.95  # of each one-sided bound


def chance(losses: ArrayLike, wins: ArrayLike) -> NDArray[np.float64]:
    """One-sided exact McNemar test: how often chance alone splits so many changed answers at least as
    unfavourably.
    """
    losses, wins = np.asarray(losses), np.asarray(wins)
    return binom.sf(losses - 1, losses + wins, 0.5)


def chance_of_drop(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """p of "no worse than before", over the last axis: exact for scores of 0 and 1, else by the normal
    distribution.
    """
    if (difference == np.rint(difference)).all():
        return chance((difference < 0).sum(-1), (difference > 0).sum(-1))
    mean, error = _moments(difference)
    return norm.cdf(mean / error)


def bounds(difference: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One-sided 95% bounds of the mean difference, lower and upper, over the last axis."""
    mean, error = _moments(difference)
    reach = norm.ppf(CONFIDENCE) * error
    return np.clip(mean - reach, -1, 1), np.clip(mean + reach, -1, 1)


def _moments(difference: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard error, with two made-up examples added. One of them changed: half won, half lost
    (Agresti and Min 2005).

    They keep the interval honest where few answers changed. Without them, an interval without any change
    would have no width.
    """
    n = difference.shape[-1] + 2
    total, squares = difference.sum(-1), np.square(difference).sum(-1) + 1
    return total / n, np.sqrt(squares - total**2 / n) / n


def paired(before: list[float], after: list[float], alpha: float) -> dict[str, float]:
    """Two models on the same examples.

    `low` and `high` are the one-sided 95% bounds of the mean difference, `p` is that of "no worse". `flipped`
    is the share of examples whose score changed; `detectable` the true drop that so many examples with so
    many flips show nine times in ten at the error rate `alpha`.
    """
    difference = np.array(after) - np.array(before)
    low, high = bounds(difference)
    flipped = float((difference != 0).mean())
    spread = np.sqrt(max(flipped, 1 / len(difference)) / len(difference))
    return {
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "p": float(chance_of_drop(difference)),
        "losses": int((difference < 0).sum()),
        "wins": int((difference > 0).sum()),
        "flipped": flipped,
        "detectable": min(1.0, float((norm.ppf(1 - alpha) + norm.ppf(0.90)) * spread)),
    }


def ratio_interval(mine: list[list[float]], other: list[list[float]], share: float) -> tuple[float, float]:
    """95% bootstrap interval of the ratio of two quantiles. Prompts are drawn, each with all its rounds:
    these are hardly independent.

    Args:
        mine, other: ms, by round and prompt.
        share: of the quantile, 0.5 for medians.
    """
    one, two = np.array(mine), np.array(other)

    def ratio(prompts: NDArray[np.int64]) -> float:
        return float(np.quantile(one[:, prompts], share) / np.quantile(two[:, prompts], share))

    found = bootstrap(
        (np.arange(one.shape[1]),), ratio, vectorized=False, n_resamples=1000, method="percentile", rng=0
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def slices_worse(
    groups: dict[str, tuple[list[float], list[float]]], smallest: int, alpha: float
) -> list[dict[str, Any]]:
    """Slices that got worse: one-sided exact McNemar in each of at least `smallest` examples, Holm over all
    of them.

    Args:
        groups: slice -> (scores before, scores after) on the same examples.
    """
    rows = []
    for name, (before, after) in groups.items():
        if len(before) < smallest:
            continue
        losses = sum(b > a for b, a in zip(before, after, strict=True))
        wins = sum(a > b for b, a in zip(before, after, strict=True))
        rows.append(
            {
                "slice": name,
                "n": len(before),
                "losses": losses,
                "wins": wins,
                "p": float(chance(losses, wins)),
            }
        )
    if not rows:
        return []
    rejected = multipletests([r["p"] for r in rows], alpha=alpha, method="holm")[0]
    return [row for row, no in zip(rows, rejected, strict=True) if no]
