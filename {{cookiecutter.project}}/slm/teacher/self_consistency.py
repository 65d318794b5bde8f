"""Choose among several answers to one request the one that most others agree with, and measure the agreement
(self-consistency, Wang et al., arXiv 2203.11171).
"""

from slm.task.definition import Task
from slm.task.metrics import score_one


def agreed(task: Task, texts: list[str | None]) -> tuple[int, float]:
    """Which answer to keep, and the share of agreement on it, in [0, 1]; the first of equals.

    text: the answer nearest to the others; its mean score to them, as the task scores.
    other kinds: the answer given most often, by the task's own comparison; its share of all that were asked
    for.

    Args:
        texts: at least two; None where there is no answer, which agrees with nothing.
    """
    shares = []
    for i, mine in enumerate(texts):
        others = [other for j, other in enumerate(texts) if j != i and other is not None]
        alike = [score_one(task, mine, other)["score"] for other in others if mine is not None]
        if task.kind == "text":
            shares.append(sum(alike) / (len(texts) - 1))
        else:
            shares.append(0.0 if mine is None else (1 + alike.count(1.0)) / len(texts))
    best = max(range(len(texts)), key=lambda i: (shares[i], texts[i] is not None))
    return best, shares[best]
