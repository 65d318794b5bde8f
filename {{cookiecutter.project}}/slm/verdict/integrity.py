"""Can the facts be trusted? The judged files must be those that ship, and reports must match their inputs. No
waiver lets these gates through.
"""

import math
from typing import Any

from slm.evaluation.ladder import build_ladder
from slm.files import Json
from slm.task.metrics import score_one, summarise
from slm.task.records import Prediction, Record, prediction
from slm.verdict.facts import Facts
from slm.verdict.registry import INTEGRITY
from slm.verdict.rows import Row


def judge_integrity(facts: Facts) -> list[Row]:
    """What is judged is what ships, on this test set, by this scorer. These gates cannot be switched off."""
    shipped, package = facts.shipped, facts.package
    header, predictions = facts.predictions[shipped][0], facts.predictions[shipped][1:]
    row: Json = next((r for r in facts.ladder["rungs"] if r["name"] == shipped), {})
    timed = facts.cost["rungs"].get(shipped, {}).get("folder_sha256")
    scores = [
        score_one(facts.task, p["expected"], p["answer"])["score"]
        for p in with_true_labels(predictions, facts.records)
    ]
    rescored = sum(scores) / len(scores) if scores else 0.0
    claimed = (facts.quality[shipped].get("score"), row.get("score"))
    asked = [p["id"] for p in predictions]

    def same(name: str, claim: Any, true: Any, why: str) -> Row:
        passed = claim == true and true is not None
        return INTEGRITY[name].row(passed, str(claim)[:12], str(true)[:12], why)

    return [
        same(
            *("bytes scored", header.get("folder_sha256"), package.folder_sha256),
            "the predictions come from the bytes in the package",
        ),
        same("bytes timed", timed, package.folder_sha256, "time and memory are of the bytes in the package"),
        same(
            *("weights", row.get("weights_sha256"), package.weights_sha256),
            "the ladder speaks of the weights in the package",
        ),
        same(
            *("test set", header.get("test_sha256"), facts.test_sha256),
            "the predictions answer the test set of this checkout",
        ),
        INTEGRITY["whole test set"].row(
            asked == facts.test_ids and bool(facts.test_ids),
            *(len(asked), len(facts.test_ids)),
            "every test example was asked, in order, and none beside",
        ),
        INTEGRITY["score"].row(
            all(isinstance(c, float) and math.isclose(c, rescored, abs_tol=1e-9) for c in claimed),
            *(claimed[1], rescored),
            "scoring the predictions again gives the score that is claimed",
        ),
    ]


def judge_claims(facts: Facts) -> list[Row]:
    """Whether the reports follow from what they were made from, and the package's documents speak of its
    files.
    """
    wrong, documents = wrong_figures(facts), facts.package.wrong_documents
    figures = "ladder and quality reports follow from predictions and cost"
    if wrong:
        figures = f"not what their sources give: {', '.join(wrong[:4])}"
    return [
        INTEGRITY["figures"].row(not wrong, len(wrong), 0, figures),
        INTEGRITY["documents"].row(
            documents is None, None, None, documents or "checksums and bill of materials are of this package"
        ),
    ]


def alike(one: Any, other: Any) -> bool:
    """Equal except for the last digits of a number, which two machines may round differently."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(v, other[k]) for k, v in one.items())
    if type(one) is float and type(other) in (float, int):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return type(one) is type(other) and one == other


def with_true_labels(predictions: list[Prediction], records: list[Record]) -> list[Prediction]:
    """Predictions with request, answer and tags of the test set in place of those that their file claims."""
    known = {r.id: r for r in records}
    return [prediction(known[p["id"]], p["answer"], p["cut"]) if p["id"] in known else p for p in predictions]


def wrong_figures(facts: Facts) -> list[str]:
    """Figures of the ladder, and of the quality reports below it, that their own sources do not give."""
    ladder, wrong = facts.ladder, []
    for rung in ladder["rungs"]:
        name = rung["name"]
        claimed = f"reports/quality/{name}.json"
        rows = with_true_labels(facts.predictions.get(name, [])[1:], facts.records)
        if not rows or name not in facts.quality:
            wrong.append(f"{claimed if rows else f'predictions/{name}.jsonl'} is missing or empty")
            continue
        true = summarise(facts.task, rows)
        claims = facts.quality[name]
        wrong += [f"{claimed}: {key}" for key, value in true.items() if not alike(value, claims.get(key))]
    if wrong:
        return wrong
    parameters = {r["name"]: r.get("parameters_m") for r in ladder["rungs"]}
    try:
        made = build_ladder(facts.quality, facts.cost, ladder["task"], ladder["profile"], parameters)
    except KeyError as error:
        return [f"the ladder cannot be made again: {error}"]
    for claim, true in zip(ladder["rungs"], made["rungs"], strict=False):
        wrong += [f"{true['name']}.{key}" for key in true if not alike(true[key], claim.get(key))]
    return wrong
