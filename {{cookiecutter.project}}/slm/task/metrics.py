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

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import regex
from statsmodels.stats.proportion import proportion_confint

from slm.task.answers import (
    NOTHING,
    canonical,
    class_of,
    count_equal_fields,
    count_fields,
    final_answer,
    parse,
    same_value,
    valid,
)
from slm.task.definition import SCORES, Task
from slm.task.text import folded, nfc, scored_units, script_of, script_parts


def _json(task: Task, expected: str, answer: str) -> dict[str, Any]:
    """An answer that the schema does not allow is worth nothing, since its caller cannot use it."""
    want, got = (canonical(v, task.cased) if v is not NOTHING else v for v in map(parse, (expected, answer)))
    wanted, have = (count_fields(v) if v is not NOTHING else 0 for v in (want, got))
    usable = NOTHING not in (want, got) and valid(task, answer)
    hits = count_equal_fields(want, got) if usable else 0
    counts = {"hits": hits, "wrong": have - hits, "missed": wanted - hits}
    return {
        "exact_match": float(usable and got == want),
        "field_f1": 2 * hits / max(1, wanted + have),
        **counts,
    }


def _label(task: Task, expected: str, answer: str) -> dict[str, Any]:
    return {"exact_match": float(nfc(answer).strip() == nfc(expected).strip())}


class UnicodeTokenizer:
    """Words for ROUGE in every script; the library's own knows ASCII letters alone."""

    def tokenize(self, text: str) -> list[str]:
        return scored_units(text)


@cache
def _rouge_l() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=UnicodeTokenizer())


def _text(task: Task, expected: str, answer: str) -> dict[str, Any]:
    import sacrebleu

    want, got = nfc(expected), nfc(answer)
    rouge_l = _rouge_l().score(want, got)["rougeL"].fmeasure
    return {"rouge_l": rouge_l, "chrf": min(1.0, sacrebleu.sentence_chrf(got, [want]).score / 100)}


def _answer(task: Task, expected: str, answer: str) -> dict[str, Any]:
    want, got = squad_words(expected), squad_words(answer)
    hits, some = (Counter(want) & Counter(got)).total(), len(want) + len(got)
    alike = " ".join(want) == " ".join(got)
    return {"token_f1": 2 * hits / some if want and got else float(alike), "exact_match": float(alike)}


def squad_words(text: str) -> list[str]:
    """The words by which SQuAD compares answers: without letter case, punctuation and English articles (arXiv
    1606.05250); Chinese and Japanese by characters, other scripts without blanks by words, as MLQA does
    (arXiv 1910.07475).
    """
    plain = regex.sub(r"[\p{P}\p{Cf}$+<=>^`|~]", "", folded(text))
    plain = regex.sub(r"\b(a|an|the)\b", " ", plain)
    return [part for word in plain.split() for part in script_parts(word)]


def bleu_tokenizer(texts: list[str]) -> str:
    """The tokenizer of sacreBLEU for the script of these texts: its default is for European ones."""
    counts = Counter(script_of(text) for text in texts)
    return {"chinese": "zh", "unspaced": "char", "latin": "13a"}.get(counts.most_common(1)[0][0], "intl")


def _reasoning(task: Task, expected: str, answer: str) -> dict[str, Any]:
    want, got = final_answer(expected), final_answer(answer)
    return {"exact_match": float(want is not None and got is not None and same_value(want, got))}


METRICS: dict[str, Callable[[Task, str, str], dict[str, Any]]] = {
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
    figures = METRICS[task.kind](task, expected, answer)
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

        want, got = ([nfc(p[name]) for p in predictions] for name in ("expected", "answer"))
        # Answers may be shorter than the four words that BLEU counts.
        found = sacrebleu.corpus_bleu(got, [want], tokenize=bleu_tokenizer(want), use_effective_order=True)
        facts["bleu"] = min(1.0, found.score / 100)
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
