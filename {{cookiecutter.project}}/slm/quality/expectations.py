"""Great Expectations suites in plain JSON, and failures that a person can act on."""

import json
import logging
import os
from pathlib import Path
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
import pandas as pd

from slm.errors import UserError
from slm.files import read_json

logging.getLogger("great_expectations").setLevel(logging.ERROR)


def validate(
    suite_path: Path, frames: dict[str, pd.DataFrame], lines: dict[str, list[int]]
) -> dict[str, Any]:
    """Run one suite over tables.

    Args:
        frames: file name -> one row for each record.
        lines: file name -> the line of each row, for the messages.

    Returns:
        {"suite", "passed", "results": [{"file", "expectation", "column", "passed", "observed", "failures":
        [...]}]} where a failure is "file:line: value".
    """
    try:
        spec = read_json(suite_path)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        suite = gx.ExpectationSuite(name=spec["name"], expectations=spec["expectations"])
    except (json.JSONDecodeError, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{suite_path}: not a suite: {str(error).splitlines()[0]}; see task/expectations for the form"
        ) from None
    results = []
    for name, frame in frames.items():
        batch = (
            context.data_sources.add_pandas(name)
            .add_dataframe_asset(name)
            .add_batch_definition_whole_dataframe("all")
        )
        done = batch.get_batch({"dataframe": frame}).validate(
            suite, result_format={"result_format": "COMPLETE"}
        )
        for result in done.results:
            results.append(_readable(name, frame, lines[name], result))
    return {"suite": spec["name"], "passed": all(r["passed"] for r in results), "results": results}


def _readable(name: str, frame: pd.DataFrame, lines: list[int], result: Any) -> dict[str, Any]:
    config = result.expectation_config
    column = config.kwargs.get("column")
    if result.exception_info and result.exception_info.get("raised_exception"):
        raise UserError(
            f"expectation {config.type} on {column!r} cannot be run: "
            f"{result.exception_info['exception_message']}; correct the suite"
        )
    failures = []
    for index in (result.result or {}).get("unexpected_index_list") or []:
        row = index if isinstance(index, int) else next(iter(index.values()))
        failures.append(
            f"{name}:{lines[row]}: {json.dumps(frame[column].iloc[row], ensure_ascii=False, default=str)}"
        )
    return {
        "file": name,
        "expectation": config.type,
        "column": column,
        "limits": {k: v for k, v in config.kwargs.items() if k not in ("column", "batch_id")},
        "why": (config.meta or {}).get("why", ""),
        "passed": bool(result.success),
        "observed": (result.result or {}).get("observed_value"),
        "failures": failures,
    }


def explain_failures(report: dict[str, Any], suite_path: Path) -> str:
    """The failed expectations of a report as one message."""
    parts = [f"{suite_path}: the data does not meet the expectations:"]
    for r in report["results"]:
        if r["passed"]:
            continue
        limits = ", ".join(f"{k}={v}" for k, v in r["limits"].items())
        parts.append(
            f"  {r['expectation']}({r['column'] or ''}{', ' if r['column'] and limits else ''}{limits}) "
            f"{r['why']}"
        )
        if r["failures"]:
            parts += [f"    {failure[:300]}" for failure in r["failures"][:5]]
            if len(r["failures"]) > 5:
                parts.append(f"    … and {len(r['failures']) - 5} more")
        else:
            parts.append(f"    {r['file']}: observed {r['observed']}")
    parts.append("  remedy: correct these records, or the expectation if it asks too much")
    return "\n".join(parts)
