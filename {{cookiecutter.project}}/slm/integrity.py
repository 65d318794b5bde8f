"""Can the facts be relied on? Is what is judged what ships, which no waiver lets through; did the machine measure the same twice; and
may the model be made from this base model and these data.
"""

import math
from typing import Any

from slm.contract import Contract
from slm.evaluation.cost import SPREAD, spread
from slm.task.records import TASK
from slm.verdict import Row, row


def judge_integrity(facts: dict[str, Any]) -> list[Row]:
    """What is judged is what ships, on this test set, by this scorer. These gates cannot be switched off.

    Args:
        facts: `header` (of the predictions), `quality`, `ladder_row`, `package_folder_sha256`, `package_weights_sha256`,
            `cost_folder_sha256`, `test_sha256`, `test_ids`, `answered_ids`, `rescored`; see `judge`.
    """
    header, quality, ladder = facts["header"], facts["quality"], facts["ladder_row"]

    def same(name: str, claimed: Any, true: Any, why: str) -> Row:
        return row(name, "block", claimed == true and true is not None, str(claimed)[:12], str(true)[:12], why)

    bytes_scored = same(
        "bytes scored", header.get("folder_sha256"), facts["package_folder_sha256"], "the predictions come from the bytes in the package"
    )
    bytes_timed = same(
        "bytes timed", facts["cost_folder_sha256"], facts["package_folder_sha256"], "time and memory are of the bytes in the package"
    )
    weights = same(
        "weights", ladder.get("weights_sha256"), facts["package_weights_sha256"], "the ladder speaks of the weights in the package"
    )
    test = same("test set", header.get("test_sha256"), facts["test_sha256"], "the predictions answer the test set of this checkout")
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


def judge_rounds(cost: dict[str, Any]) -> Row:
    """Whether the rounds of one measurement agree (the rule is in slm/evaluation/cost.py), by the ratios that it states."""
    ratios: dict[str, list[float]] = cost.get("ratios") or {}
    name = "rounds agree"
    if not ratios:
        why = "the measurement does not state the ratios of its rounds; run `dvc repro --force --single-item measure && dvc repro`"
        return row(name, "block", False, None, SPREAD, why)
    worst = max(ratios, key=lambda n: spread(ratios[n]))
    found, first = spread(ratios[worst]), next(iter(ratios))
    value = round(found, 4) if math.isfinite(found) else None
    if found <= SPREAD:
        return row(
            name, "block", True, value, SPREAD, f"the ratio of two models' times differs between rounds by a factor of {found:.2f} at most"
        )
    by_round = ", ".join(f"{r:.3g}" for r in ratios[worst])
    why = (
        f"{worst} took {by_round} of {first}'s time in the rounds of the last of {cost['attempts']} attempts: another program kept the machine "
        "busy, and times measured so prove nothing; close other programs, or raise measure.rounds, and measure again"
    )
    return row(name, "block", False, value, SPREAD, why)


def judge_licences(contract: Contract, models: dict[str, tuple[str, str]], data: str | None) -> list[Row]:
    """Whether the licences of models and data are ones that the contract allows, word for word; no row where it allows any.

    Args:
        models: by what each is, the knob of params.yaml and what it says.
    """
    if contract.allowed_licences is None:
        return []
    allowed, rows = ", ".join(contract.allowed_licences), []
    for what, knob, file, licence in (
        *((what, knob, "params.yaml", licence) for what, (knob, licence) in models.items()),
        ("data", "license", f"{TASK}/task.yaml", data),
    ):
        passed = licence in contract.allowed_licences
        why = f"{knob} of {file} is {licence}, which allowed_licences {'name' if passed else 'do not name'}"
        why += "" if passed else f"; correct it there, take another {what}, or allow it in gates.yaml"
        rows.append(row(f"licence of the {what}", "block", passed, licence, allowed, why))
    return rows


def judge_data(contract: Contract, report: dict[str, Any] | None) -> list[Row]:
    """Whether the data report holds what the contract requires of each labelled file: an expectation that was removed is missed here.

    `check` stops the pipeline where an expectation fails, and cannot know of one that is gone from task/expectations.
    """
    if contract.required_expectations is None:
        return []
    results = [r for suite in (report or {}).get("suites", []) for r in suite["results"]]
    wanted = [(column, f"{TASK}/{split}.jsonl") for column in contract.required_expectations for split in ("train", "validation", "test")]
    kept = [(r["passed"] and r["limits"].get("mostly", 1) == 1, (r["column"], r["file"])) for r in results]  # mostly: some may fail
    held = {place for good, place in kept if good} - {place for good, place in kept if not good}
    lacking = [f"{column} of {file}" for column, file in wanted if (column, file) not in held]
    columns = ", ".join(contract.required_expectations)
    why = f"the labelled data was checked for {columns}, and holds"
    if lacking:
        why = f"not checked or not met: {', '.join(lacking)}; restore the expectation in task/expectations and run `dvc repro`"
    return [row("data expectations", "block", not lacking, len(wanted) - len(lacking), len(wanted), why)]
