"""What a model may be made from: the licences and the data checks that the contract asks for."""

from typing import Any

from slm.quality.required import judges, judges_each_record, lets_records_through
from slm.task.records import TASK
from slm.verdict.contract import Contract
from slm.verdict.registry import DATA_EXPECTATIONS, LICENCE
from slm.verdict.rows import Row


def judge_licences(contract: Contract, models: dict[str, tuple[str, str]], data: str | None) -> list[Row]:
    """Whether the licences of models and data are ones that the contract allows, word for word; no row where
    it allows any.

    Args:
        models: by what each is, the parameter of params.yaml and what it says.
    """
    if contract.allowed_licences is None:
        return []
    allowed, rows = ", ".join(contract.allowed_licences), []
    for what, parameter, file, licence in (
        *((what, parameter, "params.yaml", licence) for what, (parameter, licence) in models.items()),
        ("data", "license", f"{TASK}/task.yaml", data),
    ):
        passed = licence in contract.allowed_licences
        named = "name" if passed else "do not name"
        why = f"{parameter} of {file} is {licence}, which allowed_licences {named}"
        why += "" if passed else f"; correct it there, take another {what}, or allow it in gates.yaml"
        rows.append(LICENCE[what].row(passed, licence, allowed, why))
    return rows


def judge_data(contract: Contract, report: dict[str, Any] | None) -> list[Row]:
    """Whether the data report holds what the contract requires of each labelled file: an expectation that was
    removed is missed here.

    `check` stops the pipeline where an expectation fails, and cannot know of one that is gone from
    task/expectations.
    """
    if contract.required_expectations is None:
        return []
    results = [r for suite in (report or {}).get("suites", []) for r in suite["results"]]
    wanted = [
        (column, f"{TASK}/{split}.jsonl")
        for column in contract.required_expectations
        for split in ("train", "validation", "test")
    ]
    held, broken = set(), set()
    for r in results:
        column, kind, limits = r["column"], r["expectation"], r["limits"]
        if not judges(column, kind):
            continue
        if not r["passed"] or lets_records_through(limits):
            broken.add((column, r["file"]))
        elif judges_each_record(column, kind, limits):
            held.add((column, r["file"]))
    held -= broken
    lacking = [f"{column} of {file}" for column, file in wanted if (column, file) not in held]
    columns = ", ".join(contract.required_expectations)
    why = f"the labelled data was checked for {columns}, and holds"
    if lacking:
        why = (
            f"not checked in every record, or not met: {', '.join(lacking)}; "
            "restore the expectation in task/expectations and run `slm repro`"
        )
    return [DATA_EXPECTATIONS.row(not lacking, len(wanted) - len(lacking), len(wanted), why)]
