"""Every built-in expectation of Great Expectations says what failed, and where; a misspelt one is refused."""

import inspect
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from great_expectations.expectations import core
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)

from slm.errors import UserError
from slm.files import write_json
from slm.quality.expectations import _lacking, explain_failures, validate
from slm.quality.required import USUAL

FILE = "task/train.jsonl"
FRAME = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "text": ["turn on", "turn on", "stop", "go"],
        "words": [1, 2, 2, 40],
        "tags": [1, 3, 2, 4],
        "answer_class": ["light", "light", "timer", "light"],
        "leak": [None, None, "near", None],
        "answer": ['{"a": 1}', "x", "{}", "[]"],
        "object": ['{"a": 1}', "1", "{}", "[]"],
    }
).astype({"leak": object})
LINES = [11, 12, 14, 15]
WORDS = {"column": "words"}
CLASS, TEXT, PAIR = {"column": "answer_class"}, {"column": "text"}, {"column_A": "words", "column_B": "tags"}
LIST = {"column_list": ["words", "tags"]}
SHARES = {"values": ["light", "timer"], "weights": [0.1, 0.9]}

# Type, without its `expect_`: arguments by which it fails on the table above, and what is said of it.
FAILING: dict[str, tuple[dict[str, Any], str]] = {
    "column_distinct_values_to_be_in_set": (
        CLASS | {"value_set": ["light"]},
        f'observed "timer" (1 rows, first {FILE}:14), which is not in value_set',
    ),
    "column_distinct_values_to_contain_set": (
        CLASS | {"value_set": ["light", "alarm"]},
        '"alarm" of value_set is in no row',
    ),
    "column_distinct_values_to_equal_set": (
        CLASS | {"value_set": ["light", "alarm"]},
        '"alarm" of value_set is in no row',
    ),
    "column_kl_divergence_to_be_less_than": (
        CLASS | {"partition_object": SHARES, "threshold": 0.1},
        '"light" is 75.0%, expected 10.0%',
    ),
    "column_max_to_be_between": (WORDS | {"max_value": 10}, f"40, expected at most 10 ({FILE}:15)"),
    "column_mean_to_be_between": (WORDS | {"max_value": 1}, "observed 11.25, expected at most 1"),
    "column_median_to_be_between": (WORDS | {"min_value": 3}, "observed 2.0, expected at least 3"),
    "column_min_to_be_between": (WORDS | {"min_value": 2}, f"1, expected at least 2 ({FILE}:11)"),
    "column_most_common_value_to_be_in_set": (
        CLASS | {"value_set": ["timer"]},
        'observed ["light"], expected one of ["timer"]',
    ),
    "column_pair_values_a_to_be_greater_than_b": (PAIR, f'{FILE}:12: {{"words": 2, "tags": 3}}'),
    "column_pair_values_to_be_equal": (PAIR, f'{FILE}:12: {{"words": 2, "tags": 3}}'),
    "column_pair_values_to_be_in_set": (PAIR | {"value_pairs_set": [[1, 1]]}, f"{FILE}:14: "),
    "column_proportion_of_non_null_values_to_be_between": (
        {"column": "leak", "min_value": 0.9},
        f"observed 0.25, expected at least 0.9; 3 rows are empty, first {FILE}:11",
    ),
    "column_proportion_of_unique_values_to_be_between": (
        CLASS | {"min_value": 0.9},
        'observed 0.5, expected at least 0.9; rows of each value: "light" 3, "timer" 1',
    ),
    "column_quantile_values_to_be_between": (
        WORDS | {"quantile_ranges": {"quantiles": [0.1, 0.5], "value_ranges": [[1, 2], [5, None]]}},
        "quantile 0.5 is 2, expected at least 5",
    ),
    "column_stdev_to_be_between": (WORDS | {"max_value": 1}, "observed 19.1725, expected at most 1"),
    "column_sum_to_be_between": (
        WORDS | {"max_value": 45, "strict_max": True},
        "observed 45, expected less than 45",
    ),
    "column_to_exist": ({"column": "txt"}, "there is no column 'txt'; the nearest is 'text'"),
    "column_type_to_be": (WORDS | {"type_": "str"}, 'observed "int64", expected "str"'),
    "column_unique_value_count_to_be_between": (
        CLASS | {"min_value": 3},
        'observed 2, expected at least 3; rows of each value: "light" 3',
    ),
    "column_value_lengths_to_be_between": (TEXT | {"max_value": 3}, f'{FILE}:14: "stop"'),
    "column_value_lengths_to_equal": (TEXT | {"value": 3}, f'{FILE}:15: "go"'),
    "column_value_z_scores_to_be_less_than": (
        WORDS | {"threshold": 1, "double_sided": True},
        f"{FILE}:15: 40",
    ),
    "column_values_to_be_between": (WORDS | {"max_value": 3}, f"{FILE}:15: 40"),
    "column_values_to_be_dateutil_parseable": (TEXT, f'{FILE}:15: "go"'),
    "column_values_to_be_decreasing": (WORDS, f"{FILE}:15: 40"),
    "column_values_to_be_in_set": (CLASS | {"value_set": ["light"]}, f'{FILE}:14: "timer"'),
    "column_values_to_be_in_type_list": (WORDS | {"type_list": ["str"]}, 'observed "int64", expected one of'),
    "column_values_to_be_increasing": ({"column": "tags"}, f"{FILE}:14: 2"),
    "column_values_to_be_json_parseable": ({"column": "answer"}, f'{FILE}:12: "x"'),
    "column_values_to_be_null": ({"column": "leak"}, f'{FILE}:14: "near"'),
    "column_values_to_be_of_type": (WORDS | {"type_": "str"}, 'observed "int64", expected "str"'),
    "column_values_to_be_unique": (TEXT, f'{FILE}:12: "turn on"'),
    "column_values_to_match_json_schema": (
        {"column": "object", "json_schema": {"type": "object"}},
        f'{FILE}:15: "[]"',
    ),
    "column_values_to_match_regex": (TEXT | {"regex": "^t"}, f'{FILE}:15: "go"'),
    "column_values_to_match_regex_list": (TEXT | {"regex_list": ["^t"]}, f'{FILE}:15: "go"'),
    "column_values_to_match_strftime_format": (TEXT | {"strftime_format": "%Y"}, f'{FILE}:15: "go"'),
    "column_values_to_not_be_in_set": (CLASS | {"value_set": ["timer"]}, f'{FILE}:14: "timer"'),
    "column_values_to_not_be_null": ({"column": "leak"}, f"{FILE}:12: null"),
    "column_values_to_not_be_outliers": (WORDS | {"method": "iqr", "multiplier": 1.0}, f"{FILE}:15: 40"),
    "column_values_to_not_match_regex": (TEXT | {"regex": "^t"}, f'{FILE}:12: "turn on"'),
    "column_values_to_not_match_regex_list": (TEXT | {"regex_list": ["^t"]}, f'{FILE}:12: "turn on"'),
    "compound_columns_to_be_unique": (
        {"column_list": ["text", "answer_class"]},
        f'{FILE}:12: {{"text": "turn on", "answer_class": "light"}}',
    ),
    "multicolumn_sum_to_equal": (LIST | {"sum_total": 2}, f'{FILE}:12: {{"words": 2, "tags": 3}}'),
    "multicolumn_values_to_be_equal": (LIST, f'{FILE}:12: {{"words": 2, "tags": 3}}'),
    "select_column_values_to_be_unique_within_record": (LIST, f'{FILE}:14: {{"words": 2, "tags": 2}}'),
    "table_column_count_to_be_between": ({"max_value": 2}, "observed 8, expected at most 2"),
    "table_column_count_to_equal": ({"value": 2}, "observed 8, expected 2"),
    "table_columns_to_match_ordered_list": (
        {"column_list": ["id", "txt"]},
        'column 1 is "text", expected "txt"',
    ),
    "table_columns_to_match_set": ({"column_set": ["id", "txt"]}, "no column 'txt'"),
    "table_row_count_to_be_between": ({"min_value": 20}, "observed 4, expected at least 20"),
    "table_row_count_to_equal": ({"value": 2}, "observed 4, expected 2"),
}
# What pandas cannot run.
LIKE = TEXT | {"like_pattern": "t%"}
LIKES = TEXT | {"like_pattern_list": ["t%"]}
DATABASE: dict[str, dict[str, Any]] = {
    "expect_column_values_to_match_like_pattern": LIKE,
    "expect_column_values_to_match_like_pattern_list": LIKES,
    "expect_column_values_to_not_match_like_pattern": LIKE,
    "expect_column_values_to_not_match_like_pattern_list": LIKES,
    "expect_table_row_count_to_equal_other_table": {"other_table_name": "other"},
    "expect_query_results_to_match_comparison": {
        "base_query": "select 1",
        "comparison_data_source_name": "other",
        "comparison_query": "select 1",
    },
    "unexpected_rows_expectation": {"unexpected_rows_query": "select * from {batch}"},
}
ALL = {f"expect_{name}": kwargs for name, (kwargs, _) in FAILING.items()} | DATABASE
RUNNABLE = sorted(set(ALL) - set(DATABASE))


def run(tmp_path: Path, *entries: Any, frame: pd.DataFrame = FRAME, **more: Any) -> str:
    """What a suite of these entries says; empty if it passes."""
    path = tmp_path / "labelled.json"
    path.write_text(json.dumps({"name": "labelled", "expectations": entries} | more), encoding="utf-8")
    report = validate(path, {FILE: frame}, {FILE: LINES})
    assert len(report["results"]) == len(entries)
    write_json(tmp_path / "report.json", report)  # as the stages do, whatever a library calls a number
    return "" if report["passed"] else explain_failures(report, path)


def refusal(tmp_path: Path, *entries: Any, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        run(tmp_path, *entries, **more)
    assert "Traceback" not in str(caught.value) and "None" not in str(caught.value)
    return str(caught.value)


def expect(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs}


def misspelt(word: str) -> str:
    """Two neighbouring letters in the middle change places, or the last one is missing."""
    half = len(word) // 2
    swapped = word[:half] + word[half + 1] + word[half] + word[half + 2 :] if len(word) > 4 else word
    return word[:-1] if swapped == word else swapped


def test_all_built_in_expectations_are_tried():
    registered = set(list_registered_expectation_implementations())
    classes = {c.expectation_type for _, c in inspect.getmembers(core, inspect.isclass)} - {""}
    assert set(ALL) == registered == classes


@pytest.mark.parametrize("kind", RUNNABLE)
def test_a_failure_names_file_and_value(kind: str, tmp_path: Path):
    kwargs, said = FAILING[kind.removeprefix("expect_")]
    message = run(tmp_path, expect(kind, **kwargs))
    assert said in message and f"  {kind}(" in message and FILE in message
    assert "None" not in message and "Traceback" not in message and "nan" not in message.lower()


@pytest.mark.parametrize("kind", sorted(DATABASE))
def test_what_only_a_database_can_run_is_refused(kind: str, tmp_path: Path):
    message = refusal(tmp_path, expect(kind, **DATABASE[kind]))
    assert f"labelled.json:1: expectation 1: {kind}(" in message and "on a database alone" in message


@pytest.mark.parametrize("kind", sorted(ALL))
def test_a_misspelt_type_is_refused(kind: str, tmp_path: Path):
    for wrong in {misspelt(kind), "".join(part.title() for part in kind.split("_"))}:
        message = refusal(tmp_path, expect(wrong, **ALL[kind]))
        assert f"labelled.json:1: expectation 1: type {wrong!r} is unknown" in message
        assert f"the nearest is {kind!r}" in message


@pytest.mark.parametrize("kind", sorted(ALL))
def test_a_misspelt_argument_is_refused(kind: str, tmp_path: Path):
    for name, value in ALL[kind].items():
        rest = {k: v for k, v in ALL[kind].items() if k != name}
        message = refusal(tmp_path, expect(kind, **rest, **{misspelt(name): value}))
        assert f"argument {misspelt(name)!r} is unknown to {kind}" in message
        assert f"the nearest is {name!r}" in message


@pytest.mark.parametrize("kind", sorted(ALL))
def test_a_misspelt_column_is_refused(kind: str, tmp_path: Path):
    kwargs = ALL[kind]
    for name in kwargs.keys() & {"column", "column_A", "column_B", "column_list"}:
        if kind == "expect_column_to_exist" or kind.startswith("expect_table_columns"):
            continue  # that it is not there is their failure
        right = kwargs[name][-1] if isinstance(kwargs[name], list) else kwargs[name]
        wrong = misspelt(right)
        value = [*kwargs[name][:-1], wrong] if isinstance(kwargs[name], list) else wrong
        message = refusal(tmp_path, expect(kind, **kwargs | {name: value}))
        assert f"there is no column {wrong!r}; the nearest is {right!r}, the table has id, text" in message


@pytest.mark.parametrize(
    "condition",
    [
        "wrods > 1",
        "`wrods` > 1 and text.str.len() > 2",
        'col("wrods") > 1',
        {"type": "comparison", "column": {"name": "wrods"}, "operator": ">", "parameter": 1},
        {
            "type": "and",
            "conditions": [
                {"type": "nullity", "column": {"name": "text"}, "is_null": False},
                {"type": "comparison", "column": {"name": "wrods"}, "operator": ">", "parameter": 1},
            ],
        },
    ],
)
def test_a_condition_is_read(condition: Any, tmp_path: Path):
    def entry(told: Any) -> dict[str, Any]:
        parser = {"condition_parser": "great_expectations"} if "col(" in str(told) else {}
        return expect("expect_column_values_to_be_null", **TEXT, row_condition=told, **parser)

    message = refusal(tmp_path, entry(condition))
    assert "there is no column 'wrods'; the nearest is 'words'" in message
    right = json.loads(json.dumps(condition).replace("wrods", "words"))
    message = run(tmp_path, entry(right))
    assert f'{FILE}:12: "turn on"' in message and f"{FILE}:11" not in message


def test_a_condition_that_cannot_be_read_is_refused(tmp_path: Path):
    entry = expect("expect_column_values_to_be_null", **TEXT, row_condition="words >> > 1")
    assert "invalid syntax" in refusal(tmp_path, entry)
    entry["kwargs"]["row_condition"] = {"type": "comparision"}
    assert "row_condition is no condition; write {" in refusal(tmp_path, entry)


def test_a_figure_of_no_values_is_not_observed_as_none(tmp_path: Path):
    none = {"row_condition": "words > 100", "min_value": 3}
    stdev = expect("expect_column_stdev_to_be_between", **WORDS, min_value=3)
    few = "nothing to judge, fewer than two rows of the file have a value, expected at least 3"
    one = FRAME.assign(words=[1, None, None, None])
    assert few in run(tmp_path, stdev, frame=one) and few not in run(
        tmp_path, stdev, frame=FRAME.assign(words=2)
    )
    for kind in ("mean", "max", "min", "median"):
        message = run(tmp_path, expect(f"expect_column_{kind}_to_be_between", **WORDS, **none))
        assert f"{FILE}: there is nothing to judge, no row that row_condition selects has a value" in message
        assert "expected at least 3" in message and "None" not in message and "observed" not in message


def test_a_value_that_no_share_was_given_is_named(tmp_path: Path):
    entry = expect(
        "expect_column_kl_divergence_to_be_less_than",
        **CLASS,
        partition_object={"values": ["light"], "weights": [1]},
        threshold=0.1,
    )
    message = run(tmp_path, entry)
    assert "the divergence is infinite, expected at most 0.1" in message
    assert '"timer" is 25.0%, expected 0.0%' in message
    entry["kwargs"] |= WORDS | {"partition_object": {"bins": [0, 1, 3], "weights": [0.5, 0.5]}}
    assert "above 3 is 25.0%, expected 0.0%" in run(tmp_path, entry)


def test_what_failed_is_said_beside_what_cannot_be_run(tmp_path: Path):
    broken = expect("expect_column_mean_to_be_between", **TEXT, max_value=3)
    message = refusal(tmp_path, broken, expect("expect_column_values_to_be_null", column="leak"))
    assert "expectation 1: expect_column_mean_to_be_between(text, max_value=3) cannot be run" in message
    assert f'{FILE}:14: "near"' in message


def test_old_forms_are_refused_with_the_new_one(tmp_path: Path):
    old = {"expectation_type": "expect_column_values_to_be_null", "kwargs": {"column": "leak", "auto": True}}
    message = refusal(tmp_path, old, expectation_suite_name="x", data_asset_type=None)
    assert "'expectation_type' is the form of Great Expectations 0.x; write 'type'" in message
    assert "'expectation_suite_name' is the form of Great Expectations 0.x; write 'name'" in message
    assert "'data_asset_type' is no longer used" in message
    assert "argument 'auto' of expect_column_values_to_be_null has gone" in message
    renamed = expect("expect_multicolumn_values_to_be_unique", **LIST)
    assert "nearest is 'expect_select_column_values_to_be_unique_within_record'" in refusal(tmp_path, renamed)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"typ": "expect_column_values_to_be_null", "kwargs": TEXT},
            "key 'typ' is unknown; the nearest is 'type'",
        ),
        ({"type": "expect_column_values_to_be_null"}, "it has no kwargs"),
        (
            {"type": "expect_column_values_to_be_null", "column": "text"},
            "'column' is an argument; write it inside",
        ),
        ({"type": "expect_column_values_to_be_null", "kwargs": {}}, "argument 'column' of"),
        ({"type": 3, "kwargs": TEXT}, "it has no type"),
        ("expect_column_values_to_be_null", "is no JSON object"),
        (expect("expect_column_values_to_be_null", **TEXT, mostly=3), "mostly is 3: ensure this value"),
        (
            expect("expect_column_values_to_be_null", **TEXT, meta={}),
            "'meta' is no argument; write it beside",
        ),
        (expect("expect_column_values_to_be_null", **TEXT) | {"severity": "lo"}, "Invalid severity 'lo'"),
        (
            expect("expect_column_values_to_be_in_set", **TEXT, value_set="a"),
            'value_set is "a": value is not',
        ),
        (expect("expect_column_values_to_be_of_type", **TEXT, type="str"), "the nearest is 'type_'"),
        (expect("expect_column_values_to_be_between", **WORDS), "has no limit; write min_value, max_value"),
        (
            expect("expect_column_mean_to_be_between", **TEXT, max_value=3),
            "cannot be run on task/train.jsonl",
        ),
        (expect("expect_column_values_to_match_regex", **TEXT, regex="("), "unterminated subpattern"),
        (
            expect("expect_column_kl_divergence_to_be_less_than", **CLASS, threshold=0.1),
            "cannot be run on task/train.jsonl",
        ),
        (
            expect("expect_column_mean_to_be_between", **WORDS, max_value={"$PARAMETER": "longest"}),
            "No value found for $PARAMETER longest",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_by_place_and_name(entry: Any, said: str, tmp_path: Path):
    good = expect("expect_column_values_to_be_unique", column="id")
    message = refusal(tmp_path, good, entry)
    assert (
        said in message and "labelled.json:1: expectation 2: " in message and "expectation 1" not in message
    )


def test_all_mistakes_are_listed_with_their_lines(tmp_path: Path):
    path = tmp_path / "labelled.json"
    path.write_text(
        '{"name": "labelled", "expectations": [\n'
        '  {"type": "expect_column_values_to_be_nul", "kwargs": {"column": "leak"}},\n\n'
        '  {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "txt"}}]}',
        encoding="utf-8",
    )
    with pytest.raises(UserError) as caught:
        validate(path, {FILE: FRAME}, {FILE: LINES})
    assert f"{path}:2: expectation 1: type 'expect_column_values_to_be_nul'" in str(caught.value)
    assert f"{path}:4: expectation 2: there is no column 'txt'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "not a suite: no JSON object"),
        ('{"name": "x"}', 'not a suite: no list "expectations"'),
        ('{"name": "x",\n "expectations": [}', ":2: not a suite"),
        ('{"name": "x", "expectations": [], "expectations": []}', "'expectations' stands twice"),
        ('{"expectations": []}', "the suite has no name"),
    ],
)
def test_a_damaged_suite_is_refused(text: str, said: str, tmp_path: Path):
    path = tmp_path / "labelled.json"
    with pytest.raises(UserError, match="no such file"):
        validate(path, {}, {})
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        validate(path, {}, {})
    assert said in str(caught.value)


def test_parameters_of_a_suite_are_used(tmp_path: Path):
    entry = expect("expect_column_max_to_be_between", **WORDS, max_value={"$PARAMETER": "longest"})
    assert run(tmp_path, entry, suite_parameters={"longest": 40}) == ""
    assert "observed 40" in run(tmp_path, entry, suite_parameters={"longest": 39})


def test_the_first_five_rows_are_shown(tmp_path: Path):
    path = tmp_path / "labelled.json"
    write_json(path, {"name": "l", "expectations": [expect("expect_column_values_to_be_null", **WORDS)]})
    frame = pd.DataFrame({"words": range(8)})
    message = explain_failures(validate(path, {FILE: frame}, {FILE: list(range(1, 9))}), path)
    assert f"{FILE}:5: 4" in message and f"{FILE}:6" not in message and "… and 3 more" in message


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ([], "no expectation judges 'leak' in every record, and required_expectations of gates.yaml asks"),
        ([{"mostly": 0.5}], "lets records through (mostly 0.5)"),
        ([{}, {"mostly": 0.5}], "lets records through (mostly 0.5)"),
        ([{"row_condition": "words > 2"}], "no expectation judges 'leak' in every record"),
        ([{}], ""),
        ([{"mostly": 1.0}, {"row_condition": "words > 2"}], ""),
    ],
)
def test_a_required_column_is_judged_in_every_record(kwargs: list[dict[str, Any]], said: str, tmp_path: Path):
    path = tmp_path / "labelled.json"
    entries = [expect("expect_column_values_to_be_null", column="leak", **more) for more in kwargs]
    write_json(path, {"name": "labelled", "expectations": entries})
    frame = FRAME.assign(leak=None)
    if not said:
        assert validate(path, {FILE: frame}, {FILE: LINES}, ["leak"])["passed"]
        return
    with pytest.raises(UserError) as caught:
        validate(path, {FILE: frame}, {FILE: LINES}, ["leak"])
    assert said in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("column", ["leak", "schema_error", "normal_text"])
@pytest.mark.parametrize("kind", sorted(k for k in RUNNABLE if "column" in ALL[k]))
def test_a_column_of_ours_is_judged_by_its_own_type_alone(column: str, kind: str):
    path, kwargs = Path("labelled.json"), ALL[kind] | {"column": column}
    said = _lacking(path, [expect(kind, **kwargs)], [column], [column])
    assert bool(said) == (kind != USUAL[column])
    own = expect(USUAL[column], column=column)
    assert _lacking(path, [expect(kind, **kwargs), own], [column], [column]) == []
    assert not said or f"add {json.dumps(own)}" in said[0]


@pytest.mark.parametrize("kind", sorted(k for k in RUNNABLE if "column" in ALL[k]))
def test_any_other_column_is_judged_by_what_looks_at_each_record(kind: str):
    said = _lacking(Path("labelled.json"), [expect(kind, **ALL[kind] | WORDS)], ["words"], ["words"])
    # A share of records that may fail is an argument of what looks at each, and of no other
    assert bool(said) == ("mostly" not in get_expectation_impl(kind).__fields__)


def test_a_required_column_that_no_table_has_is_named(tmp_path: Path):
    path = tmp_path / "labelled.json"
    write_json(path, {"name": "labelled", "expectations": []})
    with pytest.raises(
        UserError, match=r"no column 'leek', .* gates.yaml asks for it; the nearest is 'leak'"
    ):
        validate(path, {FILE: FRAME}, {FILE: LINES}, ["leek"])


def test_the_word_that_is_shortened_is_the_nearest(tmp_path: Path):
    frame = FRAME.assign(answer_characters=1)
    entry = expect("expect_column_values_to_be_null", column="answer_chars")
    assert "the nearest is 'answer_characters'" in refusal(tmp_path, entry, frame=frame)
    entry = expect("expect_column_values_to_be_between", **WORDS, min=1)
    assert "the nearest is 'min_value'" in refusal(tmp_path, entry)


QUANTILES = "expect_column_quantile_values_to_be_between"


@pytest.mark.parametrize("kind", sorted(ALL))
@pytest.mark.parametrize("wrong", [{"$PARAMETER": "x"}, ["leak"], 3, [["leak"]], {"name": "leak"}], ids=str)
def test_a_column_that_is_no_name_is_refused(kind: str, wrong: Any, tmp_path: Path):
    for name in ALL[kind].keys() & {"column", "column_A", "column_B", "column_list", "column_set"}:
        value = [*ALL[kind][name], wrong] if isinstance(ALL[kind][name], list) else wrong
        message = refusal(tmp_path, expect(kind, **ALL[kind] | {name: value}))
        # A list of names is no name either
        assert f"expectation 1: {name} holds " in message or f"expectation 1: {name} is [" in message


@pytest.mark.parametrize("wrong", [["leak"], {"$PARAMETER": "x"}, 3], ids=str)
def test_a_column_of_a_condition_that_is_no_name_is_refused(wrong: Any, tmp_path: Path):
    condition = {"type": "comparison", "column": {"name": wrong}, "operator": ">", "parameter": 1}
    for told in (condition, {"type": "and", "conditions": [condition, condition]}):
        entry = expect("expect_column_values_to_be_null", **TEXT, row_condition=told)
        assert "a column of row_condition must be a name" in refusal(tmp_path, entry)


@pytest.mark.parametrize("kind", RUNNABLE)
def test_no_argument_can_be_left_out_so_that_all_pass(kind: str, tmp_path: Path):
    """Each of these expectations fails on the table."""
    for name, value in ALL[kind].items():
        rest = {k: v for k, v in ALL[kind].items() if k != name}
        empty = [type(value)()] if isinstance(value, list | dict) else []
        for more in ({}, *({name: each} for each in (None, *empty))):
            try:
                passed = not run(tmp_path, expect(kind, **rest, **more))
            except UserError:
                continue
            # A sum without its strictness, and any JSON, are expectations of their own
            assert not passed or name in ("strict_max", "json_schema"), (name, more)


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({"quantiles": [0.5, 0.6], "value_ranges": [[1, 2]]}, "has 2 quantiles and 1 value_ranges"),
        ({"quantiles": [0.5], "value_ranges": [[1, 2], [1, 2]]}, "has 1 quantiles and 2 value_ranges"),
        ({"quantiles": [], "value_ranges": []}, "has no list 'quantiles'"),
        ({"quantiles": [0.5], "value_range": [[1, 2]]}, "has no list 'value_ranges'"),
        ({"quantiles": [0.5], "value_ranges": [[None, None]]}, "value_ranges holds [null, null]"),
        ({"quantiles": [0.5], "value_ranges": [3]}, "value_ranges holds 3"),
        ({"quantiles": [0.5, 0.1], "value_ranges": [[1, 2], [None, 2]]}, ""),
        ({"$PARAMETER": "ranges"}, ""),
    ],
)
def test_each_quantile_has_its_limits(ranges: dict[str, Any], said: str, tmp_path: Path):
    entry = expect(QUANTILES, **WORDS, quantile_ranges=ranges)
    usual = {"quantiles": [0.5], "value_ranges": [[1, 2]]}
    if said:
        assert said in refusal(tmp_path, entry)
    else:
        assert run(tmp_path, entry, suite_parameters={"ranges": usual}) == ""


@pytest.mark.parametrize(
    "condition",
    [
        "words > 100",
        'answer_class == "lihgt"',
        {"type": "comparison", "column": {"name": "words"}, "operator": ">", "parameter": 100},
    ],
)
def test_a_condition_that_selects_no_row_of_any_file_is_refused(condition: Any, tmp_path: Path):
    for kind in ("expect_column_values_to_be_null", "expect_column_values_to_be_unique"):
        entry = expect(kind, **TEXT, row_condition=condition)
        assert "judges nothing: row_condition selects no row of any file" in refusal(tmp_path, entry)
    # One file with such a row is enough, and a count of rows may ask for none
    path, frame = tmp_path / "labelled.json", FRAME.assign(words=200, answer_class="lihgt", text=list("abcd"))
    write_json(path, {"name": "l", "expectations": [entry]})
    frames = {FILE: FRAME, "task/test.jsonl": frame}
    assert validate(path, frames, dict.fromkeys(frames, LINES))["passed"]
    none = expect("expect_table_row_count_to_equal", value=0, row_condition=condition)
    assert run(tmp_path, none) == ""


def test_mostly_of_none_is_refused(tmp_path: Path):
    entry = expect("expect_column_values_to_be_null", column="leak", mostly=0)
    assert "mostly is 0, so that each table passes" in refusal(tmp_path, entry)
    entry["kwargs"]["mostly"] = 0.5
    assert run(tmp_path, entry) == ""


def test_the_nearest_is_found_whatever_its_capitals(tmp_path: Path):
    entry = expect("expect_column_pair_values_to_be_equal", column_a="words", column_b="tags")
    message = refusal(tmp_path, entry)
    assert "'column_a' is unknown" in message and "'column_b' is unknown" in message
    assert message.count("the nearest is 'column_A'") == message.count("the nearest is 'column_B'") == 1


def test_records_that_are_no_json_are_named(tmp_path: Path):
    kind = "expect_column_values_to_match_json_schema"
    message = refusal(tmp_path, expect(kind, column="answer", json_schema={"type": "object"}))
    assert f'{FILE}:12: "x" is no JSON' in message and f"{FILE}:11" not in message
    assert "is no JSON" not in refusal(tmp_path, expect(kind, column="object", json_schema={"type": "o"}))


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        (
            {"row_condition": '`answer-class` == "x"'},
            "no column 'answer-class'; the nearest is 'answer_class'",
        ),
        ({"row_condition": 'col("words") > 1'}, 'add "condition_parser": "great_expectations"'),
        ({"mostly": {"$PARAMETR": "share"}}, "the only such key is '$PARAMETER'"),
        ({"windows": [{"constraint_fn": "mean"}]}, "windows lacks 0.parameter_name; add it"),
    ],
)
def test_what_is_misspelt_in_a_value_is_said(kwargs: dict[str, Any], said: str, tmp_path: Path):
    message = refusal(tmp_path, expect("expect_column_values_to_be_unique", **TEXT, **kwargs))
    assert said in message


def test_a_column_that_is_no_name_of_python_can_stand_in_a_condition(tmp_path: Path):
    entry = expect("expect_column_values_to_be_null", column="leak", row_condition="`a-b` > 2")
    assert f'{FILE}:14: "near"' in run(tmp_path, entry, frame=FRAME.assign(**{"a-b": 3}))


def test_a_set_speaks_of_the_rows_that_were_judged(tmp_path: Path):
    condition = {"row_condition": 'answer_class == "light"'}
    entry = expect("expect_column_distinct_values_to_be_in_set", **WORDS, value_set=[1], **condition)
    message = run(tmp_path, entry)
    assert (
        "observed 2 in a row that row_condition selects, which is not" in message and "2 rows" not in message
    )


def test_columns_that_may_be_there_are_not_reported(tmp_path: Path):
    kind = "expect_table_columns_to_match_set"
    message = run(tmp_path, expect(kind, column_set=["idd"], exact_match=False))
    assert "no column 'idd', the nearest is 'id'" in message and "is not expected" not in message
    assert "column 'answer' is not expected" in run(tmp_path, expect(kind, column_set=["id"]))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('{"type": "a", "type": "b", "kwargs": {}}', "the key 'type' stands twice"),
        ('{"type": "expect_column_max_to_be_between", "kwargs": {"max_value": NaN}}', "NaN"),
        ('{"type": "expect_column_max_to_be_between", "kwargs": {"max_value": 1e999}}', "1e999"),
    ],
)
def test_an_entry_that_is_no_strict_json_is_named_by_its_line(entry: str, said: str, tmp_path: Path):
    path = tmp_path / "labelled.json"
    path.write_text(f'{{"name": "x", "expectations": [\n{{"type": "c"}},\n{entry}]}}', encoding="utf-8")
    with pytest.raises(UserError) as caught:
        validate(path, {}, {})
    assert f"{path}:3: not a suite: " in str(caught.value) and said in str(caught.value)
