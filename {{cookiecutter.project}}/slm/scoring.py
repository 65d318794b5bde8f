"""Scores: small pure functions. What an answer is worth is decided here and nowhere else.

kind json   exact match after canonicalisation, micro F1 over fields, share of answers valid by the task's schema
kind label  exact match of the label, macro and per-class F1
kind text   ROUGE-L (rouge-score) as the score, BLEU (sacrebleu) beside it; perplexity is asked of checkpoints in pipeline/evaluate.py
"""

import json
from collections import defaultdict
from typing import Any

from statsmodels.stats.proportion import proportion_confint

from slm.task import Task

NOTHING = object()  # an answer that cannot be read


def parse(answer: str) -> Any:
    try:
        return json.loads(answer)
    except (json.JSONDecodeError, RecursionError):
        return NOTHING


def canonical(value: Any) -> Any:
    """Equal answers become equal values: key order, letter case, outer blanks and 21 against 21.0 do not matter."""
    if isinstance(value, dict):
        return {str(k).strip().casefold(): canonical(v) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [canonical(v) for v in value]
    if isinstance(value, str):
        return value.strip().casefold()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return ("bool", value) if isinstance(value, bool) else value  # True is not 1


def fields(value: Any, path: str = "") -> set[tuple[str, str]]:
    """Leaves of a canonical answer as (path, value)."""
    if isinstance(value, dict):
        return {leaf for k, v in value.items() for leaf in fields(v, f"{path}.{k}")}
    if isinstance(value, list):
        return {leaf for v in value for leaf in fields(v, f"{path}[]")}
    return {(path, json.dumps(value, sort_keys=True))}


def valid(task: Task, answer: str) -> bool:
    if task.kind == "json":
        if answer not in task.known_answers:
            value = parse(answer)
            task.known_answers[answer] = value is not NOTHING and task.validator.is_valid(value)
        return task.known_answers[answer]
    if task.kind == "label":
        return answer.strip().casefold() in {label.casefold() for label in task.labels}
    return bool(answer.strip())


def class_of(task: Task, answer: str) -> str | None:
    """The class of an answer, for the confusion table; None where the task has none."""
    if task.kind == "label":
        return answer.strip().casefold() if valid(task, answer) else "(invalid)"
    if task.kind != "json" or task.class_field is None:
        return None
    value = parse(answer)
    name = value.get(task.class_field) if isinstance(value, dict) else None
    return name if isinstance(name, str) else "(invalid)"


def score_one(task: Task, expected: str, answer: str) -> dict[str, Any]:
    """score in [0, 1]; valid; and for JSON the counts of right, wrong and missed fields."""
    row: dict[str, Any] = {"valid": valid(task, answer)}
    if task.kind == "json":
        want, got = parse(expected), parse(answer)
        wanted, have = (fields(canonical(v)) if v is not NOTHING else set() for v in (want, got))
        hits = len(wanted & have)
        row |= {"score": float(NOTHING not in (want, got) and canonical(got) == canonical(want))}
        row |= {"hits": hits, "wrong": len(have) - hits, "missed": len(wanted) - hits}
    elif task.kind == "label":
        row["score"] = float(answer.strip().casefold() == expected.strip().casefold())
    else:
        from rouge_score.rouge_scorer import RougeScorer

        row["score"] = RougeScorer(["rougeL"]).score(expected, answer)["rougeL"].fmeasure
    return row


def interval(values: list[float]) -> tuple[float, float]:
    """95% interval of a mean of scores in [0, 1]: Wilson's (statsmodels); exact for 0/1 scores, wide for others."""
    low, high = proportion_confint(sum(values), len(values), alpha=0.05, method="wilson")
    return float(low), float(high)


def summarise(task: Task, predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """Facts of one rung from its predictions (rows with expected, answer, tags)."""
    rows = [score_one(task, p["expected"], p["answer"]) for p in predictions]
    scores = [r["score"] for r in rows]
    low, high = interval(scores)
    facts: dict[str, Any] = {
        "n": len(rows),
        "score": sum(scores) / len(rows),
        "score_low": low,
        "score_high": high,
        "valid_rate": sum(r["valid"] for r in rows) / len(rows),
        "field_f1": None,
        "slices": _slices(task, predictions, scores),
    }
    if task.kind == "json":
        hits, wrong, missed = (sum(r[k] for r in rows) for k in ("hits", "wrong", "missed"))
        facts["field_f1"] = 2 * hits / max(1, 2 * hits + wrong + missed)
    if task.kind == "text":
        import sacrebleu

        facts["bleu"] = sacrebleu.corpus_bleu([p["answer"] for p in predictions], [[p["expected"] for p in predictions]]).score / 100
    per_class = class_f1(task, predictions)
    if per_class:
        facts["class_f1"] = per_class
        facts["macro_f1"] = sum(per_class.values()) / len(per_class)
    return facts


def _slices(task: Task, predictions: list[dict[str, Any]], scores: list[float]) -> dict[str, dict[str, float]]:
    """Score by tag and by expected class, each with its number of examples."""
    groups: dict[str, list[float]] = defaultdict(list)
    for prediction, score in zip(predictions, scores, strict=True):
        for tag in prediction["tags"]:
            groups[f"tag:{tag}"].append(score)
        name = class_of(task, prediction["expected"])
        if name is not None:
            groups[f"class:{name}"].append(score)
    return {name: {"n": len(v), "score": sum(v) / len(v)} for name, v in sorted(groups.items())}


def class_f1(task: Task, predictions: list[dict[str, Any]]) -> dict[str, float]:
    from sklearn.metrics import f1_score

    expected = [class_of(task, p["expected"]) for p in predictions]
    if not expected or expected[0] is None:
        return {}
    answered = [class_of(task, p["answer"]) for p in predictions]
    names = sorted(set(expected))
    values = f1_score(expected, answered, labels=names, average=None, zero_division=0)
    return dict(zip(names, map(float, values), strict=True))
