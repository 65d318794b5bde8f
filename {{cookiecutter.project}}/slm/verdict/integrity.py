"""Can the facts be relied on? What is judged is what ships, and reports follow from what they were made from.
No waiver lets these through.
"""

import math
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.evaluation.ladder import build
from slm.export.packaging import checksums
from slm.files import read_json, read_jsonl, sha256_file
from slm.task.definition import Task
from slm.task.metrics import summarise
from slm.task.records import Record, prediction
from slm.verdict.rows import Row, row

REPORTS, PREDICTIONS = Path("reports"), Path("predictions")


def judge_integrity(facts: dict[str, Any]) -> list[Row]:
    """What is judged is what ships, on this test set, by this scorer. These gates cannot be switched off.

    Args:
        facts: `header` (of the predictions), `quality`, `ladder_row`, `package_folder_sha256`,
            `package_weights_sha256`,
            `cost_folder_sha256`, `test_sha256`, `test_ids`, `answered_ids`, `rescored`; see `judge`.
    """
    header, quality, ladder = facts["header"], facts["quality"], facts["ladder_row"]

    def same(name: str, claimed: Any, true: Any, why: str) -> Row:
        return row(
            name, "block", claimed == true and true is not None, str(claimed)[:12], str(true)[:12], why
        )

    bytes_scored = same(
        "bytes scored",
        header.get("folder_sha256"),
        facts["package_folder_sha256"],
        "the predictions come from the bytes in the package",
    )
    bytes_timed = same(
        "bytes timed",
        facts["cost_folder_sha256"],
        facts["package_folder_sha256"],
        "time and memory are of the bytes in the package",
    )
    weights = same(
        "weights",
        ladder.get("weights_sha256"),
        facts["package_weights_sha256"],
        "the ladder speaks of the weights in the package",
    )
    test = same(
        "test set",
        header.get("test_sha256"),
        facts["test_sha256"],
        "the predictions answer the test set of this checkout",
    )
    size = row(
        "whole test set",
        "block",
        facts["answered_ids"] == facts["test_ids"] and bool(facts["test_ids"]),
        len(facts["answered_ids"]),
        len(facts["test_ids"]),
        "every test example was asked, in order, and none beside",
    )
    claimed = (quality.get("score"), ladder.get("score"))
    rescored = facts["rescored"]
    score = row(
        "score",
        "block",
        all(isinstance(c, float) and math.isclose(c, rescored, abs_tol=1e-9) for c in claimed),
        claimed[1],
        rescored,
        "scoring the predictions again gives the score that is claimed",
    )
    rows = [bytes_scored, bytes_timed, weights, test, size, score]
    for r in rows:
        r["name"] = f"integrity: {r['name']}"
    return rows


def judge_claims(task: Task, ladder: Row, records: list[Record], package: Path) -> list[Row]:
    """Two integrity gates more. `package` is the folder that holds the model and its papers."""
    wrong, papers = wrong_figures(task, ladder, REPORTS, PREDICTIONS, records), wrong_papers(package)
    figures = (
        f"not what their sources give: {', '.join(wrong[:4])}"
        if wrong
        else "ladder and quality reports follow from predictions and cost"
    )
    return [
        row("integrity: figures", "block", not wrong, len(wrong), 0, figures),
        row(
            "integrity: papers",
            "block",
            papers is None,
            None,
            None,
            papers or "checksums and bill of materials are of this package",
        ),
    ]


def alike(one: Any, other: Any) -> bool:
    """Equal, but for the last digits of a number: two machines may round them differently."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(v, other[k]) for k, v in one.items())
    if type(one) is float and type(other) in (float, int):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return type(one) is type(other) and one == other


def with_true_labels(predictions: list[Row], records: list[Record]) -> list[Row]:
    """Predictions with the request, answer and tags of the test set in place of those that their file claims."""
    known = {r.id: r for r in records}
    return [prediction(known[p["id"]], p["answer"], p["cut"]) if p["id"] in known else p for p in predictions]


def wrong_figures(
    task: Task, ladder: Row, reports: Path, predictions: Path, records: list[Record]
) -> list[str]:
    """Figures of the ladder, and of the quality reports below it, that their own sources do not give."""
    wrong = []
    for rung in ladder["rungs"]:
        name = rung["name"]
        path, claimed = predictions / f"{name}.jsonl", reports / "quality" / f"{name}.json"
        rows = with_true_labels(read_jsonl(path)[1:], records) if path.exists() else []
        if not rows or not claimed.exists():
            wrong.append(f"{path if not rows else claimed} is missing or empty")
            continue
        quality = read_json(claimed)
        wrong += [
            f"{claimed}: {key}"
            for key, value in summarise(task, rows).items()
            if not alike(value, quality.get(key))
        ]
    if wrong:
        return wrong
    try:
        made = build(
            reports,
            ladder["task"],
            ladder["profile"],
            {r["name"]: r.get("parameters_m") for r in ladder["rungs"]},
        )
    except (KeyError, UserError) as error:
        return [f"the ladder cannot be made again: {error}"]
    for claim, true in zip(ladder["rungs"], made["rungs"], strict=False):
        wrong += [f"{true['name']}.{key}" for key in true if not alike(true[key], claim.get(key))]
    return wrong


def wrong_papers(package: Path) -> str | None:
    """What is wrong with the papers of a package; None if every file is there and is the one that SHA256SUMS
    names.
    """
    for name in ("README.md", "sbom.cdx.json", "SHA256SUMS"):
        if not (package / name).exists():
            return f"{name} is missing"
    if (package / "SHA256SUMS").read_text(encoding="utf-8") != checksums(package):
        return "SHA256SUMS does not name these files"
    model = package / "model"
    files = {p.relative_to(model).as_posix(): sha256_file(p) for p in model.rglob("*") if p.is_file()}
    try:
        parts = read_json(package / "sbom.cdx.json")["components"]
        named = {c["name"]: c["hashes"][0]["content"] for c in parts if c["type"] == "file"}
    except (ValueError, KeyError, IndexError, TypeError):
        return "sbom.cdx.json cannot be read"
    return None if named == files else "sbom.cdx.json names other files than those in model/"
