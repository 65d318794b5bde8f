"""Which expectations count for a column that the contract requires.

The gate reads this too, and Great Expectations takes seconds to import. So this file does without it.
"""

import re
from collections.abc import Mapping
from typing import Any

# The type that alone judges a column of ours: a text that should not be there, a request that should be there
# once. Others, such as one of lengths, hold whatever the records say.
USUAL = {
    "schema_error": "expect_column_values_to_be_null",
    "leak": "expect_column_values_to_be_null",
    "normal_text": "expect_column_values_to_be_unique",
}
# Types that judge each record by itself, and name those that fail.
EACH_RECORD = re.compile(r"expect_column_(values_to|value_lengths_to|value_z_scores_to)_")


def judges(column: str, kind: Any) -> bool:
    """Whether an expectation of this type judges the records of a column at all."""
    usual = USUAL.get(column)
    return kind == usual if usual else isinstance(kind, str) and bool(EACH_RECORD.match(kind))


def lets_records_through(limits: Mapping[str, Any]) -> bool:
    return limits.get("mostly", 1) != 1


def judges_each_record(column: str, kind: Any, limits: Mapping[str, Any]) -> bool:
    """Whether it judges every record, and none may fail.

    Args:
        limits: its arguments.
    """
    return judges(column, kind) and not limits.get("row_condition") and not lets_records_through(limits)
