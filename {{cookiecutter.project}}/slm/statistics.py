"""Statistics of the verdict, by scipy and statsmodels."""

from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap, norm
from statsmodels.stats.multitest import multipletests


def paired(before: list[float], after: list[float]) -> dict[str, float]:
    """Mean difference of two models on the same examples, with its 90% bootstrap interval.

    The lower end is the one-sided 95% bound that non-inferiority is judged by (CONSORT's non-inferiority extension,
    JAMA 2012;308:2594). `flipped` is the share of examples whose score changed; `detectable` the smallest true drop that so many
    examples with so many flips show with 80% power.
    """
    difference = np.array(after) - np.array(before)
    low = high = float(difference.mean())
    if difference.any():
        interval = bootstrap(
            (difference,), np.mean, confidence_level=0.90, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    flipped = float((difference != 0).mean())
    detectable = float((norm.ppf(0.95) + norm.ppf(0.80)) * np.sqrt(max(flipped, 1 / len(difference)) / len(difference)))
    return {"difference": float(difference.mean()), "low": low, "high": high, "flipped": flipped, "detectable": detectable}


def slices_worse(groups: dict[str, tuple[list[float], list[float]]], smallest: int, alpha: float) -> list[dict[str, Any]]:
    """Slices that got worse: one-sided exact McNemar in each of at least `smallest` examples, Holm over all of them.

    Args:
        groups: slice -> (scores before, scores after) on the same examples.
    """
    rows = []
    for name, (before, after) in groups.items():
        if len(before) < smallest:
            continue
        losses = sum(b > a for b, a in zip(before, after, strict=True))
        wins = sum(a > b for b, a in zip(before, after, strict=True))
        p = binomtest(losses, losses + wins, 0.5, alternative="greater").pvalue if losses + wins else 1.0
        rows.append({"slice": name, "n": len(before), "losses": losses, "wins": wins, "p": float(p)})
    if not rows:
        return []
    rejected = multipletests([r["p"] for r in rows], alpha=alpha, method="holm")[0]
    return [row for row, no in zip(rows, rejected, strict=True) if no]
