"""Scores: small pure functions. What an answer is worth is decided here and nowhere else.

An answer has the figures of its kind, each in [0, 1]. `score` of task.yaml says which of them is the score,
the first unless it names another. Beside them stand figures of all answers together.

kind json
    exact_match after canonicalisation; field_f1, F1 over the fields of one answer. In the summary,
    field_f1 is micro F1 over the fields of all answers.
kind label
    exact_match of the label. Beside it: macro and per-class F1 (scikit-learn).
kind text
    rouge_l (rouge-score); chrf of letters (sacrebleu). Beside them: BLEU (sacrebleu); pipeline/evaluate.py
    asks checkpoints for their perplexity.
kind answer
    token_f1 and exact_match as SQuAD has them: without letter case, punctuation and articles (torchmetrics;
    arXiv 1606.05250).
kind reasoning
    exact_match of the final answer, which follows the last "Answer:"; numbers are compared as numbers, as
    GSM8K does (arXiv 2110.14168).

An answer is valid if its caller can read it: by the schema, one of the labels, some text, a final answer.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

from statsmodels.stats.proportion import proportion_confint

from slm.task.answers import NOTHING, canonical, class_of, fields, final_answer, parse, same_value, valid
from slm.task.definition import SCORES, Task


def _json(expected: str, answer: str) -> dict[str, Any]:
    want, got = parse(expected), parse(answer)
    wanted, have = (fields(canonical(v)) if v is not NOTHING else set() for v in (want, got))
    hits = len(wanted & have)
    exact = float(NOTHING not in (want, got) and canonical(got) == canonical(want))
    some = len(wanted) + len(have)
    counts = {"hits": hits, "wrong": len(have) - hits, "missed": len(wanted) - hits}
    return {"exact_match": exact, "field_f1": 2 * hits / some if some else exact, **counts}


def _label(expected: str, answer: str) -> dict[str, Any]:
    return {"exact_match": float(answer.strip().casefold() == expected.strip().casefold())}


@cache
def _rouge_l() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


def _text(expected: str, answer: str) -> dict[str, Any]:
    import sacrebleu

    rouge_l = _rouge_l().score(expected, answer)["rougeL"].fmeasure
    return {"rouge_l": rouge_l, "chrf": min(1.0, sacrebleu.sentence_chrf(answer, [expected]).score / 100)}


def _answer(expected: str, answer: str) -> dict[str, Any]:
    from torchmetrics.functional.text import squad

    target: Any = {"id": "", "answers": {"text": [expected], "answer_start": [0]}}
    found = squad({"id": "", "prediction_text": answer}, target)
    return {"token_f1": float(found["f1"]) / 100, "exact_match": float(found["exact_match"]) / 100}


def _reasoning(expected: str, answer: str) -> dict[str, Any]:
    want, got = final_answer(expected), final_answer(answer)
    return {"exact_match": float(want is not None and got is not None and same_value(want, got))}


METRICS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "json": _json,
    "label": _label,
    "text": _text,
    "answer": _answer,
    "reasoning": _reasoning,
}


def score_one(task: Task, expected: str, answer: str) -> dict[str, Any]:
    """score in [0, 1]; valid; the figures of the kind; and for JSON the counts of right, wrong and missed
    fields.
    """
    figures = METRICS[task.kind](expected, answer)
    return {"valid": valid(task, answer), "score": figures[task.score], **figures}


def interval(values: list[float]) -> tuple[float, float]:
    """95% interval of a mean of scores in [0, 1]: Wilson's (statsmodels); exact for 0/1 scores, wide for
    others.
    """
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
    beside = [name for name in SCORES[task.kind] if name not in (task.score, "field_f1")]
    facts |= {name: sum(r[name] for r in rows) / len(rows) for name in beside}
    if task.kind == "json":
        hits, wrong, missed = (sum(r[k] for r in rows) for k in ("hits", "wrong", "missed"))
        facts["field_f1"] = 2 * hits / max(1, 2 * hits + wrong + missed)
    if task.kind == "text":
        import sacrebleu

        facts["bleu"] = (
            sacrebleu.corpus_bleu(
                [p["answer"] for p in predictions], [[p["expected"] for p in predictions]]
            ).score
            / 100
        )
    per_class = class_f1(task, predictions)
    if per_class:
        facts["class_f1"] = per_class
        facts["macro_f1"] = sum(per_class.values()) / len(per_class)
    return facts


def _slices(
    task: Task, predictions: list[dict[str, Any]], scores: list[float]
) -> dict[str, dict[str, float]]:
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

    expected = [name for p in predictions if (name := class_of(task, p["expected"])) is not None]
    if not expected:
        return {}
    answered = [class_of(task, p["answer"]) for p in predictions]
    names = sorted(set(expected))
    values = f1_score(expected, answered, labels=names, average=None, zero_division=0)
    return dict(zip(names, map(float, values), strict=True))
