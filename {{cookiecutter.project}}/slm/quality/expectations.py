"""Great Expectations suites in plain JSON, and failures that a person can act on.

Great Expectations drops what it cannot read from a suite, and goes on. So each entry is read here first, and
run by itself: none is left out unseen.
"""

import ast
import difflib
import io
import json
import logging
import math
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
import pandas as pd
from great_expectations.expectations import core  # noqa: F401, its import fills the registry
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)

from slm.errors import UserError
from slm.quality.required import USUAL, judges, judges_each_record, lets_records_through
from slm.task.strict import Unreadable, strict_json

logging.getLogger("great_expectations").setLevel(logging.CRITICAL)

SUITE_KEYS = ("name", "expectations", "suite_parameters", "meta", "notes", "id")
ENTRY_KEYS = ("type", "kwargs", "meta", "notes", "description", "severity", "id", "rendered_content")
# What Great Expectations 0.x wrote, and what it is called now; nothing where it has gone.
OLD_KEYS = {
    "expectation_suite_name": "name",
    "expectation_type": "type",
    "ge_cloud_id": "id",
    "evaluation_parameters": "suite_parameters",
    "data_asset_type": "",
    "expectation_context": "",
    "success_on_last_run": "",
}
OLD_ARGUMENTS = (
    *("parse_strings_as_datetimes", "output_strftime_format", "allow_cross_type_comparisons"),
    *("auto", "profiler_config", "include_config"),
)
OLD_TYPES = {
    "expect_multicolumn_values_to_be_unique": "expect_select_column_values_to_be_unique_within_record",
    "expect_column_values_to_be_valid_json": "expect_column_values_to_be_json_parseable",
}
# Arguments of every expectation that say how it is run, not what is expected.
INTERNAL = {"result_format", "catch_exceptions", "windows", "batch_id", "library_metadata"}
COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")
# Where one of these is missing, null or empty, Great Expectations lets every table pass.
NEEDED = ("threshold", "type_list", "regex", "column_list", "column_set")
NEEDED_BY_TYPE = {
    "expect_column_distinct_values_to_contain_set": "value_set",
    "expect_column_values_to_not_be_in_set": "value_set",
}
SHOWN = 5


@dataclass(frozen=True)
class SuiteEntry:
    """One expectation of a suite.

    Attributes:
        where: file, line and number, for the messages.
        written: its JSON.
    """

    where: str
    written: Any

    @property
    def type(self) -> str:
        return self.written["type"]

    @property
    def kwargs(self) -> dict[str, Any]:
        return self.written["kwargs"]

    @property
    def columns(self) -> list[str]:
        """The columns that it is about, in the order of the arguments."""
        found = [self.kwargs[name] for name in COLUMN_ARGUMENTS if self.kwargs.get(name)]
        return [c for part in found for c in (part if isinstance(part, list) else [part])]

    @property
    def limits(self) -> dict[str, Any]:
        return {k: _plain(v) for k, v in self.kwargs.items() if k not in (*COLUMN_ARGUMENTS, "batch_id")}


def validate(
    suite_path: Path,
    frames: dict[str, pd.DataFrame],
    lines: dict[str, list[int]],
    required: Sequence[str] = (),
    columns: list[str] | None = None,
) -> dict[str, Any]:
    """Run one suite over tables; over none, only read it.

    Args:
        frames: file name -> one row for each record; all have the same columns.
        lines: file name -> the line of each row, for the messages.
        required: columns that the suite must judge in every record.
        columns: those that the tables will have, where there are no tables yet.

    Returns:
        {"suite", "passed", "results": [{"file", "expectation", "column", "passed", "observed", "said",
        "failures": [...]}]} where a failure is "file:line: value". `said` is what a failure without rows
        comes to.
    """
    spec, mistakes = _read_suite(suite_path)
    entries = _entries(suite_path, spec)
    columns = [str(c) for c in next(iter(frames.values())).columns] if frames else columns
    for entry in entries:
        found = _mistakes(entry.written, columns)
        mistakes += [f"{entry.where}: {mistake}" for mistake in found]
    mistakes += _lacking(suite_path, [e.written for e in entries], required, columns)
    if mistakes:
        first = f"{suite_path}: the suite cannot be run, nothing was checked:"
        raise UserError("\n  ".join([first, *mistakes]))

    results: list[dict[str, Any]] = []
    broken: dict[str, str] = {}
    judged: set[str] = set()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    for name, frame in frames.items():
        asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        for entry in entries:
            result, cause = _run(batch, entry, spec.get("suite_parameters") or {})
            if cause:
                cause += _unreadable(frame, [f"{name}:{line}" for line in lines[name]], entry)
                call = _call(entry.type, entry.columns, entry.limits)
                said = f"{entry.where}: {call} cannot be run on {name}: {cause}; correct the entry"
                broken.setdefault(entry.where, said)
            else:
                results.append(_readable(name, frame, lines[name], entry, result))
            if not cause and (not result.success or _selects(batch, entry)):
                judged.add(entry.where)
    for entry in entries:
        if frames and entry.where not in judged:
            call = _call(entry.type, entry.columns, entry.limits)
            said = "judges nothing: row_condition selects no row of any file; correct it, or remove the entry"
            broken.setdefault(entry.where, f"{entry.where}: {call} {said}")
    report = {"suite": spec["name"], "passed": all(r["passed"] for r in results), "results": results}
    if broken:
        said = "\n  ".join([f"{suite_path}: not every expectation can be run:", *broken.values()])
        raise UserError(said if report["passed"] else f"{said}\n{explain_failures(report, suite_path)}")
    return report


# Reading a suite


def _read_suite(path: Path) -> tuple[dict[str, Any], list[str]]:
    """A suite as it is written, and what is wrong with its keys."""
    form = "compare it with the suites in docs and task/expectations"
    if not path.exists():
        raise UserError(f"{path}: no such file; write the suite, or take it from git")
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)  # which says the line, and takes more than JSON
        spec = strict_json(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not a suite: {error.msg}; {form}") from None
    except Unreadable as error:
        raise UserError(f"{_place_of_fault(path, text)}: not a suite: {error.what}; {error.remedy}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a suite: {str(error).splitlines()[0]}; {form}") from None
    if not isinstance(spec, dict):
        raise UserError(f'{path}: not a suite: no JSON object; write {{"name": …, "expectations": […]}}')
    mistakes = [f"{path}: {said}" for said in _wrong_keys(spec, SUITE_KEYS)]
    spec = _renamed(spec)
    if not isinstance(spec.get("name"), str) or not spec["name"]:
        mistakes.append(f'{path}: the suite has no name; write "name": "{path.stem}"')
    if not isinstance(spec.get("expectations"), list):
        raise UserError(f'{path}: not a suite: no list "expectations"; {form}')
    if not isinstance(spec.get("suite_parameters") or {}, dict):
        mistakes.append(f"{path}: suite_parameters is no JSON object; write names and values")
    return spec, mistakes


def _written(text: str) -> list[tuple[int, str]]:
    """The entries of a suite as they are written, each with its line."""
    decoder, found = json.JSONDecoder(), []
    begin = re.search(r'"expectations"\s*:\s*\[', text)
    position = begin.end() if begin else len(text)
    while (gap := re.compile(r"[\s,]*(?=[^\s,\]])").match(text, position)) is not None:
        _, position = decoder.raw_decode(text, gap.end())
        found.append((text.count("\n", 0, gap.end()) + 1, text[gap.end() : position]))
    return found


def _place_of_fault(path: Path, text: str) -> str:
    """The line of the entry that is no strict JSON; the file alone if it stands elsewhere."""
    for line, written in _written(text):
        try:
            strict_json(written)
        except Unreadable:
            return f"{path}:{line}"
    return str(path)


def _entries(path: Path, spec: dict[str, Any]) -> list[SuiteEntry]:
    """The expectations of a suite with the line that each begins in."""
    lines = [line for line, _ in _written(path.read_text(encoding="utf-8"))]
    found = spec["expectations"]
    # A text in meta may hold the same words; then the number alone says which entry it is
    places = [f"{path}:{line}" for line in lines] if len(lines) == len(found) else [str(path)] * len(found)
    return [
        SuiteEntry(f"{place}: expectation {number}", written)
        for number, (place, written) in enumerate(zip(places, found, strict=True), 1)
    ]


def _renamed(written: dict[str, Any]) -> dict[str, Any]:
    return {OLD_KEYS.get(key) or key: value for key, value in written.items()}


def _wrong_keys(written: dict[str, Any], allowed: Iterable[str], arguments: Iterable[str] = ()) -> list[str]:
    """What is said of each key that is none of those allowed.

    Args:
        arguments: what may stand in kwargs.
    """
    said = []
    for key in written:
        if key in allowed:
            continue
        now = OLD_KEYS.get(key)
        if now and now in allowed:
            said.append(f"{key!r} is the form of Great Expectations 0.x; write {now!r}")
        elif now == "":
            said.append(f"{key!r} is no longer used since Great Expectations 1.0; remove it")
        elif key in arguments:
            said.append(f"{key!r} is an argument; write it inside 'kwargs'")
        else:
            said.append(f"key {key!r} is unknown; the nearest is {_nearest(key, allowed)!r}")
    return said


def _nearest(word: str, choices: Iterable[str]) -> str:
    """The choice that is written most alike; one that the word shortens comes before all others."""

    wanted = word.casefold()

    def likeness(choice: str) -> tuple[bool, float]:
        letters = iter(choice.casefold())
        ratio = difflib.SequenceMatcher(None, wanted, choice.casefold()).ratio()
        return all(c in letters for c in wanted), ratio

    return max(sorted(choices), key=likeness)


def _mistakes(written: Any, columns: list[str] | None) -> list[str]:
    """What is wrong with an entry: its keys, its type, its arguments, its columns.

    Args:
        columns: those of the tables; None if there is no table.
    """
    if not isinstance(written, dict):
        return [f'{_json(written)[:80]} is no JSON object; write {{"type": …, "kwargs": {{…}}}}']
    entry = _renamed(written)
    kind, kwargs = entry.get("type"), entry.get("kwargs")
    known = sorted(list_registered_expectation_implementations())
    arguments = _arguments(str(kind)) if kind in known else set(COLUMN_ARGUMENTS)
    said = _wrong_keys(written, ENTRY_KEYS, arguments)
    if not isinstance(kind, str):
        said.append('it has no type; write "type": "expect_…"')
    elif kind not in known:
        # A class is called as a type is, in capitals
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
        near = OLD_TYPES.get(kind) or difflib.get_close_matches(snake, known, 1, 0.0)[0]
        said.append(
            f"type {kind!r} is unknown to Great Expectations {gx.__version__}; the nearest is {near!r}"
        )
    if not isinstance(kwargs, dict):
        return [*said, 'it has no kwargs; write "kwargs": {"column": …}']
    if kind in known:
        wrong = _wrong_arguments(str(kind), kwargs, arguments) or _wrong_values(str(kind), kwargs, arguments)
        said += wrong or ([] if said else _refused(entry))
    return said + _wrong_columns(str(kind), kwargs, columns)


def _arguments(kind: str) -> set[str]:
    """What may stand in the kwargs of an expectation of this type."""
    return set(get_expectation_impl(kind).__fields__) - (set(ENTRY_KEYS) - {"type"})


def _wrong_arguments(kind: str, kwargs: dict[str, Any], arguments: set[str]) -> list[str]:
    said = []
    for name in kwargs.keys() - arguments:
        if name in OLD_ARGUMENTS:
            said.append(f"argument {name!r} of {kind} has gone since Great Expectations 1.0; remove it")
        elif name in ENTRY_KEYS and f"{name}_" not in arguments:
            said.append(f"{name!r} is no argument; write it beside 'kwargs'")
        else:
            right = _nearest(name, arguments - INTERNAL)
            said.append(f"argument {name!r} is unknown to {kind}; the nearest is {right!r}")
    limits = {"min_value", "max_value"}
    if not said and limits <= arguments and kind.endswith("_between") and not _given(kwargs) & limits:
        said.append(f"{kind} has no limit; write min_value, max_value or both")
    return sorted(said)


def _wrong_values(kind: str, kwargs: dict[str, Any], arguments: set[str]) -> list[str]:
    """Values that Great Expectations takes, although they judge nothing or end in an error without a name."""
    said = []
    for name in (*COLUMN_ARGUMENTS, "column_set"):
        for part in kwargs[name] if isinstance(kwargs.get(name), list) else [kwargs.get(name)]:
            if part is not None and not isinstance(part, str):
                said.append(f"{name} holds {_json(part)[:80]}, and a column must be a name; write its name")
    for name, value in kwargs.items():
        keys = list(value) if isinstance(value, dict) and len(value) == 1 else []
        if keys and keys[0].startswith("$") and keys[0] != "$PARAMETER":
            said.append(f"{name} holds the key {keys[0]!r}; the only such key is '$PARAMETER'")
    for name in {*NEEDED, NEEDED_BY_TYPE.get(kind, "")} & arguments:
        if not kwargs.get(name) and kwargs.get(name) != 0:
            state = "is empty" if name in _given(kwargs) else "is missing"
            said.append(f"argument {name!r} of {kind} {state}; add it, because without it each table passes")
    if kwargs.get("mostly", 1) == 0:
        said.append("mostly is 0, so that each table passes; write the share of records that must hold")
    if isinstance(ranges := kwargs.get("quantile_ranges"), dict) and "$PARAMETER" not in ranges:
        said += _wrong_ranges(ranges)
    return sorted(said)


def _wrong_ranges(ranges: dict[str, Any]) -> list[str]:
    """What is wrong with the quantiles of a column and their limits."""
    parts = {name: ranges.get(name) for name in ("quantiles", "value_ranges")}
    for name, part in parts.items():
        if not isinstance(part, list) or not part:
            return [
                f"quantile_ranges has no list {name!r}; write quantiles, and limits of each in value_ranges"
            ]
    counts = [len(part) for part in parts.values() if part]
    if counts[0] != counts[1]:
        return [
            f"quantile_ranges has {counts[0]} quantiles and {counts[1]} value_ranges; write the limits of "
            "each quantile"
        ]
    for limits in ranges["value_ranges"]:
        if not isinstance(limits, list) or len(limits) != 2 or limits == [None, None]:
            return [
                f"value_ranges holds {_json(limits)[:80]}; write [lowest, highest], and null for no limit"
            ]
    return []


def _given(kwargs: dict[str, Any]) -> set[str]:
    return {name for name, value in kwargs.items() if value is not None}


def _refused(entry: dict[str, Any]) -> list[str]:
    """What Great Expectations says against the values of the arguments."""
    try:
        ExpectationConfiguration(**entry).to_domain_obj()
    except Exception as error:  # its own, pydantic's, and what a validator lets through
        if not hasattr(error, "errors"):
            return [_word(str(error) or type(error).__name__)]
        said: dict[str, str] = {}
        for each in error.errors():
            name, message = str(each["loc"][0]), _word(each["msg"])
            inside = ".".join(map(str, each["loc"][1:]))
            if each["type"] == "value_error.missing" and inside and name != "row_condition":
                message = f"{name} lacks {inside}; add it"
            elif each["type"] == "value_error.missing" and not inside:
                message = f"argument {name!r} of {entry['type']} is missing; add it"
            elif name == "row_condition":
                message = (
                    'row_condition is no condition; write {"type": "comparison", "column": {"name": …}, '
                    '"operator": "==", "parameter": …}'
                )
            elif name != "__root__":
                message = f"{name} is {_json(entry['kwargs'].get(name, entry.get(name)))[:80]}: {message}"
            said.setdefault(name, message)
        return list(said.values())
    return []


def _wrong_columns(kind: str, kwargs: dict[str, Any], columns: list[str] | None) -> list[str]:
    """Columns that the tables do not have."""
    condition = kwargs.get("row_condition")
    named, said = _columns_of_condition(condition), []
    if any(not isinstance(name, str) for name in named):
        said.append('a column of row_condition must be a name; write "column": {"name": …}')
    if isinstance(condition, str) and re.search(r"\bcol\(", condition) and not kwargs.get("condition_parser"):
        said.append(
            'row_condition calls col(…), which pandas does not read; add "condition_parser": '
            '"great_expectations"'
        )
    # These two ask whether a column is there: that it is not is their failure, and no mistake
    if kind != "expect_column_to_exist" and not kind.startswith("expect_table_columns"):
        named += SuiteEntry("", {"kwargs": kwargs}).columns
    return said + [
        f"there is no column {name!r}; the nearest is {_nearest(name, columns)!r}, the table has "
        f"{', '.join(columns)}"
        for name in dict.fromkeys(name for name in named if isinstance(name, str))
        if columns is not None and name not in columns
    ]


def _columns_of_condition(condition: Any) -> list[Any]:
    """Columns that a row_condition speaks of: objects, `col("name") == 1`, or a query of pandas. What is no
    name is among them.
    """
    if isinstance(condition, list):
        return [name for part in condition for name in _columns_of_condition(part)]
    if isinstance(condition, dict):
        own = condition.get("column")
        parts = [condition.get("conditions"), condition.get("pass_through_filter")]
        return [own["name"]] if isinstance(own, dict) and "name" in own else _columns_of_condition(parts)
    if not isinstance(condition, str):
        return []
    if found := re.findall(r"""\bcol\(\s*["']([^"']*)["']\s*\)""", condition):
        return found
    quoted = re.findall(r"`([^`]+)`", condition)  # such names need not be names of Python
    try:
        tree = ast.parse(re.sub(r"`[^`]+`", "index", condition).strip(), mode="eval")
    except SyntaxError:  # what pandas alone can read, or nobody: the run will tell
        return quoted
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    return quoted + [name for name in names if name != "index"]


def _lacking(path: Path, entries: list[Any], required: Sequence[str], columns: list[str] | None) -> list[str]:
    """Required columns that no expectation judges in every record, or one lets some records through."""
    said = []
    readable = [e for e in entries if isinstance(e, dict) and isinstance(e.get("kwargs"), dict)]
    for column in required:
        about = [(e.get("type"), e["kwargs"]) for e in readable if e["kwargs"].get("column") == column]
        about = [(kind, kwargs) for kind, kwargs in about if judges(column, kind)]
        some = [kwargs for _, kwargs in about if lets_records_through(kwargs)]
        if columns is not None and column not in columns:
            what, remedy = f"there is no column {column!r}", f"the nearest is {_nearest(column, columns)!r}"
        elif some:
            what = f"the expectation on {column!r} lets records through (mostly {_json(some[0]['mostly'])})"
            remedy = "remove mostly"
        elif not any(judges_each_record(column, kind, kwargs) for kind, kwargs in about):
            what = f"no expectation judges {column!r} in every record"
            usual = USUAL.get(column)
            example = {"type": usual, "kwargs": {"column": column}}
            remedy = f"add {json.dumps(example)}" if usual else "add one of its values"
        else:
            continue
        said.append(f"{path}: {what}, and required_expectations of gates.yaml asks for it; {remedy}")
    return said


# Running it


def _run(batch: Any, entry: SuiteEntry, parameters: dict[str, Any]) -> tuple[Any, str]:
    """The result of one expectation, or why there is none."""
    try:
        expectation = ExpectationConfiguration(**entry.written).to_domain_obj()
        # It draws progress bars and warns of old forms, whatever it was told
        with redirect_stderr(io.StringIO()):
            result = batch.validate(
                expectation,
                result_format={"result_format": "COMPLETE"},
                expectation_parameters=parameters,
            )
    except Exception as error:  # whatever a library raises: the entry is named, and the others still run
        return None, _word(f"{type(error).__name__}: {error}")
    info = result.exception_info or {}
    raised = [
        found for found in (info, *info.values()) if isinstance(found, dict) and found.get("raised_exception")
    ]
    if not raised:
        return result, ""
    message = str(raised[0]["exception_message"] or "").strip()
    if "PandasExecutionEngine" in message:
        return None, "Great Expectations runs this type on a database alone"
    if " " not in message:  # such as a KeyError, which says the key alone
        message = str(raised[0].get("exception_traceback") or message).strip().splitlines()[-1]
    return None, _word(message)


def _selects(batch: Any, entry: SuiteEntry) -> bool:
    """Whether the condition of an entry that passed selects a row."""
    condition = {k: v for k, v in entry.kwargs.items() if k in ("row_condition", "condition_parser")}
    # Of a count of rows, none may be just what is asked
    if not condition.get("row_condition") or entry.type.startswith("expect_table_row_count"):
        return True
    rows = SuiteEntry(entry.where, {"type": "expect_table_row_count_to_be_between", "kwargs": condition})
    rows.kwargs["min_value"] = 1
    result, _ = _run(batch, rows, {})
    return result is None or bool(result.success)


def _unreadable(frame: pd.DataFrame, places: list[str], entry: SuiteEntry) -> str:
    """The records that are no JSON, where a type reads them as JSON and stops at the first that is none."""
    if entry.type != "expect_column_values_to_match_json_schema":
        return ""
    faults = []
    for place, value in zip(places, frame[entry.columns[0]], strict=True):
        try:
            json.loads(value if isinstance(value, str) else "null")
        except ValueError:
            faults.append(f"{place}: {_json(value)[:80]} is no JSON")
    more = f", … and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return f"; {', '.join(faults[:SHOWN])}{more}" if faults else ""


def _readable(
    name: str, frame: pd.DataFrame, lines: list[int], entry: SuiteEntry, result: Any
) -> dict[str, Any]:
    found = result.result or {}
    columns = [c for c in entry.columns if c in frame.columns]
    failures = []
    for row in found.get("unexpected_index_list") or []:
        values = {c: _plain(frame[c].iloc[row]) for c in columns}
        value = values[columns[0]] if len(columns) == 1 else values
        failures.append(f"{name}:{lines[row]}: {_json(value)}")
    said = ""
    if not result.success and not failures:
        said = f"{name}: {_said(frame, [f'{name}:{line}' for line in lines], entry, found)}"
    return {
        "file": name,
        "expectation": entry.type,
        "column": ", ".join(entry.columns) or None,
        "limits": entry.limits,
        "why": str((entry.written.get("meta") or {}).get("why", "")),
        "passed": bool(result.success),
        "observed": _plain(found.get("observed_value")),
        "said": said,
        "failures": failures,
    }


# Telling what failed


def _said(frame: pd.DataFrame, places: list[str], entry: SuiteEntry, found: dict[str, Any]) -> str:
    """What was observed and what was expected, where no rows are to be shown."""
    details, observed = found.get("details") or {}, found.get("observed_value")
    if "partial_missing_list" in found or "partial_unexpected_list" in found:
        return _said_of_set(frame, places, entry, found)
    if "observed_partition" in details:
        return _said_of_shares(details, observed, entry)
    if isinstance(observed, dict) and "quantiles" in observed:
        ranges = entry.kwargs["quantile_ranges"]["value_ranges"]
        held = details.get("success_details") or [False] * len(ranges)
        quantiles = zip(observed["quantiles"], observed["values"], ranges, held, strict=False)
        parts = [
            f"quantile {_json(q)} is {_json(v)}, expected {_between(*limits)}"
            for q, v, limits, right in quantiles
            if not right
        ]
        return "; ".join(parts)
    if "mismatched" in details or entry.type == "expect_column_to_exist":
        return _said_of_columns([str(c) for c in frame.columns], entry, details.get("mismatched"))
    expected = _expected(entry.kwargs)
    if _plain(observed) is None:
        rows = "that row_condition selects" if entry.kwargs.get("row_condition") else "of the file"
        # A standard deviation needs two values
        few = f"fewer than two rows {rows} have" if "_stdev_" in entry.type else f"no row {rows} has"
        return f"there is nothing to judge, {few} a value{expected}"
    return f"observed {_json(observed)}{expected}{_values_behind(frame, places, entry, observed)}"


def _said_of_set(frame: pd.DataFrame, places: list[str], entry: SuiteEntry, found: dict[str, Any]) -> str:
    """Values that are not of the set, with their count and first place, and those of it that are missing."""
    values, parts = frame[entry.columns[0]], []
    conditional = bool(entry.kwargs.get("row_condition"))  # which rows it selects is not known here
    extra, missing = found.get("partial_unexpected_list") or [], found.get("partial_missing_list") or []
    for value in extra[:SHOWN]:
        rows = [i for i, own in enumerate(values) if own == value]
        first = f", first {places[rows[0]]}" if rows else ""
        where = " in a row that row_condition selects" if conditional else f" ({len(rows)} rows{first})"
        parts.append(f"observed {_json(value)}{where}, which is not in value_set")
    none = "no row that row_condition selects" if conditional else "no row"
    parts += [f"{_json(value)} of value_set is in {none}" for value in missing[:SHOWN]]
    more = sum(max(0, len(part) - SHOWN) for part in (extra, missing))
    return "; ".join(parts + ([f"… and {more} more values"] if more else []))


def _said_of_shares(details: dict[str, Any], observed: Any, entry: SuiteEntry) -> str:
    """The classes, or ranges, whose share differs most from the expected one."""
    seen, wanted = details["observed_partition"], details["expected_partition"]
    names = [_json(value) for value in seen.get("values", [])]
    if not names:
        bins = [_json(edge) for edge in seen["bins"]]
        names = [f"{low} to {high}" for low, high in pairwise(bins)]
        names += [f"below {bins[0]}", f"above {bins[-1]}"]
    shares = [[*part["weights"], *part.get("tail_weights", [])] for part in (seen, wanted)]
    rows = sorted(zip(names, *shares, strict=False), key=lambda row: -abs(row[1] - row[2]))
    parts = [f"{name} is {here:.1%}, expected {there:.1%}" for name, here, there in rows[:SHOWN]]
    # A value that was not expected at all makes it infinite
    distance = "infinite" if _plain(observed) is None else _json(observed)
    return f"the divergence is {distance}{_expected(entry.kwargs)}: {'; '.join(parts)}"


def _said_of_columns(columns: list[str], entry: SuiteEntry, mismatched: Any) -> str:
    has = f"the table has {', '.join(columns)}"
    if entry.type == "expect_column_to_exist":
        column = entry.kwargs["column"]
        if column in columns:
            place = entry.kwargs.get("column_index")
            return f"column {column!r} has index {columns.index(column)}, expected {_json(place)}; {has}"
        return f"there is no column {column!r}; the nearest is {_nearest(column, columns)!r}, {has}"
    if isinstance(mismatched, dict):
        parts = [
            f"no column {c!r}, the nearest is {_nearest(c, columns)!r}"
            for c in mismatched.get("missing") or []
        ]
        if entry.kwargs.get("exact_match") is not False:
            parts += [f"column {c!r} is not expected" for c in mismatched.get("unexpected") or []]
    else:
        parts = [
            f"column {m['Expected Column Position']} is {_json(m['Found'])}, expected {_json(m['Expected'])}"
            for m in mismatched
        ]
    return f"{'; '.join(parts[:SHOWN])}; {has}"


def _values_behind(frame: pd.DataFrame, places: list[str], entry: SuiteEntry, observed: Any) -> str:
    """Which values a figure of a column comes from: the commonest, or where its extreme stands."""
    column = entry.kwargs.get("column")
    if column not in frame.columns or entry.kwargs.get("row_condition"):
        return ""
    values = frame[column]
    if entry.type in ("expect_column_max_to_be_between", "expect_column_min_to_be_between"):
        rows = [i for i, own in enumerate(values) if own == observed]
        return f" ({places[rows[0]]})" if rows else ""
    if any(part in entry.type for part in ("unique_value", "proportion_of_unique", "most_common")):
        counts = values.map(_json).value_counts()
        shown = [f"{value[:60]} {count}" for value, count in counts.head(SHOWN).items()]
        more = f", … and {len(counts) - SHOWN} more values" if len(counts) > SHOWN else ""
        return f"; rows of each value: {', '.join(shown)}{more}"
    if "non_null" in entry.type:
        empty = [places[i] for i, missing in enumerate(values.isna()) if missing]
        return f"; {len(empty)} rows are empty, first {', '.join(empty[:SHOWN])}" if empty else ""
    return ""


def _expected(kwargs: dict[str, Any]) -> str:
    """What the arguments ask for, to be added to what was observed; nothing if the call says it all."""
    if _given(kwargs) & {"min_value", "max_value"}:
        strict = bool(kwargs.get("strict_min")), bool(kwargs.get("strict_max"))
        return f", expected {_between(kwargs.get('min_value'), kwargs.get('max_value'), *strict)}"
    for name, words in {
        "value": "",
        "threshold": "at most ",
        "value_set": "one of ",
        "type_": "",
        "type_list": "one of ",
    }.items():
        if kwargs.get(name) is not None:
            return f", expected {words}{_json(kwargs[name])}"
    return ""


def _between(low: Any, high: Any, above: bool = False, below: bool = False) -> str:
    parts = [] if low is None else [f"{'more than' if above else 'at least'} {_json(low)}"]
    parts += [] if high is None else [f"{'less than' if below else 'at most'} {_json(high)}"]
    return " and ".join(parts)


def _plain(value: Any) -> Any:
    """A value of pandas or NumPy as JSON can hold it: a missing one is null, a float is short."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value if isinstance(value, str | int | bool) else str(value)


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)


def _word(message: str) -> str:
    """A message of a library in one line, in the words of JSON."""
    return " ".join(message.split()).replace("None", "null")[:300]


def _call(kind: str, columns: Sequence[str], limits: dict[str, Any]) -> str:
    return f"{kind}({', '.join([*columns, *(f'{k}={_json(v)}' for k, v in limits.items())])})"


def explain_failures(report: dict[str, Any], suite_path: Path, shown: int | None = SHOWN) -> str:
    """The failed expectations of a report as one message.

    Args:
        shown: rows that are shown for each expectation; None: all of them, uncut.
    """
    parts = [f"{suite_path}: the data does not meet the expectations:"]
    for r in report["results"]:
        if r["passed"]:
            continue
        call = _call(r["expectation"], [r["column"]] if r["column"] else [], r["limits"])
        parts.append(f"  {call} {r['why']}".rstrip())
        if r["failures"]:
            parts += [f"    {failure[: 300 if shown else None]}" for failure in r["failures"][:shown]]
            if shown and len(r["failures"]) > shown:
                parts.append(f"    … and {len(r['failures']) - shown} more")
        else:
            parts.append(f"    {r['said'][: 1000 if shown else None]}")
    parts.append("  remedy: correct these records, or the expectation if it asks too much")
    return "\n".join(parts)
